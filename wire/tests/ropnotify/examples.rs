//! E1 to E25: what each means, and its octets.

use ocbus_wire::ropnotify::{
    FolderRow, MessageClass, MessageRow, Notification, NotificationTypes, RegisterNotification,
    RegisterNotificationResponse, RopNotify, RopPending, Scope, TableEvent, Tags, split,
};

use super::*;

const INBOX: u64 = 0x1234;
const SENT: u64 = 0x1235;
const TRASH: u64 = 0x1236;
const ROOT: u64 = 0x1001;
const OTHER: u64 = 0x1240;
const SEARCH: u64 = 0x2001;
const MAIL: u64 = 0xab_cdef;
const COPY: u64 = 0xab_cdf0;
const BEFORE: u64 = 0xab_cdee;

/// Flag octet 0 and one time of eight octets.
const ROW: &[u8] = b"\0\0\0\0\0\x5e\x3c\xdb\x01";

fn new_mail(unicode: bool) -> Notification {
    Notification::NewMail {
        folder: folder(INBOX),
        message: message(MAIL),
        message_flags: 2,
        class: MessageClass { name: "IPM.Note".into(), unicode },
    }
}

fn folder_row(counter: u64) -> FolderRow {
    FolderRow { folder: folder(counter) }
}

fn row(counter: u64) -> MessageRow {
    MessageRow { folder: folder(INBOX), message: message(counter), instance: 0 }
}

fn replies() -> Vec<(&'static str, RopNotify)> {
    let subscription = |notification| RopNotify { handle: 0x29, logon_id: 0, notification };
    let hierarchy =
        |event| RopNotify { handle: 0x31, logon_id: 0, notification: Notification::HierarchyTable(event) };
    let contents =
        |event| RopNotify { handle: 0x32, logon_id: 0, notification: Notification::ContentsTable(event) };
    let (inbox, mail) = (folder(INBOX), message(MAIL));
    vec![
        ("E1", subscription(new_mail(false))),
        ("E2", subscription(new_mail(true))),
        (
            "E3",
            subscription(Notification::MessageCreated {
                folder: inbox,
                message: mail,
                search_folder: None,
                tags: Tags::default(),
            }),
        ),
        (
            "E4",
            subscription(Notification::FolderCreated {
                folder: folder(OTHER),
                parent: folder(ROOT),
                tags: Tags::List(vec![0x3001_001f, 0x3602_0003]),
            }),
        ),
        (
            "E5",
            subscription(Notification::MessageDeleted { folder: inbox, message: mail, search_folder: None }),
        ),
        ("E6", subscription(Notification::FolderDeleted { folder: folder(OTHER), parent: folder(ROOT) })),
        (
            "E7",
            subscription(Notification::MessageModified {
                folder: inbox,
                message: mail,
                in_search_folder: false,
                tags: Tags::default(),
            }),
        ),
        (
            "E8",
            subscription(Notification::FolderModified {
                folder: inbox,
                tags: Tags::default(),
                total: Some(42),
                unread: Some(3),
            }),
        ),
        (
            "E9",
            subscription(Notification::MessageMoved {
                folder: folder(TRASH),
                message: message(COPY),
                old_folder: inbox,
                old_message: mail,
            }),
        ),
        (
            "E10",
            subscription(Notification::FolderMoved {
                folder: folder(OTHER),
                parent: folder(TRASH),
                old_folder: folder(OTHER),
                old_parent: folder(ROOT),
            }),
        ),
        (
            "E11",
            subscription(Notification::MessageCopied {
                folder: folder(SENT),
                message: message(COPY),
                old_folder: inbox,
                old_message: mail,
            }),
        ),
        ("E12", subscription(Notification::SearchComplete { folder: folder(SEARCH) })),
        (
            "E13",
            subscription(Notification::MessageCreated {
                folder: inbox,
                message: mail,
                search_folder: Some(folder(SEARCH)),
                tags: Tags::default(),
            }),
        ),
        ("E14", hierarchy(TableEvent::Changed)),
        ("E15", contents(TableEvent::Changed)),
        ("E16", hierarchy(TableEvent::RowDeleted { row: folder_row(OTHER) })),
        ("E17", contents(TableEvent::RowDeleted { row: row(MAIL) })),
        (
            "E18",
            hierarchy(TableEvent::RowAdded {
                row: folder_row(OTHER),
                after: folder_row(INBOX),
                data: ROW.to_vec(),
            }),
        ),
        (
            "E19",
            contents(TableEvent::RowAdded { row: row(MAIL), after: MessageRow::NONE, data: ROW.to_vec() }),
        ),
        ("E20", contents(TableEvent::RowModified { row: row(MAIL), after: row(BEFORE), data: ROW.to_vec() })),
        ("E21", contents(TableEvent::RestrictionChanged)),
    ]
}

