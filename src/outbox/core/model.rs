//! The core in a world of its own: subscribers that are killed, hang and come back, a resolver that fails, time that is
//! an argument. Any seed has to keep what the outbox promises.

mod full;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ocbus_wire::{EventKind, Mailbox, NewMessage};
use uuid::Uuid;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn config() -> OutboxConfig {
    let gather = Duration::ZERO;
    OutboxConfig {
        max_user_octets: 64 * 1024,
        grace: 2 * SECOND,
        lookups: 4,
        gather,
        ..OutboxConfig::default()
    }
}

fn event(id: u64, user: &str) -> Event {
    let message = NewMessage { uid: Some(1), ..NewMessage::default() };
    let mailbox = Mailbox::new("INBOX", '/');
    Event::new(Uuid::from_u64_pair(0, id), 0, user, mailbox, EventKind::MessageNew(message))
}

/// A subscriber process.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Health {
    Alive,
    /// Takes nothing and answers nothing; it may come back.
    Hangs,
    /// Its port refuses.
    Dead,
}

#[derive(Debug)]
struct Process {
    lease: Lease,
    health: Health,
    registered: bool,
    /// What its bus has published: each id once.
    got: BTreeSet<u64>,
    order: Vec<u64>,
    resyncs: usize,
    /// How often an id came again.
    doubles: usize,
}

/// One user's subscriber, through all of its processes.
#[derive(Debug, Default)]
struct Line(Vec<Process>);

struct World {
    core: Core,
    now: Now,
    /// By user: several lines each.
    users: BTreeMap<Cn, Vec<Line>>,
    resolver_up: bool,
    /// What is under way, in any order.
    orders: VecDeque<Order>,
    flights: Vec<(Cn, Who, u64, Vec<Item>)>,
    accepted: BTreeMap<Cn, Vec<u64>>,
    random: u64,
    next_id: u64,
    next_process: u128,
    /// The processes of a line have one URL, for all users.
    shared: bool,
    /// Sends so far.
    sends: usize,
    /// Of so many events everybody was told.
    told_everybody: u64,
}

impl World {
    fn new(seed: u64, config: OutboxConfig) -> World {
        let now = Now { at: Instant::now(), us: 0 };
        World {
            core: Core::new(config, now, seed),
            now,
            users: BTreeMap::new(),
            resolver_up: true,
            orders: VecDeque::new(),
            flights: Vec::new(),
            accepted: BTreeMap::new(),
            random: seed | 1,
            next_id: 0,
            next_process: 0,
            shared: false,
            sends: 0,
            told_everybody: 0,
        }
    }

