//! Metadata by Dovecot's DoveAdm HTTP API, version 1 (`POST /doveadm/v1`).
//!
//! * `codec`: commands to a request's body, an answer's status and body to outcomes. No I/O.
//! * `client`: both over hyper.

mod client;
mod codec;

pub(crate) use client::chain;
pub use client::{Doveadm, DoveadmConfig, DoveadmError};
pub(super) use codec::Command;
pub use codec::{ApiError, Auth, CommandError, Value};

#[cfg(test)]
mod captures;
