//! Fuzz targets for OpenChange's formats. `cargo test` and nextest run each of them briefly: first its corpus,
//! which is the octets of `vectors.json` (`tests/__fuzz__/<target>/corpus`), then noise. A failure prints the
//! seed of its noise; `BOLERO_RANDOM_SEED=<seed>` runs that first. `cargo bolero test <target>` goes on for as
//! long as it is let, guided by coverage.
//!
//! Two sorts of target. Those on octets: nothing panics, and what is read is written again as the input began,
//! and reads the same. Those on values (`..._values`): what is written reads as the same value; then it is
//! damaged and goes through the first sort, since noise alone seldom gets past two counts that must agree.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use bolero::{TypeGenerator, check};
use ocbus_wire::openchange::{
    DosCharset, NewMail, Notification, ResolverRecord, SessionRecord, Subscription, SubscriptionRecord, mutf7,
};
use uuid::Uuid;

/// How much each target does in a test run: whichever comes first.
const ITERATIONS: usize = 2000;
const TIME: Duration = Duration::from_secs(1);

/// CP850 gives every octet a character, so that no octets are lost between reading and writing; ASCII and
/// CP1252 do not.
const CHARSETS: [&str; 3] = ["CP850", "ASCII", "CP1252"];

fn charsets() -> impl Iterator<Item = DosCharset> {
    CHARSETS.into_iter().map(|name| DosCharset::by_name(name).unwrap())
}

/// The oracle of all records: what was read from `input` and written again as `again` is what the input
/// began with, but for the last NUL, which a reader may do without.
fn assert_canonical(input: &[u8], again: &[u8]) {
    let (last, before) = again.split_last().unwrap();
    assert!(input.starts_with(again) || (*last == 0 && input == before), "{input:02x?} became {again:02x?}");
}

fn check_session(input: &[u8]) {
    for charset in charsets() {
        let Ok(record) = SessionRecord::decode(input, charset) else { continue };
        let again = record.encode(charset).unwrap();
        assert_canonical(input, &again);
        assert_eq!(SessionRecord::decode(&again, charset).unwrap(), record);
    }
}

fn check_resolver(input: &[u8]) {
    for charset in charsets() {
        let Ok(record) = ResolverRecord::decode(input, charset) else { continue };
        let again = record.encode(charset).unwrap();
        if !input.is_empty() {
            assert_canonical(input, &again);
        }
        assert_eq!(ResolverRecord::decode(&again, charset).unwrap(), record);
    }
}

fn check_subscription(input: &[u8]) {
    let Ok(record) = SubscriptionRecord::decode(input) else { return };
    let again = record.encode().unwrap();
    assert!(input.is_empty() || input.starts_with(&again));
    assert_eq!(SubscriptionRecord::decode(&again).unwrap(), record);
}

fn check_newmail(input: &[u8]) {
    for charset in charsets() {
        match Notification::decode(input, charset) {
            Ok(Notification::NewMail(mail)) => {
                let again = mail.encode(charset).unwrap();
                assert!(input.starts_with(&again));
                assert_eq!(NewMail::decode(&again, charset).unwrap(), mail);
                if let Some(uid) = mail.uid() {
                    assert_eq!(NewMail::message_name(uid), mail.message);
                }
            }
            Ok(Notification::Ignored { version, kind }) => {
                assert!(version == 0 || kind != 2);
                assert!(NewMail::decode(input, charset).is_err());
            }
            Err(error) => assert!(error.offset() <= input.len()),
        }
    }
}

#[test]
fn fuzz_openchange_session() {
    check!().with_iterations(ITERATIONS).with_test_time(TIME).for_each(check_session);
}

#[test]
fn fuzz_openchange_resolver() {
    check!().with_iterations(ITERATIONS).with_test_time(TIME).for_each(check_resolver);
}

#[test]
fn fuzz_openchange_subscription() {
    check!().with_iterations(ITERATIONS).with_test_time(TIME).for_each(check_subscription);
}

