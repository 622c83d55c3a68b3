//! The embedded resolver instead of memcached: both resolvers, subscribers, the command and the Dovecot plugin use it
//! unchanged, and what it answers is what memcached answers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "embedded/limits.rs"]
mod limits;
#[path = "embedded/protocol.rs"]
mod protocol;
mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use ocbus::bus::{Bus, Filter};
use ocbus::embedded::{EmbeddedBind, EmbeddedConfig};
use ocbus::publisher::PublisherConfig;
use ocbus::resolver::{
    BlockingResolver, Canary, Census, Cn, Config, Listeners, Registered, Registration, Resolver, Settlement,
};
use ocbus::sandbox::{DovecotOptions, Sandbox, mail};
use ocbus::subscriber::SubscriberConfig;
use ocbus::wire::NewMessage;
use ocbus::wire::openchange::DosCharset;
use ocbus::{Embedded, Event, EventKind, Mailbox, Publisher, Subscriber};
use support::LIMIT;
use uuid::Uuid;

const SECOND: Duration = Duration::from_secs(1);

fn anywhere() -> EmbeddedConfig {
    EmbeddedConfig { bind: EmbeddedBind::Tcp("127.0.0.1:0".parse().unwrap()), ..EmbeddedConfig::default() }
}

fn listen(config: EmbeddedConfig) -> (Embedded, Config) {
    let embedded = Embedded::listen(config).unwrap();
    let config = embedded.config_string().parse().unwrap();
    (embedded, config)
}

async fn connect(config: &Config) -> Resolver {
    Resolver::new(config, DosCharset::default(), 5 * SECOND).await.unwrap()
}

fn cn(name: &str) -> Cn {
    Cn::new(name).unwrap()
}

fn registration(endpoint: &str, lease: Duration) -> Registration<'_> {
    Registration { endpoint, legacy: None, subscriber: Uuid::from_u128(1), lease }
}

/// The plugin's resolver blocks: on a thread of its own.
async fn plugin<T: Send + 'static>(
    config: &Config,
    call: impl FnOnce(&mut BlockingResolver, Instant) -> T + Send + 'static,
) -> T {
    let config = config.clone();
    let blocking = move || {
        let mut resolver = BlockingResolver::new(&config, DosCharset::default());
        call(&mut resolver, Instant::now() + 5 * SECOND)
    };
    tokio::task::spawn_blocking(blocking).await.unwrap()
}

async fn plugin_lookup(config: &Config, user: &Cn) -> Listeners {
    let user = user.clone();
    plugin(config, move |resolver, deadline| resolver.lookup(&user, deadline).unwrap()).await
}

