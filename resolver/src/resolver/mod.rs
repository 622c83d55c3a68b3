//! The two resolvers: thin loops that carry requests to a store and answers back.

mod blocking;
#[cfg(feature = "tokio")]
mod tokio;

#[cfg(feature = "tokio")]
pub use self::tokio::Resolver;
pub use blocking::BlockingResolver;

use std::time::{SystemTime, UNIX_EPOCH};

use ocbus_wire::openchange::DosCharset;

use crate::cn::Cn;
use crate::listeners::Listeners;
use crate::update::{Request, Response};

/// Milliseconds since the Unix epoch.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Both records of a user, in one round trip.
fn both(cn: &Cn) -> Request {
    Request::Get { keys: vec![cn.lease_key(), cn.resolver_key()], any_copy: true }
}

fn listeners(cn: &Cn, response: Response, charset: DosCharset) -> Listeners {
    let Response::Items(items) = response else { return Listeners::default() };
    let mut items = items.into_iter();
    let mut value = || items.next().flatten().map(|item| item.value);
    let (leases, hosts) = (value(), value());
    Listeners::read(cn, leases.as_deref(), hosts.as_deref(), charset, now_ms())
}
