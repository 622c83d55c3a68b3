//! Fuzz targets for RopNotify and its relatives. `cargo test` and nextest run each of them briefly: first its
//! corpus, which is E1 to E25 and OpenChange's own octets (`tests/__fuzz__/<target>/corpus`), then noise. A
//! failure prints the seed of its noise; `BOLERO_RANDOM_SEED=<seed>` runs that first. `cargo bolero test <target>`
//! goes on for as long as it is let, guided by coverage.
//!
//! The oracle: what is read is written again as the input began, and reads the same. `..._values` makes replies
//! of every sort, and damages their octets.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bolero::{TypeGenerator, check};
use ocbus_wire::openchange::deliver;
use ocbus_wire::ropnotify::{
    EncodeError, FolderId, FolderRow, MessageClass, MessageId, MessageRow, Notification, NotificationTypes,
    RegisterNotification, RegisterNotificationResponse, RopNotify, RopPending, Scope, TableEvent, Tags,
    split,
};

/// How much each target does in a test run: whichever comes first.
const ITERATIONS: usize = 4000;
const TIME: Duration = Duration::from_secs(1);

/// New mail without a message is the one thing that is read and never written.
fn is_read_only(reply: &RopNotify) -> bool {
    matches!(reply.notification, Notification::NewMailWithoutMessage { .. })
}

fn check_reply(input: &[u8]) {
    match RopNotify::decode(input) {
        Ok((reply, length)) => {
            assert!((RopNotify::MIN_OCTETS..=RopNotify::MAX_OCTETS).contains(&length));
            assert_eq!((reply.encoded_len(), reply.flags().to_le_bytes()), (length, [input[6], input[7]]));
            match reply.encode() {
                Ok(again) => assert_eq!(again, input[..length]),
                Err(error) => {
                    assert_eq!(error, EncodeError::NewMailWithoutMessage);
                    assert!(is_read_only(&reply));
                }
            }
            // It needs all that it took, and nothing else.
            assert!(RopNotify::decode(&input[..length - 1]).is_err());
            assert_eq!(RopNotify::decode(&input[..length]), Ok((reply, length)));
        }
        Err(error) => assert!(error.offset() <= input.len()),
    }
}

/// Replies end to end: what is read are the input's octets in order, up to an error.
fn check_split(input: &[u8]) {
    let mut read = 0;
    for (reply, octets) in split(input).zip(deliver::split(input)) {
        match (reply, octets) {
            (Ok(reply), Ok(octets)) => {
                assert_eq!(RopNotify::decode(octets), Ok((reply, octets.len())));
                assert_eq!(octets, &input[read..read + octets.len()]);
                read += octets.len();
            }
            (reply, octets) => {
                let error = reply.unwrap_err();
                assert_eq!(octets, Err(error.clone()));
                assert!((read..=input.len()).contains(&error.offset()));
                assert!(RopNotify::decode(&input[read..]).is_err());
                read = input.len();
            }
        }
    }
    assert_eq!(read, input.len());
    assert_eq!(split(input).count(), deliver::split(input).count());
}

fn check_others(input: &[u8]) {
    if let Ok((request, length)) = RegisterNotification::decode(input) {
        let again = request.encode().unwrap();
        let mut expected = input[..length].to_vec();
        if request.types.contains(NotificationTypes::EXTENDED) {
            expected[6] = 0; // reserved
        }
        assert_eq!(again, expected);
        assert_eq!(RegisterNotification::decode(&again), Ok((request, length)));
    }
    if let Ok((response, length)) = RegisterNotificationResponse::decode(input) {
        assert_eq!(response.encode(), input[..length]);
    }
    if let Ok((pending, length)) = RopPending::decode(input) {
        assert_eq!(pending.encode(), input[..length]);
    }
}

#[test]
fn fuzz_ropnotify() {
    check!().with_iterations(ITERATIONS).with_test_time(TIME).for_each(check_reply);
}

#[test]
fn fuzz_ropnotify_split() {
    check!().with_iterations(ITERATIONS).with_test_time(TIME).for_each(check_split);
}

