//! The resolvers with several memcacheds, real ones: where records are, and what a server that fails costs whom.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "memcached/server.rs"]
#[allow(dead_code, reason = "shared with the tests that need more of it")]
mod server;

#[path = "pool/copies.rs"]
mod copies;
#[path = "pool/moves.rs"]
mod moves;
#[path = "pool/routing.rs"]
mod routing;
#[path = "pool/ways.rs"]
mod ways;
#[path = "pool/writers.rs"]
mod writers;

use std::time::{Duration, Instant};

use ocbus_resolver::{
    BlockingResolver, Canary, Cn, Config, Listeners, Registration, Resolver, ResolverError, Selection,
};
use ocbus_wire::openchange::DosCharset;
use server::{Memcached, poll_until};
use uuid::Uuid;

const SECOND: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_millis(200);

fn cn(name: &str) -> Cn {
    Cn::new(name).unwrap()
}

fn blocking(config: &Config) -> BlockingResolver {
    BlockingResolver::new(config, DosCharset::default())
}

async fn connect(config: &Config, limit: Duration) -> Resolver {
    Resolver::new(config, DosCharset::default(), limit).await.unwrap()
}

fn registration(endpoint: &str) -> Registration<'_> {
    Registration { endpoint, legacy: None, subscriber: Uuid::from_u128(1), lease: 60 * SECOND }
}

fn lookup(resolver: &mut BlockingResolver, cn: &Cn) -> Listeners {
    resolver.lookup(cn, Instant::now() + 5 * SECOND).unwrap()
}

/// Three servers, and three users for each.
struct Three {
    servers: Vec<Memcached>,
    config: Config,
    users: [Vec<Cn>; 3],
}

impl Three {
    fn start(options: &str) -> Three {
        let servers: Vec<Memcached> = (0..3).map(|_| Memcached::start()).collect();
        let named: Vec<String> =
            servers.iter().map(|server| format!("--SERVER=127.0.0.1:{}", server.port)).collect();
        let config: Config = format!("{}{options}", named.join(" ")).parse().unwrap();
        let selection = Selection::new(&config).unwrap();
        let mut users: [Vec<Cn>; 3] = Default::default();
        for name in (0..).map(|n| cn(&format!("user{n}"))) {
            let place = &mut users[selection.index(name.resolver_key().as_bytes())];
            if place.len() < 3 {
                place.push(name);
            }
            if users.iter().all(|users| users.len() == 3) {
                break;
            }
        }
        Three { servers, config, users }
    }

    async fn register_all(&self) {
        let resolver = connect(&self.config, 5 * SECOND).await;
        for user in self.users.iter().flatten() {
            resolver.register(user, registration("tcp://h:1")).await.unwrap();
        }
    }
}

/// Calls take less than this in the middle. (The machine is shared: some may be late for reasons of their own.)
fn assert_quick(what: &str, mut times: Vec<Duration>, limit: Duration) {
    times.sort();
    println!("{what}: middle {:?}, worst {:?}", times[times.len() / 2], times[times.len() - 1]);
    assert!(times[times.len() / 2] < limit, "{what}: {times:?}");
}

fn timed<T>(call: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let result = call();
    (result, begun.elapsed())
}

#[tokio::test]
async fn round_trips_are_parted_by_server() {
    let three = Three::start("");
    let resolver = connect(&three.config, 5 * SECOND).await;
    let users = (0..3).flat_map(|n| three.users.iter().map(move |users| users[n].clone())).collect();
    assert_eq!(resolver.round_trips(users), three.users);
}

