//! `docs/formats.md` against the code: every dump in it is what the code writes, and the golden octets stand in it.
//!
//! A dump is a code block behind a line `<!-- octets: NAME -->`: in each of its lines an offset, octets in hex, and
//! behind two spaces what they mean.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "native/samples.rs"]
mod samples;

use std::collections::BTreeMap;

use ocbus_wire::Mailbox;
use ocbus_wire::native::Batch;
use ocbus_wire::openchange::{
    DosCharset, NewMail, ResolverRecord, SessionRecord, Subscription, SubscriptionRecord, deliver,
};
use ocbus_wire::ropnotify::{
    FolderId, FolderRow, MessageClass, MessageId, MessageRow, Notification, NotificationTypes,
    RegisterNotification, RegisterNotificationResponse, RopNotify, RopPending, Scope, TableEvent, Tags,
};
use ocbus_wire::sp::{Exchange, Handshake, Protocol, Transport, encode_frame};
use uuid::uuid;

const DOC: &str = include_str!("../../docs/formats.md");
const GOLDEN: [(&str, &str); 3] = [
    ("batch", include_str!("../../tests/data/native/batch.hex")),
    ("ack", include_str!("../../tests/data/native/ack.hex")),
    ("lease", include_str!("../../tests/data/native/lease.hex")),
];

/// The dumps by name. Offsets must count up without a gap.
fn dumps() -> BTreeMap<&'static str, Vec<u8>> {
    let mut dumps = BTreeMap::new();
    let mut lines = DOC.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("<!-- octets: ").and_then(|rest| rest.strip_suffix(" -->")) else {
            continue;
        };
        assert_eq!(lines.next(), Some("```text"), "{name}");
        let mut octets = Vec::new();
        for row in lines.by_ref().take_while(|row| *row != "```") {
            let (offset, rest) = row.trim_start().split_once("  ").unwrap_or_else(|| panic!("{name}: {row}"));
            assert_eq!(offset.parse(), Ok(octets.len()), "{name}: {row}");
            let hex = rest.split("  ").next().unwrap();
            octets.extend(hex.split(' ').map(|octet| {
                assert_eq!(octet.len(), 2, "{name}: {row}");
                u8::from_str_radix(octet, 16).unwrap()
            }));
        }
        assert!(dumps.insert(name, octets).is_none(), "{name} stands twice");
    }
    dumps
}

/// The case of OpenChange's own octets with this name.
fn vector(name: &str) -> serde_json::Value {
    let cases: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("../../tests/data/openchange/vectors.json")).unwrap();
    cases.into_iter().find(|case| case["name"] == name).unwrap()
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits = hex.trim();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// What the code writes, by the names of the dumps.
fn written() -> BTreeMap<&'static str, Vec<u8>> {
    let charset = DosCharset::default();
    let batch = Batch::of(&samples::golden_batch()).unwrap().encode();
    let ack = samples::golden_ack().encode().unwrap();
    let inbox = NewMail { message: NewMail::message_name(1), folder: "INBOX".into(), ..NewMail::default() };
    let newmail = inbox.encode(charset).unwrap();
    let drafts = NewMail {
        message: NewMail::message_name(1),
        folder: Mailbox::new("Entwürfe", '/').storage_name,
        separator: b'.',
        ..NewMail::default()
    };
    let request = Exchange::request(Transport::Tcp, 5, &batch).output().to_vec();
    let mut reply = Handshake::new(Protocol::Rep).to_octets().to_vec();
    encode_frame(Transport::Tcp, &[&0x8000_0005u32.to_be_bytes(), &ack], &mut reply);
    let session =
        SessionRecord { session: uuid!("11111111-2222-3333-4444-555566667777"), cn: "FooBar".into() };
    let hosts = ["tcp://127.0.0.1:9005", "tcp://192.168.1.20:34567"].map(str::to_owned).to_vec();
    let subscription = Subscription {
        handle: 0x42,
        flags: 0x100,
        fid: 0xf503_0000_0000_0001,
        mid: 0xdead_beef_0000_0001,
        properties: vec![0x0e09_0014, 0x0037_001f],
    };
    let mut waiting = Vec::new();
    for blob in vector("deliver_newmail_plus_table")["input"]["blobs"].as_array().unwrap() {
        deliver::append(&mut waiting, &unhex(blob.as_str().unwrap())).unwrap();
    }
    let mut written = notifications();
    written.extend([
        ("push-tcp", Exchange::push(Transport::Tcp, &newmail).output().to_vec()),
        ("push-ipc", Exchange::push(Transport::Ipc, &newmail).output().to_vec()),
        ("pull", Handshake::new(Protocol::Pull).to_octets().to_vec()),
        ("req", request),
        ("rep", reply),
        ("session", session.encode(charset).unwrap()),
        ("resolver", ResolverRecord { hosts }.encode(charset).unwrap()),
        ("subscription", SubscriptionRecord { subscriptions: vec![subscription] }.encode().unwrap()),
        ("deliver", waiting),
        ("newmail-maildir", drafts.encode(charset).unwrap()),
        ("newmail", newmail),
        ("lease", samples::golden_lease().encode().unwrap()),
        ("batch", batch),
        ("ack", ack),
    ]);
    written
}

