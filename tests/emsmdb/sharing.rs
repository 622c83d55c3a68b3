//! Sessions that are shared through OpenChange's records, on a real memcached: emsmdb and asyncemsmdb as two servers, and
//! as one.

use std::time::{Duration, Instant};

use ocbus::bus::Bus;
use ocbus::emsmdb::{
    Emsmdb, EmsmdbConfig, EngineConfig, JoinError, NewSession, Part, Session, Sharing, Subscription,
    TableKind, WaitOutcome,
};
use ocbus::resolver::{Config, Resolver, SessionRecords, SessionsError};
use ocbus::sandbox::{Memcached, Sandbox};
use ocbus::wire::openchange::{self, DosCharset, SessionRecord};
use ocbus::wire::ropnotify::{self, Notification, NotificationTypes, RopNotify, Scope, TableEvent};
use uuid::Uuid;

use super::rig::{ALL, CONTENTS, SUBSCRIPTION, cn, created, fid, folder_modified, mid, popped_up, table};
use super::service::{LIMIT, knows, mail, until};

pub(crate) const GUID: Uuid = Uuid::from_u128(0x11111111_2222_3333_4444_555566667777);
pub(crate) const ASYNC: Uuid = Uuid::from_u128(0xaaaaaaaa_2222_3333_4444_555566667777);
pub(crate) const ROOM: usize = 32_758;

pub(crate) struct Scene {
    _sandbox: Sandbox,
    pub(crate) memcached: Memcached,
}

impl Scene {
    pub(crate) fn new() -> Scene {
        let sandbox = Sandbox::new().unwrap();
        let memcached = sandbox.memcached().unwrap();
        Scene { _sandbox: sandbox, memcached }
    }

    /// As another process has them.
    pub(crate) async fn records(&self) -> SessionRecords {
        let config: Config = self.memcached.configuration().parse().unwrap();
        let limit = Duration::from_millis(500);
        SessionRecords::new(&Resolver::new(&config, DosCharset::default(), limit).await.unwrap())
    }

    pub(crate) async fn server(&self, part: Part) -> (Bus, Emsmdb) {
        self.server_with(part, EngineConfig::default()).await
    }

    pub(crate) async fn server_with(&self, part: Part, engine: EngineConfig) -> (Bus, Emsmdb) {
        let bus = Bus::new();
        let sharing = Sharing { records: self.records().await, part };
        let config = EmsmdbConfig { engine, ..EmsmdbConfig::default() };
        let emsmdb = Emsmdb::attach_shared(&bus, None, knows, sharing, config).unwrap();
        (bus, emsmdb)
    }
}

/// A session that asked for everything, and its asynchronous one.
pub(crate) async fn open(emsmdb: &Emsmdb) -> Session {
    let session = emsmdb.open_session(NewSession { guid: GUID, cn: cn(), index: 7 }).await.unwrap();
    let subscription = Subscription { handle: SUBSCRIPTION, logon_id: 3, types: ALL, scope: Scope::Store };
    session.subscribe(subscription).unwrap();
    session.connect_async(ASYNC).await.unwrap();
    session
}

pub(crate) async fn fetch(session: &Session, room: usize) -> (Vec<RopNotify>, bool) {
    let mut out = Vec::new();
    let taken = tokio::time::timeout(LIMIT, session.fetch(room, &mut out)).await.unwrap().unwrap();
    assert_eq!(taken.octets, out.len());
    let has_pending = out.ends_with(&[0x6e, 7, 0]);
    assert!(!has_pending || taken.pending);
    out.truncate(out.len() - if has_pending { 3 } else { 0 });
    let replies: Vec<RopNotify> = ropnotify::split(&out).map(Result::unwrap).collect();
    assert_eq!(replies.len(), taken.replies);
    (replies, taken.pending)
}

pub(crate) async fn told(session: &Session) -> Vec<Notification> {
    fetch(session, ROOM).await.0.into_iter().map(|reply| reply.notification).collect()
}

