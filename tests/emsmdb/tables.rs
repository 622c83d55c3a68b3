//! Tables: when they are told, rows that the host makes, and what takes their place.

use ocbus::EventKind;
use ocbus::emsmdb::engine::Handles;
use ocbus::emsmdb::{Answer, HandleError, NotifyError, Query, TableKind, TableRow, What};
use ocbus::wire::ropnotify::{FolderRow, MessageRow, Notification, Scope, TableEvent, Tags};

use super::rig::{
    ALL, CONTENTS, HIERARCHY, Rig, SUBSCRIPTION, fid, folder_modified, know, mid, new_mail, table, uids,
};

const COLUMNS: [u32; 2] = [0x0e07_0003, 0x0e06_0040];

/// Knows rows as well: their data is their first column's id.
fn know_rows(query: &Query) -> Answer {
    match &query.what {
        What::Row { columns, message, .. } => {
            assert_eq!(columns[..], COLUMNS);
            let after = MessageRow { folder: fid("Sent"), message: mid("Sent", 1), instance: 2 };
            let data = if message.is_some() { vec![1; 9] } else { vec![2; 4] };
            Answer::Row(TableRow { instance: 1, after, data })
        }
        _ => know(query),
    }
}

fn happens(rig: &mut Rig, name: &str, kind: EventKind) {
    let event = rig.event(name, kind);
    rig.give(event);
    rig.answer_all(know_rows);
}

fn changed(told: &[Notification]) -> bool {
    told == [Notification::ContentsTable(TableEvent::Changed)]
}

fn inbox() -> Rig {
    let mut rig = Rig::new();
    rig.open_table(table(CONTENTS, TableKind::Contents, "INBOX"));
    rig
}

/// What another process has written down is read again at each event.
#[test]
fn rows_that_wait_become_one_changed_table_when_their_columns_are_others() {
    let mut rig = inbox();
    rig.engine.set_columns(rig.session, CONTENTS, &COLUMNS, rig.now).unwrap();
    rig.engine.open_view(rig.session, CONTENTS, rig.now).unwrap();
    let open = rig.engine.handles(rig.session).unwrap();
    let mut other = open.clone();
    other.tables[0].1 = vec![COLUMNS[1]];
    for (uid, handles, is_changed) in [(1, &open, false), (2, &other, true), (4, &Handles::default(), false)]
    {
        rig.engine.replace_handles(rig.session, open.clone(), rig.now);
        happens(&mut rig, "INBOX", new_mail(uid));
        rig.engine.replace_handles(rig.session, handles.clone(), rig.now);
        let told = rig.told();
        assert_eq!(changed(&told), is_changed, "{told:?}");
        assert_eq!(told.is_empty(), handles.tables.is_empty());
    }
    // Nothing waits: there is nothing to make good.
    rig.engine.replace_handles(rig.session, open, rig.now);
    rig.engine.replace_handles(rig.session, other, rig.now);
    assert_eq!(rig.told(), []);
}

#[test]
fn nothing_is_told_without_a_view() {
    let mut rig = Rig::new();
    rig.engine.add_table(rig.session, table(CONTENTS, TableKind::Contents, "INBOX"), rig.now).unwrap();
    rig.engine.add_table(rig.session, table(HIERARCHY, TableKind::Hierarchy, ""), rig.now).unwrap();
    rig.engine.set_columns(rig.session, CONTENTS, &COLUMNS, rig.now).unwrap();
    let mut silent = table(0x40, TableKind::Contents, "INBOX");
    silent.notifications = false;
    rig.open_table(silent);
    happens(&mut rig, "INBOX", new_mail(1));
    assert_eq!(rig.told(), [], "no query-type ROP yet, or NoNotifications");
    rig.engine.open_view(rig.session, CONTENTS, rig.now).unwrap();
    happens(&mut rig, "INBOX", new_mail(2));
    assert_eq!(rig.told().len(), 1);
    happens(&mut rig, "INBOX", new_mail(3));
    rig.engine.reset_table(rig.session, CONTENTS, rig.now).unwrap();
    assert_eq!(rig.told(), [], "what waited is taken back");
    happens(&mut rig, "INBOX", new_mail(4));
    assert_eq!(rig.told(), [], "until the next query");
    rig.engine.open_view(rig.session, CONTENTS, rig.now).unwrap();
    happens(&mut rig, "INBOX", new_mail(5));
    assert!(changed(&rig.told()), "the columns are gone with the reset");
}

