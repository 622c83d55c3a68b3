//! The engine on a bus: one subscription and one task for all sessions.

use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ocbus_resolver::Cn;
use ocbus_wire::{Event, EventKind};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use uuid::Uuid;

use super::engine::{
    Answer, ConfigError, Engine, EngineConfig, NewSession, OpenError, Parked, QueryId, Statistics, WaitId,
    WaitOutcome, count,
};
use super::ids::{Ids, Reply};
use super::members::Members;
use super::records::{JoinError, Keeper, Lost, Place, Sharing, SharingStatistics};
use super::session::Session;
use crate::bus::{Bus, Filter, Subscription};
use crate::subscriber::Subscriber;

/// Events that are taken from the bus at once, and questions that are fetched at once.
const BATCH: usize = 64;

/// How an [`Emsmdb`] works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmsmdbConfig {
    /// The bounds of its engine.
    pub engine: EngineConfig,
    /// Events that may wait on the bus for it, 1 to 65,536; default 16,384. Full: every session is told to look again.
    pub bus_queue: usize,
}

impl Default for EmsmdbConfig {
    fn default() -> EmsmdbConfig {
        EmsmdbConfig { engine: EngineConfig::default(), bus_queue: 16_384 }
    }
}

/// The sessions of a process, fed by its bus. Clones are the same.
#[derive(Debug, Clone)]
pub struct Emsmdb {
    pub(super) inner: Arc<Inner>,
    _tasks: Arc<Tasks>,
}

