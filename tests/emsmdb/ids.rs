//! Ids that come late, not at all, or wrong: order within a folder, other folders pass, and less is told.

use std::time::Duration;

use ocbus::emsmdb::{Answer, EngineConfig, NewSession, Query, QueryId, TableKind, What};
use ocbus::resolver::Cn;
use ocbus::wire::ropnotify::{FolderId, Notification, NotificationTypes, Scope, TableEvent};
use ocbus::wire::{NewMessage, ResyncReason, Transfer};
use ocbus::{Event, EventKind, Mailbox};
use uuid::Uuid;

use super::rig::{
    ALL, CONTENTS, HIERARCHY, Rig, SUBSCRIPTION, created, deleted, fid, folder_modified, know, mid, modified,
    new_mail, table, uids,
};

const CONTENTS_CHANGED: Notification = Notification::ContentsTable(TableEvent::Changed);

/// With the Inbox and Sent known already, and their contents tables open.
fn warm(config: EngineConfig) -> Rig {
    let mut rig = Rig::with(config);
    rig.subscribe(SUBSCRIPTION, ALL, Scope::Store);
    rig.open_table(table(CONTENTS, TableKind::Contents, "INBOX"));
    rig.happens("INBOX", new_mail(1));
    rig.happens("Sent", new_mail(1));
    rig.replies();
    rig.asked.clear();
    rig
}

fn gives(rig: &mut Rig, name: &str, uid: u32) -> Query {
    let event = rig.event(name, new_mail(uid));
    rig.give(event);
    rig.engine.next_query().unwrap()
}

fn answer(rig: &mut Rig, query: &Query) {
    rig.engine.answer(query.id, know(query), rig.now);
}

#[test]
fn the_host_is_told_what_it_needs() {
    let mut rig = Rig::subscribed();
    rig.open_table(table(HIERARCHY, TableKind::Hierarchy, "Lists"));
    let mut mailbox = Mailbox::new("Lists/My list", '/');
    mailbox.storage_name = "Lists.My list".to_owned();
    mailbox.list_separator = '.';
    let mut event = rig.event("x", new_mail(7));
    (event.mailbox, event.uidvalidity) = (Some(mailbox.clone()), Some(99));
    rig.give(event);
    rig.answer_all(know);
    let asked: Vec<&What> = rig.asked.iter().map(|query| &query.what).collect();
    let What::Folder { mailbox: folder, sogo_uri } = asked[0] else { panic!("{asked:?}") };
    assert_eq!(
        (folder.as_ref(), sogo_uri.as_str()),
        (Some(&mailbox), "sogo://bob:bob@mail/folderLists/folderMy_SP_list/")
    );
    let What::Folder { mailbox: Some(parent), sogo_uri } = asked[1] else { panic!("{asked:?}") };
    assert_eq!((parent.name.as_str(), sogo_uri.as_str()), ("Lists", "sogo://bob:bob@mail/folderLists/"));
    let What::Messages { folder, uidvalidity, messages, .. } = asked[2] else { panic!("{asked:?}") };
    assert_eq!((*folder, *uidvalidity), (fid("Lists/My list"), Some(99)));
    assert_eq!((messages.len(), messages[0].uid), (1, Some(7)));
    assert_eq!(messages[0].sogo_uri, "sogo://bob:bob@mail/folderLists/folderMy_SP_list/7.eml");
    assert!(rig.asked.iter().all(|query| query.cn.as_str() == "bob"));
}

