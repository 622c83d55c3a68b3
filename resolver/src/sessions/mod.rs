//! OpenChange's other records, for servers that share the state of their sessions through memcached: which session
//! waits for which (`session:`), what it wants to be told (`subscription:`), and what waits to be told
//! (`deliver:`). Octets and keys are OpenChange's own; see `docs/formats.md`.
//!
//! * `SessionRecords` (tokio) and [`BlockingSessionRecords`]: thin, as the resolvers are. What a call does to a
//!   record is decided in `edit` and `deliver`; the compare-and-swap loop is the resolver's.
//! * [`SessionsError`]: what OpenChange's calls answer, and why.
//!
//! Where OpenChange read a record, changed it and wrote it back whatever had happened meanwhile, every write here is
//! bound to what was read. Nothing expires, as with OpenChange: whoever opens a session closes it.

mod blocking;
mod deliver;
mod edit;
mod error;
#[cfg(feature = "tokio")]
mod tokio;

#[cfg(feature = "tokio")]
pub use self::tokio::SessionRecords;
pub use blocking::BlockingSessionRecords;
pub use deliver::{Appended, MAX_DELIVER_OCTETS, Taken};
pub use error::SessionsError;

use uuid::Uuid;

/// Tells an administrator of replies that were dropped.
fn note(session: &Uuid, appended: Appended) {
    if let Appended::Resynced { dropped, dropped_octets } = appended {
        let session = session.hyphenated();
        tracing::warn!(event = "deliver_resynced", %session, dropped, dropped_octets, "too much waited: a resync instead");
    }
}
