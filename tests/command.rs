//! The command, as users run it: the real binary against a memcached of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "command/census.rs"]
mod census;
#[path = "command/endpoints.rs"]
mod endpoints;
#[path = "command/events.rs"]
mod events;
#[path = "command/inspect.rs"]
mod inspect;
#[path = "command/inspect_ropnotify.rs"]
mod inspect_ropnotify;
#[path = "command/support.rs"]
mod support;
#[path = "command/usage.rs"]
mod usage;
