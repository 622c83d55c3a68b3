//! The resolvers against a real memcached, one for each test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "memcached/failures.rs"]
mod failures;
#[path = "memcached/many.rs"]
mod many;
#[path = "memcached/openchange.rs"]
mod openchange;
#[path = "memcached/restart.rs"]
mod restart;
#[path = "memcached/server.rs"]
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use ocbus_resolver::{
    BlockingResolver, Canary, Cn, Config, Listeners, MemoryStore, Registered, Registration, Resolver,
    ResolverError, Settlement,
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

#[tokio::test]
async fn both_records_come_in_one_round_trip() {
    // A memcached that answers nothing until it has both questions: who asks one after the other, waits for ever.
    let fake = FakeServer::start(|mut peer| {
        let asked = [peer.line(), peer.line()];
        assert!(asked.iter().all(|line| line.starts_with("mg ")), "{asked:?}");
        peer.send(b"EN\r\nEN\r\n");
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

    resolver.plant(&mut Canary::new(Uuid::from_u128(1))).await.unwrap();
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
