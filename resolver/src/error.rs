use std::time::Duration;

/// Why a call on the resolver failed. The records are as they were, or as the call would have left them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolverError {
    /// memcached's host has no address.
    #[error("memcached {server}: no address: {source}")]
    Name {
        /// host:port.
        server: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// memcached did not answer before the deadline.
    #[error("memcached {server}: no answer within its deadline")]
    Deadline {
        /// host:port.
        server: String,
    },
    /// memcached could not be reached, or answered nonsense.
    #[error("memcached {server}: {source}")]
    Memcached {
        /// host:port.
        server: String,
        /// Why.
        #[source]
        source: memcache::exp::Error,
    },
    /// Others kept changing the record: nothing was written.
    #[error("{key}: changed by others at each of {attempts} attempts")]
    Contended {
        /// The record's key.
        key: String,
        /// Attempts made.
        attempts: u32,
    },
    /// A record in a format of a newer ocbus; it was left alone.
    #[error("{key}: {source}")]
    Record {
        /// The record's key.
        key: String,
        /// Why.
        #[source]
        source: ocbus_wire::native::DecodeError,
    },
    /// The new record cannot be written.
    #[error("{key}: {why}")]
    Unwritable {
        /// The record's key.
        key: String,
        /// Why, and what would be right.
        why: String,
    },
    /// A lease outside what memcached's expiry can say.
    #[error("lease of {} s: expected 1 to 86400 s", .0.as_secs_f64())]
    Lease(Duration),
}

impl ResolverError {
    /// Whether the call waited until its deadline: to try again at once would cost as much again.
    pub fn is_timeout(&self) -> bool {
        match self {
            ResolverError::Deadline { .. } => true,
            ResolverError::Name { source, .. } => source.kind() == std::io::ErrorKind::TimedOut,
            _ => false,
        }
    }

    /// Whether the resolver itself is out of reach, which concerns every user; otherwise it is one user's record.
    pub fn is_outage(&self) -> bool {
        matches!(
            self,
            ResolverError::Name { .. } | ResolverError::Deadline { .. } | ResolverError::Memcached { .. }
        )
    }
}
