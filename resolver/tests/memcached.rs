//! The resolvers against a real memcached, one for each test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "memcached/server.rs"]
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use ocbus_resolver::{
    BlockingResolver, Cn, Config, Listeners, Registered, Registration, Resolver, ResolverError, Settlement,
};
use ocbus_wire::native::{Lease, LeaseRecord};
use ocbus_wire::openchange::DosCharset;
use server::{FakeServer, Memcached, poll_until};
use uuid::Uuid;

const SECOND: Duration = Duration::from_secs(1);

fn cn(name: &str) -> Cn {
    Cn::new(name).unwrap()
}

fn config(port: u16) -> Config {
    format!("--SERVER=127.0.0.1:{port}").parse().unwrap()
}

async fn connect(port: u16, timeout: Duration) -> Resolver {
    Resolver::new(&config(port), DosCharset::default(), timeout).await.unwrap()
}

fn blocking(port: u16) -> BlockingResolver {
    BlockingResolver::new(&config(port), DosCharset::default())
}

fn lookup(resolver: &mut BlockingResolver, name: &str) -> Listeners {
    resolver.lookup(&cn(name), Instant::now() + 5 * SECOND).unwrap()
}

fn registration(endpoint: &str, subscriber: u128, lease: Duration) -> Registration<'_> {
    Registration { endpoint, legacy: None, subscriber: Uuid::from_u128(subscriber), lease }
}

fn endpoints(leases: &[Lease]) -> Vec<&str> {
    leases.iter().map(|lease| lease.endpoint.as_str()).collect()
}

#[tokio::test]
async fn a_subscriber_comes_renews_and_leaves() {
    let memcached = Memcached::start();
    let resolver = connect(memcached.port, 5 * SECOND).await;
    let mut plugin = blocking(memcached.port);
    let bob = cn("Bob@Example.org");
    assert!(lookup(&mut plugin, "bob@example.org").is_empty());

    let here = Registration { legacy: Some("tcp://h:2"), ..registration("tcp://h:1", 1, 60 * SECOND) };
    assert_eq!(resolver.register(&bob, here).await.unwrap(), Registered { new: true, missed: 0 });
    assert_eq!(resolver.register(&bob, here).await.unwrap(), Registered { new: false, missed: 0 });
    assert!(resolver.register_legacy(&bob, "tcp://h:2").await.unwrap());
    assert!(!resolver.register_legacy(&bob, "tcp://h:2").await.unwrap());
    let there = registration("tcp://h:11", 2, 60 * SECOND);
    assert!(resolver.register(&bob, there).await.unwrap().new, "the other is only its prefix");

    let seen = lookup(&mut plugin, "BOB@example.org");
    assert_eq!(seen, resolver.lookup(&bob).await.unwrap(), "both resolvers read the same");
    assert_eq!(endpoints(&seen.native), ["tcp://h:1", "tcp://h:11"]);
    assert_eq!(seen.native[0].legacy.as_deref(), Some("tcp://h:2"));
    assert_eq!(
        (&*seen.legacy, seen.expired.len(), seen.malformed.len()),
        (&["tcp://h:2".to_owned()][..], 0, 0)
    );

    // A publisher missed the first and found nobody at the second.
    let settlement = Settlement {
        gone: vec![seen.native[1].clone()],
        missed: vec![(seen.native[0].clone(), 3)],
        gone_legacy: vec!["tcp://h:2".into()],
    };
    plugin.settle(&bob, &settlement, Instant::now() + 5 * SECOND).unwrap();
    let left = lookup(&mut plugin, "bob@example.org");
    assert_eq!(
        (endpoints(&left.native), left.native[0].missed, left.legacy.len()),
        (vec!["tcp://h:1"], 3, 0)
    );
    assert_eq!(
        memcached.get("resolver:bob@example.org"),
        None,
        "the last legacy endpoint takes the key along"
    );
    assert_eq!(resolver.register(&bob, here).await.unwrap(), Registered { new: false, missed: 3 });

    assert!(!resolver.leave(&bob, "tcp://h:1", Uuid::from_u128(2)).await.unwrap(), "somebody else's");
    assert!(resolver.leave(&bob, "tcp://h:1", Uuid::from_u128(1)).await.unwrap());
    assert!(!resolver.leave(&bob, "tcp://h:1", Uuid::from_u128(1)).await.unwrap());
    assert!(!resolver.leave_legacy(&bob, "tcp://h:2").await.unwrap());
    assert_eq!(memcached.get("ocbus:bob@example.org"), None);
    assert!(lookup(&mut plugin, "bob@example.org").is_empty());
}

