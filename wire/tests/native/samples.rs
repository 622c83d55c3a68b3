//! An event of every kind with every field, and the values of the golden files.

#![allow(dead_code, reason = "not every test needs them all")]

use ocbus_wire::native::{Ack, Lease, LeaseRecord};
use ocbus_wire::{Event, EventKind, Mailbox, NewMessage, ResyncReason, Transfer, UidSet};
use uuid::{Uuid, uuid};

pub(crate) fn id() -> Uuid {
    uuid!("019b76da-a800-7abc-8def-0123456789ab")
}

pub(crate) fn mailbox() -> Mailbox {
    Mailbox {
        name: "Projects/2026".into(),
        separator: '/',
        storage_name: "Projects.2026".into(),
        list_separator: '.',
    }
}

fn uids() -> UidSet {
    let mut uids: UidSet = [7, 3, u32::MAX].into_iter().collect();
    uids.push_range(100, 100_000);
    uids
}

fn message() -> NewMessage {
    NewMessage {
        uid: Some(u32::MAX),
        flags: vec!["\\Seen".into(), "\\Flagged".into()],
        keywords: vec!["$Forwarded".into(), "Wichtig-ü".into()],
        from: Some("=?utf-8?q?J=C3=BCrgen?= <j@example.org>".into()),
        subject: Some(String::new()),
        message_id: Some("<1@example.org>".into()),
        size: Some(u64::MAX),
        backend: Some("sogo".into()),
        name: Some("4294967295.eml".into()),
    }
}

/// Every kind, with every field.
pub(crate) fn kinds() -> Vec<EventKind> {
    let (flags, keywords) = (vec!["\\Answered".to_owned()], vec!["a".to_owned(), "b".to_owned()]);
    let transfer = || Transfer {
        old_uidvalidity: Some(9),
        flags: flags.clone(),
        keywords: keywords.clone(),
        ..Transfer::new(uids(), Mailbox::new("Entwürfe", '.'), uids())
    };
    vec![
        EventKind::MessageNew(message()),
        EventKind::MessageAppend(message()),
        EventKind::MessageCopy(transfer()),
        EventKind::MessageMove(Transfer { old_uids: UidSet::new(), ..transfer() }),
        EventKind::MessageRead { uids: uids() },
        EventKind::MessageTrash { uids: uids() },
        EventKind::MessageExpunge { uids: uids() },
        EventKind::FlagsSet { uids: uids(), flags: flags.clone(), keywords: keywords.clone() },
        EventKind::FlagsClear { uids: UidSet::new(), flags, keywords },
        EventKind::MailboxCreate,
        EventKind::MailboxDelete,
        EventKind::MailboxRename { old: Mailbox::from_storage("Entw&APw-rfe.Alt", '.') },
        EventKind::MailboxSubscribe,
        EventKind::MailboxUnsubscribe,
        EventKind::Resync { reason: ResyncReason::SlowSubscriber, missed: 0 },
        EventKind::Resync { reason: ResyncReason::Unreachable, missed: 7 },
        EventKind::Resync { reason: ResyncReason::ResolverLost, missed: u64::MAX },
        EventKind::Resync { reason: ResyncReason::Overflow, missed: 1 },
        EventKind::Resync { reason: ResyncReason::Other, missed: 1 },
        EventKind::Unknown { name: "MessageLevitate".into() },
    ]
}

pub(crate) fn full_event(kind: EventKind) -> Event {
    Event {
        id: Uuid::from_u128(u128::MAX),
        time_us: u64::MAX,
        user: "Jürgen@example.org".into(),
        mailbox: Some(mailbox()),
        uidvalidity: Some(u32::MAX),
        messages: Some(0),
        unseen: Some(70_000),
        order: Some(u64::MAX),
        kind,
    }
}

/// What a delivery to a Maildir tells.
pub(crate) fn golden_batch() -> Event {
    let message = NewMessage {
        uid: Some(7),
        from: Some("Ann <ann@example.org>".into()),
        subject: Some("Offer".into()),
        message_id: Some("<1@example.org>".into()),
        size: Some(1234),
        ..NewMessage::default()
    };
    let mut event = Event::new(id(), 1_767_225_600_000_000, "bob", mailbox(), EventKind::MessageNew(message));
    event.uidvalidity = Some(1_767_000_000);
    event
}

pub(crate) fn golden_ack() -> Ack {
    Ack::taken(1, 0, vec!["bob".into()])
}

pub(crate) fn golden_lease() -> LeaseRecord {
    LeaseRecord::new(vec![Lease {
        endpoint: "tcp://127.0.0.1:9005".into(),
        subscriber: uuid!("019b76c7-2000-7000-8000-00000000000a"),
        until_ms: 1_767_225_660_000,
        legacy: Some("tcp://127.0.0.1:9006".into()),
        missed: 2,
    }])
}