    fn random(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % below as u64).unwrap()
    }

    /// A new process in a line, registered.
    fn start(&mut self, cn: &Cn, line: usize) {
        self.next_process += 1;
        let lease = Lease {
            endpoint: format!("tcp://10.0.0.{line}:{}", if self.shared { 1 } else { self.next_process }),
            subscriber: Uuid::from_u128(self.next_process),
            until_ms: u64::MAX,
            legacy: None,
            missed: 0,
        };
        let (got, order) = (BTreeSet::new(), Vec::new());
        let process =
            Process { lease, health: Health::Alive, registered: true, got, order, resyncs: 0, doubles: 0 };
        let lines = self.users.entry(cn.clone()).or_default();
        while lines.len() <= line {
            lines.push(Line::default());
        }
        lines[line].0.push(process);
    }

    fn last(&mut self, cn: &Cn, line: usize) -> &mut Process {
        self.users.get_mut(cn).unwrap()[line].0.last_mut().unwrap()
    }

    fn accept(&mut self, cn: &Cn, count: u64) {
        let ids: Vec<u64> = (0..count).map(|n| self.next_id + n).collect();
        self.next_id += count;
        let events = ids.iter().map(|id| event(*id, cn.as_str())).collect();
        let taken = self.core.accept(self.now, Source::Http, events);
        // Whoever is refused is to be told as well.
        assert!(taken.is_ok() || self.core.config.max_octets < 1 << 20, "{taken:?}");
        self.accepted.entry(cn.clone()).or_default().extend(ids);
        self.collect();
    }

    fn collect(&mut self) {
        self.orders.extend(self.core.take_orders());
    }

    /// Carries out one order, or ends one send. Says whether there was one.
    fn step(&mut self) -> bool {
        let choices = self.orders.len() + self.flights.len();
        if choices == 0 {
            return false;
        }
        let choice = self.random(choices);
        match choice.checked_sub(self.orders.len()) {
            Some(flight) => self.land(flight),
            None => {
                let order = self.orders.remove(choice).unwrap();
                self.carry_out(order);
            }
        }
        self.collect();
        true
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::LookUp(cn) if !self.resolver_up => {
                self.core.look_up_failed(self.now, &cn, LookUpFailure::Outage, "down", Duration::ZERO);
            }
            Order::LookUp(cn) => {
                let processes = self.users.get(&cn).into_iter().flatten().flat_map(|line| &line.0);
                let registered = processes.filter(|process| process.registered);
                let native = registered.map(|process| process.lease.clone()).collect();
                let listeners = Listeners { native, ..Listeners::default() };
                self.core.looked_up(self.now, &cn, listeners, Duration::ZERO);
            }
            Order::Send(dispatch) => {
                assert!(dispatch.legacy.is_empty());
                for lease in dispatch.leases {
                    let who = Who::native(&lease);
                    let flight = (dispatch.cn.clone(), who, dispatch.through, dispatch.items.clone());
                    self.flights.push(flight);
                    self.sends += 1;
                }
            }
            Order::Settle(..) => {}
            Order::TellEverybody(events) => {
                self.told_everybody += events;
                self.core.told_everybody(self.now);
            }
        }
    }

    fn land(&mut self, flight: usize) {
        let (cn, who, through, items) = self.flights.swap_remove(flight);
        // Sometimes the answer is lost on its way.
        let lost = self.random(10) == 0;
        let mut processes = self.users.get_mut(&cn).unwrap().iter_mut().flat_map(|line| &mut line.0);
        let process = processes.find(|process| Who::native(&process.lease) == who).unwrap();
        let sent = match process.health {
            Health::Dead => {
                process.registered = false;
                Sent::Gone
            }
            Health::Hangs => Sent::Failed { unsent: false },
            Health::Alive => {
                for item in items {
                    match item {
                        Item::Event(event) => process.take(event.id.as_u64_pair().1),
                        Item::Resync { .. } => process.resyncs += 1,
                    }
                }
                if lost { Sent::Failed { unsent: false } } else { Sent::Taken }
            }
        };
        self.core.sent(self.now, &cn, &who, through, sent);
    }

    /// Until nothing is to be done at this moment.
    fn run(&mut self) {
        while self.step() {}
    }

    /// Lets time pass, with all that is due in it.
    fn pass(&mut self, time: Duration) {
        let end = self.now.at + time;
        self.run();
        let mut wakes = 0;
        while let Some(at) = self.core.next_wake().filter(|at| *at <= end) {
            assert!(at >= self.now.at || wakes == 0, "due in the past");
            self.now.at = at.max(self.now.at);
            self.core.wake(self.now);
            self.collect();
            self.run();
            wakes += 1;
            assert!(wakes < 100_000, "it never rests");
        }
        self.now.at = end;
    }

    fn dropped(&self, reason: Reason) -> u64 {
        self.core.statistics().dropped[Reason::ALL.iter().position(|one| *one == reason).unwrap()]
    }

    /// All accounts are even, and nothing is left.
    fn check_empty(&self) {
        let statistics = self.core.statistics();
        assert!(self.core.is_empty(), "{statistics:?}");
        assert_eq!((statistics.held_events, statistics.held_octets), (0, 0));
        let accepted: u64 = statistics.accepted.iter().sum();
        assert_eq!(accepted, statistics.delivered + statistics.dropped.iter().sum::<u64>(), "{statistics:?}");
        assert_eq!(self.core.accepted, self.core.settled, "the ledger");
    }
}

impl Process {
    fn take(&mut self, id: u64) {
        match self.got.insert(id) {
            true => self.order.push(id),
            false => self.doubles += 1,
        }
    }
}

