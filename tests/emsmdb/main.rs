//! The emsmdb engine and its async layer, by what their callers see. Virtual time but for the async tests, which
//! wait for nothing but what they caused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod events;
mod ids;
mod limits;
mod logons;
mod model;
mod owed;
mod queue;
mod rig;
mod service;
mod sessions;
mod sharing;
mod sharing_faults;
mod sharing_tables;
mod tables;
mod waits;
