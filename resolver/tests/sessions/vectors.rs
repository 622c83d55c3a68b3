//! Every case of OpenChange's about these records: what its calls answered ours answer, and what it stored we store.

use ocbus_resolver::{Appended, MAX_DELIVER_OCTETS, SessionsError};
use ocbus_wire::openchange::{SessionRecord, Subscription, deliver_key, session_key, subscription_key};
use serde_json::Value;

use super::openchange::OpenChange;
use super::*;

fn cases(kind: &str, names: &str) -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/openchange/vectors.json");
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let is_one = |case: &Value| case["kind"] == kind && case["name"].as_str().unwrap().starts_with(names);
    cases.into_iter().filter(is_one).collect()
}

/// How OpenChange says it.
fn ret<T>(result: &Result<T, SessionsError>) -> &'static str {
    match result {
        Ok(_) => "ret=0 (Success)",
        Err(SessionsError::SessionExists { .. }) => "ret=1 (Non-specific error)",
        Err(SessionsError::NotFound { .. }) => "ret=15 (Not Found)",
        Err(SessionsError::HandleExists { .. }) => "ret=17 (Already Exists)",
        Err(SessionsError::Invalid { .. }) => "ret=18 (Invalid Data)",
        Err(other) => panic!("{other}"),
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn number(value: &Value) -> u64 {
    let digits = |text: &str| u64::from_str_radix(text.strip_prefix("0x").unwrap(), 16).unwrap();
    value.as_u64().unwrap_or_else(|| digits(value.as_str().unwrap()))
}

/// What memcached has, octets, flags and expiry.
fn assert_stored(memcached: &Memcached, case: &Value) {
    let key = case["key"].as_str().unwrap();
    assert_eq!(memcached.get(key).map(|value| hex(&value)).as_deref(), case["hex"].as_str());
    let meta = memcached.ask(&format!("mg {key} t f s"), "HD");
    assert_eq!(meta, case["memcached"]["meta"].as_str().unwrap());
}

#[tokio::test]
async fn sessions_are_kept_as_openchange_keeps_them() {
    let cases = cases("session", "");
    assert_eq!(cases.len(), 7);
    for case in &cases {
        println!("{}", case["name"]);
        let memcached = Memcached::start();
        let records = connect(memcached.port).await;
        let input = &case["input"];
        let given = input["async_uuid_given"].as_str().or(input["async_uuid"].as_str()).unwrap();
        let async_session: Uuid = given.parse().unwrap();
        let session = input["uuid"].as_str().unwrap().parse().unwrap();
        let record = SessionRecord { session, cn: input["cn"].as_str().unwrap().to_owned() };
        assert_eq!(ret(&records.register(&async_session, &record).await), case["ret_add"]);
        if !case["hex"].is_null() {
            assert_stored(&memcached, case);
        }
        if let Some(again) = case["ret_add_again"].as_str() {
            assert_eq!(ret(&records.register(&async_session, &record).await), again);
        }
        let got = records.session(&async_session).await;
        let shown = match &got {
            Ok(SessionRecord { session, cn }) => format!("uuid={session} cn={cn} {}", ret(&got)),
            Err(_) => ret(&got).to_owned(),
        };
        assert_eq!(shown, case["ret_get"]);
        assert_eq!(blocking(memcached.port).session(&async_session, soon()).ok(), got.ok());
    }
}

fn shown(subscriptions: &Result<Vec<Subscription>, SessionsError>) -> String {
    let Ok(all) = subscriptions else { return ret(subscriptions).to_owned() };
    let one = |one: &Subscription| {
        let Subscription { handle, flags, fid, mid, properties } = one;
        format!(" [h=0x{handle:x} fl=0x{flags:x} fid=0x{fid:x} mid=0x{mid:x} n={}]", properties.len())
    };
    let each: String = all.iter().map(one).collect();
    format!("vnum=1 count={}{each} {}", all.len(), ret(subscriptions))
}

#[tokio::test]
async fn subscriptions_are_kept_as_openchange_keeps_them() {
    let cases = cases("subscription", "");
    assert_eq!(cases.len(), 8);
    for case in &cases {
        println!("{}", case["name"]);
        let memcached = Memcached::start();
        let records = connect(memcached.port).await;
        let input = &case["input"];
        let session: Uuid = input["uuid"].as_str().unwrap().parse().unwrap();
        if let Some(count) = input["n"].as_u64() {
            // OpenChange took the 101st, and could never read the record again.
            for handle in 0..u32::try_from(count).unwrap() {
                let one = Subscription { handle, flags: 0x100, fid: 1, ..Subscription::default() };
                let added = records.subscribe(&session, &one).await;
                assert_eq!(added.is_ok(), handle < 100, "{handle}");
            }
            assert_eq!(records.subscriptions(&session).await.unwrap().len(), 100);
            // What OpenChange has made of it is an error, and stays as it is.
            let theirs = case["hex"].as_str().unwrap();
            let octets: Vec<u8> = (0..theirs.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&theirs[at..at + 2], 16).unwrap())
                .collect();
            let key = subscription_key(&session);
            memcached.set(&key, &octets);
            let one = Subscription { handle: 7, ..Subscription::default() };
            assert!(matches!(records.subscribe(&session, &one).await, Err(SessionsError::Malformed { .. })));
            assert!(matches!(records.subscriptions(&session).await, Err(SessionsError::Malformed { .. })));
            assert_eq!(memcached.get(&key), Some(octets));
            records.unsubscribe_all(&session).await.unwrap();
            assert_eq!(memcached.get(&key), None);
            continue;
        }
        let mut said = Vec::new();
        for given in input["subscriptions"].as_array().unwrap() {
            let one = Subscription {
                handle: number(&given["handle"]).try_into().unwrap(),
                flags: number(&given["flags"]).try_into().unwrap(),
                fid: number(&given["fid"]),
                mid: number(&given["mid"]),
                properties: given["properties"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(number)
                    .map(|tag| tag.try_into().unwrap())
                    .collect(),
            };
            said.push(ret(&records.subscribe(&session, &one).await).to_owned());
        }
        assert_stored(&memcached, case);
        let got = records.subscriptions(&session).await;
        said.push(shown(&got));
        assert_eq!(Value::from(said), case["ret"]);
        assert_eq!(blocking(memcached.port).subscriptions(&session, soon()).ok(), got.ok());
    }
}

#[tokio::test]
async fn replies_wait_as_openchange_lets_them_wait() {
    let cases = cases("deliver", "");
    assert_eq!(cases.len(), 2);
    for case in &cases {
        println!("{}", case["name"]);
        let memcached = Memcached::start();
        let records = connect(memcached.port).await;
        let blobs: Vec<Vec<u8>> = case["input"]["blobs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|blob| {
                let digits = blob.as_str().unwrap();
                (0..digits.len())
                    .step_by(2)
                    .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
                    .collect()
            })
            .collect();
        assert_eq!(ret(&records.waiting(&SESSION).await), "ret=15 (Not Found)");
        for blob in &blobs {
            records.append(&SESSION, blob, b"").await.unwrap();
        }
        assert_stored(&memcached, case);
        assert_eq!(OpenChange::connect(memcached.port).get(KEY), Some(blobs.concat()), "it reads the same");
        assert_eq!(blocking(memcached.port).waiting(&SESSION, soon()).unwrap(), blobs.concat());
        assert_eq!(records.take(&SESSION).await.unwrap().replies, blobs.concat());
        // What OpenChange appends stands there as well, before anything waits and afterwards.
        let mut openchange = OpenChange::connect(memcached.port);
        assert!(openchange.deliver_add(KEY, &blobs[0]));
        records.append(&SESSION, &blobs[1], b"").await.unwrap();
        assert_stored(&memcached, case);
        assert_eq!(blocking(memcached.port).take(&SESSION, soon()).unwrap().replies, blobs.concat());
        assert_eq!(records.take(&SESSION).await.unwrap().replies, b"");
        records.discard(&SESSION).await.unwrap();
        assert!(openchange.deliver_add(KEY, &blobs[0]), "its own add");
        assert_eq!(records.take(&SESSION).await.unwrap().replies, blobs[0]);
    }
}