/// Without it a host takes a UID of a mailbox that was deleted, and made again under its name, for one of the new one.
#[test]
fn each_side_of_a_move_is_asked_with_its_own_uidvalidity() {
    for copied in [false, true] {
        for old_uidvalidity in [Some(7), None] {
            let mut rig = warm(EngineConfig::default());
            let transfer = Transfer {
                old_uidvalidity,
                ..Transfer::new(uids([5]), Mailbox::new("INBOX", '/'), uids([10]))
            };
            let kind = match copied {
                true => EventKind::MessageCopy(transfer),
                false => EventKind::MessageMove(transfer),
            };
            let mut event = rig.event("Sent", kind);
            event.uidvalidity = Some(99);
            rig.give(event);
            rig.answer_all(know);
            let asked = |name: &str| {
                rig.asked.iter().find_map(|query| match &query.what {
                    What::Messages { mailbox, uidvalidity, .. } if mailbox.name == name => Some(*uidvalidity),
                    _ => None,
                })
            };
            assert_eq!((asked("Sent"), asked("INBOX")), (Some(Some(99)), Some(old_uidvalidity)));
        }
    }
}

#[test]
fn a_message_known_by_name_only_is_asked_by_its_name_and_one_known_by_nothing_is_not() {
    let mut rig = warm(EngineConfig::default());
    let named = NewMessage { name: Some("a b.eml".to_owned()), ..NewMessage::default() };
    let event = rig.event("INBOX", EventKind::MessageNew(named));
    rig.give(event);
    let query = rig.engine.next_query().unwrap();
    let What::Messages { messages, .. } = &query.what else { panic!("{query:?}") };
    assert_eq!(
        (messages[0].uid, messages[0].sogo_uri.as_str()),
        (None, "sogo://bob:bob@mail/folderINBOX/a_SP_b.eml")
    );
    rig.engine.answer(query.id, Answer::Messages(vec![Some(mid("INBOX", 5))]), rig.now);
    assert_eq!(rig.told()[1], created("INBOX", 5));
    rig.happens("INBOX", EventKind::MessageNew(NewMessage::default()));
    assert!(rig.asked.is_empty());
    assert_eq!(rig.told(), [folder_modified("INBOX", Some(42), Some(3)), CONTENTS_CHANGED]);
    assert_eq!(rig.engine.statistics().events_without_ids, 1);
}

#[test]
fn events_of_one_folder_wait_for_each_other_and_others_pass() {
    let mut rig = warm(EngineConfig::default());
    let first = gives(&mut rig, "INBOX", 10);
    let second = gives(&mut rig, "INBOX", 11);
    let other = gives(&mut rig, "Sent", 12);
    answer(&mut rig, &second);
    assert_eq!(rig.told(), [], "behind the first");
    answer(&mut rig, &other);
    assert_eq!(rig.told(), [created("Sent", 12), folder_modified("Sent", None, None)]);
    answer(&mut rig, &first);
    let told = rig.told();
    let places: Vec<usize> =
        [10, 11].map(|uid| told.iter().position(|told| *told == created("INBOX", uid)).unwrap()).to_vec();
    assert!(places[0] < places[1], "{told:?}");
    assert_eq!(rig.engine.statistics().pending, 0);
}

#[test]
fn a_move_waits_for_both_folders() {
    let mut rig = warm(EngineConfig::default());
    let into_inbox = gives(&mut rig, "INBOX", 10);
    let transfer = Transfer::new(uids([5]), Mailbox::new("INBOX", '/'), uids([10]));
    let event = rig.event("Sent", EventKind::MessageMove(transfer));
    rig.give(event);
    rig.answer_all(know);
    let behind = gives(&mut rig, "Sent", 6);
    answer(&mut rig, &behind);
    assert_eq!(rig.told(), [], "the move is behind the Inbox, and Sent behind the move");
    answer(&mut rig, &into_inbox);
    let told = rig.told();
    let at = |wanted: fn(&Notification) -> bool| told.iter().position(wanted).unwrap();
    let moved = at(|told| matches!(told, Notification::MessageMoved { .. }));
    assert!(
        at(|told| *told == created("INBOX", 10)) < moved && moved < at(|told| *told == created("Sent", 6))
    );
}

