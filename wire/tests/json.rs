//! The readers of JSON: what `/v1/events` takes and refuses, every capture of the OX driver, and what others send in
//! its place.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::fs;
use std::path::Path;

use ocbus_wire::json::{Decoded, JsonError, Limits, decode_events, encode_events};
use ocbus_wire::ox::{OxError, OxEvent, OxNotification};
use ocbus_wire::{Event, EventKind, Mailbox, ResyncReason};
use serde_json::{Value, json};
use uuid::Uuid;

const NOW_US: u64 = 1_767_225_600_000_000;

fn decode(text: &str) -> Result<Decoded, JsonError> {
    decode_events(text.as_bytes(), &Limits::default(), NOW_US, &mut || Uuid::from_u128(7))
}

/// One event of a document; `json` is what stands in it.
fn event(json: Value) -> Event {
    let mut decoded = decode(&json!({"v": 1, "events": [json]}).to_string()).unwrap();
    assert_eq!(decoded.skipped, []);
    decoded.events.remove(0)
}

#[test]
fn what_is_left_out_is_made() {
    let made = event(json!({"user": "bob", "kind": "MailboxCreate", "mailbox": "Entwürfe/A"}));
    let mailbox = Mailbox {
        name: "Entwürfe/A".into(),
        separator: '/',
        storage_name: "Entw&APw-rfe/A".into(),
        list_separator: '/',
    };
    assert_eq!(made, Event::new(Uuid::from_u128(7), NOW_US, "bob", mailbox, EventKind::MailboxCreate));
    let given = event(json!({"id": "019b76da-a800-7abc-8def-0123456789ab", "time_us": 5, "user": "bob",
        "kind": "MailboxDelete", "mailbox": "A.B", "separator": ".", "storage_name": "a", "list_separator": "/"}));
    assert_eq!((given.id.get_version_num(), given.time_us), (7, 5));
    let mailbox = given.mailbox.unwrap();
    assert_eq!((mailbox.separator, mailbox.storage_name.as_str(), mailbox.list_separator), ('.', "a", '/'));
    // RFC 3339 will do, `null` is nothing, and so is a document's `v`.
    let text = r#"{"events":[{"user":"b","kind":"Resync","time":"2026-01-05T10:00:00Z","mailbox":null}]}"#;
    let resync = decode(text).unwrap().events.remove(0);
    assert_eq!(resync.time_us, 1_767_607_200_000_000);
    assert_eq!(resync.kind, EventKind::Resync { reason: ResyncReason::Other, missed: 0 });
}

#[test]
fn uids_are_ranges_or_lists_and_floats_are_numbers() {
    for uids in [json!("1:3,7"), json!([1, 2, 3, 7]), json!([1.0, 2.0, 3.0, 7.0])] {
        let read = event(json!({"user": "b", "kind": "MessageRead", "mailbox": "A", "uids": uids}));
        assert!(
            matches!(&read.kind, EventKind::MessageRead { uids } if uids.to_string() == "1:3,7"),
            "{read:?}"
        );
    }
    let one = event(
        json!({"user": "b", "kind": "MessageNew", "mailbox": "A", "uid": 7.0, "uidvalidity": 4294967295.0}),
    );
    assert_eq!(one.uidvalidity, Some(u32::MAX));
    assert!(matches!(one.kind, EventKind::MessageNew(message) if message.uid == Some(7)));
}

