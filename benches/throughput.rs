//! Publisher to native subscriber over tcp, beside NATS core, Redis pub/sub and libnanomsg in the same run: events a
//! second in a stream, and the time of one event alone from its publisher to its subscriber.
//!
//!     cargo bench --bench throughput
//!
//! Everything is on this machine, over tcp. Our events are real ones (a new mail with its UID); the peers carry as many
//! octets in each message and neither encode nor look at them. Their clients are bare sockets with large buffers: the
//! quickest that there can be. NATS and Redis have a server between the two, as they are made; we have a look-up in memcached
//! in front of each `publish`. Rounds take turns; medians are over rounds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::cast_precision_loss)]

#[path = "throughput/peers.rs"]
mod peers;

use std::time::{Duration, Instant};

use ocbus::bus::{Bus, Filter, Subscription};
use ocbus::publisher::{Publisher, PublisherConfig};
use ocbus::resolver::{Cn, Config, Resolver};
use ocbus::sandbox::Sandbox;
use ocbus::subscriber::{Subscriber, SubscriberConfig};
use ocbus::wire::openchange::DosCharset;
use ocbus::wire::{NewMessage, native::Batch};
use ocbus::{Event, EventKind, Mailbox};
use uuid::Uuid;

/// Events of one call of `publish`: what an IMAP client's change of many messages or a busy daemon makes. Of 780 such as ours
/// a batch is full.
const SLICES: [usize; 3] = [780, 400, 100];
/// Calls under way at once.
const CALLS: usize = 8;

struct Ours {
    publisher: Publisher,
    resolver: Resolver,
    _subscriber: Subscriber,
    subscription: Subscription,
    user: Cn,
    next_id: u128,
}

impl Ours {
    async fn start(memcached: &str) -> Ours {
        let config: Config = memcached.parse().unwrap();
        let resolver = || Resolver::new(&config, DosCharset::default(), Duration::from_secs(5));
        let bus = Bus::new();
        let user = Cn::new("bob").unwrap();
        let subscriber =
            Subscriber::start(SubscriberConfig::default(), resolver().await.unwrap(), bus.clone())
                .await
                .unwrap();
        subscriber.add(&user).await.unwrap();
        let config = PublisherConfig { budget: Duration::from_secs(20), ..PublisherConfig::default() };
        let looks_up = resolver().await.unwrap();
        let publisher = Publisher::new(looks_up.clone(), config).unwrap();
        let subscription = bus.subscribe_with_queue(Filter::user("bob"), 65_536);
        Ours { publisher, resolver: looks_up, _subscriber: subscriber, subscription, user, next_id: 0 }
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
        let publishing = tokio::spawn(async move {
            let mut calls = tokio::task::JoinSet::new();
            for slice in slices {
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

fn main() {
    let number = |name: &str, default: usize| {
        std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
    };
    let rounds = number("OCBUS_BENCH_ROUNDS", 7);
    let events = number("OCBUS_BENCH_EVENTS", 200_000);
    let singles = number("OCBUS_BENCH_SINGLES", 1000);

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached().unwrap();
    let mut ours = runtime.block_on(Ours::start(&memcached.configuration()));
    let mut batch = Batch::new();
    assert!(batch.push(&ours.event()).unwrap());
    // Of one more event in a batch.
    let one = batch.encode().len();
    assert!(batch.push(&ours.event()).unwrap());
    let octets = batch.encode().len() - one;

    let mut nats = peers::Nats::start(&sandbox);
    let mut redis = peers::Redis::start(&sandbox);
    let nanomsg = peers::Nanomsg::build(&sandbox);
    println!("{rounds} rounds of {events} events of {octets} octets, and of {singles} alone");

    let ours_by = SLICES.map(|slice| format!("ocbus, {slice} a publish"));
    let peers =
        ["NATS core", "Redis pub/sub", "libnanomsg PUSH/PULL", "ocbus, the look-up alone"].map(str::to_owned);
    let names: Vec<String> = ours_by.into_iter().chain(peers).collect();
    let (mut rates, mut times) = (vec![Vec::new(); names.len()], vec![Vec::new(); names.len()]);
    for round in 0..=rounds {
        let mut measured: Vec<(Option<f64>, Vec<u64>)> = Vec::new();
        for slice in SLICES {
            measured.push((Some(runtime.block_on(ours.stream(events, slice))), Vec::new()));
        }
        measured[0].1 = runtime.block_on(ours.singles(singles));
        measured.push((Some(nats.stream(events, octets)), nats.singles(singles, octets)));
        measured.push((Some(redis.stream(events, octets)), redis.singles(singles, octets)));
        let (rate, each) = nanomsg.run(events, octets, singles);
        measured.push((Some(rate), each));
        measured.push((None, runtime.block_on(ours.lookups(singles))));
        // The first warms up.
        for (peer, (rate, each)) in measured.into_iter().enumerate().filter(|_| round > 0) {
            rates[peer].extend(rate);
            times[peer].extend(each);
        }
    }
    println!("{:26} {:>12} {:>8} {:>10} {:>10}", "", "events/s", "x NATS", "p50, us", "p99, us");
    let of_nats = median(rates[SLICES.len()].clone());
    for (peer, name) in names.iter().enumerate() {
        let rate = match rates[peer].is_empty() {
            true => format!("{:12} {:8}", "", ""),
            false => {
                format!("{:12.0} {:8.2}", median(rates[peer].clone()), median(rates[peer].clone()) / of_nats)
            }
        };
        let each = match times[peer].is_empty() {
            true => String::new(),
            false => {
                let (p50, p99) = (percentile(&mut times[peer], 0.5), percentile(&mut times[peer], 0.99));
                format!("{p50:10.1} {p99:10.1}")
            }
        };
        println!("{name:26} {rate} {each}");
    }
}