#[test]
fn rows_are_told_by_what_the_host_makes_of_them() {
    let mut rig = inbox();
    rig.engine.set_columns(rig.session, CONTENTS, &COLUMNS, rig.now).unwrap();
    rig.open_table(table(HIERARCHY, TableKind::Hierarchy, ""));
    rig.engine.set_columns(rig.session, HIERARCHY, &COLUMNS, rig.now).unwrap();
    happens(&mut rig, "INBOX", new_mail(7));
    let row = MessageRow { folder: fid("INBOX"), message: mid("INBOX", 7), instance: 1 };
    let after = MessageRow { folder: fid("Sent"), message: mid("Sent", 1), instance: 2 };
    let folder = FolderRow { folder: fid("INBOX") };
    let before = FolderRow { folder: fid("Sent") };
    let hierarchy = Notification::HierarchyTable(TableEvent::RowModified {
        row: folder,
        after: before,
        data: vec![2; 4],
    });
    assert_eq!(
        rig.told(),
        [
            Notification::ContentsTable(TableEvent::RowAdded { row, after, data: vec![1; 9] }),
            hierarchy.clone()
        ]
    );
    happens(&mut rig, "INBOX", EventKind::MessageRead { uids: uids([7]) });
    assert_eq!(
        rig.told(),
        [Notification::ContentsTable(TableEvent::RowModified { row, after, data: vec![1; 9] }), hierarchy]
    );
    happens(&mut rig, "Sent", EventKind::MailboxCreate);
    assert!(matches!(rig.told()[..], [Notification::HierarchyTable(TableEvent::RowAdded { .. })]));
}

#[test]
fn a_row_that_is_not_known_or_too_large_is_a_changed_table() {
    for bad in [
        Answer::Unknown,
        Answer::Failed,
        Answer::Folder(fid("INBOX")),
        Answer::Row(TableRow { data: vec![0; 2_049], ..TableRow::default() }),
    ] {
        let mut rig = inbox();
        rig.engine.set_columns(rig.session, CONTENTS, &COLUMNS, rig.now).unwrap();
        let event = rig.event("INBOX", new_mail(7));
        rig.give(event);
        rig.answer_all(|query| match query.what {
            What::Row { .. } => bad.clone(),
            _ => know(query),
        });
        assert!(changed(&rig.told()), "{bad:?}");
    }
}

#[test]
fn rows_made_for_other_columns_are_not_sent() {
    let mut rig = inbox();
    rig.engine.set_columns(rig.session, CONTENTS, &COLUMNS, rig.now).unwrap();
    let event = rig.event("INBOX", new_mail(7));
    rig.give(event);
    let mut row = None;
    while let Some(query) = rig.engine.next_query() {
        match query.what {
            What::Row { .. } => row = Some(query),
            _ => rig.engine.answer(query.id, know(&query), rig.now),
        }
    }
    rig.engine.set_columns(rig.session, CONTENTS, &[0x3001_001f], rig.now).unwrap();
    let row = row.unwrap();
    rig.engine.answer(row.id, know_rows(&row), rig.now);
    assert!(changed(&rig.told()), "asked before");
    rig.engine.set_columns(rig.session, CONTENTS, &COLUMNS, rig.now).unwrap();
    happens(&mut rig, "INBOX", new_mail(8));
    rig.engine.set_columns(rig.session, CONTENTS, &[0x3001_001f], rig.now).unwrap();
    assert!(changed(&rig.told()), "queued before");
    rig.engine.set_columns(rig.session, CONTENTS, &COLUMNS, rig.now).unwrap();
    assert_eq!(rig.told(), [], "nothing had happened");
}

#[test]
fn more_rows_than_fold_are_not_asked_for() {
    let mut rig = inbox();
    rig.engine.set_columns(rig.session, CONTENTS, &COLUMNS, rig.now).unwrap();
    let rows = |rig: &Rig| rig.asked.iter().filter(|query| matches!(query.what, What::Row { .. })).count();
    happens(&mut rig, "INBOX", EventKind::MessageRead { uids: uids(1..=5) });
    assert_eq!((rows(&rig), rig.told().len()), (5, 5));
    rig.asked.clear();
    happens(&mut rig, "INBOX", EventKind::MessageRead { uids: uids(1..=6) });
    assert_eq!(rows(&rig), 0);
    assert!(changed(&rig.told()));
}

#[test]
fn a_hierarchy_table_shows_its_own_folder_and_a_deep_one_all() {
    let mut rig = Rig::new();
    rig.open_table(table(1, TableKind::Hierarchy, ""));
    rig.open_table(table(2, TableKind::Hierarchy, "A"));
    let mut deep = table(3, TableKind::Hierarchy, "");
    deep.depth = true;
    rig.open_table(deep);
    let told = |rig: &mut Rig| rig.replies().iter().map(|reply| reply.handle).collect::<Vec<_>>();
    happens(&mut rig, "INBOX", new_mail(1));
    assert_eq!(told(&mut rig), [1, 3]);
    happens(&mut rig, "A/B", new_mail(1));
    assert_eq!(told(&mut rig), [2, 3]);
    happens(&mut rig, "A/B", EventKind::MailboxCreate);
    assert_eq!(told(&mut rig), [2, 3]);
    // Whose parent is not known could be anybody's.
    let event = rig.event("C/D", new_mail(1));
    rig.give(event);
    rig.answer_all(|query| match &query.what {
        What::Folder { mailbox: Some(mailbox), .. } if mailbox.name == "C" => Answer::Failed,
        _ => know(query),
    });
    assert_eq!(told(&mut rig), [1, 2, 3]);
}