/// The calls of the cases of kind `api`, in the order in which the original's answers came.
#[tokio::test]
async fn calls_are_answered_as_openchange_answers_them() {
    let case = |name: &str| cases("api", name).remove(0)["results"].clone();
    let memcached = Memcached::start();
    let records = connect(memcached.port).await;
    let record = SessionRecord { session: SESSION, cn: "bob".to_owned() };
    let said = [
        ret(&records.register(&SESSION, &record).await),
        ret(&records.unregister(&SESSION).await),
        ret(&records.session(&SESSION).await),
        ret(&records.unregister(&SESSION).await),
        ret(&records.session(&SESSION).await),
    ];
    assert_eq!(Value::from(said.to_vec()), case("session_delete"));

    let one = |handle| Subscription { handle, flags: 2, fid: 1, ..Subscription::default() };
    let said = [
        ret(&records.subscribe(&SESSION, &one(0x42)).await).to_owned(),
        ret(&records.subscribe(&SESSION, &one(0x43)).await).to_owned(),
        ret(&records.unsubscribe(&SESSION, 0x44).await).to_owned(),
        ret(&records.unsubscribe(&SESSION, 0x42).await).to_owned(),
        shown(&records.subscriptions(&SESSION).await),
        ret(&records.unsubscribe(&SESSION, 0x43).await).to_owned(),
        shown(&records.subscriptions(&SESSION).await),
        ret(&records.unsubscribe(&SESSION, 0x43).await).to_owned(),
        ret(&records.unsubscribe_all(&SESSION).await).to_owned(),
    ];
    assert_eq!(Value::from(said.to_vec()), case("subscription_delete_by_handle"));

    records.append(&SESSION, b"deliver1", b"").await.unwrap();
    let said = [
        ret(&records.discard(&SESSION).await),
        ret(&records.waiting(&SESSION).await),
        ret(&records.discard(&SESSION).await),
        // Its fourth call had no GUID, and a `&Uuid` is always one.
        "ret=6 (Invalid Parameter)",
    ];
    assert_eq!(Value::from(said.to_vec()), case("deliver_delete"));
    for key in [session_key(&SESSION), subscription_key(&SESSION), deliver_key(&SESSION)] {
        assert_eq!(memcached.get(&key), None);
    }

    // Four times 400,000 octets: the original refused the third and the fourth, and nobody was told.
    let said = case("deliver_over_1MiB");
    let blob = vec![0x2a; 400_000];
    for (at, theirs) in said.as_array().unwrap().iter().enumerate() {
        let appended = records.append(&SESSION, &blob, &reply(1)).await.unwrap();
        match at {
            0 | 1 => assert_eq!(theirs, "ret=0 (Success)"),
            _ => assert_eq!(theirs, "ret=1 (Non-specific error)"),
        }
        match at {
            2 => assert!(matches!(appended, Appended::Resynced { dropped_octets: 800_000, .. })),
            _ => assert!(matches!(appended, Appended::Waiting { .. })),
        }
    }
    assert_eq!(records.take(&SESSION).await.unwrap().replies.len(), 10 + 800_000);
}

