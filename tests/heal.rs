//! Whatever memcached loses, every live registration is back within two seconds of its return, and the bus is told;
//! what is dead goes within its lease; and nothing thrashes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ocbus::bus::{Bus, Filter, Subscription};
use ocbus::resolver::{Cn, Config, MemoryStore, Resolver};
use ocbus::sandbox::{Memcached, Sandbox};
use ocbus::subscriber::SubscriberConfig;
use ocbus::wire::ResyncReason;
use ocbus::wire::openchange::DosCharset;
use ocbus::{EventKind, Subscriber};
use support::proxy::{Proxy, Trouble};
use support::{LIMIT, legacy_only, until};

/// Registrations of one subscriber.
const USERS: usize = 200;

/// How soon after memcached's return all must be back.
const BACK: Duration = Duration::from_secs(2);

struct Scene {
    _sandbox: Sandbox,
    memcached: Memcached,
    subscriber: Subscriber,
    events: Subscription,
}

fn users() -> impl Iterator<Item = Cn> {
    (0..USERS).map(|user| Cn::new(&format!("user{user}")).unwrap())
}

async fn scene(memory_mib: u32, config: SubscriberConfig) -> Scene {
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached_of(memory_mib).unwrap();
    let bus = Bus::new();
    let subscriber = Subscriber::start(config, resolver(&memcached).await, bus.clone()).await.unwrap();
    for user in users() {
        subscriber.add(&user).await.unwrap();
    }
    let canary = format!("ocbus-canary:{}", subscriber.id());
    until("the canary is planted", || memcached.get(&canary).unwrap().is_some());
    let events = bus.subscribe_with_queue(Filter::user("user7"), 4096);
    Scene { _sandbox: sandbox, memcached, subscriber, events }
}

async fn resolver(memcached: &Memcached) -> Resolver {
    let config = Config::parse(&memcached.configuration()).unwrap();
    Resolver::new(&config, DosCharset::default(), Duration::from_secs(1)).await.unwrap()
}

impl Scene {
    fn missing(&self, prefix: &str) -> usize {
        users().filter(|user| self.memcached.get(&format!("{prefix}:{user}")).unwrap().is_none()).count()
    }

    /// All are back in time, and whoever listens on the bus was told to look again.
    async fn assert_healed(&mut self, prefixes: &[&str]) {
        let begun = Instant::now();
        until("all are registered again", || prefixes.iter().all(|prefix| self.missing(prefix) == 0));
        assert!(begun.elapsed() < BACK, "{:?}", begun.elapsed());
        let event = tokio::time::timeout(LIMIT, self.events.recv()).await.unwrap().unwrap();
        assert!(matches!(event.kind, EventKind::Resync { .. }), "{event:?}");
    }

    /// Writes so far, as memcached counts them.
    fn writes(&self) -> u64 {
        counter(&self.memcached, "cmd_set")
    }
}

/// One of a memcached's counters.
fn counter(memcached: &Memcached, name: &str) -> u64 {
    use std::io::{BufRead, BufReader, Write};
    let mut stream = std::net::TcpStream::connect(memcached.address()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"stats\r\n").unwrap();
    let lines = BufReader::new(stream).lines().map(Result::unwrap);
    let mut stats = lines.take_while(|line| line != "END");
    stats.find_map(|line| line.strip_prefix(&format!("STAT {name} "))?.parse().ok()).unwrap()
}

