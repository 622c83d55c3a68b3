//! A mail to everybody, on a server where everybody's OpenChange session has an endpoint of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use ocbus::bus::{Bus, Filter};
use ocbus::outbox::{Outbox, OutboxConfig, Source};
use ocbus::publisher::PublisherConfig;
use ocbus::resolver::Cn;
use ocbus::sandbox::Sandbox;
use ocbus::wire::NewMessage;
use ocbus::{Event, EventKind, Mailbox, Publisher, Subscriber};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{LIMIT, legacy_only, resolver};

/// More than a publisher has connections, and far more than it sends to at once.
const USERS: usize = 4_400;

/// Of the listening sockets, and of both ends of each connection.
fn allow_descriptors(count: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < count) {
        let wanted = Rlimit { current: Some(maximum.map_or(count, |most| most.min(count))), maximum };
        setrlimit(Resource::Nofile, wanted).unwrap();
        assert!(maximum.is_none_or(|most| most >= count), "the hard limit is {maximum:?}: expected {count}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_to_thousands_of_legacy_endpoints_reaches_all() {
    allow_descriptors(16_384);
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached().unwrap();
    let bus = Bus::new();
    let subscriber = Subscriber::start(legacy_only(), resolver(&memcached).await, bus.clone()).await.unwrap();
    let users: Vec<String> = (0..USERS).map(|number| format!("user{number}")).collect();
    for user in &users {
        subscriber.add(&Cn::new(user).unwrap()).await.unwrap();
    }
    let mut events = bus.subscribe_with_queue(Filter::all(), 65_536);
    let publisher = Publisher::new(resolver(&memcached).await, PublisherConfig::default()).unwrap();
    let outbox = Outbox::start(publisher, resolver(&memcached).await, OutboxConfig::default()).unwrap();
    for user in &users {
        let kind = EventKind::MessageNew(NewMessage { uid: Some(1), ..NewMessage::default() });
        let mailbox = Mailbox::new("INBOX", '/');
        let event = Event::new(uuid::Uuid::now_v7(), ocbus::now_us(), user.clone(), mailbox, kind);
        outbox.accept(Source::Http, vec![event]).unwrap();
    }
    let mut told = std::collections::HashSet::new();
    while told.len() < USERS {
        match tokio::time::timeout(LIMIT, events.recv()).await {
            Ok(event) => assert!(told.insert(event.unwrap().user.clone()), "twice"),
            Err(_) => panic!("{} were told; {:?}", told.len(), outbox.statistics()),
        }
    }
    outbox.drain(Duration::from_secs(5)).await;
    let statistics = outbox.statistics();
    assert_eq!((statistics.delivered, statistics.legacy_lost), (USERS as u64, 0), "{statistics:?}");
}
