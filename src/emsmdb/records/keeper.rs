//! Keeps the records of all shared sessions: one task that writes what is due, several sessions at once, each one's in
//! order.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ocbus_resolver::{Appended, Cn, SessionsError};
use ocbus_wire::openchange::{SessionRecord, Subscription};
use ocbus_wire::{Event, EventKind, ResyncReason};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

use super::outages::{Outages, Probe, RETRY, is_timeout, unreachable};
use super::shared::{Job, Shared};
use super::waits::Waiting;
use super::{Sharing, SharingStatistics, entries};
use crate::emsmdb::service::Inner;

/// Sessions whose records are written at once.
const CONCURRENT: usize = 64;

/// How long nobody's call asks memcached when one has waited for it in vain: a server with one thread must not do
/// nothing else. What is there is fetched later.
const SPARED: Duration = Duration::from_secs(2);

/// How long it is tried to remove the records of a session that is over.
const REMOVE: Duration = Duration::from_secs(600);

/// How often it is looked for those of which it was tried long enough.
const SWEEP: Duration = Duration::from_secs(60);

/// How much is appended at once, about.
const APPEND_OCTETS: usize = 64 * 1024;

pub(in crate::emsmdb) struct Keeper {
    pub(super) sharing: Option<Sharing>,
    state: Mutex<State>,
    pub(super) outages: Outages,
    changed: Notify,
    /// A session is forgotten.
    gone: Notify,
    pub(super) runtime: tokio::runtime::Handle,
}

/// Who had to answer for a step to be done: what is known of memcached by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Memcached,
    Nobody,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) sessions: HashMap<Uuid, Shared>,
    pub(super) by_async: HashMap<Uuid, Uuid>,
    /// Sessions with something to do; one of an outage may be its probe.
    ready: VecDeque<(Uuid, Option<Probe>)>,
    /// Sessions for which it has just failed, and the server that is out of reach, if that is why.
    failed: Vec<(Uuid, Option<String>)>,
    /// A call has waited in vain, and until then no other one waits for memcached.
    spared_until: Option<Instant>,
    /// Waits by asynchronous sessions.
    pub(super) waits: HashMap<Uuid, Waiting>,
    /// Of sessions and waits.
    pub(super) last_number: u64,
    /// Sessions that are over, and since when.
    pub(super) removing: HashMap<Uuid, Instant>,
    pub(super) counters: SharingStatistics,
}

impl State {
    /// Puts a session in the place of any former one with its GUID. Says whether there was one: then whoever works for
    /// that one goes on with this, so that nothing of it comes later.
    pub(super) fn put(&mut self, guid: Uuid, mut new: Shared) -> bool {
        self.removing.remove(&guid);
        self.last_number += 1;
        new.number = self.last_number;
        let old = self.sessions.remove(&guid);
        let is_again = old.is_some();
        if let Some(old) = old {
            for async_session in &old.asyncs {
                self.by_async.remove(async_session);
            }
            new.inherit(old);
        }
        self.sessions.insert(guid, new);
        is_again
    }

    fn forget(&mut self, guid: Uuid) {
        self.removing.remove(&guid);
        let Some(shared) = self.sessions.remove(&guid) else { return };
        for async_session in shared.asyncs {
            self.by_async.remove(&async_session);
        }
    }

    /// A session that had failed is ready. A probe comes first: others wait for what becomes of it.
    fn try_again(&mut self, guid: Uuid, probe: Option<Probe>) {
        let stalled = self.sessions.get_mut(&guid).filter(|shared| shared.stalled);
        // Forgotten meanwhile, and perhaps opened again: then it is somebody else's.
        let Some(shared) = stalled else { return };
        shared.stalled = false;
        match probe {
            Some(_) => self.ready.push_front((guid, probe)),
            None => self.ready.push_back((guid, None)),
        }
    }

    /// Whether nobody is to wait for memcached just now.
    pub(super) fn is_spared(&self) -> bool {
        self.spared_until.is_some_and(|until| Instant::now() < until)
    }

    /// Takes note of a call that failed.
    pub(super) fn count_failure(&mut self, error: &SessionsError, now: Instant) {
        self.counters.failures += 1;
        if is_timeout(error) {
            self.spared_until = Some(now + SPARED);
        }
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("sharing", &self.sharing).finish_non_exhaustive()
    }
}