#[test]
fn renaming_moves_rows_between_hierarchy_tables() {
    let mut rig = Rig::new();
    rig.open_table(table(1, TableKind::Hierarchy, "A"));
    rig.open_table(table(2, TableKind::Hierarchy, "C"));
    happens(&mut rig, "C/D", EventKind::MailboxRename { old: ocbus::Mailbox::new("A/B", '/') });
    let replies = rig.replies();
    assert_eq!(replies.len(), 2);
    let gone = Notification::HierarchyTable(TableEvent::RowDeleted { row: FolderRow { folder: fid("A/B") } });
    assert_eq!((replies[0].handle, &replies[0].notification), (1, &gone));
    assert_eq!(
        (replies[1].handle, &replies[1].notification),
        (2, &Notification::HierarchyTable(TableEvent::Changed))
    );
}

#[test]
fn a_handle_stands_once_and_only_so_many_do() {
    let mut rig = Rig::subscribed();
    let again = table(SUBSCRIPTION, TableKind::Contents, "INBOX");
    let duplicate = Err(HandleError::Duplicate { handle: SUBSCRIPTION });
    assert_eq!(rig.engine.add_table(rig.session, again, rig.now), duplicate);
    for handle in 1_000..1_099 {
        rig.subscribe(handle, ALL, Scope::Store);
    }
    let one_more = table(5, TableKind::Contents, "INBOX");
    assert_eq!(rig.engine.add_table(rig.session, one_more, rig.now), Err(HandleError::TooMany { max: 100 }));
    assert_eq!(rig.engine.release(rig.session, 1_000, rig.now), Ok(true));
    assert_eq!(rig.engine.release(rig.session, 1_000, rig.now), Ok(false));
    assert_eq!(rig.engine.add_table(rig.session, one_more, rig.now), Ok(()));
    let unknown = Err(HandleError::Unknown { handle: 1_000 });
    assert_eq!(rig.engine.set_columns(rig.session, 1_000, &[], rig.now), unknown);
    assert_eq!(rig.engine.open_view(rig.session, 1_000, rig.now), unknown);
    assert_eq!(rig.engine.reset_table(rig.session, 1_000, rig.now), unknown);
    let columns = vec![0; 4_097];
    assert_eq!(
        rig.engine.set_columns(rig.session, 5, &columns, rig.now),
        Err(HandleError::Columns { columns: 4_097 })
    );
}

#[test]
fn a_released_handle_takes_its_own_replies_along_and_nobody_elses() {
    let mut rig = inbox();
    rig.subscribe(1, ALL, Scope::Store);
    rig.subscribe(2, ALL, Scope::Store);
    happens(&mut rig, "INBOX", new_mail(1));
    let before = rig.engine.statistics().queued_octets;
    rig.engine.release(rig.session, 1, rig.now).unwrap();
    assert!(rig.engine.statistics().queued_octets < before);
    let handles: Vec<u32> = rig.replies().iter().map(|reply| reply.handle).collect();
    assert_eq!(handles, [2, 2, 2, CONTENTS]);
    happens(&mut rig, "INBOX", new_mail(2));
    for handle in [2, CONTENTS] {
        rig.engine.release(rig.session, handle, rig.now).unwrap();
    }
    assert!(!rig.engine.has_replies(rig.session), "empty, not full of nothing");
}

#[test]
fn the_host_may_tell_what_the_bus_does_not() {
    let mut rig = Rig::subscribed();
    rig.open_table(table(0x33, TableKind::Search, "Found"));
    let complete = Notification::SearchComplete { folder: fid("Found") };
    rig.engine.notify(rig.session, SUBSCRIPTION, complete.clone(), rig.now).unwrap();
    let row = MessageRow { folder: fid("INBOX"), message: mid("INBOX", 1), instance: 0 };
    let gone = Notification::SearchTable(TableEvent::RowDeleted { row });
    rig.engine.notify(rig.session, 0x33, gone.clone(), rig.now).unwrap();
    let restricted = Notification::SearchTable(TableEvent::RestrictionChanged);
    rig.engine.notify(rig.session, 0x33, restricted.clone(), rig.now).unwrap();
    assert_eq!(rig.told(), [complete, gone, restricted]);
    // What names its tags is not what does not.
    let tags = Tags::List(vec![0x3001_001f]);
    let with_tags = Notification::FolderModified { folder: fid("A"), tags, total: None, unread: None };
    rig.engine.notify(rig.session, SUBSCRIPTION, with_tags.clone(), rig.now).unwrap();
    rig.engine.notify(rig.session, SUBSCRIPTION, folder_modified("A", None, None), rig.now).unwrap();
    assert_eq!(rig.told(), [with_tags, folder_modified("A", None, None)]);
    let unknown = rig.engine.notify(rig.session, 9, folder_modified("A", None, None), rig.now);
    assert_eq!(unknown, Err(NotifyError::Handle(HandleError::Unknown { handle: 9 })));
    let tags = Tags::List(vec![0; 8_200]);
    let large = Notification::FolderModified { folder: fid("A"), tags, total: None, unread: None };
    let refused = rig.engine.notify(rig.session, SUBSCRIPTION, large, rig.now).unwrap_err();
    assert!(matches!(refused, NotifyError::TooLarge { max: 32_768, .. }), "{refused}");
}
