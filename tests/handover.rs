//! Our plugin hands its events over to the daemon's outbox, with real dovecot-lda and LMTP: what is accepted arrives
//! once, whatever happens to a subscriber or to memcached; and without the daemon the direct way is taken within the
//! same budget. The outbox is this process's own, so that its counters can be read; `handover_serve.rs` has a real daemon.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ocbus::handover::{HandOver, HandOverConfig};
use ocbus::outbox::{Full, Outbox, OutboxConfig, Reason, Source, Statistics};
use ocbus::publisher::PublisherConfig;
use ocbus::resolver::{Config, Resolver};
use ocbus::sandbox::faults::IpcBlackhole;
use ocbus::sandbox::mail;
use ocbus::subscriber::SubscriberConfig;
use ocbus::wire::openchange::DosCharset;
use ocbus::wire::{Endpoint, ResyncReason};
use ocbus::{Event, EventKind, Mailbox, Publisher};
use support::{Listening, Site, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Where nothing listens: a plugin that asked memcached there would complain.
const NO_MEMCACHED: &str = "--SERVER=127.0.0.1:1";

/// A budget that a busy machine does not use up, and that a test can wait for.
const BUDGET: Duration = Duration::from_millis(1000);

/// A folder for the daemon's socket that mail users may enter.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let folder = tempfile::Builder::new().prefix("ocbus-bus-").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Place(folder)
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("bus.sock")
    }

    fn url(&self) -> String {
        format!("ipc://{}", self.socket().display())
    }

    fn site(&self) -> Site {
        let budget = BUDGET.as_millis().to_string();
        Site::with(|options| {
            options.setting("openchange_bus", &self.url()).setting("openchange_budget", &budget)
        })
    }

    /// One whose plugin cannot do without the daemon.
    fn site_without_resolver(&self) -> Site {
        Site::with(|options| {
            options.setting("openchange_bus", &self.url()).setting("openchange_resolver", NO_MEMCACHED)
        })
    }
}

/// Quick enough for a test.
fn quick() -> OutboxConfig {
    OutboxConfig { retry_max: Duration::from_millis(200), ..OutboxConfig::default() }
}

/// An outbox of this process, and its socket.
struct Daemon {
    outbox: Outbox,
    handover: HandOver,
}

impl Daemon {
    async fn start(memcached: &str, socket: &Path, config: OutboxConfig) -> Daemon {
        let resolver_config = Config::parse(memcached).unwrap();
        let limit = Duration::from_millis(500);
        let resolver = Resolver::new(&resolver_config, DosCharset::default(), limit).await.unwrap();
        let publisher = Publisher::new(resolver.clone(), PublisherConfig::default()).unwrap();
        let outbox = Outbox::start(publisher, resolver, config).unwrap();
        let listen = Endpoint::Ipc { path: socket.to_str().unwrap().to_owned() };
        let config = HandOverConfig { listen, mode: 0o666, group: None };
        let handover = HandOver::listen(&config, outbox.clone()).unwrap();
        Daemon { outbox, handover }
    }

    async fn of(site: &Site, place: &Place, config: OutboxConfig) -> Daemon {
        Daemon::start(&site.memcached.configuration(), &place.socket(), config).await
    }

    fn statistics(&self) -> Statistics {
        self.outbox.statistics()
    }

    fn dropped(&self, reason: Reason) -> u64 {
        let at = Reason::ALL.iter().position(|one| *one == reason).unwrap();
        self.statistics().dropped[at]
    }

    fn accepted(&self) -> u64 {
        self.statistics().accepted.iter().sum()
    }

    /// Waits until nothing is held, and until all accounts balance.
    fn settle(&self) {
        until("nothing is held", || self.statistics().held_events == 0);
        let statistics = self.statistics();
        let dropped: u64 = statistics.dropped.iter().sum();
        assert_eq!(self.accepted(), statistics.delivered + dropped, "{statistics:?}");
    }
}

