//! The event model: what happened, to whom, in which mailbox.

mod kind;
mod mailbox;
mod uid_set;

pub use kind::{EventKind, NewMessage, ResyncReason, Transfer};
pub use mailbox::Mailbox;
pub use uid_set::UidSet;

use uuid::Uuid;

/// One thing that happened in a mailbox, in the names of RFC 5423.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// UUIDv7, made once by whoever saw the thing happen. A subscriber drops an id that it has seen, so
    /// sending an event twice is harmless.
    pub id: Uuid,
    /// When it happened, in microseconds since the Unix epoch (for a delivery: when Dovecot committed it).
    pub time_us: u64,
    /// Whose mailbox it is: the *cn* under which subscribers register. Empty only in a
    /// [`EventKind::Resync`] that concerns every user of the subscriber.
    pub user: String,
    /// The mailbox. `None` only in a [`EventKind::Resync`] that concerns all of the user's mailboxes.
    pub mailbox: Option<Mailbox>,
    /// The mailbox's UIDVALIDITY, where known.
    pub uidvalidity: Option<u32>,
    /// Messages in the mailbox afterwards, where the source had it at no cost.
    pub messages: Option<u32>,
    /// Messages without `\Seen` in the mailbox afterwards, where the source had it at no cost.
    pub unseen: Option<u32>,
    /// Where among the changes to this mailbox it stands: of two events about one UIDVALIDITY the one with the higher
    /// number was committed later, whatever process told it. `None`: unknown.
    pub order: Option<u64>,
    /// What happened.
    pub kind: EventKind,
}

impl Event {
    /// An event about `mailbox`, with nothing known but its kind.
    pub fn new(id: Uuid, time_us: u64, user: impl Into<String>, mailbox: Mailbox, kind: EventKind) -> Event {
        Event {
            id,
            time_us,
            user: user.into(),
            mailbox: Some(mailbox),
            uidvalidity: None,
            messages: None,
            unseen: None,
            order: None,
            kind,
        }
    }

    /// A resync: whoever receives it may have missed something, and should look again.
    pub fn resync(
        id: Uuid,
        time_us: u64,
        user: impl Into<String>,
        reason: ResyncReason,
        missed: u64,
    ) -> Event {
        Event {
            id,
            time_us,
            user: user.into(),
            mailbox: None,
            uidvalidity: None,
            messages: None,
            unseen: None,
            order: None,
            kind: EventKind::Resync { reason, missed },
        }
    }
}
