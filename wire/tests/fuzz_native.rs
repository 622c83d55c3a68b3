//! Fuzz targets for the native formats and for endpoints, laid out as those in `fuzz_openchange.rs`: on octets
//! (nothing panics, and what is read is written again and reads the same) and on values (`..._values`: what is
//! written reads as the same value; then it is damaged and goes through the first sort).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "native/samples.rs"]
mod samples;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use bolero::{TypeGenerator, check};
use ocbus_wire::native::{Ack, Batch, Lease, LeaseRecord, MAX_BATCH_OCTETS};
use ocbus_wire::{Endpoint, Event, EventKind, Mailbox, NewMessage, ResyncReason, Transfer, UidSet};
use uuid::Uuid;

/// How much each target does in a test run: whichever comes first.
const ITERATIONS: usize = 2000;
const TIME: Duration = Duration::from_secs(1);

/// The octets of batches that hold these events, in order.
fn batches(events: &[Event]) -> Vec<Vec<u8>> {
    let (mut done, mut batch) = (Vec::new(), Batch::new());
    for event in events {
        if !batch.push(event).unwrap() {
            done.push(std::mem::take(&mut batch).encode());
            assert!(batch.push(event).unwrap());
        }
    }
    done.push(batch.encode());
    done
}

fn check_batch(input: &[u8]) {
    let read = match Batch::decode(input) {
        Ok(read) => read,
        Err(error) => return assert!(error.offset() <= input.len() || input.len() > MAX_BATCH_OCTETS),
    };
    let mut again = Vec::new();
    for octets in batches(&read.events) {
        assert!(octets.len() <= MAX_BATCH_OCTETS);
        let decoded = Batch::decode(&octets).unwrap();
        assert_eq!(decoded.skipped, 0);
        again.extend(decoded.events);
    }
    assert_eq!(again, read.events);
}

fn check_ack(input: &[u8]) {
    let Ok(ack) = Ack::decode(input) else { return };
    assert_eq!(Ack::decode(&ack.encode().unwrap()).unwrap(), ack);
}

fn check_lease(input: &[u8]) {
    let Ok(record) = LeaseRecord::decode(input) else { return };
    assert_eq!(LeaseRecord::decode(&record.encode().unwrap()).unwrap(), record);
}

fn check_endpoint(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match Endpoint::parse(&text) {
        Ok(endpoint) => {
            let url = endpoint.to_string();
            assert_eq!(Endpoint::parse(&url), Ok(endpoint), "{text:?} became {url:?}");
            assert!(!url.chars().any(char::is_control), "{url:?}");
            // But for zeros before the port it is the same text, since endpoints compare as texts.
            assert!(
                url == text || (text.len() > url.len() && text.contains(":0")),
                "{text:?} became {url:?}"
            );
        }
        Err(error) => assert!(!error.to_string().chars().any(char::is_control), "{error:?}"),
    }
}

#[test]
fn fuzz_native_batch() {
    check!().with_iterations(ITERATIONS).with_test_time(TIME).for_each(check_batch);
}

#[test]
fn fuzz_native_ack() {
    check!().with_iterations(ITERATIONS).with_test_time(TIME).for_each(check_ack);
}

#[test]
fn fuzz_native_lease() {
    check!().with_iterations(ITERATIONS).with_test_time(TIME).for_each(check_lease);
}

#[test]
fn fuzz_endpoint() {
    check!().with_iterations(ITERATIONS).with_test_time(TIME).for_each(check_endpoint);
}

/// What happens to octets on their way: they are cut, one of them changes, some are put in between.
#[derive(Debug, TypeGenerator)]
struct Damage {
    length: u16,
    at: u16,
    octet: u8,
    inserted: Vec<u8>,
}

impl Damage {
    fn check(&self, octets: &[u8], check: fn(&[u8])) {
        let at = usize::from(self.at) % octets.len();
        check(&octets[..usize::from(self.length) % octets.len()]);
        let mut changed = octets.to_vec();
        changed[at] = self.octet;
        check(&changed);
        check(&[&octets[..at], &self.inserted, &octets[at..]].concat());
    }
}

#[derive(Debug, TypeGenerator)]
struct AnyMailbox {
    name: String,
    separator: char,
    storage: Option<(String, char)>,
}

impl AnyMailbox {
    fn mailbox(&self) -> Mailbox {
        let (storage_name, list_separator) =
            self.storage.clone().unwrap_or_else(|| (self.name.clone(), self.separator));
        Mailbox { name: self.name.clone(), separator: self.separator, storage_name, list_separator }
    }
}

#[derive(Debug, TypeGenerator)]
struct AnyMessage {
    uid: Option<u32>,
    flags: Vec<String>,
    keywords: Vec<String>,
    texts: [Option<String>; 5],
    size: Option<u64>,
}

