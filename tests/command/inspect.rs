//! `inspect`: every case of OpenChange's own octets, both ways, and what cannot be read or written.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{Run, ocbus, run};

fn inspect(arguments: &[&str]) -> Run {
    run(ocbus(&[&["inspect"], arguments].concat()), b"")
}

fn vectors() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/openchange/vectors.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The fields of a case that stand in the octets.
fn in_octets(kind: &str, input: &Value) -> Value {
    let names: &[&str] = match kind {
        "session" => &["uuid", "cn"],
        "resolver" => &["hosts"],
        "subscription" => &["subscriptions"],
        _ => &["backend", "eml", "folder", "separator"],
    };
    names
        .iter()
        .map(|name| ((*name).to_owned(), input[*name].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[test]
fn every_case_is_written_and_read_as_openchange_does() {
    let mut met = BTreeMap::new();
    for case in vectors() {
        let (name, kind) = (case["name"].as_str().unwrap(), case["kind"].as_str().unwrap());
        if !["session", "resolver", "subscription", "newmail"].contains(&kind) {
            continue;
        }
        let input = case["input"].to_string();
        let encoded = inspect(&["encode", kind, &input]);
        let sort = match (case["hex"].as_str(), name) {
            // OpenChange writes it, and can never read it again.
            (Some(hex), "subscription_101" | "subscription_102") => {
                encoded.fails(1, &["unknown field"]);
                inspect(&["decode", kind, hex]).fails(1, &["at octet 1", "101 subscriptions, at most 100"]);
                "too many"
            }
            // The second is refused, the first stays.
            (Some(hex), "subscription_duplicate_handle") => {
                assert_eq!((encoded.status, encoded.stdout.trim_end()), (0, hex), "{name}");
                assert!(encoded.stderr.contains("handle 0x42 is subscribed already"), "{encoded:?}");
                "duplicate"
            }
            (Some(hex), _) => {
                assert_eq!(encoded.ok(), format!("{hex}\n"), "{name}");
                let decoded = inspect(&["decode", kind, hex]).json();
                assert_eq!(decoded, [in_octets(kind, &case["input"])], "{name}");
                let spaced: Vec<&str> =
                    hex.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap()).collect();
                let upper = spaced.join(" ").to_ascii_uppercase();
                assert_eq!(inspect(&["decode", kind, &upper]).json(), decoded, "{name}");
                "written"
            }
            // In JSON these are characters, which CP850 has.
            (None, "newmail_invalid_utf8") => "other text",
            (None, _) => {
                encoded.fails(1, &[kind]);
                "refused"
            }
        };
        *met.entry(sort).or_insert(0) += 1;
    }
    let expected = [("written", 28), ("refused", 10), ("too many", 2), ("duplicate", 1), ("other text", 1)];
    assert_eq!(met, BTreeMap::from(expected));
}

#[test]
fn what_openchange_refuses_to_read_is_refused_with_its_place() {
    for case in vectors() {
        let kind = match (case["kind"].as_str().unwrap(), case["key"].as_str()) {
            ("pull_notification" | "newmail_plugin_capture", _) => "newmail",
            ("pull_record", Some(key)) => key.split(':').next().unwrap(),
            _ => continue,
        };
        let hex = case["hex"].as_str().unwrap();
        let run = inspect(&["decode", kind, hex]);
        let read = case["observed"]
            .as_str()
            .is_none_or(|seen| seen.contains("ret=0 ") && !seen.contains("REJECTED"));
        match run.status {
            0 => assert!(read && serde_json::from_str::<Value>(run.ok()).is_ok(), "{case}: {run:?}"),
            // Shortened cases are no hex any more.
            _ => run.fails(1, &[if hex.contains('.') { "hex: at character" } else { "at octet" }]),
        }
    }
}

#[test]
fn a_batch_of_events_goes_both_ways() {
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let event = |kind: &str, more: Value| {
        let mut event = json!({"id": id, "time_us": 1_767_607_200_000_001_u64, "user": "bob", "kind": kind,
            "mailbox": "Entwürfe", "separator": "/"});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    };
    let events = json!([
        event("MessageNew", json!({"uid": 7, "uidvalidity": 3, "messages": 5, "unseen": 2, "flags": ["\\Seen"],
            "keywords": ["k"], "from": "a", "subject": "s", "message_id": "<1@x>", "size": 9, "backend": "b"})),
        event("MessageAppend", json!({"name": "letter", "storage_name": "x", "list_separator": "."})),
        event("MessageMove", json!({"uids": "1:3", "old_mailbox": "A", "old_uids": "9,7,5"})),
        event("MessageCopy", json!({"uids": "1", "old_mailbox": "A", "old_separator": "."})),
        event("MessageRead", json!({"uids": "1:4294967295"})),
        event("MessageTrash", json!({"uid": 1})),
        event("MessageExpunge", json!({"uids": "1,3"})),
        event("FlagsSet", json!({"uids": "1", "flags": ["\\Flagged"], "keywords": []})),
        event("FlagsClear", json!({"uids": "1", "keywords": ["k"]})),
        event("MailboxCreate", json!({})),
        event("MailboxDelete", json!({})),
        event("MailboxRename", json!({"old_mailbox": "A"})),
        event("MailboxSubscribe", json!({})),
        event("MailboxUnsubscribe", json!({})),
        {"id": id, "time": "2026-01-05T10:00:00.000001Z", "user": "", "kind": "Resync", "reason": "overflow",
            "missed": 3, "received_us": 1},
    ]);
    let text = json!({"v": 1, "events": events, "skipped": 0}).to_string();
    let hex = inspect(&["encode", "event", &text]).ok().trim_end().to_owned();
    let decoded = inspect(&["decode", "event", &hex]).json().remove(0);
    assert_eq!((&decoded["v"], &decoded["skipped"]), (&1.into(), &0.into()));
    for (given, read) in events.as_array().unwrap().iter().zip(decoded["events"].as_array().unwrap()) {
        assert_eq!(read["time"], "2026-01-05T10:00:00.000001Z");
        for (name, value) in given.as_object().unwrap() {
            let left_out = name == "received_us" || *value == json!([]);
            assert!(left_out || read[name] == *value, "{name}: {given} {read}");
        }
    }
    assert_eq!(decoded["events"][0]["storage_name"], "Entw&APw-rfe");
    assert_eq!(inspect(&["encode", "event", &decoded.to_string()]).ok().trim_end(), hex);

    // What is left out is made: the id, the time.
    let made =
        inspect(&["encode", "event", r#"{"events":[{"kind":"MailboxCreate","user":"bob","mailbox":"A"}]}"#]);
    let made = inspect(&["decode", "event", made.ok().trim_end()]).json().remove(0);
    assert!(made["events"][0]["time_us"].as_u64().unwrap() > 1_700_000_000_000_000);
    assert_eq!(&made["events"][0]["id"].as_str().unwrap()[14..15], "7");
}

#[test]
fn standard_input_and_other_charsets() {
    let hex = "010200736f676f00312e656d6c003580002f";
    let given = run(
        ocbus(&["inspect", "decode", "newmail", "--charset", "CP1252", "-"]),
        format!("{hex}\n").as_bytes(),
    );
    assert_eq!(given.json()[0]["folder"], "5€");
    let back =
        run(ocbus(&["inspect", "encode", "newmail", "--charset", "cp1252", "-"]), given.stdout.as_bytes());
    assert_eq!(back.ok(), format!("{hex}\n"));
    inspect(&["encode", "newmail", given.stdout.trim()])
        .fails(1, &["newmail", "CP850 has no '€'", "position 1"]);
    run(ocbus(&["inspect", "encode", "newmail", "-"]), b"{\xff}").fails(1, &["at octet 1", "UTF-8"]);
}

#[test]
fn faults_are_named_with_their_place() {
    for (kind, hex, parts) in [
        ("newmail", "0102zz", ["at character 4", "'z'"]),
        ("newmail", "01 0", ["at character 3", "one digit"]),
        ("newmail", "010200736f676f00312e656d6c00494e424f5800", ["at octet 20", "separator"]),
        ("newmail", "010300", ["at octet 1", "0x0003"]),
        ("session", "0111", ["at octet 1", "GUID"]),
        ("resolver", "0102000000010000006100", ["at octet 5", "disagree"]),
        ("subscription", "02", ["at octet 0", "version 2"]),
        ("event", "82a17601", ["at octet", "event"]),
        ("event", "82a17602a2657690", ["at octet 0", "version 2"]),
        ("event", "82a17601a265769000", ["at octet 8", "left over"]),
    ] {
        inspect(&["decode", kind, hex]).fails(1, &parts);
    }
    for (kind, json, parts) in [
        ("newmail", "{", ["line 1 column 1", "JSON"]),
        ("newmail", "nonsense", ["line 1 column", "JSON"]),
        ("newmail", "[]", ["[]", "expected an object"]),
        ("newmail", r#"{"eml":"1.eml","folder":"x","separator":256}"#, ["separator: 256", "0 to 255"]),
        ("newmail", r#"{"eml":"1.eml","folder":"x","separator":-1}"#, ["separator: -1", "0 to 255"]),
        ("newmail", r#"{"eml":7,"folder":"x"}"#, ["eml: 7", "expected a string"]),
        ("newmail", r#"{"eml":"1.eml"}"#, ["folder", "missing"]),
        ("newmail", r#"{"eml":"1.eml","folder":"x","fodler":"x"}"#, ["fodler", "unknown field"]),
        ("newmail", r#"{"eml":"1.eml","folder":"a\u0000b"}"#, ["folder", "NUL"]),
        ("session", r#"{"uuid":"x","cn":"a"}"#, ["uuid", "\"x\""]),
        ("resolver", r#"{"hosts":["a",7]}"#, ["hosts[1]: 7", "expected a string"]),
        (
            "subscription",
            r#"{"subscriptions":[{"handle":1,"flags":65536}]}"#,
            ["subscriptions[0].flags: 65536", "0 to 65535"],
        ),
        (
            "subscription",
            r#"{"subscriptions":[{"handle":1,"flags":1,"fid":"x"}]}"#,
            ["subscriptions[0].fid: \"x\"", "0x"],
        ),
        ("event", r#"{"v":2,"events":[]}"#, ["v: 2", "expected 1"]),
        ("event", r#"{"events":[{"kind":"MessageRead","mailbox":"A"}]}"#, ["events[0].uids", "missing"]),
        ("event", r#"{"events":[{"kind":"MailboxCreate"}]}"#, ["events[0].mailbox", "missing"]),
        (
            "event",
            r#"{"events":[{"kind":"MailboxCreate","mailbox":"A","uid":1}]}"#,
            ["events[0].uid", "no such field"],
        ),
        (
            "event",
            r#"{"events":[{"kind":"MailboxCreate","mailbox":"A","colour":1}]}"#,
            ["events[0].colour", "unknown field"],
        ),
        (
            "event",
            r#"{"events":[{"kind":"MessageRead","mailbox":"A","uids":"3:1"}]}"#,
            ["events[0].uids: \"3:1\"", "1:3,7"],
        ),
        ("event", r#"{"events":[{"kind":"Resync","reason":"why"}]}"#, ["events[0].reason", "overflow"]),
        (
            "event",
            r#"{"events":[{"kind":"Resync","time":"2026-01-05T10:00:00Z","time_us":1}]}"#,
            ["events[0].time", "time_us is 1"],
        ),
    ] {
        inspect(&["encode", kind, json]).fails(1, &parts);
    }
}

fn data(name: &str) -> Value {
    let path = format!("{}/tests/data/openchange/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn every_configuration_string_is_explained_or_refused_as_libmemcached_does() {
    let (mut explained, mut refused) = (0, 0);
    for case in data("memcached_config_strings.json").as_array().unwrap() {
        let text = case["string"].as_str().unwrap();
        let run = inspect(&["config", text]);
        if text == "--SERVER=[::1]:11211" {
            // Ours alone.
            assert_eq!(run.json()[0]["servers"], json!(["[::1]:11211"]));
        } else if case["memcached_ok"] == true {
            let meaning = run.json().remove(0);
            assert_eq!(meaning["servers"], case["servers"], "{text}");
            // It means itself.
            let again = inspect(&["config", meaning["canonical"].as_str().unwrap()]);
            assert_eq!(again.json(), [meaning], "{text}");
            explained += 1;
        } else {
            run.fails(1, &["resolver configuration: option '", "' at octet ", ": expected "]);
            refused += 1;
        }
    }
    assert_eq!((explained, refused), (46, 45));
    inspect(&["config", ""]).fails(1, &["empty", "expected"]);
    let meaning = inspect(&[
        "config",
        "--HASH=MD5 --DISTRIBUTION=CONSISTENT --SERVER=abc/?2 --SOCKET=\"/s\" --NOREPLY",
    ]);
    let meaning = meaning.json().remove(0);
    assert_eq!(meaning["servers"], json!(["abc:11211", "/s:0"]));
    assert_eq!((&meaning["hash"], &meaning["ring"]), (&"MD5".into(), &"WEIGHTED".into()));
    assert_eq!(meaning["without_effect"], json!(["--NOREPLY"]));
}

#[test]
fn every_key_has_the_server_that_libmemcached_gives_it() {
    let data = data("memcached_selection.json");
    let keys: Vec<&str> = data["keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
    let (mut cases, mut met) = (0, 0);
    for case in data["cases"].as_array().unwrap() {
        // What a program sets, a string cannot.
        if case["behaviors"] != json!([]) {
            continue;
        }
        let config = case["config"].as_str().unwrap();
        let lines = inspect(&[&["server", config][..], &keys].concat()).json();
        assert_eq!(lines.len(), keys.len());
        for (at, line) in lines.iter().enumerate() {
            let index = &case["generate_hash_index"][at];
            assert_eq!((&line["key"], &line["index"]), (&keys[at].into(), index), "{config}");
            let port = format!(":{}", case["server_by_key_port"][at]);
            assert!(line["server"].as_str().unwrap().ends_with(&port), "{config}: {line}");
            met += 1;
        }
        cases += 1;
    }
    assert_eq!((cases, met), (48, 4_800));
    // Our own record stands beside OpenChange's, whatever its own key would choose.
    let three = "--SERVER=one --SERVER=two --SERVER=three --DISTRIBUTION=CONSISTENT";
    let beside = |prefix: &str| -> Vec<Value> {
        let keys: Vec<String> = (0..60).map(|user| format!("{prefix}:user{user}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let lines = inspect(&[&["server", three][..], &keys].concat()).json();
        for (line, key) in lines.iter().zip(&keys) {
            assert_eq!(line["key"], *key);
        }
        lines.iter().map(|line| json!([line["index"], line["server"]])).collect()
    };
    assert_eq!(beside("ocbus"), beside("resolver"));
    assert_ne!(beside("ocbus"), beside("others"));
    let socket = inspect(&["server", "--SOCKET=\"/run/m.sock\"", "k"]).json();
    assert_eq!(socket, [json!({"key": "k", "index": 0, "server": "/run/m.sock:0"})]);
    let config = inspect(&["config", "--SOCKET=\"/run/m.sock\""]).json();
    assert_eq!(config[0]["servers"], json!([socket[0]["server"]]), "both say it alike");
    inspect(&["server", "RESET", "k"]).fails(1, &["names no server", "expected --SERVER="]);
    inspect(&["server", "--SERVER=abc --BAD", "k"]).fails(1, &["'--BAD' at octet 13"]);
    inspect(&["server", "--SERVER=abc"]).fails(2, &["KEY"]);
}
