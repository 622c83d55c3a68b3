//! Every case of `tests/data/openchange/vectors.json` that is about octets: what the original OpenChange wrote
//! is what we write, what it read we read, and what it refused we refuse.
//!
//! Each test asserts how many cases of each sort it met, so that a case which is skipped, or added later, fails
//! it. Kinds `ropnotify` (`tests/ropnotify`) and `api` (calls on records, kept by the resolver) are not
//! about these formats; the checks of a cn, which make some `resolver` cases fail, are in the resolver too.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeMap, path::Path};

use ocbus_wire::openchange::{
    CharsetNameError, DosCharset, EncodeError, NewMail, Notification, ResolverRecord, SessionRecord,
    Subscription, SubscriptionRecord, deliver, deliver_key, mutf7, session_key, subscription_key,
};
use serde_json::Value;
use uuid::Uuid;

const SUCCESS: &str = "ret=0 (Success)";
const INVALID_DATA: &str = "ret=18 (Invalid Data)";
const ALREADY_EXISTS: &str = "ret=17 (Already Exists)";

fn vectors() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/openchange/vectors.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Runs `check` on each case of a kind. It answers with the sort of case that it was, and the sorts must come
/// as often as `expected` says.
fn each(kind: &str, expected: &[(&str, usize)], mut check: impl FnMut(&Value) -> &'static str) {
    let mut met = BTreeMap::new();
    for case in vectors().iter().filter(|case| case["kind"] == kind) {
        println!("{}", case["name"]);
        *met.entry(check(case)).or_insert(0) += 1;
    }
    assert_eq!(met, expected.iter().copied().collect(), "cases of kind {kind}");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|item| text(item).to_owned()).collect()
}

