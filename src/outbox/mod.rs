//! The daemon's outbox: takes events, finds out who listens, sends, and tries again.
//!
//! Whoever gives events is answered before anything is looked up or sent. An event that was accepted outlives a
//! subscriber's restart and an outage of the resolver for its time to live: it is held, for each user and for each
//! endpoint, and tried again. Room is bounded, overall and for each user; what is dropped is counted by its
//! [`Reason`], and whoever missed it is told to look again, by one [`Resync`](crate::EventKind::Resync) in its place.
//! So is, when there is room again, a user whose events were refused because there was none.
//! `docs/operations.md` says what is held and what is not.
//!
//! What happens is decided in [`core`], without I/O and without a clock; here the decisions are carried out. A
//! [`ledger`] on disk tells the next process what a killed one had accepted and not delivered.

mod config;
mod core;
mod ledger;
mod left_behind;
mod run;
mod statistics;
mod trace;

pub use config::{Full, OutboxConfig, OutboxError, RenewError};
pub use ledger::LedgerError;
pub use statistics::{ByKind, COUNTED_KINDS, LATENCY_BOUNDS_US, Statistics};
pub use trace::{Reason, SendOutcome, Source, Step, Trace, TracedEvent};

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ocbus_resolver::{Cn, Resolver};
use ocbus_wire::Event;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, broadcast};
use uuid::Uuid;

use crate::publisher::PublisherConfig;
use crate::{Publisher, now_us};
use core::{Core, News, Now, Order};
use ledger::{Ledger, LeftBehind};

/// Traces that wait for one who follows.
const TRACES: usize = 8192;

/// Sends to legacy endpoints at once: each is a connection of its own. Of those that are silent each keeps its place for
/// the publisher's budget.
const LEGACY_SENDS: usize = 512;

/// What is kept of a drain's limit to tell those who are registered what they miss.
const TELL_SHARE: u32 = 4;

/// Takes events, and answers for them. Clones are the same outbox. When the last one goes, what waits is lost, but for
/// the ledger: see [`Outbox::drain`].
#[derive(Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}

/// What the handles and the tasks share.
struct Shared {
    state: Mutex<State>,
    publisher: Publisher,
    resolver: Resolver,
    runtime: Handle,
    /// Sends to legacy endpoints that may be under way.
    legacy: Semaphore,
    /// Something is due sooner than the timer's task knows.
    sooner: Arc<Notify>,
    /// Nothing waits any more.
    empty: Notify,
    traces: broadcast::Sender<Arc<Trace>>,
}

struct State {
    core: Core,
    ledger: Option<Ledger>,
    /// The counters as the ledger has them.
    written: (u64, u64),
    /// When the timer's task wakes.
    armed: Option<Instant>,
}

impl Outbox {
    /// Holds, retries and sends in another way from here on: all but `state_dir`, which is the ledger's for good.
    pub fn renew(&self, config: OutboxConfig, sending: PublisherConfig) -> Result<(), RenewError> {
        config.check()?;
        self.shared.publisher.renew(sending)?;
        self.shared.lock().core.renew(config);
        self.shared.sooner.notify_one();
        Ok(())
    }

    /// An outbox without events; what an earlier one left behind is told to everybody who is registered. Within a
    /// tokio runtime.
    pub fn start(
        publisher: Publisher,
        resolver: Resolver,
        config: OutboxConfig,
    ) -> Result<Outbox, OutboxError> {
        config.check()?;
        let (ledger, left) = match &config.state_dir {
            None => (None, LeftBehind::Nothing),
            Some(folder) => {
                let (ledger, left) = Ledger::open(folder)?;
                (Some(ledger), left)
            }
        };
        // Any: it only spreads retries.
        let (seed, _) = Uuid::new_v4().as_u64_pair();
        let core = Core::new(config, now(), seed);
        let shared = Arc::new(Shared {
            state: Mutex::new(State { core, ledger, written: (0, 0), armed: None }),
            publisher,
            resolver,
            runtime: Handle::current(),
            legacy: Semaphore::new(LEGACY_SENDS),
            sooner: Arc::default(),
            empty: Notify::new(),
            traces: broadcast::channel(TRACES).0,
        });
        tokio::spawn(run::timer(Arc::downgrade(&shared), Arc::clone(&shared.sooner)));
        if left != LeftBehind::Nothing {
            tokio::spawn(left_behind::tell(Arc::downgrade(&shared), left));
        }
        Ok(Outbox { shared })
    }

    /// Takes events of any users, all or none of them. It does not block; when it returns, the events are counted in
    /// the ledger, so that whoever gave them may be told. Not within a runtime only: any thread may call it.
    pub fn accept(&self, source: Source, events: Vec<Event>) -> Result<(), Full> {
        let (accepted, orders) = self.shared.call(|core, now| core.accept(now, source, events));
        self.shared.start(orders);
        accepted
    }

    /// Notes that a request was refused before it was read. It may have been about anybody, and Dovecot's drivers do not ask
    /// again: everybody who is registered is told to look again, at once and then once a minute while that lasts.
    pub fn turn_away_unread(&self) {
        let ((), orders) = self.shared.call(|core, now| core.turn_away_unread(now));
        self.shared.start(orders);
    }

