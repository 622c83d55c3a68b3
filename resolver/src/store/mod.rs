//! Where the records are: memcached, or this process's memory.

mod answer;
#[cfg(feature = "tokio")]
mod async_connection;
#[cfg(feature = "tokio")]
mod async_connections;
#[cfg(feature = "tokio")]
mod async_memcached;
#[cfg(feature = "tokio")]
mod async_server;
mod blocking_memcached;
mod blocking_server;
mod buffer;
mod commands;
mod connection;
mod copies;
mod exchange;
mod ineffective;
mod memory;
#[cfg(feature = "tokio")]
mod pipeline;
mod pool;

#[cfg(feature = "tokio")]
pub(crate) use async_memcached::{AsyncMemcached, Timed, answered};
pub(crate) use blocking_memcached::BlockingMemcached;
pub use memory::MemoryStore;

use std::hash::{BuildHasher as _, RandomState};

use memcache::exp::Error;

use crate::error::ResolverError;

/// The error of a call on memcached, by what the caller can do about it.
fn failed(server: &impl ToString, source: Error) -> ResolverError {
    let server = server.to_string();
    match source {
        source if timed_out(&source) => ResolverError::Deadline { server },
        source @ (Error::Server(_) | Error::Usage(_)) => ResolverError::Refused { server, source },
        source => ResolverError::Memcached { server, source },
    }
}

fn timed_out(error: &Error) -> bool {
    match error {
        Error::Timeout { .. } => true,
        // A socket's own time-out is WouldBlock.
        Error::Io(io) => matches!(io.kind(), std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock),
        Error::Ambiguous { source, .. } => timed_out(source),
        _ => false,
    }
}

/// Any number, for a choice among copies and for pauses. Each state of the standard library's has other secrets.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0)
}
