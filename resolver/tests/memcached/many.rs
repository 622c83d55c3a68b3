//! Many users in one call.

use super::*;

#[tokio::test]
async fn many_are_answered_in_their_order_and_by_themselves() {
    let memcached = Memcached::start();
    let resolver = connect(memcached.port, 5 * SECOND).await;
    // More than go into one round trip.
    let users: Vec<Cn> = (0..700).map(|n| cn(&format!("user{n}"))).collect();
    let names: Vec<String> = (0..700).map(|n| format!("tcp://h:{n}")).collect();
    let here = |n: usize| registration(&names[n], 1, 60 * SECOND);
    let some: Vec<(&Cn, Registration<'_>)> = (0..700).step_by(2).map(|n| (&users[n], here(n))).collect();
    let registered = resolver.register_many(&some).await;
    assert_eq!(registered.len(), 350);
    assert!(registered.into_iter().all(|one| one.unwrap() == Registered { new: true, missed: 0 }));
    memcached.set("ocbus:user4", b"garbage");
    // A newer ocbus's record is not ours to replace.
    memcached.set("ocbus:user6", b"\x82\xa1v\x02\xa2ls\xa3new");
    memcached.ask("delete ocbus:user8", "DELETED");

    let found = resolver.lookup_many(&users).await;
    assert_eq!(found.len(), 700);
    for (n, found) in found.into_iter().enumerate() {
        let found = found.unwrap();
        let lasting = n % 2 == 0 && ![4, 6, 8].contains(&n);
        assert_eq!(endpoints(&found.native), if lasting { vec![names[n].as_str()] } else { Vec::new() });
        assert_eq!(found.malformed.len(), usize::from([4, 6].contains(&n)));
    }
    let again = resolver.register_many(&some).await;
    for (at, again) in again.into_iter().enumerate() {
        match (2 * at, again) {
            (4 | 8, again) => assert!(again.unwrap().new),
            (6, again) => assert!(matches!(again, Err(ResolverError::Record { .. }))),
            (_, again) => assert!(!again.unwrap().new),
        }
    }
    let too_long =
        [(&users[0], registration("tcp://h:1", 1, Resolver::MAX_LEASE + SECOND)), (&users[1], here(1))];
    let outcomes = resolver.register_many(&too_long).await;
    assert!(matches!(outcomes[0], Err(ResolverError::Lease(_))) && outcomes[1].as_ref().unwrap().new);

    let legacy: Vec<(&Cn, &str)> = users.iter().zip(names.iter().map(String::as_str)).collect();
    assert!(resolver.register_legacy_many(&legacy).await.into_iter().all(Result::unwrap));
    assert!(!resolver.register_legacy_many(&legacy).await.into_iter().any(Result::unwrap));
    assert!(resolver.lookup_many(&[]).await.is_empty());
}

#[tokio::test]
async fn many_cost_few_round_trips() {
    // Whoever asks for less than all at once, waits for ever.
    let fake = FakeServer::start(|mut peer| {
        for _ in 0..2 {
            for _ in 0..200 {
                assert!(peer.line().starts_with("mg "));
            }
            peer.send("EN\r\n".repeat(200).as_bytes());
        }
        peer.wait_for_end();
    });
    let resolver = connect(fake.port, 5 * SECOND).await;
    let users: Vec<Cn> = (0..100).map(|n| cn(&format!("user{n}"))).collect();
    for _ in 0..2 {
        assert!(resolver.lookup_many(&users).await.into_iter().all(|found| found.unwrap().is_empty()));
    }
}

#[tokio::test]
async fn many_fail_together_within_one_deadline_and_keep_what_was_answered() {
    let fake = FakeServer::start(|mut peer| {
        for _ in 0..20 {
            peer.line();
        }
        // Three users are answered, the fourth by half.
        peer.send("EN\r\n".repeat(7).as_bytes());
        peer.wait_for_end();
    });
    let resolver = connect(fake.port, Duration::from_millis(200)).await;
    let users: Vec<Cn> = (0..10).map(|n| cn(&format!("user{n}"))).collect();
    let begun = Instant::now();
    let found = resolver.lookup_many(&users).await;
    assert!(begun.elapsed() < SECOND);
    assert!(found[..3].iter().all(|found| found.as_ref().unwrap().is_empty()));
    assert!(found[3..].iter().all(|found| found.as_ref().unwrap_err().is_timeout()), "{found:?}");

    let mut memcached = Memcached::start();
    let resolver = connect(memcached.port, 5 * SECOND).await;
    memcached.kill();
    let found = resolver.lookup_many(&users).await;
    assert_eq!(found.len(), 10);
    assert!(found.iter().all(|found| found.as_ref().unwrap_err().is_outage()), "{found:?}");
}

/// Writers of the same records, each with many in one call.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_addition_of_eight_writers_of_many_records_is_lost() {
    let memcached = Memcached::start();
    let users: Arc<Vec<Cn>> = Arc::new((0..20).map(|n| cn(&format!("user{n}"))).collect());
    let mut writers = Vec::new();
    for writer in 0..8 {
        let (resolver, users) = (connect(memcached.port, 10 * SECOND).await, Arc::clone(&users));
        writers.push(tokio::spawn(async move {
            for n in 0..10 {
                let endpoint = format!("tcp://h{writer}:{n}");
                let here = registration(&endpoint, 1, 600 * SECOND);
                let all: Vec<_> = users.iter().map(|user| (user, here)).collect();
                assert!(resolver.register_many(&all).await.into_iter().all(|one| one.unwrap().new));
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(memcached.stats()["cas_badval"] > 0, "nobody was in anybody's way");
    for user in users.iter() {
        let found = lookup(&mut blocking(memcached.port), user.as_str());
        assert_eq!(found.native.len(), 80);
    }
}

#[tokio::test]
async fn users_are_parted_into_round_trips() {
    let memcached = Memcached::start();
    let users: Vec<Cn> = (0..600).map(|n| cn(&format!("user{n}"))).collect();
    for resolver in [connect(memcached.port, 5 * SECOND).await, Resolver::in_memory(MemoryStore::new())] {
        let parts = resolver.round_trips(users.clone());
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [256, 256, 88]);
        assert_eq!(parts.concat(), users);
        assert!(resolver.round_trips(Vec::new()).is_empty());
    }
}
