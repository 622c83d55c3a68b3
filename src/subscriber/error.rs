use std::time::Duration;

use crate::sockets::ListenError;

/// Why a subscriber cannot start, or cannot listen for a user.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscriberError {
    /// Neither kind of endpoint.
    #[error("bind: neither a native nor a legacy endpoint: expected at least one")]
    NoEndpoint,
    /// A lease that is too short or too long.
    #[error("lease: {} s: expected 1 to 86400 s", .0.as_secs_f64())]
    Lease(Duration),
    /// A heartbeat that is too fast or too slow.
    #[error("heartbeat: {} ms: expected 10 to 60000 ms", .0.as_millis())]
    Heartbeat(Duration),
    /// A socket cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The resolver did not take a registration. It is tried again.
    #[error(transparent)]
    Resolver(#[from] ocbus_resolver::ResolverError),
}
