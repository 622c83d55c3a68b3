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
    /// memcached lives, and refused this one request: its memory is full, or the value too large for it.
    #[error("memcached {server}: refused: {source}")]
    Refused {
        /// host:port.
        server: String,
        /// What it said.
        #[source]
        source: memcache::exp::Error,
    },
    /// memcached failed a moment ago and is left alone until its retry time is over.
    #[error("memcached {server}: failed before, left alone for {} ms more", .left.as_millis())]
    Down {
        /// host:port.
        server: String,
        /// Until it is tried again.
        left: Duration,
    },
    /// One of several memcacheds is out of reach: this concerns the users whose records it holds, and no others.
    #[error("{source} (one of several: others are in use)")]
    OneServer {
        /// Why.
        #[source]
        source: Box<ResolverError>,
    },
    /// The configuration names no server.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// Others kept changing the record, at each of the attempts or until the deadline. Whether the last write
    /// happened is not known in that case; nothing was written in the other.
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

    /// Whether the resolver itself is out of reach, which concerns every user; otherwise it is one user's record, or
    /// [one of several servers](ResolverError::is_one_server).
    pub fn is_outage(&self) -> bool {
        matches!(
            self,
            ResolverError::Name { .. }
                | ResolverError::Deadline { .. }
                | ResolverError::Memcached { .. }
                | ResolverError::Down { .. }
        )
    }

    /// The server that is out of reach, if that is why: all requests to it fail until it is back.
    pub fn unreachable(&self) -> Option<&str> {
        match self {
            ResolverError::Name { server, .. }
            | ResolverError::Deadline { server }
            | ResolverError::Memcached { server, .. }
            | ResolverError::Down { server, .. } => Some(server),
            ResolverError::OneServer { source } => source.unreachable(),
            _ => None,
        }
    }

    /// Whether a server that lives refused this one request. Others may be served, and this one later.
    pub fn is_refused(&self) -> bool {
        matches!(self, ResolverError::Refused { .. })
    }

    /// Whether one of several servers is out of reach while others are in use. Its next requests fail at once.
    pub fn is_one_server(&self) -> bool {
        matches!(self, ResolverError::OneServer { .. })
    }

    /// The same failure once more, for another of the requests that it ended.
    #[cfg(feature = "tokio")]
    pub(crate) fn again(&self) -> ResolverError {
        match self {
            ResolverError::Name { server, source } => {
                ResolverError::Name { server: server.clone(), source: io_again(source) }
            }
            ResolverError::Deadline { server } => ResolverError::Deadline { server: server.clone() },
            ResolverError::Down { server, left } => {
                ResolverError::Down { server: server.clone(), left: *left }
            }
            ResolverError::OneServer { source } => {
                ResolverError::OneServer { source: Box::new(source.again()) }
            }
            ResolverError::Config(error) => ResolverError::Config(error.clone()),
            ResolverError::Lease(lease) => ResolverError::Lease(*lease),
            ResolverError::Memcached { server, source } => {
                ResolverError::Memcached { server: server.clone(), source: source_again(source) }
            }
            ResolverError::Refused { server, source } => {
                ResolverError::Refused { server: server.clone(), source: source_again(source) }
            }
            // Of one record, and none that a connection's end could be.
            other @ (ResolverError::Contended { key, .. }
            | ResolverError::Record { key, .. }
            | ResolverError::Unwritable { key, .. }) => {
                ResolverError::Unwritable { key: key.clone(), why: other.to_string() }
            }
        }
    }

    /// Whether nobody was asked: a server failed a moment ago, which whoever asked it then was told.
    pub fn is_left_alone(&self) -> bool {
        match self {
            ResolverError::OneServer { source } => source.is_left_alone(),
            ResolverError::Down { .. } => true,
            _ => false,
        }
    }
}

#[cfg(feature = "tokio")]
fn source_again(source: &memcache::exp::Error) -> memcache::exp::Error {
    use memcache::exp::Error;
    match source {
        Error::Io(error) => Error::Io(io_again(error)),
        Error::Server(why) => Error::Server(why.clone()),
        Error::Rejected(why) => Error::Rejected(why.clone()),
        other => Error::Protocol(other.to_string()),
    }
}

#[cfg(feature = "tokio")]
fn io_again(error: &std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), error.to_string())
}
