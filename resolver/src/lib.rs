//! Who listens for a user: native leases and OpenChange's resolver records, in memcached or in memory.
//!
//! * [`Cn`]: the checked name under which a user's endpoints stand.
//! * [`Config`]: libmemcached's configuration string; [`Selection`]: which server of it holds a key.
//! * [`BlockingResolver`] (for the Dovecot plugin) and [`Resolver`] (tokio): register, renew, leave, look up.
//!   Both are thin: what a call does to a record is decided in `edit`, and the compare-and-swap loop is one
//!   state machine without I/O, in `update`.
//! * [`Census`]: everybody who is registered.
//! * [`BlockingSessionRecords`] and `SessionRecords` (tokio): OpenChange's records of sessions, their subscriptions, and
//!   what waits for them.
//! * [`delivery`]: which endpoints get which octets, and what a failed send means for the records. Shared by
//!   the plugin and the async publisher, so that both decide alike.

#[cfg(feature = "tokio")]
mod canary;
#[cfg(feature = "tokio")]
mod census;
mod cn;
mod config;
pub mod delivery;
#[cfg_attr(not(feature = "tokio"), allow(dead_code, reason = "only tokio's resolver registers"))]
mod edit;
mod error;
mod listeners;
#[cfg(test)]
mod logged;
mod names;
mod resolver;
mod selection;
mod sessions;
mod share;
mod store;
#[cfg_attr(not(feature = "tokio"), allow(dead_code, reason = "as above"))]
mod update;
#[cfg(feature = "tokio")]
mod update_many;

#[cfg(feature = "tokio")]
pub use canary::{Canary, Sighting};
#[cfg(feature = "tokio")]
pub use census::{Census, CensusError};
pub use cn::{Cn, CnError};
pub use config::{Config, ConfigError, Place, Server, Timeouts};
pub use edit::{Registered, Registration, Settlement};
pub use error::ResolverError;
pub use listeners::{Listeners, Malformed};
pub use names::addresses;
pub use resolver::BlockingResolver;
#[cfg(feature = "tokio")]
pub use resolver::Resolver;
pub use selection::{Distribution, KeyHash, Ring, Selection};
#[cfg(feature = "tokio")]
pub use sessions::SessionRecords;
pub use sessions::{Appended, BlockingSessionRecords, MAX_DELIVER_OCTETS, SessionsError, Taken};
pub use store::MemoryStore;