#[test]
fn fuzz_ropnotify_others() {
    check!().with_iterations(ITERATIONS).with_test_time(TIME).for_each(check_others);
}

/// Noise that becomes a reply of any sort.
#[derive(Debug, TypeGenerator)]
struct Noise {
    sort: u8,
    event: u8,
    types: u16,
    handle: u32,
    logon_id: u8,
    ids: [u64; 4],
    numbers: [u32; 2],
    there: [bool; 2],
    tags: Option<Vec<u32>>,
    name: String,
    octets: Vec<u8>,
}

impl Noise {
    fn reply(&self) -> RopNotify {
        let [a, b, c, d] = self.ids;
        let (folder, old_folder) = (FolderId::from_u64(a), FolderId::from_u64(c));
        let (message, old_message) = (MessageId::from_u64(b), MessageId::from_u64(d));
        let (parent, old_parent) = (FolderId::from_u64(b), FolderId::from_u64(d));
        let tags = || self.tags.clone().map_or(Tags::Unspecified, Tags::List);
        let [total, unread] = [0, 1].map(|at| self.there[at].then_some(self.numbers[at]));
        let search_folder = self.there[0].then_some(old_folder);
        let rows = [(folder, message, self.numbers[0]), (old_folder, old_message, self.numbers[1])]
            .map(|(folder, message, instance)| MessageRow { folder, message, instance });
        let folders = [folder, old_folder].map(|folder| FolderRow { folder });
        let notification = match self.sort % 15 {
            0 => Notification::NewMail {
                folder,
                message,
                message_flags: self.numbers[0],
                class: MessageClass { name: self.name.clone(), unicode: self.there[0] },
            },
            1 => Notification::MessageCreated { folder, message, search_folder, tags: tags() },
            2 => Notification::MessageDeleted { folder, message, search_folder },
            3 => Notification::MessageModified {
                folder,
                message,
                in_search_folder: self.there[0],
                tags: tags(),
            },
            4 => Notification::MessageMoved { folder, message, old_folder, old_message },
            5 => Notification::MessageCopied { folder, message, old_folder, old_message },
            6 => Notification::FolderCreated { folder, parent, tags: tags() },
            7 => Notification::FolderDeleted { folder, parent },
            8 => Notification::FolderModified { folder, tags: tags(), total, unread },
            9 => Notification::FolderMoved { folder, parent, old_folder, old_parent },
            10 => Notification::FolderCopied { folder, parent, old_folder, old_parent },
            11 => Notification::SearchComplete { folder },
            12 => Notification::HierarchyTable(self.event(folders)),
            13 => Notification::ContentsTable(self.event(rows)),
            _ => Notification::SearchTable(self.event(rows)),
        };
        RopNotify { handle: self.handle, logon_id: self.logon_id, notification }
    }

    fn event<R>(&self, [row, after]: [R; 2]) -> TableEvent<R> {
        let data = self.octets.clone();
        match self.event % 5 {
            0 => TableEvent::Changed,
            1 => TableEvent::RowAdded { row, after, data },
            2 => TableEvent::RowDeleted { row },
            3 => TableEvent::RowModified { row, after, data },
            _ => TableEvent::RestrictionChanged,
        }
    }

    fn request(&self) -> RegisterNotification {
        let folder = FolderId::from_u64(self.ids[0]);
        RegisterNotification {
            logon_id: self.logon_id,
            input_handle_index: self.sort,
            output_handle_index: self.event,
            types: NotificationTypes::from_bits(self.types),
            scope: match self.sort % 3 {
                0 => Scope::Store,
                1 => Scope::Folder(folder),
                _ => Scope::Message { folder, message: MessageId::from_u64(self.ids[1]) },
            },
        }
    }
}

/// What happens to octets on their way: they are cut, and one of them changes.
#[derive(Debug, TypeGenerator)]
struct Damage {
    length: u16,
    at: u16,
    octet: u8,
}

