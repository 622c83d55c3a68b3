//! Copies of records on the servers behind their own.

use ocbus_resolver::Settlement;

use super::*;

#[tokio::test]
async fn copies_are_written_and_read_when_their_server_is_gone() {
    let mut three = Three::start(" --BINARY-PROTOCOL --NUMBER-OF-REPLICAS=1");
    let resolver = connect(&three.config, LIMIT).await;
    let mut plugin = blocking(&three.config);
    let user = three.users[1][0].clone();
    resolver.register(&user, registration("tcp://h:1")).await.unwrap();
    resolver.register_legacy(&user, "tcp://h:2").await.unwrap();
    let held = |three: &Three| -> Vec<bool> {
        three.servers.iter().map(|server| server.get(&user.lease_key()).is_some()).collect()
    };
    assert_eq!(held(&three), [false, true, true], "the copy is on the server behind");
    assert!(resolver.leave(&user, "tcp://h:1", Uuid::from_u128(1)).await.unwrap());
    assert_eq!(held(&three), [false, false, false]);
    resolver.register(&user, registration("tcp://h:1")).await.unwrap();
    // The plugin's writes go there, too.
    let settlement = Settlement { gone_legacy: vec!["tcp://h:2".to_owned()], ..Settlement::default() };
    plugin.settle(&user, &settlement, Instant::now() + 5 * SECOND).unwrap();
    assert!(three.servers[2].get(&user.resolver_key()).is_none());

    three.servers[1].kill();
    assert_eq!(lookup(&mut plugin, &user).native.len(), 1, "from the copy");
    assert_eq!(resolver.lookup(&user).await.unwrap().native.len(), 1);
    let error = resolver.register(&user, registration("tcp://h:3")).await.unwrap_err();
    assert!(error.is_one_server(), "what is written is never made of a copy: {error}");
}

#[tokio::test]
async fn a_copy_is_read_in_time_where_its_server_hangs() {
    let three = Three::start(" --BINARY-PROTOCOL --NUMBER-OF-REPLICAS=1");
    let resolver = connect(&three.config, LIMIT).await;
    let mut plugin = blocking(&three.config);
    let user = three.users[1][0].clone();
    resolver.register(&user, registration("tcp://h:1")).await.unwrap();
    three.servers[1].stop();
    let found = plugin.lookup(&user, Instant::now() + LIMIT).unwrap();
    assert_eq!(found.native.len(), 1, "within the deadline of one call");
    assert_eq!(resolver.lookup(&user).await.unwrap().native.len(), 1);
}

/// Keys that each server was asked for since.
fn asked(three: &Three, before: &[u64]) -> Vec<u64> {
    let now = three.servers.iter().map(|server| server.stats()["cmd_get"]);
    now.zip(before).map(|(now, before)| now - before).collect()
}

#[tokio::test]
async fn any_copy_is_read_where_it_is_asked_for() {
    const LOOKUPS: u64 = 100;
    let replicas = " --BINARY-PROTOCOL --NUMBER-OF-REPLICAS=2";
    for (options, spread) in [("", false), (" --RANDOMIZE-REPLICA-READ", true)] {
        let mut three = Three::start(&format!("{replicas}{options}"));
        let resolver = connect(&three.config, 5 * SECOND).await;
        let mut plugin = blocking(&three.config);
        let user = three.users[1][0].clone();
        resolver.register(&user, registration("tcp://h:1")).await.unwrap();
        // Else the record itself is asked for what the copies lack.
        resolver.register_legacy(&user, "tcp://h:2").await.unwrap();
        for by_plugin in [true, false] {
            let before = asked(&three, &[0; 3]);
            for _ in 0..LOOKUPS {
                let found = match by_plugin {
                    true => lookup(&mut plugin, &user),
                    false => resolver.lookup(&user).await.unwrap(),
                };
                assert_eq!(found.native.len(), 1);
            }
            let asked = asked(&three, &before);
            assert_eq!(asked.iter().sum::<u64>(), 2 * LOOKUPS, "two keys, of one server: {asked:?}");
            match spread {
                // Each a third; a fifth at least, but once in thousands of runs.
                true => assert!(asked.iter().all(|asked| *asked > 2 * LOOKUPS / 5 / 2), "{asked:?}"),
                false => assert_eq!(asked, [0, 2 * LOOKUPS, 0]),
            }
        }
        // A copy that forgot is not believed, and what is written is not made of it.
        three.servers[2].restart();
        for _ in 0..20 {
            assert_eq!(lookup(&mut plugin, &user).native.len(), 1);
            let found = resolver.lookup_many(std::slice::from_ref(&user)).await.remove(0).unwrap();
            assert_eq!(found.native.len(), 1);
        }
        let again = resolver.register(&user, registration("tcp://h:1")).await.unwrap();
        assert!(!again.new, "it reads the record itself");
        assert!(three.servers[2].get(&user.lease_key()).is_some(), "and writes the copies");
    }
}