impl Line {
    fn got(&self) -> Vec<u64> {
        self.0.iter().flat_map(|process| process.order.iter().copied()).collect()
    }
}

fn bob() -> Cn {
    Cn::new("bob").unwrap()
}

#[test]
fn what_is_accepted_goes_to_everybody_once_and_in_order() {
    let mut world = World::new(1, config());
    world.start(&bob(), 0);
    world.start(&bob(), 1);
    for _ in 0..10 {
        world.accept(&bob(), 3);
        world.step();
    }
    world.run();
    let all: Vec<u64> = (0..30).collect();
    assert!(world.users[&bob()].iter().all(|line| line.got() == all));
    world.check_empty();
    // Half an hour later nothing is known of bob.
    world.pass(1800 * SECOND);
    assert!(world.core.users.is_empty() && world.core.next_wake().is_none());
}

#[test]
fn whoever_has_no_listeners_is_dropped_at_once_but_not_in_the_first_seconds() {
    let mut world = World::new(1, config());
    world.accept(&bob(), 1);
    world.pass(SECOND);
    assert_eq!(world.core.statistics().held_events, 1, "somebody may still register");
    world.start(&bob(), 0);
    world.pass(SECOND);
    assert_eq!(world.users[&bob()][0].got(), [0]);
    world.pass(600 * SECOND);
    world.last(&bob(), 0).registered = false;
    world.accept(&bob(), 1);
    world.run();
    assert_eq!(world.dropped(Reason::Unheard), 1);
    world.check_empty();
}

#[test]
fn a_dead_subscriber_s_heir_gets_what_it_lacks_and_others_nothing_twice() {
    let mut world = World::new(1, config());
    world.start(&bob(), 0);
    world.start(&bob(), 1);
    world.accept(&bob(), 2);
    world.run();
    world.last(&bob(), 0).health = Health::Dead;
    for _ in 0..3 {
        world.accept(&bob(), 2);
        world.pass(10 * SECOND);
    }
    world.start(&bob(), 0);
    world.pass(3 * SECOND);
    let all: Vec<u64> = (0..8).collect();
    let lines = &world.users[&bob()];
    assert_eq!((lines[0].got(), lines[1].got()), (all.clone(), all));
    assert!(lines.iter().flat_map(|line| &line.0).all(|process| process.doubles == 0));
    world.check_empty();
}

#[test]
fn one_that_was_started_anew_before_anybody_noticed_is_no_orphan() {
    let mut world = World::new(1, config());
    world.start(&bob(), 0);
    world.accept(&bob(), 1);
    world.run();
    world.last(&bob(), 0).health = Health::Dead;
    world.now.at += SECOND;
    world.start(&bob(), 0);
    world.accept(&bob(), 1);
    world.run();
    assert_eq!(world.users[&bob()][0].got(), [0, 1]);
    world.check_empty();
}

#[test]
fn a_hung_endpoint_delays_no_other_and_is_told_at_its_return() {
    let mut world = World::new(1, config());
    world.start(&bob(), 0);
    world.start(&bob(), 1);
    world.last(&bob(), 0).health = Health::Hangs;
    for _ in 0..20 {
        world.accept(&bob(), 1);
        world.pass(SECOND);
    }
    assert_eq!(world.users[&bob()][1].got().len(), 20);
    world.last(&bob(), 0).health = Health::Alive;
    world.pass(3 * SECOND);
    assert_eq!(world.users[&bob()][0].got(), (0..20).collect::<Vec<u64>>());
    world.check_empty();
    // For longer than they live.
    world.last(&bob(), 0).health = Health::Hangs;
    world.accept(&bob(), 5);
    world.pass(100 * SECOND);
    assert_eq!(world.dropped(Reason::Expired), 5);
    world.last(&bob(), 0).health = Health::Alive;
    world.pass(60 * SECOND);
    assert_eq!((world.last(&bob(), 0).resyncs, world.last(&bob(), 1).resyncs), (1, 0));
    world.check_empty();
}