impl AnyMessage {
    fn message(&self) -> NewMessage {
        let [from, subject, message_id, backend, name] = self.texts.clone();
        NewMessage {
            uid: self.uid.filter(|uid| *uid > 0),
            flags: self.flags.clone(),
            keywords: self.keywords.clone(),
            from,
            subject,
            message_id,
            size: self.size,
            backend,
            name,
        }
    }
}

#[derive(Debug, TypeGenerator)]
enum AnyKind {
    New(AnyMessage),
    Append(AnyMessage),
    Copy(Vec<(u32, u32)>, AnyMailbox, Vec<(u32, u32)>),
    Move(Vec<(u32, u32)>, AnyMailbox, Vec<(u32, u32)>),
    Read(Vec<(u32, u32)>),
    Trash(Vec<(u32, u32)>),
    Expunge(Vec<(u32, u32)>),
    Set(Vec<(u32, u32)>, Vec<String>, Vec<String>),
    Clear(Vec<(u32, u32)>, Vec<String>, Vec<String>),
    Create,
    Delete,
    Rename(AnyMailbox),
    Subscribe,
    Unsubscribe,
    Resync(u8, u64),
    Unknown(String),
}

fn set(ranges: &[(u32, u32)]) -> UidSet {
    let mut set = UidSet::new();
    ranges.iter().for_each(|&(first, last)| set.push_range(first, last));
    set
}

impl AnyKind {
    fn kind(&self) -> EventKind {
        let transfer = |uids: &[_], old: &AnyMailbox, old_uids: &[_]| {
            Transfer::new(set(uids), old.mailbox(), set(old_uids))
        };
        match self {
            AnyKind::New(message) => EventKind::MessageNew(message.message()),
            AnyKind::Append(message) => EventKind::MessageAppend(message.message()),
            AnyKind::Copy(uids, old, old_uids) => EventKind::MessageCopy(transfer(uids, old, old_uids)),
            AnyKind::Move(uids, old, old_uids) => EventKind::MessageMove(transfer(uids, old, old_uids)),
            AnyKind::Read(uids) => EventKind::MessageRead { uids: set(uids) },
            AnyKind::Trash(uids) => EventKind::MessageTrash { uids: set(uids) },
            AnyKind::Expunge(uids) => EventKind::MessageExpunge { uids: set(uids) },
            AnyKind::Set(uids, flags, keywords) => {
                EventKind::FlagsSet { uids: set(uids), flags: flags.clone(), keywords: keywords.clone() }
            }
            AnyKind::Clear(uids, flags, keywords) => {
                EventKind::FlagsClear { uids: set(uids), flags: flags.clone(), keywords: keywords.clone() }
            }
            AnyKind::Create => EventKind::MailboxCreate,
            AnyKind::Delete => EventKind::MailboxDelete,
            AnyKind::Rename(old) => EventKind::MailboxRename { old: old.mailbox() },
            AnyKind::Subscribe => EventKind::MailboxSubscribe,
            AnyKind::Unsubscribe => EventKind::MailboxUnsubscribe,
            AnyKind::Resync(reason, missed) => {
                let reasons = [
                    ResyncReason::SlowSubscriber,
                    ResyncReason::Unreachable,
                    ResyncReason::ResolverLost,
                    ResyncReason::Overflow,
                    ResyncReason::Other,
                ];
                EventKind::Resync { reason: reasons[usize::from(*reason) % reasons.len()], missed: *missed }
            }
            // Noise is no name of a known kind.
            AnyKind::Unknown(name) => EventKind::Unknown { name: format!("X-{name}") },
        }
    }
}

#[derive(Debug, TypeGenerator)]
struct AnyEvent {
    id: [u8; 16],
    time_us: u64,
    user: String,
    mailbox: AnyMailbox,
    counts: [Option<u32>; 3],
    order: Option<u64>,
    kind: AnyKind,
    bare: bool,
}

impl AnyEvent {
    fn event(&self) -> Event {
        let kind = self.kind.kind();
        // Only these may go without a mailbox.
        let bare = self.bare && matches!(kind, EventKind::Resync { .. } | EventKind::Unknown { .. });
        Event {
            id: Uuid::from_bytes(self.id),
            time_us: self.time_us,
            user: self.user.clone(),
            mailbox: (!bare).then(|| self.mailbox.mailbox()),
            uidvalidity: self.counts[0],
            messages: self.counts[1],
            unseen: self.counts[2],
            order: self.order,
            kind,
        }
    }
}

#[test]
fn fuzz_native_batch_values() {
    check!()
        .with_iterations(ITERATIONS)
        .with_test_time(TIME)
        .with_max_len(16_384)
        .with_type::<(Vec<AnyEvent>, Damage)>()
        .for_each(|(events, damage)| {
            let events: Vec<Event> = events.iter().map(AnyEvent::event).collect();
            let all = batches(&events);
            let mut read = Vec::new();
            for octets in &all {
                let batch = Batch::decode(octets).unwrap();
                assert_eq!(batch.skipped, 0);
                read.extend(batch.events);
            }
            assert_eq!(read, events);
            damage.check(&all[0], check_batch);
        });
}

