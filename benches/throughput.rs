//! Publisher to native subscriber over tcp, beside NATS core, Redis pub/sub and libnanomsg in the same run: events a
//! second in a stream, and the time of one event alone from its publisher to its subscriber.
//!
//!     cargo bench --bench throughput
//!     cargo bench --bench throughput -- ocbus      # nothing beside it
//!
//! Everything is on this machine, over tcp. Our events are real ones (a new mail with its UID); the peers carry as many
//! octets in each message and neither encode nor look at them. Their clients are bare sockets with large buffers: the
//! quickest that there can be; NATS through its C client as well, as a program would have it. NATS and Redis have a server between the two, as they are made; we have a look-up
//! in front of each `publish`, in memcached, and for single events in the process's own memory as well. Rounds take turns;
//! medians are over rounds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::cast_precision_loss)]

#[path = "throughput/peers.rs"]
mod peers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ocbus::bus::{Bus, Filter, Subscription};
use ocbus::publisher::{Publisher, PublisherConfig};
use ocbus::resolver::{Cn, Config, MemoryStore, Resolver};
use ocbus::sandbox::Sandbox;
use ocbus::subscriber::{Subscriber, SubscriberConfig};
use ocbus::wire::openchange::DosCharset;
use ocbus::wire::{NewMessage, native::Batch};
use ocbus::{Event, EventKind, Mailbox};
use tokio::sync::Semaphore;
use uuid::Uuid;

/// Events of one call of `publish`: what an IMAP client's change of many messages or a busy daemon makes. Of 780 such as ours
/// a batch is full.
const SLICES: [usize; 3] = [780, 400, 100];
/// Calls under way at once.
const CALLS: usize = 8;

/// Events that the reader may be behind: far below its queue, so that a noisy machine costs time and not events.
const BEHIND: usize = 40_000;

struct Ours {
    publisher: Publisher,
    resolver: Resolver,
    _subscriber: Subscriber,
    subscription: Subscription,
    user: Cn,
    next_id: u128,
}

impl Ours {
    async fn in_memcached(memcached: &str) -> Ours {
        let config: Config = memcached.parse().unwrap();
        let resolver = || Resolver::new(&config, DosCharset::default(), Duration::from_secs(5));
        Ours::start(resolver().await.unwrap(), resolver().await.unwrap()).await
    }

    /// The look-up is a call.
    async fn in_memory() -> Ours {
        let resolver = Resolver::in_memory(MemoryStore::new());
        Ours::start(resolver.clone(), resolver).await
    }

    async fn start(subscribers: Resolver, publishers: Resolver) -> Ours {
        let bus = Bus::new();
        let user = Cn::new("bob").unwrap();
        let subscriber =
            Subscriber::start(SubscriberConfig::default(), subscribers, bus.clone()).await.unwrap();
        subscriber.add(&user).await.unwrap();
        let config = PublisherConfig { budget: Duration::from_secs(20), ..PublisherConfig::default() };
        let publisher = Publisher::new(publishers.clone(), config).unwrap();
        let subscription = bus.subscribe_with_queue(Filter::user("bob"), 65_536);
        Ours { publisher, resolver: publishers, _subscriber: subscriber, subscription, user, next_id: 0 }
    }

    fn event(&mut self) -> Event {
        self.next_id += 1;
        let message = NewMessage { uid: Some(7), ..NewMessage::default() };
        let kind = EventKind::MessageNew(message);
        Event::new(
            Uuid::from_u128(self.next_id),
            1_767_225_600_000_000,
            "bob",
            Mailbox::new("INBOX", '/'),
            kind,
        )
    }