#[tokio::test]
async fn records_are_spread_as_openchange_looks_for_them_and_both_resolvers_find_them() {
    let three = Three::start("");
    let resolver = connect(&three.config, 5 * SECOND).await;
    let mut plugin = blocking(&three.config);
    let selection = Selection::new(&three.config).unwrap();
    let mut used = [0; 3];
    for n in 0..60 {
        let (name, endpoint) = (cn(&format!("name{n}@example.org")), format!("tcp://h:{n}"));
        resolver.register(&name, registration(&endpoint)).await.unwrap();
        resolver.register_legacy(&name, &endpoint).await.unwrap();
        let place = selection.index(name.resolver_key().as_bytes());
        used[place] += 1;
        for (index, server) in three.servers.iter().enumerate() {
            for key in [name.resolver_key(), name.lease_key()] {
                assert_eq!(server.get(&key).is_some(), index == place, "{key} at {index}");
            }
        }
        let seen = lookup(&mut plugin, &name);
        assert_eq!((seen.native.len(), seen.legacy.as_slice()), (1, &[endpoint][..]));
        assert_eq!(seen, resolver.lookup(&name).await.unwrap());
    }
    assert!(used.iter().all(|used| *used > 5), "{used:?}");
}

/// One of three fails: what its users' look-ups cost a blocking caller, and the others'.
fn fail_and_return(
    three: &mut Three,
    fail: impl Fn(&mut Memcached),
    back: impl Fn(&mut Memcached),
    hangs: bool,
) {
    let mut plugin = blocking(&three.config);
    for user in three.users.iter().flatten() {
        lookup(&mut plugin, user);
    }
    fail(&mut three.servers[1]);
    let lost = three.users[1][0].clone();
    let begun = Instant::now();
    let error = plugin.lookup(&lost, begun + LIMIT).unwrap_err();
    let took = begun.elapsed();
    assert!(error.is_one_server() && !error.is_outage(), "{error}");
    assert!(took < LIMIT + Duration::from_millis(50), "{took:?}");
    assert_eq!(took >= LIMIT - Duration::from_millis(2), hangs, "{took:?}");
    let (mut its, mut others) = (Vec::new(), Vec::new());
    for round in 0..30 {
        let (result, took) = timed(|| plugin.lookup(&three.users[1][round % 3], Instant::now() + LIMIT));
        assert!(result.unwrap_err().is_one_server());
        its.push(took);
        let (found, took) = timed(|| lookup(&mut plugin, &three.users[(round % 2) * 2][0]));
        assert_eq!(found.native.len(), 1);
        others.push(took);
    }
    assert!(begun.elapsed() < SECOND, "before its retry time");
    assert_quick("look-ups of its users", its, Duration::from_millis(5));
    assert_quick("look-ups of the others", others, Duration::from_millis(5));
    back(&mut three.servers[1]);
    let returned = Instant::now();
    poll_until("it is in use again", || plugin.lookup(&lost, Instant::now() + LIMIT).is_ok());
    assert!(returned.elapsed() < 2 * SECOND, "{:?}", returned.elapsed());
}

#[tokio::test]
async fn a_stopped_server_costs_one_deadline_and_the_other_two_nothing() {
    let mut three = Three::start("");
    three.register_all().await;
    fail_and_return(&mut three, |server| server.stop(), |server| server.go_on(), true);
    let mut plugin = blocking(&three.config);
    assert!(three.users.iter().flatten().all(|user| lookup(&mut plugin, user).native.len() == 1));
}

#[tokio::test]
async fn a_killed_server_is_left_alone_and_used_again_when_it_is_back() {
    let mut three = Three::start("");
    three.register_all().await;
    fail_and_return(&mut three, Memcached::kill, Memcached::restart, false);
}

