//! `inspect` of the ROPs of notifications: every worked example and every case of OpenChange's own octets, both
//! ways, and what cannot be read or written.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Run, ocbus, run};

const FORMATS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/formats.md"));

fn inspect(arguments: &[&str]) -> Run {
    run(ocbus(&[&["inspect"], arguments].concat()), b"")
}

/// Both ways; gives the JSON.
fn goes_both_ways(kind: &str, hex: &str) -> Value {
    let decoded = inspect(&["decode", kind, hex]).json().remove(0);
    let encoded = inspect(&["encode", kind, &decoded.to_string()]);
    assert_eq!(encoded.ok().trim_end(), hex, "{decoded}");
    let documented = |name: &Value| FORMATS.contains(&format!("`{}`", name.as_str().unwrap()));
    for (name, value) in decoded.as_object().unwrap() {
        assert!(name == "replies" || documented(&name.as_str().into()), "{name} is not in docs/formats.md");
        assert!(!["kind", "event"].contains(&name.as_str()) || documented(value), "{value}");
    }
    decoded
}

/// E1 to E25 of the reference.
fn examples() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/wire/tests/data/ropnotify-examples.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let examples: Vec<String> =
        text.lines().filter(|line| line.starts_with(' ')).map(|line| line.replace(' ', "")).collect();
    assert_eq!(examples.len(), 25);
    examples
}

#[test]
fn every_example_of_a_notification_goes_both_ways() {
    let mut kinds = BTreeSet::new();
    for hex in examples() {
        let kind = match &hex[..2] {
            "2a" => "ropnotify",
            "6e" => "roppending",
            _ => "ropregister",
        };
        let decoded = goes_both_ways(kind, &hex);
        let name = decoded["kind"].as_str().map(str::to_owned);
        kinds.insert(name.unwrap_or_else(|| decoded.to_string()));
    }
    assert_eq!(kinds.len(), 13 + 4, "{kinds:?}");
    let new_mail = inspect(&["decode", "ropnotify", &examples()[0]]).json().remove(0);
    let whole = json!({"handle": 41, "logon_id": 0, "flags": "0x8002", "kind": "NewMail",
        "fid": "0x3412000000000001", "mid": "0xefcdab0000000001", "message_flags": 2,
        "message_class": "IPM.Note", "unicode": false});
    assert_eq!(new_mail, whole);
}

#[test]
fn every_notification_of_openchange_goes_both_ways() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/openchange/vectors.json");
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut met = 0;
    for case in cases {
        let (kind, hex) = (case["kind"].as_str().unwrap(), case["hex"].as_str().unwrap_or_default());
        match (kind, case["name"].as_str().unwrap()) {
            (_, "deliver_appended") => {
                inspect(&["decode", "deliver", hex]).fails(1, &["at octet 0", "RopId 0x64"])
            }
            ("ropnotify", _) => assert_eq!(goes_both_ways(kind, hex)["fid"], case["input"]["fid"]),
            ("deliver", _) => {
                let replies = &goes_both_ways(kind, hex)["replies"];
                let blobs = case["input"]["blobs"].as_array().unwrap();
                assert_eq!(replies.as_array().unwrap().len(), blobs.len());
                for (reply, blob) in replies.as_array().unwrap().iter().zip(blobs) {
                    let alone = inspect(&["decode", "ropnotify", blob.as_str().unwrap()]).json();
                    assert_eq!(alone, std::slice::from_ref(reply));
                }
            }
            _ => continue,
        }
        met += 1;
    }
    assert_eq!(met, 6);
}

/// Numbers are numbers, however they are written, and octets are the same in capitals.
fn plain(value: &Value) -> Value {
    match value {
        Value::Array(values) => values.iter().map(plain).collect(),
        Value::String(text) => match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).unwrap().into(),
            None => text.to_lowercase().into(),
        },
        other => other.clone(),
    }
}

