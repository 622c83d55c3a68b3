//! Section 6 of the reference, row by row: what each event tells a subscription, and whom.

use ocbus::emsmdb::TableKind;
use ocbus::wire::ropnotify::{
    FolderRow, MessageId, MessageRow, Notification, NotificationTypes, Scope, TableEvent, Tags,
};
use ocbus::wire::{NewMessage, ResyncReason, Transfer, UidSet};
use ocbus::{Event, EventKind, Mailbox};
use uuid::Uuid;

use super::rig::{
    ALL, CONTENTS, HIERARCHY, Rig, SUBSCRIPTION, created, deleted, fid, folder_modified, know, mid, modified,
    new_mail, popped_up, table, uids,
};

/// What one event tells a subscription to everything.
fn told_of(name: &str, kind: EventKind) -> Vec<Notification> {
    let mut rig = Rig::subscribed();
    rig.happens(name, kind);
    rig.told()
}

fn transfer(
    here: impl IntoIterator<Item = u32>,
    old: &str,
    there: impl IntoIterator<Item = u32>,
) -> Transfer {
    Transfer::new(uids(here), Mailbox::new(old, '/'), uids(there))
}

fn flags(flags: &[&str], of: UidSet) -> EventKind {
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    EventKind::FlagsSet { uids: of, flags, keywords: vec![] }
}

fn copied(name: &str, uid: u32, old: &str, old_uid: u32) -> Notification {
    Notification::MessageCopied {
        folder: fid(name),
        message: mid(name, uid),
        old_folder: fid(old),
        old_message: mid(old, old_uid),
    }
}

fn moved(name: &str, uid: u32, old: &str, old_uid: u32) -> Notification {
    Notification::MessageMoved {
        folder: fid(name),
        message: mid(name, uid),
        old_folder: fid(old),
        old_message: mid(old, old_uid),
    }
}

#[test]
fn new_mail_in_the_inbox_pops_up() {
    let all = folder_modified("INBOX", Some(42), Some(3));
    assert_eq!(told_of("INBOX", new_mail(9)), [popped_up(9), created("INBOX", 9), all]);
    // The octets of the reference's E1, with its ids, through a host that has them.
    let mut rig = Rig::new();
    rig.subscribe(SUBSCRIPTION, NotificationTypes::NEW_MAIL, Scope::Store);
    let event = rig.event("inbox", new_mail(1));
    rig.give(event);
    rig.answer_all(|query| match know(query) {
        ocbus::emsmdb::Answer::Messages(_) => {
            ocbus::emsmdb::Answer::Messages(vec![MessageId::from_parts(1, 0xabcdef)])
        }
        ocbus::emsmdb::Answer::Folder(_) => ocbus::emsmdb::Answer::Folder(fid("INBOX")),
        other => other,
    });
    let mut out = Vec::new();
    rig.engine.take(rig.session, 100, &mut out, rig.now).unwrap();
    let e1 = b"\x2a\x29\0\0\0\0\x02\x80\x01\0\0\0\0\0\x12\x34\x01\0\0\0\0\xab\xcd\xef\x02\0\0\0\0IPM.Note\0";
    assert_eq!(out, e1);
}

#[test]
fn rule_filed_mail_is_announced_in_its_folder_without_a_pop_up() {
    let all = folder_modified("Lists/rust", Some(42), Some(3));
    assert_eq!(told_of("Lists/rust", new_mail(9)), [created("Lists/rust", 9), all]);
}

#[test]
fn mail_that_is_read_already_says_so() {
    let message = NewMessage { uid: Some(1), flags: vec!["\\Seen".to_owned()], ..NewMessage::default() };
    let told = told_of("INBOX", EventKind::MessageNew(message));
    assert!(matches!(told[0], Notification::NewMail { message_flags: 3, .. }), "{told:?}");
}

#[test]
fn an_appended_message_is_created() {
    let message = NewMessage { uid: Some(4), ..NewMessage::default() };
    assert_eq!(
        told_of("INBOX", EventKind::MessageAppend(message)),
        [created("INBOX", 4), folder_modified("INBOX", Some(42), Some(3))]
    );
}