#[tokio::test]
async fn a_task_that_waits_for_a_stopped_server_delays_no_other() {
    let mut three = Three::start("");
    three.register_all().await;
    let resolver = connect(&three.config, LIMIT).await;
    for user in three.users.iter().flatten() {
        assert_eq!(resolver.lookup(user).await.unwrap().native.len(), 1);
    }
    three.servers[1].stop();
    let begun = Instant::now();
    let waiting: Vec<_> = (0..20)
        .map(|n| {
            let (resolver, user) = (resolver.clone(), three.users[1][n % 3].clone());
            tokio::spawn(async move { resolver.lookup(&user).await })
        })
        .collect();
    let mut others = Vec::new();
    while begun.elapsed() < LIMIT / 2 {
        let start = Instant::now();
        assert_eq!(resolver.lookup(&three.users[others.len() % 2 * 2][0]).await.unwrap().native.len(), 1);
        others.push(start.elapsed());
    }
    assert_quick("the others, meanwhile", others, Duration::from_millis(5));
    for task in waiting {
        assert!(task.await.unwrap().unwrap_err().is_one_server());
    }
    assert!(begun.elapsed() < LIMIT + Duration::from_millis(100), "{:?}", begun.elapsed());
    let mut its = Vec::new();
    for _ in 0..30 {
        let start = Instant::now();
        let error = resolver.lookup(&three.users[1][0]).await.unwrap_err();
        its.push(start.elapsed());
        assert!(error.is_one_server(), "{error}");
        // A registration fails as quickly.
        assert!(resolver.register(&three.users[1][1], registration("tcp://h:1")).await.is_err());
    }
    assert_quick("its users", its, Duration::from_millis(5));
    three.servers[1].go_on();
    let returned = Instant::now();
    while resolver.lookup(&three.users[1][0]).await.is_err() {
        assert!(returned.elapsed() < 2 * SECOND);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    // All three: that is an outage, for everybody.
    three.servers.iter_mut().for_each(Memcached::kill);
    let mut errors = Vec::new();
    for users in &three.users {
        errors.push(resolver.lookup(&users[0]).await.unwrap_err());
    }
    assert!(errors[2].is_outage(), "{}", errors[2]);
    assert!(resolver.remembers(&mut Canary::new(Uuid::from_u128(1))).await.unwrap_err().is_outage());
}

#[tokio::test]
async fn one_server_that_forgets_is_noticed_and_one_that_is_away_is_waited_for_once() {
    let mut three = Three::start("");
    let resolver = connect(&three.config, LIMIT).await;
    let mut me = Canary::new(Uuid::from_u128(9));
    let canary = format!("ocbus-canary:{}", Uuid::from_u128(9));
    resolver.plant(&mut me).await.unwrap();
    assert!(three.servers.iter().all(|server| server.get(&canary).is_some()), "one on every server");
    assert!(resolver.remembers(&mut me).await.unwrap());
    for forgetful in 0..3 {
        three.servers[forgetful].ask("flush_all", "OK");
        assert!(!resolver.remembers(&mut me).await.unwrap());
        resolver.plant(&mut me).await.unwrap();
        assert!(resolver.remembers(&mut me).await.unwrap());
    }

    for killed in [false, true] {
        match killed {
            true => three.servers[2].kill(),
            false => three.servers[2].stop(),
        }
        assert!(resolver.remembers(&mut me).await.unwrap(), "the others have not forgotten");
        let mut times = Vec::new();
        for _ in 0..20 {
            let start = Instant::now();
            assert!(resolver.remembers(&mut me).await.unwrap());
            times.push(start.elapsed());
        }
        assert_quick("heartbeats", times, Duration::from_millis(5));
        resolver.plant(&mut me).await.unwrap();
        match killed {
            true => three.servers[2].restart(),
            false => three.servers[2].go_on(),
        }
        // As the subscriber's heartbeat asks. Hung or restarted: what publishers missed there is made good.
        let returned = Instant::now();
        while resolver.remembers(&mut me).await.unwrap() {
            assert!(returned.elapsed() < 2 * SECOND, "its return is noticed");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(resolver.lookup(&three.users[2][0]).await.is_ok(), "and it is in use");
        resolver.plant(&mut me).await.unwrap();
        assert!(resolver.remembers(&mut me).await.unwrap());
    }
    resolver.uproot(&me).await.unwrap();
    assert!(three.servers.iter().all(|server| server.get(&canary).is_none()));
}

#[tokio::test]
async fn a_server_that_an_ordinary_request_finds_back_is_noticed_too() {
    let three = Three::start(" --RETRY-TIMEOUT=1");
    three.register_all().await;
    let resolver = connect(&three.config, LIMIT).await;
    let mut me = Canary::new(Uuid::from_u128(9));
    assert!(!resolver.remembers(&mut me).await.unwrap());
    resolver.plant(&mut me).await.unwrap();
    assert!(resolver.remembers(&mut me).await.unwrap());
    // Between two heartbeats. Its canary lives: it has forgotten nothing, but publishers could not mark anything.
    three.servers[2].stop();
    assert!(resolver.lookup(&three.users[2][0]).await.unwrap_err().is_one_server());
    three.servers[2].go_on();
    let stopped = Instant::now();
    while resolver.lookup(&three.users[2][0]).await.is_err() {
        assert!(stopped.elapsed() < 3 * SECOND, "in use again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..2 {
        assert!(!resolver.remembers(&mut me).await.unwrap(), "until all is registered again");
    }
    resolver.plant(&mut me).await.unwrap();
    assert!(resolver.remembers(&mut me).await.unwrap());
}

#[tokio::test]
async fn keys_of_a_removed_server_are_written_elsewhere_and_come_back() {
    let mut three = Three::start(" --DISTRIBUTION=CONSISTENT --REMOVE-FAILED-SERVERS=1 --RETRY-TIMEOUT=1");
    let left = Selection::without_failed(&three.config, |index| index != 1).unwrap();
    let (user, stays) = (three.users[1][0].clone(), three.users[0][0].clone());
    let moved = left.index(user.resolver_key().as_bytes());
    let resolver = connect(&three.config, LIMIT).await;
    let mut plugin = blocking(&three.config);
    for user in [&user, &stays] {
        resolver.register(user, registration("tcp://h:1")).await.unwrap();
    }

    three.servers[1].kill();
    poll_until("the plugin asks another", || plugin.lookup(&user, Instant::now() + LIMIT).is_ok());
    let mut failures = 0;
    let begun = Instant::now();
    while let Err(error) = resolver.register(&user, registration("tcp://h:1")).await {
        failures += usize::from(!error.to_string().contains("left alone"));
        assert!(begun.elapsed() < 10 * SECOND);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(failures, 5, "as many as libmemcached takes");
    assert!(three.servers[moved].get(&user.lease_key()).is_some());
    assert_eq!(lookup(&mut plugin, &stays).native.len(), 1);

    three.servers[1].restart();
    let start = Instant::now();
    while three.servers[1].get(&user.lease_key()).is_none() {
        assert!(start.elapsed() < 2 * SECOND, "written at home again");
        let _ = resolver.register(&user, registration("tcp://h:1")).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    poll_until("found there", || {
        plugin.lookup(&user, Instant::now() + LIMIT).is_ok_and(|found| found.native.len() == 1)
    });
}

#[tokio::test]
async fn a_configuration_without_servers_is_an_error_not_a_crash() {
    let none: Config = "RESET".parse().unwrap();
    let error = blocking(&none).lookup(&cn("bob"), Instant::now() + LIMIT).unwrap_err();
    assert!(matches!(error, ResolverError::Config(_)), "{error}");
    assert!(Resolver::new(&none, DosCharset::default(), LIMIT).await.is_err());
}

/// The name server may boot after us.
#[tokio::test]
async fn a_name_that_is_not_known_yet_is_no_error_until_somebody_asks() {
    let name = "memcache.no-such-host.invalid";
    for text in [format!("--SERVER={name}"), format!("--SERVER={name} --SERVER=other.{name}")] {
        let resolver = connect(&text.parse().unwrap(), LIMIT).await;
        let error = resolver.lookup(&cn("bob")).await.unwrap_err();
        assert!(error.is_outage() && error.to_string().contains(name), "{error}");
    }
}