#[test]
fn fuzz_openchange_newmail() {
    check!().with_iterations(ITERATIONS).with_test_time(TIME).for_each(check_newmail);
}

#[test]
fn fuzz_openchange_mutf7() {
    check!().with_iterations(ITERATIONS).with_test_time(TIME).for_each(|input: &[u8]| {
        let text = String::from_utf8_lossy(input);
        if let Some(name) = mutf7::decode(&text) {
            assert_eq!(mutf7::encode(&name), text);
        }
        let written = mutf7::encode(&text);
        assert!(written.bytes().all(|octet| matches!(octet, b' '..=b'~')));
        assert_eq!(mutf7::decode(&written).as_deref(), Some(&*text));
    });
}

/// Makes a text that the charset has from noise, by reading the noise in it, and leaving out what it lacks.
fn text(noise: &[u8], charset: DosCharset) -> String {
    noise.iter().filter(|octet| **octet != 0).filter_map(|octet| charset.decode(&[*octet]).ok()).collect()
}

fn any_charset(noise: u8) -> DosCharset {
    DosCharset::ALL[usize::from(noise) % DosCharset::ALL.len()]
}

/// What happens to octets on their way: they are cut, and one of them changes.
#[derive(Debug, TypeGenerator)]
struct Damage {
    length: u16,
    at: u16,
    octet: u8,
}

impl Damage {
    /// The octets without their end: how much of it goes is chosen by the noise, at least one octet.
    fn cut<'a>(&self, octets: &'a [u8]) -> &'a [u8] {
        &octets[..usize::from(self.length) % octets.len()]
    }

    /// The octets with one of them changed. Half of the changes fall into the first 12, where the counts are.
    fn change(&self, octets: &[u8]) -> Vec<u8> {
        let mut octets = octets.to_vec();
        let reach = if self.length.is_multiple_of(2) { octets.len() } else { octets.len().min(12) };
        octets[usize::from(self.at) % reach] = self.octet;
        octets
    }
}

#[test]
fn fuzz_openchange_session_values() {
    check!()
        .with_iterations(ITERATIONS)
        .with_test_time(TIME)
        .with_type::<(u8, [u8; 16], Vec<u8>, Damage)>()
        .for_each(|(charset, session, cn, damage)| {
            let charset = any_charset(*charset);
            let record = SessionRecord { session: Uuid::from_bytes(*session), cn: text(cn, charset) };
            let octets = record.encode(charset).unwrap();
            assert_eq!(SessionRecord::decode(&octets, charset).unwrap(), record);
            check_session(damage.cut(&octets));
            check_session(&damage.change(&octets));
        });
}

#[test]
fn fuzz_openchange_resolver_values() {
    check!()
        .with_iterations(ITERATIONS)
        .with_test_time(TIME)
        .with_type::<(u8, Vec<Vec<u8>>, Damage)>()
        .for_each(|(charset, hosts, damage)| {
            let charset = any_charset(*charset);
            let record = ResolverRecord { hosts: hosts.iter().map(|host| text(host, charset)).collect() };
            let octets = record.encode(charset).unwrap();
            assert_eq!(ResolverRecord::decode(&octets, charset).unwrap(), record);
            check_resolver(damage.cut(&octets));
            check_resolver(&damage.change(&octets));
        });
}

/// The fields of a [`Subscription`].
#[derive(Debug, TypeGenerator)]
struct Fields {
    handle: u32,
    flags: u16,
    fid: u64,
    mid: u64,
    properties: Vec<u32>,
}

