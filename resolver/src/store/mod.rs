//! Where the records are: memcached, or this process's memory.

#[cfg(feature = "tokio")]
mod async_memcached;
#[cfg(feature = "tokio")]
mod async_server;
mod blocking_memcached;
mod blocking_server;
mod commands;
mod connection;
mod memory;
#[cfg(feature = "tokio")]
mod pipeline;
mod pool;

#[cfg(feature = "tokio")]
pub(crate) use async_memcached::AsyncMemcached;
pub(crate) use blocking_memcached::BlockingMemcached;
pub use memory::MemoryStore;

use std::time::Duration;

use memcache::exp::Error;

use crate::error::ResolverError;

/// memcached reads an expiry above 30 days as a point in time. No lease is that long.
const MAX_EXPIRY_S: u64 = 30 * 24 * 60 * 60;

/// Whole seconds for memcached, so that a record never goes before its last lease: rounded up, and one more, as
/// memcached's clock ticks in seconds and the first one may be short. `None` is never.
fn expiry_s(expiry: Option<Duration>) -> u32 {
    let Some(expiry) = expiry else { return 0 };
    let seconds = expiry.as_secs().saturating_add(u64::from(expiry.subsec_nanos() > 0)).saturating_add(1);
    u32::try_from(seconds.clamp(1, MAX_EXPIRY_S)).unwrap_or(u32::MAX)
}

/// The error of a call on memcached, by what the caller can do about it.
fn failed(server: &impl ToString, source: Error) -> ResolverError {
    let server = server.to_string();
    match timed_out(&source) {
        true => ResolverError::Deadline { server },
        false => ResolverError::Memcached { server, source },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_never_short_and_never_zero() {
        assert_eq!(expiry_s(None), 0);
        assert_eq!(expiry_s(Some(Duration::ZERO)), 1);
        assert_eq!(expiry_s(Some(Duration::from_secs(1))), 2);
        assert_eq!(expiry_s(Some(Duration::from_millis(1001))), 3);
        assert_eq!(expiry_s(Some(Duration::from_secs(u64::MAX))), 2_592_000);
    }
}