#[test]
fn one_question_about_a_folder_serves_all_who_wait() {
    let mut rig = Rig::subscribed();
    for uid in 1..=3 {
        let event = rig.event("INBOX", new_mail(uid));
        rig.give(event);
    }
    let query = rig.engine.next_query().unwrap();
    assert_eq!(rig.engine.next_query(), None);
    answer(&mut rig, &query);
    rig.answer_all(know);
    assert_eq!(rig.told().len(), 3 + 3 + 1);
    let event = rig.event("INBOX", new_mail(4));
    rig.give(event);
    assert!(
        matches!(rig.engine.next_query().unwrap().what, What::Messages { .. }),
        "the folder is remembered"
    );
}

#[test]
fn without_a_messages_id_its_folder_and_tables_are_told() {
    let expected = [folder_modified("INBOX", None, None), CONTENTS_CHANGED];
    for bad in [
        Answer::Failed,
        Answer::Unknown,
        Answer::Messages(vec![None]),
        Answer::Messages(vec![]),
        Answer::Messages(vec![Some(mid("INBOX", 1)); 2]),
        Answer::Folder(fid("INBOX")),
    ] {
        let mut rig = warm(EngineConfig::default());
        let query = gives(&mut rig, "INBOX", 10);
        rig.engine.answer(query.id, bad.clone(), rig.now);
        assert_eq!(rig.told(), expected, "{bad:?}");
        let statistics = rig.engine.statistics();
        assert_eq!(statistics.events_without_ids, 1, "{bad:?}");
        assert_eq!(statistics.query_failures + statistics.query_unknown, 1, "{bad:?}");
    }
}

#[test]
fn of_several_messages_those_that_are_known_are_told() {
    let mut rig = warm(EngineConfig::default());
    let event = rig.event("INBOX", EventKind::MessageExpunge { uids: uids([1, 2, 3]) });
    rig.give(event);
    rig.answer_all(|_| Answer::Messages(vec![Some(mid("INBOX", 1)), None, Some(mid("INBOX", 3))]));
    assert_eq!(
        rig.told(),
        [deleted("INBOX", 1), deleted("INBOX", 3), folder_modified("INBOX", None, None), CONTENTS_CHANGED]
    );
    let event = rig.event("INBOX", EventKind::MessageTrash { uids: uids([1, 2]) });
    rig.give(event);
    rig.answer_all(|_| Answer::Messages(vec![Some(mid("INBOX", 1)), None]));
    assert_eq!(
        rig.told(),
        [modified("INBOX", 1), folder_modified("INBOX", None, None), CONTENTS_CHANGED],
        "the folder stands for the second"
    );
}

#[test]
fn unanswered_questions_fail_in_time_and_block_nobody_longer() {
    let mut rig = warm(EngineConfig::default());
    let late = gives(&mut rig, "INBOX", 10);
    let behind = gives(&mut rig, "INBOX", 11);
    answer(&mut rig, &behind);
    assert_eq!(rig.engine.next_deadline(), Some(rig.now + Duration::from_secs(2)));
    rig.pass(Duration::from_millis(1_999));
    assert_eq!(rig.told(), []);
    rig.pass(Duration::from_millis(1));
    assert_eq!(
        rig.told(),
        [
            folder_modified("INBOX", None, None),
            CONTENTS_CHANGED,
            super::rig::popped_up(11),
            created("INBOX", 11)
        ]
    );
    answer(&mut rig, &late);
    assert_eq!(rig.told(), [], "too late");
    rig.engine.answer(QueryId::from_u64(12345), Answer::Failed, rig.now);
    let statistics = rig.engine.statistics();
    assert_eq!((statistics.query_timeouts, statistics.late_answers), (1, 2));
}

