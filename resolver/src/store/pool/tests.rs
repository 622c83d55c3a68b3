//! The choice of servers and their health, in virtual time.

use std::collections::BTreeSet;

use super::*;
use crate::update::Version;

fn pool(options: &str) -> Pool {
    let servers = "--SERVER=one.example --SERVER=two.example --SERVER=three.example";
    Pool::new(&format!("{servers}{options}").parse().unwrap()).unwrap()
}

fn refused() -> Result<(), ResolverError> {
    let source = memcache::exp::Error::Io(std::io::ErrorKind::ConnectionRefused.into());
    Err(ResolverError::Memcached { server: "x".to_owned(), source })
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn both_records_of_a_user_have_one_place() {
    let (pool, now) = (pool(""), Instant::now());
    let mut used = BTreeSet::new();
    for n in 0..100 {
        let cn = Cn::new(&format!("user{n}")).unwrap();
        let place = pool.home(&cn.resolver_key(), now);
        assert_eq!(pool.home(&cn.lease_key(), now), place);
        assert_eq!(place, pool.all.index(cn.resolver_key().as_bytes()), "OpenChange's place");
        used.insert(place);
    }
    assert_eq!(used.len(), 3);
}

#[test]
fn a_failed_server_is_left_alone_then_tried_by_one() {
    let (pool, start) = (pool(""), Instant::now());
    pool.admit(1, start).unwrap();
    let error = pool.note(1, start, start, refused()).unwrap_err();
    assert!(error.is_one_server() && !error.is_outage(), "{error}");
    let error = pool.admit(1, start + SECOND).unwrap_err();
    assert!(error.is_one_server() && error.to_string().contains("two.example"), "{error}");
    pool.admit(0, start + SECOND).unwrap();
    let later = start + 2 * SECOND;
    pool.admit(1, later).unwrap();
    assert!(pool.admit(1, later).is_err(), "one tries, the others wait for what it finds");
    pool.note(1, later, later, Ok(())).unwrap();
    pool.admit(1, later).unwrap();
    pool.admit(1, later).unwrap();
}

#[test]
fn all_down_is_an_outage_and_a_hasty_caller_proves_nothing() {
    let (pool, now) = (pool(""), Instant::now());
    for index in 0..3 {
        let timed_out = Err::<(), _>(ResolverError::Deadline { server: String::new() });
        pool.note(index, now, now + PATIENCE / 2, timed_out).unwrap_err();
        pool.admit(index, now).unwrap();
    }
    for index in 0..2 {
        assert!(!pool.note(index, now, now, refused()).unwrap_err().is_outage());
    }
    assert!(pool.note(2, now, now, refused()).unwrap_err().is_outage());
    assert!(pool.admit(0, now).unwrap_err().is_outage());
}

#[test]
#[cfg(feature = "tokio")]
fn every_return_is_counted_whoever_finds_it_out() {
    for (options, wait) in [("", 2 * SECOND), (" --RETRY-TIMEOUT=0", Duration::ZERO)] {
        let (pool, start) = (pool(options), Instant::now());
        pool.note(1, start, start, Ok(())).unwrap();
        assert_eq!(pool.returns(1), 0, "it was never away");
        for returns in 1..3 {
            pool.note(1, start, start, refused()).unwrap_err();
            assert!(pool.down(1, start + wait).is_some(), "until it has answered");
            pool.admit(1, start + wait).unwrap();
            pool.note(1, start + wait, start + wait, Ok(())).unwrap();
            assert_eq!((pool.returns(1), pool.returns(0)), (returns, 0));
            pool.note(1, start + wait, start + wait, Ok(())).unwrap();
        }
        assert_eq!(pool.returns(1), 2);
    }
}

#[test]
fn a_server_that_refuses_one_request_is_up() {
    let (pool, start) = (pool(""), Instant::now());
    let refuses = || {
        let source = memcache::exp::Error::Server("out of memory storing object".to_owned());
        Err::<(), _>(crate::store::failed(&"two.example", source))
    };
    let error = pool.note(1, start, start, refuses()).unwrap_err();
    assert!(error.is_refused() && !error.is_outage() && !error.is_one_server(), "{error}");
    pool.admit(1, start).unwrap();
    // It is an answer as good as any behind an outage.
    pool.note(1, start, start, refused()).unwrap_err();
    pool.admit(1, start + 2 * SECOND).unwrap();
    pool.note(1, start, start + 2 * SECOND, refuses()).unwrap_err();
    pool.admit(1, start + 2 * SECOND).unwrap();
}

#[test]
fn the_only_server_is_asked_each_time() {
    let (pool, now) = (Pool::new(&Config::default()).unwrap(), Instant::now());
    assert!(pool.note(0, now, now, refused()).unwrap_err().is_outage());
    pool.admit(0, now).unwrap();
}

#[test]
fn keys_of_a_removed_server_move_on_a_ring_and_come_back() {
    let pool = pool(" --DISTRIBUTION=CONSISTENT --REMOVE-FAILED-SERVERS=1");
    let start = Instant::now();
    let keys: Vec<String> = (0..300).map(|n| format!("resolver:user{n}")).collect();
    let places = |now| keys.iter().map(|key| pool.home(key, now)).collect::<Vec<_>>();
    let before = places(start);
    let mut now = start;
    for failure in 1..=Config::SERVER_FAILURE_LIMIT {
        assert_eq!(places(now), before, "in use until the {failure}th failure");
        pool.admit(1, now).unwrap();
        pool.note(1, now, now, refused()).unwrap_err();
        // Whoever was under way at the same time counts for nothing.
        pool.note(1, now, now, refused()).unwrap_err();
        now += 2 * SECOND;
    }
    now -= SECOND;
    let removed = places(now);
    assert!(!removed.contains(&1));
    let left = Selection::without_failed(&pool.config, |index| index != 1).unwrap();
    assert!(keys.iter().zip(&removed).all(|(key, place)| left.index(key.as_bytes()) == *place));
    assert_eq!(places(now + SECOND), before, "to be tried again");
}

/// A subscriber's: its heartbeat asks more often than a retry time is long, and nobody else gets through.
#[test]
#[cfg(feature = "tokio")]
fn failed_probes_count_once_a_retry_time() {
    const BEAT: Duration = Duration::from_millis(500);
    let pool = pool(" --DISTRIBUTION=CONSISTENT --REMOVE-FAILED-SERVERS=1");
    let start = Instant::now();
    let key = (0..).map(|n| format!("resolver:user{n}")).find(|key| pool.home(key, start) == 1).unwrap();
    pool.note(1, start, start, refused()).unwrap_err();
    let mut now = start;
    while pool.home(&key, now) == 1 {
        assert!(now - start <= 8 * SECOND, "the fifth failure at the latest");
        assert!(!pool.is_unsettled(&key, now));
        now += BEAT;
        assert!(pool.admit(1, now).is_err());
        pool.put_off(1, now, now);
    }
    assert_eq!(now - start, 8 * SECOND, "four retry times behind the first");
    assert!(pool.is_unsettled(&key, now), "others count by themselves, and may be a little behind");
    for _ in 0..100 {
        now += BEAT;
        pool.put_off(1, now, now);
        assert_ne!(pool.home(&key, now), 1, "for good, while probes fail");
    }
    assert!(!pool.is_unsettled(&key, now));
    pool.note(1, now, now, Ok(())).unwrap();
    assert_eq!((pool.home(&key, now), pool.is_unsettled(&key, now)), (1, true), "back, perhaps empty");
    assert!(!pool.is_unsettled(&key, now + SETTLING));
    let other = (0..).map(|n| format!("resolver:user{n}")).find(|key| pool.home(key, start) != 1).unwrap();
    assert!(!pool.is_unsettled(&other, now));
}

#[test]
fn a_write_is_bound_to_the_server_of_what_it_read() {
    let pool = pool(" --DISTRIBUTION=CONSISTENT --REMOVE-FAILED-SERVERS=1");
    let start = Instant::now();
    let key = (0..).map(|n| format!("resolver:user{n}")).find(|key| pool.home(key, start) == 1).unwrap();
    let delete =
        |server| Request::Delete { key: key.clone(), version: Some(Version { cas: 1, server, dialled: 1 }) };
    let put = |expect| Request::Put { key: key.clone(), value: Vec::new(), expiry: None, expect };
    let (bound, free) =
        (put(Expect::Version(Version { cas: 1, server: 1, dialled: 1 })), put(Expect::Absent));
    assert_eq!(pool.place(&bound, start), Some(1));
    let mut now = start;
    for _ in 0..Config::SERVER_FAILURE_LIMIT {
        pool.admit(1, now).unwrap();
        pool.note(1, now, now, refused()).unwrap_err();
        now += 2 * SECOND;
    }
    now -= SECOND;
    let other = pool.place(&free, now).unwrap();
    assert_ne!(other, 1);
    assert_eq!((pool.place(&bound, now), pool.place(&delete(1), now)), (None, None), "to be read again");
    assert_eq!(pool.place(&delete(other), now), Some(other));
    assert_eq!(pool.place(&delete(other), now + SECOND), None, "it moves back");
}

#[test]
fn any_copy_is_read_as_the_random_number_says() {
    let order = |options: &str, random| {
        let pool = pool(&format!(" --BINARY-PROTOCOL --NUMBER-OF-REPLICAS=2{options}"));
        let mut reading = pool.reading(1, random);
        std::iter::from_fn(|| {
            let server = reading.next()?;
            reading.note(refused().map(|()| unreachable!()));
            Some(server)
        })
        .collect::<Vec<_>>()
    };
    assert_eq!(order("", 1), [1, 2, 0]);
    let randomize = " --RANDOMIZE-REPLICA-READ";
    assert_eq!((order(randomize, 0), order(randomize, 4)), (vec![1, 2, 0], vec![2, 0, 1]));
    let get = |any_copy| Request::Get { keys: vec!["resolver:bob".to_owned()], any_copy };
    let copied = pool(" --BINARY-PROTOCOL --NUMBER-OF-REPLICAS=2");
    assert!(copied.reads_copies(&get(true)) && !copied.reads_copies(&get(false)));
    assert!(!pool(" --NUMBER-OF-REPLICAS=2").reads_copies(&get(true)));
}

#[test]
fn a_namespace_stands_in_front_and_counts_for_the_length() {
    let pool = pool(" --NAMESPACE=\"site1.\"");
    let get = |key: &str| Request::Get { keys: vec![key.to_owned()], any_copy: false };
    assert_eq!(*pool.on_the_wire(&get("resolver:bob")).unwrap(), get("site1.resolver:bob"));
    assert!(pool.on_the_wire(&get(&"k".repeat(244))).is_ok());
    let error = pool.on_the_wire(&get(&"k".repeat(245))).unwrap_err();
    assert!(!error.is_outage(), "{error}");
}

/// It is no answer of a server's, and nobody's who shares a round trip with it.
#[test]
fn a_key_that_is_too_long_is_found_out_before_it_is_sent() {
    let pool = pool("");
    let delete = |octets| Request::Delete { key: "k".repeat(octets), version: None };
    assert_eq!(*pool.on_the_wire(&delete(250)).unwrap(), delete(250));
    assert_eq!(pool.named(delete(250)).unwrap(), delete(250));
    let get = Request::Get { keys: vec!["k".to_owned(), "k".repeat(251)], any_copy: false };
    for error in [
        pool.on_the_wire(&delete(251)).unwrap_err(),
        pool.named(delete(251)).unwrap_err(),
        pool.on_the_wire(&get).unwrap_err(),
    ] {
        assert!(matches!(error, ResolverError::Unwritable { .. }), "{error}");
        assert!(error.to_string().ends_with("key of 251 octets: expected at most 250"), "{error}");
    }
}

#[test]
fn copies_are_on_the_servers_behind_in_the_binary_protocol_only() {
    assert_eq!(pool(" --NUMBER-OF-REPLICAS=1").copies(0).count(), 0);
    let pool = pool(" --BINARY-PROTOCOL --NUMBER-OF-REPLICAS=5");
    assert_eq!(pool.copies(2).collect::<Vec<_>>(), [0, 1]);
}
