//! Fuzz targets for the readers of JSON, laid out as those in `fuzz_openchange.rs`: on octets (nothing panics, errors
//! name a place within the input, and what is read is written again and reads the same) and on values
//! (`..._values`: what is written reads as the same value; then it is damaged and goes through the first sort).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "native/any.rs"]
mod any;
#[path = "native/samples.rs"]
mod samples;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use any::{AnyEvent, Damage};
use bolero::check;
use ocbus_wire::json::{JsonError, Limits, decode_events, encode_events};
use ocbus_wire::native::Batch;
use ocbus_wire::ox::{OxError, OxNotification};
use ocbus_wire::{Event, EventKind};
use uuid::Uuid;

/// How much each target does in a test run: whichever comes first.
const ITERATIONS: usize = 2000;
const TIME: Duration = Duration::from_secs(1);

const NOW_US: u64 = 1_767_225_600_000_000;

fn check_error(error: &JsonError, input: &[u8]) {
    match error {
        JsonError::NotUtf8 { offset } => assert!(std::str::from_utf8(&input[..*offset]).is_ok()),
        JsonError::Malformed { offset, problem } => {
            assert!(*offset <= input.len() && !problem.is_empty(), "{error}");
        }
        _ => {}
    }
    assert!(!error.to_string().chars().any(char::is_control), "{error:?}");
}

/// What an event is made of when its document leaves something out.
fn made() -> impl FnMut() -> Uuid {
    let mut next = 0;
    move || {
        next += 1;
        Uuid::from_u128(next)
    }
}

fn check_events(input: &[u8]) {
    let read = match decode_events(input, &Limits::default(), NOW_US, &mut made()) {
        Ok(read) => read,
        Err(error) => return check_error(&error, input),
    };
    // All that is read can be sent on: none is refused by a batch.
    for event in &read.events {
        assert!(Batch::new().push(event).unwrap());
    }
    for skipped in &read.skipped {
        assert!(skipped.why.place().starts_with(&format!("events[{}]", skipped.index)), "{}", skipped.why);
    }
    let limits = Limits { octets: usize::MAX, ..Limits::default() };
    let octets = encode_events(&read.events);
    let again = decode_events(octets.as_bytes(), &limits, 0, &mut || panic!("an id is missing")).unwrap();
    assert_eq!((again.events, again.skipped), (read.events, vec![]), "{octets}");
}