/// Ended with the last clone, and the last session's handle.
#[derive(Debug)]
struct Tasks(Vec<AbortHandle>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

pub(super) struct Inner {
    state: Mutex<State>,
    origin: Instant,
    ids: Box<dyn Ids>,
    /// Wakes the task when something is due earlier than it knows.
    earlier: Notify,
    pub(super) members: Members,
    /// Tells the bus when the resolver has forgotten, whether or not users are registered by it.
    _watch: Option<Arc<Subscriber>>,
    /// Of what other processes know of the sessions.
    pub(super) keeper: Keeper,
}

struct State {
    engine: Engine,
    /// How parked waits are answered.
    parked: HashMap<WaitId, Done>,
    /// Until when the task sleeps.
    planned: Option<Duration>,
    /// Somebody hands questions to the host.
    asking: bool,
}

type Done = Box<dyn FnOnce(WaitOutcome) + Send>;

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

impl Emsmdb {
    /// Feeds sessions from a bus. `subscriber`: keeps the sessions' users registered; it should feed the same bus.
    /// `ids`: who knows ids and rows.
    ///
    /// Must be called within a tokio runtime, which runs two tasks. All else may be called from any thread, under any
    /// executor or none.
    pub fn attach(
        bus: &Bus,
        subscriber: Option<Arc<Subscriber>>,
        ids: impl Ids,
        config: EmsmdbConfig,
    ) -> Result<Emsmdb, ConfigError> {
        Emsmdb::start(bus, subscriber, ids, None, config)
    }

    /// Likewise, and shares the sessions through memcached as OpenChange does. As
    /// [`Part::Emsmdb`](super::Part::Emsmdb) nothing is fed, and the subscriber only tells when memcached has forgotten:
    /// then the sessions' records are written again. Without one that is seen behind a client's next call.
    ///
    /// Must be called within a tokio runtime, which runs three tasks, and takes from memcached.
    pub fn attach_shared(
        bus: &Bus,
        subscriber: Option<Arc<Subscriber>>,
        ids: impl Ids,
        sharing: Sharing,
        config: EmsmdbConfig,
    ) -> Result<Emsmdb, ConfigError> {
        Emsmdb::start(bus, subscriber, ids, Some(sharing), config)
    }

    fn start(
        bus: &Bus,
        subscriber: Option<Arc<Subscriber>>,
        ids: impl Ids,
        sharing: Option<Sharing>,
        config: EmsmdbConfig,
    ) -> Result<Emsmdb, ConfigError> {
        count("bus_queue", config.bus_queue, 1, 65_536)?;
        let state = State {
            engine: Engine::new(config.engine)?,
            parked: HashMap::new(),
            planned: None,
            asking: false,
        };
        let keeper = Keeper::new(sharing);
        let inner = Arc::new(Inner {
            state: Mutex::new(state),
            origin: Instant::now(),
            ids: Box::new(ids),
            earlier: Notify::new(),
            members: Members::new(subscriber.clone().filter(|_| keeper.hears())),
            _watch: subscriber,
            keeper,
        });
        let events = bus.subscribe_with_queue(Filter::all(), config.bus_queue);
        let feeding = tokio::spawn(feed(Arc::clone(&inner), events)).abort_handle();
        let joining = Arc::clone(&inner);
        let joining = tokio::spawn(async move { joining.members.run().await }).abort_handle();
        let mut tasks = vec![feeding, joining];
        if inner.keeper.is_on() {
            let keeping = Arc::clone(&inner);
            tasks.push(tokio::spawn(async move { keeping.keeper.run(&keeping).await }).abort_handle());
        }
        Ok(Emsmdb { inner, _tasks: Arc::new(Tasks(tasks)) })
    }

    /// Opens a session, and waits until its user's events come here. A resolver that does not answer is no error: the
    /// user is registered as soon as it does, and told to look again then.
    pub async fn open_session(&self, new: NewSession) -> Result<Session, OpenError> {
        let cn = new.cn.clone();
        let session = self.open(new)?;
        self.inner.members.settled(&cn).await;
        Ok(session)
    }

    /// Opens a session, whose user is registered in the background.
    pub fn open(&self, new: NewSession) -> Result<Session, OpenError> {
        let (guid, cn) = (new.guid, new.cn.clone());
        let shared = self.inner.keeper.is_on();
        self.inner.with(|engine, now| {
            engine.open(new, now)?;
            if shared {
                engine.relay(guid);
                self.inner.keeper.opened(guid, &cn);
            }
            Ok(())
        })?;
        Ok(Session::new(self.clone(), guid))
    }

    /// The session that an asynchronous one belongs to: what asyncemsmdb does at EcDoAsyncWaitEx, in a process that has
    /// not opened it. It is found in OpenChange's records, opened here, and its user registered; its subscriptions and
    /// tables are those of its record, which is read again when something has happened. The first time it is told to look
    /// at what it has open: nobody has listened for it until now.
    ///
    /// It ends when `session:` is gone, or when nobody has waited for it for [`idle`](super::EngineConfig::idle). Where there
    /// are as many sessions as may be, those whose `session:` is gone end at once. Its replies are fetched where it was opened.
    pub async fn join_session(&self, async_session: Uuid) -> Result<Session, JoinError> {
        let (guid, cn) = self.inner.keeper.join_in_place(&self.inner, async_session).await?;
        self.inner.members.settled(&cn).await;
        self.inner.keeper.is_heard(&self.inner, guid);
        Ok(Session::new(self.clone(), guid))
    }

    /// Waits as EcDoAsyncWaitEx does, by the asynchronous session: [`Emsmdb::join_session`], then [`Session::wait`]. While
    /// memcached is away it is waited for, no longer than a wait lasts: no client is told of it, nor made to ask again at
    /// once. Where a limit is in the way ([`sessions_per_user`](super::EngineConfig::sessions_per_user),
    /// [`sessions`](super::EngineConfig::sessions)), or `session:` cannot be read or names no user that there can be, the answer is
    /// [`WaitOutcome::Rejected`]: the client polls, until it has connected anew. One wait at a time for each asynchronous
    /// session, by [`second_wait`](super::EngineConfig::second_wait).
    pub async fn wait_async(&self, async_session: Uuid) -> WaitOutcome {
        match self.begin_wait_async(async_session) {
            Ok(wait) => wait.answered().await,
            Err(outcome) => outcome,
        }
    }

    /// Likewise in two steps, for a host whose wait may be taken back from elsewhere ([`Emsmdb::cancel_wait_async`]): this
    /// one waits for nothing. An error is the answer.
    pub fn begin_wait_async(&self, async_session: Uuid) -> Result<AsyncWait, WaitOutcome> {
        let policy = self.inner.with(|engine, _| engine.config().second_wait);
        let (place, lost) = self.inner.keeper.place(&self.inner, async_session, policy)?;
        Ok(AsyncWait { emsmdb: self.clone(), async_session, place, lost })
    }

    /// Takes a wait back, by [`AsyncWait::number`]: its client is gone, and its place is free. Says whether it had not been
    /// answered.
    pub fn cancel_wait_async(&self, async_session: Uuid, number: u64) -> bool {
        self.inner.keeper.free(&self.inner, async_session, number)
    }

    /// As long as memcached is away it is tried again, by one of all who wait for it.
    async fn join_and_wait(&self, async_session: Uuid, place: &Place) -> WaitOutcome {
        let keeper = &self.inner.keeper;
        let mut probe = None;
        loop {
            let joined = self.join_session(async_session).await;
            keeper.joined(probe.take(), &joined);
            match joined {
                Ok(session) => return place.wait(&session).await,
                Err(error) => {
                    if let Some(answer) = error.answer() {
                        tracing::debug!(event = "join_failed", %async_session, reason = %error);
                        return answer;
                    }
                    tracing::debug!(event = "join_failed", %async_session, reason = %error, "tried again");
                    probe = keeper.until_next_join(&error).await;
                }
            }
        }
    }

    /// Whether sessions are shared.
    pub fn is_shared(&self) -> bool {
        self.inner.keeper.is_on()
    }

    /// What became of the records that are shared.
    pub fn sharing_statistics(&self) -> SharingStatistics {
        self.inner.keeper.statistics()
    }

    /// A session that is open.
    pub fn session(&self, guid: Uuid) -> Option<Session> {
        let open = self.inner.with(|engine, _| engine.contains(guid));
        open.then(|| Session::new(self.clone(), guid))
    }

    /// Answers a question whose [`Reply`] was turned into its number.
    pub fn answer(&self, query: QueryId, answer: Answer) {
        self.inner.with(|engine, now| engine.answer(query, answer, now));
    }

    /// What it holds, and what has happened so far.
    pub fn statistics(&self) -> Statistics {
        self.inner.with(|engine, _| engine.statistics())
    }

    /// Answers every wait that the server stops, and takes its users' registrations back within `limit`; and the records of
    /// sessions that were opened here, where they are shared.
    pub async fn stop(&self, limit: Duration) {
        let shared = self.inner.keeper.is_on();
        let users: Vec<Cn> = self.inner.with(|engine, now| {
            engine.stop();
            let users: Vec<Cn> = engine.users().cloned().collect();
            if shared {
                let sessions: Vec<Uuid> =
                    users.iter().flat_map(|cn| engine.sessions_of(cn)).copied().collect();
                for session in sessions {
                    engine.close(session, now);
                }
            }
            users
        });
        let left = async {
            for cn in &users {
                self.inner.members.want(cn, false);
            }
            for cn in &users {
                self.inner.members.settled(cn).await;
            }
            self.inner.keeper.removed().await;
        };
        if tokio::time::timeout(limit, left).await.is_err() {
            tracing::warn!(event = "leave_incomplete", "not all users were left in time");
        }
    }
}

/// A wait by an asynchronous session that has begun. Dropped, it is taken back.
#[derive(Debug)]
pub struct AsyncWait {
    emsmdb: Emsmdb,
    async_session: Uuid,
    place: Place,
    lost: Lost,
}

impl AsyncWait {
    /// Another for each.
    pub fn number(&self) -> u64 {
        self.place.number()
    }

    /// Waits until it is answered.
    pub async fn answered(self) -> WaitOutcome {
        let AsyncWait { emsmdb, async_session, place, lost } = self;
        let limit = emsmdb.inner.with(|engine, _| engine.config().wait);
        tokio::select! {
            biased;
            _ = lost => WaitOutcome::Rejected,
            waited = tokio::time::timeout(limit, emsmdb.join_and_wait(async_session, &place)) => {
                waited.unwrap_or(WaitOutcome::TimedOut)
            }
        }
    }
}

/// What is to be done when the engine has been called, and no lock is held.
#[derive(Default)]
struct After {
    completed: Vec<(Done, WaitOutcome)>,
    ask: bool,
    earlier: bool,
}

impl State {
    /// Collects what the engine wants; users go to the members at once, so that they stay in order.
    fn collect(&mut self, members: &Members, keeper: &Keeper) -> After {
        let mut after = After::default();
        while let Some(completed) = self.engine.next_completed() {
            if let Some(done) = self.parked.remove(&completed.wait) {
                after.completed.push((done, completed.outcome));
            }
        }
        while let Some(change) = self.engine.next_user() {
            members.change(&change);
        }
        while let Some(session) = self.engine.next_relay() {
            keeper.relay(session);
        }
        while let Some(session) = self.engine.next_ended() {
            keeper.ended(session);
        }
        after.ask = !self.asking && self.engine.has_queries();
        self.asking |= after.ask;
        after.earlier = match (self.engine.next_deadline(), self.planned) {
            (Some(deadline), Some(planned)) => deadline < planned,
            (deadline, None) => deadline.is_some(),
            (None, Some(_)) => false,
        };
        after
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A poisoned lock: a panic elsewhere in the process. The engine's calls do not panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Calls the engine, and does what it wants then.
    pub(super) fn with<R>(self: &Arc<Self>, call: impl FnOnce(&mut Engine, Duration) -> R) -> R {
        self.with_state(|state, now| call(&mut state.engine, now))
    }

    fn with_state<R>(self: &Arc<Self>, call: impl FnOnce(&mut State, Duration) -> R) -> R {
        let (result, after) = {
            let mut state = self.lock();
            let result = call(&mut state, self.now());
            (result, state.collect(&self.members, &self.keeper))
        };
        for (done, outcome) in after.completed {
            survive("wait", || done(outcome));
        }
        if after.earlier {
            self.earlier.notify_one();
        }
        if after.ask {
            self.ask();
        }
        result
    }

    /// Hands questions to the host until there are none. Only one thread does at a time: an answer that is given at
    /// once may lead to the next question, which is then handed out here and not from within the answer.
    fn ask(self: &Arc<Self>) {
        loop {
            let (limit, queries) = {
                let mut state = self.lock();
                let limit = state.engine.config().query_timeout;
                let queries: Vec<_> = std::iter::from_fn(|| state.engine.next_query()).take(BATCH).collect();
                // Under the same lock that saw that there is none.
                state.asking = !queries.is_empty();
                (limit, queries)
            };
            if queries.is_empty() {
                return;
            }
            for query in queries {
                let reply = Reply { id: Some(query.id), inner: Arc::downgrade(self), limit };
                // Unwinding drops the reply, which answers that it failed.
                survive("ids", || self.ids.ask(query, reply));
            }
        }
    }

    /// Parks a wait that is answered by a call of `done`, from any thread.
    pub(super) fn park(self: &Arc<Self>, session: Uuid, done: Done) -> Parked {
        // One that is not parked goes when the lock is free: what the host drops with it may call us.
        let (parked, _unused) = self.with_state(|state, now| {
            let parked = state.engine.park(session, now);
            match parked {
                Parked::Parked(wait) => {
                    state.parked.insert(wait, done);
                    (parked, None)
                }
                Parked::Done(_) => (parked, Some(done)),
            }
        });
        if matches!(parked, Parked::Parked(_)) {
            self.keeper.look(session);
        }
        parked
    }

    /// Takes a wait back; its `done` is not called any more, unless it is called just now.
    pub(super) fn cancel(self: &Arc<Self>, session: Uuid, wait: WaitId) -> bool {
        // The engine knows whose wait it is: another session's stays. What was parked is dropped without the lock.
        let cancelled = self
            .with_state(|state, _| state.engine.cancel(session, wait).then(|| state.parked.remove(&wait)));
        cancelled.is_some()
    }

    /// When something is due next; an earlier time wakes the task.
    fn plan(&self) -> Option<Instant> {
        let mut state = self.lock();
        state.planned = state.engine.next_deadline();
        state.planned.map(|deadline| self.origin + deadline)
    }
}

/// Calls the host, whose panic must not end what serves all sessions.
fn survive(callback: &str, call: impl FnOnce()) {
    if std::panic::catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!(event = "callback_panicked", callback, "the host's callback panicked");
    }
}

/// Of several resyncs of all users only the last: it says what those before it did, and each is told to every session.
fn keep_last_resync_of_all(events: &mut Vec<Arc<Event>>) {
    let of_all = |event: &Event| event.user.is_empty() && matches!(event.kind, EventKind::Resync { .. });
    let Some(last) = events.iter().rposition(|event| of_all(event)) else { return };
    let mut at = 0;
    events.retain(|event| {
        at += 1;
        at > last || !of_all(event)
    });
}

/// The task: events and deadlines.
async fn feed(inner: Arc<Inner>, mut events: Subscription) {
    let mut some = Vec::with_capacity(BATCH);
    loop {
        let due = inner.plan();
        let sleep = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = events.recv() => {
                let Some(event) = event else { return };
                some.push(event);
                some.extend(std::iter::from_fn(|| events.try_recv()).take(BATCH - 1));
                some.iter().for_each(|event| inner.keeper.heard(&inner, event));
                if inner.keeper.hears() {
                    keep_last_resync_of_all(&mut some);
                    inner.keeper.refresh(&inner, &some).await;
                    inner.with(|engine, now| {
                        some.iter().for_each(|event| engine.event(event, now));
                        engine.advance(now);
                    });
                }
                some.clear();
                // Many events in a row: let others run as well.
                tokio::task::consume_budget().await;
            }
            () = sleep => inner.with(|engine, now| engine.advance(now)),
            () = inner.earlier.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use ocbus_wire::ResyncReason;

    use super::*;

    #[test]
    fn of_resyncs_of_all_the_last_stays_in_its_place() {
        let resync = |at, user| Event::resync(Uuid::from_u128(at), 0, user, ResyncReason::SlowSubscriber, 1);
        let mut events = Vec::from(
            [(1, ""), (2, "bob"), (3, ""), (4, "eve"), (5, ""), (6, "bob")]
                .map(|(at, user)| Arc::new(resync(at, user))),
        );
        keep_last_resync_of_all(&mut events);
        let ids: Vec<u128> = events.iter().map(|event| event.id.as_u128()).collect();
        assert_eq!(ids, [2, 4, 5, 6]);
        keep_last_resync_of_all(&mut events);
        assert_eq!(events.len(), 4);
    }
}