impl Damage {
    fn cut<'a>(&self, octets: &'a [u8]) -> &'a [u8] {
        &octets[..usize::from(self.length) % octets.len()]
    }

    /// Half of the changes fall into the first 12 octets, where the flags and the event are.
    fn change(&self, octets: &[u8]) -> Vec<u8> {
        let mut octets = octets.to_vec();
        let reach = if self.length.is_multiple_of(2) { octets.len() } else { octets.len().min(12) };
        octets[usize::from(self.at) % reach] = self.octet;
        octets
    }
}

#[test]
fn fuzz_ropnotify_values() {
    check!().with_iterations(ITERATIONS).with_test_time(TIME).with_type::<(Vec<Noise>, Damage)>().for_each(
        |(noise, damage)| {
            let mut value = Vec::new();
            let mut written = Vec::new();
            for noise in noise {
                let reply = noise.reply();
                match reply.encode() {
                    Ok(octets) => {
                        assert_eq!(octets.len(), reply.encoded_len());
                        assert_eq!(RopNotify::decode(&octets), Ok((reply.clone(), octets.len())));
                        assert!(RopNotify::decode(damage.cut(&octets)).is_err());
                        check_reply(&damage.change(&octets));
                        value.extend(octets);
                        written.push(reply);
                    }
                    Err(EncodeError::InnerNul { position } | EncodeError::NotAscii { position, .. }) => {
                        let wrong = noise.name.chars().nth(position).unwrap();
                        assert!(wrong == '\0' || !(wrong.is_ascii() || noise.there[0]), "{wrong:?}");
                    }
                    Err(EncodeError::TooLarge { octets, max }) => assert!(octets > max),
                    Err(other) => panic!("{other}"),
                }
                match noise.request().encode() {
                    Ok(octets) => check_others(&damage.change(&octets)),
                    Err(error) => assert_eq!(error, EncodeError::NoMessage),
                }
            }
            assert!(split(&value).eq(written.into_iter().map(Ok)));
            if !value.is_empty() {
                check_split(damage.cut(&value));
                check_split(&damage.change(&value));
            }
        },
    );
}

fn hex(digits: &str) -> Vec<u8> {
    let digits: String = digits.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// The corpus by target: the worked examples, and what OpenChange wrote.
fn corpus() -> BTreeMap<&'static str, BTreeMap<String, Vec<u8>>> {
    let mut corpus: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    let mut all = Vec::new();
    let lines = include_str!("data/ropnotify-examples.txt").lines().filter(|line| !line.starts_with('#'));
    for pair in lines.collect::<Vec<_>>().chunks(2) {
        let (name, octets) = (pair[0].split_once(' ').unwrap().0, hex(pair[1]));
        let target = if octets[0] == 0x2a { "ropnotify" } else { "ropnotify_others" };
        if octets[0] == 0x2a {
            all.extend_from_slice(&octets);
        }
        corpus.entry(target).or_default().insert(name.to_owned(), octets);
    }
    corpus.entry("ropnotify_others").or_default().insert("extended".into(), hex("29010203160400 01"));
    corpus.entry("ropnotify_split").or_default().insert("E1_to_E21".into(), all);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/openchange/vectors.json");
    let cases: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for case in &cases {
        let target = match case["kind"].as_str().unwrap() {
            "ropnotify" => "ropnotify",
            "deliver" => "ropnotify_split",
            _ => continue,
        };
        let name = case["name"].as_str().unwrap().to_owned();
        corpus.entry(target).or_default().insert(name, hex(case["hex"].as_str().unwrap()));
    }
    corpus
}

/// Where bolero looks for the corpus of a target: the name of its function, without `fuzz_`.
fn corpus_dir(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/__fuzz__").join(target).join("corpus")
}

/// bolero says nothing when a corpus is not where it looks. This test does, and writes it when it is run with
/// `OCBUS_WRITE_CORPUS=1`. Further files, which fuzzing finds, are welcome there.
#[test]
fn fuzz_ropnotify_corpus_holds_every_example() {
    for (target, files) in corpus() {
        let dir = corpus_dir(target);
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
