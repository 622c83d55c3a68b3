//! The queue: folding, bounds, and what is fetched of it.

use ocbus::emsmdb::{EngineConfig, TableKind};
use ocbus::wire::ropnotify::{
    FolderId, MessageRow, Notification, NotificationTypes, Scope, TableEvent, Tags,
};
use ocbus::{Event, EventKind};

use super::rig::{
    ALL, CONTENTS, ROOM, Rig, SUBSCRIPTION, created, deleted, fid, folder_modified, know, mid, modified,
    new_mail, popped_up, table, uids,
};

fn notify(rig: &mut Rig, notification: Notification) {
    let handle = match notification {
        Notification::ContentsTable(_) => CONTENTS,
        _ => SUBSCRIPTION,
    };
    rig.engine.notify(rig.session, handle, notification, rig.now).unwrap();
}

fn gone(uid: u32) -> Notification {
    let row = MessageRow { folder: fid("INBOX"), message: mid("INBOX", uid), instance: 0 };
    Notification::ContentsTable(TableEvent::RowDeleted { row })
}

const CHANGED: Notification = Notification::ContentsTable(TableEvent::Changed);

fn with_table(config: EngineConfig) -> Rig {
    let mut rig = Rig::with(config);
    rig.subscribe(SUBSCRIPTION, ALL, Scope::Store);
    rig.open_table(table(CONTENTS, TableKind::Contents, "INBOX"));
    rig
}

#[test]
fn the_sixth_row_of_a_table_makes_one_change_of_all() {
    let mut rig = with_table(EngineConfig::default());
    rig.open_table(table(0x40, TableKind::Contents, "INBOX"));
    for uid in 1..=5 {
        notify(&mut rig, gone(uid));
    }
    let other = gone(9);
    rig.engine.notify(rig.session, 0x40, other.clone(), rig.now).unwrap();
    assert_eq!(rig.told(), [gone(1), gone(2), gone(3), gone(4), gone(5), other.clone()]);

    notify(&mut rig, deleted("INBOX", 1));
    for uid in 1..=4 {
        notify(&mut rig, gone(uid));
    }
    rig.engine.notify(rig.session, 0x40, other.clone(), rig.now).unwrap();
    for uid in 5..=9 {
        notify(&mut rig, gone(uid));
    }
    notify(&mut rig, deleted("INBOX", 2));
    notify(&mut rig, CHANGED);
    assert_eq!(rig.told(), [deleted("INBOX", 1), CHANGED, other, deleted("INBOX", 2)]);

    notify(&mut rig, gone(1));
    assert_eq!(rig.told(), [gone(1)], "the count begins anew");
}

#[test]
fn rows_that_were_fetched_count_no_longer() {
    let mut rig = with_table(EngineConfig::default());
    for uid in 1..=20 {
        notify(&mut rig, gone(uid));
        if uid > 4 {
            let (replies, taken) = rig.take(33);
            assert_eq!((replies[0].notification.clone(), taken.pending), (gone(uid - 4), true));
        }
    }
}

#[test]
fn a_table_may_be_told_by_change_only() {
    let mut rig = with_table(EngineConfig { rows_per_table: 0, ..EngineConfig::default() });
    notify(&mut rig, gone(1));
    notify(&mut rig, gone(2));
    assert_eq!(rig.told(), [CHANGED]);
}

#[test]
fn a_folders_counts_are_brought_up_to_date_in_place() {
    let mut rig = with_table(EngineConfig::default());
    let counts = [
        (None, None),
        (Some(1), None),
        (Some(1), Some(2)),
        (None, Some(3)),
        (None, None),
        (Some(7), Some(8)),
    ];
    for first in counts {
        for second in counts {
            // Where the unread count alone has changed, the total is what it was.
            let total = if second == (None, Some(3)) { first.0 } else { second.0 };
            notify(&mut rig, folder_modified("Sent", None, None));
            notify(&mut rig, folder_modified("INBOX", first.0, first.1));
            notify(&mut rig, created("INBOX", 1));
            notify(&mut rig, folder_modified("INBOX", second.0, second.1));
            assert_eq!(
                rig.told(),
                [
                    folder_modified("Sent", None, None),
                    folder_modified("INBOX", total, second.1),
                    created("INBOX", 1)
                ]
            );
        }
    }
    assert_eq!(rig.engine.statistics().folded, 36);
}

