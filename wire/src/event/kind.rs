use super::{Mailbox, UidSet};

/// What happened: the events of RFC 5423 that Dovecot knows, copies and moves kept apart, and [`Resync`].
///
/// [`Resync`]: EventKind::Resync
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// A message was delivered (LDA, LMTP).
    MessageNew(NewMessage),
    /// A message was added by a client (IMAP APPEND), not delivered.
    MessageAppend(NewMessage),
    /// Messages were copied here; they still are where they were.
    MessageCopy(Transfer),
    /// Messages were moved here; they are gone from where they were.
    MessageMove(Transfer),
    /// `\Seen` was set.
    MessageRead {
        /// The messages.
        uids: UidSet,
    },
    /// `\Deleted` was set.
    MessageTrash {
        /// The messages.
        uids: UidSet,
    },
    /// Messages are gone for good.
    MessageExpunge {
        /// The messages.
        uids: UidSet,
    },
    /// Flags or keywords were set, other than what [`EventKind::MessageRead`] and
    /// [`EventKind::MessageTrash`] tell.
    FlagsSet {
        /// The messages.
        uids: UidSet,
        /// System flags, as `\Flagged`.
        flags: Vec<String>,
        /// Keywords.
        keywords: Vec<String>,
    },
    /// Flags or keywords were removed.
    FlagsClear {
        /// The messages.
        uids: UidSet,
        /// System flags, as `\Flagged`.
        flags: Vec<String>,
        /// Keywords.
        keywords: Vec<String>,
    },
    /// The mailbox was made.
    MailboxCreate,
    /// The mailbox is gone.
    MailboxDelete,
    /// The mailbox has its name now; it had another before.
    MailboxRename {
        /// The mailbox under its former name.
        old: Mailbox,
    },
    /// The user subscribed to the mailbox.
    MailboxSubscribe,
    /// The user unsubscribed from the mailbox.
    MailboxUnsubscribe,
    /// Something may have been missed: look at the mailbox again, or at all of them.
    Resync {
        /// Why.
        reason: ResyncReason,
        /// How many events are known to be missing; 0 when unknown.
        missed: u64,
    },
    /// A kind that this version does not know. Kept, so that it can be passed on and counted.
    Unknown {
        /// Its name on the wire.
        name: String,
    },
}

/// Why a subscriber may have missed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResyncReason {
    /// The subscriber was slower than the events, and its queue dropped what waited in it.
    SlowSubscriber,
    /// A publisher could not reach this subscriber's endpoint, and said so in the lease.
    Unreachable,
    /// The resolver had forgotten the subscriber's registrations, so publishers could not find it.
    ResolverLost,
    /// A queue on the way was full.
    Overflow,
    /// A reason that this version does not know.
    Other,
}

/// A message that is new in a mailbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewMessage {
    /// Its UID; `None` when the source knew only a name.
    pub uid: Option<u32>,
    /// System flags, as `\Seen`.
    pub flags: Vec<String>,
    /// Keywords.
    pub keywords: Vec<String>,
    /// The From header: raw from our plugin, its encoded words decoded where the source was the OX driver or the
    /// Lua script.
    pub from: Option<String>,
    /// The Subject header, likewise.
    pub subject: Option<String>,
    /// The Message-ID header, raw.
    pub message_id: Option<String>,
    /// Octets of the message as stored.
    pub size: Option<u64>,
    /// OpenChange's storage backend, when it is named (`sogo` unless told otherwise).
    pub backend: Option<String>,
    /// The backend's name of the message, when it is not `<uid>.eml`.
    pub name: Option<String>,
}

/// Messages that came from another mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Their UIDs here, in order.
    pub uids: UidSet,
    /// Where they came from.
    pub old: Mailbox,
    /// Their UIDs there, in the same order; empty when unknown.
    pub old_uids: UidSet,
    /// The UIDVALIDITY of where they came from, where known.
    pub old_uidvalidity: Option<u32>,
    /// System flags that all of them have here, as `\Seen`.
    pub flags: Vec<String>,
    /// Keywords that all of them have here.
    pub keywords: Vec<String>,
}

impl Transfer {
    /// Messages that came from `old`, of whose flags nothing is told.
    pub fn new(uids: UidSet, old: Mailbox, old_uids: UidSet) -> Transfer {
        Transfer { uids, old, old_uids, old_uidvalidity: None, flags: Vec::new(), keywords: Vec::new() }
    }
}

impl EventKind {
    /// The name on the wire and in logs: RFC 5423's, where it has one.
    pub fn name(&self) -> &str {
        match self {
            EventKind::MessageNew(_) => "MessageNew",
            EventKind::MessageAppend(_) => "MessageAppend",
            EventKind::MessageCopy(_) => "MessageCopy",
            EventKind::MessageMove(_) => "MessageMove",
            EventKind::MessageRead { .. } => "MessageRead",
            EventKind::MessageTrash { .. } => "MessageTrash",
            EventKind::MessageExpunge { .. } => "MessageExpunge",
            EventKind::FlagsSet { .. } => "FlagsSet",
            EventKind::FlagsClear { .. } => "FlagsClear",
            EventKind::MailboxCreate => "MailboxCreate",
            EventKind::MailboxDelete => "MailboxDelete",
            EventKind::MailboxRename { .. } => "MailboxRename",
            EventKind::MailboxSubscribe => "MailboxSubscribe",
            EventKind::MailboxUnsubscribe => "MailboxUnsubscribe",
            EventKind::Resync { .. } => "Resync",
            EventKind::Unknown { name } => name,
        }
    }
}

impl ResyncReason {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            ResyncReason::SlowSubscriber => "slow-subscriber",
            ResyncReason::Unreachable => "unreachable",
            ResyncReason::ResolverLost => "resolver-lost",
            ResyncReason::Overflow => "overflow",
            ResyncReason::Other => "other",
        }
    }

    pub(crate) fn by_name(name: &str) -> ResyncReason {
        match name {
            "slow-subscriber" => ResyncReason::SlowSubscriber,
            "unreachable" => ResyncReason::Unreachable,
            "resolver-lost" => ResyncReason::ResolverLost,
            "overflow" => ResyncReason::Overflow,
            _ => ResyncReason::Other,
        }
    }
}