#[test]
fn copies_are_told_in_the_target() {
    assert_eq!(
        told_of("Sent", EventKind::MessageCopy(transfer([5, 6], "INBOX", [1, 2]))),
        [
            copied("Sent", 5, "INBOX", 1),
            copied("Sent", 6, "INBOX", 2),
            folder_modified("Sent", Some(42), Some(3))
        ]
    );
    // Of what is unknown a copy is something new.
    assert_eq!(
        told_of("Sent", EventKind::MessageCopy(transfer([5], "INBOX", []))),
        [created("Sent", 5), folder_modified("Sent", Some(42), Some(3))]
    );
}

#[test]
fn moves_are_told_in_both_folders() {
    let (target, source) =
        (folder_modified("Trash", Some(42), Some(3)), folder_modified("INBOX", None, None));
    assert_eq!(
        told_of("Trash", EventKind::MessageMove(transfer([5], "INBOX", [1]))),
        [moved("Trash", 5, "INBOX", 1), target.clone(), source.clone()]
    );
    assert_eq!(
        told_of("Trash", EventKind::MessageMove(transfer([5], "INBOX", []))),
        [created("Trash", 5), target, source]
    );
}

#[test]
fn flags_modify_messages_and_the_count_of_unread_ones() {
    let unread = folder_modified("INBOX", None, Some(3));
    let expected = [modified("INBOX", 1), modified("INBOX", 2), unread];
    assert_eq!(told_of("INBOX", EventKind::MessageRead { uids: uids([1, 2]) }), expected);
    assert_eq!(told_of("INBOX", flags(&["\\Flagged"], uids([1, 2]))), expected);
    let clear = EventKind::FlagsClear { uids: uids([1, 2]), flags: vec![], keywords: vec!["a".into()] };
    assert_eq!(told_of("INBOX", clear), expected);
}

#[test]
fn a_deleted_flag_modifies_the_message_only() {
    assert_eq!(told_of("INBOX", EventKind::MessageTrash { uids: uids([1]) }), [modified("INBOX", 1)]);
}

#[test]
fn expunged_messages_are_deleted() {
    assert_eq!(
        told_of("INBOX", EventKind::MessageExpunge { uids: uids([3, 1]) }),
        [deleted("INBOX", 3), deleted("INBOX", 1), folder_modified("INBOX", Some(42), Some(3))]
    );
}

#[test]
fn folders_are_created_deleted_and_moved_below_their_parents() {
    let (folder, parent) = (fid("A/B"), fid("A"));
    assert_eq!(
        told_of("A/B", EventKind::MailboxCreate),
        [Notification::FolderCreated { folder, parent, tags: Tags::default() }]
    );
    assert_eq!(told_of("A/B", EventKind::MailboxDelete), [Notification::FolderDeleted { folder, parent }]);
    assert_eq!(
        told_of("A", EventKind::MailboxDelete),
        [Notification::FolderDeleted { folder: parent, parent: fid("") }]
    );
    assert_eq!(
        told_of("C/D", EventKind::MailboxRename { old: Mailbox::new("A/B", '/') }),
        [Notification::FolderMoved {
            folder: fid("C/D"),
            parent: fid("C"),
            old_folder: folder,
            old_parent: parent
        }]
    );
}

#[test]
fn subscribing_to_a_mailbox_and_what_is_unknown_tell_nothing() {
    for kind in [
        EventKind::MailboxSubscribe,
        EventKind::MailboxUnsubscribe,
        EventKind::Unknown { name: "Later".to_owned() },
    ] {
        assert_eq!(told_of("INBOX", kind), []);
    }
}

#[test]
fn counts_are_told_where_the_event_has_them() {
    for (messages, unseen) in [(None, None), (Some(1), None), (None, Some(2)), (Some(1), Some(2))] {
        let mut rig = Rig::subscribed();
        let event = Event { messages, unseen, ..rig.event("Sent", new_mail(1)) };
        rig.give(event);
        rig.answer_all(know);
        assert_eq!(rig.told(), [created("Sent", 1), folder_modified("Sent", messages, unseen)]);
    }
}

