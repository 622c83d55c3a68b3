//! The emsmdb engine: events to queued replies, from publishing to the completed wait, and what sessions, waits and
//! queued replies take. The whole binary counts its allocations, which costs each some nanoseconds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group};
use ocbus::emsmdb::{
    Answer, Emsmdb, EmsmdbConfig, Engine, EngineConfig, NewSession, Query, Reply, Session, Subscription,
    Table, TableKind, WaitOutcome, What,
};
use ocbus::publisher::PublisherConfig;
use ocbus::resolver::{Cn, MemoryStore, Resolver};
use ocbus::subscriber::SubscriberConfig;
use ocbus::wire::ropnotify::{FolderId, MessageId, NotificationTypes, Scope};
use ocbus::wire::{NewMessage, ResyncReason};
use ocbus::{Bus, Event, EventKind, Mailbox, Publisher, Subscriber};
use tokio::task::JoinSet;
use uuid::Uuid;

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        NOW.fetch_add(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Events of one round.
const EVENTS: u32 = 64;

/// Sessions whose memory is measured.
const SESSIONS: u128 = 10_000;

fn inbox() -> FolderId {
    FolderId::from_parts(1, 0x1234).unwrap()
}

fn know(query: &Query) -> Answer {
    match &query.what {
        What::Folder { .. } => Answer::Folder(inbox()),
        What::Messages { messages, .. } => Answer::Messages(
            messages.iter().map(|message| MessageId::from_parts(1, message.uid?.into())).collect(),
        ),
        _ => Answer::Unknown,
    }
}

fn new_session(guid: u128, user: &str) -> NewSession {
    NewSession { guid: Uuid::from_u128(guid), cn: Cn::new(user).unwrap(), index: 1 }
}

fn subscription(handle: u32, bits: u16, scope: Scope) -> Subscription {
    Subscription { handle, logon_id: 0, types: NotificationTypes::from_bits(bits), scope }
}

fn contents(handle: u32) -> Table {
    let kind = TableKind::Contents;
    Table { handle, logon_id: 0, kind, folder: inbox(), depth: false, notifications: true }
}

fn mail(id: u128, user: &str, uid: u32) -> Event {
    let kind = EventKind::MessageNew(NewMessage { uid: Some(uid), ..NewMessage::default() });
    let event = Event::new(Uuid::from_u128(id), 0, user, Mailbox::new("INBOX", '/'), kind);
    Event { messages: Some(uid), unseen: Some(uid), ..event }
}

/// Mails through an engine with so many users, of whom the first has so many sessions, each with a subscription to
/// everything and the Inbox open: four replies for each mail and session (pop-up, creation, counts, table; the last two
/// fold until they are fetched), all of which are fetched.
fn events(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("events_to_replies");
    group.throughput(Throughput::Elements(EVENTS.into()));
    for (users, sessions) in [(1, 1), (1, 10), (10_000, 1)] {
        let mut engine = Engine::new(EngineConfig::default()).unwrap();
        let now = Duration::ZERO;
        for guid in 0..users + sessions - 1 {
            let user = if guid < sessions { "user0".to_owned() } else { format!("user{guid}") };
            engine.open(new_session(guid, &user), now).unwrap();
            let guid = Uuid::from_u128(guid);
            engine.subscribe(guid, subscription(1, 0x7e, Scope::Store), now).unwrap();
            engine.add_table(guid, contents(2), now).unwrap();
            engine.open_view(guid, 2, now).unwrap();
        }
        let mut out = Vec::new();
        let mut round = |mails: &[Arc<Event>]| {
            for mail in mails {
                engine.event(mail, now);
                while let Some(query) = engine.next_query() {
                    engine.answer(query.id, know(&query), now);
                }
            }
            for guid in 0..sessions {
                out.clear();
                let taken = engine.take(Uuid::from_u128(guid), 1 << 20, &mut out, now).unwrap();
                assert_eq!(taken.replies, 2 * EVENTS as usize + 2);
            }
        };
        let mails: Vec<_> = (1..=EVENTS).map(|uid| Arc::new(mail(uid.into(), "user0", uid))).collect();
        group.bench_function(format!("{users}_users/{sessions}_sessions"), |bencher| {
            bencher.iter_batched(|| (), |()| round(&mails), BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn knows(query: Query, reply: Reply) {
    reply.answer(know(&query));
}

fn percentile(sorted: &[Duration], part: f64) -> f64 {
    #[allow(clippy::cast_sign_loss)]
    let at = ((sorted.len() - 1) as f64 * part) as usize;
    sorted[at].as_secs_f64() * 1e6
}

/// From `publish` until the task that waits has its answer: on the bus of this process, or by a publisher to its native
/// tcp endpoint (with the look-up, in a resolver in memory).
async fn wake_up(over_tcp: bool) {
    let bus = Bus::new();
    let resolver = Resolver::in_memory(MemoryStore::default());
    let subscriber =
        Subscriber::start(SubscriberConfig::default(), resolver.clone(), bus.clone()).await.unwrap();
    let user = Cn::new("user0").unwrap();
    subscriber.add(&user).await.unwrap();
    let publisher = Publisher::new(resolver, PublisherConfig::default()).unwrap();
    let emsmdb = Emsmdb::attach(&bus, None, knows, EmsmdbConfig::default()).unwrap();
    let session = emsmdb.open(new_session(1, "user0")).unwrap();
    session.subscribe(subscription(1, 0x7e, Scope::Store)).unwrap();
    let mut took = Vec::new();
    let mut out = Vec::new();
    for id in 1..=if over_tcp { 5_000u32 } else { 20_000 } {
        let waiting = tokio::spawn({
            let session = session.clone();
            async move {
                assert_eq!(session.wait().await, WaitOutcome::EventPending);
                Instant::now()
            }
        });
        while emsmdb.statistics().parked == 0 {
            tokio::task::yield_now().await;
        }
        // The task that feeds the engine is asleep by now, as on a server between two mails.
        tokio::time::sleep(Duration::from_micros(50)).await;
        let event = mail(id.into(), "user0", id);
        let begun = Instant::now();
        if over_tcp {
            assert_eq!(publisher.publish(&user, &[event]).await.unwrap().taken(), 1);
        } else {
            bus.publish(event);
        }
        took.push(waiting.await.unwrap() - begun);
        out.clear();
        session.take(32_758, &mut out).unwrap();
    }
    took.sort();
    println!(
        "publish to completed wait, {}: p50 {:.1} us, p99 {:.1} us, most {:.1} us ({} mails)",
        if over_tcp { "over native tcp" } else { "in process" },
        percentile(&took, 0.5),
        percentile(&took, 0.99),
        percentile(&took, 1.0),
        took.len()
    );
}

/// What Outlook has open in online mode: five subscriptions and three tables with 20 columns.
fn outlook(emsmdb: &Emsmdb, guid: u128) -> Session {
    let session = emsmdb.open(new_session(guid, &format!("user{guid}@example.org"))).unwrap();
    session.subscribe(subscription(1, 0x7e, Scope::Store)).unwrap();
    for handle in 2..6 {
        session.subscribe(subscription(handle, 0x7e, Scope::Folder(inbox()))).unwrap();
    }
    let columns: Vec<u32> = (0..20).collect();
    for handle in 10..13 {
        session.add_table(contents(handle)).unwrap();
        session.set_columns(handle, &columns).unwrap();
        session.open_view(handle).unwrap();
    }
    session
}

async fn memory() {
    let bus = Bus::new();
    let emsmdb = Emsmdb::attach(&bus, None, knows, EmsmdbConfig::default()).unwrap();
    let before = NOW.load(Relaxed);
    let each = |before: usize| (NOW.load(Relaxed) - before) / SESSIONS as usize;
    let sessions: Vec<Session> = (0..SESSIONS).map(|guid| outlook(&emsmdb, guid)).collect();
    println!(
        "an idle session with five subscriptions and three tables: {} B ({SESSIONS} users)",
        each(before)
    );
    for session in &sessions {
        bus.publish(mail(
            Uuid::now_v7().as_u128(),
            &format!("user{}@example.org", session.guid().as_u128()),
            1,
        ));
        while !session.has_replies() {
            tokio::task::yield_now().await;
        }
        session.take(32_758, &mut Vec::with_capacity(4_096)).unwrap();
    }
    println!("likewise, when each had a mail and fetched it: {} B", each(before));

    let before = NOW.load(Relaxed);
    let mut waits = JoinSet::new();
    for session in &sessions {
        let session = session.clone();
        waits.spawn(async move { session.wait().await });
    }
    while emsmdb.statistics().parked < SESSIONS as u64 {
        tokio::task::yield_now().await;
    }
    println!(
        "a parked wait and the task that waits: {} B ({} parked)",
        each(before),
        emsmdb.statistics().parked
    );
    let begun = Instant::now();
    bus.publish(Event::resync(Uuid::now_v7(), 0, "", ResyncReason::ResolverLost, 0));
    while let Some(outcome) = waits.join_next().await {
        assert_eq!(outcome.unwrap(), WaitOutcome::EventPending);
    }
    println!(
        "one event for all of them: {SESSIONS} waits completed in {:.1} ms",
        begun.elapsed().as_secs_f64() * 1e3
    );
    let statistics = emsmdb.statistics();
    println!("  ({} replies of {} octets queued)", statistics.queued_replies, statistics.queued_octets);
}

fn queued() {
    let now = Duration::ZERO;
    let mut engine = Engine::new(EngineConfig::default()).unwrap();
    engine.open(new_session(1, "user0"), now).unwrap();
    let guid = Uuid::from_u128(1);
    engine.subscribe(guid, subscription(1, 0x0e, Scope::Store), now).unwrap();
    let give = |engine: &mut Engine, uids: std::ops::RangeInclusive<u32>| {
        for uid in uids {
            engine.event(&Arc::new(mail(uid.into(), "user0", uid)), now);
            while let Some(query) = engine.next_query() {
                engine.answer(query.id, know(&query), now);
            }
        }
    };
    give(&mut engine, 1..=1);
    engine.take(guid, 1 << 20, &mut Vec::with_capacity(4_096), now).unwrap();
    let before = NOW.load(Relaxed);
    give(&mut engine, 2..=900);
    let took = NOW.load(Relaxed) - before;
    let statistics = engine.statistics();
    println!(
        "a queued reply: {:.1} B of {:.1} octets ({} replies)",
        took as f64 / statistics.queued_replies as f64,
        statistics.queued_octets as f64 / statistics.queued_replies as f64,
        statistics.queued_replies
    );
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_millis(2_000))
        .sample_size(20)
        .without_plots();
    targets = events
}

fn main() {
    benches();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for over_tcp in [false, true] {
        runtime.block_on(async { tokio::spawn(wake_up(over_tcp)).await.unwrap() });
    }
    runtime.block_on(memory());
    // With its tasks, which hold the sessions.
    drop(runtime);
    queued();
    Criterion::default().configure_from_args().final_summary();
}
