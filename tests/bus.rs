//! The bus in one process: order, filters, slow subscribers, repetitions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use ocbus::bus::{Bus, Filter, Statistics};
use ocbus::wire::{NewMessage, ResyncReason, Transfer, UidSet};
use ocbus::{Event, EventKind, Mailbox};
use uuid::Uuid;

fn new_mail(user: &str, mailbox: &str, uid: u32) -> Event {
    let kind = EventKind::MessageNew(NewMessage { uid: Some(uid), ..NewMessage::default() });
    Event::new(Uuid::now_v7(), 1, user, Mailbox::new(mailbox, '/'), kind)
}

fn uid(event: &Event) -> u32 {
    match &event.kind {
        EventKind::MessageNew(message) => message.uid.unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn events_come_in_order_to_everyone_who_wants_them_and_to_nobody_else() {
    let bus = Bus::new();
    let (mut bob, mut all) = (bus.subscribe(Filter::user("bob")), bus.subscribe(Filter::all()));
    let mut alice = bus.subscribe(Filter::user("alice").or_user("ALICE2"));
    for uid in 1..=5 {
        assert_eq!(bus.publish(new_mail("BOB", "INBOX", uid)).delivered, 2);
    }
    bus.publish(new_mail("alice2", "INBOX", 9));
    for wanted in 1..=5 {
        assert_eq!(uid(&bob.recv().await.unwrap()), wanted);
        assert_eq!(uid(&all.recv().await.unwrap()), wanted);
    }
    assert_eq!(uid(&alice.recv().await.unwrap()), 9);
    assert!(bob.try_recv().is_none() && alice.try_recv().is_none());
}

#[tokio::test]
async fn filters_look_at_kind_and_mailbox_and_let_every_resync_through() {
    let bus = Bus::new();
    let mut mails = bus.subscribe(Filter::user("bob").kind("MessageNew").mailbox("inbox"));
    bus.publish(new_mail("bob", "Sent", 1));
    let expunge = EventKind::MessageExpunge { uids: UidSet::from_iter([1]) };
    bus.publish(Event::new(Uuid::now_v7(), 1, "bob", Mailbox::new("INBOX", '/'), expunge));
    bus.publish(new_mail("bob", "Inbox", 2));
    bus.publish(Event::resync(Uuid::now_v7(), 1, "bob", ResyncReason::Overflow, 3));
    bus.publish(Event::resync(Uuid::now_v7(), 1, "", ResyncReason::Overflow, 4));
    assert_eq!(uid(&mails.recv().await.unwrap()), 2);
    for expected in [3, 4] {
        let resync = mails.recv().await.unwrap();
        assert!(matches!(resync.kind, EventKind::Resync { missed, .. } if missed == expected));
    }
    assert!(mails.try_recv().is_none());

    let mut source = bus.subscribe(Filter::all().mailbox("Drafts"));
    let transfer = Transfer::new(UidSet::from_iter([1]), Mailbox::new("Drafts", '/'), UidSet::new());
    let moved = EventKind::MessageMove(transfer.clone());
    bus.publish(Event::new(Uuid::now_v7(), 1, "bob", Mailbox::new("Sent", '/'), moved));
    let copied = EventKind::MessageCopy(transfer);
    bus.publish(Event::new(Uuid::now_v7(), 1, "bob", Mailbox::new("Sent", '/'), copied));
    assert_eq!(source.recv().await.unwrap().kind.name(), "MessageMove");
    assert!(source.try_recv().is_none(), "a copy leaves its source as it is");
}

#[tokio::test]
async fn a_slow_subscription_loses_what_waits_and_is_told_once_in_its_place() {
    let bus = Bus::new();
    let mut slow = bus.subscribe_with_queue(Filter::user("bob"), 4);
    let mut quick = bus.subscribe_with_queue(Filter::user("bob"), 16);
    for uid in 1..=10 {
        assert_eq!(bus.publish(new_mail("bob", "INBOX", uid)).delivered, 2);
    }
    let first = slow.recv().await.unwrap();
    assert_eq!(first.user, "bob");
    assert!(
        matches!(first.kind, EventKind::Resync { reason: ResyncReason::SlowSubscriber, missed: 8 }),
        "{first:?}"
    );
    for wanted in 9..=10 {
        assert_eq!(uid(&slow.recv().await.unwrap()), wanted);
    }
    for wanted in 1..=10 {
        assert_eq!(uid(&quick.recv().await.unwrap()), wanted, "nobody else loses anything");
    }
    assert!(slow.try_recv().is_none());
    assert_eq!(bus.statistics().lost, 8);
}

#[tokio::test]
async fn an_event_that_was_seen_is_dropped_and_all_is_counted() {
    let bus = Bus::remembering(2);
    let mut bob = bus.subscribe(Filter::user("bob"));
    let first = new_mail("bob", "INBOX", 1);
    assert!(!bus.publish(first.clone()).duplicate);
    assert!(bus.publish(first.clone()).duplicate);
    bus.publish(new_mail("nobody", "INBOX", 1));
    assert_eq!(
        {
            let Statistics { published, duplicates, delivered, unheard, lost, .. } = bus.statistics();
            (published, duplicates, delivered, unheard, lost)
        },
        (2, 1, 1, 1, 0)
    );
    assert_eq!(*bob.recv().await.unwrap(), first);
    assert!(bob.try_recv().is_none());
}

#[tokio::test]
async fn a_dropped_subscription_is_gone() {
    let bus = Bus::new();
    drop((bus.subscribe(Filter::user("bob")), bus.subscribe(Filter::all())));
    assert_eq!(bus.publish(new_mail("bob", "INBOX", 1)).delivered, 0);
    let mut again = bus.subscribe(Filter::user("bob"));
    bus.publish(new_mail("bob", "INBOX", 2));
    assert_eq!(uid(&again.recv().await.unwrap()), 2, "nothing from before it came");
}