#[test]
fn fuzz_native_ack_values() {
    check!()
        .with_iterations(ITERATIONS)
        .with_test_time(TIME)
        .with_type::<(u32, u32, Vec<String>, Option<String>, Damage)>()
        .for_each(|(taken, skipped, strangers, refused, damage)| {
            let ack = match refused {
                Some(reason) => Ack::refused(reason),
                None => Ack::taken(*taken, *skipped, strangers.clone()),
            };
            let octets = ack.encode().unwrap();
            assert_eq!(Ack::decode(&octets).unwrap(), ack);
            damage.check(&octets, check_ack);
        });
}

#[test]
fn fuzz_native_lease_values() {
    check!()
        .with_iterations(ITERATIONS)
        .with_test_time(TIME)
        .with_type::<(Vec<(String, [u8; 16], u64, Option<String>, u64)>, Damage)>()
        .for_each(|(leases, damage)| {
            let lease =
                |(endpoint, subscriber, until_ms, legacy, missed): &(String, [u8; 16], _, _, _)| Lease {
                    endpoint: endpoint.clone(),
                    subscriber: Uuid::from_bytes(*subscriber),
                    until_ms: *until_ms,
                    legacy: Option::clone(legacy),
                    missed: *missed,
                };
            let record = LeaseRecord::new(leases.iter().map(lease).collect());
            let octets = record.encode().unwrap();
            assert_eq!(LeaseRecord::decode(&octets).unwrap(), record);
            damage.check(&octets, check_lease);
        });
}

#[test]
fn fuzz_endpoint_values() {
    check!()
        .with_iterations(ITERATIONS)
        .with_test_time(TIME)
        .with_type::<(u8, String, u16, [u16; 8], Damage)>()
        .for_each(|(form, text, port, address, damage)| {
            let url = match form % 4 {
                0 => format!("tcp://[{}]:{port}", std::net::Ipv6Addr::from(*address)),
                1 => format!("tcp://{}.{}.0.{}:{port}", address[0] % 256, address[1] % 256, address[2] % 256),
                2 => format!("ipc://{text}"),
                _ => format!("tcp://{text}:{port}"),
            };
            if form % 4 < 2 {
                assert_eq!(Endpoint::parse(&url).unwrap().to_string(), url);
            }
            check_endpoint(url.as_bytes());
            damage.check(url.as_bytes(), check_endpoint);
        });
}

/// The corpus by target: the golden octets, an event of each kind, what the endpoint's tests know.
fn corpus() -> BTreeMap<&'static str, BTreeMap<String, Vec<u8>>> {
    let one = |name: &str, octets: Vec<u8>| BTreeMap::from([(name.to_owned(), octets)]);
    let mut batch = one("golden", batches(&[samples::golden_batch()]).remove(0));
    for (at, kind) in samples::kinds().into_iter().enumerate() {
        let name = format!("{at:02}_{}", kind.name());
        batch.insert(name, batches(&[samples::full_event(kind)]).remove(0));
    }
    batch.insert("empty".to_owned(), Batch::new().encode());
    batch.insert("claim".to_owned(), b"\x82\xa1v\x01\xa2ev\xdd\xff\xff\xff\xff".to_vec());
    batch.insert("newer".to_owned(), b"\x82\xa1v\x02\xa2ev\xa3zip".to_vec());
    let mut ack = one("golden", samples::golden_ack().encode().unwrap());
    ack.insert("refused".to_owned(), Ack::refused("version 2").encode().unwrap());
    ack.insert("least".to_owned(), b"\x81\xa1v\x01".to_vec());
    let mut lease = one("golden", samples::golden_lease().encode().unwrap());
    lease.insert("none".to_owned(), LeaseRecord::default().encode().unwrap());
    lease.insert("empty".to_owned(), Vec::new());
    let endpoints = [
        "tcp://127.0.0.1:9005",
        "tcp://[::1]:9005",
        "tcp://[::ffff:1.2.3.4]:0",
        "tcp://[a b:1",
        "tcp://::1:9005",
        "tcp://host-1.example.org:65535",
        "tcp://h:00065536",
        "tcp://h\r\nflush_all:1",
        "ipc:///run/ocbus/bus.sock",
        "ipc://\u{85}",
        "udp://h:1",
    ];
    let endpoint =
        endpoints.iter().enumerate().map(|(at, url)| (format!("url_{at:02}"), url.as_bytes().to_vec()));
    BTreeMap::from([
        ("native_batch", batch),
        ("native_ack", ack),
        ("native_lease", lease),
        ("endpoint", endpoint.collect()),
    ])
}

/// bolero says nothing when a corpus is not where it looks. This test does, and writes it when it is run with
/// `OCBUS_WRITE_CORPUS=1`.
#[test]
fn fuzz_native_corpus_is_there() {
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