/// Dovecot's processes tell in any order: the older of two events that is told last has counts that are no longer right.
#[test]
fn counts_that_are_older_than_what_was_told_are_left_out() {
    let mut rig = Rig::subscribed();
    for (order, messages, told) in [
        (Some(20), Some(2), Some(2)),
        (Some(10), Some(1), None),
        (Some(20), Some(2), Some(2)),
        // Younger, and without: those of before it are old from then on.
        (Some(40), None, None),
        (Some(30), Some(3), None),
        (Some(50), Some(5), Some(5)),
        (None, Some(6), Some(6)),
    ] {
        let event = Event { order, messages, uidvalidity: Some(7), ..rig.event("Sent", new_mail(1)) };
        rig.give(event);
        rig.answer_all(know);
        assert_eq!(rig.told(), [created("Sent", 1), folder_modified("Sent", told, None)], "{order:?}");
    }
}

#[test]
fn only_types_that_were_asked_for_are_told() {
    let one_of_each = |types| {
        let mut rig = Rig::new();
        rig.subscribe(SUBSCRIPTION, types, Scope::Store);
        rig.happens("INBOX", new_mail(1));
        rig.happens("INBOX", EventKind::MessageExpunge { uids: uids([1]) });
        rig.happens("Trash", EventKind::MessageMove(transfer([5], "INBOX", [1])));
        rig.happens("Sent", EventKind::MessageCopy(transfer([5], "INBOX", [1])));
        rig.told()
    };
    assert_eq!(one_of_each(NotificationTypes::NEW_MAIL), [popped_up(1)]);
    assert_eq!(one_of_each(NotificationTypes::OBJECT_CREATED), [created("INBOX", 1)]);
    assert_eq!(one_of_each(NotificationTypes::OBJECT_DELETED), [deleted("INBOX", 1)]);
    assert_eq!(one_of_each(NotificationTypes::OBJECT_MOVED), [moved("Trash", 5, "INBOX", 1)]);
    assert_eq!(one_of_each(NotificationTypes::OBJECT_COPIED), [copied("Sent", 5, "INBOX", 1)]);
    assert_eq!(one_of_each(NotificationTypes::SEARCH_COMPLETE), []);
    assert_eq!(one_of_each(NotificationTypes::TABLE_MODIFIED), []);
    assert!(
        one_of_each(NotificationTypes::OBJECT_MODIFIED)
            .iter()
            .all(|told| matches!(told, Notification::FolderModified { .. }))
    );
}

#[test]
fn a_scope_is_the_store_a_folder_or_a_message_and_a_move_is_in_both() {
    let mut rig = Rig::new();
    let inbox = Scope::Folder(fid("INBOX"));
    let (message, moved_one) = (mid("INBOX", 1), EventKind::MessageMove(transfer([5], "INBOX", [1])));
    rig.subscribe(1, ALL, Scope::Store);
    rig.subscribe(2, ALL, inbox);
    rig.subscribe(3, ALL, Scope::Folder(fid("Trash")));
    rig.subscribe(4, ALL, Scope::Folder(fid("Sent")));
    rig.subscribe(5, ALL, Scope::Message { folder: fid("INBOX"), message });
    rig.subscribe(6, ALL, Scope::Message { folder: fid("INBOX"), message: mid("INBOX", 2) });
    rig.happens("Trash", moved_one);
    let replies = rig.replies();
    let handles_of = |notification: &Notification| {
        let told = replies.iter().filter(|reply| reply.notification == *notification);
        told.map(|reply| reply.handle).collect::<Vec<_>>()
    };
    assert_eq!(handles_of(&moved("Trash", 5, "INBOX", 1)), [1, 2, 3, 5]);
    assert_eq!(handles_of(&folder_modified("Trash", Some(42), Some(3))), [1, 3]);
    assert_eq!(handles_of(&folder_modified("INBOX", None, None)), [1, 2]);
    rig.happens("INBOX", EventKind::MessageRead { uids: uids([2]) });
    assert_eq!(rig.told_to(6), [modified("INBOX", 2)]);
}