/// New mail with its counts, then something that leaves the total as it was, or that does not say it.
#[test]
fn a_flag_change_keeps_a_total_that_is_not_told_yet_and_an_unknown_total_takes_it_back() {
    // Also where the queue is full, and a resync stands for both.
    for fill in [0, 16] {
        let mut rig = Rig::with(EngineConfig { queue_replies: 16, ..EngineConfig::default() });
        rig.subscribe(1, NotificationTypes::OBJECT_MODIFIED, Scope::Folder(fid("INBOX")));
        rig.subscribe(2, ALL, Scope::Folder(fid("Sent")));
        let happens = |rig: &mut Rig, kind, messages, unseen| {
            let event = Event { messages, unseen, ..rig.event("INBOX", kind) };
            rig.give(event);
            rig.answer_all(know);
        };
        let mut last = |second: EventKind, messages, unseen| {
            for uid in 0..fill {
                rig.engine.notify(rig.session, 2, created("Sent", uid), rig.now).unwrap();
            }
            happens(&mut rig, new_mail(1), Some(42), Some(3));
            happens(&mut rig, second, messages, unseen);
            let told = rig.told_to(1).into_iter();
            told.filter(|told| matches!(told, Notification::FolderModified { .. })).collect::<Vec<_>>()
        };
        let read = || EventKind::MessageRead { uids: uids([1]) };
        assert_eq!(last(read(), Some(42), Some(2)), [folder_modified("INBOX", Some(42), Some(2))], "{fill}");
        assert_eq!(last(read(), None, None), [folder_modified("INBOX", None, None)], "{fill}");
        // As from Dovecot's own push driver, which tells of a mail how many are unread and not how many there are.
        assert_eq!(last(new_mail(2), None, Some(4)), [folder_modified("INBOX", None, Some(4))], "{fill}");
    }
}

#[test]
fn a_message_is_modified_once_for_each_subscription_until_it_is_fetched() {
    let mut rig = with_table(EngineConfig::default());
    rig.subscribe(2, NotificationTypes::OBJECT_MODIFIED, Scope::Folder(fid("INBOX")));
    for _ in 0..3 {
        rig.happens("INBOX", EventKind::MessageRead { uids: uids([1]) });
    }
    let told = rig.replies();
    assert_eq!(told.iter().filter(|reply| reply.notification == modified("INBOX", 1)).count(), 2);
    rig.happens("INBOX", EventKind::MessageRead { uids: uids([1]) });
    assert!(rig.told().contains(&modified("INBOX", 1)));
}

#[test]
fn a_full_queue_keeps_what_it_has_and_a_resync_stands_for_the_rest() {
    for config in [
        EngineConfig { queue_octets: 1_024, row_octets: 100, ..EngineConfig::default() },
        EngineConfig { queue_replies: 24, ..EngineConfig::default() },
    ] {
        let mut rig = with_table(config);
        let all: Vec<Notification> = (1..=100).map(|uid| created("INBOX", uid)).collect();
        all.iter().for_each(|notification| notify(&mut rig, notification.clone()));
        notify(&mut rig, gone(1));
        notify(&mut rig, folder_modified("Sent", Some(1), None));
        notify(&mut rig, created("INBOX", 101));
        notify(&mut rig, folder_modified("INBOX", Some(5), Some(6)));
        notify(&mut rig, folder_modified("Sent", Some(2), Some(1)));
        let told = rig.told();
        let kept = told.len() - 3;
        assert!(kept > 20 && told[..kept] == all[..kept], "in front, whole and in order: {told:?}");
        assert_eq!(
            told[kept..],
            [CHANGED, folder_modified("INBOX", Some(5), Some(6)), folder_modified("Sent", Some(2), Some(1))]
        );
        let statistics = rig.engine.statistics();
        assert_eq!((statistics.overflows, statistics.lost), (1, 105 - u64::try_from(kept).unwrap()));
        notify(&mut rig, created("INBOX", 200));
        assert_eq!(rig.told(), [created("INBOX", 200)], "then all is as before");
    }
}

#[test]
fn what_comes_while_a_resync_is_due_does_not_overtake_it() {
    let mut rig = with_table(EngineConfig { queue_replies: 16, ..EngineConfig::default() });
    for uid in 1..=17 {
        notify(&mut rig, created("INBOX", uid));
    }
    let (replies, taken) = rig.take(15 * 26 + 3);
    assert_eq!((replies.len(), taken.pending), (15, true));
    // There is room in the queue now, but the resync comes first, and says this too.
    notify(&mut rig, created("Sent", 1));
    assert_eq!(
        rig.told(),
        [created("INBOX", 16), folder_modified("INBOX", None, None), folder_modified("Sent", None, None)]
    );
}

