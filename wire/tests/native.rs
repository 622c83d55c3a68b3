//! The native formats: every field there and back, the octets as `docs/formats.md` shows them, old readers and
//! new writers, new readers and old writers, and what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "native/samples.rs"]
mod samples;
#[path = "native/value.rs"]
mod value;

use ocbus_wire::native::{
    Ack, Batch, DecodeError, EncodeError, Lease, LeaseRecord, MAX_BATCH_OCTETS, MAX_EVENTS,
};
use ocbus_wire::{Event, EventKind, Mailbox, NewMessage, ResyncReason, UidSet};
use samples::{golden_ack, golden_batch, golden_lease, id, kinds, mailbox};
use uuid::Uuid;
use value::Value::{self, Array, Bin, Bool, Ext, Float, Map, Nil, Raw, Signed, Str, Uint};

fn unhex(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn batch_of(events: &[Event]) -> Vec<u8> {
    let mut batch = Batch::new();
    for event in events {
        assert!(batch.push(event).unwrap());
    }
    batch.encode()
}

fn decode(octets: &[u8]) -> Vec<Event> {
    let decoded = Batch::decode(octets).unwrap();
    assert_eq!(decoded.skipped, 0);
    decoded.events
}

/// A batch as some writer might send it.
fn told(events: Vec<Value>) -> Vec<u8> {
    Map(vec![("v", Uint(1)), ("ev", Array(events))]).octets()
}

/// An event with the four fields that all kinds have, and these.
fn event(kind: &str, more: Vec<(&'static str, Value)>) -> Value {
    let mut fields = vec![
        ("id", Bin(id().as_bytes().to_vec())),
        ("ts", Uint(1_767_225_600_000_000)),
        ("user", Str("bob".into())),
        ("kind", Str(kind.into())),
    ];
    fields.extend(more);
    Map(fields)
}

fn inbox() -> (&'static str, Value) {
    ("mb", Map(vec![("n", Str("INBOX".into())), ("s", Str("/".into()))]))
}

// ---- there and back ----

#[test]
fn every_kind_comes_back_with_all_its_fields() {
    let events: Vec<Event> = kinds().into_iter().map(samples::full_event).collect();
    assert_eq!(decode(&batch_of(&events)), events, "in one batch, in order");
    for event in events {
        let octets = Batch::of(&event).unwrap().encode();
        assert_eq!(decode(&octets), [event]);
    }
}

#[test]
fn what_is_not_known_stays_unknown() {
    let mut bare =
        Event::new(id(), 0, "", Mailbox::new("", '/'), EventKind::MessageNew(NewMessage::default()));
    assert_eq!(decode(&batch_of(std::slice::from_ref(&bare))), [bare.clone()]);
    for kind in [ResyncReason::SlowSubscriber, ResyncReason::Other] {
        bare = Event::resync(id(), u64::MAX, "", kind, u64::MAX);
        assert_eq!(decode(&batch_of(std::slice::from_ref(&bare))), [bare.clone()]);
    }
}

#[test]
fn acks_and_lease_records_come_back() {
    for ack in [
        Ack::taken(0, 0, Vec::new()),
        Ack::taken(u32::MAX, u32::MAX, vec!["bob".into(), "Jürgen".into(), String::new()]),
        Ack::refused("version 2: this ocbus reads version 1"),
    ] {
        assert_eq!(Ack::decode(&ack.encode().unwrap()).unwrap(), ack);
    }
    let lease = |legacy: Option<&str>, missed| Lease {
        endpoint: "tcp://[::1]:9005".into(),
        subscriber: id(),
        until_ms: u64::MAX,
        legacy: legacy.map(str::to_owned),
        missed,
    };
    for leases in [vec![], vec![lease(None, 0)], vec![lease(Some("tcp://h:1"), u64::MAX), lease(None, 1)]] {
        let record = LeaseRecord::new(leases);
        assert_eq!(LeaseRecord::decode(&record.encode().unwrap()).unwrap(), record);
    }
    assert_eq!(LeaseRecord::decode(&[]).unwrap(), LeaseRecord::default(), "an empty value has no leases");
}

#[test]
fn a_long_refusal_is_cut_and_stays_an_answer() {
    let ack = Ack::refused("ü".repeat(100_000));
    assert_eq!(ack.refused.as_ref().map(String::len), Some(512));
    assert_eq!(Ack::decode(&ack.encode().unwrap()).unwrap(), ack);
    assert_eq!(
        Ack::refused(format!("x{}", "ü".repeat(300))).refused.unwrap().len(),
        511,
        "no half characters"
    );
}

// ---- the octets ----

#[test]
fn the_octets_are_those_of_the_golden_files() {
    let golden = [
        ("batch", batch_of(&[golden_batch()]), include_str!("../../tests/data/native/batch.hex")),
        ("ack", golden_ack().encode().unwrap(), include_str!("../../tests/data/native/ack.hex")),
        ("lease", golden_lease().encode().unwrap(), include_str!("../../tests/data/native/lease.hex")),
    ];
    for (name, octets, hex) in golden {
        assert_eq!(octets, unhex(hex), "{name}: a change of the octets is a change of the format");
    }
    assert_eq!(decode(&unhex(include_str!("../../tests/data/native/batch.hex"))), [golden_batch()]);
}

// ---- an old reader meets a new writer ----

#[test]
fn an_old_reader_passes_over_new_fields_at_every_depth() {
    let anything = Map(vec![
        ("nil", Nil),
        ("bool", Bool(true)),
        ("int", Signed(-5)),
        ("float", Float(1.5)),
        ("bin", Bin(vec![0; 70_000 / 2])),
        ("ext", Ext(7, vec![1, 2, 3])),
        ("list", Array(vec![Uint(u64::MAX), Str("x".repeat(300)), Map(vec![])])),
    ]);
    let mb = Map(vec![
        ("role", anything.clone_small()),
        ("n", Str("Projects/2026".into())),
        ("s", Str("/".into())),
        ("sn", Str("Projects.2026".into())),
        ("ls", Str(".".into())),
    ]);
    let octets = Map(vec![
        ("new", anything),
        ("v", Uint(1)),
        (
            "ev",
            Array(vec![event(
                "MessageExpunge",
                vec![
                    ("newer", Map(vec![("deep", Array(vec![Nil]))])),
                    ("mb", mb),
                    ("uids", Array(vec![Uint(3), Uint(9)])),
                ],
            )]),
        ),
        ("after", Ext(-1, vec![0; 12])),
    ])
    .octets();
    let mut uids = UidSet::new();
    uids.push_range(3, 9);
    let events = decode(&octets);
    assert_eq!(events[0].kind, EventKind::MessageExpunge { uids });
    assert_eq!(events[0].mailbox, Some(mailbox()));

    let ack = Map(vec![("v", Uint(1)), ("ok", Uint(2)), ("later", Array(vec![Nil])), ("skip", Uint(1))]);
    assert_eq!(Ack::decode(&ack.octets()).unwrap(), Ack::taken(2, 1, Vec::new()));
    let lease = Map(vec![
        ("ep", Str("tcp://h:1".into())),
        ("prio", Uint(3)),
        ("sub", Bin(id().as_bytes().to_vec())),
        ("end", Uint(5)),
    ]);
    let record = Map(vec![("ls", Array(vec![lease])), ("by", Str("ocbus 9".into())), ("v", Uint(1))]);
    let leases = LeaseRecord::decode(&record.octets()).unwrap().leases;
    assert_eq!((leases[0].endpoint.as_str(), leases[0].until_ms, leases[0].missed), ("tcp://h:1", 5, 0));
}

#[test]
fn an_old_reader_keeps_kinds_and_reasons_that_it_does_not_know() {
    let octets = told(vec![
        event("MailboxExplode", vec![inbox(), ("shards", Uint(7)), ("uv", Uint(12))]),
        event("ServerTired", vec![]),
        event("Resync", vec![("why", Str("solar-flare".into())), ("lost", Uint(3))]),
        event("MailboxCreate", vec![inbox()]),
    ]);
    let events = decode(&octets);
    assert_eq!(events[0].kind, EventKind::Unknown { name: "MailboxExplode".into() });
    assert_eq!(events[0].user, "bob");
    assert_eq!(events[0].id, id());
    assert_eq!(events[0].uidvalidity, Some(12));
    assert_eq!(events[0].mailbox, Some(Mailbox::new("INBOX", '/')));
    assert_eq!((&events[1].mailbox, events[1].kind.name()), (&None, "ServerTired"));
    assert_eq!(events[2].kind, EventKind::Resync { reason: ResyncReason::Other, missed: 3 });
    assert_eq!(events[3].kind, EventKind::MailboxCreate, "what follows is read as ever");
    assert_eq!(decode(&batch_of(&events)), events, "unknown kinds can be passed on");
}

#[test]
fn a_newer_version_is_told_as_such_whatever_its_shape() {
    let shapes = |v: Value| {
        [
            Map(vec![("v", v.clone_small()), ("ev", Array(vec![])), ("ls", Array(vec![]))]),
            Map(vec![
                ("v", v.clone_small()),
                ("ev", Map(vec![("zip", Bin(vec![1]))])),
                ("ls", Nil),
                ("ok", Nil),
            ]),
            Map(vec![
                ("ev", Str("elsewhere".into())),
                ("ls", Bool(false)),
                ("err", Uint(1)),
                ("v", v.clone_small()),
            ]),
            Map(vec![("v", v)]),
        ]
    };
    for found in [0, 2, u32::MAX] {
        for shape in shapes(Uint(u64::from(found))) {
            let octets = shape.octets();
            let longer = [&octets[..], b"more"].concat();
            for octets in [octets, longer] {
                let version =
                    |error: &DecodeError| matches!(error, DecodeError::Version { found: f } if *f == found);
                assert!(version(&Batch::decode(&octets).unwrap_err()), "{octets:02x?}");
                assert!(version(&LeaseRecord::decode(&octets).unwrap_err()), "{octets:02x?}");
                assert!(version(&Ack::decode(&octets).unwrap_err()), "{octets:02x?}");
            }
        }
    }
    let error = Batch::decode(&shapes(Uint(2))[1].octets()).unwrap_err();
    assert_eq!(error.to_string(), "version 2: this ocbus reads version 1");
    assert_eq!(error.offset(), 0);
}

// ---- a new reader meets an old writer ----

#[test]
fn a_new_reader_does_without_every_optional_field() {
    let bin = Bin(id().as_bytes().to_vec());
    let least = Map(vec![("id", bin), ("kind", Str("MessageNew".into())), inbox()]);
    let events = decode(&told(vec![least]));
    let mut expected =
        Event::new(id(), 0, "", Mailbox::new("INBOX", '/'), EventKind::MessageNew(NewMessage::default()));
    assert_eq!(events, [expected.clone()]);
    expected.kind = EventKind::Resync { reason: ResyncReason::Other, missed: 0 };
    let events = decode(&told(vec![event("Resync", vec![])]));
    assert_eq!((&events[0].kind, &events[0].mailbox), (&expected.kind, &None));
    assert_eq!(Ack::decode(&Map(vec![("v", Uint(1))]).octets()).unwrap(), Ack::taken(0, 0, Vec::new()));
    // Nil says nothing too, as a writer without skip_serializing_if has it.
    let nils = ["uv", "msgs", "unseen", "uids", "from", "subj", "mid", "size", "be", "name", "omb", "ouids"];
    let nils = nils.into_iter().map(|name| (name, Nil)).chain([inbox()]).collect();
    assert_eq!(decode(&told(vec![event("MessageNew", nils)]))[0].uidvalidity, None);
}

#[test]
fn an_event_without_a_needed_field_is_skipped_and_counted() {
    let uids = || ("uids", Array(vec![Uint(1), Uint(1)]));
    let old = || ("omb", Map(vec![("n", Str("Old".into())), ("s", Str("/".into()))]));
    let without: Vec<(&str, Vec<(&'static str, Value)>)> = vec![
        ("MessageNew", vec![]),
        ("MessageAppend", vec![uids()]),
        ("MessageCopy", vec![inbox(), uids()]),
        ("MessageCopy", vec![inbox(), old()]),
        ("MessageMove", vec![inbox(), uids()]),
        ("MessageMove", vec![uids(), old()]),
        ("MessageRead", vec![inbox()]),
        ("MessageTrash", vec![inbox()]),
        ("MessageExpunge", vec![inbox()]),
        ("FlagsSet", vec![inbox()]),
        ("FlagsClear", vec![inbox(), ("fl", Array(vec![Str("\\Seen".into())]))]),
        ("MailboxRename", vec![inbox()]),
        ("MailboxRename", vec![old()]),
        ("MailboxCreate", vec![]),
        ("MailboxDelete", vec![]),
        ("MailboxSubscribe", vec![]),
        ("MailboxUnsubscribe", vec![]),
    ];
    let count = without.len();
    let mut events: Vec<Value> = without.into_iter().map(|(kind, fields)| event(kind, fields)).collect();
    events.insert(3, event("MailboxCreate", vec![inbox()]));
    events.push(event("MessageCopy", vec![inbox(), uids(), old()]));
    let decoded = Batch::decode(&told(events)).unwrap();
    assert_eq!(decoded.skipped, count);
    assert_eq!(
        decoded.events.iter().map(|event| event.kind.name()).collect::<Vec<_>>(),
        ["MailboxCreate", "MessageCopy"]
    );
}

// ---- what is refused ----

#[test]
fn octets_left_over_are_refused() {
    let samples: [(&str, Vec<u8>); 3] = [
        ("batch", batch_of(&[golden_batch()])),
        ("ack", golden_ack().encode().unwrap()),
        ("lease", golden_lease().encode().unwrap()),
    ];
    for (name, octets) in samples {
        for more in [&b"\0"[..], b"\xc0", &octets] {
            let longer = [&octets, more].concat();
            let errors = [
                Batch::decode(&longer).unwrap_err(),
                Ack::decode(&longer).unwrap_err(),
                LeaseRecord::decode(&longer).unwrap_err(),
            ];
            let trailing = |error: &DecodeError| matches!(error, DecodeError::Trailing { offset, left } if (*offset, *left) == (octets.len(), more.len()));
            assert!(errors.iter().any(trailing), "{name}: {errors:?}");
        }
    }
}

#[test]
fn truncation_is_refused_at_every_octet() {
    let batch = batch_of(&kinds().into_iter().map(samples::full_event).collect::<Vec<_>>());
    for length in 0..batch.len() {
        let error = Batch::decode(&batch[..length]).unwrap_err();
        assert!(matches!(error, DecodeError::Malformed { .. }), "{length}: {error}");
        assert!(error.offset() <= length, "{length}: {error}");
        assert!(error.to_string().starts_with("at octet "), "{error}");
    }
    let ack = Ack::taken(1, 2, vec!["bob".into()]).encode().unwrap();
    for length in 0..ack.len() {
        assert!(Ack::decode(&ack[..length]).is_err(), "{length}");
    }
    let record = golden_lease().encode().unwrap();
    for length in 1..record.len() {
        assert!(LeaseRecord::decode(&record[..length]).is_err(), "{length}");
    }
}

#[test]
fn fields_told_twice_are_refused() {
    let twice = |field: (&'static str, Value), again: Value| {
        let name = field.0;
        told(vec![event("MessageRead", vec![inbox(), field, (name, again)])])
    };
    let uids = || Array(vec![Uint(1), Uint(1)]);
    let refused = |octets: &[u8]| Batch::decode(octets).unwrap_err().to_string();
    assert!(refused(&twice(("uids", uids()), uids())).contains("duplicate field `uids`"));
    assert!(
        refused(&twice(("user", Str("eve".into())), Str("bob".into()))).contains("duplicate field `user`")
    );
    let ev = || Array(vec![]);
    assert!(refused(&Map(vec![("v", Uint(1)), ("ev", ev()), ("ev", ev())]).octets()).contains("duplicate"));
    assert!(refused(&Map(vec![("v", Uint(1)), ("ev", ev()), ("v", Uint(2))]).octets()).contains("duplicate"));
    // Nobody reads a field that nobody knows, however often.
    assert_eq!(decode(&Map(vec![("x", Nil), ("v", Uint(1)), ("ev", ev()), ("x", Uint(1))]).octets()), []);
}

#[test]
fn wrong_types_are_refused_with_the_octet() {
    let wrong: Vec<(&'static str, Value)> = vec![
        ("uids", Str("1:3".into())),
        ("uids", Array(vec![Uint(1)])),
        ("uids", Array(vec![Uint(3), Uint(2)])),
        ("uids", Array(vec![Uint(0), Uint(2)])),
        ("uids", Array(vec![Uint(1), Uint(1 << 32)])),
        ("uids", Array(vec![Signed(-1), Uint(1)])),
        ("fl", Str("\\Seen".into())),
        ("fl", Array(vec![Uint(1)])),
        ("uv", Signed(-1)),
        ("uv", Uint(1 << 32)),
        ("size", Str("1".into())),
        ("from", Uint(1)),
        ("subj", Bin(vec![0xff])),
        ("omb", Str("INBOX".into())),
        ("omb", Map(vec![("n", Str("INBOX".into())), ("s", Str("//".into()))])),
        ("omb", Map(vec![("n", Str("INBOX".into()))])),
        ("lost", Float(1.0)),
        ("why", Array(vec![])),
    ];
    for field in wrong {
        let octets = told(vec![event("FlagsSet", vec![inbox(), field])]);
        let error = Batch::decode(&octets).unwrap_err();
        assert!(matches!(error, DecodeError::Malformed { .. }), "{error}");
        assert!(error.offset() > 40 && error.offset() <= octets.len(), "{error}");
    }
    let no_id = Map(vec![("id", Bin(vec![0; 15])), ("kind", Str("MailboxCreate".into())), inbox()]);
    for event in [no_id, Map(vec![("kind", Str("MailboxCreate".into()))]), Map(vec![]), Nil, Uint(1)] {
        assert!(Batch::decode(&told(vec![event])).is_err());
    }
    for top in [
        Nil,
        Uint(1),
        Str("v".into()),
        Bin(vec![]),
        Map(vec![]),
        Map(vec![("v", Str("1".into()))]),
        Raw(vec![0xc1]),
    ] {
        let octets = top.octets();
        assert!(
            Batch::decode(&octets).is_err()
                && Ack::decode(&octets).is_err()
                && LeaseRecord::decode(&octets).is_err()
        );
    }
    assert!(Batch::decode(&[]).is_err() && Ack::decode(&[]).is_err());
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let octets = told(vec![event("MessageNew", vec![inbox(), ("subj", Raw(vec![0xa2, 0xff, 0xfe]))])]);
    assert!(Batch::decode(&octets).is_err());
}

#[test]
fn nesting_is_bounded_also_where_nobody_looks() {
    let deep = |depth: usize| Raw([vec![0x91; depth], vec![0xc0]].concat());
    let ok = |value: Value| {
        let bomb = Map(vec![("v", Uint(1)), ("x", value.clone_small()), ("ev", Array(vec![]))]).octets();
        let event = told(vec![event("MailboxCreate", vec![inbox(), ("x", value.clone_small())])]);
        let ack = Map(vec![("v", Uint(1)), ("x", value.clone_small())]).octets();
        let record = Map(vec![("x", value), ("v", Uint(1)), ("ls", Array(vec![]))]).octets();
        let results = [
            Batch::decode(&bomb).is_ok(),
            Batch::decode(&event).is_ok(),
            Ack::decode(&ack).is_ok(),
            LeaseRecord::decode(&record).is_ok(),
        ];
        assert!(results.iter().all(|ok| *ok == results[0]), "{results:?}");
        results[0]
    };
    assert!(ok(deep(16)), "what a later version may well want");
    for depth in [100, 10_000, 60_000] {
        assert!(!ok(deep(depth)), "{depth}");
        assert!(!ok(Raw([[0x81, 0x01].repeat(depth / 2), vec![0xc0]].concat())), "maps, {depth}");
        // As what was to be read, too.
        for bomb in [vec![0x91; depth], vec![0x81; depth]] {
            assert!(Batch::decode(&bomb).is_err() && LeaseRecord::decode(&bomb).is_err());
        }
    }
}

// ---- bounds ----

/// An event whose encoding has exactly this many octets.
fn event_of(octets: usize) -> Event {
    let mut event = Event::new(id(), 0, "bob", Mailbox::new("INBOX", '/'), EventKind::MailboxCreate);
    let envelope = Batch::new().encode().len();
    let empty = Batch::of(&event).unwrap().encode().len() - envelope;
    let pad = octets - empty;
    // A fixstr's head has one octet, a str8's two, a str16's three; "bob" is a fixstr of 3.
    let head = match pad + 3 {
        0..=31 => 0,
        32..=256 => 1,
        _ => 2,
    };
    event.user = "u".repeat(pad + 3 - head);
    assert_eq!(Batch::of(&event).unwrap().encode().len() - envelope, octets);
    event
}

#[test]
fn a_batch_never_grows_beyond_its_octets() {
    assert_eq!(MAX_BATCH_OCTETS, 65_536);
    let mut batch = Batch::new();
    let kilo = event_of(1024);
    while batch.push(&kilo).unwrap() {}
    assert_eq!(batch.len(), 63);
    assert!(batch.push(&event_of(1008)).unwrap(), "a smaller one still fits");
    assert!(!batch.push(&event_of(100)).unwrap());
    let octets = batch.encode();
    assert!(octets.len() <= MAX_BATCH_OCTETS && octets.len() > MAX_BATCH_OCTETS - 16, "{}", octets.len());
    assert_eq!(Batch::decode(&octets).unwrap().events.len(), 64, "and is read");
    assert!(!batch.push(&event_of(100)).unwrap(), "full stays full");
    assert_eq!(batch.len(), 64);
}

#[test]
fn a_batch_above_its_octets_is_refused_unread() {
    let pad = |size: usize| {
        let map =
            |pad: usize| Map(vec![("v", Uint(1)), ("ev", Array(vec![])), ("x", Bin(vec![0; pad]))]).octets();
        map(size - (map(1000).len() - 1000))
    };
    assert_eq!(decode(&pad(MAX_BATCH_OCTETS)), []);
    let error = Batch::decode(&pad(MAX_BATCH_OCTETS + 1)).unwrap_err();
    assert_eq!(error.to_string(), "65537 octets: expected at most 65536");
    let large = vec![0x80; LeaseRecord::MAX_OCTETS + 1];
    assert!(matches!(
        LeaseRecord::decode(&large),
        Err(DecodeError::TooLarge { size: 1_048_577, limit: 1_048_576 })
    ));
    assert!(matches!(Ack::decode(&large[..65_537]), Err(DecodeError::TooLarge { .. })));
}

#[test]
fn an_event_that_fits_in_no_batch_is_an_error() {
    let largest = event_of(MAX_BATCH_OCTETS - 16);
    let octets = Batch::of(&largest).unwrap().encode();
    assert!(octets.len() <= MAX_BATCH_OCTETS);
    assert_eq!(decode(&octets), std::slice::from_ref(&largest));
    let mut larger = largest;
    larger.user.push('u');
    let mut batch = Batch::of(&event_of(100)).unwrap();
    let error = batch.push(&larger).unwrap_err();
    assert!(matches!(error, EncodeError::TooLarge { size: 65_521, limit: 65_520 }), "{error}");
    assert_eq!(batch.len(), 1, "the batch is as it was");
    assert!(Batch::of(&larger).is_err());
}

#[test]
fn a_batch_has_at_most_so_many_events() {
    // As small as an event of ours can be, so many still take more than 64 KiB: `append` and a foreign writer
    // can show the count alone.
    let tiny = || Map(vec![("id", Bin(vec![0; 16])), ("kind", Str("x".into()))]);
    assert!(tiny().octets().len() * MAX_EVENTS > MAX_BATCH_OCTETS);
    // Positional events are shorter, and no reader of ours minds.
    let array = || Raw([&[0x94, 0xc4, 16][..], &[0; 16], &[0, 0xa0, 0xa1, b'x']].concat());
    let most = MAX_BATCH_OCTETS / array().octets().len();
    assert!(most < MAX_EVENTS, "64 KiB come before {MAX_EVENTS} events");
    assert_eq!(decode(&told((0..most - 1).map(|_| array()).collect())).len(), most - 1);
}

#[test]
fn append_takes_what_there_is_room_for() {
    let one = Batch::of(&event_of(40_000)).unwrap();
    let other = Batch::of(&event_of(25_520)).unwrap();
    let mut batch = one.clone();
    assert_eq!(batch.append(&Batch::new(), 0), 0);
    assert_eq!(batch, one);
    assert_eq!(batch.append(&other, 0), 1, "exactly full");
    assert!(batch.encode().len() <= MAX_BATCH_OCTETS);
    assert_eq!(decode(&batch.encode()).len(), 2);
    let full = batch.clone();
    assert_eq!(batch.append(&Batch::of(&event_of(100)).unwrap(), 0), 0);
    assert_eq!(batch, full);
    let mut batch = one.clone();
    assert_eq!(batch.append(&Batch::of(&event_of(25_521)).unwrap(), 0), 0, "one octet too many");
    assert_eq!(batch, one);
}

#[test]
fn append_splits_a_batch_between_events() {
    let events: Vec<Event> = [30_000, 20_000, 10_000].map(event_of).into();
    let mut three = Batch::new();
    assert!(events.iter().all(|event| three.push(event).unwrap()));
    let first = event_of(40_000);
    let mut batch = Batch::of(&first).unwrap();
    assert_eq!(batch.append(&three, 0), 0, "the first does not fit, and the others wait behind it");
    assert_eq!(batch.append(&three, 1), 1);
    assert_eq!(decode(&batch.encode()), [first, events[1].clone()]);
    let mut rest = Batch::new();
    assert_eq!(rest.append(&three, 2), 1);
    assert_eq!(rest.append(&three, 3), 0, "there is no more");
    assert_eq!(rest.append(&three, 9), 0);
    // What was appended can be appended in its turn.
    assert_eq!(rest.append(&batch, 1), 1);
    assert_eq!(decode(&rest.encode()), [events[2].clone(), events[1].clone()]);
}

#[test]
fn the_header_of_the_array_is_right_at_each_of_its_sizes() {
    for count in [0usize, 1, 15, 16, 17, 255, 256, 700] {
        let mut event = event_of(80);
        let mut batch = Batch::new();
        for n in 0..count {
            event.time_us = n as u64 % 128;
            assert!(batch.push(&event).unwrap());
        }
        let octets = batch.encode();
        assert_eq!(batch.len(), count);
        assert_eq!(batch.is_empty(), count == 0);
        let decoded = decode(&octets);
        assert_eq!(decoded.len(), count);
        // As rmp-serde would write it.
        let told =
            told(decoded.iter().map(|event| Raw(Batch::of(event).unwrap().encode()[8..].to_vec())).collect());
        assert_eq!(octets, told, "{count}");
    }
}

#[test]
fn a_set_of_uids_that_can_be_written_can_be_read() {
    // Every other message of 21,000: ranges that do not join, three octets each.
    for last in [16_400u32, 21_000] {
        let uids: UidSet = (1..=last).step_by(2).collect();
        let event = Event::new(id(), 0, "bob", Mailbox::new("INBOX", '/'), EventKind::MessageRead { uids });
        assert_eq!(decode(&batch_of(std::slice::from_ref(&event))), [event]);
    }
    // The most that fit: two octets a range.
    let uids: UidSet = (0..32_700u32).map(|n| 1 + n % 2 * 4).collect();
    assert_eq!(uids.ranges().len(), 32_700);
    let event = Event::new(id(), 0, "bob", Mailbox::new("INBOX", '/'), EventKind::MessageRead { uids });
    assert_eq!(decode(&batch_of(std::slice::from_ref(&event))), [event]);
}

#[test]
fn flags_that_no_reader_takes_are_not_written() {
    let flags = |count: usize| {
        let message = NewMessage { keywords: vec!["k".into(); count], ..NewMessage::default() };
        Event::new(id(), 0, "bob", Mailbox::new("INBOX", '/'), EventKind::MessageNew(message))
    };
    assert_eq!(decode(&batch_of(&[flags(1024)])), [flags(1024)]);
    let error = Batch::of(&flags(1025)).unwrap_err().to_string();
    assert!(error.contains("more than 1024 flags or keywords"), "{error}");
    let told = told(vec![event("MessageNew", vec![inbox(), ("kw", Array(vec![Str("k".into()); 1025]))])]);
    assert!(Batch::decode(&told).unwrap_err().to_string().contains("more than 1024 elements"));
}

#[test]
fn a_lease_record_has_at_most_so_many_leases() {
    let lease =
        Lease { endpoint: "tcp://h:1".into(), subscriber: Uuid::nil(), until_ms: 1, legacy: None, missed: 0 };
    let most = LeaseRecord::new(vec![lease.clone(); LeaseRecord::MAX_LEASES]);
    assert_eq!(LeaseRecord::decode(&most.encode().unwrap()).unwrap(), most);
    let more = LeaseRecord::new(vec![lease; LeaseRecord::MAX_LEASES + 1]);
    let written = more.encode().map(|octets| LeaseRecord::decode(&octets).is_ok());
    assert!(!matches!(written, Ok(true)), "not read");
}