#[test]
fn the_logon_and_the_handle_are_those_of_the_subscription() {
    let mut rig = Rig::new();
    let subscription =
        ocbus::emsmdb::Subscription { handle: 0xdead, logon_id: 3, types: ALL, scope: Scope::Store };
    rig.engine.subscribe(rig.session, subscription, rig.now).unwrap();
    rig.happens("INBOX", new_mail(1));
    assert!(rig.replies().iter().all(|reply| (reply.handle, reply.logon_id) == (0xdead, 3)));
}

#[test]
fn many_messages_in_one_event_are_told_by_their_folder() {
    let mut rig = Rig::subscribed();
    rig.open_table(table(CONTENTS, TableKind::Contents, "INBOX"));
    rig.happens("INBOX", EventKind::MessageExpunge { uids: uids(1..=33) });
    assert_eq!(
        rig.told(),
        [folder_modified("INBOX", Some(42), Some(3)), Notification::ContentsTable(TableEvent::Changed),]
    );
    let mut vast = UidSet::new();
    vast.push_range(1, u32::MAX);
    rig.happens("INBOX", EventKind::MessageRead { uids: vast.clone() });
    assert_eq!(
        rig.told(),
        [folder_modified("INBOX", None, Some(3)), Notification::ContentsTable(TableEvent::Changed)]
    );
    // Where the folder is not told of otherwise, it is then.
    rig.happens("INBOX", EventKind::MessageTrash { uids: vast });
    assert_eq!(
        rig.told(),
        [folder_modified("INBOX", None, Some(3)), Notification::ContentsTable(TableEvent::Changed)]
    );
    assert_eq!(rig.asked.len(), 1, "the folder's id and no message's: {:?}", rig.asked);
    rig.happens("INBOX", EventKind::MessageExpunge { uids: uids(1..=32) });
    assert_eq!(
        rig.told().iter().filter(|told| matches!(told, Notification::MessageDeleted { .. })).count(),
        32
    );
}

#[test]
fn tables_are_told_behind_subscriptions() {
    let mut rig = Rig::subscribed();
    rig.open_table(table(HIERARCHY, TableKind::Hierarchy, ""));
    rig.open_table(table(CONTENTS, TableKind::Contents, "INBOX"));
    rig.happens("INBOX", new_mail(1));
    let handles: Vec<u32> = rig.replies().iter().map(|reply| reply.handle).collect();
    assert_eq!(handles, [SUBSCRIPTION, SUBSCRIPTION, SUBSCRIPTION, CONTENTS, HIERARCHY]);
}

#[test]
fn rows_that_are_gone_need_no_more_than_their_ids() {
    let mut rig = Rig::new();
    rig.open_table(table(HIERARCHY, TableKind::Hierarchy, "A"));
    rig.open_table(table(CONTENTS, TableKind::Contents, "INBOX"));
    let row = |uid| MessageRow { folder: fid("INBOX"), message: mid("INBOX", uid), instance: 0 };
    rig.happens("INBOX", EventKind::MessageExpunge { uids: uids([1, 2]) });
    rig.happens("Trash", EventKind::MessageMove(transfer([5], "INBOX", [3])));
    rig.happens("A/B", EventKind::MailboxDelete);
    let gone = |uid| Notification::ContentsTable(TableEvent::RowDeleted { row: row(uid) });
    assert_eq!(
        rig.told(),
        [
            gone(1),
            gone(2),
            gone(3),
            Notification::HierarchyTable(TableEvent::RowDeleted { row: FolderRow { folder: fid("A/B") } })
        ]
    );
}