#[test]
fn without_a_folders_id_everything_is_looked_at_again_but_an_unknown_folder_is_nobodys() {
    let mut rig = warm(EngineConfig::default());
    let query = gives(&mut rig, "Lists", 1);
    rig.engine.answer(query.id, Answer::Failed, rig.now);
    let told = rig.told();
    assert_eq!(told[0], CONTENTS_CHANGED);
    assert!(told.contains(&folder_modified("INBOX", None, None)));
    assert!(told.contains(&folder_modified("Sent", None, None)));
    assert_eq!(told.len(), 3);
    for unknown in [Answer::Unknown, Answer::Unknown] {
        let query = gives(&mut rig, "Lists", 1);
        rig.engine.answer(query.id, unknown, rig.now);
        assert_eq!(rig.told(), []);
    }
    let query = gives(&mut rig, "Lists", 1);
    rig.engine.answer(query.id, Answer::Folder(FolderId::NONE), rig.now);
    assert!(!rig.told().is_empty(), "an id of zero is none");
    assert_eq!(rig.engine.statistics().events_without_ids, 4);
}

#[test]
fn what_leaves_for_an_unknown_folder_is_told_where_it_was() {
    let mut rig = warm(EngineConfig::default());
    let transfer = Transfer::new(uids([5]), Mailbox::new("INBOX", '/'), uids([1]));
    let event = rig.event("Elsewhere", EventKind::MessageMove(transfer));
    rig.give(event);
    rig.answer_all(|query| match &query.what {
        What::Folder { .. } => Answer::Unknown,
        _ => know(query),
    });
    assert_eq!(rig.told(), [folder_modified("INBOX", None, None), CONTENTS_CHANGED]);
}

#[test]
fn a_renamed_or_deleted_folder_is_asked_anew() {
    for kind in [
        EventKind::MailboxDelete,
        EventKind::MailboxCreate,
        EventKind::Resync { reason: ResyncReason::Overflow, missed: 1 },
    ] {
        let mut rig = warm(EngineConfig::default());
        rig.happens("Sent", kind.clone());
        rig.asked.clear();
        rig.happens("Sent", new_mail(2));
        let asked = rig.asked.iter().filter(|query| matches!(query.what, What::Folder { .. })).count();
        let known_already = !matches!(kind, EventKind::MailboxDelete);
        assert_eq!(
            asked,
            usize::from(!known_already),
            "{kind:?}: asked by the event itself unless it is gone"
        );
    }
    let mut rig = warm(EngineConfig::default());
    rig.happens("Sent/2026", new_mail(1));
    rig.happens("Sent old", EventKind::MailboxRename { old: Mailbox::new("Sent", '/') });
    rig.asked.clear();
    rig.happens("Sent/2026", new_mail(2));
    assert!(matches!(rig.asked[0].what, What::Folder { .. }), "what was below it went with it");
    rig.asked.clear();
    rig.give(Event::resync(Uuid::now_v7(), 0, "bob", ResyncReason::Unreachable, 1));
    rig.happens("INBOX", new_mail(2));
    assert!(matches!(rig.asked[0].what, What::Folder { .. }), "after a resync of all");
}

#[test]
fn an_event_behind_a_deletion_does_not_take_the_old_id() {
    let mut rig = warm(EngineConfig::default());
    let gone = rig.event("Sent", EventKind::MailboxDelete);
    rig.give(gone);
    let parent = rig.engine.next_query().unwrap();
    let again = rig.event("Sent", EventKind::MailboxCreate);
    rig.give(again);
    let new = rig.engine.next_query().unwrap();
    assert!(
        matches!(&new.what, What::Folder { mailbox: Some(mailbox), .. } if mailbox.name == "Sent"),
        "{new:?}"
    );
    let other = FolderId::from_parts(1, 0x7777).unwrap();
    rig.engine.answer(new.id, Answer::Folder(other), rig.now);
    assert_eq!(rig.told(), [], "behind the deletion");
    answer(&mut rig, &parent);
    let told = rig.told();
    assert!(
        matches!(told[0], Notification::FolderDeleted { folder, .. } if folder == fid("Sent")),
        "{told:?}"
    );
    assert!(matches!(told[1], Notification::FolderCreated { folder, .. } if folder == other), "{told:?}");
}

