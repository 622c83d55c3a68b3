//! 10,000 sessions and a storm of mail: bounded memory, everyone served. A binary of its own, since it counts every
//! allocation; one test, so that nobody else allocates meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ocbus::emsmdb::{
    Answer, Emsmdb, EmsmdbConfig, NewSession, Query, Reply, Session, Subscription, Table, TableKind,
    WaitOutcome, What,
};
use ocbus::resolver::Cn;
use ocbus::wire::NewMessage;
use ocbus::wire::ropnotify::{self, FolderId, MessageId, Notification, NotificationTypes, Scope};
use ocbus::{Bus, Event, EventKind, Mailbox};
use tokio::task::JoinSet;
use uuid::Uuid;

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
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

const USERS: u128 = 10_000;
const STORM: u32 = 1_000;
const LIMIT: Duration = Duration::from_secs(60);

fn inbox() -> FolderId {
    FolderId::from_parts(1, 0x1234).unwrap()
}

fn knows(query: Query, reply: Reply) {
    reply.answer(match &query.what {
        What::Folder { .. } => Answer::Folder(inbox()),
        What::Messages { messages, .. } => Answer::Messages(
            messages.iter().map(|message| MessageId::from_parts(1, message.uid?.into())).collect(),
        ),
        _ => Answer::Unknown,
    });
}

fn open(emsmdb: &Emsmdb, guid: u128, user: u128) -> Session {
    let cn = Cn::new(&format!("user{user}")).unwrap();
    let session = emsmdb.open(NewSession { guid: Uuid::from_u128(guid), cn, index: 1 }).unwrap();
    let types = NotificationTypes::from_bits(0x7e);
    session.subscribe(Subscription { handle: 1, logon_id: 0, types, scope: Scope::Store }).unwrap();
    let kind = TableKind::Contents;
    let table = Table { handle: 2, logon_id: 0, kind, folder: inbox(), depth: false, notifications: true };
    session.add_table(table).unwrap();
    session.open_view(2).unwrap();
    session
}

fn mail(user: u128, uid: u32) -> Event {
    let kind = EventKind::MessageNew(NewMessage { uid: Some(uid), ..NewMessage::default() });
    let event = Event::new(Uuid::now_v7(), 0, format!("user{user}"), Mailbox::new("INBOX", '/'), kind);
    Event { messages: Some(uid), unseen: Some(uid), ..event }
}

/// What a client knows after it has waited and fetched until the folder has so many messages. `room`: of its responses.
async fn read(session: Session, messages: u32, room: usize) -> (u32, Option<u32>) {
    let (mut pops, mut total) = (0, None);
    let mut out = Vec::new();
    while total != Some(messages) {
        assert_eq!(session.wait().await, WaitOutcome::EventPending);
        loop {
            out.clear();
            let taken = session.take(room, &mut out).unwrap();
            let replies = if taken.pending { &out[..out.len() - 3] } else { &out[..] };
            for reply in ropnotify::split(replies) {
                match reply.unwrap().notification {
                    Notification::NewMail { .. } => pops += 1,
                    Notification::FolderModified { total: now, .. } => {
                        assert!(total <= now, "counts go back from {total:?} to {now:?}");
                        total = now;
                    }
                    _ => {}
                }
            }
            if !taken.pending {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    (pops, total)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_sessions_and_a_storm() {
    let bus = Bus::new();
    let emsmdb = Emsmdb::attach(&bus, None, knows, EmsmdbConfig::default()).unwrap();
    let before = NOW.load(Relaxed);
    let sessions: Vec<Session> = (0..USERS).map(|user| open(&emsmdb, user, user)).collect();
    let idle = (NOW.load(Relaxed) - before) / sessions.len();
    println!("an idle session: {idle} octets");
    assert!(idle <= 2_048, "an idle session takes {idle} octets");

    // The storm's user has three: one that fetches, one that fetches one mail at a time, one that never does.
    let (slow, never) = (open(&emsmdb, USERS, 0), open(&emsmdb, USERS + 1, 0));
    let mut clients = JoinSet::new();
    for (user, session) in sessions.iter().enumerate() {
        let messages = if user == 0 { STORM } else { 1 };
        clients.spawn(read(session.clone(), messages, 32_758));
    }
    let slow = tokio::spawn(read(slow, STORM, 41));
    let parked = tokio::time::Instant::now() + LIMIT;
    while emsmdb.statistics().parked < u64::try_from(USERS).unwrap() + 1 {
        assert!(tokio::time::Instant::now() < parked, "{:?}", emsmdb.statistics());
        tokio::task::yield_now().await;
    }
    let waiting = (NOW.load(Relaxed) - before) / sessions.len();
    println!("with a parked wait, its task and the client: {waiting} octets");

    PEAK.store(NOW.load(Relaxed), Relaxed);
    let (begun, calm) = (Instant::now(), NOW.load(Relaxed));
    let publishing = std::thread::spawn({
        let bus = bus.clone();
        move || {
            // Ten for everybody else between two of the storm.
            for uid in 1..=STORM {
                bus.publish(mail(0, uid));
                for other in 0..10 {
                    let user = u128::from(uid - 1) * 10 + other;
                    if user > 0 {
                        bus.publish(mail(user, 1));
                    }
                }
            }
            begun.elapsed()
        }
    });
    let mut served = 0;
    let mut pops = 0;
    while let Some(client) = tokio::time::timeout(LIMIT, clients.join_next()).await.expect("everyone served")
    {
        let (own_pops, _) = client.unwrap();
        served += 1;
        pops += own_pops;
    }
    let took = begun.elapsed();
    let (slow_pops, slow_total) =
        tokio::time::timeout(LIMIT, slow).await.expect("the slow one served").unwrap();
    let published = publishing.join().unwrap();
    let statistics = emsmdb.statistics();
    let peak = PEAK.load(Relaxed) - calm;
    println!(
        "{served} clients, {pops} pop-ups; published in {published:?}, served in {took:?}; {peak} octets more at most"
    );
    println!("the slow one: {slow_pops} pop-ups, {slow_total:?} messages; {statistics:?}");
    assert_eq!(served, sessions.len());
    assert!(pops >= u32::try_from(USERS).unwrap() - 1, "one each, and the storm's");
    assert_eq!(bus.statistics().lost, 0);
    // The one that never fetches: bounded, and it is told of all when it does.
    assert!(statistics.queued_octets <= 65_536 && statistics.queued_octets > 32_768, "{statistics:?}");
    assert_eq!(never.wait().await, WaitOutcome::EventPending);
    let (_, total) = read(never, STORM, 32_758).await;
    assert_eq!(total, Some(STORM));
    // 11,000 events of about 400 octets on the bus, queues, and what clients read into.
    assert!(peak < 64 << 20, "{peak} octets");
    assert_eq!(emsmdb.statistics().queued_octets, 0);
}
