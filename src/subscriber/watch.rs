//! What the registrar knows of the resolver from one heartbeat to the next. No I/O.

use ocbus_resolver::Canary;
use tokio::time::Instant;
use uuid::Uuid;

/// What the last heartbeat said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// Nothing planted yet.
    Unknown,
    /// It has not forgotten us.
    Remembers,
    /// It did not answer.
    Absent,
}

#[derive(Debug)]
pub(super) struct Watch {
    pub(super) view: View,
    pub(super) canary: Canary,
    /// A canary was refused: when it is tried again.
    pub(super) plants_at: Option<Instant>,
}

impl Watch {
    pub(super) fn new(subscriber: Uuid) -> Watch {
        Watch { view: View::Unknown, canary: Canary::new(subscriber), plants_at: None }
    }
}