/// The largest value that we let wait is one that memcached takes.
#[tokio::test]
async fn the_limit_is_one_that_memcached_has_too() {
    let memcached = Memcached::start();
    let records = connect(memcached.port).await;
    let most = vec![0; MAX_DELIVER_OCTETS];
    let appended = records.append(&SESSION, &most, b"").await.unwrap();
    assert_eq!(appended, Appended::Waiting { octets: MAX_DELIVER_OCTETS });
    assert_eq!(records.take(&SESSION).await.unwrap().replies, most);
    let more = [most.as_slice(), b"x"].concat();
    let error = records.append(&SESSION, &more, &more).await;
    assert_eq!(error.unwrap_err().to_string(), format!("{KEY}: 1047553 octets, at most 1047552 fit"));
    // No limit is larger.
    let records = records.with_deliver_limit(usize::MAX);
    assert!(matches!(
        records.append(&SESSION, &more, b"r").await.unwrap(),
        Appended::Resynced { dropped: 0, .. }
    ));
}

#[tokio::test]
async fn a_malformed_session_is_an_error_and_can_be_removed() {
    let memcached = Memcached::start();
    let records = connect(memcached.port).await;
    memcached.set(&session_key(&SESSION), b"\x02");
    let error = records.session(&SESSION).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("session:{SESSION}: at octet 0: version 2 is unknown, only 1 is known")
    );
    records.unregister(&SESSION).await.unwrap();
    assert_eq!(memcached.get(&session_key(&SESSION)), None);
}