#[test]
fn ropnotify_examples_are_written_and_read_octet_for_octet() {
    let octets = examples();
    let replies = replies();
    assert_eq!(replies.len(), 21);
    for (name, reply) in &replies {
        println!("{name}");
        assert_both_ways(reply, &octets[name]);
    }
}

#[test]
fn ropnotify_replies_end_to_end_come_apart() {
    let replies: Vec<RopNotify> = replies().into_iter().map(|(_, reply)| reply).collect();
    let mut octets = Vec::new();
    replies.iter().for_each(|reply| reply.encode_into(&mut octets).unwrap());
    assert!(split(&octets).eq(replies.iter().cloned().map(Ok)));
    // Whatever is cut off, those before it are read, and the error says where the input ends.
    let ends: Vec<usize> = replies
        .iter()
        .scan(0, |end, reply| {
            *end += reply.encoded_len();
            Some(*end)
        })
        .collect();
    for length in 0..octets.len() {
        let whole = ends.iter().filter(|end| **end <= length).count();
        let read: Vec<_> = split(&octets[..length]).collect();
        let cut = usize::from(length != 0 && !ends.contains(&length));
        assert_eq!(read.len(), whole + cut, "{length}");
        assert!(read.iter().take(whole).zip(&replies).all(|(read, reply)| read.as_ref() == Ok(reply)));
        if let Some(Err(error)) = read.last() {
            let begun = whole.checked_sub(1).map_or(0, |last| ends[last]);
            assert!((begun..=length).contains(&error.offset()), "{length}: {error}");
        }
    }
}

#[test]
fn ropnotify_pending_example() {
    let octets = &examples()["E22"];
    let pending = RopPending { session_index: 7 };
    assert_eq!(pending.encode().as_slice(), octets);
    assert_eq!(RopPending::decode(octets), Ok((pending, 3)));
    assert_eq!(RopPending::decode(b"\x6e\x01\x02\x03"), Ok((RopPending { session_index: 0x0201 }, 3)));
    assert_prefixes_refused(octets, RopPending::decode);
    let error = RopPending::decode(b"\x2a\x07\0").unwrap_err();
    assert_eq!(error.to_string(), "at octet 0: RopId 0x2a: expected 0x6e");
}

#[test]
fn ropnotify_register_examples() {
    let examples = examples();
    let all = [
        NotificationTypes::NEW_MAIL,
        NotificationTypes::OBJECT_CREATED,
        NotificationTypes::OBJECT_DELETED,
        NotificationTypes::OBJECT_MODIFIED,
        NotificationTypes::OBJECT_MOVED,
        NotificationTypes::OBJECT_COPIED,
    ];
    let all = all.into_iter().fold(NotificationTypes::default(), |all, one| all | one);
    let request = |types, scope| RegisterNotification {
        logon_id: 0,
        input_handle_index: 0,
        output_handle_index: 1,
        types,
        scope,
    };
    for (name, request) in [
        ("E23", request(all, Scope::Store)),
        ("E24", request(NotificationTypes::NEW_MAIL, Scope::Folder(folder(INBOX)))),
    ] {
        let octets = &examples[name];
        assert_eq!(request.encode().as_ref(), Ok(octets), "{name}");
        assert_eq!(RegisterNotification::decode(octets), Ok((request, octets.len())), "{name}");
        assert_prefixes_refused(octets, RegisterNotification::decode);
    }
    let octets = &examples["E25"];
    let response = RegisterNotificationResponse { output_handle_index: 1, return_value: 0 };
    assert_eq!(response.encode().as_slice(), octets);
    assert_eq!(RegisterNotificationResponse::decode(octets), Ok((response, 6)));
    assert_prefixes_refused(octets, RegisterNotificationResponse::decode);
}