/// The ROPs of notifications, as they are in the reference's worked examples.
fn notifications() -> BTreeMap<&'static str, Vec<u8>> {
    let folder = |counter| FolderId::from_parts(1, counter).unwrap();
    let (inbox, message) = (folder(0x1234), MessageId::from_parts(1, 0xab_cdef).unwrap());
    let reply = |handle, notification| RopNotify { handle, logon_id: 0, notification }.encode().unwrap();
    let new_mail =
        Notification::NewMail { folder: inbox, message, message_flags: 2, class: MessageClass::default() };
    let (tags, total, unread) = (Tags::default(), Some(42), Some(3));
    let data = unhex("00000000005e3cdb01");
    let row = FolderRow { folder: folder(0x1240) };
    let added = TableEvent::RowAdded { row, after: FolderRow { folder: inbox }, data };
    let deleted = TableEvent::RowDeleted { row: MessageRow { folder: inbox, message, instance: 0 } };
    let request = RegisterNotification {
        logon_id: 0,
        input_handle_index: 0,
        output_handle_index: 1,
        types: NotificationTypes::NEW_MAIL,
        scope: Scope::Folder(inbox),
    };
    let answer = RegisterNotificationResponse { output_handle_index: 1, return_value: 0 };
    BTreeMap::from([
        ("ropnotify", reply(0x29, new_mail)),
        (
            "ropnotify-counts",
            reply(0x29, Notification::FolderModified { folder: inbox, tags, total, unread }),
        ),
        ("ropnotify-row-added", reply(0x31, Notification::HierarchyTable(added))),
        ("ropnotify-row-deleted", reply(0x32, Notification::ContentsTable(deleted))),
        ("roppending", RopPending { session_index: 7 }.encode().to_vec()),
        ("ropregister", request.encode().unwrap()),
        ("ropregister-answer", answer.encode().to_vec()),
    ])
}

#[test]
fn every_dump_is_what_the_code_writes() {
    let (dumps, written) = (dumps(), written());
    assert_eq!(dumps.keys().collect::<Vec<_>>(), written.keys().collect::<Vec<_>>());
    for (name, octets) in written {
        assert_eq!(dumps[name], octets, "{name}");
    }
}

#[test]
fn the_golden_octets_stand_in_the_document() {
    let dumps = dumps();
    for (name, hex) in GOLDEN {
        assert!(DOC.contains(hex.trim()), "{name}: docs/formats.md lacks {}", hex.trim());
        assert_eq!(dumps[name], unhex(hex), "{name}");
    }
}

#[test]
fn openchanges_examples_are_its_own_octets() {
    let dumps = dumps();
    for (dump, case) in [
        ("session", "session_plain"),
        ("resolver", "resolver_2hosts"),
        ("subscription", "subscription_1_tablemodified_2props"),
        ("deliver", "deliver_newmail_plus_table"),
        ("newmail", "newmail_inbox"),
        ("newmail-maildir", "plugin_capture_Entwürfe"),
    ] {
        assert_eq!(dumps[dump], unhex(vector(case)["hex"].as_str().unwrap()), "{dump}");
    }
}

/// Every line to copy, `ocbus inspect decode KIND HEX`, has the octets of the dump above it.
#[test]
fn the_lines_to_copy_are_the_dumps() {
    let dumps = dumps();
    let mut seen = 0;
    for line in DOC.lines().filter_map(|line| line.strip_prefix("    ocbus inspect decode ")) {
        let (kind, hex) = line.split_once(' ').unwrap();
        let dump = if kind == "event" { "batch" } else { kind };
        assert_eq!(unhex(hex), dumps[dump], "{kind}");
        seen += 1;
    }
    assert_eq!(seen, 9);
}

/// Every field that the code writes stands in the tables, and every name of a kind and a reason.
#[test]
fn every_field_and_kind_has_its_row() {
    let names: Vec<String> = samples::kinds().iter().map(|kind| kind.name().to_owned()).collect();
    for name in names.iter().filter(|name| *name != "MessageLevitate") {
        assert!(DOC.contains(&format!("`{name}`")), "{name}");
    }
    for reason in ["slow-subscriber", "unreachable", "resolver-lost", "overflow", "other"] {
        assert!(DOC.contains(&format!("`{reason}`")), "{reason}");
    }
    let fields = "id ts user kind mb uv msgs unseen ord uids fl kw from subj mid size be name omb ouids ouv why lost \
                  n s sn ls v ev ok skip gone err ep sub end leg missed";
    for field in fields.split_whitespace() {
        assert!(DOC.lines().any(|line| line.starts_with(&format!("| `{field}` |"))), "{field}");
    }
}

/// A row that lacks a cell puts what is behind it under another head.
#[test]
fn every_row_has_a_cell_for_each_head() {
    let mut cells = None;
    for line in DOC.lines() {
        let Some(row) = line.strip_prefix('|') else {
            cells = None;
            continue;
        };
        let count = row.matches('|').count();
        assert_eq!(*cells.get_or_insert(count), count, "{line}");
    }
}