/// Both kinds of endpoint of a user, each looked up often enough to meet every copy.
async fn assert_all_found(three: &Three, user: &Cn, what: &str) {
    let resolver = connect(&three.config, 5 * SECOND).await;
    let mut plugin = blocking(&three.config);
    for _ in 0..40 {
        for found in [lookup(&mut plugin, user), resolver.lookup(user).await.unwrap()] {
            assert_eq!((found.native.len(), found.legacy.len()), (1, 1), "{what}: {found:?}");
        }
    }
}

#[tokio::test]
async fn a_copy_that_lacks_one_of_both_records_is_not_believed_and_gets_it_back() {
    let replicas = " --BINARY-PROTOCOL --NUMBER-OF-REPLICAS=1";
    for options in ["", " --RANDOMIZE-REPLICA-READ"] {
        let mut three = Three::start(&format!("{replicas}{options}"));
        let user = three.users[1][0].clone();
        let resolver = connect(&three.config, 5 * SECOND).await;
        resolver.register(&user, registration("tcp://h:1")).await.unwrap();
        resolver.register_legacy(&user, "tcp://h:2").await.unwrap();
        assert_all_found(&three, &user, "registered").await;

        three.servers[2].ask("flush_all", "OK");
        resolver.register(&user, registration("tcp://h:1")).await.unwrap();
        assert!(three.servers[2].get(&user.resolver_key()).is_none(), "else this shows nothing");
        assert_all_found(&three, &user, "one of both is renewed").await;

        // As a subscriber renews.
        let added = resolver.register_legacy_many(&[(&user, "tcp://h:2")]).await.remove(0).unwrap();
        assert!(!added, "the record itself was as it should be");
        let copy = three.servers[2].get(&user.resolver_key());
        assert!(copy.is_some() && copy == three.servers[1].get(&user.resolver_key()));
        three.servers[1].kill();
        assert_all_found(&three, &user, "the copy alone").await;
    }
}

#[tokio::test]
async fn a_removal_that_a_copy_missed_is_made_up_for() {
    let three = Three::start(" --BINARY-PROTOCOL --NUMBER-OF-REPLICAS=1 --RANDOMIZE-REPLICA-READ");
    let user = three.users[1][0].clone();
    let resolver = connect(&three.config, 5 * SECOND).await;
    let mut plugin = blocking(&three.config);
    for (by_plugin, others) in [(true, false), (false, false), (true, true), (false, true)] {
        resolver.register_legacy(&user, "tcp://dead:1").await.unwrap();
        if others {
            resolver.register_legacy(&user, "tcp://h:2").await.unwrap();
        }
        let stale = three.servers[2].get(&user.resolver_key()).unwrap();
        resolver.leave_legacy(&user, "tcp://dead:1").await.unwrap();
        three.servers[2].set(&user.resolver_key(), &stale);
        // Whoever looks it up there is refused, and removes it.
        let settlement = Settlement { gone_legacy: vec!["tcp://dead:1".to_owned()], ..Settlement::default() };
        match by_plugin {
            true => plugin.settle(&user, &settlement, Instant::now() + 5 * SECOND).unwrap(),
            false => resolver.settle(&user, &settlement).await.unwrap(),
        }
        let copy = three.servers[2].get(&user.resolver_key());
        assert!(copy.as_ref() != Some(&stale) && copy == three.servers[1].get(&user.resolver_key()));
        assert_eq!(copy.is_some(), others);
        resolver.leave_legacy(&user, "tcp://h:2").await.unwrap();
    }
}