#[test]
fn what_a_newer_program_says_is_passed_over() {
    let read =
        event(json!({"user": "b", "kind": "MailboxCreate", "mailbox": "A", "colour": [[{}]], "uids": "7"}));
    assert_eq!(read.kind, EventKind::MailboxCreate);
    let read = decode(r#"{"v":1,"more":[1,{"a":2}],"events":[],"skipped":0}"#).unwrap();
    assert_eq!(read, Decoded { events: vec![], skipped: vec![] });
    let reason = event(json!({"user": "b", "kind": "Resync", "reason": "new-reason"}));
    assert_eq!(reason.kind, EventKind::Resync { reason: ResyncReason::Other, missed: 0 });
}

#[test]
fn one_wrong_event_spoils_no_other() {
    let good = json!({"user": "b", "kind": "MailboxCreate", "mailbox": "A"});
    let wrong: Vec<(Value, &str)> = vec![
        (json!(7), "events[1]: 7: expected an object"),
        (
            json!({"user": "b", "kind": "MessagNew", "mailbox": "A"}),
            "events[1].kind: \"MessagNew\": expected one",
        ),
        (json!({"user": "b", "mailbox": "A"}), "events[1].kind: missing"),
        (json!({"kind": "MailboxCreate", "mailbox": "A"}), "events[1].user: missing: MailboxCreate needs it"),
        (json!({"user": "b", "kind": "MailboxCreate"}), "events[1].mailbox: missing: MailboxCreate needs it"),
        (json!({"user": 7, "kind": "MailboxCreate", "mailbox": "A"}), "events[1].user: 7: expected a string"),
        (json!({"user": "b", "kind": "MailboxRename", "mailbox": "A"}), "events[1].old_mailbox: missing"),
        (json!({"user": "b", "kind": "MessageRead", "mailbox": "A"}), "events[1].uids: missing"),
        (
            json!({"user": "b", "kind": "MessageRead", "mailbox": "A", "uids": "1:*"}),
            "events[1].uids: \"1:*\": expected UIDs from 1 to 4294967295, as in 1:3,7",
        ),
        (
            json!({"user": "b", "kind": "MessageRead", "mailbox": "A", "uids": [1, 0]}),
            "events[1].uids[1]: 0: expected a UID",
        ),
        (
            json!({"user": "b", "kind": "MessageRead", "mailbox": "A", "uid": 1.5}),
            "events[1].uid: 1.5: expected 0 to",
        ),
        (
            json!({"user": "b", "kind": "MessageNew", "mailbox": "A", "uids": "1:2"}),
            "events[1].uids: 2 UIDs: expected one UID",
        ),
        (
            json!({"user": "b", "kind": "MailboxCreate", "mailbox": "A", "separator": "//"}),
            "events[1].separator: \"//\"",
        ),
        (json!({"user": "b", "kind": "MailboxCreate", "mailbox": "A", "id": "x"}), "events[1].id: \"x\""),
        (
            json!({"user": "b", "kind": "FlagsSet", "mailbox": "A", "uid": 1, "flags": vec!["f"; 1025]}),
            "more than 1024 flags",
        ),
        (
            json!({"user": "b", "kind": "MailboxCreate", "mailbox": "A".repeat(70_000)}),
            "octets: expected at most 65536",
        ),
        // Short enough here, too long as a batch has it: each UID takes two numbers there.
        (
            json!({"user": "b", "kind": "MessageRead", "mailbox": "A",
                "uids": (0..9000).map(|n| (100_000 + 2 * n).to_string()).collect::<Vec<_>>().join(",")}),
            "octets: expected at most",
        ),
    ];
    for (wrong, why) in wrong {
        let decoded = decode(&json!({"v": 1, "events": [good, wrong, good]}).to_string()).unwrap();
        assert_eq!(decoded.events.len(), 2, "{why}");
        assert_eq!(decoded.skipped.len(), 1, "{why}");
        assert_eq!(decoded.skipped[0].index, 1);
        let said = decoded.skipped[0].why.to_string();
        assert!(said.contains(why), "{said:?} lacks {why:?}");
    }
    // An event that is nested too deep.
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let decoded = decode(&format!(r#"{{"events":[{deep},{good}]}}"#)).unwrap();
    assert_eq!((decoded.events.len(), decoded.skipped[0].index), (1, 0));
    assert!(decoded.skipped[0].why.to_string().contains("recursion limit"), "{}", decoded.skipped[0].why);
}

#[test]
fn a_document_that_is_none_is_refused_with_its_place() {
    for (text, expected) in [
        ("", "at octet 0: EOF while parsing a value"),
        ("nonsense", "at octet 1: expected ident"),
        ("[]", "expected struct Document"),
        ("{}", "missing field `events`"),
        ("{\"events\":[]\n,\n}", "at octet 15: trailing comma"),
        ("{\"v\":1,\"events\":[{}", "at octet 19: EOF while parsing a list"),
        ("{\"v\":1,\"events\":[{\"a\":1}}", "at octet 24: expected `,` or `]`"),
        ("{\"events\":7}", "at octet 10: invalid type: integer `7`, expected an array of events"),
        ("{\"events\":[]} x", "at octet 14: trailing characters"),
        ("{\"v\":2,\"events\":[]}", "v: 2: expected 1"),
        ("{\"v\":\"1\",\"events\":[]}", "invalid type: string \"1\""),
    ] {
        let error = decode(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text:?}: {error:?}");
    }
    let error = decode_events(b"{\"\xff\":1}", &Limits::default(), 0, &mut Uuid::now_v7).unwrap_err();
    assert_eq!(error.to_string(), "at octet 2: no UTF-8: expected JSON in UTF-8");
}

#[test]
fn a_document_is_bounded() {
    let limits = Limits { octets: 1000, events: 3, event_octets: 100 };
    let decode = |text: &str| decode_events(text.as_bytes(), &limits, 0, &mut Uuid::now_v7);
    let document = |count: usize| format!("{{\"events\":[{}]}}", vec!["{}"; count].join(","));
    assert_eq!(decode(&document(3)).unwrap().skipped.len(), 3);
    assert!(decode(&document(4)).unwrap_err().to_string().contains("events: expected at most 3"));
    let error = decode(&" ".repeat(1001)).unwrap_err();
    assert_eq!(error, JsonError::TooLarge { size: 1001, limit: 1000 });
    let long = format!("{{\"events\":[{{\"x\":\"{}\"}}]}}", "x".repeat(100));
    assert!(decode(&long).unwrap().skipped[0].why.to_string().contains("expected at most 100"));
    // Whatever the limits say, a batch takes no more.
    let most = Limits { octets: usize::MAX, events: usize::MAX, event_octets: usize::MAX };
    let many = decode_events(document(4097).as_bytes(), &most, 0, &mut Uuid::now_v7).unwrap_err();
    assert!(many.to_string().contains("events: expected at most 4096"), "{many}");
}

#[test]
fn the_document_of_docs_formats_md() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/formats.md")).unwrap();
    let (_, from) = text.split_once("<!-- json: events -->\n```json\n").expect("the example of /v1/events");
    let (example, _) = from.split_once("```").unwrap();
    let decoded = decode(example).unwrap();
    assert_eq!(decoded.skipped, []);
    let kinds: Vec<&str> = decoded.events.iter().map(|event| event.kind.name()).collect();
    assert_eq!(kinds, ["MessageNew", "FlagsSet", "MailboxRename"]);
    assert_eq!(decode(&encode_events(&decoded.events)).unwrap().events, decoded.events);
}

fn capture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ox").join(name);
    let request = fs::read(&path).unwrap();
    let text = String::from_utf8(request).unwrap().replace("\r\n", "\n");
    text.split_once("\n\n").unwrap().1.as_bytes().to_vec()
}

fn ox(body: &Value) -> Result<OxNotification, OxError> {
    OxNotification::decode(body.to_string().as_bytes())
}

fn ox_events(body: &Value) -> Vec<Event> {
    ox(body).unwrap().into_events("bob", NOW_US, &mut || Uuid::from_u128(7)).unwrap()
}

#[test]
fn every_capture_of_the_ox_driver_is_read() {
    let long = (0..40).map(|n| format!("word{n:03} {}", "x".repeat(60))).collect::<Vec<_>>().join(" ");
    let utf8 = "Grüße € 😀 \"quoted\" back\\slash";
    // file, user, uidvalidity, uid, from, subject, unseen
    let expected = [
        ("d24-lda", "bob", 1795308212, 5, Some("Zoë Ünïcode <zoe@example.org>"), Some(utf8), 4),
        ("lda-mail", "bob", 1795306221, 38, Some("Alice <alice@example.org>"), Some("hello"), 37),
        ("lda-mail-empty", "bob", 1795306221, 44, Some("a@example.org"), Some(""), 43),
        ("lda-mail-html", "bob", 1795306221, 43, Some("a@example.org, b@example.org"), Some("html"), 42),
        ("lda-mail-longsubj", "bob", 1795306221, 42, Some("a@example.org"), Some(&*long), 41),
        ("lda-mail-nohdr", "bob", 1795306221, 41, None, None, 40),
        (
            "lda-mail-raw8",
            "bob",
            1795306221,
            40,
            Some("Z\u{fffd} <zoe@example.org>"),
            Some("raw latin1 \u{fffd}\u{fffd} and ctl   here"),
            39,
        ),
        ("lda-mail-utf8", "bob", 1795306221, 39, Some("Zoë Ünïcode <zoe@example.org>"), Some(utf8), 38),
        ("lmtp-mail", "bob", 1795306221, 7, Some("Alice <alice@example.org>"), Some("hello"), 6),
        ("multi-driver1-user", "carol", 1795306408, 1, Some("Alice <alice@example.org>"), Some("hello"), 1),
        (
            "multi-driver2-user_from_metadata",
            "12@3",
            1795306408,
            1,
            Some("Alice <alice@example.org>"),
            Some("hello"),
            1,
        ),
        ("multi-driver3-noauth", "12@3", 1795306408, 1, Some("Alice <alice@example.org>"), Some("hello"), 1),
    ];
    let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ox")).unwrap().count();
    assert_eq!(files, expected.len());
    for (file, user, uidvalidity, uid, from, subject, unseen) in expected {
        let read = OxNotification::decode(&capture(&format!("{file}.http"))).unwrap();
        assert_eq!(
            (read.user.as_str(), read.event, read.folder.as_str()),
            (user, OxEvent::MessageNew, "INBOX")
        );
        let key = read.repeat_key();
        assert!(key.is_some() && key == read.clone().repeat_key());
        let events = read.into_events("cn", NOW_US, &mut || Uuid::from_u128(7)).unwrap();
        assert_eq!(events.len(), 1, "{file}");
        let event = &events[0];
        assert_eq!((event.id, event.time_us, event.user.as_str()), (Uuid::from_u128(7), NOW_US, "cn"));
        assert_eq!((event.uidvalidity, event.unseen), (Some(uidvalidity), Some(unseen)), "{file}");
        assert_eq!(event.mailbox, Some(Mailbox::new("INBOX", '/')));
        let EventKind::MessageNew(message) = &event.kind else { panic!("{file}: {event:?}") };
        let headers = (message.from.as_deref(), message.subject.as_deref());
        assert_eq!((message.uid, headers), (Some(uid), (from, subject)), "{file}");
    }
}

#[test]
fn what_others_send_in_the_place_of_dovecots_driver_is_read() {
    // As Dovecot's documents have it; as 2.2.19 sent it, without unseen.
    let old = json!({"user": "bob", "event": "MessageNew", "folder": "INBOX", "imap-uidvalidity": 1, "imap-uid": 2});
    assert_eq!(ox(&old).unwrap().event, OxEvent::MessageNew);
    // Only the user is needed.
    let least = ox_events(&json!({"user": "bob"})).remove(0);
    assert!(matches!(&least.kind, EventKind::MessageNew(message) if message.uid.is_none()), "{least:?}");
    assert!(least.mailbox.unwrap().is_inbox());
    // A UID that Dovecot did not know.
    let zero = ox_events(&json!({"user": "bob", "imap-uid": 0, "imap-uidvalidity": 0})).remove(0);
    assert!(
        zero.uidvalidity.is_none()
            && matches!(zero.kind, EventKind::MessageNew(message) if message.uid.is_none())
    );

    // EGroupware's script: Lua's floats, lists of UIDs, empty lists as {}.
    let egroupware = |event: &str, more: Value| {
        let mut body = json!({"user": "5::29@x", "imap-uidvalidity": 1795306221.0, "imap-uid": [3.0, 4.0, 9.0],
            "folder": "A/B", "event": event, "unseen": 2.0, "messages": 7.0});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let kind = |event: Event| {
            assert_eq!(
                (event.uidvalidity, event.unseen, event.messages),
                (Some(1795306221), Some(2), Some(7))
            );
            assert_eq!(event.mailbox.unwrap().name, "A/B");
            event.kind
        };
        ox_events(&body).into_iter().map(kind).collect::<Vec<_>>()
    };
    let uids = || [3, 4, 9].into_iter().collect();
    let news = egroupware("MessageAppend", json!({"flags": {}, "subject": "=?utf-8?q?=C3=A9?="}));
    assert_eq!(news.len(), 3, "one for each message");
    assert!(
        matches!(&news[2], EventKind::MessageAppend(new) if new.uid == Some(9) && new.subject.as_deref() == Some("é"))
    );
    assert_eq!(egroupware("MessageExpunge", json!({})), [EventKind::MessageExpunge { uids: uids() }]);
    let flags = json!({"flags": ["\\Seen", "\\Flagged", "\\deleted", "\\Recent"], "keywords": ["k"], "flags-old": []});
    assert_eq!(
        egroupware("FlagsSet", flags),
        [
            EventKind::MessageRead { uids: uids() },
            EventKind::MessageTrash { uids: uids() },
            EventKind::FlagsSet { uids: uids(), flags: vec!["\\Flagged".into()], keywords: vec!["k".into()] },
        ]
    );
    let cleared = json!({"flags": ["\\Seen"], "keywords": {}, "flags-old": ["\\Seen"], "keywords-old": {}});
    assert_eq!(
        egroupware("FlagsClear", cleared),
        [EventKind::FlagsClear { uids: uids(), flags: vec!["\\Seen".into()], keywords: vec![] }]
    );
    // No flag has changed.
    assert_eq!(egroupware("FlagsClear", json!({"flags": [], "keywords": []})), []);
    assert_eq!(egroupware("FlagsSet", json!({})), []);
}

#[test]
fn a_request_that_came_again_has_the_same_key() {
    let body = |uid: u32, more: Value| {
        let mut body =
            json!({"user": "bob", "folder": "INBOX", "imap-uidvalidity": 1, "imap-uid": uid, "unseen": uid});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ox(&body).unwrap().repeat_key()
    };
    let key = body(1, json!({}));
    assert!(key.is_some());
    assert_eq!(key, body(1, json!({"event": "messageNew", "unseen": 7, "from": "x"})));
    for other in [
        body(2, json!({})),
        body(1, json!({"user": "eve"})),
        body(1, json!({"folder": "A"})),
        body(1, json!({"imap-uidvalidity": 2})),
        body(1, json!({"event": "MessageExpunge"})),
        // Nobody knows whether these are the same.
        body(0, json!({})),
        body(1, json!({"imap-uidvalidity": null})),
        // A flag may be set, removed, and set again.
        body(1, json!({"event": "FlagsSet", "flags": ["\\Seen"]})),
    ] {
        assert_ne!(key, other);
    }
    assert_eq!(body(1, json!({"event": "MessageRead"})), None);
}

#[test]
fn a_body_that_is_no_notification_is_refused_with_its_place() {
    // Dovecot 2.2.19 to 2.2.32, for a mail without Subject; and without From.
    let no_subject = r#"{"user":"bob","event":"messageNew","folder":"INBOX","imap-uidvalidity":1,"imap-uid":1,"from":"a@b,"snippet":"x","unseen":1}"#;
    let no_from = r#"{"user":"bob","event":"messageNew","folder":"INBOX","imap-uidvalidity":1,"imap-uid":1","subject":"s"}"#;
    for (body, expected) in [
        (no_subject.as_bytes(), "at octet 99: expected `,` or `}`"),
        (no_from.as_bytes(), "at octet 85: expected `,` or `}`"),
        (b"", "at octet 0: EOF while parsing a value"),
        (b"[]", "JSON: []: expected an object"),
        (b"{}", "user: missing"),
        (br#"{"user":""}"#, "user: missing"),
        (br#"{"user":7}"#, "user: 7: expected a string"),
        (br#"{"user":"b","event":"Login"}"#, "event: \"Login\": expected MessageNew, "),
        (br#"{"user":"b","imap-uid":"x"}"#, "imap-uid: \"x\": expected 0 to 4294967295"),
        (br#"{"user":"b","imap-uid":[1,-1]}"#, "imap-uid[1]: -1: expected"),
        (br#"{"user":"b","event":"FlagsSet"}"#, "imap-uid: missing: FlagsSet needs it"),
        (b"{\"user\":\"\xff\"}", "at octet 9: no UTF-8"),
    ] {
        let error = OxNotification::decode(body).unwrap_err().to_string();
        assert!(error.contains(expected), "{}: {error:?}", String::from_utf8_lossy(body));
    }
    let deep = format!("{{\"user\":\"b\",\"x\":{}{}}}", "[".repeat(200), "]".repeat(200));
    assert!(OxNotification::decode(deep.as_bytes()).unwrap_err().to_string().contains("recursion limit"));
    let huge = vec![b' '; 256 * 1024 + 1];
    assert!(matches!(OxNotification::decode(&huge), Err(OxError::Json(JsonError::TooLarge { .. }))));
    let many: Vec<u32> = (1..=1025).collect();
    assert!(
        ox(&json!({"user": "b", "imap-uid": many})).unwrap_err().to_string().contains("1025 new messages")
    );
    let long = json!({"user": "b".repeat(5000)});
    assert!(ox(&long).unwrap_err().to_string().contains("user: 5000 octets: expected at most 4096"));
}