#[test]
fn a_resync_of_all_keeps_its_place() {
    let mut rig = warm(EngineConfig::default());
    let before = gives(&mut rig, "INBOX", 10);
    rig.give(Event::resync(Uuid::now_v7(), 0, "bob", ResyncReason::Unreachable, 1));
    let behind = gives(&mut rig, "Sent", 11);
    answer(&mut rig, &behind);
    assert_eq!(rig.told(), [], "behind the resync, which is behind the first");
    answer(&mut rig, &before);
    let told = rig.told();
    let at = |wanted: &Notification| told.iter().position(|told| told == wanted).unwrap();
    assert!(at(&created("INBOX", 10)) < at(&CONTENTS_CHANGED));
    assert!(at(&CONTENTS_CHANGED) < at(&created("Sent", 11)));
}

#[test]
fn more_than_may_wait_become_one_resync_behind_them() {
    for config in [
        EngineConfig { pending_per_user: 3, ..EngineConfig::default() },
        EngineConfig { pending: 3, ..EngineConfig::default() },
    ] {
        let mut rig = warm(config);
        let waiting: Vec<Query> = (10..13).map(|uid| gives(&mut rig, "INBOX", uid)).collect();
        for uid in 13..30 {
            let event = rig.event("INBOX", new_mail(uid));
            rig.give(event);
        }
        assert_eq!(rig.engine.next_query(), None, "nothing more is asked");
        assert_eq!(rig.engine.statistics().pending, 4);
        assert_eq!(rig.engine.statistics().events_over, 17);
        for query in &waiting {
            answer(&mut rig, query);
        }
        let told = rig.told();
        let created = told.iter().filter(|told| matches!(told, Notification::MessageCreated { .. })).count();
        assert_eq!(created, 3);
        assert!(told.contains(&CONTENTS_CHANGED) && told.contains(&folder_modified("INBOX", None, None)));
        assert_eq!(rig.engine.statistics().pending, 0);
    }
}

/// The bound is everybody's: whoever has nothing of their own in front is told at once, and holds no place in it.
#[test]
fn a_user_with_nothing_in_front_is_told_when_others_fill_the_bound() {
    let mut rig = warm(EngineConfig { pending: 1, ..EngineConfig::default() });
    let eve = NewSession { guid: Uuid::from_u128(8), cn: Cn::new("eve").unwrap(), index: 8 };
    rig.engine.open(eve, rig.now).unwrap();
    let mut event = rig.event("INBOX", new_mail(1));
    event.user = "eve".to_owned();
    rig.give(event);
    let waiting = rig.engine.next_query().unwrap();
    let event = rig.event("INBOX", new_mail(10));
    rig.give(event);
    let told = rig.told();
    assert!(
        told.contains(&CONTENTS_CHANGED) && told.contains(&folder_modified("INBOX", None, None)),
        "{told:?}"
    );
    assert_eq!(rig.engine.statistics().pending, 1, "eve's");
    answer(&mut rig, &waiting);
    rig.answer_all(know);
    assert_eq!(rig.engine.statistics().pending, 0);
}

#[test]
fn a_large_event_counts_as_several() {
    let mut rig = warm(EngineConfig { pending: 100, ..EngineConfig::default() });
    let scattered = uids((1..10_000).step_by(2));
    let event = rig.event("Trash", EventKind::MessageExpunge { uids: scattered });
    rig.give(event);
    assert!(rig.engine.statistics().pending > 100, "5,000 ranges take 40 kB");
    gives_nothing(&mut rig);
    rig.answer_all(know);
    assert_eq!(rig.engine.statistics().pending, 0);
}

