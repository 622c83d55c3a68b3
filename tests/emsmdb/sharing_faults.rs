//! What becomes of shared sessions when memcached restarts, hangs or forgets: both parts, each as a server of its own.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use ocbus::bus::Bus;
use ocbus::emsmdb::{
    Emsmdb, EmsmdbConfig, EngineConfig, JoinError, NewSession, OpenError, Parked, Part, Sharing,
    Subscription, WaitOutcome,
};
use ocbus::resolver::{Cn, Config, Resolver, SessionRecords, SessionsError};
use ocbus::subscriber::SubscriberConfig;
use ocbus::wire::ResyncReason;
use ocbus::wire::openchange::{DosCharset, SessionRecord, Subscription as Entry};
use ocbus::wire::ropnotify::{self, NotificationTypes, Scope};
use ocbus::{Event, Subscriber};
use uuid::Uuid;

use super::rig::{ALL, CONTENTS, SUBSCRIPTION, cn, created, fid, folder_modified, popped_up};
use super::service::{LIMIT, knows, mail, until};
use super::sharing::{
    ASYNC, GUID, Scene, fetch, foreign, looks_again, of_mail, open, outcome, outlook, told,
};

/// The time limit of a call on memcached in these tests, as `Scene::records` has it.
const CALL: Duration = Duration::from_millis(500);

/// How soon a fetch gives nothing that has nothing to wait for: a generous bound for a busy machine.
const AT_ONCE: Duration = Duration::from_secs(3);

impl Scene {
    /// As [`Scene::server`], with a subscriber that watches memcached, as the C library has it.
    async fn watching(&self, part: Part) -> (Bus, Emsmdb) {
        let config: Config = self.memcached.configuration().parse().unwrap();
        let resolver = Resolver::new(&config, DosCharset::default(), CALL).await.unwrap();
        let sharing = Sharing { records: SessionRecords::new(&resolver), part };
        let bus = Bus::new();
        let config =
            SubscriberConfig { heartbeat: Duration::from_millis(100), ..SubscriberConfig::default() };
        let subscriber = Arc::new(Subscriber::start(config, resolver, bus.clone()).await.unwrap());
        let config = EmsmdbConfig::default();
        let emsmdb = Emsmdb::attach_shared(&bus, Some(subscriber), knows, sharing, config).unwrap();
        (bus, emsmdb)
    }
}

fn waiting(emsmdb: &Emsmdb, async_session: Uuid) -> tokio::task::JoinHandle<WaitOutcome> {
    let emsmdb = emsmdb.clone();
    tokio::spawn(async move { emsmdb.wait_async(async_session).await })
}

