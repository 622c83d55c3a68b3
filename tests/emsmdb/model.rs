//! Random lives of sessions against a plain model: order kept, everything told or covered by a resync, no wait parked
//! on a queue that is not empty. `OCBUS_MODEL_RUNS=n` runs that many (3,000); `OCBUS_MODEL_SEED=n` that one alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ocbus::emsmdb::{
    Answer, Engine, EngineConfig, NewSession, Parked, Query, SecondWait, Subscription, TableKind, WaitId,
    WaitOutcome, What,
};
use ocbus::resolver::Cn;
use ocbus::wire::ropnotify::{
    self, MessageId, Notification, NotificationTypes, RopNotify, Scope, TableEvent,
};
use ocbus::wire::{ResyncReason, Transfer};
use ocbus::{Event, EventKind, Mailbox};
use uuid::Uuid;

use super::rig::{ALL, fid, know, mid, new_mail, table, uids};

const USERS: [&str; 2] = ["bob", "alice"];
const FOLDERS: [&str; 3] = ["INBOX", "Lists", "Sent"];
const POP_UPS: u32 = 500;
/// A subscription to the whole store, as Outlook's own.
const STORE: u32 = 600;
/// One to a message of the Inbox that nothing happens to.
const MESSAGE: u32 = 700;
/// Handles of the second logon.
const SHARED: u32 = 1_000;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_of<T: Clone>(&mut self, of: &[T]) -> T {
        let at = self.below(u64::try_from(of.len()).unwrap());
        of[usize::try_from(at).unwrap()].clone()
    }
}

/// What a client of one session has seen, and what it is owed.
#[derive(Default)]
struct Client {
    /// Whose mailboxes it shows, by logon.
    users: Vec<usize>,
    parked: Option<WaitId>,
    log: Vec<RopNotify>,
    owed: Vec<Owed>,
}

/// An event, and how much of the log there was when it happened.
struct Owed {
    /// What its handles begin at.
    base: u32,
    folder: &'static str,
    /// Who subscribed to the whole store is told of the folder; behind a resync of the Inbox at least.
    store: bool,
    /// Who subscribed to a message is told that it may have changed.
    message: bool,
    /// What is told of its message.
    exact: Option<Notification>,
    pops_up: bool,
    since: usize,
}

struct Life {
    random: Random,
    config: EngineConfig,
    engine: Engine,
    now: Duration,
    clients: HashMap<Uuid, Client>,
    asked: Vec<Query>,
    last_guid: u128,
    last_event: u128,
    last_uid: u32,
    /// All that could make less be told than everything.
    fails: bool,
}

fn handle(folder: &str) -> u32 {
    u32::try_from(FOLDERS.iter().position(|name| *name == folder).unwrap()).unwrap() + 1
}

fn contents(folder: &str) -> u32 {
    handle(folder) + 100
}

impl Client {
    /// What its handles of a user's mailbox begin at, for each logon to it.
    fn bases(&self, is_one: impl Fn(usize) -> bool) -> Vec<u32> {
        let logons = (0..).step_by(1_000).zip(&self.users);
        logons.filter(|(_, user)| is_one(**user)).map(|(base, _)| base).collect()
    }
}

impl Life {
    fn new(seed: u64) -> Life {
        let mut random = Random(seed);
        let config = EngineConfig {
            queue_octets: random.one_of(&[1_024, 4_096, 65_536]),
            row_octets: 128,
            queue_replies: random.one_of(&[16, 64, 4_096]),
            rows_per_table: random.one_of(&[0, 1, 5]),
            pending_per_user: random.one_of(&[1, 4, 256]),
            second_wait: random.one_of(&[SecondWait::Reject, SecondWait::Replace]),
            folders_per_user: random.one_of(&[1, 2, 100]),
            ..EngineConfig::default()
        };
        let fails = random.below(2) == 0;
        let engine = Engine::new(config.clone()).unwrap();
        Life {
            random,
            config,
            engine,
            now: Duration::from_secs(5),
            clients: HashMap::new(),
            asked: Vec::new(),
            last_guid: 0,
            last_event: 0,
            last_uid: 0,
            fails,
        }
    }

