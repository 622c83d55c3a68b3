//! A transaction that is told, and whose answers are waited for later.

use std::time::{Duration, Instant};

use ocbus_resolver::Cn;
use ocbus_resolver::delivery::Plan;
use ocbus_wire::Event;
use ocbus_wire::native::Lease;

use crate::sender::Run;

/// A transaction that is not over.
#[derive(Debug)]
pub(super) struct Underway {
    pub(super) told: Told,
    pub(super) stage: Stage,
    pub(super) run: Run,
    pub(super) left: Instant,
}

/// Whose transaction it is, and when it has to be over.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) cn: Cn,
    pub(super) debug: bool,
    /// How its line begins.
    pub(super) head: String,
    pub(super) begun: Instant,
    pub(super) deadline: Instant,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// The daemon has not answered yet.
    HandedOver { events: Vec<Event>, owed: Option<u64> },
    /// The endpoints have not all answered yet. `leases`: whom [`Outage`](super::Outage) may owe something; `held`: a memcached
    /// has just taken over, and so many events of this are owed to whoever registers next (none: it was a try to pay what is owed).
    /// `patience`: how long each has.
    Sent { plan: Plan, leases: Vec<Lease>, held: Option<u64>, patience: Vec<Duration> },
}