/// One more event is over the bound: nothing is asked for it.
fn gives_nothing(rig: &mut Rig) {
    let asked = rig.engine.statistics().queries;
    let event = rig.event("Lists", new_mail(1));
    rig.give(event);
    assert_eq!((rig.engine.statistics().queries, rig.engine.statistics().events_over), (asked, 1));
}

#[test]
fn of_many_tables_so_many_rows_are_asked_for_one_event() {
    let mut rig = warm(EngineConfig { handles_per_session: 1000, ..EngineConfig::default() });
    for handle in 1000..1300 {
        rig.open_table(table(handle, TableKind::Contents, "Sent"));
        rig.engine.set_columns(rig.session, handle, &[0x0037_001f], rig.now).unwrap();
    }
    rig.happens("Sent", new_mail(2));
    let rows = rig.asked.iter().filter(|query| matches!(query.what, What::Row { .. })).count();
    assert_eq!(rows, 256);
    let changed = rig.replies().iter().filter(|reply| reply.notification == CONTENTS_CHANGED).count();
    assert_eq!(changed, 300, "each is told, with its row or without");
}

/// A host like OpenChange gives a folder its id when a client lists the folders: it must come to do that.
#[test]
fn a_new_folder_that_the_host_does_not_know_yet_is_told_as_a_change_of_the_list_that_it_is_in() {
    let mut rig = Rig::subscribed();
    rig.open_table(table(HIERARCHY, TableKind::Hierarchy, "Lists"));
    let new = |query: &Query| match &query.what {
        What::Folder { mailbox: Some(mailbox), .. } if mailbox.name == "Lists/New" => Answer::Unknown,
        _ => know(query),
    };
    let hierarchy_changed = Notification::HierarchyTable(TableEvent::Changed);
    let event = rig.event("Lists/New", EventKind::MailboxCreate);
    rig.give(event);
    rig.answer_all(new);
    assert_eq!(rig.told(), [folder_modified("Lists", None, None), hierarchy_changed.clone()]);
    let event = rig.event("Lists/New", EventKind::MailboxRename { old: Mailbox::new("Old", '/') });
    rig.give(event);
    rig.answer_all(new);
    let told = rig.told();
    assert!(
        told.contains(&folder_modified("Lists", None, None)) && told.contains(&hierarchy_changed),
        "{told:?}"
    );
    // Mail in a folder that the host does not have is nobody's.
    let event = rig.event("Lists/New", new_mail(1));
    rig.give(event);
    rig.answer_all(new);
    assert_eq!(rig.told(), []);
}

#[test]
fn nobody_is_asked_for_a_user_who_is_gone() {
    let mut rig = warm(EngineConfig::default());
    let first = gives(&mut rig, "INBOX", 10);
    let event = rig.event("INBOX", new_mail(11));
    rig.give(event);
    assert!(rig.engine.close(rig.session, rig.now));
    assert_eq!(rig.engine.next_query(), None);
    answer(&mut rig, &first);
    assert_eq!((rig.engine.statistics().pending, rig.engine.statistics().late_answers), (0, 1));
}

#[test]
fn a_message_subscription_asks_for_the_message() {
    let mut rig = Rig::new();
    let scope = Scope::Message { folder: fid("INBOX"), message: mid("INBOX", 5) };
    rig.subscribe(SUBSCRIPTION, NotificationTypes::OBJECT_MODIFIED, scope);
    rig.happens("INBOX", EventKind::MessageRead { uids: uids([4, 5]) });
    assert_eq!(rig.told(), [modified("INBOX", 5)]);
}