#[test]
fn resyncs_say_that_tables_and_folders_have_changed() {
    let mut rig = Rig::subscribed();
    rig.open_table(table(HIERARCHY, TableKind::Hierarchy, ""));
    rig.open_table(table(CONTENTS, TableKind::Contents, "INBOX"));
    rig.open_table(table(0x33, TableKind::Search, "Found"));
    rig.subscribe(2, ALL, Scope::Folder(fid("Sent")));
    rig.happens("INBOX", new_mail(1));
    rig.happens("Lists", new_mail(1));
    rig.replies();
    let changed = [
        Notification::HierarchyTable(TableEvent::Changed),
        Notification::ContentsTable(TableEvent::Changed),
        Notification::SearchTable(TableEvent::Changed),
    ];
    let mut known = [fid(""), fid("INBOX"), fid("Lists"), fid("Sent")];
    known.sort();
    for user in ["bob", ""] {
        rig.give(Event::resync(Uuid::now_v7(), 0, user, ResyncReason::Unreachable, 3));
        rig.answer_all(know);
        let replies = rig.replies();
        let folders = |handle| {
            let own = replies.iter().filter(move |reply| reply.handle == handle);
            own.map(|reply| reply.notification.clone()).collect::<Vec<_>>()
        };
        assert_eq!(replies[..3].iter().map(|r| r.notification.clone()).collect::<Vec<_>>(), changed);
        let all = known.map(|folder| Notification::FolderModified {
            folder,
            tags: Tags::default(),
            total: None,
            unread: None,
        });
        assert_eq!(folders(SUBSCRIPTION), all, "all that are known");
        assert_eq!(folders(2), [folder_modified("Sent", None, None)], "known by its subscription");
    }
    // Of one mailbox: only that.
    let mut event = rig.event("INBOX", EventKind::Resync { reason: ResyncReason::Overflow, missed: 1 });
    event.messages = Some(5);
    rig.give(event);
    rig.answer_all(know);
    assert_eq!(
        rig.told(),
        [
            folder_modified("INBOX", Some(5), None),
            Notification::ContentsTable(TableEvent::Changed),
            Notification::HierarchyTable(TableEvent::Changed),
        ]
    );
    rig.give(Event::resync(Uuid::now_v7(), 0, "alice", ResyncReason::Unreachable, 3));
    assert_eq!(rig.told(), [], "somebody else's");
}

#[test]
fn what_no_one_asked_for_costs_no_question() {
    let mut rig = Rig::new();
    rig.subscribe(SUBSCRIPTION, NotificationTypes::OBJECT_DELETED, Scope::Folder(fid("INBOX")));
    rig.happens("INBOX", new_mail(1));
    assert_eq!(rig.asked.len(), 1, "the folder, to know whether it is the one: {:?}", rig.asked);
    assert_eq!(rig.told(), []);
    rig.happens("INBOX", EventKind::MessageExpunge { uids: uids([1]) });
    assert_eq!(rig.asked.len(), 2, "its message, the folder is known: {:?}", rig.asked);
    rig.happens("Sent", EventKind::MessageExpunge { uids: uids([1]) });
    assert_eq!(rig.asked.len(), 3, "another folder's messages are nobody's");
    assert_eq!(rig.told(), [deleted("INBOX", 1)]);
}

#[test]
fn every_session_of_the_user_is_told_and_nobody_else() {
    let mut rig = Rig::subscribed();
    let others = [(8, "bob"), (9, "alice")].map(|(guid, user)| {
        let cn = ocbus::resolver::Cn::new(user).unwrap();
        let guid = Uuid::from_u128(guid);
        rig.engine.open(ocbus::emsmdb::NewSession { guid, cn, index: 0 }, rig.now).unwrap();
        let subscription =
            ocbus::emsmdb::Subscription { handle: 1, logon_id: 0, types: ALL, scope: Scope::Store };
        rig.engine.subscribe(guid, subscription, rig.now).unwrap();
        guid
    });
    rig.happens("INBOX", new_mail(1));
    assert_eq!(rig.asked.len(), 2, "ids are asked once for all sessions: {:?}", rig.asked);
    assert!(rig.engine.has_replies(rig.session) && rig.engine.has_replies(others[0]));
    assert!(!rig.engine.has_replies(others[1]));
    let upper = Event { user: "ALICE".to_owned(), ..rig.event("INBOX", new_mail(2)) };
    rig.give(upper);
    rig.answer_all(know);
    assert!(rig.engine.has_replies(others[1]), "a user in any case");
}
