//! Keeps the records of all shared sessions: one task that writes what is due, several sessions at once, each one's in
//! order.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ocbus_resolver::{Appended, Cn, SessionsError};
use ocbus_wire::openchange::SessionRecord;
use ocbus_wire::{Event, EventKind, ResyncReason};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::shared::{Job, Shared};
use super::{Sharing, SharingStatistics, entries};
use crate::emsmdb::engine::{Taken, UnknownSession};
use crate::emsmdb::service::Inner;

/// Sessions whose records are written at once.
const CONCURRENT: usize = 64;

/// How soon a session is tried again for which memcached failed. Until then nobody waits for memcached because of it.
const RETRY: Duration = Duration::from_millis(500);

/// How long nobody's fetch asks memcached when one has waited for it in vain: a server with one thread must not do
/// nothing else. What is there is fetched later.
const SPARED: Duration = Duration::from_secs(2);

/// How long it is tried to remove the records of a session that is over.
const REMOVE: Duration = Duration::from_secs(600);

/// How much is appended at once, about.
const APPEND_OCTETS: usize = 64 * 1024;

pub(in crate::emsmdb) struct Keeper {
    pub(super) sharing: Option<Sharing>,
    state: Mutex<State>,
    changed: Notify,
    /// A session is forgotten.
    gone: Notify,
    runtime: tokio::runtime::Handle,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) sessions: HashMap<Uuid, Shared>,
    pub(super) by_async: HashMap<Uuid, Uuid>,
    /// Sessions with something to do.
    ready: VecDeque<Uuid>,
    /// Sessions for which it failed.
    retries: BTreeSet<(Instant, Uuid)>,
    /// A fetch failed, and until then no other one waits for memcached.
    spared_until: Option<Instant>,
    /// Sessions that are over, and since when.
    pub(super) removing: HashMap<Uuid, Instant>,
    pub(super) counters: SharingStatistics,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("sharing", &self.sharing).finish_non_exhaustive()
    }
}

impl Keeper {
    pub(in crate::emsmdb) fn new(sharing: Option<Sharing>) -> Keeper {
        let runtime = tokio::runtime::Handle::current();
        Keeper { sharing, state: Mutex::default(), changed: Notify::new(), gone: Notify::new(), runtime }
    }

    /// Whether events are heard here.
    pub(in crate::emsmdb) fn hears(&self) -> bool {
        self.sharing.as_ref().is_none_or(|sharing| sharing.part.hears())
    }

    pub(in crate::emsmdb) fn is_on(&self) -> bool {
        self.sharing.is_some()
    }

    pub(in crate::emsmdb) fn statistics(&self) -> SharingStatistics {
        let state = self.lock();
        let sessions = u64::try_from(state.sessions.len()).unwrap_or(u64::MAX);
        SharingStatistics { sessions, ..state.counters }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A poisoned lock: a panic elsewhere in the process. Nothing panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session was opened here.
    pub(in crate::emsmdb) fn opened(&self, guid: Uuid, cn: &Cn) {
        let mut state = self.lock();
        state.removing.remove(&guid);
        state.sessions.insert(guid, Shared::new(cn.clone(), true));
    }

    /// What is open in a session has changed.
    pub(in crate::emsmdb) fn handles_changed(&self, guid: Uuid) {
        self.due(guid, |shared| shared.handles = shared.owner);
    }

    /// Something is in a session's queue.
    pub(in crate::emsmdb) fn relay(&self, guid: Uuid) {
        self.due(guid, |shared| shared.relay = true);
    }

    /// A wait was parked: what is in `deliver:` already is to end it.
    pub(in crate::emsmdb) fn look(&self, guid: Uuid) {
        self.due(guid, |shared| shared.look = true);
    }

    /// A session is over.
    pub(in crate::emsmdb) fn ended(&self, guid: Uuid) {
        let mut state = self.lock();
        // Of others there is nothing to remove, nor anybody who would take the entry out again.
        if state.sessions.contains_key(&guid) {
            state.removing.insert(guid, Instant::now());
        }
        self.due_in(&mut state, guid, |shared| shared.ended = true);
    }

    fn due(&self, guid: Uuid, change: impl FnOnce(&mut Shared)) {
        if self.sharing.is_some() {
            self.due_in(&mut self.lock(), guid, change);
        }
    }

    fn due_in(&self, state: &mut State, guid: Uuid, change: impl FnOnce(&mut Shared)) {
        let Some(shared) = state.sessions.get_mut(&guid) else { return };
        change(shared);
        if !std::mem::replace(&mut shared.busy, true) {
            state.ready.push_back(guid);
            self.changed.notify_one();
        }
    }

    /// Ties an asynchronous session to a session, and waits until that is written or was tried to be.
    pub(in crate::emsmdb) async fn connect_async(&self, guid: Uuid, async_session: Uuid) {
        let (done, written) = oneshot::channel();
        self.due(guid, |shared| {
            shared.connect(async_session);
            shared.waiting.push(done);
        });
        // An error: it failed, or there is no such session.
        let _ = written.await;
    }

    /// An event of the bus, before the engine is told: memcached may have forgotten what we wrote.
    pub(in crate::emsmdb) fn heard(&self, event: &Event) {
        let lost =
            matches!(&event.kind, EventKind::Resync { reason, .. } if *reason == ResyncReason::ResolverLost);
        if !lost || self.sharing.is_none() {
            return;
        }
        let concerned: Vec<Uuid> = {
            let state = self.lock();
            let of_user = |shared: &Shared| event.user.is_empty() || shared.cn.as_str() == event.user;
            let owned = state.sessions.iter().filter(|(_, shared)| shared.owner && of_user(shared));
            owned.map(|(guid, _)| *guid).collect()
        };
        concerned.into_iter().for_each(|guid| self.due(guid, Shared::rewrite));
    }

    /// The task.
    pub(in crate::emsmdb) async fn run(&self, inner: &Arc<Inner>) {
        let mut under_way = JoinSet::new();
        loop {
            while under_way.len() < CONCURRENT
                && let Some(guid) = self.next_ready()
            {
                let inner = Arc::clone(inner);
                under_way.spawn(async move { inner.keeper.work(&inner, guid).await });
            }
            let retry = self.lock().retries.first().map(|(at, _)| *at);
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep_until(retry) => {}
                Some(_) = under_way.join_next() => {}
            }
        }
    }