    /// Events a second, from the first call until the last event is read from the subscription.
    async fn stream(&mut self, events: usize, slice: usize) -> f64 {
        let slices: Vec<Vec<Event>> =
            (0..events / slice).map(|_| (0..slice).map(|_| self.event()).collect()).collect();
        let total = slices.len() * slice;
        let begun = Instant::now();
        let (publisher, user) = (self.publisher.clone(), self.user.clone());
        let room = Arc::new(Semaphore::new(BEHIND));
        let taken = Arc::clone(&room);
        let publishing = tokio::spawn(async move {
            let mut calls = tokio::task::JoinSet::new();
            for slice in slices {
                let events = u32::try_from(slice.len()).unwrap();
                taken.acquire_many(events).await.unwrap().forget();
                if calls.len() == CALLS {
                    calls.join_next().await.unwrap().unwrap();
                }
                let (publisher, user) = (publisher.clone(), user.clone());
                calls.spawn(async move {
                    let report = publisher.publish(&user, &slice).await.unwrap();
                    assert!(report.taken() == 1, "{report:?}");
                });
            }
            calls.join_all().await;
        });
        let mut read = 0;
        while read < total {
            let event = self.subscription.recv().await.unwrap();
            assert!(!matches!(event.kind, EventKind::Resync { .. }), "the queue was too short");
            read += 1;
            if read % slice == 0 {
                room.add_permits(slice);
            }
        }
        let rate = total as f64 / begun.elapsed().as_secs_f64();
        publishing.await.unwrap();
        rate
    }

    /// Nanoseconds from `publish` to the subscription, for each of `count` events alone.
    async fn singles(&mut self, count: usize) -> Vec<u64> {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let event = [self.event()];
            let begun = Instant::now();
            let (report, arrived) = tokio::join!(self.publisher.publish(&self.user, &event), async {
                self.subscription.recv().await.unwrap();
                begun.elapsed()
            });
            report.unwrap();
            times.push(u64::try_from(arrived.as_nanos()).unwrap());
        }
        times
    }

    /// Nanoseconds of the look-up alone.
    async fn lookups(&self, count: usize) -> Vec<u64> {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let begun = Instant::now();
            self.resolver.lookup(&self.user).await.unwrap();
            times.push(u64::try_from(begun.elapsed().as_nanos()).unwrap());
        }
        times
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn percentile(values: &mut [u64], share: f64) -> f64 {
    values.sort_unstable();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let place = ((values.len() - 1) as f64 * share) as usize;
    values[place] as f64 / 1000.0
}

/// One row of the table.
struct Row {
    name: String,
    /// Events a second, of each round.
    rates: Vec<f64>,
    /// Nanoseconds of each event alone.
    times: Vec<u64>,
}

/// What a peer did in one round: a rate, where it was measured, and times.
type Measured = (Option<f64>, Vec<u64>);

/// The other ways to carry events.
struct Peers {
    nats: peers::Nats,
    redis: peers::Redis,
    /// NATS' own client, in C.
    nats_client: peers::Program,
    nanomsg: peers::Program,
}

impl Peers {
    fn start(sandbox: &Sandbox) -> Peers {
        Peers {
            nats: peers::Nats::start(sandbox),
            redis: peers::Redis::start(sandbox),
            nats_client: peers::Program::build(sandbox, "nats", "-lnats"),
            nanomsg: peers::Program::build(sandbox, "nanomsg", "-lnanomsg"),
        }
    }

    fn round(&mut self, events: usize, octets: usize, singles: usize) -> Vec<(&'static str, Measured)> {
        let nats = (Some(self.nats.stream(events, octets)), self.nats.singles(singles, octets));
        let redis = (Some(self.redis.stream(events, octets)), self.redis.singles(singles, octets));
        let client = self.nats_client.run(self.nats.port(), events, octets, singles);
        let nanomsg = self.nanomsg.run(peers::free_port(), events, octets, singles);
        let some = |(rate, each)| (Some(rate), each);
        vec![
            (NATS, nats),
            ("NATS core, C client", some(client)),
            ("Redis pub/sub, bare", redis),
            ("libnanomsg PUSH/PULL", some(nanomsg)),
        ]
    }
}

const NATS: &str = "NATS core, bare";