#[test]
fn a_resync_that_is_larger_than_the_queue_comes_in_parts() {
    let config = EngineConfig { queue_replies: 16, ..EngineConfig::default() };
    let mut rig = with_table(config);
    let folder = |n: u64| FolderId::from_parts(1, n).unwrap();
    let changed = |n| Notification::FolderModified {
        folder: folder(n),
        tags: Tags::default(),
        total: None,
        unread: None,
    };
    for n in 1..=100 {
        notify(&mut rig, changed(n));
    }
    let mut told = Vec::new();
    loop {
        let (replies, taken) = rig.take(200);
        told.extend(replies.into_iter().map(|reply| reply.notification));
        if !taken.pending {
            break;
        }
    }
    assert_eq!(told, (1..=100).map(changed).collect::<Vec<_>>());
}

#[test]
fn who_is_not_told_of_folders_gets_the_last_that_did_not_fit() {
    let mut rig = Rig::with(EngineConfig { queue_replies: 16, ..EngineConfig::default() });
    rig.subscribe(SUBSCRIPTION, NotificationTypes::NEW_MAIL, Scope::Store);
    for uid in 1..=40 {
        rig.happens("INBOX", new_mail(uid));
    }
    let told = rig.told();
    assert_eq!(told.len(), 17);
    assert_eq!((told[15].clone(), told[16].clone()), (popped_up(16), popped_up(40)));
}

#[test]
fn a_resync_that_waits_is_taken_back_with_its_handles() {
    let mut rig = Rig::with(EngineConfig { queue_replies: 16, ..EngineConfig::default() });
    rig.subscribe(1, NotificationTypes::NEW_MAIL, Scope::Store);
    rig.open_table(table(CONTENTS, TableKind::Contents, "INBOX"));
    for uid in 1..=40 {
        rig.happens("INBOX", new_mail(uid));
    }
    for handle in [1, CONTENTS] {
        rig.engine.release(rig.session, handle, rig.now).unwrap();
    }
    assert_eq!(rig.told(), []);
    assert!(!rig.engine.has_replies(rig.session));
}

#[test]
fn only_whole_replies_are_fetched_and_pending_says_that_there_are_more() {
    let mut rig = with_table(EngineConfig::default());
    let fill = |rig: &mut Rig| (1..=3).for_each(|uid| notify(rig, created("INBOX", uid)));
    // Room, replies fetched, octets written: 26 for each reply, 3 for RopPending.
    let rows = [
        (0, 0, 0),
        (2, 0, 0),
        (3, 0, 3),
        (25, 0, 3),
        (28, 0, 3),
        (29, 1, 29),
        (54, 1, 29),
        (55, 2, 55),
        (77, 2, 55),
        (78, 3, 78),
        (ROOM, 3, 78),
    ];
    for (room, replies, octets) in rows {
        fill(&mut rig);
        let (told, taken) = rig.take(room);
        assert_eq!((told.len(), taken.octets, taken.pending), (replies, octets, replies < 3), "{room}");
        let (rest, _) = rig.take(ROOM);
        let all: Vec<_> = told.into_iter().chain(rest).map(|reply| reply.notification).collect();
        assert_eq!(all, (1..=3).map(|uid| created("INBOX", uid)).collect::<Vec<_>>(), "{room}");
    }
    let (told, taken) = rig.take(ROOM);
    assert_eq!((told.len(), taken.pending, taken.octets), (0, false, 0), "nothing, and no RopPending");
}

#[test]
fn pending_names_the_session_by_its_index() {
    let mut rig = with_table(EngineConfig::default());
    notify(&mut rig, created("INBOX", 1));
    let mut out = vec![0xff];
    rig.engine.take(rig.session, 3, &mut out, rig.now).unwrap();
    assert_eq!(out, [0xff, 0x6e, 7, 0], "behind what was there");
}

#[test]
fn a_long_life_of_slow_fetching_keeps_order_and_memory() {
    let mut rig = with_table(EngineConfig { queue_octets: 65_536, ..EngineConfig::default() });
    let (mut next, mut expected) = (1, 1);
    for _ in 0..200 {
        for _ in 0..40 {
            notify(&mut rig, created("INBOX", next));
            next += 1;
        }
        let (replies, _) = rig.take(40 * 26 + 3);
        for reply in replies {
            assert_eq!(reply.notification, created("INBOX", expected));
            expected += 1;
        }
    }
    assert_eq!(expected, next);
}