fn both() -> SubscriberConfig {
    SubscriberConfig { legacy_bind: legacy_only().legacy_bind, ..SubscriberConfig::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_flush_all_and_after_a_restart() {
    let mut scene = scene(64, both()).await;
    scene.memcached.flush_all().unwrap();
    scene.assert_healed(&["ocbus", "resolver"]).await;
    scene.memcached.kill();
    scene.memcached.restart().unwrap();
    scene.assert_healed(&["ocbus", "resolver"]).await;
    assert_eq!(scene.subscriber.statistics().malformed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_hang_of_ten_seconds_that_outlives_the_leases() {
    // Leases end meanwhile: memcached itself drops them when it goes on.
    let config = SubscriberConfig { lease: Duration::from_secs(6), ..SubscriberConfig::default() };
    let mut scene = scene(64, config).await;
    scene.memcached.stop().unwrap();
    // The fault itself: there is no state to wait for.
    tokio::time::sleep(Duration::from_secs(10)).await;
    scene.memcached.cont().unwrap();
    scene.assert_healed(&["ocbus"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_memcached_evicts() {
    let mut scene = scene(1, SubscriberConfig::default()).await;
    let (begun, writes) = (Instant::now(), scene.writes());
    // Others fill it over and over, with items of the sizes that ours may have. Ours are looked at twice a second,
    // which keeps them, or brings them back.
    let mut stream = std::net::TcpStream::connect(scene.memcached.address()).unwrap();
    let mut at = 0usize;
    for _ in 0..30 {
        let mut sets = Vec::new();
        for _ in 0..20_000 {
            at += 1;
            let length = 40 + at % 200;
            sets.extend_from_slice(format!("set filler{at} 0 0 {length} noreply\r\n").as_bytes());
            sets.resize(sets.len() + length, b'x');
            sets.extend_from_slice(b"\r\n");
        }
        std::io::Write::write_all(&mut stream, &sets).unwrap();
    }
    assert!(scene.memcached.get("filler1").unwrap().is_none(), "it does evict");
    let filled = begun.elapsed();
    let begun = Instant::now();
    until("all are registered", || scene.missing("ocbus") == 0);
    assert!(begun.elapsed() < BACK, "{:?}", begun.elapsed());
    let took = filled + begun.elapsed();
    // Each twice a heartbeat at most, beside the 600,000 of the others and our canary. Told at once of the first five
    // times that all is gone, as by restarts, and once a renewal then; likewise that memcached was slow.
    let most = 600_000 + (4 * took.as_secs() + 6) * (USERS as u64 + 1);
    let written = scene.writes() - writes;
    assert!(written <= most, "{written} writes in {took:?}: at most {most}");
    let told = std::iter::from_fn(|| scene.events.try_recv()).count();
    assert!(told as u64 <= 7 + took.as_secs() / 10, "{told} resyncs in {took:?}");
}

/// Counts the lines of the log by the names of their events, as long as the guard lives: on this thread.
fn counted_log() -> (tracing::subscriber::DefaultGuard, impl Fn(&str) -> usize) {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(octets);
            Ok(octets.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let count = move |event: &str| {
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(&format!("event=\"{event}\""))).count()
    };
    (tracing::subscriber::set_default(log), count)
}

/// How often each user was told to look again, since it was asked last.
fn resyncs(events: &mut Subscription) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    while let Some(event) = events.try_recv() {
        assert!(
            matches!(event.kind, EventKind::Resync { reason: ResyncReason::ResolverLost, .. }),
            "{event:?}"
        );
        *told.entry(event.user.clone()).or_default() += 1;
    }
    told
}

#[tokio::test]
async fn who_is_lost_again_and_again_is_told_once_a_renewal_and_the_log_too() {
    const MANY: usize = 50;
    const PERIOD: Duration = Duration::from_secs(1);
    let (_guard, logged) = counted_log();
    let (store, bus) = (MemoryStore::new(), Bus::new());
    let config = SubscriberConfig {
        heartbeat: Duration::from_millis(10),
        lease: 3 * PERIOD,
        ..SubscriberConfig::default()
    };
    let resolver = Resolver::in_memory(store.clone());
    let subscriber = Subscriber::start(config, resolver.clone(), bus.clone()).await.unwrap();
    let users: Vec<Cn> = users().take(MANY).collect();
    for user in &users {
        subscriber.add(user).await.unwrap();
    }
    let mut events = bus.subscribe_with_queue(Filter::all(), 65_536);
    // Overwritten as soon as they are registered, for some periods.
    let begun = Instant::now();
    while begun.elapsed() < 4 * PERIOD {
        users.iter().for_each(|user| store.set(&user.lease_key(), b"\x82\xa1v\x01\xa2ls\x90"));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = begun.elapsed();
    let lost = subscriber.statistics().registrations_lost;
    assert!(lost > 10 * MANY as u64, "{lost} times in {took:?}: else this shows nothing");
    let most = 2 + took.as_millis() / PERIOD.as_millis();
    let told = resyncs(&mut events);
    assert_eq!(told.len(), MANY, "each was told");
    assert!(told.values().all(|&count| count as u128 <= most), "{told:?} in {took:?}");
    let lines = logged("registration_lost");
    assert!((1..=most).contains(&(lines as u128)), "{lines} lines in {took:?}");
    // The last losses were within the period of a resync: they are told behind it.
    let deadline = Instant::now() + LIMIT;
    let mut behind = BTreeMap::new();
    while behind.len() < MANY {
        assert!(Instant::now() < deadline, "{} of {MANY} were told of their last loss", behind.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
        behind.append(&mut resyncs(&mut events));
    }
    for user in &users {
        assert_eq!(resolver.lookup(user).await.unwrap().native.len(), 1, "{user}");
    }
}

#[tokio::test]
async fn a_memcached_too_small_for_all_is_no_storm() {
    // It has room for some 6,900.
    const MANY: usize = 12_000;
    const PERIOD: Duration = Duration::from_secs(5);
    let (_guard, logged) = counted_log();
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached_of(1).unwrap();
    let bus = Bus::new();
    let config = SubscriberConfig { lease: 3 * PERIOD, ..SubscriberConfig::default() };
    let subscriber =
        Arc::new(Subscriber::start(config, resolver(&memcached).await, bus.clone()).await.unwrap());
    let mut events = bus.subscribe_with_queue(Filter::all(), 65_536);
    for first in (0..MANY).step_by(500) {
        let mut adding = tokio::task::JoinSet::new();
        for user in first..first + 500 {
            let (subscriber, user) = (Arc::clone(&subscriber), Cn::new(&format!("user{user}")).unwrap());
            adding.spawn(async move { subscriber.add(&user).await });
        }
        while let Some(added) = adding.join_next().await {
            added.unwrap().unwrap();
        }
    }
    // Until whoever is lost has been lost before.
    tokio::time::sleep(2 * PERIOD).await;
    resyncs(&mut events);
    let (begun, writes, lines) =
        (Instant::now(), counter(&memcached, "cmd_set"), logged("registration_lost"));
    tokio::time::sleep(2 * PERIOD).await;
    let took = begun.elapsed().as_secs_f64() / PERIOD.as_secs_f64();
    assert!(counter(&memcached, "evictions") > 0);
    let written = (counter(&memcached, "cmd_set") - writes) as f64;
    let told = resyncs(&mut events);
    let lines = logged("registration_lost") - lines;
    eprintln!(
        "{took} periods: {written} writes, {} of {} told, {lines} lines",
        told.values().sum::<usize>(),
        told.len()
    );
    assert!(lines as f64 <= took + 1.0, "{lines} lines in {took} periods");
    assert!(told.values().all(|&count| count as f64 <= took + 2.0), "{told:?}");
    // Users whom there is room for are renewed each 3/4 of a period, and nobody more often.
    assert!(written <= 1.4 * took * MANY as f64, "{written} writes in {took} periods");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_single_records_went() {
    let mut scene = scene(64, both()).await;
    let mut stream = std::net::TcpStream::connect(scene.memcached.address()).unwrap();
    for user in users().step_by(7) {
        let gone = format!("delete ocbus:{user} noreply\r\ndelete resolver:{user} noreply\r\n");
        std::io::Write::write_all(&mut stream, gone.as_bytes()).unwrap();
    }
    scene.assert_healed(&["ocbus", "resolver"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_writer_without_compare_and_swap_overwrote() {
    let mut scene = scene(64, both()).await;
    // OpenChange's own writers read, edit and set.
    for user in users() {
        scene
            .memcached
            .set(&format!("resolver:{user}"), b"\x01\x01\0\0\0\x01\0\0\0tcp://10.0.0.1:1\0")
            .unwrap();
    }
    let begun = Instant::now();
    let healed = |user: &Cn| {
        let record = scene.memcached.get(&format!("resolver:{user}")).unwrap().unwrap();
        record.starts_with(b"\x01\x02\0\0\0")
    };
    until("ours stand beside theirs", || users().all(|user| healed(&user)));
    assert!(begun.elapsed() < BACK, "{:?}", begun.elapsed());
    let event = tokio::time::timeout(LIMIT, scene.events.recv()).await.unwrap().unwrap();
    assert!(matches!(event.kind, EventKind::Resync { .. }), "{event:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_added_during_a_heartbeat_is_not_taken_for_lost() {
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached().unwrap();
    for user in users().take(50) {
        // Its first heartbeat is at once.
        let bus = Bus::new();
        let mut events = bus.subscribe(Filter::all());
        let subscriber =
            Subscriber::start(SubscriberConfig::default(), resolver(&memcached).await, bus).await.unwrap();
        subscriber.add(&user).await.unwrap();
        let canary = format!("ocbus-canary:{}", subscriber.id());
        until("the heartbeat is over", || memcached.get(&canary).unwrap().is_some());
        assert_eq!(subscriber.statistics().registrations_lost, 0);
        assert!(events.try_recv().is_none(), "nor is anybody told to resync");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_time_has_few_writes_and_the_dead_go_with_their_lease() {
    let config = SubscriberConfig { lease: Duration::from_secs(3), ..SubscriberConfig::default() };
    let scene = scene(64, config).await;
    let before = scene.writes();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let written = usize::try_from(scene.writes() - before).unwrap();
    // Renewed each third of a lease, or up to twice as often, and no more than that.
    assert!((USERS * 2..=USERS * 8).contains(&written), "{written} writes in a lease");
    let Scene { subscriber, memcached, .. } = scene;
    // As if killed: it takes nothing back.
    drop(subscriber);
    let begun = Instant::now();
    until("all leases have ended", || {
        users().all(|user| memcached.get(&format!("ocbus:{user}")).unwrap().is_none())
    });
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}

/// What a proxy's trouble is for: a subscriber of many users behind it, none of them registered yet.
async fn troubled(users: usize, config: SubscriberConfig) -> (Sandbox, Memcached, Proxy, Bus, Subscriber) {
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached().unwrap();
    let proxy = Proxy::to(&memcached).await;
    let bus = Bus::new();
    let subscriber = Subscriber::start(config, proxy.resolver().await, bus.clone()).await.unwrap();
    for user in 0..users {
        // Whoever is refused stays held.
        let _ = subscriber.add(&Cn::new(&format!("user{user}")).unwrap()).await;
    }
    (sandbox, memcached, proxy, bus, subscriber)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refused_record_is_one_users_affair() {
    const MANY: usize = 1200;
    let config = SubscriberConfig { lease: Duration::from_secs(4), ..SubscriberConfig::default() };
    let (_sandbox, memcached, proxy, _bus, subscriber) = troubled(MANY, config).await;
    let canary = format!("ocbus-canary:{}", subscriber.id());
    until("the canary is planted", || memcached.get(&canary).unwrap().is_some());
    // The chunks of a round are in no order: whichever one these users are in, the others' must be renewed too.
    let refused = "ocbus:user7";
    proxy.make(Trouble { refused: vec![refused.to_owned()], ..Trouble::default() });
    let failures = subscriber.statistics().resolver_failures;
    let writes = counter(&memcached, "cmd_set");
    let begun = Instant::now();
    // For longer than a lease.
    while begun.elapsed() < Duration::from_secs(7) {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let written = counter(&memcached, "cmd_set") - writes;
    // Each user's, up to six times a lease.
    let most = u64::try_from(MANY as u128 * begun.elapsed().as_millis() * 6 / 4000).unwrap();
    assert!(written < most, "{written} writes in {:?}: at most {most}", begun.elapsed());
    let gone = (0..MANY).filter(|user| memcached.get(&format!("ocbus:user{user}")).unwrap().is_none());
    let gone: Vec<usize> = gone.collect();
    assert!(gone.iter().all(|user| user.to_string().starts_with('7')), "{gone:?}");
    assert!(gone.contains(&7) && subscriber.statistics().resolver_failures > failures);
    proxy.make(Trouble::default());
    until("the refused are back", || memcached.get(refused).unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_memcached_is_no_storm_of_resyncs() {
    let (_sandbox, memcached, proxy, bus, subscriber) = troubled(20, SubscriberConfig::default()).await;
    let canary = format!("ocbus-canary:{}", subscriber.id());
    until("the canary is planted", || memcached.get(&canary).unwrap().is_some());
    let mut events = bus.subscribe_with_queue(Filter::user("user7"), 4096);
    proxy.make(Trouble { delay: Duration::from_millis(270), ..Trouble::default() });
    // The fault itself. A heartbeat and its look take almost a second.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let meanwhile = std::iter::from_fn(|| events.try_recv()).count();
    assert_eq!(meanwhile, 0, "not before a third of a lease");
    proxy.make(Trouble::default());
    let event = tokio::time::timeout(BACK, events.recv()).await.unwrap().unwrap();
    assert!(matches!(event.kind, EventKind::Resync { .. }), "when it is over: {event:?}");
    let beats = counter(&memcached, "cmd_touch");
    until("more heartbeats", || counter(&memcached, "cmd_touch") >= beats + 4);
    assert!(events.try_recv().is_none(), "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_stopped_registers_nobody_any_more() {
    let (_sandbox, memcached, proxy, _bus, subscriber) = troubled(1500, SubscriberConfig::default()).await;
    let canary = format!("ocbus-canary:{}", subscriber.id());
    until("the canary is planted", || memcached.get(&canary).unwrap().is_some());
    // All are to be registered again, which takes some seconds now.
    memcached.flush_all().unwrap();
    proxy.make(Trouble { delay: Duration::from_millis(300), ..Trouble::default() });
    let writes = || counter(&memcached, "cmd_set");
    let before = writes();
    until("some are registered again", || writes() > before);
    subscriber.stop(Duration::from_millis(50)).await;
    // What was written already is on its way.
    tokio::time::sleep(Duration::from_millis(700)).await;
    let stopped = writes();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(writes(), stopped);
}