    fn next_ready(&self) -> Option<Uuid> {
        let mut state = self.lock();
        let retry = state.retries.first().copied().filter(|(at, _)| *at <= Instant::now());
        if let Some(retry) = retry {
            state.retries.remove(&retry);
            return Some(retry.1);
        }
        state.ready.pop_front()
    }

    /// Does all that is due for a session.
    async fn work(&self, inner: &Arc<Inner>, guid: Uuid) {
        let Some(sharing) = &self.sharing else { return };
        loop {
            let job = {
                let mut state = self.lock();
                let Some(shared) = state.sessions.get_mut(&guid) else { return };
                match shared.next() {
                    Some(job) => job,
                    None => {
                        (shared.busy, shared.failing) = (false, false);
                        for waiting in shared.waiting.drain(..) {
                            // Who does not wait any more does not mind.
                            let _ = waiting.send(());
                        }
                        return;
                    }
                }
            };
            let is_last = matches!(job, Job::Remove { .. } | Job::Forget);
            match self.step(inner, sharing, guid, job).await {
                Ok(()) if is_last => return self.forget(guid),
                Ok(()) => {}
                Err(error) => return self.failed(guid, &error),
            }
        }
    }

    fn failed(&self, guid: Uuid, error: &SessionsError) {
        tracing::debug!(event = "records_failed", session = %guid, reason = %error, "tried again");
        let now = Instant::now();
        let mut state = self.lock();
        state.counters.failures += 1;
        if state.counters.failures.is_power_of_two() {
            let count = state.counters.failures;
            tracing::warn!(event = "records_failed", count, reason = %error, "sessions are not shared meanwhile");
        }
        if state.removing.get(&guid).is_some_and(|since| *since + REMOVE <= now) {
            state.counters.left_behind += 1;
            tracing::warn!(event = "records_left_behind", session = %guid, "memcached has them until it evicts them");
            drop(state);
            return self.forget(guid);
        }
        if let Some(shared) = state.sessions.get_mut(&guid) {
            shared.again();
            state.retries.insert((now + RETRY, guid));
        }
    }

    fn forget(&self, guid: Uuid) {
        let mut state = self.lock();
        state.removing.remove(&guid);
        if let Some(shared) = state.sessions.remove(&guid) {
            for async_session in shared.asyncs {
                state.by_async.remove(&async_session);
            }
        }
        self.gone.notify_waiters();
    }