/// Of each kind the shortest JSON, and a long one, with the flags that they have.
#[test]
fn every_kind_of_notification_is_written() {
    let ids =
        json!({"fid": "0x1", "mid": 2, "old_fid": 3, "old_mid": 4, "parent_fid": 5, "old_parent_fid": 6});
    let pick = |names: &str| -> Value {
        names
            .split(' ')
            .map(|name| (name.to_owned(), ids[name].clone()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let row = json!({"event": "RowModified", "fid": 1});
    for (kind, names, more, flags) in [
        ("NewMail", "fid mid", json!({}), "0x8002"),
        ("NewMail", "fid mid", json!({"message_flags": 1, "message_class": "Ü", "unicode": true}), "0x8002"),
        ("MessageCreated", "fid mid", json!({}), "0x8004"),
        ("MessageCreated", "fid mid", json!({"search_fid": 9, "tags": "unspecified"}), "0xc004"),
        ("MessageDeleted", "fid mid", json!({}), "0x8008"),
        ("MessageDeleted", "fid mid", json!({"search_fid": 9}), "0xc008"),
        ("MessageModified", "fid mid", json!({"tags": ["0x3001001f", 7]}), "0x8010"),
        ("MessageModified", "fid mid", json!({"in_search_folder": true}), "0xc010"),
        ("MessageMoved", "fid mid old_fid old_mid", json!({}), "0x8020"),
        ("MessageCopied", "fid mid old_fid old_mid", json!({}), "0x8040"),
        ("FolderCreated", "fid parent_fid", json!({"tags": [1]}), "0x0004"),
        ("FolderDeleted", "fid parent_fid", json!({}), "0x0008"),
        ("FolderModified", "fid", json!({}), "0x0010"),
        ("FolderModified", "fid", json!({"total": 0}), "0x1010"),
        ("FolderModified", "fid", json!({"unread": 0}), "0x2010"),
        ("FolderModified", "fid", json!({"total": 7, "unread": 1, "tags": "unspecified"}), "0x3010"),
        ("FolderMoved", "fid parent_fid old_fid old_parent_fid", json!({}), "0x0020"),
        ("FolderCopied", "fid parent_fid old_fid old_parent_fid", json!({}), "0x0040"),
        ("SearchComplete", "fid", json!({}), "0x0080"),
        ("HierarchyTable", "fid", json!({"event": "RowAdded", "after_fid": 3, "data": "00FF"}), "0x0100"),
        ("HierarchyTable", "fid", row.clone(), "0x0100"),
        ("ContentsTable", "fid mid", json!({"event": "RowDeleted", "instance": 1}), "0x8100"),
        ("SearchTable", "fid", row, "0xc100"),
    ] {
        let mut given = pick(names);
        let object = given.as_object_mut().unwrap();
        object.extend(more.as_object().unwrap().clone());
        object.extend([("handle".to_owned(), 7.into()), ("kind".to_owned(), kind.into())]);
        let encoded = inspect(&["encode", "ropnotify", &given.to_string()]);
        let decoded = goes_both_ways("ropnotify", encoded.ok().trim_end());
        assert_eq!((&decoded["flags"], &decoded["kind"]), (&flags.into(), &kind.into()), "{given}");
        for (name, value) in given.as_object().unwrap() {
            assert_eq!(plain(value), plain(&decoded[name]), "{name}: {given} {decoded}");
        }
    }
}

#[test]
fn a_request_and_its_answer_go_both_ways() {
    let folder = goes_both_ways("ropregister", &examples()[23]);
    assert_eq!((&folder["whole_store"], &folder["types"]), (&false.into(), &"0x0002".into()));
    assert_eq!(folder.get("mid"), None);
    let message = "2901020310000001000000000012340100000000abcdef";
    assert_eq!(goes_both_ways("ropregister", message)["mid"], "0xefcdab0000000001");
    assert_eq!(goes_both_ways("ropregister", "2901020316040001")["types"], "0x0416", "the reserved octet");
    let refused = goes_both_ways("ropregister", "290102010480");
    assert_eq!(refused, json!({"output_handle_index": 1, "return_value": "0x80040102"}));
    assert_eq!(goes_both_ways("roppending", "6e0102"), json!({"session_index": 0x0201}));
}

#[test]
fn faults_of_notifications_are_named_with_their_place() {
    for (kind, hex, parts) in [
        ("ropnotify", "2a2900000000", ["at octet 6", "notification flags"]),
        ("ropnotify", "2a29000000000002", ["at octet 6", "0x0200"]),
        ("ropnotify", "2a31000000000001010000", ["at octet 10: 1 octets behind", "deliver"]),
        ("ropnotify", "2a310000000000010600", ["at octet 8", "table event 6"]),
        ("deliver", "2a3100000000000101002a31", ["at octet 11", "handle"]),
        ("roppending", "6e070000", ["at octet 3", "1 octets left over"]),
        ("roppending", "2a0700", ["at octet 0", "expected 0x6e"]),
        ("ropregister", "290000017e0002", ["at octet 6", "expected 0 or 1"]),
        ("ropregister", "290000017e000100", ["at octet 7", "left over"]),
    ] {
        inspect(&["decode", kind, hex]).fails(1, &parts);
    }
    for (kind, json, parts) in [
        ("ropnotify", r#"{"kind":"SearchComplete","fid":1}"#, ["handle", "missing"]),
        ("ropnotify", r#"{"handle":1,"fid":1}"#, ["kind", "missing"]),
        ("ropnotify", r#"{"handle":1,"kind":"Mail","fid":1}"#, ["kind: \"Mail\"", "NewMail"]),
        ("ropnotify", r#"{"handle":1,"kind":"NewMail","fid":1}"#, ["mid", "missing"]),
        ("ropnotify", r#"{"handle":1,"kind":"SearchComplete","fid":1,"mid":1}"#, ["mid", "no such field"]),
        ("ropnotify", r#"{"handle":1,"kind":"SearchComplete","fid":1,"md":1}"#, ["md", "unknown field"]),
        (
            "ropnotify",
            r#"{"handle":1,"kind":"SearchComplete","fid":1,"flags":"0x8080"}"#,
            ["flags: 0x8080", "expected 0x0080"],
        ),
        (
            "ropnotify",
            r#"{"handle":1,"kind":"NewMailWithoutMessage","fid":1}"#,
            ["without a message", "never written"],
        ),
        (
            "ropnotify",
            r#"{"handle":1,"kind":"NewMail","fid":1,"mid":1,"message_class":"Ü"}"#,
            ["'Ü'", "expected ASCII"],
        ),
        (
            "ropnotify",
            r#"{"handle":1,"kind":"ContentsTable","event":"Gone"}"#,
            ["event: \"Gone\"", "RowDeleted"],
        ),
        ("ropnotify", r#"{"handle":1,"kind":"ContentsTable","event":"RowDeleted"}"#, ["fid", "missing"]),
        (
            "ropnotify",
            r#"{"handle":1,"kind":"HierarchyTable","event":"RowAdded","fid":1,"data":"0"}"#,
            ["data: hex", "one digit"],
        ),
        (
            "ropnotify",
            r#"{"handle":1,"kind":"HierarchyTable","event":"Changed","fid":1}"#,
            ["fid", "no such field"],
        ),
        (
            "ropnotify",
            r#"{"handle":1,"kind":"FolderModified","fid":1,"tags":"all"}"#,
            ["tags: \"all\"", "array"],
        ),
        (
            "ropnotify",
            r#"{"handle":1,"kind":"FolderModified","fid":1,"tags":["x"]}"#,
            ["tags[0]: \"x\"", "0x"],
        ),
        (
            "ropnotify",
            r#"{"handle":1,"kind":"MessageModified","fid":1,"mid":1,"in_search_folder":1}"#,
            ["in_search_folder: 1", "true or false"],
        ),
        (
            "deliver",
            r#"{"replies":[{"handle":1,"kind":"SearchComplete","fid":1},{"handle":1,"kind":"NewMail"}]}"#,
            ["replies[1].fid", "missing"],
        ),
        (
            "deliver",
            r#"{"replies":[{"handle":1,"kind":"NewMailWithoutMessage","fid":1}]}"#,
            ["replies[0]", "never"],
        ),
        ("roppending", r#"{"session_index":65536}"#, ["session_index: 65536", "0 to 65535"]),
        ("ropregister", r#"{"output_handle_index":1,"types":2}"#, ["input_handle_index", "missing"]),
        (
            "ropregister",
            r#"{"input_handle_index":0,"output_handle_index":1,"types":2}"#,
            ["fid: missing", "whole_store"],
        ),
        (
            "ropregister",
            r#"{"input_handle_index":0,"output_handle_index":1,"types":2,"whole_store":true,"fid":1}"#,
            ["whole_store: true", "no fid"],
        ),
    ] {
        inspect(&["encode", kind, json]).fails(1, &parts);
    }
}
