//! The async layer, on a real bus and with real sockets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use ocbus::bus::Bus;
use ocbus::emsmdb::{
    Answer, AsyncIds, Emsmdb, EmsmdbConfig, EngineConfig, Ids, NewSession, Parked, Query, Reply, Session,
    Subscription, Table, TableKind, WaitOutcome, What,
};
use ocbus::publisher::PublisherConfig;
use ocbus::resolver::{Cn, MemoryStore, Resolver};
use ocbus::subscriber::SubscriberConfig;
use ocbus::wire::ropnotify::{self, Notification, Scope};
use ocbus::{Event, Mailbox, Publisher, Subscriber};
use uuid::Uuid;

use super::rig::{ALL, CONTENTS, SUBSCRIPTION, cn, created, fid, folder_modified, know, new_mail, popped_up};

pub(crate) const LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn knows(query: Query, reply: Reply) {
    reply.answer(know(&query));
}

fn attach(bus: &Bus, ids: impl Ids) -> Emsmdb {
    attach_with(bus, ids, EngineConfig::default())
}

fn attach_with(bus: &Bus, ids: impl Ids, engine: EngineConfig) -> Emsmdb {
    Emsmdb::attach(bus, None, ids, EmsmdbConfig { engine, ..EmsmdbConfig::default() }).unwrap()
}

fn new_session(guid: u128) -> NewSession {
    NewSession { guid: Uuid::from_u128(guid), cn: cn(), index: 7 }
}

/// A session that asked for everything.
fn open(emsmdb: &Emsmdb) -> Session {
    let session = emsmdb.open(new_session(1)).unwrap();
    let subscription = Subscription { handle: SUBSCRIPTION, logon_id: 0, types: ALL, scope: Scope::Store };
    session.subscribe(subscription).unwrap();
    session
}

pub(crate) fn mail(uid: u32) -> Event {
    Event::new(Uuid::now_v7(), ocbus::now_us(), "bob", Mailbox::new("INBOX", '/'), new_mail(uid))
}

fn told(session: &Session) -> Vec<Notification> {
    let mut out = Vec::new();
    session.take(1 << 20, &mut out).unwrap();
    ropnotify::split(&out).map(|reply| reply.unwrap().notification).collect()
}

async fn outcome(session: &Session) -> WaitOutcome {
    tokio::time::timeout(LIMIT, session.wait()).await.expect("an answer before the deadline")
}

/// Until something is so; what makes it so is under way.
pub(crate) async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !so().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_mail_completes_the_parked_wait() {
    let bus = Bus::new();
    let emsmdb = attach(&bus, AsyncIds::new(async |query: Query| know(&query)));
    let session = open(&emsmdb);
    let waiting = tokio::spawn({
        let session = session.clone();
        async move { session.wait().await }
    });
    until("parked", async || emsmdb.statistics().parked == 1).await;
    bus.publish(mail(1));
    assert_eq!(tokio::time::timeout(LIMIT, waiting).await.unwrap().unwrap(), WaitOutcome::EventPending);
    assert_eq!(told(&session), [popped_up(1), created("INBOX", 1), folder_modified("INBOX", None, None)]);
    assert!(!session.has_replies());
    assert_eq!(emsmdb.session(session.guid()).map(|found| found.guid()), Some(session.guid()));
    assert!(emsmdb.session(Uuid::nil()).is_none());
}

#[tokio::test]
async fn a_wait_that_is_dropped_loses_nothing() {
    let bus = Bus::new();
    let emsmdb = attach(&bus, knows);
    let session = open(&emsmdb);
    for uid in 1..=20 {
        {
            let wait = session.wait();
            tokio::pin!(wait);
            // Polled once, so that it is parked; then dropped, before or after the mail.
            tokio::select! {
                biased;
                outcome = &mut wait => panic!("{outcome:?}"),
                () = std::future::ready(()) => {}
            }
            assert_eq!(emsmdb.statistics().parked, 1);
            if uid % 2 == 0 {
                bus.publish(mail(uid));
                until("told", async || session.has_replies()).await;
            }
        }
        assert_eq!(emsmdb.statistics().parked, 0);
        if uid % 2 == 1 {
            bus.publish(mail(uid));
        }
        assert_eq!(outcome(&session).await, WaitOutcome::EventPending);
        assert_eq!(told(&session)[0], popped_up(uid));
    }
}