fn check_ox(input: &[u8]) {
    let read = match OxNotification::decode(input) {
        Ok(read) => read,
        Err(OxError::Json(error)) => return check_error(&error, input),
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let key = read.repeat_key();
    assert_eq!(key, OxNotification::decode(input).unwrap().repeat_key());
    let events = read.into_events("bob", NOW_US, &mut made()).unwrap();
    assert!(events.len() <= 1024);
    for event in &events {
        assert_eq!((event.user.as_str(), event.time_us), ("bob", NOW_US));
        assert!(Batch::new().push(event).unwrap());
        if let EventKind::MessageNew(message) = &event.kind {
            let headers = [&message.from, &message.subject].into_iter().flatten();
            assert!(headers.clone().all(|text| text.len() <= 4096 && !text.chars().any(char::is_control)));
        }
    }
    // The other reader reads what this one has made.
    let octets = encode_events(&events);
    let limits = Limits { octets: usize::MAX, ..Limits::default() };
    let again = decode_events(octets.as_bytes(), &limits, 0, &mut || panic!("an id is missing")).unwrap();
    assert_eq!((again.events, again.skipped), (events, vec![]));
}

#[test]
fn fuzz_json_events() {
    check!().with_iterations(ITERATIONS).with_test_time(TIME).for_each(check_events);
}

#[test]
fn fuzz_json_ox() {
    check!().with_iterations(ITERATIONS).with_test_time(TIME).for_each(check_ox);
}

#[test]
fn fuzz_json_events_values() {
    check!()
        .with_iterations(ITERATIONS)
        .with_test_time(TIME)
        .with_max_len(16_384)
        .with_type::<(Vec<AnyEvent>, Damage)>()
        .for_each(|(events, damage)| {
            let events: Vec<Event> = events
                .iter()
                .map(AnyEvent::event)
                // These are refused, by their kind; and those that are nobody's.
                .filter(|event| !matches!(event.kind, EventKind::Unknown { .. }))
                .filter(|event| !event.user.is_empty() || matches!(event.kind, EventKind::Resync { .. }))
                .collect();
            let octets = encode_events(&events);
            let limits = Limits { octets: usize::MAX, ..Limits::default() };
            let read = decode_events(octets.as_bytes(), &limits, 0, &mut || panic!("an id")).unwrap();
            assert_eq!((read.events, read.skipped), (events, vec![]));
            damage.check(octets.as_bytes(), check_events);
        });
}

#[test]
fn fuzz_json_ox_values() {
    check!()
        .with_iterations(ITERATIONS)
        .with_test_time(TIME)
        .with_type::<(String, String, Option<u32>, Vec<u32>, [Option<String>; 2], Vec<String>, u8, Damage)>()
        .for_each(|(user, folder, uidvalidity, uids, headers, flags, event, damage)| {
            let names =
                ["messageNew", "MessageAppend", "MessageExpunge", "FlagsSet", "FlagsClear", "MailboxCreate"];
            let name = names[usize::from(*event) % names.len()];
            let uids: Vec<u32> = uids.iter().copied().filter(|uid| *uid > 0).collect();
            let body = serde_json::json!({"user": user, "event": name, "folder": folder,
                "imap-uidvalidity": uidvalidity, "imap-uid": uids, "from": headers[0], "subject": headers[1],
                "flags": flags, "unseen": uidvalidity.map(f64::from)});
            let octets = body.to_string().into_bytes();
            match OxNotification::decode(&octets) {
                Ok(read) => {
                    assert_eq!(&read.user, user);
                    assert_eq!(read.folder, if folder.is_empty() { "INBOX" } else { folder });
                    assert_eq!(read.uids.iter().collect::<Vec<_>>(), uids);
                    assert_eq!(
                        (read.uidvalidity, read.unseen),
                        (uidvalidity.filter(|uv| *uv > 0), *uidvalidity)
                    );
                    assert_eq!(read.event.name().to_lowercase(), name.to_lowercase());
                }
                Err(error) => {
                    assert!(
                        user.is_empty() || (uids.is_empty() && !name.ends_with("Create")),
                        "{error}: {body}"
                    );
                }
            }
            damage.check(&octets, check_ox);
        });
}

/// The corpus by target: an event of each kind, the captures, what is refused.
fn corpus() -> BTreeMap<&'static str, BTreeMap<String, Vec<u8>>> {
    let mut events = BTreeMap::new();
    for (at, kind) in samples::kinds().into_iter().enumerate() {
        let name = format!("{at:02}_{}", kind.name());
        events.insert(name, encode_events(&[samples::full_event(kind)]).into_bytes());
    }
    for (name, text) in [
        ("empty", r#"{"events":[]}"#),
        ("least", r#"{"events":[{"kind":"MailboxCreate","user":"b","mailbox":"A"}]}"#),
        ("version", r#"{"v":2,"events":[]}"#),
        (
            "arrays",
            r#"{"events":[{"kind":"MessageMove","user":"b","mailbox":"A","uids":[1,2.0],"old_mailbox":"B","old_uids":[7,9]}]}"#,
        ),
        ("deep", r#"{"events":[[[[[{"a":{"b":[]}}]]]]],"x":{"y":[{}]}}"#),
    ] {
        events.insert(name.to_owned(), text.as_bytes().to_vec());
    }
    let mut ox = BTreeMap::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ox")).unwrap() {
        let path = entry.unwrap().path();
        let request = std::fs::read(&path).unwrap();
        let head = request
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .map_or_else(|| request.windows(2).position(|two| two == b"\n\n").unwrap() + 2, |at| at + 4);
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        // Long runs of the same teach nothing.
        if name != "lda-mail-longsubj" {
            ox.insert(name, request[head..].to_vec());
        }
    }
    let flags = r#"{"user":"5::29@x","imap-uidvalidity":1.0,"imap-uid":[3.0,4,9],"folder":"A/B","event":"FlagsSet","flags":["\\Seen","\\Flagged"],"keywords":{},"flags-old":[],"unseen":2,"messages":7}"#;
    ox.insert("egroupware".to_owned(), flags.as_bytes().to_vec());
    BTreeMap::from([("json_events", events), ("json_ox", ox)])
}

/// bolero says nothing when a corpus is not where it looks. This test does, and writes it when it is run with
/// `OCBUS_WRITE_CORPUS=1`.
#[test]
fn fuzz_json_corpus_is_there() {
    for (target, files) in corpus() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/__fuzz__").join(target).join("corpus");
        if std::env::var_os("OCBUS_WRITE_CORPUS").is_some() {
            std::fs::create_dir_all(&dir).unwrap();
            for (name, octets) in &files {
                std::fs::write(dir.join(name), octets).unwrap();
            }
        }
        let there: BTreeSet<Vec<u8>> = std::fs::read_dir(&dir)
            .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
            .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
            .collect();
        for (name, octets) in files {
            assert!(there.contains(&octets), "{target} lacks {name}");
        }
    }
}