/// The uids of the next mails, without doubles or anything else in between.
async fn uids(listening: &mut Listening, count: usize) -> Vec<u32> {
    let mut uids = Vec::new();
    for _ in 0..count {
        uids.push(listening.next_mail().await.1.uid.unwrap());
    }
    uids
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_handed_over_reaches_every_endpoint_and_the_plugin_asks_nobody() {
    let place = Place::new();
    let site = place.site_without_resolver();
    let daemon = Daemon::of(&site, &place, quick()).await;
    let (mut native, mut legacy) = (site.native("bob").await, site.legacy("bob").await);
    let mut carol = site.native("carol").await;
    site.deliver("bob", None, "one");
    site.deliver("bob", Some("Entwürfe"), "two");
    site.deliver("bob", None, "three");
    for listening in [&mut native, &mut legacy] {
        for (subject, folder) in [("one", "INBOX"), ("two", "Entwürfe"), ("three", "INBOX")] {
            let (event, message) = listening.next_mail().await;
            assert_eq!(event.mailbox.as_ref().unwrap().name, folder);
            assert!(message.subject.is_none_or(|told| told == subject));
        }
    }
    let mut lmtp = site.dovecot.lmtp().unwrap();
    for uid in 1..=20 {
        let sent = mail("alice@example.org", "to all", "Hi");
        let replies = lmtp.deliver("alice@example.org", &["carol", "nobody-listens"], &sent).unwrap();
        assert!(replies.iter().all(|reply| reply.is_ok()), "{replies:?}");
        assert_eq!(carol.next_mail().await.1.uid, Some(uid));
    }
    lmtp.quit().unwrap();
    // Each mail, and that Entwürfe was made for the second.
    assert_eq!(daemon.accepted(), 44);
    assert_eq!(daemon.handover.statistics().batches, 43);
    for listening in [&mut native, &mut legacy, &mut carol] {
        listening.assert_quiet();
    }
    assert_eq!(site.warnings(), Vec::<String>::new());
    site.assert_sound();
    // In the first seconds somebody may still come.
    until("the others are settled", || daemon.statistics().held_events == 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_the_direct_way_is_taken() {
    let place = Place::new();
    let site = place.site();
    let (mut native, mut legacy) = (site.native("bob").await, site.legacy("bob").await);
    for uid in 1..=3 {
        assert!(site.deliver("bob", None, "x") < BUDGET, "it costs nothing");
        assert_eq!(native.next_mail().await.1.uid, Some(uid));
        assert_eq!(legacy.next_mail().await.1.uid, Some(uid));
    }
    let warnings = site.warnings();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings.iter().all(|line| line.contains("nobody listens there: sent directly")));
    // Something else listens there.
    let listener = tokio::net::UnixListener::bind(place.socket()).unwrap();
    std::fs::set_permissions(place.socket(), std::fs::Permissions::from_mode(0o666)).unwrap();
    let stranger = tokio::spawn(async move {
        let (mut peer, _) = listener.accept().await.unwrap();
        peer.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        // Until the peer has had enough.
        let _ = peer.read_to_end(&mut Vec::new()).await;
    });
    site.deliver("bob", None, "x");
    stranger.await.unwrap();
    assert_eq!((uids(&mut native, 1).await, uids(&mut legacy, 1).await), (vec![4], vec![4]));
    assert!(site.warnings()[3].contains("not the daemon: "), "{:?}", site.warnings());
    // One that takes no connection any more.
    std::fs::remove_file(place.socket()).unwrap();
    let _full = IpcBlackhole::new(&place.socket()).unwrap();
    let took = site.deliver("bob", None, "x");
    assert!(took >= BUDGET / 2 && took < BUDGET + BUDGET / 2, "{took:?}");
    assert_eq!((uids(&mut native, 1).await, uids(&mut legacy, 1).await), (vec![5], vec![5]));
    native.assert_quiet();
    legacy.assert_quiet();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_or_stopping_outbox_sends_the_plugin_the_direct_way() {
    let place = Place::new();
    let site = place.site();
    let config = OutboxConfig { max_octets: 1 << 20, max_user_octets: 1 << 20, ..quick() };
    let daemon = Daemon::of(&site, &place, config).await;
    let mut bob = site.native("bob").await;
    // Nobody is registered, and in the first seconds somebody may still come: they are held.
    let full = (0..10_000).find_map(|n| {
        let mailbox = Mailbox::new("INBOX", '/');
        let event = Event::new(
            uuid::Uuid::now_v7(),
            ocbus::now_us(),
            format!("user{n}"),
            mailbox,
            EventKind::MailboxCreate,
        );
        daemon.outbox.accept(Source::Http, vec![event]).err()
    });
    assert!(matches!(full, Some(Full::Octets { max_octets: 1_048_576, .. })), "{full:?}");
    site.deliver("bob", None, "full");
    assert_eq!(bob.next_mail().await.1.subject.as_deref(), Some("full"));
    assert_eq!(daemon.statistics().refused, [0, 1, 1]);
    daemon.outbox.drain(Duration::from_millis(100)).await;
    site.deliver("bob", None, "stopping");
    assert_eq!(bob.next_mail().await.1.subject.as_deref(), Some("stopping"));
    bob.assert_quiet();
    let warnings = site.warnings();
    assert!(
        warnings[0].contains("the outbox is full: ") && warnings[1].contains("is stopping"),
        "{warnings:?}"
    );
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_is_killed_and_comes_back_gets_what_it_missed_once() {
    let place = Place::new();
    let site = place.site_without_resolver();
    let daemon = Daemon::of(&site, &place, quick()).await;
    let mut bob = site.native("bob").await;
    let mut carol = site.native("carol").await;
    site.deliver("bob", None, "x");
    assert_eq!(uids(&mut bob, 1).await, [1]);
    for round in 0..3u32 {
        until("it is acknowledged", || daemon.statistics().held_events == 0);
        // Without a word: its lease stands, and its port refuses.
        drop(bob);
        for _ in 0..5 {
            site.deliver("bob", None, "x");
            site.deliver("carol", None, "x");
            carol.next_mail().await;
        }
        until("they are held", || daemon.statistics().held_events == 5);
        bob = site.native("bob").await;
        let first = 2 + round * 5;
        assert_eq!(uids(&mut bob, 5).await, (first..first + 5).collect::<Vec<u32>>());
        bob.assert_quiet();
    }
    daemon.settle();
    assert_eq!(daemon.statistics().delivered, 31);
    site.assert_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlives_its_time_to_live_is_counted_and_told_as_a_resync() {
    let place = Place::new();
    let site = place.site_without_resolver();
    let config = OutboxConfig { time_to_live: Duration::from_secs(1), ..quick() };
    let daemon = Daemon::of(&site, &place, config).await;
    let mut bob = site.native("bob").await;
    let mut carol = site.native("carol").await;
    site.deliver("bob", None, "x");
    assert_eq!(uids(&mut bob, 1).await, [1]);
    until("it is settled", || daemon.statistics().held_events == 0);
    drop(bob);
    for _ in 0..3 {
        site.deliver("bob", None, "x");
    }
    until("they are given up", || daemon.dropped(Reason::Abandoned) >= 3);
    let mut bob = site.native("bob").await;
    let told = bob.next().await;
    assert!(
        matches!(&told.kind, EventKind::Resync { reason: ResyncReason::Unreachable, missed: 3 }),
        "{told:?}"
    );
    site.deliver("bob", None, "again");
    assert_eq!(bob.next_mail().await.1.uid, Some(5));
    bob.assert_quiet();
    carol.assert_quiet();
    daemon.settle();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_memcached_is_outlived() {
    let place = Place::new();
    let mut site = place.site_without_resolver();
    let daemon = Daemon::of(&site, &place, quick()).await;
    let heartbeat = Duration::from_millis(100);
    let config = SubscriberConfig { heartbeat, ..SubscriberConfig::default() };
    let mut bob = site.subscriber(config, "bob").await;
    site.deliver("bob", None, "x");
    assert_eq!(uids(&mut bob, 1).await, [1]);
    site.memcached.kill();
    for _ in 0..5 {
        site.deliver("bob", None, "x");
    }
    until("the outbox sees it", || daemon.statistics().resolver_outage);
    assert_eq!(daemon.statistics().held_events, 5);
    // It comes back with nothing in it.
    site.memcached.restart().unwrap();
    let (mut mails, mut resyncs) = (Vec::new(), 0);
    while mails.len() < 5 {
        let event = bob.next().await;
        match &event.kind {
            EventKind::MessageNew(message) => mails.push(message.uid.unwrap()),
            EventKind::Resync { reason: ResyncReason::ResolverLost, .. } => resyncs += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        (mails, resyncs),
        (vec![2, 3, 4, 5, 6], 1),
        "the subscriber's own resync, and every mail once"
    );
    daemon.settle();
    assert_eq!(daemon.statistics().delivered, 6);
    assert_eq!(site.warnings(), Vec::<String>::new());
}