/// Until its client was told to look at the Inbox and at what is above the folders.
pub(crate) async fn looks_again(session: &Session) {
    let mut came = Vec::new();
    until("told to look again", async || {
        came.extend(told(session).await);
        ["INBOX", ""].iter().all(|name| came.contains(&folder_modified(name, None, None)))
    })
    .await;
    assert_eq!(came.len(), 2, "{came:?}");
}

pub(crate) async fn outcome(wait: impl Future<Output = WaitOutcome>) -> WaitOutcome {
    tokio::time::timeout(LIMIT, wait).await.expect("an answer before the deadline")
}

pub(crate) fn of_mail(uid: u32) -> [Notification; 3] {
    [popped_up(uid), created("INBOX", uid), folder_modified("INBOX", None, None)]
}

/// A reply as another program appends it.
pub(crate) fn foreign(number: u32) -> Vec<u8> {
    let message = mid("Sent", number);
    let notification = Notification::MessageDeleted { folder: fid("Sent"), message, search_folder: None };
    RopNotify { handle: SUBSCRIPTION, logon_id: 0, notification }.encode().unwrap()
}

/// An Outlook in the split set-up: waits, makes its next call, waits again, until it has what is wanted. Gives how often
/// it was told that its session is unknown.
pub(crate) async fn outlook(
    session: &Session,
    asyncemsmdb: &Emsmdb,
    mut wants: impl FnMut(&[Notification]) -> bool,
) -> u32 {
    let (mut unknown, mut came) = (0, Vec::new());
    let deadline = Instant::now() + LIMIT;
    loop {
        came.extend(told(session).await);
        if wants(&came) {
            return unknown;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let outcome = tokio::time::timeout(left, asyncemsmdb.wait_async(ASYNC)).await;
        match outcome.unwrap_or_else(|_| panic!("only {came:?}, and {unknown} times unknown")) {
            WaitOutcome::EventPending => {}
            WaitOutcome::UnknownSession => unknown += 1,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn asyncemsmdb_wakes_the_client_and_emsmdb_answers_it() {
    let scene = Scene::new();
    let (_, emsmdb) = scene.server(Part::Emsmdb).await;
    let (bus, asyncemsmdb) = scene.server(Part::AsyncEmsmdb).await;
    let session = open(&emsmdb).await;
    let records = scene.records().await;
    let expected = SessionRecord { session: GUID, cn: "bob".to_owned() };
    assert_eq!(records.session(&ASYNC).await.unwrap(), expected);
    until("joined", async || asyncemsmdb.join_session(ASYNC).await.is_ok()).await;
    // Nobody has listened for it until now.
    looks_again(&session).await;
    let waiting = tokio::spawn({
        let asyncemsmdb = asyncemsmdb.clone();
        async move { asyncemsmdb.wait_async(ASYNC).await }
    });
    until("parked", async || asyncemsmdb.statistics().parked == 1).await;
    bus.publish(mail(1));
    assert_eq!(outcome(async { waiting.await.unwrap() }).await, WaitOutcome::EventPending);
    let (replies, pending) = fetch(&session, ROOM).await;
    assert!(!pending && replies.iter().all(|reply| (reply.handle, reply.logon_id) == (SUBSCRIPTION, 3)));
    assert!(replies.into_iter().map(|reply| reply.notification).eq(of_mail(1)));
    assert_eq!(told(&session).await, []);

    // A subscription that came later, and a table: asyncemsmdb reads of them when something happens.
    session.unsubscribe(SUBSCRIPTION).unwrap();
    session.add_table(table(CONTENTS, TableKind::Contents, "INBOX")).unwrap();
    session.set_columns(CONTENTS, &[0x674a_0014]).unwrap();
    session.open_view(CONTENTS).unwrap();
    let flags = |entries: Vec<openchange::Subscription>| entries.iter().map(|entry| entry.flags).collect();
    until("written", async || {
        let entries = records.subscriptions(&GUID).await;
        entries.is_ok_and(|entries| -> bool { <Vec<u16>>::eq(&flags(entries), &[0x0100]) })
    })
    .await;
    bus.publish(mail(2));
    assert_eq!(outcome(asyncemsmdb.wait_async(ASYNC)).await, WaitOutcome::EventPending);
    assert_eq!(told(&session).await, [Notification::ContentsTable(TableEvent::Changed)]);

    // Closed there, it is over here, and nothing is left.
    assert!(session.close());
    until("removed", async || {
        matches!(records.subscriptions(&GUID).await, Err(SessionsError::NotFound { .. }))
            && matches!(records.session(&ASYNC).await, Err(SessionsError::NotFound { .. }))
            && matches!(records.waiting(&GUID).await, Err(SessionsError::NotFound { .. }))
    })
    .await;
    assert_eq!(outcome(asyncemsmdb.wait_async(ASYNC)).await, WaitOutcome::UnknownSession);
    assert!(matches!(asyncemsmdb.join_session(ASYNC).await, Err(JoinError::Unknown(ASYNC))));
    assert_eq!((asyncemsmdb.sharing_statistics().sessions, asyncemsmdb.statistics().sessions), (0, 0));
}

#[tokio::test]
async fn what_others_append_is_fetched_in_order_and_once() {
    let scene = Scene::new();
    let (bus, emsmdb) = scene.server(Part::Both).await;
    let session = open(&emsmdb).await;
    let records = scene.records().await;
    records.append(&GUID, &[foreign(1), foreign(2)].concat(), b"").await.unwrap();
    // It was there before the wait.
    assert_eq!(outcome(session.wait()).await, WaitOutcome::EventPending);
    bus.publish(mail(1));
    until("appended", async || records.waiting_octets(&GUID).await.unwrap() > 2 * 24).await;
    records.append(&GUID, &foreign(3), b"").await.unwrap();
    // In rooms of one reply and RopPending.
    let (mut came, mut more) = (Vec::new(), true);
    while more {
        let (replies, pending) = fetch(&session, 41).await;
        assert_eq!(replies.len(), 1);
        came.extend(replies.into_iter().map(|reply| reply.notification));
        more = pending;
    }
    let octets: Vec<u8> = [foreign(1), foreign(2)].concat();
    let mut expected: Vec<Notification> =
        ropnotify::split(&octets).map(|reply| reply.unwrap().notification).collect();
    expected.extend(of_mail(1));
    expected.extend(ropnotify::split(&foreign(3)).map(|reply| reply.unwrap().notification));
    assert_eq!(came, expected);
    assert_eq!(told(&session).await, []);
    assert_eq!(records.waiting(&GUID).await.unwrap(), b"", "for OpenChange's append");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_storm_nothing_is_lost_and_nothing_comes_twice() {
    const EACH: u32 = 400;
    let scene = Scene::new();
    let (_, emsmdb) = scene.server(Part::Emsmdb).await;
    let (bus, asyncemsmdb) = scene.server(Part::AsyncEmsmdb).await;
    let session = emsmdb.open_session(NewSession { guid: GUID, cn: cn(), index: 7 }).await.unwrap();
    let types = NotificationTypes::NEW_MAIL;
    let subscription = Subscription { handle: SUBSCRIPTION, logon_id: 0, types, scope: Scope::Store };
    session.subscribe(subscription).unwrap();
    session.connect_async(ASYNC).await.unwrap();
    until("joined", async || asyncemsmdb.join_session(ASYNC).await.is_ok()).await;
    let records = scene.records().await;
    let others = tokio::spawn(async move {
        for number in 0..EACH {
            records.append(&GUID, &foreign(number), b"").await.unwrap();
        }
    });
    let mails = tokio::spawn(async move {
        for uid in 1..=EACH {
            bus.publish(mail(uid));
            tokio::task::yield_now().await;
        }
        bus
    });
    let (mut mail_ids, mut foreign_ids) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + LIMIT;
    while mail_ids.len() < EACH as usize || foreign_ids.len() < EACH as usize {
        assert!(Instant::now() < deadline, "{} and {}", mail_ids.len(), foreign_ids.len());
        for notification in fetch(&session, 200).await.0.into_iter().map(|reply| reply.notification) {
            match notification {
                Notification::NewMail { message, .. } => mail_ids.push(message),
                Notification::MessageDeleted { message, .. } => foreign_ids.push(message),
                other => panic!("{other:?}"),
            }
        }
    }
    others.await.unwrap();
    drop(mails.await.unwrap());
    assert!(mail_ids.into_iter().eq((1..=EACH).map(|uid| mid("INBOX", uid))));
    assert!(foreign_ids.into_iter().eq((0..EACH).map(|number| mid("Sent", number))));
    assert_eq!(told(&session).await, []);
    assert_eq!(asyncemsmdb.sharing_statistics().failures + emsmdb.sharing_statistics().failures, 0);
}

#[tokio::test]
async fn without_memcached_nobody_is_told_of_an_error_and_all_comes_when_it_is_back() {
    let mut scene = Scene::new();
    let (bus, emsmdb) = scene.server(Part::Both).await;
    let session = open(&emsmdb).await;
    scene.memcached.kill();
    let waiting = tokio::spawn({
        let session = session.clone();
        async move { session.wait().await }
    });
    until("parked", async || emsmdb.statistics().parked == 1).await;
    bus.publish(mail(1));
    until("failed", async || emsmdb.sharing_statistics().failures > 0).await;
    let begun = Instant::now();
    assert_eq!(told(&session).await, [], "no error, and not by memcached's time limit");
    assert!(begun.elapsed() < Duration::from_millis(400), "{:?}", begun.elapsed());
    bus.publish(mail(2));
    assert_eq!(emsmdb.statistics().parked, 1, "nothing can be fetched: the client is not made to try");
    scene.memcached.restart().unwrap();
    assert_eq!(outcome(async { waiting.await.unwrap() }).await, WaitOutcome::EventPending);
    let mut came = Vec::new();
    until("all fetched", async || {
        came.extend(told(&session).await);
        came.contains(&created("INBOX", 2))
    })
    .await;
    // The folder's second change may have been folded into the first.
    came.retain(|notification| !matches!(notification, Notification::FolderModified { .. }));
    assert_eq!(came, [popped_up(1), created("INBOX", 1), popped_up(2), created("INBOX", 2)]);
    let records = scene.records().await;
    until("written again", async || {
        records.session(&ASYNC).await.is_ok() && records.subscriptions(&GUID).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn replies_that_memcached_forgot_are_made_good_by_a_resync() {
    let scene = Scene::new();
    let (bus, emsmdb) = scene.server(Part::Both).await;
    let session = open(&emsmdb).await;
    bus.publish(mail(1));
    assert_eq!(outcome(session.wait()).await, WaitOutcome::EventPending);
    scene.memcached.flush_all().unwrap();
    assert_eq!(told(&session).await, []);
    assert_eq!(emsmdb.sharing_statistics().forgotten, 1);
    assert_eq!(outcome(session.wait()).await, WaitOutcome::EventPending);
    looks_again(&session).await;
    let records = scene.records().await;
    until("written again", async || {
        records.session(&ASYNC).await.is_ok() && records.subscriptions(&GUID).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_server_that_stops_leaves_no_records() {
    let scene = Scene::new();
    let (_, emsmdb) = scene.server(Part::Both).await;
    let _session = open(&emsmdb).await;
    let records = scene.records().await;
    records.append(&GUID, &foreign(1), b"").await.unwrap();
    until("written", async || records.subscriptions(&GUID).await.is_ok()).await;
    emsmdb.stop(LIMIT).await;
    assert!(matches!(records.session(&ASYNC).await, Err(SessionsError::NotFound { .. })));
    assert!(matches!(records.subscriptions(&GUID).await, Err(SessionsError::NotFound { .. })));
    assert!(matches!(records.waiting(&GUID).await, Err(SessionsError::NotFound { .. })));
}
