//! Publisher and subscriber over real sockets, with the resolver in memory: what arrives, what a failure means,
//! what a subscriber does about a resolver that forgets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use ocbus::bus::{Bus, Filter, Subscription};
use ocbus::publisher::PublisherConfig;
use ocbus::resolver::delivery::Verdict;
use ocbus::resolver::{Canary, Cn, MemoryStore, Registration, Resolver};
use ocbus::sandbox::faults::{Blackhole, Closer, Garbage, Silent, refused_port};
use ocbus::subscriber::SubscriberConfig;
use ocbus::wire::{Endpoint, NewMessage, ResyncReason};
use ocbus::{Event, EventKind, Mailbox, Publisher, Subscriber};
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(5);

fn cn() -> Cn {
    Cn::new("bob").unwrap()
}

fn new_mail(uid: u32) -> Event {
    let message =
        NewMessage { uid: Some(uid), subject: Some(format!("mail {uid}")), ..NewMessage::default() };
    Event::new(Uuid::now_v7(), 1, "bob", Mailbox::new("INBOX", '/'), EventKind::MessageNew(message))
}

async fn next(subscription: &mut Subscription) -> Arc<Event> {
    tokio::time::timeout(LIMIT, subscription.recv()).await.expect("an event before the deadline").unwrap()
}