/// The flag by which the tokio client knows its answers again, as memcached echoes it.
fn opaque(asked: &str) -> String {
    let flag = asked.split(' ').skip(2).find(|flag| flag.starts_with('O'));
    flag.map(|flag| format!(" {flag}")).unwrap_or_default()
}

#[tokio::test]
async fn both_records_come_in_one_round_trip() {
    // A memcached that answers nothing until it has both questions: who asks one after the other, waits for ever.
    let fake = FakeServer::start(|mut peer| {
        let asked = [peer.line(), peer.line()];
        assert!(asked.iter().all(|line| line.starts_with("mg ")), "{asked:?}");
        for line in &asked {
            peer.send(format!("EN{}\r\n", opaque(line)).as_bytes());
        }
        peer.wait_for_end();
    });
    let mut plugin = blocking(fake.port);
    assert!(plugin.lookup(&cn("bob"), Instant::now() + 5 * SECOND).unwrap().is_empty());
    drop(plugin);
    let resolver = connect(fake.port, 5 * SECOND).await;
    assert!(resolver.lookup(&cn("bob")).await.unwrap().is_empty());

    // And a real one counts: two keys a look-up, nothing else, on one connection.
    let memcached = Memcached::start();
    let resolver = connect(memcached.port, 5 * SECOND).await;
    let mut plugin = blocking(memcached.port);
    resolver.lookup(&cn("bob")).await.unwrap();
    lookup(&mut plugin, "bob");
    let before = memcached.stats();
    for _ in 0..10 {
        resolver.lookup(&cn("bob")).await.unwrap();
        lookup(&mut plugin, "bob");
    }
    let after = memcached.stats();
    let grown = |name: &str| after[name] - before[name];
    assert_eq!((grown("cmd_get"), grown("cmd_set"), grown("cmd_touch"), grown("cmd_flush")), (40, 0, 0, 0));
    // The one more is that of `stats` itself.
    assert_eq!(grown("total_connections"), 1, "connections are kept");
}