#[tokio::test]
async fn every_outcome_reaches_the_waiting() {
    let bus = Bus::new();
    let emsmdb =
        attach_with(&bus, knows, EngineConfig { wait: Duration::from_secs(1), ..Default::default() });
    let session = open(&emsmdb);
    assert_eq!(outcome(&session).await, WaitOutcome::TimedOut);
    let (first, second) = tokio::join!(outcome(&session), outcome(&session));
    assert_eq!((first, second), (WaitOutcome::TimedOut, WaitOutcome::Rejected));
    let closing = async {
        until("parked", async || emsmdb.statistics().parked == 1).await;
        assert!(session.close());
    };
    let (closed, ()) = tokio::join!(outcome(&session), closing);
    assert_eq!(closed, WaitOutcome::UnknownSession);
    assert_eq!(outcome(&session).await, WaitOutcome::UnknownSession);
    let session = open(&emsmdb);
    let stopping = async {
        until("parked", async || emsmdb.statistics().parked == 1).await;
        emsmdb.stop(LIMIT).await;
    };
    let (stopped, ()) = tokio::join!(outcome(&session), stopping);
    assert_eq!(stopped, WaitOutcome::Exiting);
}

#[tokio::test]
async fn a_wait_is_taken_back_by_its_own_session_alone() {
    let bus = Bus::new();
    let emsmdb = attach(&bus, knows);
    let (session, other) = (open(&emsmdb), emsmdb.open(new_session(2)).unwrap());
    let (done, completed) = tokio::sync::oneshot::channel();
    let Parked::Parked(wait) = session.park(|outcome| done.send(outcome).unwrap()) else { panic!() };
    assert!(!other.cancel(wait));
    bus.publish(mail(1));
    let answered = tokio::time::timeout(LIMIT, completed).await.expect("the wait is there still");
    assert_eq!(answered.unwrap(), WaitOutcome::EventPending);
    assert!(!session.cancel(wait), "answered");
}

/// Calls back when it is dropped, as what a host gives along may do.
struct CallsBack(Session, mpsc::Sender<bool>);

impl Drop for CallsBack {
    fn drop(&mut self) {
        self.1.send(self.0.has_replies()).unwrap();
    }
}

#[tokio::test]
async fn what_is_dropped_with_a_wait_may_call_back() {
    let bus = Bus::new();
    let emsmdb = attach(&bus, knows);
    let session = open(&emsmdb);
    let (called, calls) = mpsc::channel();
    // In a thread: one that waits for its own lock would wait for ever.
    std::thread::spawn(move || {
        let mut parked = Vec::new();
        for _ in 0..2 {
            let callback = CallsBack(session.clone(), called.clone());
            parked.push(session.park(move |_| drop(callback)));
        }
        // The second was rejected; the first is parked.
        let Parked::Parked(wait) = parked[0] else { panic!("{parked:?}") };
        assert_eq!(parked[1], Parked::Done(WaitOutcome::Rejected));
        assert!(session.cancel(wait));
    });
    for _ in 0..2 {
        assert_eq!(calls.recv_timeout(LIMIT), Ok(false));
    }
}

#[test]
fn it_works_from_threads_without_a_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let bus = Bus::new();
    // Questions go to a thread of the host, which answers by number.
    let (ask, asked) = mpsc::channel();
    let ids = move |query: Query, reply: Reply| {
        assert_eq!(reply.limit(), Duration::from_secs(2));
        assert_eq!(reply.into_id(), query.id);
        ask.send(query).unwrap();
    };
    let emsmdb = {
        let _within = runtime.enter();
        attach(&bus, ids)
    };
    let answering = emsmdb.clone();
    let host = std::thread::spawn(move || {
        for query in asked.iter().take(1 + 50) {
            answering.answer(query.id, know(&query));
        }
    });
    let session = open(&emsmdb);
    let (done, completed) = mpsc::channel();
    for uid in 1..=50 {
        let done = done.clone();
        let parked = session.park(move |outcome| done.send(outcome).unwrap());
        assert!(matches!(parked, Parked::Parked(_)));
        bus.publish(mail(uid));
        assert_eq!(completed.recv_timeout(LIMIT).unwrap(), WaitOutcome::EventPending);
        assert_eq!(told(&session)[0], popped_up(uid));
    }
    let Parked::Parked(wait) = session.park(move |outcome| done.send(outcome).unwrap()) else { panic!() };
    assert!(session.cancel(wait) && !session.cancel(wait));
    assert_eq!(
        completed.recv_timeout(LIMIT),
        Err(mpsc::RecvTimeoutError::Disconnected),
        "its callback is dropped, and was not called"
    );
    host.join().unwrap();
}