impl Keeper {
    pub(in crate::emsmdb) fn new(sharing: Option<Sharing>) -> Keeper {
        let runtime = tokio::runtime::Handle::current();
        Keeper {
            sharing,
            state: Mutex::default(),
            outages: Outages::default(),
            changed: Notify::new(),
            gone: Notify::new(),
            runtime,
        }
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
        if state.put(guid, Shared::new(cn.clone(), true)) {
            // Its former life's records are to be removed first.
            self.due_in(&mut state, guid, |_| {});
        }
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
        if state.sessions.get(&guid).is_some_and(|shared| shared.stalled && !shared.owner) {
            // Nobody need find memcached back for that: its turn would be a lost one.
            state.forget(guid);
        }
    }

    pub(super) fn due(&self, guid: Uuid, change: impl FnOnce(&mut Shared)) {
        if self.sharing.is_some() {
            self.due_in(&mut self.lock(), guid, change);
        }
    }

    fn due_in(&self, state: &mut State, guid: Uuid, change: impl FnOnce(&mut Shared)) {
        let Some(shared) = state.sessions.get_mut(&guid) else { return };
        change(shared);
        if !std::mem::replace(&mut shared.busy, true) {
            state.ready.push_back((guid, None));
            self.changed.notify_one();
        }
    }

    /// Ties an asynchronous session to a session, and waits until that is written or was tried to be; no longer than one
    /// call on memcached may take, whatever else waits for it.
    pub(in crate::emsmdb) async fn connect_async(&self, guid: Uuid, async_session: Uuid) {
        let Some(sharing) = &self.sharing else { return };
        let (done, written) = oneshot::channel();
        self.due(guid, |shared| {
            shared.connect(async_session);
            shared.waiting.push(done);
        });
        if self.lock().is_spared() {
            return;
        }
        // It may be late, or have failed, or there is no such session: it is written when it can be.
        let _ = tokio::time::timeout(sharing.records.time_limit(), written).await;
    }

    /// An event of the bus, before the engine is told: memcached may have forgotten what we wrote.
    pub(in crate::emsmdb) fn heard(&self, inner: &Arc<Inner>, event: &Event) {
        let lost =
            matches!(&event.kind, EventKind::Resync { reason, .. } if *reason == ResyncReason::ResolverLost);
        if !lost || self.sharing.is_none() {
            return;
        }
        // After a restart there is one event for each user: all sessions are not walked through for each.
        let of_user = |cn: Cn| inner.with(|engine, _| engine.sessions_of(&cn).to_vec());
        let concerned: Vec<Uuid> = match event.user.is_empty() {
            true => self.lock().sessions.keys().copied().collect(),
            false => Cn::new(&event.user).map(of_user).unwrap_or_default(),
        };
        let now = Instant::now();
        for guid in concerned {
            let is_ours = self.lock().sessions.get_mut(&guid).is_some_and(|shared| {
                shared.may_be_forgotten(now);
                shared.owner
            });
            if is_ours {
                self.due(guid, Shared::rewrite);
            }
        }
    }