/// What a subscription to message 5 of the Inbox hears of an event, when the host answers like this.
fn heard_of_message(kind: EventKind, name: &str, answer: impl Fn(&Query) -> Answer) -> Vec<Notification> {
    let mut rig = warm(EngineConfig::default());
    let message = mid("INBOX", 5);
    rig.subscribe(0x50, ALL, Scope::Message { folder: fid("INBOX"), message });
    // Not of this folder, and one whose client did not say where it is.
    rig.subscribe(0x51, ALL, Scope::Message { folder: fid("Sent"), message: mid("Sent", 5) });
    rig.subscribe(0x52, ALL, Scope::Message { folder: FolderId::NONE, message });
    let event = rig.event(name, kind);
    rig.give(event);
    rig.answer_all(answer);
    let replies = rig.replies();
    let told = |handle| -> Vec<Notification> {
        let own = replies.iter().filter(|reply| reply.handle == handle);
        own.map(|reply| reply.notification.clone()).collect()
    };
    assert_eq!(told(0x51), [], "nothing happened there");
    assert_eq!(told(0x52), told(0x50));
    told(0x50)
}

/// Its client is told that its message has changed, which needs no id that is not known.
#[test]
fn who_subscribed_to_a_message_is_told_where_messages_cannot_be_named() {
    let several = || uids([4, 5, 6]);
    let transfer = || Transfer::new(uids([1, 2, 3]), Mailbox::new("INBOX", '/'), several());
    let changed = [modified("INBOX", 5)];
    for (name, kind) in [
        ("INBOX", EventKind::MessageRead { uids: several() }),
        ("INBOX", EventKind::MessageTrash { uids: several() }),
        ("INBOX", EventKind::MessageExpunge { uids: several() }),
        ("Sent", EventKind::MessageMove(transfer())),
    ] {
        for bad in [Answer::Failed, Answer::Unknown, Answer::Messages(vec![None; 3])] {
            let told = heard_of_message(kind.clone(), name, |_| bad.clone());
            assert_eq!(told, changed, "{kind:?} {bad:?}");
        }
        // Named, it is told what happened, and no more.
        assert_eq!(heard_of_message(kind.clone(), name, know).len(), 1, "{kind:?}");
    }
    let told = heard_of_message(EventKind::MessageExpunge { uids: several() }, "INBOX", know);
    assert_eq!(told, [deleted("INBOX", 5)]);
    let told = heard_of_message(EventKind::MessageRead { uids: uids([4, 6]) }, "INBOX", know);
    assert_eq!(told, []);
    // More than are asked for one by one.
    let many = || uids(1..=33);
    for kind in [EventKind::MessageRead { uids: many() }, EventKind::MessageExpunge { uids: many() }] {
        assert_eq!(heard_of_message(kind.clone(), "INBOX", know), changed, "{kind:?}");
    }
    // Of copies only the new ones cannot be named.
    let told = heard_of_message(EventKind::MessageCopy(transfer()), "Sent", |_| Answer::Failed);
    assert_eq!(told, []);
}

#[test]
fn who_subscribed_to_a_message_is_told_by_a_resync_and_of_its_folder() {
    let changed = [modified("INBOX", 5)];
    let resync = || EventKind::Resync { reason: ResyncReason::Other, missed: 1 };
    assert_eq!(heard_of_message(resync(), "INBOX", know), changed, "of its folder");
    assert_eq!(heard_of_message(EventKind::MailboxDelete, "INBOX", know), changed);
    let mut rig = Rig::new();
    rig.subscribe(1, ALL, Scope::Message { folder: fid("INBOX"), message: mid("INBOX", 5) });
    rig.subscribe(
        2,
        NotificationTypes::OBJECT_DELETED,
        Scope::Message { folder: fid("INBOX"), message: mid("INBOX", 6) },
    );
    rig.give(Event::resync(Uuid::now_v7(), 0, "bob", ResyncReason::Unreachable, 1));
    assert_eq!(rig.told(), changed, "of all; who asked for less cannot be told");
    // The folder's id fails.
    let event = rig.event("INBOX", EventKind::MessageRead { uids: uids([5]) });
    rig.give(event);
    rig.answer_all(|_| Answer::Failed);
    assert_eq!(rig.told(), changed);
}