fn new(number: u128) -> NewSession {
    let cn = Cn::new(&format!("user{number}")).unwrap();
    NewSession { guid: Uuid::from_u128(number), cn, index: 7 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_memcached_deafens_neither_part() {
    let mut scene = Scene::new();
    let (_, emsmdb) = scene.watching(Part::Emsmdb).await;
    let (bus, asyncemsmdb) = scene.watching(Part::AsyncEmsmdb).await;
    let session = open(&emsmdb).await;
    until("joined", async || asyncemsmdb.join_session(ASYNC).await.is_ok()).await;
    looks_again(&session).await;
    bus.publish(mail(1));
    let inbox = folder_modified("INBOX", None, None);
    outlook(&session, &asyncemsmdb, |came| came.contains(&inbox)).await;
    let wait = waiting(&asyncemsmdb, ASYNC);
    until("parked", async || asyncemsmdb.statistics().parked == 1).await;
    scene.memcached.restart().unwrap();
    // Nothing is called and nothing fails: it is the canary that tells.
    let records = scene.records().await;
    until("written again", async || {
        records.session(&ASYNC).await.is_ok() && records.subscriptions(&GUID).await.is_ok()
    })
    .await;
    let told_of = outcome(async { wait.await.unwrap() }).await;
    assert_eq!(told_of, WaitOutcome::EventPending, "what was lost is made good, and nobody is unknown");
    outlook(&session, &asyncemsmdb, |came| came.contains(&inbox)).await;
    bus.publish(mail(2));
    let unknown = outlook(&session, &asyncemsmdb, |came| came.contains(&popped_up(2))).await;
    assert_eq!(unknown, 0);
}

/// Whoever has no subscriber to watch memcached, or is asked before the next heartbeat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_told_that_it_is_unknown_mends_it_with_its_next_call() {
    let mut scene = Scene::new();
    let (_, emsmdb) = scene.server(Part::Emsmdb).await;
    let (bus, asyncemsmdb) = scene.server(Part::AsyncEmsmdb).await;
    let session = open(&emsmdb).await;
    until("joined", async || asyncemsmdb.join_session(ASYNC).await.is_ok()).await;
    looks_again(&session).await;
    bus.publish(mail(1));
    let inbox = folder_modified("INBOX", None, None);
    outlook(&session, &asyncemsmdb, |came| came.contains(&inbox)).await;
    scene.memcached.restart().unwrap();
    let records = scene.records().await;
    // If the restart broke a call of its own, an absent record is no close for it for 10 s; and its opener may look at its
    // records just then, behind the client's last call.
    let asked = tokio::time::timeout(2 * LIMIT, asyncemsmdb.wait_async(ASYNC)).await.unwrap();
    assert!(matches!(asked, WaitOutcome::UnknownSession | WaitOutcome::EventPending), "{asked:?}");
    told(&session).await;
    until("written again", async || {
        records.session(&ASYNC).await.is_ok() && records.subscriptions(&GUID).await.is_ok()
    })
    .await;
    let next = waiting(&asyncemsmdb, ASYNC);
    until("joined", async || asyncemsmdb.statistics().sessions == 1).await;
    bus.publish(mail(2));
    assert_eq!(outcome(async { next.await.unwrap() }).await, WaitOutcome::EventPending);
    outlook(&session, &asyncemsmdb, |came| came.contains(&created("INBOX", 2))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_record_that_was_evicted_is_written_again() {
    let scene = Scene::new();
    let (_, emsmdb) = scene.server(Part::Emsmdb).await;
    let (bus, asyncemsmdb) = scene.server(Part::AsyncEmsmdb).await;
    let session = open(&emsmdb).await;
    session.unsubscribe(SUBSCRIPTION).unwrap();
    let scope = Scope::Folder(fid("INBOX"));
    session.subscribe(Subscription { handle: SUBSCRIPTION, logon_id: 0, types: ALL, scope }).unwrap();
    let records = scene.records().await;
    let is_written = async |records: &SessionRecords| {
        records.subscriptions(&GUID).await.is_ok_and(|entries| entries.len() == 1 && entries[0].fid != 0)
    };
    until("written", async || is_written(&records).await).await;
    until("joined", async || asyncemsmdb.join_session(ASYNC).await.is_ok()).await;
    bus.publish(mail(1));
    outlook(&session, &asyncemsmdb, |came| came.contains(&created("INBOX", 1))).await;

    // What had been subscribed is told of all the same.
    records.unsubscribe_all(&GUID).await.unwrap();
    bus.publish(mail(2));
    outlook(&session, &asyncemsmdb, |came| came.contains(&created("INBOX", 2))).await;
    until("subscription: again", async || {
        told(&session).await;
        is_written(&records).await
    })
    .await;
    records.unregister(&ASYNC).await.unwrap();
    until("session: again", async || {
        told(&session).await;
        records.session(&ASYNC).await.is_ok()
    })
    .await;
    // Replies went with it: their folder is told to have changed.
    until("nothing waits", async || told(&session).await.is_empty()).await;
    bus.publish(mail(3));
    until("appended", async || records.waiting_octets(&GUID).await.unwrap() > 0).await;
    records.discard(&GUID).await.unwrap();
    let inbox = folder_modified("INBOX", None, None);
    let mut came = Vec::new();
    until("made good", async || {
        came.extend(told(&session).await);
        came.contains(&inbox)
    })
    .await;
}

/// A mail before that would be told to nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_joined_is_told_to_look_when_its_user_is_registered_and_not_before() {
    let scene = Scene::new();
    let (_, emsmdb) = scene.server(Part::Emsmdb).await;
    let session = open(&emsmdb).await;
    let records = scene.records().await;
    until("connected", async || records.session(&ASYNC).await.is_ok()).await;
    // Registrations are held up, and OpenChange's records are not.
    let registry = Scene::new();
    let config: Config = registry.memcached.configuration().parse().unwrap();
    let resolver = Resolver::new(&config, DosCharset::default(), LIMIT).await.unwrap();
    let bus = Bus::new();
    let subscriber = Subscriber::start(SubscriberConfig::default(), resolver, bus.clone()).await.unwrap();
    let sharing = Sharing { records: scene.records().await, part: Part::AsyncEmsmdb };
    let subscriber = Some(Arc::new(subscriber));
    let asyncemsmdb =
        Emsmdb::attach_shared(&bus, subscriber, knows, sharing, EmsmdbConfig::default()).unwrap();
    registry.memcached.stop().unwrap();
    // One that goes before it is told leaves that to the next.
    {
        let mut gone = pin!(asyncemsmdb.join_session(ASYNC));
        until("joined", async || {
            // Polled once.
            let polled = poll_fn(|context| Poll::Ready(gone.as_mut().poll(context).is_ready())).await;
            assert!(!polled);
            asyncemsmdb.statistics().sessions == 1
        })
        .await;
    }
    let joining = {
        let asyncemsmdb = asyncemsmdb.clone();
        tokio::spawn(async move { asyncemsmdb.join_session(ASYNC).await.is_ok() })
    };
    assert_eq!(asyncemsmdb.statistics().resyncs, 0);
    registry.memcached.cont().unwrap();
    assert!(joining.await.unwrap());
    assert_eq!(asyncemsmdb.statistics().resyncs, 1);
    looks_again(&session).await;
}

/// Their opener is about to write their records again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_needs_room_does_not_get_that_of_sessions_that_are_perhaps_forgotten() {
    let scene = Scene::new();
    let engine = EngineConfig { sessions_per_user: 1, ..EngineConfig::default() };
    let (bus, asyncemsmdb) = scene.server_with(Part::AsyncEmsmdb, engine).await;
    let records = scene.records().await;
    let other = Uuid::from_u128(3);
    for (number, async_session) in [(1, ASYNC), (2, other)] {
        let record = SessionRecord { session: Uuid::from_u128(number), cn: cn().to_string() };
        records.register(&async_session, &record).await.unwrap();
    }
    until("joined", async || asyncemsmdb.join_session(ASYNC).await.is_ok()).await;
    bus.publish(Event::resync(Uuid::now_v7(), ocbus::now_us(), "", ResyncReason::ResolverLost, 1));
    until("heard", async || asyncemsmdb.statistics().events == 1).await;
    let heard = Instant::now();
    records.unregister(&ASYNC).await.unwrap();
    let joined = asyncemsmdb.join_session(other).await;
    // For 10 s.
    if heard.elapsed() < LIMIT / 2 {
        assert!(matches!(joined, Err(JoinError::Open(OpenError::TooManyOfUser { .. }))), "{joined:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_do_not_wait_for_a_memcached_that_hangs_and_what_was_opened_since_is_told_of_later() {
    const MAILS: u32 = 20;
    let scene = Scene::new();
    let (bus, asyncemsmdb) = scene.server(Part::AsyncEmsmdb).await;
    let records = scene.records().await;
    let record = SessionRecord { session: GUID, cn: cn().to_string() };
    records.register(&ASYNC, &record).await.unwrap();
    until("joined", async || asyncemsmdb.join_session(ASYNC).await.is_ok()).await;
    let (flags, fid) = (NotificationTypes::TABLE_MODIFIED.bits(), fid("INBOX").as_u64());
    let table = Entry { handle: CONTENTS, flags, fid, mid: 0, properties: vec![] };
    records.replace_subscriptions(&GUID, &[table]).await.unwrap();
    scene.memcached.stop().unwrap();
    let begun = Instant::now();
    for uid in 1..=MAILS {
        bus.publish(mail(uid));
        until("heard", async || asyncemsmdb.statistics().events == u64::from(uid)).await;
    }
    assert!(begun.elapsed() < CALL * MAILS / 2, "{:?}", begun.elapsed());
    scene.memcached.cont().unwrap();
    until("told", async || records.waiting_octets(&GUID).await.is_ok_and(|octets| octets > 0)).await;
    let replies = records.take(&GUID).await.unwrap().replies;
    assert!(ropnotify::split(&replies).all(|reply| reply.unwrap().handle == CONTENTS));
    assert_eq!(asyncemsmdb.sharing_statistics().sessions, 1);
}

/// A resync makes replies, and calls of the client: memcached would forget the more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forgotten_again_and_again_makes_few_resyncs_and_one_behind_the_last() {
    let scene = Scene::new();
    let (_, emsmdb) = scene.server(Part::Both).await;
    let session = open(&emsmdb).await;
    let records = scene.records().await;
    let begun = Instant::now();
    for _ in 0..20 {
        records.append(&GUID, &foreign(1), b"").await.unwrap();
        until("found", async || !told(&session).await.is_empty()).await;
        records.discard(&GUID).await.unwrap();
        told(&session).await;
    }
    let resyncs = emsmdb.statistics().resyncs;
    let forgotten = emsmdb.sharing_statistics().forgotten;
    assert!(forgotten >= 10, "{forgotten}");
    assert!(resyncs <= 1 + begun.elapsed().as_secs() / 2, "{resyncs} in {:?}", begun.elapsed());
    let inbox = folder_modified("INBOX", None, None);
    until("told", async || told(&session).await.contains(&inbox)).await;
}

/// OpenChange has users whose names nobody can be told by: told that its session is unknown, such a client would wait
/// again at once, and find it where it was opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_user_no_event_can_be_for_is_rejected() {
    let scene = Scene::new();
    let (_, asyncemsmdb) = scene.server(Part::AsyncEmsmdb).await;
    let record = SessionRecord { session: GUID, cn: "John Doe".to_owned() };
    scene.records().await.register(&ASYNC, &record).await.unwrap();
    assert_eq!(outcome(asyncemsmdb.wait_async(ASYNC)).await, WaitOutcome::Rejected);
    let refused = asyncemsmdb.join_session(ASYNC).await.unwrap_err();
    assert!(refused.to_string().contains("John Doe"), "{refused}");
}

/// In the process that opened it no record is needed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_user_no_record_can_hold_is_waited_for_where_it_was_opened() {
    let scene = Scene::new();
    let (_, emsmdb) = scene.server(Part::Both).await;
    let session = emsmdb.open(NewSession { guid: GUID, cn: Cn::new("\u{2603}").unwrap(), index: 7 }).unwrap();
    session.connect_async(ASYNC).await.unwrap();
    let records = scene.records().await;
    assert!(matches!(records.session(&ASYNC).await, Err(SessionsError::NotFound { .. })));
    records.append(&GUID, &foreign(1), b"").await.unwrap();
    until("known", async || emsmdb.join_session(ASYNC).await.is_ok()).await;
    assert_eq!(outcome(emsmdb.wait_async(ASYNC)).await, WaitOutcome::EventPending);
}