    /// What it has done so far, and what it holds.
    pub fn statistics(&self) -> Statistics {
        self.shared.lock().core.statistics()
    }

    /// Follows events from now on. Whoever is slow loses the oldest traces, and is told how many.
    pub fn traces(&self) -> broadcast::Receiver<Arc<Trace>> {
        self.shared.traces.subscribe()
    }

    /// Accepts nothing any more, and waits until everything is sent, at most for `limit`. What is left then is marked
    /// as missed with those who are registered, and counted; what nobody could be told of stays in the ledger, so that
    /// the next start tells everybody.
    pub async fn drain(&self, limit: Duration) {
        let shared = &self.shared;
        let ((), orders) = shared.call(|core, _| core.stopping = true);
        shared.start(orders);
        let sent = async {
            loop {
                let empty = shared.empty.notified();
                if shared.lock().core.is_empty() {
                    return;
                }
                empty.await;
            }
        };
        let end = tokio::time::Instant::now() + limit;
        let _ = tokio::time::timeout(limit - limit / TELL_SHARE, sent).await;
        let (left, _) = shared.call(|core, now| core.abandon(now));
        let mut settling = tokio::task::JoinSet::new();
        for (cn, settlement, units) in left {
            let resolver = shared.resolver.clone();
            settling.spawn(async move {
                let told = settlement.is_empty() || resolver.settle(&cn, &settlement).await.is_ok();
                if told { units } else { 0 }
            });
        }
        let mut told: u64 = 0;
        while let Ok(Some(units)) = tokio::time::timeout_at(end, settling.join_next()).await {
            told = told.saturating_add(units.unwrap_or(0));
        }
        let mut state = shared.lock();
        state.core.settled = state.core.settled.saturating_add(told);
        let (accepted, settled) = (state.core.accepted, state.core.settled);
        if let Some(mut ledger) = state.ledger.take() {
            ledger.close(accepted, settled);
        }
        if accepted > settled {
            let events = accepted - settled;
            tracing::warn!(
                event = "outbox_left",
                events,
                "not delivered, and nobody could be told: the next start tells"
            );
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The timer's task finds out that there is nothing to wake any more.
        self.sooner.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the core, and sees to the ledger, the traces and the timer. Gives what is to be done.
    fn call<T>(&self, call: impl FnOnce(&mut Core, Now) -> T) -> (T, Vec<Order>) {
        let mut state = self.lock();
        let State { core, ledger, written, armed } = &mut *state;
        core.traced = self.traces.receiver_count() > 0;
        let result = call(core, now());
        let counters = (core.accepted, core.settled);
        // What was accepted is written at once. What was settled meanwhile goes along, or when there is nothing left:
        // in between the difference is too large, and a resync too many harms nobody.
        if counters.0 != written.0 || (counters.0 == counters.1 && counters != *written) {
            *written = counters;
            if let Some(ledger) = ledger {
                ledger.write(counters.0, counters.1);
            }
        }
        let (traces, news) = (std::mem::take(&mut core.traces), std::mem::take(&mut core.news));
        let orders = core.take_orders();
        let next = core.next_wake();
        let sooner = next.is_some_and(|next| armed.is_none_or(|armed| next < armed));
        let empty = core.stopping && core.is_empty();
        drop(state);
        if sooner {
            self.sooner.notify_one();
        }
        if empty {
            self.empty.notify_waiters();
        }
        for trace in traces {
            // Nobody may be there any more.
            let _ = self.traces.send(trace);
        }
        news.into_iter().for_each(log);
        (result, orders)
    }

    /// Does what is to be done, all at once. Look-ups share round trips.
    fn start(self: &Arc<Self>, mut orders: Vec<Order>) {
        let look_ups = orders.extract_if(.., |order| matches!(order, Order::LookUp(_)));
        let users = look_ups.filter_map(|order| match order {
            Order::LookUp(cn) => Some(cn),
            _ => None,
        });
        self.look_up(users.collect());
        if !orders.is_empty() {
            self.runtime.spawn(run::run(Arc::clone(self), orders));
        }
    }

    fn look_up(self: &Arc<Self>, users: Vec<Cn>) {
        if users.is_empty() {
            return;
        }
        for users in self.resolver.round_trips(users) {
            self.runtime.spawn(run::look_up(Arc::clone(self), users));
        }
    }
}

/// Writes a line.
fn log(news: News) {
    match news {
        News::ResolverBack { lasted, held, dropped } => {
            let lasted_ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(event = "resolver_back", lasted_ms, held, dropped, "what is held is sent now");
        }
        News::Dropped { reason, events } => {
            let reason = reason.name();
            tracing::warn!(
                event = "events_dropped",
                reason,
                events,
                "not everybody that they were for has them"
            );
        }
    }
}

/// Now; in tests the time that tokio has.
fn now() -> Now {
    Now { at: tokio::time::Instant::now().into_std(), us: now_us() }
}

#[cfg(test)]
mod tests;