fn hex(digits: &str) -> Vec<u8> {
    assert!(digits.len().is_multiple_of(2), "{digits}");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn uuid(value: &Value) -> Uuid {
    text(value).parse().unwrap()
}

/// A number, or the `0x...` in which the cases write wide ones.
fn number<T: TryFrom<u64, Error: std::fmt::Debug>>(value: &Value) -> T {
    let number = value
        .as_u64()
        .unwrap_or_else(|| u64::from_str_radix(text(value).strip_prefix("0x").unwrap(), 16).unwrap());
    T::try_from(number).unwrap()
}

fn cp850() -> DosCharset {
    DosCharset::default()
}

#[test]
fn openchange_vectors_are_all_of_a_known_kind() {
    let mut kinds = BTreeMap::new();
    for case in vectors() {
        *kinds.entry(text(&case["kind"]).to_owned()).or_insert(0) += 1;
    }
    let expected = [
        ("api", 20),
        ("charset", 5),
        ("deliver", 2),
        ("newmail", 16),
        ("newmail_plugin_capture", 4),
        ("pull_notification", 28),
        ("pull_record", 28),
        ("resolver", 11),
        ("ropnotify", 4),
        ("session", 7),
        ("subscription", 8),
    ];
    assert_eq!(kinds, expected.map(|(kind, count)| (kind.to_owned(), count)).into());
}

#[test]
fn openchange_vectors_session() {
    each("session", &[("written", 6), ("refused", 1)], |case| {
        let input = &case["input"];
        let record = SessionRecord { session: uuid(&input["uuid"]), cn: text(&input["cn"]).to_owned() };
        if case["hex"].is_null() {
            assert_eq!(case["ret_add"], INVALID_DATA);
            assert!(matches!(record.encode(cp850()), Err(EncodeError::Charset { field: "cn", .. })));
            return "refused";
        }
        assert_eq!(case["ret_add"], SUCCESS);
        let octets = hex(text(&case["hex"]));
        assert_eq!(record.encode(cp850()).unwrap(), octets);
        assert_eq!(SessionRecord::decode(&octets, cp850()).unwrap(), record);
        assert_eq!(case["ret_get"], format!("{} {SUCCESS}", shown_session(&record)));
        // The key is the same however the GUID was spelled.
        let spellings = [&input["async_uuid"], &input["async_uuid_given"]];
        for spelling in spellings.into_iter().filter(|spelling| !spelling.is_null()) {
            assert_eq!(session_key(&uuid(spelling)), text(&case["key"]));
        }
        "written"
    });
}

#[test]
fn openchange_vectors_resolver() {
    each("resolver", &[("written", 6), ("host refused", 1), ("cn refused", 4)], |case| {
        let record = ResolverRecord { hosts: texts(&case["input"]["hosts"]) };
        if !case["hex"].is_null() {
            let octets = hex(text(&case["hex"]));
            assert_eq!(record.encode(cp850()).unwrap(), octets);
            assert_eq!(ResolverRecord::decode(&octets, cp850()).unwrap(), record);
            assert_eq!(*texts(&case["ret"]).last().unwrap(), format!("{} {SUCCESS}", shown_hosts(&record)));
            return "written";
        }
        assert_ne!(case["ret"][0], SUCCESS);
        if text(&case["name"]) == "resolver_host_cyrillic" {
            assert!(matches!(record.encode(cp850()), Err(EncodeError::Charset { field: "host", .. })));
            return "host refused";
        }
        // Nothing is wrong with these records, but with their keys: empty, with a space, longer than 250.
        let cn = text(&case["input"]["cn"]);
        assert!(cn.is_empty() || cn.contains(' ') || cn.len() > 241);
        record.encode(cp850()).unwrap();
        "cn refused"
    });
}

fn subscriptions(input: &Value) -> Vec<Subscription> {
    if let Some(count) = input["n"].as_u64() {
        assert_eq!(input["pattern"], "handle=i flags=0x100 fid=1 mid=0");
        return (0..u32::try_from(count).unwrap())
            .map(|handle| Subscription { handle, flags: 0x100, fid: 1, mid: 0, properties: vec![] })
            .collect();
    }
    let subscription = |given: &Value| Subscription {
        handle: number(&given["handle"]),
        flags: number(&given["flags"]),
        fid: number(&given["fid"]),
        mid: number(&given["mid"]),
        properties: given["properties"].as_array().unwrap().iter().map(number).collect(),
    };
    input["subscriptions"].as_array().unwrap().iter().map(subscription).collect()
}

#[test]
fn openchange_vectors_subscription() {
    each("subscription", &[("written", 5), ("duplicate", 1), ("too many", 2)], |case| {
        let input = &case["input"];
        let given = subscriptions(input);
        let octets = hex(text(&case["hex"]));
        assert_eq!(subscription_key(&uuid(&input["uuid"])), text(&case["key"]));

        if given.len() > 100 {
            // The original wrote the 101st, could not read the record again, and so added no 102nd.
            assert_eq!(text(&case["ret"][2]), "ret=1 (Non-specific error)");
            assert!(matches!(
                SubscriptionRecord { subscriptions: given.clone() }.encode(),
                Err(EncodeError::TooMany { max: 100, .. })
            ));
            assert_eq!(SubscriptionRecord::decode(&octets).unwrap_err().offset(), 1);
            // Its first hundred are as ours.
            let mut hundred = octets[..octets.len() - 24].to_vec();
            hundred[1] = 100;
            hundred[5] = 100;
            let record = SubscriptionRecord { subscriptions: given[..100].to_vec() };
            assert_eq!(record.encode().unwrap(), hundred);
            assert_eq!(SubscriptionRecord::decode(&hundred).unwrap(), record);
            return "too many";
        }

        let mut record = SubscriptionRecord::default();
        let duplicates = given.into_iter().map(|one| record.add(one)).filter(Result::is_err).count();
        assert_eq!(record.encode().unwrap(), octets);
        assert_eq!(SubscriptionRecord::decode(&octets).unwrap(), record);
        let ret = texts(&case["ret"]);
        assert_eq!(*ret.last().unwrap(), format!("{} {SUCCESS}", shown_subscriptions(&record)));
        assert_eq!(ret.iter().filter(|ret| *ret == ALREADY_EXISTS).count(), duplicates);
        if duplicates > 0 { "duplicate" } else { "written" }
    });
}

#[test]
fn openchange_vectors_newmail() {
    let sorts = [("written", 11), ("refused", 3), ("no text", 1), ("not utf-8", 1)];
    each("newmail", &sorts, |case| {
        let input = &case["input"];
        let Some(folder) = input["folder"].as_str() else {
            assert_eq!(case["ret"], "ret=6 (Invalid Parameter)");
            return "no text"; // a null pointer: a `String` is always one
        };
        let mail = NewMail {
            backend: text(&input["backend"]).to_owned(),
            message: text(&input["eml"]).to_owned(),
            folder: folder.to_owned(),
            separator: number(&input["separator"]),
        };
        if text(&case["name"]) == "newmail_invalid_utf8" {
            // JSON cannot hold what was given, `61 ff fe 62`: the case shows it as ISO-8859-1. A `String`
            // cannot hold it either.
            let given = DosCharset::by_name("ISO-8859-1").unwrap().encode(folder).unwrap();
            assert_eq!(given, b"a\xff\xfeb");
            assert!(String::from_utf8(given).is_err());
            assert_eq!(case["ret"], INVALID_DATA);
            return "not utf-8";
        }
        if case["hex"].is_null() {
            assert_eq!(case["ret"], INVALID_DATA);
            assert!(matches!(mail.encode(cp850()), Err(EncodeError::Charset { field: "folder", .. })));
            return "refused";
        }
        assert_eq!(case["ret"], SUCCESS);
        let octets = hex(text(&case["hex"]));
        assert_eq!(mail.encode(cp850()).unwrap(), octets);
        assert_eq!(NewMail::decode(&octets, cp850()).unwrap(), mail);
        assert_eq!(Notification::decode(&octets, cp850()).unwrap(), Notification::NewMail(mail));
        "written"
    });
}

/// What OpenChange's plugin sent for mails that a real dovecot-lda delivered.
#[test]
fn openchange_vectors_newmail_plugin_capture() {
    each("newmail_plugin_capture", &[("captured", 4)], |case| {
        let octets = hex(text(&case["hex"]));
        let mail = NewMail::decode(&octets, cp850()).unwrap();
        let uid = mail.uid().expect("a uid");
        let mailbox = text(&case["input"]["lda_mailbox"]);
        let ours = NewMail {
            message: NewMail::message_name(uid),
            folder: mutf7::encode(mailbox),
            separator: b'.',
            ..NewMail::default()
        };
        assert_eq!(mail, ours);
        assert_eq!(ours.encode(cp850()).unwrap(), octets);
        assert_eq!(mutf7::decode(&mail.folder).as_deref(), Some(mailbox));
        "captured"
    });
}

#[test]
fn openchange_vectors_charset() {
    each("charset", &[("table", 1), ("by name", 3), ("utf-8", 1)], |case| {
        if let Some(table) = case["table"].as_object() {
            let accepted = |name: &str| u32::from_str_radix(name.strip_prefix("U+").unwrap(), 16).unwrap();
            let table: BTreeMap<u32, Vec<u8>> =
                table.iter().map(|(name, octets)| (accepted(name), hex(text(octets)))).collect();
            assert_eq!(table.len(), 128);
            // All of Unicode: ASCII as it is, the table, and nothing else.
            for character in '\0'..=char::MAX {
                let ascii = u8::try_from(character).ok().filter(u8::is_ascii).map(|octet| vec![octet]);
                let expected = ascii.or_else(|| table.get(&u32::from(character)).cloned());
                assert_eq!(
                    cp850().encode(character.encode_utf8(&mut [0; 4])).ok(),
                    expected,
                    "{character:?}"
                );
                if let Some(octets) = expected {
                    assert_eq!(cp850().decode(&octets).unwrap(), character.to_string());
                }
            }
            for name in case["rejected_examples"].as_array().unwrap() {
                assert!(!table.contains_key(&accepted(text(name))));
            }
            return "table";
        }
        let name = text(&case["name"]).strip_prefix("newmail_smbconf_dos_charset_").unwrap();
        let (charset, sort) = match DosCharset::by_name(name) {
            Ok(charset) => (charset, "by name"),
            Err(error) => {
                // Samba said the same, and went on with CP850.
                assert_eq!(error, CharsetNameError::Utf8);
                assert!(text(&case["messages"]).contains("using (default value) CP850"));
                (DosCharset::default(), "utf-8")
            }
        };
        for (folder, result) in texts(&case["input"]["folders"]).into_iter().zip(texts(&case["results"])) {
            let mail = NewMail { message: "1.eml".to_owned(), folder, ..NewMail::default() };
            match result.strip_prefix("hex=") {
                Some(result) => {
                    let octets = hex(result.strip_suffix(SUCCESS).unwrap().trim_end());
                    assert_eq!(mail.encode(charset).unwrap(), octets);
                    assert_eq!(NewMail::decode(&octets, charset).unwrap(), mail);
                }
                None => {
                    assert_eq!(result, INVALID_DATA);
                    assert!(matches!(
                        mail.encode(charset),
                        Err(EncodeError::Charset { field: "folder", .. })
                    ));
                }
            }
        }
        sort
    });
}

#[test]
fn openchange_vectors_deliver() {
    each("deliver", &[("appended", 2)], |case| {
        let mut waiting = Vec::new();
        for blob in texts(&case["input"]["blobs"]) {
            deliver::append(&mut waiting, &hex(&blob)).unwrap();
        }
        assert_eq!(waiting, hex(text(&case["hex"])));
        assert_eq!(deliver_key(&uuid(&case["input"]["uuid"])), text(&case["key"]));
        "appended"
    });
}

#[test]
fn openchange_vectors_pull_notification() {
    let sorts = [("new mail", 4), ("ignored", 6), ("version refused", 3), ("truncated", 15)];
    each("pull_notification", &sorts, |case| {
        let octets = hex(text(&case["hex"]));
        let observed = text(&case["observed"]);
        let read = Notification::decode(&octets, cp850());
        if observed.starts_with("ndr_err=11(Buffer Size Error)") {
            assert!(read.unwrap_err().offset() <= octets.len());
            return "truncated";
        }
        assert!(observed.starts_with("ndr_err=0(Success)"));
        if observed.contains("REJECTED_by_version_check") {
            assert_eq!(read.unwrap_err().offset(), 0);
            return "version refused";
        }
        match read.unwrap() {
            Notification::Ignored { version, kind } => {
                let seen = format!("vnum={version} flags=0x{kind:x} UNSUPPORTED_flags_ignored");
                assert!(observed.contains(&seen), "{seen}");
                "ignored"
            }
            Notification::NewMail(mail) => {
                let NewMail { backend, message, folder, separator } = &mail;
                let seen = format!(
                    "vnum=1 flags=0x2 backend=[{backend}] eml=[{message}] folder=[{folder}] sep={separator} ret=0"
                );
                assert!(observed.contains(&seen), "{seen}");
                assert!(octets.starts_with(&mail.encode(cp850()).unwrap()));
                "new mail"
            }
        }
    });
}

#[test]
fn openchange_vectors_pull_record() {
    let sorts = [
        ("session read", 3),
        ("session refused", 3),
        ("resolver read", 4),
        ("resolver refused", 9),
        ("resolver refused, misread by OpenChange", 2),
        ("resolver refused, crashed OpenChange", 2),
        ("resolver empty", 1),
        ("subscription read", 1),
        ("subscription refused", 3),
    ];
    each("pull_record", &sorts, |case| {
        let octets = stored(case);
        let call = text(&case["input"]["call"]);
        let observed = case["observed"].as_str();
        assert_eq!(observed.is_none(), case["exit"] == "signal 11");
        // How the original says that it read a record, without its result.
        let ours = match call {
            "session_get" => SessionRecord::decode(&octets, cp850()).map(|record| shown_session(&record)),
            "resolver_get" | "resolver_add" => {
                ResolverRecord::decode(&octets, cp850()).map(|record| shown_hosts(&record))
            }
            "sub_get" => SubscriptionRecord::decode(&octets).map(|record| shown_subscriptions(&record)),
            other => panic!("{other}"),
        };
        match (call, observed) {
            ("resolver_add" | "resolver_get", None) => {
                assert_eq!(ours.unwrap_err().offset(), 0);
                "resolver refused, crashed OpenChange"
            }
            ("resolver_add", Some(_)) => {
                assert!(octets.is_empty());
                assert_eq!(ours.unwrap(), "count=0");
                "resolver empty"
            }
            ("resolver_get", Some("count=0 ret=0 (Success)")) if octets[0] != 1 => {
                assert_eq!(ours.unwrap_err().offset(), 0);
                "resolver refused, misread by OpenChange"
            }
            (_, Some(observed)) => match (call, observed.strip_suffix(SUCCESS)) {
                (call, Some(read)) => {
                    assert_eq!(ours.unwrap(), read.trim_end());
                    sort(call, true)
                }
                (call, None) => {
                    assert!(ours.unwrap_err().offset() <= octets.len());
                    sort(call, false)
                }
            },
            (call, None) => panic!("{call}"),
        }
    });
}

fn sort(call: &str, read: bool) -> &'static str {
    match (call, read) {
        ("session_get", true) => "session read",
        ("session_get", false) => "session refused",
        ("sub_get", true) => "subscription read",
        ("sub_get", false) => "subscription refused",
        (_, true) => "resolver read",
        (_, false) => "resolver refused",
    }
}