#[tokio::test]
async fn answers_given_at_once_need_no_deep_stack() {
    let bus = Bus::new();
    // Nothing is remembered, so that each event asks for its folder as well.
    let config = EngineConfig { queue_octets: 1 << 20, queue_replies: 65_536, ..Default::default() };
    let depth = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let seen = Arc::clone(&depth);
    let ids = move |query: Query, reply: Reply| {
        seen.1.fetch_max(seen.0.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        reply.answer(know(&query));
        seen.0.fetch_sub(1, Ordering::Relaxed);
    };
    let emsmdb = attach_with(&bus, ids, config);
    let session = open(&emsmdb);
    for uid in 1..=200 {
        bus.publish(mail(uid));
    }
    until("all told", async || emsmdb.statistics().queued == 401).await;
    assert_eq!(told(&session).len(), 401, "a pop-up and a creation each, the folder once");
    assert_eq!(depth.1.load(Ordering::Relaxed), 1, "no question from within an answer");
}

#[tokio::test]
async fn a_reply_that_is_dropped_or_a_host_that_panics_has_failed() {
    let bus = Bus::new();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    let emsmdb = attach(&bus, move |query: Query, reply: Reply| match &query.what {
        What::Messages { messages, .. } => match messages[0].uid {
            Some(1) => drop(reply),
            Some(2) => panic!("the host's own fault"),
            _ => keep.lock().unwrap().push((query, reply)),
        },
        _ => reply.answer(know(&query)),
    });
    let session = open(&emsmdb);
    for uid in [1, 2] {
        bus.publish(mail(uid));
        assert_eq!(outcome(&session).await, WaitOutcome::EventPending);
        assert_eq!(told(&session), [folder_modified("INBOX", None, None)]);
    }
    bus.publish(mail(3));
    until("asked", async || !kept.lock().unwrap().is_empty()).await;
    let (query, reply) = kept.lock().unwrap().pop().unwrap();
    reply.answer(know(&query));
    assert_eq!(told(&session)[0], popped_up(3), "later, from somewhere else");
    assert_eq!(emsmdb.statistics().query_failures, 2);
}

#[tokio::test]
async fn a_bus_that_was_too_quick_is_a_resync_and_no_error() {
    let bus = Bus::new();
    let config = EmsmdbConfig { bus_queue: 4, ..EmsmdbConfig::default() };
    let emsmdb = Emsmdb::attach(&bus, None, knows, config).unwrap();
    let session = open(&emsmdb);
    let table = Table {
        handle: CONTENTS,
        logon_id: 0,
        kind: TableKind::Contents,
        folder: fid("INBOX"),
        depth: false,
        notifications: true,
    };
    session.add_table(table).unwrap();
    session.open_view(CONTENTS).unwrap();
    // In one go: its task does not run in between.
    for uid in 1..=100 {
        bus.publish(mail(uid));
    }
    assert_eq!(outcome(&session).await, WaitOutcome::EventPending);
    until("the last four", async || emsmdb.statistics().events == 5).await;
    let told = told(&session);
    let changed = Notification::ContentsTable(ropnotify::TableEvent::Changed);
    assert_eq!(told[0], changed, "in the place of those that were lost");
    let pops: Vec<_> = told.iter().filter(|told| matches!(told, Notification::NewMail { .. })).collect();
    assert_eq!(pops, [&popped_up(97), &popped_up(98), &popped_up(99), &popped_up(100)]);
    let wrong = EmsmdbConfig { bus_queue: 0, ..EmsmdbConfig::default() };
    let refused = Emsmdb::attach(&bus, None, |_: Query, _: Reply| {}, wrong).unwrap_err();
    assert_eq!(refused.to_string(), "bus_queue: 0: expected 1 to 65536");
}

#[tokio::test]
async fn a_host_that_hangs_costs_its_time_limit_and_no_more() {
    let bus = Bus::new();
    let config = EngineConfig { query_timeout: Duration::from_millis(10), ..Default::default() };
    let ids = AsyncIds::new(async |query: Query| match query.what {
        What::Folder { .. } => know(&query),
        _ => std::future::pending::<Answer>().await,
    });
    let emsmdb = attach_with(&bus, ids, config);
    let session = open(&emsmdb);
    bus.publish(mail(1));
    assert_eq!(outcome(&session).await, WaitOutcome::EventPending);
    assert_eq!(told(&session), [folder_modified("INBOX", None, None)]);
}

#[tokio::test]
async fn the_last_handle_ends_the_tasks() {
    let bus = Bus::new();
    let emsmdb = attach(&bus, knows);
    let session = open(&emsmdb);
    drop(emsmdb);
    assert_eq!(bus.publish(mail(1)).delivered, 1, "a session keeps it");
    drop(session);
    until("gone from the bus", async || bus.publish(mail(2)).delivered == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_registered_with_their_first_session_and_left_after_the_last() {
    let store = MemoryStore::new();
    let (bus, resolver) = (Bus::new(), Resolver::in_memory(store.clone()));
    let config = SubscriberConfig::default();
    let subscriber = Arc::new(Subscriber::start(config, resolver.clone(), bus.clone()).await.unwrap());
    let engine = EngineConfig { grace: Duration::from_millis(20), ..EngineConfig::default() };
    let config = EmsmdbConfig { engine, ..EmsmdbConfig::default() };
    let emsmdb = Emsmdb::attach(&bus, Some(Arc::clone(&subscriber)), knows, config).unwrap();
    let publisher = Publisher::new(Resolver::in_memory(store.clone()), PublisherConfig::default()).unwrap();

    let mut sessions = Vec::new();
    for guid in 1..=200 {
        let cn = Cn::new(&format!("user{}", guid % 100)).unwrap();
        let new = NewSession { guid: Uuid::from_u128(guid), cn, index: 0 };
        let session = emsmdb.open_session(new).await.unwrap();
        let subscription = Subscription { handle: 1, logon_id: 0, types: ALL, scope: Scope::Store };
        session.subscribe(subscription).unwrap();
        sessions.push(session);
    }
    let user = Cn::new("user7").unwrap();
    assert_eq!(resolver.lookup(&user).await.unwrap().native.len(), 1, "when open_session returns");
    let event = Event { user: "user7".to_owned(), ..mail(1) };
    assert_eq!(publisher.publish(&user, &[event]).await.unwrap().taken(), 1);
    for guid in [7, 107] {
        let session = emsmdb.session(Uuid::from_u128(guid)).unwrap();
        assert_eq!(outcome(&session).await, WaitOutcome::EventPending);
        assert_eq!(told(&session)[0], popped_up(1));
    }
    assert!(!emsmdb.session(Uuid::from_u128(8)).unwrap().has_replies());
    for session in sessions.drain(..).filter(|session| session.guid().as_u128() % 100 == 7) {
        session.close();
    }
    until("left", async || resolver.lookup(&user).await.unwrap().native.is_empty()).await;
    let other = Cn::new("user8").unwrap();
    assert_eq!(
        resolver.lookup(&other).await.unwrap().native.len(),
        1,
        "its sessions are open, if nobody holds them"
    );
    emsmdb.stop(LIMIT).await;
    assert!(resolver.lookup(&other).await.unwrap().native.is_empty());
    drop(emsmdb);
    until("nobody else holds it", async || Arc::strong_count(&subscriber) == 1).await;
    Arc::into_inner(subscriber).unwrap().stop(LIMIT).await;
}
