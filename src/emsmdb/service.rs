//! The engine on a bus: one subscription and one task for all sessions.

use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ocbus_resolver::Cn;
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
    members: Members,
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
        count("bus_queue", config.bus_queue, 1, 65_536)?;
        let state = State {
            engine: Engine::new(config.engine)?,
            parked: HashMap::new(),
            planned: None,
            asking: false,
        };
        let inner = Arc::new(Inner {
            state: Mutex::new(state),
            origin: Instant::now(),
            ids: Box::new(ids),
            earlier: Notify::new(),
            members: Members::new(subscriber),
        });
        let events = bus.subscribe_with_queue(Filter::all(), config.bus_queue);
        let feeding = tokio::spawn(feed(Arc::clone(&inner), events)).abort_handle();
        let joining = Arc::clone(&inner);
        let joining = tokio::spawn(async move { joining.members.run().await }).abort_handle();
        Ok(Emsmdb { inner, _tasks: Arc::new(Tasks(vec![feeding, joining])) })
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
        let guid = new.guid;
        self.inner.with(|engine, now| engine.open(new, now))?;
        Ok(Session::new(self.clone(), guid))
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

    /// Answers every wait that the server stops, and takes its users' registrations back within `limit`.
    pub async fn stop(&self, limit: Duration) {
        let users: Vec<Cn> = self.inner.with(|engine, _| {
            engine.stop();
            engine.users().cloned().collect()
        });
        let left = async {
            for cn in &users {
                self.inner.members.want(cn, false);
            }
            for cn in &users {
                self.inner.members.settled(cn).await;
            }
        };
        if tokio::time::timeout(limit, left).await.is_err() {
            tracing::warn!(event = "leave_incomplete", "not all users were left in time");
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
    fn collect(&mut self, members: &Members) -> After {
        let mut after = After::default();
        while let Some(completed) = self.engine.next_completed() {
            if let Some(done) = self.parked.remove(&completed.wait) {
                after.completed.push((done, completed.outcome));
            }
        }
        while let Some(change) = self.engine.next_user() {
            members.change(&change);
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
            (result, state.collect(&self.members))
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
        self.with_state(|state, now| {
            let parked = state.engine.park(session, now);
            if let Parked::Parked(wait) = parked {
                state.parked.insert(wait, done);
            }
            parked
        })
    }

    /// Takes a wait back; its `done` is not called any more, unless it is called just now.
    pub(super) fn cancel(self: &Arc<Self>, session: Uuid, wait: WaitId) -> bool {
        self.with_state(|state, _| {
            state.parked.remove(&wait);
            state.engine.cancel(session, wait)
        })
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

/// The task: events and deadlines.
async fn feed(inner: Arc<Inner>, mut events: Subscription) {
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
                inner.with(|engine, now| {
                    engine.event(&event, now);
                    for _ in 1..BATCH {
                        match events.try_recv() {
                            Some(event) => engine.event(&event, now),
                            None => break,
                        }
                    }
                    engine.advance(now);
                });
                // Many events in a row: let others run as well.
                tokio::task::consume_budget().await;
            }
            () = sleep => inner.with(|engine, now| engine.advance(now)),
            () = inner.earlier.notified() => {}
        }
    }
}
