use std::sync::Arc;
use std::time::Duration;

use ocbus_wire::{Event, EventKind, Mailbox, NewMessage, ResyncReason, Transfer, UidSet};
use uuid::Uuid;

/// How many messages a mailbox has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub messages: u32,
    /// Those without `\Seen`.
    pub unseen: u32,
}

/// One thing that happened in a mailbox: an event without its user and id, which cost something and are given when
/// somebody listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub mailbox: Arc<Mailbox>,
    /// Its UIDVALIDITY, where known.
    pub uid_validity: Option<u32>,
    /// As [`Event::order`].
    pub order: Option<u64>,
    /// When it was committed, in microseconds since the Unix epoch.
    pub time_us: u64,
    /// How many messages there were afterwards, where known.
    pub counts: Option<Counts>,
    /// What.
    pub kind: EventKind,
}

impl Change {
    /// In place of what is too much to be told.
    pub fn overflow(&self, missed: u64) -> Change {
        Change {
            kind: EventKind::Resync { reason: ResyncReason::Overflow, missed },
            order: None,
            counts: None,
            ..self.clone()
        }
    }

    /// The same for all mailboxes of the user.
    pub fn overflow_everywhere(&self, missed: u64) -> Change {
        Change { mailbox: Arc::new(Mailbox::new("", '/')), uid_validity: None, ..self.overflow(missed) }
    }

    /// Whether it is the resync of its mailbox.
    pub fn is_resync(&self) -> bool {
        matches!(self.kind, EventKind::Resync { .. })
    }

    /// At most how many octets it takes in a batch.
    pub fn octets(&self) -> usize {
        /// All keys, the id, the time, the order, the counts, the kind's name.
        const FIXED: usize = 190;
        let kind = match &self.kind {
            EventKind::MessageNew(message) | EventKind::MessageAppend(message) => message_octets(message),
            EventKind::MessageCopy(transfer) | EventKind::MessageMove(transfer) => {
                let Transfer { uids, old, old_uids, old_uidvalidity: _, flags, keywords } = transfer;
                sets_octets(&[uids, old_uids])
                    + mailbox_octets(old)
                    + texts_octets(flags)
                    + texts_octets(keywords)
            }
            EventKind::MessageRead { uids }
            | EventKind::MessageTrash { uids }
            | EventKind::MessageExpunge { uids } => sets_octets(&[uids]),
            EventKind::FlagsSet { uids, flags, keywords }
            | EventKind::FlagsClear { uids, flags, keywords } => {
                sets_octets(&[uids]) + texts_octets(flags) + texts_octets(keywords)
            }
            EventKind::MailboxRename { old } => mailbox_octets(old),
            _ => 0,
        };
        FIXED + mailbox_octets(&self.mailbox) + kind
    }

    fn into_event(self, user: &str) -> Event {
        // Version 7 ids of one process count up, so the order of a transaction shows in them too.
        let everywhere = self.is_resync() && self.mailbox.name.is_empty();
        let mailbox = Arc::unwrap_or_clone(self.mailbox);
        let mut event = Event::new(Uuid::now_v7(), self.time_us, user, mailbox, self.kind);
        if everywhere {
            event.mailbox = None;
        }
        event.uidvalidity = self.uid_validity;
        event.order = self.order;
        event.messages = self.counts.map(|counts| counts.messages);
        event.unseen = self.counts.map(|counts| counts.unseen);
        event
    }
}

fn message_octets(message: &NewMessage) -> usize {
    let texts = [&message.from, &message.subject, &message.message_id];
    let headers: usize = texts.into_iter().flatten().map(|text| text.len() + 8).sum();
    headers + texts_octets(&message.flags) + texts_octets(&message.keywords) + 24
}

fn texts_octets(texts: &[String]) -> usize {
    texts.iter().map(|text| text.len() + 5).sum()
}

fn mailbox_octets(mailbox: &Mailbox) -> usize {
    mailbox.name.len() + mailbox.storage_name.len() + 24
}

/// MessagePack's shortest form of each number.
fn sets_octets(sets: &[&UidSet]) -> usize {
    let number = |uid: u32| match uid {
        0..=0x7f => 1,
        0x80..=0xff => 2,
        0x100..=0xffff => 3,
        _ => 5,
    };
    let ranges = sets.iter().flat_map(|set| set.ranges());
    ranges.map(|&(first, last)| number(first) + number(last)).sum()
}

/// What goes out together, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Part of the budget that the shim has spent already.
    pub waited: Duration,
    /// What happened.
    pub changes: Vec<Change>,
}

impl Delivery {
    /// How many events it makes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether it makes none.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The events, in order.
    pub fn into_events(self, user: &str) -> Vec<Event> {
        self.changes.into_iter().map(|change| change.into_event(user)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocbus_wire::native::Batch;

    #[test]
    fn a_change_is_never_larger_than_it_is_taken_for() {
        let mailbox = Mailbox {
            name: "Entwürfe".to_owned(),
            separator: '/',
            storage_name: "Entw&APw-rfe".to_owned(),
            list_separator: '.',
        };
        let uids: UidSet = (1..60_000u32).map(|uid| uid * 3).collect();
        let words = vec!["\\Flagged".to_owned(), "$label".to_owned()];
        let transfer = Transfer {
            flags: words.clone(),
            keywords: words.clone(),
            ..Transfer::new(
                (1..2000u32).map(|uid| uid * 7).collect(),
                mailbox.clone(),
                UidSet::from_iter([70_000]),
            )
        };
        let message = NewMessage {
            uid: Some(u32::MAX),
            flags: words.clone(),
            keywords: words.clone(),
            from: Some("ü".repeat(256)),
            subject: Some("x".repeat(512)),
            message_id: Some(String::new()),
            size: Some(u64::MAX),
            ..NewMessage::default()
        };
        let kinds = [
            EventKind::MessageNew(message),
            EventKind::MessageMove(transfer),
            EventKind::FlagsSet {
                uids: uids.iter().take(5000).collect(),
                flags: words.clone(),
                keywords: words,
            },
            EventKind::MailboxRename { old: mailbox.clone() },
            EventKind::MailboxUnsubscribe,
            EventKind::Resync { reason: ResyncReason::Overflow, missed: u64::MAX },
        ];
        for kind in kinds {
            let change = Change {
                mailbox: Arc::new(mailbox.clone()),
                uid_validity: Some(u32::MAX),
                order: Some(u64::MAX),
                time_us: u64::MAX,
                counts: Some(Counts { messages: u32::MAX, unseen: u32::MAX }),
                kind,
            };
            let (taken, name) = (change.octets(), change.kind.name().to_owned());
            let event = change.into_event(&"x".repeat(16));
            let real = Batch::of(&event).unwrap().encode().len();
            assert!(real <= taken && taken < real + 200, "{name}: {real} octets, taken for {taken}");
        }
    }
}