/// Ours in one round: all of it in tasks of the runtime, as a program has it.
async fn ours_round(
    ours: &mut Ours,
    in_memory: &mut Ours,
    events: usize,
    singles: usize,
) -> Vec<(String, Measured)> {
    let mut measured = Vec::new();
    for (at, slice) in SLICES.into_iter().enumerate() {
        let rate = ours.stream(events, slice).await;
        let times = if at == 0 { ours.singles(singles).await } else { Vec::new() };
        measured.push((format!("ocbus, {slice} a publish"), (Some(rate), times)));
    }
    measured.push(("ocbus, resolver in memory".to_owned(), (None, in_memory.singles(singles).await)));
    measured.push(("ocbus, the look-up alone".to_owned(), (None, ours.lookups(singles).await)));
    measured
}

fn main() {
    let number = |name: &str, default: usize| {
        std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
    };
    let rounds = number("OCBUS_BENCH_ROUNDS", 7);
    let events = number("OCBUS_BENCH_EVENTS", 200_000);
    let singles = number("OCBUS_BENCH_SINGLES", 1000);
    let alone = std::env::args().any(|argument| argument == "ocbus");

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached().unwrap();
    let (mut ours, mut in_memory) = runtime
        .block_on(async { (Ours::in_memcached(&memcached.configuration()).await, Ours::in_memory().await) });
    let mut batch = Batch::new();
    assert!(batch.push(&ours.event()).unwrap());
    // Of one more event in a batch.
    let one = batch.encode().len();
    assert!(batch.push(&ours.event()).unwrap());
    let octets = batch.encode().len() - one;

    let mut peers = (!alone).then(|| Peers::start(&sandbox));
    println!("{rounds} rounds of {events} events of {octets} octets, and of {singles} alone");
    let mut rows: Vec<Row> = Vec::new();
    for round in 0..=rounds {
        let mut measured;
        (ours, in_memory, measured) = runtime.block_on(async {
            let round = tokio::spawn(async move {
                let measured = ours_round(&mut ours, &mut in_memory, events, singles).await;
                (ours, in_memory, measured)
            });
            round.await.unwrap()
        });
        if let Some(peers) = &mut peers {
            let more = peers.round(events, octets, singles);
            measured.extend(more.into_iter().map(|(name, measured)| (name.to_owned(), measured)));
        }
        // The first warms up.
        for (at, (name, (rate, times))) in measured.into_iter().enumerate().filter(|_| round > 0) {
            if rows.len() == at {
                rows.push(Row { name, rates: Vec::new(), times: Vec::new() });
            }
            rows[at].rates.extend(rate);
            rows[at].times.extend(times);
        }
    }
    print(&mut rows);
}

fn print(rows: &mut [Row]) {
    println!(
        "{:26} {:>12} {:>24} {:>8} {:>10} {:>10}",
        "", "events/s", "least to most", "x NATS", "p50, us", "p99, us"
    );
    let of_nats = rows.iter().find(|row| row.name == NATS).map(|row| median(row.rates.clone()));
    for row in rows {
        let mut line = format!("{:26}", row.name);
        if row.rates.is_empty() {
            line.push_str(&" ".repeat(47));
        } else {
            let middle = median(row.rates.clone());
            let least = row.rates.iter().copied().fold(f64::INFINITY, f64::min);
            let most = row.rates.iter().copied().fold(0.0, f64::max);
            let range = format!("{least:.0} to {most:.0}");
            let share = of_nats.map_or_else(String::new, |nats| format!("{:.2}", middle / nats));
            line.push_str(&format!(" {middle:12.0} {range:>24} {share:>8}"));
        }
        if !row.times.is_empty() {
            let (p50, p99) = (percentile(&mut row.times, 0.5), percentile(&mut row.times, 0.99));
            line.push_str(&format!(" {p50:10.1} {p99:10.1}"));
        }
        println!("{line}");
    }
}