    /// The task.
    pub(in crate::emsmdb) async fn run(&self, inner: &Arc<Inner>) {
        let mut under_way = JoinSet::new();
        let mut stalled = JoinSet::new();
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let failed = std::mem::take(&mut self.lock().failed);
            for (guid, server) in failed {
                let inner = Arc::clone(inner);
                stalled.spawn(async move { (guid, inner.keeper.until_next_try(server.as_deref()).await) });
            }
            while under_way.len() < CONCURRENT
                && let Some((guid, probe)) = self.next_ready()
            {
                let inner = Arc::clone(inner);
                under_way.spawn(async move { inner.keeper.work(&inner, guid, probe).await });
            }
            tokio::select! {
                () = self.changed.notified() => {}
                Some(Ok((guid, probe))) = stalled.join_next() => self.lock().try_again(guid, probe),
                Some(_) = under_way.join_next() => {}
                _ = sweep.tick() => self.sweep(Instant::now()),
            }
        }
    }

    /// A session that failed by itself is tried again soon; of those that miss a server one tries for all.
    pub(in crate::emsmdb) async fn until_next_try(&self, server: Option<&str>) -> Option<Probe> {
        match server {
            Some(server) => self.outages.wait(server).await,
            None => {
                tokio::time::sleep(RETRY).await;
                None
            }
        }
    }

    fn next_ready(&self) -> Option<(Uuid, Option<Probe>)> {
        self.lock().ready.pop_front()
    }

    /// Does all that is due for a session.
    async fn work(&self, inner: &Arc<Inner>, guid: Uuid, probe: Option<Probe>) {
        let Some(sharing) = &self.sharing else { return };
        // Who has asked nothing knows nothing: its turn is another's.
        let mut asked = false;
        loop {
            let (job, number) = {
                let mut state = self.lock();
                let Some(shared) = state.sessions.get_mut(&guid) else { return };
                match shared.next() {
                    Some(job) => (job, shared.number),
                    None => {
                        (shared.busy, shared.failing) = (false, false);
                        for waiting in shared.waiting.drain(..) {
                            // Who does not wait any more does not mind.
                            let _ = waiting.send(());
                        }
                        drop(state);
                        return self.outages.tried(probe.filter(|_| asked), None);
                    }
                }
            };
            let is_last = matches!(job, Job::Remove { .. } | Job::Forget);
            match self.step(inner, sharing, guid, job).await {
                Ok(Asked::Memcached) => {
                    asked = true;
                    // It answers: who was spared a moment ago can ask again.
                    self.lock().spared_until = None;
                }
                Ok(Asked::Nobody) => {}
                Err(error) => {
                    self.failed(guid, &error);
                    return self.outages.tried(probe, Some(&error));
                }
            }
            // If not, it was opened again meanwhile: what is due for it then is ours to do.
            if is_last && self.forget(guid, number) {
                return self.outages.tried(probe.filter(|_| asked), None);
            }
        }
    }

    fn failed(&self, guid: Uuid, error: &SessionsError) {
        tracing::debug!(event = "records_failed", session = %guid, reason = %error, "tried again");
        let now = Instant::now();
        let mut state = self.lock();
        state.count_failure(error, now);
        if state.counters.failures.is_power_of_two() {
            let count = state.counters.failures;
            tracing::warn!(event = "records_failed", count, reason = %error, "sessions are not shared meanwhile");
        }
        if let Some(shared) = state.sessions.get_mut(&guid) {
            shared.again(now);
        }
        self.stall(&mut state, guid, error);
    }

    /// A session is to be tried again, and is not ready until then.
    pub(super) fn stall(&self, state: &mut State, guid: Uuid, error: &SessionsError) {
        if let Some(shared) = state.sessions.get_mut(&guid) {
            if shared.ended && !shared.owner {
                state.forget(guid);
                return;
            }
            (shared.busy, shared.stalled) = (true, true);
            state.failed.push((guid, unreachable(error).map(ToOwned::to_owned)));
            self.changed.notify_one();
        }
    }

    /// Forgets a session, unless another has taken its place. Says whether it has not.
    fn forget(&self, guid: Uuid, number: u64) -> bool {
        let mut state = self.lock();
        let other = state.sessions.get(&guid).is_some_and(|shared| shared.number != number);
        if !other {
            state.forget(guid);
        }
        drop(state);
        self.gone.notify_waiters();
        !other
    }

    /// Leaves behind what could not be removed for long.
    fn sweep(&self, now: Instant) {
        let mut state = self.lock();
        // Those that somebody works for are tried just now.
        let is_late = |(guid, since): (&Uuid, &Instant)| {
            let stalled = state.sessions.get(guid).is_none_or(|shared| shared.stalled);
            (stalled && *since + REMOVE <= now).then_some(*guid)
        };
        let late: Vec<Uuid> = state.removing.iter().filter_map(is_late).collect();
        for guid in late {
            state.counters.left_behind += 1;
            tracing::warn!(event = "records_left_behind", session = %guid, "memcached has them until it evicts them");
            state.forget(guid);
        }
        drop(state);
        self.gone.notify_waiters();
    }

    async fn step(
        &self,
        inner: &Arc<Inner>,
        sharing: &Sharing,
        guid: Uuid,
        job: Job,
    ) -> Result<Asked, SessionsError> {
        let records = &sharing.records;
        match job {
            Job::Forget => return Ok(Asked::Nobody),
            Job::Clear => {
                absent_is_right(records.discard(&guid).await)?;
                if let Some(shared) = self.lock().sessions.get_mut(&guid) {
                    shared.clear = false;
                }
            }
            Job::Remove { asyncs } => {
                for async_session in asyncs {
                    absent_is_right(records.unregister(&async_session).await)?;
                }
                absent_is_right(records.unsubscribe_all(&guid).await)?;
                absent_is_right(records.discard(&guid).await)?;
            }
            Job::Unregister { async_session } => {
                absent_is_right(records.unregister(&async_session).await)?;
                let mut state = self.lock();
                state.by_async.remove(&async_session);
                if let Some(shared) = state.sessions.get_mut(&guid) {
                    shared.dropped.retain(|dropped| *dropped != async_session);
                }
            }
            Job::Register { async_session, cn } => {
                let record = SessionRecord { session: guid, cn: cn.to_string() };
                match records.register(&async_session, &record).await {
                    // Ours, from before.
                    Ok(()) | Err(SessionsError::SessionExists { .. }) => {}
                    Err(SessionsError::Invalid { source, .. }) => {
                        tracing::warn!(event = "session_not_shared", session = %guid, reason = %source);
                        let mut state = self.lock();
                        if let Some(shared) = state.sessions.get_mut(&guid) {
                            shared.unwritable = true;
                            // A wait here finds it all the same.
                            state.by_async.insert(async_session, guid);
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            Job::Handles => {
                let open = inner.with(|engine, _| Some((engine.handles(guid)?, engine.open_handles(guid))));
                let Some((handles, open)) = open else { return Ok(Asked::Nobody) };
                let (entries, all) = entries::to_record(&handles);
                if !all {
                    tracing::warn!(event = "subscriptions_not_shared", session = %guid, "a record holds 100");
                }
                let number = number_of(&entries);
                // Each RopQueryRows says that a view is open.
                let before = self.lock().sessions.get(&guid).and_then(|shared| shared.written);
                let mut all_written = true;
                if before != Some(number) {
                    match records.replace_subscriptions(&guid, &entries).await {
                        Err(SessionsError::Invalid { source, .. }) => {
                            tracing::warn!(event = "subscriptions_not_shared", session = %guid, reason = %source);
                            all_written = false;
                        }
                        result => result?,
                    }
                }
                if let Some(shared) = self.lock().sessions.get_mut(&guid) {
                    let any = all_written && !entries.is_empty();
                    shared.handles_written(number, any, &open, Instant::now());
                }
                if before == Some(number) {
                    return Ok(Asked::Nobody);
                }
            }
            Job::Check { async_session: None, subscriptions: false } => return Ok(Asked::Nobody),
            Job::Check { async_session, subscriptions } => {
                let mut forgotten = false;
                if let Some(async_session) = async_session {
                    let found = records.session(&async_session).await.map(|_| ());
                    forgotten |= is_absent(found)?;
                }
                if subscriptions {
                    let found = records.subscriptions(&guid).await.map(|_| ());
                    forgotten |= is_absent(found)?;
                }
                if forgotten {
                    // At once, also where the resync is put off: until then its wait is answered that it is unknown.
                    self.due(guid, Shared::rewrite);
                    self.was_forgotten(
                        inner,
                        guid,
                        "memcached lost records: they are written again, and a resync",
                    );
                }
            }
            Job::Relay { unsent } => return self.append(inner, sharing, guid, unsent).await,
            Job::Read => self.read_late(inner, sharing, guid).await?,
            Job::Look { joined } => return self.look_at(inner, sharing, guid, joined).await,
        }
        Ok(Asked::Memcached)
    }

    /// Hands on what is queued: first what may not have got there the last time.
    async fn append(
        &self,
        inner: &Arc<Inner>,
        sharing: &Sharing,
        guid: Uuid,
        mut octets: Vec<u8>,
    ) -> Result<Asked, SessionsError> {
        if octets.is_empty() {
            inner.with(|engine, _| {
                let left = engine.take_relay(guid, APPEND_OCTETS, &mut octets);
                if let Some(shared) = self.lock().sessions.get_mut(&guid) {
                    shared.relay = left;
                    shared.unsent.clone_from(&octets);
                }
            });
        }
        if octets.is_empty() {
            return Ok(Asked::Nobody);
        }
        // It names everything that the session has open, and everybody waits meanwhile.
        let resync = || inner.with(|engine, _| engine.resync_replies(guid));
        let appended = sharing.records.append_or(&guid, &octets, resync).await?;
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
        Ok(Asked::Memcached)
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

/// Whether there is no such record. What cannot be read is there.
fn is_absent(result: Result<(), SessionsError>) -> Result<bool, SessionsError> {
    match result {
        Err(SessionsError::NotFound { .. }) => Ok(true),
        Err(error @ SessionsError::Store(_)) => Err(error),
        _ => Ok(false),
    }
}

/// What stands in a record, in a number.
fn number_of(entries: &[Subscription]) -> u64 {
    let mut hasher = DefaultHasher::new();
    entries.hash(&mut hasher);
    hasher.finish()
}

pub(super) fn wide(octets: usize) -> u64 {
    u64::try_from(octets).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