/// The octets of a stored record. Two cases are cut in the file ("...") and rebuilt: 100,001 empty hosts,
/// and 101 times the same subscription.
fn stored(case: &Value) -> Vec<u8> {
    let digits = text(&case["hex"]);
    let Some(shown) = digits.strip_suffix("...") else { return hex(digits) };
    let shown = hex(shown);
    let (entry, count) = match text(&case["name"]) {
        "stored_resolver_100001_full" => (shown[9..10].to_vec(), 100_001),
        "stored_subscription_101" => (shown[9..41].to_vec(), 101),
        other => panic!("{other} is cut and its pattern unknown"),
    };
    let whole = [shown[..9].to_vec(), entry.repeat(count)].concat();
    assert!(whole.starts_with(&shown), "the pattern is not the one that the case shows");
    whole
}

fn shown_session(record: &SessionRecord) -> String {
    format!("uuid={} cn={}", record.session, record.cn)
}

fn shown_hosts(record: &ResolverRecord) -> String {
    let hosts: String = record.hosts.iter().map(|host| format!(" [{host}]")).collect();
    format!("count={}{hosts}", record.hosts.len())
}

fn shown_subscriptions(record: &SubscriptionRecord) -> String {
    let shown = |one: &Subscription| {
        let Subscription { handle, flags, fid, mid, properties } = one;
        format!(" [h=0x{handle:x} fl=0x{flags:x} fid=0x{fid:x} mid=0x{mid:x} n={}]", properties.len())
    };
    let all: String = record.subscriptions.iter().map(shown).collect();
    format!("vnum=1 count={}{all}", record.subscriptions.len())
}