#[test]
fn fuzz_openchange_subscription_values() {
    check!().with_iterations(ITERATIONS).with_test_time(TIME).with_type::<(Vec<Fields>, Damage)>().for_each(
        |(all, damage)| {
            let mut record = SubscriptionRecord::default();
            for Fields { handle, flags, fid, mid, properties } in all {
                let properties = properties.clone();
                let one = Subscription { handle: *handle, flags: *flags, fid: *fid, mid: *mid, properties };
                let known = record.subscriptions.iter().any(|present| present.handle == one.handle);
                assert_eq!(record.add(one).is_err(), known || record.subscriptions.len() == 100);
            }
            let octets = record.encode().unwrap();
            assert_eq!(SubscriptionRecord::decode(&octets).unwrap(), record);
            let cut = damage.cut(&octets);
            assert!(cut.is_empty() || SubscriptionRecord::decode(cut).is_err());
            check_subscription(&damage.change(&octets));
        },
    );
}

#[test]
fn fuzz_openchange_newmail_values() {
    check!()
        .with_iterations(ITERATIONS)
        .with_test_time(TIME)
        .with_type::<(u8, Vec<u8>, u32, Vec<u8>, u8, Damage)>()
        .for_each(|(charset, backend, uid, folder, separator, damage)| {
            let charset = any_charset(*charset);
            let mail = NewMail {
                backend: text(backend, charset),
                message: NewMail::message_name(*uid),
                folder: text(folder, charset),
                separator: *separator,
            };
            assert_eq!(mail.uid(), Some(*uid).filter(|uid| *uid != 0));
            let octets = mail.encode(charset).unwrap();
            assert_eq!(NewMail::decode(&octets, charset).unwrap(), mail);
            assert!(Notification::decode(damage.cut(&octets), charset).is_err());
            check_newmail(&damage.change(&octets));
        });
}

/// What a charset cannot write is an error that names the character, and all else comes back.
#[test]
fn fuzz_openchange_charset_values() {
    check!().with_iterations(ITERATIONS).with_test_time(TIME).with_type::<(u8, String)>().for_each(
        |(charset, text)| {
            let charset = any_charset(*charset);
            match charset.encode(text) {
                Ok(octets) => assert_eq!(charset.decode(&octets).unwrap(), *text),
                Err(error) => assert_eq!(text.chars().nth(error.position), Some(error.character)),
            }
        },
    );
}

/// The octets of every case, by target: the corpus.
fn corpus() -> BTreeMap<&'static str, BTreeMap<String, Vec<u8>>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/openchange/vectors.json");
    let cases: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut corpus: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for case in &cases {
        let key = case["key"].as_str().unwrap_or_default();
        let target = match (case["kind"].as_str().unwrap(), key.split(':').next()) {
            ("session" | "pull_record", Some("session")) => "openchange_session",
            ("resolver" | "pull_record", Some("resolver")) => "openchange_resolver",
            ("subscription" | "pull_record", Some("subscription")) => "openchange_subscription",
            ("newmail" | "newmail_plugin_capture" | "pull_notification", _) => "openchange_newmail",
            _ => continue,
        };
        // Cases that are cut ("...") are too long to be of use here; their beginnings are not.
        let Some(digits) = case["hex"].as_str().map(|hex| hex.trim_end_matches('.')) else { continue };
        let octets =
            (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap());
        let name: String = case["name"].as_str().unwrap().chars().filter(char::is_ascii).collect();
        assert_eq!(
            corpus.entry(target).or_default().insert(name, octets.collect()),
            None,
            "two cases, one name"
        );
    }
    let names =
        ["", "&-", "INBOX", "Entw&APw-rfe", "Entwürfe", "&U,BTFw-/&ZeVnLIqe-", "&2D3eAA-", "&AGE-", "&APw"];
    let numbered =
        names.iter().enumerate().map(|(at, name)| (format!("name_{at}"), name.as_bytes().to_vec()));
    corpus.insert("openchange_mutf7", numbered.collect());
    corpus
}

/// Where bolero looks for the corpus of a target: the name of its function, without `fuzz_`.
fn corpus_dir(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/__fuzz__").join(target).join("corpus")
}

/// bolero says nothing when a corpus is not where it looks. This test does, and writes it when it is run with
/// `OCBUS_WRITE_CORPUS=1`. Further files, which fuzzing finds, are welcome there.
#[test]
fn fuzz_openchange_corpus_holds_every_vector() {
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