#[test]
fn a_dead_endpoint_of_a_thousand_users_is_asked_by_one_at_a_time() {
    let mut world = World::new(1, config());
    world.shared = true;
    let users: Vec<Cn> = (0..1000).map(|n| Cn::new(&format!("user{n}")).unwrap()).collect();
    for cn in &users {
        world.start(cn, 0);
        world.last(cn, 0).health = Health::Hangs;
        world.accept(cn, 1);
    }
    world.run();
    let first = world.sends;
    assert!(first <= users.len());
    for _ in 0..3 {
        world.pass(10 * SECOND);
        for cn in &users {
            world.accept(cn, 1);
        }
    }
    let again = world.sends - first;
    assert!((10..60).contains(&again), "{again} sends in half a minute");
    assert_eq!(world.core.statistics().held_events, 4000);
    for cn in &users {
        world.last(cn, 0).health = Health::Alive;
    }
    world.pass(5 * SECOND);
    assert!(users.iter().all(|cn| world.users[cn][0].got().len() == 4));
    world.check_empty();
    world.pass(1800 * SECOND);
    assert!(world.core.users.is_empty() && world.core.next_wake().is_none());
}

#[test]
fn one_user_s_bad_luck_at_an_endpoint_is_not_everybody_s() {
    let mut world = World::new(1, config());
    world.shared = true;
    let users: Vec<Cn> = (0..5).map(|n| Cn::new(&format!("user{n}")).unwrap()).collect();
    for cn in &users {
        world.start(cn, 0);
    }
    // Its answer never comes, whatever the others get.
    world.last(&users[0], 0).health = Health::Hangs;
    for round in 1..=10 {
        for cn in &users {
            world.accept(cn, 1);
        }
        world.pass(5 * SECOND);
        assert!(users[1..].iter().all(|cn| world.users[cn][0].got().len() == round), "{round}");
    }
    world.last(&users[0], 0).health = Health::Alive;
    world.pass(5 * SECOND);
    assert_eq!(world.users[&users[0]][0].got().len(), 10);
    world.check_empty();
}

#[test]
fn an_outage_is_outlived_and_asked_for_sparingly() {
    let mut world = World::new(1, config());
    let users: Vec<Cn> = (0..1000).map(|n| Cn::new(&format!("user{n}")).unwrap()).collect();
    for cn in &users {
        world.start(cn, 0);
    }
    world.resolver_up = false;
    for cn in &users {
        world.accept(cn, 1);
    }
    world.pass(30 * SECOND);
    let failures = world.core.statistics().lookup_failures;
    assert!(failures < 50, "one of a thousand asks at a time: {failures}");
    world.resolver_up = true;
    world.pass(3 * SECOND);
    assert!(users.iter().all(|cn| world.users[cn][0].got().len() == 1));
    world.check_empty();
}

#[test]
fn what_is_too_much_for_one_user_becomes_one_resync_in_its_place() {
    let mut world = World::new(1, config());
    world.start(&bob(), 0);
    world.last(&bob(), 0).health = Health::Hangs;
    let before = world.core.octets;
    for _ in 0..200 {
        world.accept(&bob(), 1);
        world.run();
        assert!(world.core.octets <= before + 64 * 1024 + 1024, "bounded");
    }
    let dropped = world.dropped(Reason::Overflow);
    assert!(dropped > 100, "{dropped}");
    world.last(&bob(), 0).health = Health::Alive;
    world.pass(3 * SECOND);
    let first = u64::try_from(world.users[&bob()][0].got().len()).unwrap();
    assert_eq!(world.users[&bob()][0].got(), (200 - first..200).collect::<Vec<u64>>());
    assert_eq!((world.last(&bob(), 0).resyncs, first), (1, 200 - dropped));
    world.check_empty();
}

#[test]
fn what_comes_within_the_gathering_goes_together() {
    let mut world = World::new(1, OutboxConfig { gather: Duration::from_millis(5), ..config() });
    world.start(&bob(), 0);
    for _ in 0..3 {
        world.accept(&bob(), 2);
        world.pass(Duration::from_millis(1));
    }
    assert_eq!((world.core.statistics().lookups, world.core.statistics().lookup_queue), (0, 1));
    world.pass(Duration::from_millis(3));
    assert_eq!(world.users[&bob()][0].got().len(), 6);
    assert_eq!(world.core.statistics().lookups, 1);
    world.check_empty();
}