/// However soon behind the last look at the records: a client that is not woken any more does not call again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eviction_just_behind_a_look_is_seen_without_another_call() {
    let scene = Scene::new();
    let (_, emsmdb) = scene.server(Part::Emsmdb).await;
    let session = open(&emsmdb).await;
    let records = scene.records().await;
    until("written", async || records.subscriptions(&GUID).await.is_ok()).await;
    assert_eq!(told(&session).await, []);
    // It returns when all is done that was due, the look among it.
    session.connect_async(ASYNC).await.unwrap();
    records.unsubscribe_all(&GUID).await.unwrap();
    records.append(&GUID, &foreign(1), b"").await.unwrap();
    assert_eq!(told(&session).await.len(), 1);
    until("written again", async || records.subscriptions(&GUID).await.is_ok()).await;
}

/// One whose opener does not write it again, or not yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_nothing_is_told_any_more_all_is() {
    let scene = Scene::new();
    let (bus, asyncemsmdb) = scene.server(Part::AsyncEmsmdb).await;
    let records = scene.records().await;
    let record = SessionRecord { session: GUID, cn: cn().to_string() };
    records.register(&ASYNC, &record).await.unwrap();
    let contents = NotificationTypes::TABLE_MODIFIED.bits();
    let entries = [(CONTENTS, contents, fid("INBOX")), (SUBSCRIPTION, ALL.bits(), fid("Sent"))]
        .map(|(handle, flags, fid)| Entry { handle, flags, fid: fid.as_u64(), mid: 0, properties: vec![] });
    records.replace_subscriptions(&GUID, &entries).await.unwrap();
    until("joined", async || asyncemsmdb.join_session(ASYNC).await.is_ok()).await;
    let both = BTreeSet::from([CONTENTS, SUBSCRIPTION]);
    // Which handles are told of something until these are.
    let told_to = async |wanted: &BTreeSet<u32>| {
        let mut handles = BTreeSet::new();
        until("told", async || {
            let taken = records.take(&GUID).await.unwrap().replies;
            handles.extend(ropnotify::split(&taken).map(|reply| reply.unwrap().handle));
            handles.is_superset(wanted)
        })
        .await;
    };
    told_to(&both).await;
    records.unsubscribe_all(&GUID).await.unwrap();
    bus.publish(mail(1));
    told_to(&BTreeSet::from([CONTENTS])).await;
    bus.publish(mail(2));
    told_to(&both).await;
    let heard = async |events| {
        until("heard", async || {
            let statistics = asyncemsmdb.statistics();
            (statistics.events, statistics.pending) == (events, 0)
        })
        .await;
        asyncemsmdb.statistics().queued
    };
    let queued = heard(2).await;
    bus.publish(mail(3));
    assert_eq!(heard(3).await, queued, "it is taken for released");
    // And all once more when it is there again: something has happened meanwhile.
    records.replace_subscriptions(&GUID, &entries).await.unwrap();
    bus.publish(mail(4));
    told_to(&both).await;
}