    async fn step(
        &self,
        inner: &Arc<Inner>,
        sharing: &Sharing,
        guid: Uuid,
        job: Job,
    ) -> Result<(), SessionsError> {
        let records = &sharing.records;
        match job {
            Job::Forget => Ok(()),
            Job::Remove { asyncs } => {
                for async_session in asyncs {
                    absent_is_right(records.unregister(&async_session).await)?;
                }
                absent_is_right(records.unsubscribe_all(&guid).await)?;
                absent_is_right(records.discard(&guid).await)
            }
            Job::Unregister { async_session } => {
                absent_is_right(records.unregister(&async_session).await)?;
                if let Some(shared) = self.lock().sessions.get_mut(&guid) {
                    shared.dropped.retain(|dropped| *dropped != async_session);
                }
                Ok(())
            }
            Job::Register { async_session, cn } => {
                let record = SessionRecord { session: guid, cn: cn.to_string() };
                match records.register(&async_session, &record).await {
                    // Ours, from before.
                    Ok(()) | Err(SessionsError::SessionExists { .. }) => Ok(()),
                    Err(SessionsError::Invalid { source, .. }) => {
                        tracing::warn!(event = "session_not_shared", session = %guid, reason = %source);
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            Job::Handles => {
                let Some(handles) = inner.with(|engine, _| engine.handles(guid)) else { return Ok(()) };
                let (entries, all) = entries::to_record(&handles);
                if !all {
                    tracing::warn!(event = "subscriptions_not_shared", session = %guid, "a record holds 100");
                }
                let mut hasher = DefaultHasher::new();
                entries.hash(&mut hasher);
                let number = hasher.finish();
                // Each RopQueryRows says that a view is open.
                let before = self.lock().sessions.get(&guid).and_then(|shared| shared.written);
                if before == Some(number) {
                    return Ok(());
                }
                match records.replace_subscriptions(&guid, &entries).await {
                    Ok(()) => {
                        if let Some(shared) = self.lock().sessions.get_mut(&guid) {
                            shared.written = Some(number);
                        }
                        Ok(())
                    }
                    Err(SessionsError::Invalid { source, .. }) => {
                        tracing::warn!(event = "subscriptions_not_shared", session = %guid, reason = %source);
                        Ok(())
                    }
                    failed => failed,
                }
            }
            Job::Relay { unsent } => self.append(inner, sharing, guid, unsent).await,
            Job::Look { joined } => self.look_at(inner, sharing, guid, joined).await,
        }
    }

    /// Hands on what is queued: first what may not have got there the last time.
    async fn append(
        &self,
        inner: &Arc<Inner>,
        sharing: &Sharing,
        guid: Uuid,
        mut octets: Vec<u8>,
    ) -> Result<(), SessionsError> {
        let resync = inner.with(|engine, _| {
            if octets.is_empty() {
                let left = engine.take_relay(guid, APPEND_OCTETS, &mut octets);
                if let Some(shared) = self.lock().sessions.get_mut(&guid) {
                    shared.relay = left;
                    shared.unsent.clone_from(&octets);
                }
            }
            engine.resync_replies(guid)
        });
        if octets.is_empty() {
            return Ok(());
        }
        let appended = sharing.records.append(&guid, &octets, &resync).await?;
        {
            let mut state = self.lock();
            state.counters.appended_octets += wide(octets.len());
            state.counters.full += u64::from(matches!(appended, Appended::Resynced { .. }));
            if let Some(shared) = state.sessions.get_mut(&guid) {
                shared.unsent = Vec::new();
                shared.appended += 1;
            }
        }
        // Not before: the client will look there, and perhaps in another process.
        inner.with(|engine, now| engine.wake(guid, now));
        Ok(())
    }

    /// A wait is parked: ended if something can be fetched, or if there is no such session any more.
    async fn look_at(
        &self,
        inner: &Arc<Inner>,
        sharing: &Sharing,
        guid: Uuid,
        joined: Option<Uuid>,
    ) -> Result<(), SessionsError> {
        if let Some(async_session) = joined {
            match sharing.records.session(&async_session).await {
                Err(SessionsError::NotFound { .. }) => {
                    tracing::debug!(event = "session_gone", session = %guid, "closed where it was opened");
                    inner.with(|engine, now| engine.close(guid, now));
                    return Ok(());
                }
                Err(error @ SessionsError::Store(_)) => return Err(error),
                _ => {}
            }
        }
        let front = self.lock().sessions.get(&guid).map(|shared| Arc::clone(&shared.front));
        let Some(front) = front else { return Ok(()) };
        let left = front.lock().await.left();
        if left > 0 || sharing.records.waiting_octets(&guid).await? > 0 {
            inner.with(|engine, now| engine.wake(guid, now));
        }
        Ok(())
    }

    /// Gives a client what waits for it: what was taken before, then what is in `deliver:` now. `None`: the session is not
    /// opened here, or not shared.
    pub(in crate::emsmdb) async fn fetch(
        &self,
        inner: &Arc<Inner>,
        guid: Uuid,
        free: usize,
        out: &mut Vec<u8>,
    ) -> Option<Result<Taken, UnknownSession>> {
        let front = {
            let state = self.lock();
            let shared = state.sessions.get(&guid).filter(|shared| shared.owner && !shared.ended)?;
            Arc::clone(&shared.front)
        };
        let bringing = Arc::clone(inner);
        // In a task of its own: dropped in the middle, what it has taken would be lost.
        let brought = self.runtime.spawn(async move { bringing.keeper.bring(&bringing, guid, free).await });
        if let Err(error) = brought.await {
            tracing::debug!(event = "fetch_ended", session = %guid, reason = %error);
        }
        let mut front = front.lock().await;
        let (index, open) = match inner.with(|engine, now| engine.fetched(guid, 0, now)) {
            Ok(session) => session,
            Err(unknown) => return Some(Err(unknown)),
        };
        let given = front.give(free, &open, index, out);
        drop(front);
        let _ = inner.with(|engine, now| engine.fetched(guid, given.taken.replies, now));
        self.lock().counters.released += given.released;
        if given.unreadable > 0 {
            tracing::warn!(event = "deliver_unreadable", session = %guid, octets = given.unreadable);
            self.lock().counters.unreadable_octets += wide(given.unreadable);
            inner.with(|engine, now| engine.resync(guid, now));
        }
        Some(Ok(given.taken))
    }

    /// Takes from `deliver:` what the next response may need.
    async fn bring(&self, inner: &Arc<Inner>, guid: Uuid, free: usize) {
        let Some(sharing) = &self.sharing else { return };
        let found = {
            let state = self.lock();
            let spared = state.spared_until.is_some_and(|until| Instant::now() < until);
            let shared = state.sessions.get(&guid).filter(|shared| !shared.failing);
            shared.map(|shared| (Arc::clone(&shared.front), shared.appended, spared))
        };
        let Some((front, appended, spared)) = found else { return };
        if spared {
            return self.look(guid);
        }
        // One taker at a time.
        let mut front = front.lock().await;
        if front.left() > free {
            return;
        }
        let taken = match sharing.records.take(&guid).await {
            Ok(taken) => taken,
            Err(error) => {
                drop(front);
                return self.fetch_failed(guid, &error);
            }
        };
        let forgotten = {
            let mut state = self.lock();
            state.counters.taken_octets += wide(taken.replies.len());
            let Some(shared) = state.sessions.get_mut(&guid) else { return };
            let forgotten = !taken.found && appended > shared.fetched;
            shared.fetched = appended;
            state.counters.forgotten += u64::from(forgotten);
            forgotten
        };
        front.add(taken.replies);
        drop(front);
        if forgotten {
            tracing::warn!(event = "deliver_forgotten", session = %guid, "memcached lost replies: a resync");
            inner.with(|engine, now| engine.resync(guid, now));
            self.due(guid, Shared::rewrite);
        }
    }

    fn fetch_failed(&self, guid: Uuid, error: &SessionsError) {
        tracing::debug!(event = "records_failed", session = %guid, reason = %error, "fetched later");
        let mut state = self.lock();
        state.counters.failures += 1;
        if matches!(error, SessionsError::Store(error) if error.is_timeout()) {
            state.spared_until = Some(Instant::now() + SPARED);
        }
        let Some(shared) = state.sessions.get_mut(&guid) else { return };
        let waiting = std::mem::take(&mut shared.waiting);
        shared.again();
        shared.waiting = waiting;
        if !std::mem::replace(&mut shared.busy, true) {
            state.retries.insert((Instant::now() + RETRY, guid));
            self.changed.notify_one();
        }
    }

    /// Waits until the records of every session that is over are removed.
    pub(in crate::emsmdb) async fn removed(&self) {
        loop {
            let gone = self.gone.notified();
            if self.lock().removing.is_empty() {
                return;
            }
            // It may have come between the two: so not for ever.
            let _ = tokio::time::timeout(RETRY, gone).await;
        }
    }
}

fn absent_is_right(result: Result<(), SessionsError>) -> Result<(), SessionsError> {
    match result {
        Err(SessionsError::NotFound { .. }) => Ok(()),
        result => result,
    }
}

fn wide(octets: usize) -> u64 {
    u64::try_from(octets).unwrap_or(u64::MAX)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