async fn comes_renews_and_leaves(config: &Config) {
    let (resolver, bob) = (connect(config).await, cn("bob@example.org"));
    assert!(plugin_lookup(config, &bob).await.is_empty());
    let here = registration("tcp://h:1", 60 * SECOND);
    assert_eq!(resolver.register(&bob, here).await.unwrap(), Registered { new: true, missed: 0 });
    assert_eq!(resolver.register(&bob, here).await.unwrap(), Registered { new: false, missed: 0 });
    assert!(resolver.register_legacy(&bob, "tcp://h:2").await.unwrap());
    assert!(!resolver.register_legacy(&bob, "tcp://h:2").await.unwrap());
    let seen = plugin_lookup(config, &bob).await;
    assert_eq!(seen, resolver.lookup(&bob).await.unwrap(), "both read the same");
    assert_eq!((seen.native.len(), &*seen.legacy), (1, &["tcp://h:2".to_owned()][..]));
    let settlement = Settlement {
        missed: vec![(seen.native[0].clone(), 3)],
        gone_legacy: vec!["tcp://h:2".to_owned()],
        ..Settlement::default()
    };
    let settled = bob.clone();
    plugin(config, move |resolver, deadline| resolver.settle(&settled, &settlement, deadline)).await.unwrap();
    assert_eq!(resolver.register(&bob, here).await.unwrap(), Registered { new: false, missed: 3 });
    assert!(resolver.leave(&bob, "tcp://h:1", Uuid::from_u128(1)).await.unwrap());
    assert!(plugin_lookup(config, &bob).await.is_empty());

    let short = cn("short");
    resolver.register(&short, registration("tcp://h:1", SECOND)).await.unwrap();
    let (begun, mut me) = (Instant::now(), Canary::new(Uuid::from_u128(7)));
    while !resolver.lookup(&short).await.unwrap().is_empty() {
        assert!(begun.elapsed() < 3 * SECOND, "the lease ends");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!resolver.remembers(&mut me).await.unwrap());
    resolver.plant(&mut me).await.unwrap();
    assert!(resolver.remembers(&mut me).await.unwrap());
    resolver.uproot(&me).await.unwrap();
    assert!(!resolver.remembers(&mut me).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_resolvers_use_it_by_tcp_and_by_a_socket() {
    let (embedded, config) = listen(anywhere());
    comes_renews_and_leaves(&config).await;
    let statistics = embedded.statistics();
    assert!(statistics.hits > 0 && statistics.puts > 0 && statistics.accepted > 0, "{statistics:?}");
    assert_eq!((statistics.malformed, statistics.refused, statistics.rejected_peers), (0, 0, 0));
    let folder = tempfile::tempdir().unwrap();
    let bind = EmbeddedBind::Socket { path: folder.path().join("resolver.sock"), mode: Some(0o666) };
    let (embedded, config) = listen(EmbeddedConfig { bind: bind.clone(), ..anywhere() });
    comes_renews_and_leaves(&config).await;
    assert!(Embedded::listen(EmbeddedConfig { bind, ..anywhere() }).is_err(), "somebody listens there");
    embedded.stop().await;
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the socket's file is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_addition_of_eight_writers_is_lost() {
    let (_embedded, config) = listen(anywhere());
    let mut writers = Vec::new();
    for writer in 0..8 {
        let resolver = connect(&config).await;
        writers.push(tokio::spawn(async move {
            for n in 0..50 {
                let endpoint = format!("tcp://h{writer}:{n}");
                let bob = cn("bob");
                assert!(resolver.register(&bob, registration(&endpoint, 600 * SECOND)).await.unwrap().new);
                assert!(resolver.register_legacy(&bob, &endpoint).await.unwrap());
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let found = plugin_lookup(&config, &cn("bob")).await;
    assert_eq!((found.native.len(), found.legacy.len()), (400, 400));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_is_listed() {
    let (_embedded, config) = listen(anywhere());
    let resolver = connect(&config).await;
    let users: Vec<Cn> = (0..3000).map(|n| cn(&format!("jürgen{n}@example.org"))).collect();
    let all: Vec<_> = users.iter().map(|user| (user, registration("tcp://h:1", 60 * SECOND))).collect();
    assert!(resolver.register_many(&all).await.into_iter().all(|one| one.unwrap().new));
    assert!(resolver.lookup_many(&users).await.into_iter().all(|found| found.unwrap().native.len() == 1));
    let mut census = Census::new(&config, 5 * SECOND);
    let mut found = Vec::new();
    while let Some(cn) = census.next().await.unwrap() {
        found.push(cn);
    }
    found.sort();
    let mut users = users;
    users.sort();
    assert_eq!(found, users);
    let mut list = Command::new(env!("CARGO_BIN_EXE_ocbus"));
    list.args(["list", "--summary", "--json", "--resolver", &config.to_string()]);
    let output = tokio::task::spawn_blocking(move || list.output().unwrap()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("3000"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_is_back_after_its_restart_and_events_arrive() {
    let (embedded, config) = listen(anywhere());
    let bus = Bus::new();
    let resolver = connect(&config).await;
    let subscriber =
        Subscriber::start(SubscriberConfig::default(), resolver.clone(), bus.clone()).await.unwrap();
    let bob = cn("bob");
    subscriber.add(&bob).await.unwrap();
    let begun = Instant::now();
    while embedded.statistics().records < 2 {
        assert!(begun.elapsed() < LIMIT, "the canary is planted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let bind = match &config.servers[0] {
        ocbus::resolver::Server::Tcp { host, port, .. } => format!("{host}:{port}").parse().unwrap(),
        other => panic!("{other}"),
    };
    embedded.stop().await;
    let (again, _) = listen(EmbeddedConfig { bind: EmbeddedBind::Tcp(bind), ..anywhere() });
    assert_eq!(again.statistics().records, 0);
    let begun = Instant::now();
    while resolver.lookup(&bob).await.map_or(0, |found| found.native.len()) == 0 {
        assert!(begun.elapsed() < 2 * SECOND, "registered again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut events = bus.subscribe_with_queue(Filter::user("bob").kind("MessageNew"), 16);
    let publisher = Publisher::new(resolver, PublisherConfig::default()).unwrap();
    let kind = EventKind::MessageNew(NewMessage { uid: Some(7), ..NewMessage::default() });
    let event = Event::new(Uuid::now_v7(), ocbus::now_us(), "bob", Mailbox::new("INBOX", '/'), kind);
    publisher.publish(&bob, std::slice::from_ref(&event)).await.unwrap();
    let got = tokio::time::timeout(LIMIT, events.recv()).await.unwrap().unwrap();
    assert!(matches!(got.kind, EventKind::MessageNew(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plugin_delivers_through_it() {
    let (embedded, config) = listen(anywhere());
    let bus = Bus::new();
    let subscriber =
        Subscriber::start(SubscriberConfig::default(), connect(&config).await, bus.clone()).await.unwrap();
    subscriber.add(&cn("bob")).await.unwrap();
    let mut events = bus.subscribe_with_queue(Filter::user("bob").kind("MessageNew"), 16);
    let resolver = embedded.config_string();
    let deliver = move || {
        let sandbox = Sandbox::new().unwrap();
        let options = DovecotOptions::new(&["notify", "openchange"])
            .setting("openchange_resolver", &resolver)
            .setting("openchange_budget", "2000")
            .extra("lda_mailbox_autocreate = yes");
        let dovecot = sandbox.dovecot(options).unwrap();
        dovecot.deliver_lda("bob", mail("alice@example.org", "one", "Hi"), None).unwrap();
    };
    tokio::task::spawn_blocking(deliver).await.unwrap();
    let got = tokio::time::timeout(LIMIT, events.recv()).await.unwrap().unwrap();
    assert!(matches!(got.kind, EventKind::MessageNew(_)));
    assert_eq!(embedded.statistics().malformed, 0);
}