#[test]
fn a_full_outbox_takes_nothing_and_counts_it() {
    let config = OutboxConfig { max_octets: 1 << 20, ..config() };
    let mut world = World::new(1, config);
    let mut taken = 0;
    let full = loop {
        match world.core.accept(world.now, Source::Ox, vec![event(taken, &format!("user{taken}"))]) {
            Ok(()) => taken += 1,
            Err(full) => break full,
        }
    };
    assert!(matches!(full, Full::Octets { held, max_octets: 1_048_576, .. } if held <= 1 << 20), "{full:?}");
    let many = (0..10).map(|n| event(n, "other")).collect();
    assert!(world.core.accept(world.now, Source::Http, many).is_err());
    assert_eq!(world.core.statistics().refused, [1, 10, 0]);
    world.collect();
    world.pass(600 * SECOND);
    assert_eq!(world.core.statistics().dropped.iter().sum::<u64>(), taken);
}

/// Anything may happen, in any order; then everybody comes back. Each line of subscribers has every event that was
/// accepted or refused, or was told to look again; no process had one published twice, or out of order.
#[test]
fn whatever_happens_nothing_is_lost_in_silence() {
    for seed in 1..400u64 {
        let gather = Duration::from_millis(seed % 3 * 5);
        let seeded = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // Sometimes there is room for thirty only.
        let max_octets = if seed % 4 == 0 { 24 * 1024 } else { config().max_octets };
        let mut world = World::new(seeded, OutboxConfig { gather, max_octets, ..config() });
        world.shared = seed % 2 == 0;
        let users: Vec<Cn> = (0..3).map(|n| Cn::new(&format!("user{n}")).unwrap()).collect();
        for cn in &users {
            for line in 0..2 {
                world.start(cn, line);
            }
        }
        // Each is known, so that its events are held for it.
        for cn in &users {
            world.accept(cn, 1);
        }
        world.pass(SECOND);
        for _ in 0..150 {
            let (cn, line) = (users[world.random(users.len())].clone(), world.random(2));
            match world.random(12) {
                0..4 => {
                    let count = world.random(5) as u64 + 1;
                    world.accept(&cn, count);
                }
                4 => world.last(&cn, line).health = Health::Dead,
                5 => {
                    let process = world.last(&cn, line);
                    if process.health == Health::Alive {
                        process.health = Health::Hangs;
                    }
                }
                6 => {
                    let process = world.last(&cn, line);
                    if process.health == Health::Hangs {
                        process.health = Health::Alive;
                    }
                }
                7 if world.last(&cn, line).health == Health::Dead => {
                    world.start(&cn, line);
                }
                8 => world.resolver_up = !world.resolver_up,
                9 => {
                    let time = Duration::from_millis(world.random(4000) as u64);
                    world.pass(time);
                }
                _ => {
                    for _ in 0..world.random(20) {
                        world.step();
                    }
                }
            }
        }
        world.resolver_up = true;
        for cn in &users {
            for line in 0..2 {
                if world.last(cn, line).health == Health::Dead {
                    world.start(cn, line);
                }
                world.last(cn, line).health = Health::Alive;
            }
        }
        for cn in &users {
            world.accept(cn, 1);
        }
        world.pass(60 * SECOND);
        for cn in &users {
            for line in &world.users[cn] {
                let resyncs: usize = line.0.iter().map(|process| process.resyncs).sum();
                let got: BTreeSet<u64> = line.got().into_iter().collect();
                let missing: Vec<u64> =
                    world.accepted[cn].iter().copied().filter(|id| !got.contains(id)).collect();
                assert!(missing.is_empty() || resyncs > 0, "seed {seed}, {cn}: {missing:?} of {line:#?}");
                for process in &line.0 {
                    assert!(process.order.is_sorted(), "seed {seed}: {:?}", process.order);
                }
            }
        }
        world.pass(1500 * SECOND);
        world.check_empty();
    }
}
