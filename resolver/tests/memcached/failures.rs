//! A memcached that hangs, is gone, hangs up, or talks nonsense.

use super::*;

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
    let mut me = Canary::new(Uuid::from_u128(7));
    resolver.plant(&mut me).await.unwrap();
    assert!(resolver.remembers(&mut me).await.unwrap());
    assert!(!resolver.remembers(&mut Canary::new(Uuid::from_u128(8))).await.unwrap());
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
    assert!(!resolver.remembers(&mut me).await.unwrap(), "it has forgotten, and the subscriber can tell");
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
            let head = "EN\r\nVA 26 c5\r\n";
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