    fn run(&mut self) {
        for _ in 0..self.random.below(150) {
            self.step();
            self.check();
        }
        self.end();
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..5 => self.open(),
            5..45 => self.event(),
            45..65 => self.answer_one(),
            65..80 => self.take(),
            80..90 => self.park(),
            90..92 => self.cancel(),
            92..95 => {
                let time = self.random.one_of(&[1, 100, 1_999, 2_000, 30_000, 297_000, 2_000_000]);
                // Long times are rare: they end sessions.
                let time = if time > 2_000 && self.random.below(4) > 0 { 50 } else { time };
                self.pass(Duration::from_millis(time));
            }
            95..97 => {
                if let Some(guid) = self.any_client() {
                    assert!(self.engine.close(guid, self.now));
                    self.ended(guid);
                }
            }
            97..99 => self.resync(),
            _ => {
                // The server restarts: its clients are unknown, and connect again.
                self.engine = Engine::new(self.config.clone()).unwrap();
                let old: Vec<Uuid> = self.clients.drain().map(|(guid, _)| guid).collect();
                self.asked.clear();
                for guid in old {
                    assert_eq!(self.engine.park(guid, self.now), Parked::Done(WaitOutcome::UnknownSession));
                    self.open();
                }
            }
        }
    }

    fn any_client(&mut self) -> Option<Uuid> {
        let mut guids: Vec<Uuid> = self.clients.keys().copied().collect();
        guids.sort();
        (!guids.is_empty()).then(|| self.random.one_of(&guids))
    }

    fn open(&mut self) {
        if self.clients.len() >= 5 {
            return;
        }
        self.last_guid += 1;
        let (guid, user) = (Uuid::from_u128(self.last_guid), self.random.one_of(&[0, 1]));
        let cn = Cn::new(USERS[user]).unwrap();
        self.engine.open(NewSession { guid, cn, index: 7 }, self.now).unwrap();
        let mut users = vec![user];
        if self.random.below(3) == 0 {
            users.push(1 - user);
            self.engine.logon(guid, 1, Cn::new(USERS[1 - user]).unwrap(), self.now).unwrap();
        }
        for logon_id in (0..).take(users.len()) {
            let base = SHARED * u32::from(logon_id);
            let subscribe = |engine: &mut Engine, handle, types, scope| {
                let subscription = Subscription { handle: base + handle, logon_id, types, scope };
                engine.subscribe(guid, subscription, self.now).unwrap();
            };
            for folder in FOLDERS {
                subscribe(&mut self.engine, handle(folder), ALL, Scope::Folder(fid(folder)));
                let mut table = table(base + contents(folder), TableKind::Contents, folder);
                table.logon_id = logon_id;
                self.engine.add_table(guid, table, self.now).unwrap();
                self.engine.open_view(guid, table.handle, self.now).unwrap();
            }
            subscribe(&mut self.engine, POP_UPS, NotificationTypes::NEW_MAIL, Scope::Store);
            subscribe(&mut self.engine, STORE, ALL, Scope::Store);
            let message = Scope::Message { folder: fid("INBOX"), message: mid("INBOX", 0x8000) };
            subscribe(&mut self.engine, MESSAGE, ALL, message);
        }
        self.clients.insert(guid, Client { users, ..Client::default() });
    }

    fn event(&mut self) {
        self.last_event += 1;
        self.last_uid += 1;
        let (user, folder) = (self.random.one_of(&[0, 1]), self.random.one_of(&FOLDERS));
        let (uid, mut exact) = (self.last_uid, None);
        let mut pops_up = false;
        let mut other = None;
        let kind = match self.random.below(5) {
            0 | 1 => {
                exact = Some(super::rig::created(folder, uid));
                pops_up = folder == "INBOX";
                new_mail(uid)
            }
            2 => {
                exact = Some(super::rig::deleted(folder, uid));
                EventKind::MessageExpunge { uids: uids([uid]) }
            }
            3 => EventKind::MessageRead { uids: uids([uid]) },
            _ => {
                let old = self.random.one_of(&FOLDERS);
                other = Some(old);
                exact = Some(Notification::MessageMoved {
                    folder: fid(folder),
                    message: mid(folder, uid),
                    old_folder: fid(old),
                    old_message: mid(old, uid),
                });
                let old = Mailbox::new(old, '/');
                EventKind::MessageMove(Transfer::new(uids([uid]), old, uids([uid])))
            }
        };
        let mut event =
            Event::new(Uuid::from_u128(self.last_event), 0, USERS[user], Mailbox::new(folder, '/'), kind);
        // Counts only grow, so that an older one behind a newer is seen.
        (event.messages, event.unseen) = (Some(uid), Some(uid));
        for client in self.clients.values_mut() {
            let since = client.log.len();
            for base in client.bases(|of| of == user) {
                let owed = |folder, pops_up| {
                    let exact = exact.clone();
                    Owed { base, folder, store: true, message: false, exact, pops_up, since }
                };
                client.owed.push(owed(folder, pops_up));
                client.owed.extend(other.map(|folder| owed(folder, false)));
            }
        }
        self.engine.event(&Arc::new(event), self.now);
    }

    fn resync(&mut self) {
        self.last_event += 1;
        let looks = |client: &mut Client, is_one: &dyn Fn(usize) -> bool| {
            let since = client.log.len();
            for base in client.bases(is_one) {
                client.owed.extend(FOLDERS.map(|folder| {
                    let store = folder == "INBOX";
                    Owed { base, folder, store, message: true, exact: None, pops_up: false, since }
                }));
            }
        };
        // Of one session: as one that was just joined.
        if self.random.below(4) == 0
            && let Some(guid) = self.any_client()
        {
            looks(self.clients.get_mut(&guid).unwrap(), &|_| true);
            self.engine.resync(guid, self.now);
            return;
        }
        let user = self.random.one_of(&["", "bob", "alice"]);
        let event = Event::resync(Uuid::from_u128(self.last_event), 0, user, ResyncReason::Unreachable, 1);
        for client in self.clients.values_mut() {
            looks(client, &|of| user.is_empty() || USERS[of] == user);
        }
        self.engine.event(&Arc::new(event), self.now);
    }

    fn answer_one(&mut self) {
        self.asked.extend(std::iter::from_fn(|| self.engine.next_query()));
        if self.asked.is_empty() {
            return;
        }
        let at = usize::try_from(self.random.below(u64::try_from(self.asked.len()).unwrap())).unwrap();
        let query = self.asked.swap_remove(at);
        let bad = self.fails && self.random.below(4) == 0;
        let answer = match (&query.what, bad) {
            (_, false) => know(&query),
            (What::Messages { messages, .. }, true) => {
                let none: Vec<Option<MessageId>> = messages.iter().map(|_| None).collect();
                self.random.one_of(&[Answer::Failed, Answer::Unknown, Answer::Messages(none)])
            }
            (_, true) => Answer::Failed,
        };
        self.engine.answer(query.id, answer, self.now);
    }

    fn take(&mut self) {
        let Some(guid) = self.any_client() else { return };
        let room = self.random.one_of(&[0, 2, 3, 12, 29, 41, 100, 500, 5_000, 100_000]);
        self.take_from(guid, room);
    }

    /// Says whether more is left.
    fn take_from(&mut self, guid: Uuid, room: usize) -> bool {
        let mut out = Vec::new();
        let taken = self.engine.take(guid, room, &mut out, self.now).unwrap();
        assert!(out.len() <= room);
        assert_eq!(taken.pending, self.engine.has_replies(guid));
        let mut replies = &out[..];
        let mut read = 0;
        let client = self.clients.get_mut(&guid).unwrap();
        while replies.first() == Some(&RopNotify::ROP_ID) {
            let (reply, length) = RopNotify::decode(replies).unwrap();
            client.log.push(reply);
            replies = &replies[length..];
            read += 1;
        }
        assert_eq!(read, taken.replies);
        assert_eq!(replies, if taken.pending && room >= 3 { &[0x6e, 7, 0][..] } else { &[] });
        taken.pending
    }

    fn park(&mut self) {
        let Some(guid) = self.any_client() else { return };
        let replies = self.engine.has_replies(guid);
        let parked = self.engine.park(guid, self.now);
        let client = self.clients.get_mut(&guid).unwrap();
        let expected = match (replies, client.parked, &self.config.second_wait) {
            (true, _, _) => Some(WaitOutcome::EventPending),
            (false, Some(_), SecondWait::Reject) => Some(WaitOutcome::Rejected),
            _ => None,
        };
        match (parked, expected) {
            (Parked::Done(outcome), Some(expected)) => assert_eq!(outcome, expected),
            (Parked::Parked(wait), None) => {
                if let Some(older) = client.parked.replace(wait) {
                    let completed = self.engine.next_completed().unwrap();
                    assert_eq!((completed.wait, completed.outcome), (older, WaitOutcome::Rejected));
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn cancel(&mut self) {
        let Some(guid) = self.any_client() else { return };
        let client = self.clients.get_mut(&guid).unwrap();
        if let Some(wait) = client.parked.take() {
            assert!(self.engine.cancel(guid, wait));
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.engine.advance(self.now);
        let ended: Vec<Uuid> =
            self.clients.keys().copied().filter(|guid| !self.engine.contains(*guid)).collect();
        ended.into_iter().for_each(|guid| self.ended(guid));
    }

    fn ended(&mut self, guid: Uuid) {
        self.completions();
        let client = self.clients.remove(&guid).unwrap();
        assert!(client.parked.is_none(), "its wait was not answered");
        check_order(&client);
    }

    fn completions(&mut self) {
        while let Some(completed) = self.engine.next_completed() {
            let client = self.clients.get_mut(&completed.session).unwrap();
            assert_eq!(client.parked.take(), Some(completed.wait), "answered twice, or another's");
            match completed.outcome {
                WaitOutcome::EventPending => assert!(self.engine.has_replies(completed.session)),
                WaitOutcome::TimedOut => assert!(!self.engine.has_replies(completed.session)),
                WaitOutcome::UnknownSession => assert!(!self.engine.contains(completed.session)),
                other => panic!("{other:?}"),
            }
        }
    }

    /// What holds at any moment.
    fn check(&mut self) {
        self.completions();
        for (guid, client) in &self.clients {
            assert!(
                client.parked.is_none() || !self.engine.has_replies(*guid),
                "parked on a queue that is not empty"
            );
        }
        let statistics = self.engine.statistics();
        let parked = self.clients.values().filter(|client| client.parked.is_some()).count();
        assert_eq!(statistics.parked, u64::try_from(parked).unwrap());
        assert_eq!(statistics.sessions, u64::try_from(self.clients.len()).unwrap());
        let most = u64::try_from(self.clients.len() * self.config.queue_octets).unwrap();
        assert!(statistics.queued_octets <= most);
        assert!(self.engine.next_deadline().is_none_or(|deadline| deadline > self.now));
    }

    /// All is answered and fetched: nobody is owed anything.
    fn end(&mut self) {
        for _ in 0..2 {
            while let Some(query) = self.asked.pop().or_else(|| self.engine.next_query()) {
                self.engine.answer(query.id, know(&query), self.now);
            }
            // Whatever could not be found is asked again by then, and found.
            self.pass(Duration::from_secs(61));
        }
        assert!(!self.engine.has_queries());
        assert_eq!(self.engine.statistics().pending, 0, "all is answered");
        self.completions();
        let guids: Vec<Uuid> = self.clients.keys().copied().collect();
        for guid in guids {
            while self.take_from(guid, 2_000) {}
            let statistics = self.engine.statistics();
            let whole = statistics.lost + statistics.events_without_ids + statistics.events_over == 0;
            let named = statistics.events_without_ids + statistics.events_over == 0;
            let client = &self.clients[&guid];
            check_order(client);
            for owed in &client.owed {
                check_owed(client, owed, whole, named);
            }
        }
        assert_eq!((self.engine.statistics().queued_replies, self.engine.statistics().queued_octets), (0, 0));
    }
}

/// The order of events in a folder is that of what is told of it.
fn check_order(client: &Client) {
    for base in client.bases(|_| true) {
        for folder in FOLDERS {
            check_order_in(client, base, folder);
            let counts = client.log.iter().filter(|reply| reply.handle == base + STORE);
            let totals = counts.filter_map(|reply| match reply.notification {
                Notification::FolderModified { folder: of, total, .. } if of == fid(folder) => total,
                _ => None,
            });
            assert!(totals.is_sorted(), "an older count behind a newer");
        }
    }
}

fn check_order_in(client: &Client, base: u32, folder: &str) {
    let own = client.log.iter().filter(|reply| reply.handle == base + handle(folder));
    let (mut total, mut last) = (None, None);
    for reply in own {
        match &reply.notification {
            Notification::FolderModified { total: Some(now), .. } => {
                assert!(total <= Some(*now), "an older count behind a newer");
                total = Some(*now);
            }
            Notification::MessageCreated { message, .. } | Notification::MessageDeleted { message, .. } => {
                // Ids hold the uid, which is the number of the event.
                let uid = (message.counter() ^ (fid(folder).counter() << 16)) & 0xffff;
                assert!(last < Some(uid), "{uid} behind {last:?}");
                last = Some(uid);
            }
            _ => {}
        }
    }
}

fn check_owed(client: &Client, owed: &Owed, whole: bool, named: bool) {
    let later = &client.log[owed.since..];
    let is_told = |handle| {
        later.iter().any(|reply| {
            reply.handle == owed.base + handle
                && matches!(reply.notification, Notification::FolderModified { folder, .. } if folder == fid(owed.folder))
        })
    };
    assert!(is_told(handle(owed.folder)), "{} was not told to have changed", owed.folder);
    assert!(!owed.store || is_told(STORE), "{} was not told to the whole store", owed.folder);
    let message_told = later.iter().any(|reply| {
        reply.handle == owed.base + MESSAGE
            && matches!(reply.notification, Notification::MessageModified { .. })
    });
    assert!(!owed.message || message_told, "a message was told nothing");
    let table_told = later.iter().any(|reply| {
        reply.handle == owed.base + contents(owed.folder)
            && matches!(
                reply.notification,
                Notification::ContentsTable(TableEvent::Changed | TableEvent::RowDeleted { .. })
            )
    });
    assert!(table_told, "a table was told nothing");
    if let Some(exact) = &owed.exact
        && whole
    {
        let times = later
            .iter()
            .filter(|reply| reply.handle == owed.base + handle(owed.folder) && reply.notification == *exact)
            .count();
        assert_eq!(times, 1, "{exact:?}");
    }
    // Whoever hears of new mail only hears of this one, or of a later one in its place.
    if owed.pops_up && named {
        let Some(Notification::MessageCreated { message, .. }) = &owed.exact else { panic!() };
        let heard =
            later.iter().filter(|reply| reply.handle == owed.base + POP_UPS).any(|reply| {
                match &reply.notification {
                    Notification::NewMail { message: heard, .. } => heard.counter() >= message.counter(),
                    _ => false,
                }
            });
        assert!(heard, "no pop-up");
    }
}

#[test]
fn whatever_happens_everything_is_told_in_order_or_covered() {
    let read = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let seeds = match read("OCBUS_MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..read("OCBUS_MODEL_RUNS").unwrap_or(3_000),
    };
    for seed in seeds {
        let life = std::panic::AssertUnwindSafe(|| Life::new(seed).run());
        if let Err(panic) = std::panic::catch_unwind(life) {
            eprintln!("OCBUS_MODEL_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// The octets of the replies are read by what reads them elsewhere.
#[test]
fn what_is_fetched_is_what_split_reads() {
    let mut rig = super::rig::Rig::subscribed();
    rig.happens("INBOX", new_mail(1));
    let mut out = Vec::new();
    rig.engine.take(rig.session, 1_000, &mut out, rig.now).unwrap();
    assert!(ropnotify::split(&out).all(|reply| reply.is_ok()));
}