fn uid(event: &Event) -> u32 {
    match &event.kind {
        EventKind::MessageNew(message) => message.uid.unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn subscriber(config: SubscriberConfig, store: &MemoryStore) -> (Subscriber, Bus) {
    let bus = Bus::new();
    let resolver = Resolver::in_memory(store.clone());
    (Subscriber::start(config, resolver, bus.clone()).await.unwrap(), bus)
}

fn publisher(store: &MemoryStore, budget: Duration) -> Publisher {
    let config = PublisherConfig { budget, ..PublisherConfig::default() };
    Publisher::new(Resolver::in_memory(store.clone()), config).unwrap()
}

fn legacy_only() -> SubscriberConfig {
    SubscriberConfig {
        bind: None,
        legacy_bind: Some(Endpoint::parse("tcp://127.0.0.1:0").unwrap()),
        ..SubscriberConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn native_events_arrive_whole_in_order_and_acknowledged() {
    let store = MemoryStore::new();
    let (subscriber, bus) = subscriber(SubscriberConfig::default(), &store).await;
    subscriber.add(&cn()).await.unwrap();
    let mut events = bus.subscribe(Filter::user("bob"));
    let publisher = publisher(&store, LIMIT);
    for uid in 1..=100 {
        let sent = new_mail(uid);
        let report = publisher.publish(&cn(), std::slice::from_ref(&sent)).await.unwrap();
        assert_eq!((report.taken(), report.endpoints.len()), (1, 1), "{report:?}");
        assert_eq!(*next(&mut events).await, sent);
    }
    subscriber.stop(LIMIT).await;
    let report = publisher.publish(&cn(), &[new_mail(1)]).await.unwrap();
    assert!(report.endpoints.is_empty(), "a stopped subscriber has left: {report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_publishers_at_once_lose_nothing_and_keep_their_order() {
    let store = MemoryStore::new();
    let (subscriber, bus) = subscriber(SubscriberConfig::default(), &store).await;
    subscriber.add(&cn()).await.unwrap();
    let mut events = bus.subscribe_with_queue(Filter::user("bob"), 4096);
    let publisher = publisher(&store, LIMIT);
    let tasks: Vec<_> = (0..8u32)
        .map(|task| {
            let publisher = publisher.clone();
            tokio::spawn(async move {
                for n in 0..50 {
                    let report = publisher.publish(&cn(), &[new_mail(task * 1000 + n + 1)]).await.unwrap();
                    assert_eq!(report.taken(), 1, "{report:?}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut last = [0; 8];
    for _ in 0..400 {
        let uid = uid(&*next(&mut events).await);
        let task = usize::try_from(uid / 1000).unwrap();
        assert!(uid % 1000 == last[task] + 1, "in order for each publisher");
        last[task] += 1;
    }
    assert!(events.try_recv().is_none());
    let statistics = subscriber.statistics();
    assert_eq!(statistics.events, 400);
    assert!(statistics.batches < 400, "what waits together travels together: {statistics:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_larger_than_a_batch_goes_in_several() {
    let store = MemoryStore::new();
    let (subscriber, bus) = subscriber(SubscriberConfig::default(), &store).await;
    subscriber.add(&cn()).await.unwrap();
    let mut events = bus.subscribe_with_queue(Filter::user("bob"), 4096);
    let sent: Vec<Event> = (1..=2000).map(new_mail).collect();
    let report = publisher(&store, LIMIT).publish(&cn(), &sent).await.unwrap();
    assert_eq!(report.taken(), 1, "{report:?}");
    for event in &sent {
        assert_eq!(*next(&mut events).await, *event);
    }
    assert!(subscriber.statistics().batches > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_events_arrive_with_what_version_1_can_say() {
    let store = MemoryStore::new();
    let (subscriber, bus) = subscriber(legacy_only(), &store).await;
    subscriber.add(&cn()).await.unwrap();
    let mut events = bus.subscribe(Filter::user("bob"));
    let publisher = publisher(&store, LIMIT);
    let mut sent = new_mail(7);
    sent.mailbox = Some(Mailbox {
        list_separator: '.',
        storage_name: "Projekte.Entw&APw-rfe".into(),
        ..Mailbox::new("Projekte/Entwürfe", '/')
    });
    let read = EventKind::MessageRead { uids: [7].into_iter().collect() };
    let seen = Event::new(Uuid::now_v7(), 1, "bob", Mailbox::new("INBOX", '/'), read);
    let report = publisher.publish(&cn(), &[sent, seen]).await.unwrap();
    assert_eq!(report.taken(), 1, "{report:?}");
    let event = next(&mut events).await;
    let mailbox = event.mailbox.as_ref().unwrap();
    assert_eq!((uid(&event), mailbox.name.as_str(), mailbox.separator), (7, "Projekte.Entwürfe", '.'));
    assert!(events.try_recv().is_none(), "what version 1 cannot say is not sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_listens_both_ways_gets_each_event_once() {
    let store = MemoryStore::new();
    let config = SubscriberConfig { legacy_bind: legacy_only().legacy_bind, ..SubscriberConfig::default() };
    let (subscriber, bus) = subscriber(config, &store).await;
    subscriber.add(&cn()).await.unwrap();
    let resolver = Resolver::in_memory(store.clone());
    assert_eq!(resolver.lookup(&cn()).await.unwrap().legacy.len(), 1, "OpenChange's plugin finds it");
    let mut events = bus.subscribe(Filter::user("bob"));
    let report = publisher(&store, LIMIT).publish(&cn(), &[new_mail(1)]).await.unwrap();
    assert!(report.endpoints.len() == 1 && report.endpoints[0].native, "{report:?}");
    next(&mut events).await;
    assert_eq!(subscriber.statistics().legacy_events, 0);
}

/// What stands in for an endpoint, and how it must be judged.
async fn fault(url: String, native: bool) -> (Verdict, Duration, usize, u64) {
    let store = MemoryStore::new();
    let resolver = Resolver::in_memory(store.clone());
    let subscriber = Uuid::now_v7();
    if native {
        let registration =
            Registration { endpoint: &url, legacy: None, subscriber, lease: Duration::from_secs(60) };
        resolver.register(&cn(), registration).await.unwrap();
    } else {
        resolver.register_legacy(&cn(), &url).await.unwrap();
    }
    let begin = std::time::Instant::now();
    let report = publisher(&store, Duration::from_millis(300)).publish(&cn(), &[new_mail(1)]).await.unwrap();
    let took = begin.elapsed();
    assert_eq!(report.taken(), 0, "{report:?}");
    let left = resolver.lookup(&cn()).await.unwrap();
    let missed = left.native.first().map_or(0, |lease| lease.missed);
    (report.endpoints[0].verdict.clone(), took, left.native.len() + left.legacy.len(), missed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_endpoint_is_removed_at_once() {
    for native in [true, false] {
        let (verdict, took, left, _) =
            fault(format!("tcp://127.0.0.1:{}", refused_port().unwrap()), native).await;
        assert!(matches!(verdict, Verdict::Gone { .. }), "{verdict:?}");
        assert!(took < Duration::from_millis(200), "{took:?}");
        assert_eq!(left, 0);
        let (verdict, ..) = fault("ipc:///nonexistent/socket".into(), native).await;
        assert!(matches!(verdict, Verdict::Gone { .. }), "{verdict:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_native_endpoint_keeps_its_lease_and_is_marked() {
    let (blackhole, silent) = (Blackhole::new().unwrap(), Silent::new().unwrap());
    for port in [blackhole.port(), silent.port()] {
        let (verdict, took, left, missed) = fault(format!("tcp://127.0.0.1:{port}"), true).await;
        assert!(matches!(verdict, Verdict::Missed { .. }), "{verdict:?}");
        assert!(took < Duration::from_millis(600), "{took:?}");
        assert_eq!((left, missed), (1, 1));
        let (verdict, _, left, _) = fault(format!("tcp://127.0.0.1:{port}"), false).await;
        assert!(matches!(verdict, Verdict::Dropped { .. }), "{verdict:?}");
        assert_eq!(left, 1, "a silent legacy endpoint may come back, and has no lease");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_are_no_endpoints_are_no_delivery() {
    let (closer, garbage) = (Closer::new().unwrap(), Garbage::new().unwrap());
    for port in [closer.port(), garbage.port()] {
        for native in [true, false] {
            let (verdict, ..) = fault(format!("tcp://127.0.0.1:{port}"), native).await;
            assert!(!matches!(verdict, Verdict::Taken { .. }), "{verdict:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_endpoints_do_not_delay_a_live_one() {
    let store = MemoryStore::new();
    let resolver = Resolver::in_memory(store.clone());
    let blackholes: Vec<Blackhole> = (0..20).map(|_| Blackhole::new().unwrap()).collect();
    for blackhole in &blackholes {
        let url = format!("tcp://127.0.0.1:{}", blackhole.port());
        let registration = Registration {
            endpoint: &url,
            legacy: None,
            subscriber: Uuid::now_v7(),
            lease: Duration::from_secs(60),
        };
        resolver.register(&cn(), registration).await.unwrap();
    }
    let (subscriber, bus) = subscriber(SubscriberConfig::default(), &store).await;
    subscriber.add(&cn()).await.unwrap();
    let mut events = bus.subscribe(Filter::user("bob"));
    let publisher = publisher(&store, Duration::from_millis(500));
    let begin = std::time::Instant::now();
    let publishing = tokio::spawn(async move { publisher.publish(&cn(), &[new_mail(1)]).await });
    next(&mut events).await;
    assert!(begin.elapsed() < Duration::from_millis(450), "{:?}", begin.elapsed());
    let report = publishing.await.unwrap().unwrap();
    assert_eq!((report.taken(), report.endpoints.len()), (1, 21));
    assert!(begin.elapsed() < Duration::from_millis(1000), "one budget, not one after the other");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_passed_to_another_subscriber_is_not_the_users_any_more() {
    let store = MemoryStore::new();
    let (other, bus) = subscriber(SubscriberConfig::default(), &store).await;
    other.add(&Cn::new("alice").unwrap()).await.unwrap();
    let mut events = bus.subscribe(Filter::all());
    let resolver = Resolver::in_memory(store.clone());
    let url = other.endpoint().unwrap().to_string();
    let lease = Duration::from_secs(60);
    let registration = Registration { endpoint: &url, legacy: None, subscriber: Uuid::now_v7(), lease };
    resolver.register(&cn(), registration).await.unwrap();
    let report = publisher(&store, LIMIT).publish(&cn(), &[new_mail(1)]).await.unwrap();
    assert!(matches!(report.endpoints[0].verdict, Verdict::Gone { .. }), "{report:?}");
    assert!(resolver.lookup(&cn()).await.unwrap().is_empty());
    assert!(events.try_recv().is_none(), "bob's mail is none of alice's business");
    assert_eq!(other.statistics().strangers, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_gone_is_not_dialled_until_there_is_something_to_send() {
    for config in [SubscriberConfig::default(), legacy_only()] {
        let native = config.bind.is_some();
        let store = MemoryStore::new();
        let (subscriber, bus) = subscriber(config, &store).await;
        subscriber.add(&cn()).await.unwrap();
        let mut events = bus.subscribe(Filter::user("bob"));
        let publisher = publisher(&store, LIMIT);
        publisher.publish(&cn(), &[new_mail(1)]).await.unwrap();
        next(&mut events).await;
        let found = Resolver::in_memory(store).lookup(&cn()).await.unwrap();
        let url = if native { &found.native[0].endpoint } else { &found.legacy[0] };
        let address = url.strip_prefix("tcp://").unwrap();
        // As if killed: its registration stands, and its connections end.
        drop(subscriber);
        let begun = std::time::Instant::now();
        let listener = loop {
            match std::net::TcpListener::bind(address) {
                Ok(listener) => break listener,
                Err(error) => assert!(begun.elapsed() < LIMIT, "{error}"),
            }
            tokio::task::yield_now().await;
        };
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        // nng itself tries ten times a second; it may have begun once before its socket was closed.
        let mut dialled = 0;
        let quiet = async {
            while listener.accept().await.is_ok() {
                dialled += 1;
            }
        };
        assert!(tokio::time::timeout(Duration::from_millis(600), quiet).await.is_err());
        assert!(dialled <= 1, "native: {native}; dialled {dialled} times");
        let report = tokio::spawn(async move { publisher.publish(&cn(), &[new_mail(2)]).await });
        tokio::time::timeout(LIMIT, listener.accept()).await.expect("dialled for the next mail").unwrap();
        drop(listener);
        report.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_is_told_by_a_resync_at_the_next_renewal() {
    let store = MemoryStore::new();
    let config = SubscriberConfig { lease: Duration::from_secs(1), ..SubscriberConfig::default() };
    let (subscriber, bus) = subscriber(config, &store).await;
    subscriber.add(&cn()).await.unwrap();
    let mut events = bus.subscribe(Filter::user("bob"));
    let resolver = Resolver::in_memory(store.clone());
    let lease = resolver.lookup(&cn()).await.unwrap().native.remove(0);
    let settlement = ocbus::resolver::Settlement { missed: vec![(lease, 3)], ..Default::default() };
    resolver.settle(&cn(), &settlement).await.unwrap();
    let resync = next(&mut events).await;
    assert!(
        matches!(resync.kind, EventKind::Resync { reason: ResyncReason::Unreachable, missed: 3 }),
        "{resync:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resolver_that_forgot_is_told_again_and_so_is_the_bus() {
    let store = MemoryStore::new();
    let config = SubscriberConfig {
        heartbeat: Duration::from_millis(20),
        legacy_bind: legacy_only().legacy_bind,
        ..SubscriberConfig::default()
    };
    let (subscriber, bus) = subscriber(config, &store).await;
    subscriber.add(&cn()).await.unwrap();
    let mut events = bus.subscribe(Filter::user("bob"));
    let resolver = Resolver::in_memory(store.clone());
    for _ in 0..2 {
        // Not before the canary is planted, or there is nothing to forget.
        tokio::time::timeout(LIMIT, async {
            while !store_has_canary(&resolver, &subscriber).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        store.flush_all();
        let resync = next(&mut events).await;
        assert!(
            matches!(resync.kind, EventKind::Resync { reason: ResyncReason::ResolverLost, .. }),
            "{resync:?}"
        );
        let listeners = resolver.lookup(&cn()).await.unwrap();
        assert_eq!((listeners.native.len(), listeners.legacy.len()), (1, 1));
    }
}

async fn store_has_canary(resolver: &Resolver, subscriber: &Subscriber) -> bool {
    resolver.remembers(&mut Canary::new(subscriber.id())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_outside_the_trusted_networks_are_turned_away_and_counted() {
    let store = MemoryStore::new();
    let config =
        SubscriberConfig { trusted_networks: "10.9.8.7/32".parse().unwrap(), ..SubscriberConfig::default() };
    let (subscriber, bus) = subscriber(config, &store).await;
    subscriber.add(&cn()).await.unwrap();
    let mut events = bus.subscribe(Filter::all());
    let report = publisher(&store, Duration::from_millis(300)).publish(&cn(), &[new_mail(1)]).await.unwrap();
    assert_eq!(report.taken(), 0, "{report:?}");
    assert!(subscriber.statistics().rejected_peers > 0);
    assert!(events.try_recv().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn ipc_endpoints_work_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| Endpoint::Ipc { path: folder.path().join(name).to_str().unwrap().to_owned() };
    let store = MemoryStore::new();
    for config in [
        SubscriberConfig { bind: Some(path("n")), ipc_mode: Some(0o600), ..SubscriberConfig::default() },
        SubscriberConfig { bind: None, legacy_bind: Some(path("l-")), ..SubscriberConfig::default() },
    ] {
        let (subscriber, bus) = subscriber(config, &store).await;
        subscriber.add(&cn()).await.unwrap();
        let mut events = bus.subscribe(Filter::user("bob"));
        let report = publisher(&store, LIMIT).publish(&cn(), &[new_mail(1)]).await.unwrap();
        assert_eq!(report.taken(), 1, "{report:?}");
        assert_eq!(uid(&*next(&mut events).await), 1);
        subscriber.stop(LIMIT).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_user_has_a_legacy_ipc_endpoint_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("l-").to_str().unwrap().to_owned();
    let longest = 107 - path.len();
    let config =
        SubscriberConfig { bind: None, legacy_bind: Some(Endpoint::Ipc { path }), ..Default::default() };
    let store = MemoryStore::new();
    let (subscriber, bus) = subscriber(config, &store).await;
    for name in ["a/b", "a_b", "a%2fb", "../a"] {
        let user = Cn::new(name).unwrap();
        subscriber.add(&user).await.unwrap();
        let mut events = bus.subscribe(Filter::user(name));
        let report = publisher(&store, LIMIT).publish(&user, &[new_mail(1)]).await.unwrap();
        assert_eq!(report.taken(), 1, "{name}: {report:?}");
        assert_eq!(next(&mut events).await.user, name);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4, "all in that folder");
    // What no unix socket can have is told in these words, and before anything is bound.
    let fits = |octets: usize| Cn::new(&"c".repeat(octets)).unwrap();
    subscriber.add(&fits(longest)).await.unwrap();
    let error = subscriber.add(&fits(longest + 1)).await.unwrap_err().to_string();
    assert!(error.contains("108 octets") && error.contains("at most 107"), "{error}");
    subscriber.stop(LIMIT).await;
}

#[tokio::test]
async fn wrong_settings_are_refused_with_their_names() {
    let start = |config| async {
        let resolver = Resolver::in_memory(MemoryStore::new());
        Subscriber::start(config, resolver, Bus::new()).await.unwrap_err().to_string()
    };
    let bind = |url: &str| Some(Endpoint::parse(url).unwrap());
    let default = SubscriberConfig::default;
    let lease = start(SubscriberConfig { lease: Duration::from_millis(10), ..default() }).await;
    assert!(lease.starts_with("lease: 0.01 s"), "{lease}");
    let wildcard = start(SubscriberConfig { bind: bind("tcp://0.0.0.0:0"), ..default() }).await;
    assert!(wildcard.contains("tcp://0.0.0.0:0") && wildcard.contains("advertise"), "{wildcard}");
    let foreign = start(SubscriberConfig { bind: bind("tcp://192.0.2.1:0"), ..default() }).await;
    assert!(foreign.contains("tcp://192.0.2.1:0"), "{foreign}");
    let none = start(SubscriberConfig { bind: None, ..default() }).await;
    assert!(none.contains("at least one"), "{none}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_users_broken_record_is_nobody_elses_trouble() {
    let store = MemoryStore::new();
    let config = SubscriberConfig { heartbeat: Duration::from_millis(20), ..SubscriberConfig::default() };
    let (subscriber, bus) = subscriber(config, &store).await;
    let users: Vec<Cn> = (0..60).map(|n| Cn::new(&format!("user{n}")).unwrap()).collect();
    for user in &users {
        subscriber.add(user).await.unwrap();
    }
    let poison = Cn::new("poison").unwrap();
    // A record of a newer version: not ours to replace.
    let newer = [0x82, 0xa1, b'v', 9, 0xa2, b'l', b's', 0x90];
    store.set("ocbus:poison", &newer);
    subscriber.add(&poison).await.unwrap_err();
    let mut events = bus.subscribe(Filter::user("user7"));
    let resolver = Resolver::in_memory(store.clone());
    tokio::time::timeout(LIMIT, async {
        while !store_has_canary(&resolver, &subscriber).await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    store.flush_all();
    store.set("ocbus:poison", &newer);
    assert!(matches!(next(&mut events).await.kind, EventKind::Resync { .. }));
    for user in &users {
        assert_eq!(resolver.lookup(user).await.unwrap().native.len(), 1, "{user}");
    }
    store.flush_all();
    tokio::time::timeout(2 * LIMIT, async {
        while resolver.lookup(&poison).await.unwrap().native.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the poisoned one too, once its record is gone");
    subscriber.stop(LIMIT).await;
    assert!(resolver.lookup(&users[0]).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_removed_while_being_renewed_stays_removed() {
    let store = MemoryStore::new();
    // Renewed all the time.
    let config = SubscriberConfig {
        lease: Duration::from_secs(1),
        heartbeat: Duration::from_millis(10),
        legacy_bind: legacy_only().legacy_bind,
        ..SubscriberConfig::default()
    };
    let (subscriber, _bus) = subscriber(config, &store).await;
    let resolver = Resolver::in_memory(store.clone());
    for _ in 0..50 {
        subscriber.add(&cn()).await.unwrap();
        store.flush_all();
        tokio::task::yield_now().await;
        subscriber.remove(&cn()).await.unwrap();
        tokio::time::timeout(LIMIT, async {
            while !resolver.lookup(&cn()).await.unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("what a renewal put back is taken back");
    }
}