/// Eight writers of one record, each over connections of its own, add 50 endpoints each.
async fn contend(native: bool) -> Listeners {
    let memcached = Memcached::start();
    let mut writers = Vec::new();
    for writer in 0..8 {
        let resolver = connect(memcached.port, 10 * SECOND).await;
        writers.push(tokio::spawn(async move {
            for n in 0..50 {
                let endpoint = format!("tcp://h{writer}:{}", 9000 + n);
                let new = match native {
                    true => {
                        let here = registration(&endpoint, writer, 600 * SECOND);
                        resolver.register(&cn("bob"), here).await.unwrap().new
                    }
                    false => resolver.register_legacy(&cn("bob"), &endpoint).await.unwrap(),
                };
                assert!(new, "{endpoint}");
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let stats = memcached.stats();
    println!("cas_hits {} cas_badval {}", stats["cas_hits"], stats["cas_badval"]);
    lookup(&mut blocking(memcached.port), "bob")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_addition_of_eight_writers_to_a_lease_record_is_lost() {
    let mut found = contend(true).await.native;
    assert_eq!(found.len(), 400);
    found.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
    found.dedup_by(|a, b| a.endpoint == b.endpoint);
    assert_eq!(found.len(), 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_addition_of_eight_writers_to_a_resolver_record_is_lost() {
    // Endpoints that stand twice are read once: 400 are 400 different ones.
    assert_eq!(contend(false).await.legacy.len(), 400);
}

fn vectors(kind: &str) -> Vec<serde_json::Value> {
    let text = include_str!("../../tests/data/openchange/vectors.json");
    let all: Vec<serde_json::Value> = serde_json::from_str(text).unwrap();
    all.into_iter().filter(|case| case["kind"] == kind).collect()
}

#[tokio::test]
async fn resolver_records_are_those_of_openchange_octet_for_octet() {
    let memcached = Memcached::start();
    let resolver = connect(memcached.port, 5 * SECOND).await;
    let (mut written, mut refused_cn, mut refused_host) = (0, 0, 0);
    for case in vectors("resolver") {
        let name = case["name"].as_str().unwrap();
        memcached.ask("flush_all", "OK");
        let Ok(cn) = Cn::new(case["input"]["cn"].as_str().unwrap()) else {
            // Where only the cn is wrong: OpenChange refuses three of these itself, and sends the fourth.
            assert!(
                case["hex"].is_null() && !case["ret"][0].as_str().unwrap().starts_with("ret=0"),
                "{name}"
            );
            refused_cn += 1;
            continue;
        };
        let hosts: Vec<&str> =
            case["input"]["hosts"].as_array().unwrap().iter().map(|host| host.as_str().unwrap()).collect();
        let mut results = Vec::new();
        for host in &hosts {
            results.push(resolver.register_legacy(&cn, host).await);
        }
        assert_eq!(cn.resolver_key(), case["key"].as_str().unwrap(), "{name}");
        let Some(hex) = case["hex"].as_str() else {
            assert!(matches!(results[0], Err(ResolverError::Unwritable { .. })), "{name}: {results:?}");
            assert_eq!(memcached.get(&cn.resolver_key()), None, "{name}");
            refused_host += 1;
            continue;
        };
        assert!(results.iter().all(|result| *result.as_ref().unwrap()), "{name}");
        let octets = memcached.get(&cn.resolver_key()).unwrap();
        assert_eq!(octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>(), hex, "{name}");
        // Flags 0, no expiry, as many octets.
        let meta = memcached.ask(&format!("mg {} t f s", cn.resolver_key()), "HD");
        assert_eq!(meta, case["memcached"]["meta"].as_str().unwrap(), "{name}");
        assert_eq!(lookup(&mut blocking(memcached.port), cn.as_str()).legacy, hosts, "{name}");
        written += 1;
    }
    assert_eq!((written, refused_cn, refused_host), (6, 4, 1));
}

/// What one of OpenChange's calls says here, in its words.
async fn call(memcached: &Memcached, resolver: &Resolver, call: &[&str]) -> String {
    let (Ok(cn), host) = (Cn::new(call[1]), call.get(2).copied().unwrap_or_default()) else {
        return "refused".to_owned();
    };
    let said = |done: bool, otherwise: &str| if done { "ret=0 (Success)" } else { otherwise }.to_owned();
    match call[0] {
        "resolver_add" => said(resolver.register_legacy(&cn, host).await.unwrap(), "ret=17 (Already Exists)"),
        "resolver_del" => said(resolver.leave_legacy(&cn, host).await.unwrap(), "ret=15 (Not Found)"),
        "resolver_exist" => said(memcached.get(&cn.resolver_key()).is_some(), "ret=15 (Not Found)"),
        "resolver_get" => match resolver.lookup(&cn).await.unwrap().legacy {
            hosts if hosts.is_empty() => "ret=15 (Not Found)".to_owned(),
            hosts => {
                let shown: Vec<String> = hosts.iter().map(|host| format!("[{host}]")).collect();
                format!("count={} {} ret=0 (Success)", hosts.len(), shown.join(" "))
            }
        },
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn calls_on_resolver_records_end_as_in_openchange_where_it_was_right() {
    let memcached = Memcached::start();
    let resolver = connect(memcached.port, 5 * SECOND).await;
    let (mut same, mut other) = (0, 0);
    for case in vectors("api") {
        let name = case["name"].as_str().unwrap();
        let Some(calls) = case["input"].as_array() else { continue };
        memcached.ask("flush_all", "OK");
        let mut results = Vec::new();
        for one in calls {
            let one: Vec<&str> = one.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
            if one.contains(&"NULL") {
                // A null pointer: no such thing here.
                continue;
            }
            results.push(call(&memcached, &resolver, &one).await);
        }
        let results: Vec<&str> = results.iter().map(String::as_str).collect();
        let (ok, absent) = ("ret=0 (Success)", "ret=15 (Not Found)");
        // Where the original compared by prefix, or let a command through.
        let better: &[&str] = match name {
            "api_prefix_add" => &[ok, ok, "count=2 [tcp://h:9005] [tcp://h:90] ret=0 (Success)"],
            "api_prefix_delete_wrong_host" | "api_empty_host_delete_matches_any" => &[ok, ok, absent],
            "api_empty_host_add" => &[ok, ok, "count=2 [tcp://h:9005] [] ret=0 (Success)"],
            "api_cn_crlf_injection" => &[ok, "refused", "refused", "count=1 [tcp://h:9005] ret=0 (Success)"],
            "api_cn_space" => &["refused"; 4],
            "api_null_args" => &[],
            _ => {
                let expected: Vec<&str> =
                    case["results"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
                assert_eq!(results, expected, "{name}");
                same += 1;
                continue;
            }
        };
        assert_eq!(results[..better.len()], *better, "{name}");
        if name.contains("delete") {
            assert!(results[3].starts_with("count=2 "), "{name}: nothing is gone: {results:?}");
        }
        other += 1;
    }
    assert_eq!((same, other), (7, 7));
}

#[tokio::test]
async fn a_lease_expires_in_memcached_itself() {
    let memcached = Memcached::start();
    let resolver = connect(memcached.port, 5 * SECOND).await;
    let (bob, life) = (cn("bob"), |lease| registration("tcp://h:1", 1, lease));
    for (lease, least, most) in [(60 * SECOND, 59, 61), (Resolver::MAX_LEASE, 86_399, 86_401)] {
        resolver.register(&bob, life(lease)).await.unwrap();
        let left: i64 = memcached.ask("mg ocbus:bob t", "HD")[4..].parse().unwrap();
        assert!((least..=most).contains(&left), "{left}");
    }
    // The record lives as long as its longest lease.
    resolver.register(&bob, life(30 * SECOND)).await.unwrap();
    resolver.register(&bob, registration("tcp://h:2", 2, 120 * SECOND)).await.unwrap();
    resolver.register(&bob, life(10 * SECOND)).await.unwrap();
    let left: i64 = memcached.ask("mg ocbus:bob t", "HD")[4..].parse().unwrap();
    assert!((119..=121).contains(&left), "{left}");
    for wrong in [Duration::ZERO, Duration::from_millis(999), Resolver::MAX_LEASE + SECOND] {
        assert!(matches!(resolver.register(&bob, life(wrong)).await, Err(ResolverError::Lease(_))));
    }

    let short = cn("short");
    resolver.register(&short, life(SECOND)).await.unwrap();
    assert_eq!(resolver.lookup(&short).await.unwrap().native.len(), 1);
    poll_until("the lease has ended", || lookup(&mut blocking(memcached.port), "short").is_empty());
    poll_until("memcached has dropped the record", || memcached.get("ocbus:short").is_none());

    resolver.plant(Uuid::from_u128(1)).await.unwrap();
    let canary = format!("ocbus-canary:{}", Uuid::from_u128(1));
    let left: i64 = memcached.ask(&format!("mg {canary} t"), "HD")[4..].parse().unwrap();
    assert!((599..=601).contains(&left), "{left}");
}

#[tokio::test]
async fn garbage_is_told_skipped_and_replaced() {
    let memcached = Memcached::start();
    let resolver = connect(memcached.port, 5 * SECOND).await;
    let mut plugin = blocking(memcached.port);
    let bob = cn("bob");
    let good = LeaseRecord::new(vec![Lease {
        endpoint: "tcp://h:1".into(),
        subscriber: Uuid::from_u128(1),
        until_ms: u64::MAX,
        legacy: None,
        missed: 0,
    }]);
    let good = good.encode().unwrap();
    let trailing = [&good[..], b"x"].concat();
    let garbage: [&[u8]; 5] = [b"garbage", b"\xc1", b"\x00", b"END\r\nVA 0\r\n", &trailing];
    for garbage in garbage {
        memcached.set("ocbus:bob", garbage);
        memcached.set("resolver:bob", b"\x01\x01\0\0\0\x01\0\0\0tcp://h:2\0");
        let seen = lookup(&mut plugin, "bob");
        assert_eq!(seen, resolver.lookup(&bob).await.unwrap());
        assert_eq!((seen.native.len(), &*seen.legacy), (0, &["tcp://h:2".to_owned()][..]), "{garbage:02x?}");
        assert_eq!(seen.malformed.len(), 1);
        assert_eq!(seen.malformed[0].key, "ocbus:bob");
        assert!(resolver.register(&bob, registration("tcp://h:3", 3, 60 * SECOND)).await.unwrap().new);
        let seen = lookup(&mut plugin, "bob");
        assert_eq!((endpoints(&seen.native), seen.malformed.len()), (vec!["tcp://h:3"], 0));
    }
    memcached.set("ocbus:bob", &good);
    for garbage in [&b"garbage"[..], b"\x02\0", b"\x01\xff\xff\xff\xff\xff\xff\xff\xff", b"\0\0\0"] {
        memcached.set("resolver:bob", garbage);
        let seen = lookup(&mut plugin, "bob");
        assert_eq!((endpoints(&seen.native), seen.legacy.len()), (vec!["tcp://h:1"], 0), "{garbage:02x?}");
        assert_eq!(seen.malformed[0].key, "resolver:bob");
        assert!(resolver.register_legacy(&bob, "tcp://h:4").await.unwrap());
        assert_eq!(lookup(&mut plugin, "bob").legacy, ["tcp://h:4"]);
    }
    // A newer ocbus's record is not ours to replace.
    memcached.set("ocbus:bob", b"\x82\xa1v\x02\xa2ls\xa3new");
    assert!(lookup(&mut plugin, "bob").malformed[0].why.contains("version 2"));
    let refused = resolver.register(&bob, registration("tcp://h:3", 3, 60 * SECOND)).await.unwrap_err();
    assert!(matches!(refused, ResolverError::Record { .. }), "{refused}");
    assert_eq!(memcached.get("ocbus:bob").unwrap(), b"\x82\xa1v\x02\xa2ls\xa3new");
}

/// Two users who must not be taken for each other.
async fn two_users(memcached: &Memcached) {
    let resolver = connect(memcached.port, 5 * SECOND).await;
    for name in ["ann", "bob"] {
        assert!(resolver.register_legacy(&cn(name), &format!("tcp://{name}:1")).await.unwrap());
    }
}

/// Whether one of the times is within 50 ms of the deadline and none before it. (The machine is shared: others
/// may be late for reasons of their own.)
fn assert_costs_the_deadline(times: &[Duration], deadline: Duration) {
    println!("deadline {deadline:?}: {times:?}");
    assert!(times.iter().all(|time| *time >= deadline - Duration::from_millis(2)), "{times:?}");
    assert!(times.iter().min().unwrap() < &(deadline + Duration::from_millis(50)), "{times:?}");
}

#[tokio::test]
async fn a_stopped_memcached_costs_a_blocking_caller_its_deadline() {
    let memcached = Memcached::start();
    two_users(&memcached).await;
    let mut plugin = blocking(memcached.port);
    for (kept, millis) in [(true, 50), (false, 50), (true, 200)] {
        let deadline = Duration::from_millis(millis);
        let mut times = Vec::new();
        for _ in 0..3 {
            if kept {
                assert_eq!(lookup(&mut plugin, "bob").legacy, ["tcp://bob:1"]);
            } else {
                plugin = blocking(memcached.port);
            }
            memcached.stop();
            let start = Instant::now();
            let error = plugin.lookup(&cn("ann"), start + deadline).unwrap_err();
            times.push(start.elapsed());
            assert!(matches!(error, ResolverError::Deadline { .. }), "{error}");
            memcached.go_on();
            // The answer about ann is on its way now: nobody may take it for bob's.
            assert_eq!(lookup(&mut plugin, "bob").legacy, ["tcp://bob:1"]);
            assert_eq!(lookup(&mut plugin, "ann").legacy, ["tcp://ann:1"]);
        }
        assert_costs_the_deadline(&times, deadline);
    }
    let spent = plugin.lookup(&cn("ann"), Instant::now());
    assert!(matches!(spent, Err(ResolverError::Deadline { .. })), "no time is no time");
    assert_eq!(lookup(&mut plugin, "bob").legacy, ["tcp://bob:1"]);
}

#[tokio::test]
async fn a_stopped_memcached_costs_a_task_its_deadline() {
    let memcached = Memcached::start();
    two_users(&memcached).await;
    let deadline = Duration::from_millis(100);
    let resolver = connect(memcached.port, deadline).await;
    let mut times = Vec::new();
    for _ in 0..3 {
        memcached.stop();
        let start = Instant::now();
        let (ann, bob) = (cn("ann"), cn("bob"));
        let (first, second) = tokio::join!(resolver.lookup(&ann), resolver.lookup(&bob));
        times.push(start.elapsed());
        for result in [first, second] {
            assert!(matches!(result, Err(ResolverError::Deadline { .. })), "{result:?}");
        }
        memcached.go_on();
        let again = connect(memcached.port, 5 * SECOND).await;
        for _ in 0..20 {
            assert_eq!(again.lookup(&bob).await.unwrap().legacy, ["tcp://bob:1"]);
        }
        // The one that was cut off, too, and never out of step.
        let mut right = 0;
        for _ in 0..20 {
            for (cn, host) in [(&bob, "tcp://bob:1"), (&ann, "tcp://ann:1")] {
                if let Ok(found) = resolver.lookup(cn).await {
                    assert_eq!(found.legacy, [host]);
                    right += 1;
                }
            }
        }
        assert!(right >= 36, "{right}");
    }
    assert_costs_the_deadline(&times, deadline);
}

#[tokio::test]
async fn a_memcached_that_is_gone_is_told_at_once_and_found_when_it_is_back() {
    let mut memcached = Memcached::start();
    two_users(&memcached).await;
    let resolver = connect(memcached.port, 5 * SECOND).await;
    let mut plugin = blocking(memcached.port);
    let bob = cn("bob");
    let me = Uuid::from_u128(7);
    resolver.plant(me).await.unwrap();
    assert!(resolver.remembers(me).await.unwrap());
    assert!(!resolver.remembers(Uuid::from_u128(8)).await.unwrap());
    assert_eq!(lookup(&mut plugin, "bob").legacy, ["tcp://bob:1"]);

    memcached.kill();
    let start = Instant::now();
    for _ in 0..2 {
        let error = plugin.lookup(&bob, start + 5 * SECOND).unwrap_err();
        assert!(matches!(error, ResolverError::Memcached { .. }), "{error}");
        assert!(resolver.lookup(&bob).await.is_err());
    }
    assert!(start.elapsed() < 2 * SECOND, "{:?}", start.elapsed());

    memcached.restart();
    assert!(lookup(&mut plugin, "bob").is_empty(), "a connection of before the restart is dialled again");
    assert!(resolver.lookup(&bob).await.unwrap().is_empty());
    assert!(!resolver.remembers(me).await.unwrap(), "it has forgotten, and the subscriber can tell");
    assert!(resolver.register(&bob, registration("tcp://h:1", 7, 60 * SECOND)).await.unwrap().new);
    assert_eq!(lookup(&mut plugin, "bob").native.len(), 1);
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closed_is_dialled_again() {
    // Answers one look-up on each connection, then closes it.
    let dialled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&dialled);
    let fake = FakeServer::start(move |mut peer| {
        count.fetch_add(1, SeqCst);
        let asked = [peer.line(), peer.line()];
        if asked.iter().all(|line| line.starts_with("mg ")) {
            let head = format!("EN{}\r\nVA 26 c5{}\r\n", opaque(&asked[0]), opaque(&asked[1]));
            peer.send(&[head.as_bytes(), b"\x01\x01\0\0\0\x01\0\0\0tcp://host1:9005\0\r\n"].concat());
        }
    });
    let mut plugin = blocking(fake.port);
    for round in 1..=5 {
        assert_eq!(lookup(&mut plugin, "bob").legacy, ["tcp://host1:9005"]);
        assert_eq!(dialled.load(SeqCst), round);
    }
    let resolver = connect(fake.port, 5 * SECOND).await;
    for _ in 0..5 {
        assert_eq!(resolver.lookup(&cn("bob")).await.unwrap().legacy, ["tcp://host1:9005"]);
    }
    // A server that never answers well is given up, not dialled for ever.
    let dialled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&dialled);
    let fake = FakeServer::start(move |mut peer| {
        count.fetch_add(1, SeqCst);
        peer.line();
    });
    let mut plugin = blocking(fake.port);
    assert!(plugin.lookup(&cn("bob"), Instant::now() + 5 * SECOND).is_err());
    assert_eq!(dialled.load(SeqCst), 1);
}

#[tokio::test]
async fn nonsense_from_the_server_is_an_error_and_ends_the_connection() {
    let nonsense: [&[u8]; 9] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"ERROR\r\nERROR\r\n",
        b"SERVER_ERROR out of memory\r\nEN\r\n",
        b"VA\r\nEN\r\n",
        b"VA x c1\r\nEN\r\n",
        b"VA -1 c1\r\nEN\r\n",
        b"VA 3\r\nabc\r\nEN\r\n",
        b"VA 3 c1\r\nabcdef\r\nEN\r\n",
        b"HD\r\nHD\r\n",
    ];
    for answer in nonsense {
        let fake = FakeServer::start(move |mut peer| {
            peer.line();
            peer.line();
            peer.send(answer);
        });
        let mut plugin = blocking(fake.port);
        let result = plugin.lookup(&cn("bob"), Instant::now() + 5 * SECOND);
        assert!(result.is_err(), "{}: {result:?}", answer.escape_ascii());
        let resolver = connect(fake.port, 5 * SECOND).await;
        let result = resolver.lookup(&cn("bob")).await;
        assert!(result.is_err(), "{}: {result:?}", answer.escape_ascii());
    }
}

#[tokio::test]
async fn nothing_that_a_user_is_called_becomes_a_command() {
    let memcached = Memcached::start();
    let resolver = connect(memcached.port, 5 * SECOND).await;
    memcached.set("mark", b"1");
    let before = memcached.stats();
    let long = "c".repeat(300);
    for bad in [
        "foo bar",
        "x\r\nflush_all",
        "x\r\nflush_all\r\n",
        "x\nflush_all",
        "x\0",
        " ",
        "",
        "x\t",
        &long,
        &long[..242],
    ] {
        assert!(Cn::new(bad).is_err(), "{bad:?}");
    }
    let after = memcached.stats();
    assert_eq!(after["cmd_get"], before["cmd_get"], "nothing of it reached memcached");

    // What an endpoint is called is data, whatever it is.
    let bob = cn("bob");
    let evil = "tcp://h:1\r\nflush_all\r\n";
    assert!(resolver.register_legacy(&bob, evil).await.unwrap());
    assert!(resolver.register(&bob, registration(evil, 1, 60 * SECOND)).await.unwrap().new);
    let seen = lookup(&mut blocking(memcached.port), "bob");
    assert_eq!((endpoints(&seen.native), &*seen.legacy), (vec![evil], &[evil.to_owned()][..]));
    assert!(resolver.leave_legacy(&bob, evil).await.unwrap());
    // The longest cn, and names beyond ASCII.
    let umlauts = "ü".repeat(120);
    for name in [&long[..241], &umlauts, "jürgen", "Юзер@почта.рф", "a\u{200b}b", "a,b;c\"d'e\\f/g%h"]
    {
        let cn = cn(name);
        assert!(resolver.register_legacy(&cn, "tcp://h:1").await.unwrap(), "{name}");
        assert!(
            resolver.register(&cn, registration("tcp://h:1", 1, 60 * SECOND)).await.unwrap().new,
            "{name}"
        );
        let seen = lookup(&mut blocking(memcached.port), name);
        assert_eq!((seen.native.len(), seen.legacy.len()), (1, 1), "{name}");
        assert_eq!(seen, resolver.lookup(&cn).await.unwrap());
        assert!(memcached.get(&cn.resolver_key()).is_some(), "{name}: under its own key");
    }
    assert_eq!(memcached.get("mark").as_deref(), Some(&b"1"[..]));
    assert_eq!(memcached.stats()["cmd_flush"], 0);
}

#[test]
fn a_server_that_claims_gigabytes_gets_no_memory_for_them() {
    for claim in
        ["VA 1073741824 c1\r\n", "VA 1048577 c1\r\n", "VA 18446744073709551615 c1\r\n", "VA x c1\r\n"]
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(claim.as_bytes()).unwrap();
            // Until the other side has had enough.
            stream.read_to_end(&mut Vec::new()).ok();
        });
        let begun = Instant::now();
        let error = blocking(port).lookup(&cn("bob"), begun + 5 * SECOND).unwrap_err();
        assert!(error.is_outage() && !error.is_timeout(), "{error}");
        assert!(begun.elapsed() < 4 * SECOND);
        server.join().unwrap();
    }
}
