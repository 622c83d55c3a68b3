//! The bus of one process: events a second, from `publish` until every subscription that wants them has them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ocbus::bus::{Bus, Filter, Subscription};
use ocbus::wire::NewMessage;
use ocbus::{Event, EventKind, Mailbox};
use uuid::Uuid;

/// Events of one round: fewer than a queue holds.
const EVENTS: u64 = 64;

/// Events whose ids no bus has seen.
fn events(next_id: &mut u128) -> Vec<Event> {
    let message = NewMessage { uid: Some(7), subject: Some("Offer".into()), ..NewMessage::default() };
    let one = Event::new(Uuid::nil(), 0, "user1", Mailbox::new("INBOX", '/'), EventKind::MessageNew(message));
    (0..EVENTS)
        .map(|_| {
            *next_id += 1;
            Event { id: Uuid::from_u128(*next_id), ..one.clone() }
        })
        .collect()
}

/// Publishes the events and reads them at these subscriptions.
fn round(bus: &Bus, events: Vec<Event>, subscriptions: &mut [Subscription]) {
    for event in events {
        bus.publish(event);
    }
    for subscription in subscriptions {
        let mut read = 0;
        while subscription.try_recv().is_some() {
            read += 1;
        }
        assert_eq!(read, EVENTS);
    }
}

fn bus(criterion: &mut Criterion) {
    let mut next_id = 0;
    let mut group = criterion.benchmark_group("bus");
    group.throughput(Throughput::Elements(EVENTS));
    for subscribers in [1usize, 10, 1000] {
        // Everybody listens for the one user.
        let bus = Bus::new();
        let mut all: Vec<_> = (0..subscribers).map(|_| bus.subscribe(Filter::user("user1"))).collect();
        group.bench_function(format!("to_each_of/{subscribers}"), |bencher| {
            let setup = || events(&mut next_id);
            bencher.iter_batched(setup, |events| round(&bus, events, &mut all), BatchSize::LargeInput);
        });
    }
    // Everybody listens for a user of their own, as the sessions of a server do.
    let bus = Bus::new();
    let mut all: Vec<_> = (0..1000).map(|user| bus.subscribe(Filter::user(&format!("user{user}")))).collect();
    group.bench_function("to_one_of/1000", |bencher| {
        let setup = || events(&mut next_id);
        bencher.iter_batched(setup, |events| round(&bus, events, &mut all[1..2]), BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_millis(1500))
        .sample_size(20)
        .without_plots();
    targets = bus
}
criterion_main!(benches);
