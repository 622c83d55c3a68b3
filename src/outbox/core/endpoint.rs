//! An endpoint's place in a user's log.

use std::time::Instant;

use ocbus_wire::Endpoint;
use ocbus_wire::native::Lease;
use uuid::Uuid;

/// An endpoint of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::outbox) enum Who {
    /// A subscriber process at a URL.
    Native { url: String, subscriber: Uuid },
    /// OpenChange's.
    Legacy { url: String },
}

impl Who {
    pub(in crate::outbox) fn native(lease: &Lease) -> Who {
        Who::Native { url: lease.endpoint.clone(), subscriber: lease.subscriber }
    }

    pub(in crate::outbox) fn legacy(url: &str) -> Who {
        Who::Legacy { url: url.to_owned() }
    }

    pub(super) fn is_native(&self) -> bool {
        matches!(self, Who::Native { .. })
    }

    pub(super) fn url(&self) -> &str {
        match self {
            Who::Native { url, .. } | Who::Legacy { url } => url,
        }
    }

    fn subscriber(&self) -> Option<Uuid> {
        match self {
            Who::Native { subscriber, .. } => Some(*subscriber),
            Who::Legacy { .. } => None,
        }
    }

    /// How likely one is the other, started anew.
    pub(super) fn likeness(&self, other: &Who) -> u32 {
        let (ours, theirs) = (self.url(), other.url());
        match () {
            () if self.subscriber() == other.subscriber() => 3,
            () if ours == theirs => 2,
            () if self.is_beside(other) => 1,
            () => 0,
        }
    }

    /// Whether both are on one host.
    pub(super) fn is_beside(&self, other: &Who) -> bool {
        match (Endpoint::parse(self.url()), Endpoint::parse(other.url())) {
            (Ok(Endpoint::Tcp { host: ours, .. }), Ok(Endpoint::Tcp { host: theirs, .. })) => ours == theirs,
            (Ok(Endpoint::Ipc { .. }), Ok(Endpoint::Ipc { .. })) => true,
            _ => false,
        }
    }
}

/// How far an endpoint is.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) who: Who,
    /// As it was looked up last; a native one's.
    pub(super) lease: Option<Lease>,
    /// Where it began.
    pub(super) start: u64,
    /// The first entry that it has not got.
    pub(super) cursor: u64,
    /// A send is under way, of everything in front of this.
    pub(super) sending: Option<u64>,
    /// Failures in a row.
    pub(super) attempts: u32,
    /// It is not sent to without a look-up: a send has failed, or is not to be made yet (see `backoff.rs`).
    pub(super) waits: bool,
    /// It stood in the record at the last look-up, and nothing was heard to the contrary. A native one that does not
    /// is an orphan: what it has not got is held for whoever takes its place.
    pub(super) present: bool,
    /// When it was looked up last.
    pub(super) seen: Instant,
    /// When it was known to live last: it was found, or it answered.
    pub(super) alive: Instant,
    /// When it was found first.
    pub(super) found: Instant,
}

impl Place {
    pub(super) fn new(who: Who, lease: Option<Lease>, start: u64, now: Instant) -> Place {
        Place {
            who,
            lease,
            start,
            cursor: start,
            sending: None,
            attempts: 0,
            waits: false,
            present: true,
            seen: now,
            alive: now,
            found: now,
        }
    }

    pub(super) fn is_orphan(&self) -> bool {
        !self.present && self.who.is_native()
    }
}