/// Released, the last subscription takes the record along: that is not to be taken for an eviction for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_released_everything_is_told_of_nothing() {
    let scene = Scene::new();
    let (_, emsmdb) = scene.server(Part::Emsmdb).await;
    let (bus, asyncemsmdb) = scene.server(Part::AsyncEmsmdb).await;
    let session = open(&emsmdb).await;
    until("joined", async || asyncemsmdb.join_session(ASYNC).await.is_ok()).await;
    looks_again(&session).await;
    bus.publish(mail(1));
    outlook(&session, &asyncemsmdb, |came| came.contains(&popped_up(1))).await;
    session.unsubscribe(SUBSCRIPTION).unwrap();
    let records = scene.records().await;
    until("released", async || records.subscriptions(&GUID).await.is_err()).await;
    // Once it may be an eviction, and once all is told.
    for uid in 2..=3 {
        bus.publish(mail(uid));
        until("heard", async || asyncemsmdb.statistics().events == u64::from(uid)).await;
    }
    let queued = asyncemsmdb.statistics().queued;
    bus.publish(mail(4));
    until("heard", async || asyncemsmdb.statistics().events == 4).await;
    assert_eq!(asyncemsmdb.statistics().queued, queued);
    // And one that is closed is not written to.
    session.close();
    until("removed", async || records.session(&ASYNC).await.is_err()).await;
    until("gone here too", async || {
        bus.publish(mail(5));
        asyncemsmdb.statistics().sessions == 0
    })
    .await;
    until("nothing is left behind", async || records.waiting(&GUID).await.is_err()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_long_for_a_memcached_that_hangs() {
    let scene = Scene::new();
    let (_, emsmdb) = scene.server(Part::Both).await;
    let mut sessions = Vec::new();
    for number in 1..=300 {
        let session = emsmdb.open(new(number)).unwrap();
        session.connect_async(Uuid::from_u128(number + 1_000)).await.unwrap();
        sessions.push(session);
    }
    scene.memcached.stop().unwrap();
    for session in &sessions {
        assert!(matches!(session.park(|_| {}), Parked::Parked(wait) if session.cancel(wait)));
    }
    until("all have failed once", async || emsmdb.sharing_statistics().failures >= 302).await;
    // One probe for all of them: each takes a call's time limit, and begins half a second behind the last.
    let (begun, before) = (Instant::now(), emsmdb.sharing_statistics().failures);
    // (Some may have been late for the first time.)
    until("five failures", async || emsmdb.sharing_statistics().failures >= before + 5).await;
    assert!(begun.elapsed() > CALL, "{:?}: as many retries as sessions", begun.elapsed());

    let newcomer = emsmdb.open(new(2_000)).unwrap();
    let begun = Instant::now();
    newcomer.connect_async(Uuid::from_u128(3_000)).await.unwrap();
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    let begun = Instant::now();
    assert_eq!(told(&newcomer).await, []);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());

    scene.memcached.cont().unwrap();
    let records = scene.records().await;
    until("written", async || records.session(&Uuid::from_u128(3_000)).await.is_ok()).await;
    // All the others are let go at once when one has found it back.
    for session in &sessions {
        // Parked, or ended by what waits: looked at either way.
        records.append(&session.guid(), &foreign(1), b"").await.unwrap();
        assert_eq!(outcome(session.wait()).await, WaitOutcome::EventPending);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_room_takes_nothing_away_from_the_next_wait() {
    let scene = Scene::new();
    let (_, emsmdb) = scene.server(Part::Emsmdb).await;
    let (bus, asyncemsmdb) = scene.server(Part::AsyncEmsmdb).await;
    let session = open(&emsmdb).await;
    until("joined", async || asyncemsmdb.join_session(ASYNC).await.is_ok()).await;
    looks_again(&session).await;
    let records = scene.records().await;
    for (uid, room) in [(1, 0), (2, 2)] {
        bus.publish(mail(uid));
        until("appended", async || records.waiting_octets(&GUID).await.unwrap() > 0).await;
        assert_eq!(fetch(&session, room).await, (vec![], true));
        assert_eq!(outcome(asyncemsmdb.wait_async(ASYNC)).await, WaitOutcome::EventPending, "room {room}");
        let mut came = Vec::new();
        until("all", async || {
            came.extend(told(&session).await);
            came.len() >= 3
        })
        .await;
        assert_eq!(came, of_mail(uid));
    }
    // Some were taken before, and wait here.
    let octets = [foreign(1), foreign(2)].concat();
    records.append(&GUID, &octets, b"").await.unwrap();
    let (first, pending) = fetch(&session, 41).await;
    assert!(first.len() == 1 && pending);
    assert_eq!(records.waiting_octets(&GUID).await.unwrap(), 0);
    records.append(&GUID, &foreign(3), b"").await.unwrap();
    let mut none = Vec::new();
    let taken = session.fetch(2, &mut none).await.unwrap();
    assert!(none.is_empty() && taken.pending, "the host is told that there is more");
    assert_eq!(records.waiting(&GUID).await.unwrap(), [foreign(2), foreign(3)].concat());
    assert_eq!(outcome(asyncemsmdb.wait_async(ASYNC)).await, WaitOutcome::EventPending);
    assert_eq!(told(&session).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_subscribed_since_counts_when_the_bus_was_too_quick() {
    let scene = Scene::new();
    let (_, emsmdb) = scene.server(Part::Emsmdb).await;
    let (bus, asyncemsmdb) = scene.server(Part::AsyncEmsmdb).await;
    let session = emsmdb.open_session(NewSession { guid: GUID, cn: cn(), index: 7 }).await.unwrap();
    session.connect_async(ASYNC).await.unwrap();
    let wait = waiting(&asyncemsmdb, ASYNC);
    until("parked", async || asyncemsmdb.statistics().parked == 1).await;
    let scope = Scope::Folder(fid("INBOX"));
    session.subscribe(Subscription { handle: SUBSCRIPTION, logon_id: 0, types: ALL, scope }).unwrap();
    let records = scene.records().await;
    until("written", async || records.subscriptions(&GUID).await.is_ok()).await;
    let id = Uuid::now_v7();
    bus.publish(Event::resync(id, ocbus::now_us(), "", ResyncReason::Overflow, 9));
    assert_eq!(outcome(async { wait.await.unwrap() }).await, WaitOutcome::EventPending);
    assert_eq!(told(&session).await, [folder_modified("INBOX", None, None)]);
}

/// A client that connects again with its GUID, while what was before is just being removed.
#[tokio::test]
async fn a_session_that_is_opened_again_at_once_hears() {
    let scene = Scene::new();
    let (bus, emsmdb) = scene.server(Part::Both).await;
    let records = scene.records().await;
    for uid in 1..=10 {
        let session = open(&emsmdb).await;
        records.append(&GUID, &foreign(1), b"").await.unwrap();
        // Held up on its way, so that it is under way for certain when the next one opens.
        scene.memcached.stop().unwrap();
        assert!(session.close());
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let again = emsmdb.open(NewSession { guid: GUID, cn: cn(), index: 7 }).unwrap();
        let subscription =
            Subscription { handle: SUBSCRIPTION, logon_id: 3, types: ALL, scope: Scope::Store };
        again.subscribe(subscription).unwrap();
        scene.memcached.cont().unwrap();
        again.connect_async(ASYNC).await.unwrap();
        bus.publish(mail(uid));
        let mut came = Vec::new();
        until("the mail", async || {
            came.extend(told(&again).await);
            came.contains(&folder_modified("INBOX", None, None))
        })
        .await;
        assert_eq!(came, of_mail(uid), "and nothing of its former life");
        until("both records", async || {
            records.session(&ASYNC).await.is_ok() && records.subscriptions(&GUID).await.is_ok()
        })
        .await;
        again.close();
        until("removed", async || {
            records.session(&ASYNC).await.is_err()
                && records.subscriptions(&GUID).await.is_err()
                && records.waiting(&GUID).await.is_err()
        })
        .await;
        until("forgotten", async || emsmdb.sharing_statistics().sessions == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_waits_of_one_asynchronous_session_one_is_rejected_without_memcached_too() {
    use ocbus::emsmdb::SecondWait;
    for policy in [SecondWait::Reject, SecondWait::Replace] {
        let mut scene = Scene::new();
        let engine = EngineConfig { second_wait: policy, ..EngineConfig::default() };
        let (_, asyncemsmdb) = scene.server_with(Part::AsyncEmsmdb, engine).await;
        scene.memcached.kill();
        let mut waits = [waiting(&asyncemsmdb, ASYNC), waiting(&asyncemsmdb, GUID)];
        until("tried", async || asyncemsmdb.sharing_statistics().failures >= 2).await;
        let mut second = waiting(&asyncemsmdb, ASYNC);
        let (rejected, kept) = match policy {
            SecondWait::Reject => (&mut second, &mut waits[0]),
            SecondWait::Replace => (&mut waits[0], &mut second),
        };
        assert_eq!(outcome(async { rejected.await.unwrap() }).await, WaitOutcome::Rejected);
        // The one that is kept is answered when memcached is back, which knows of neither.
        assert!(!kept.is_finished());
        scene.memcached.restart().unwrap();
        assert_eq!(outcome(async { kept.await.unwrap() }).await, WaitOutcome::UnknownSession);
        assert_eq!(outcome(async { (&mut waits[1]).await.unwrap() }).await, WaitOutcome::UnknownSession);
        // Answered, it is in nobody's way.
        assert_eq!(outcome(asyncemsmdb.wait_async(ASYNC)).await, WaitOutcome::UnknownSession);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_waits_ask_an_absent_memcached_as_one() {
    let mut scene = Scene::new();
    let (_, asyncemsmdb) = scene.server(Part::AsyncEmsmdb).await;
    scene.memcached.kill();
    let waits: Vec<_> = (1..=500).map(|number| waiting(&asyncemsmdb, Uuid::from_u128(number))).collect();
    until("all have failed once", async || asyncemsmdb.sharing_statistics().failures >= 501).await;
    let (begun, before) = (Instant::now(), asyncemsmdb.sharing_statistics().failures);
    until("five failures", async || asyncemsmdb.sharing_statistics().failures >= before + 5).await;
    assert!(begun.elapsed() > Duration::from_millis(900), "{:?}", begun.elapsed());
    scene.memcached.restart().unwrap();
    for wait in waits {
        assert_eq!(outcome(async { wait.await.unwrap() }).await, WaitOutcome::UnknownSession);
    }
}
