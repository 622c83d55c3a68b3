//! What all requests share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ocbus_resolver::Resolver;
use tokio::sync::watch;

use super::health::LastLook;
use super::repeats::{Fingerprints, Repeats};
use super::requests::Requests;
use crate::gateway::settings::Loaded;
use crate::outbox::Outbox;
use crate::registration::Registrar;

/// How often a line about refused requests or connections comes at most: whoever is refused may try very often.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// The state behind the end-points. Clones are the same.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    settings: RwLock<Arc<Loaded>>,
    renewed: watch::Sender<()>,
    outbox: Outbox,
    resolver: Resolver,
    registrar: Option<Registrar>,
    fingerprints: Fingerprints,
    repeats: Mutex<Repeats>,
    counters: [AtomicU64; Count::ALL.len()],
    open: AtomicU64,
    requests: Requests,
    last_look: LastLook,
    /// For each [`Count`], when one was logged, and how many were not since.
    last_lines: Mutex<[(Option<Instant>, u64); Count::ALL.len()]>,
}

/// What became of requests and connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Requests whose events were accepted.
    Accepted,
    /// Requests that came again: 2xx, no event.
    Repeated,
    /// Requests of users who cannot have a cn: 2xx, no event.
    NoUser,
    /// Requests refused because the outbox is full: 503.
    Full,
    /// Requests that make no sense: 400.
    Malformed,
    /// Bodies above the limit: 413.
    TooLarge,
    /// Bodies that did not come in time: 408.
    Slow,
    /// Requests without a right credential: 401.
    Unauthorized,
    /// Requests whose credential is not good for them, or that another site's page made a browser send: 403.
    Forbidden,
    /// Events that made no sense, beside others of their request: left out.
    Skipped,
    /// Connections of peers outside the trusted networks: 403.
    Untrusted,
    /// Connections above the limit: 503.
    Crowded,
    /// Connections that were taken.
    Connections,
    /// Connections that could not be taken: no descriptors, no memory.
    AcceptFailed,
}

impl Count {
    /// All of them, in the order of [`HttpStatistics::counts`].
    pub const ALL: [Count; 14] = [
        Count::Accepted,
        Count::Repeated,
        Count::NoUser,
        Count::Full,
        Count::Malformed,
        Count::TooLarge,
        Count::Slow,
        Count::Unauthorized,
        Count::Forbidden,
        Count::Skipped,
        Count::Untrusted,
        Count::Crowded,
        Count::Connections,
        Count::AcceptFailed,
    ];

    /// Its name, for labels.
    pub fn name(self) -> &'static str {
        match self {
            Count::Accepted => "accepted",
            Count::Repeated => "repeated",
            Count::NoUser => "no-user",
            Count::Full => "full",
            Count::Malformed => "malformed",
            Count::TooLarge => "too-large",
            Count::Slow => "slow",
            Count::Unauthorized => "unauthorized",
            Count::Forbidden => "forbidden",
            Count::Skipped => "skipped",
            Count::Untrusted => "untrusted",
            Count::Crowded => "crowded",
            Count::Connections => "connections",
            Count::AcceptFailed => "accept-failed",
        }
    }
}

/// What the end-points have done since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpStatistics {
    /// How often each of [`Count::ALL`].
    pub counts: [u64; Count::ALL.len()],
    /// Connections now.
    pub open: u64,
    /// Requests by the path of their route (`other`: none), and by the answer's status.
    pub requests: Vec<(String, u16, u64)>,
}

impl Gateway {
    /// The state behind a router.
    pub fn new(
        settings: Loaded,
        outbox: Outbox,
        resolver: Resolver,
        registrar: Option<Registrar>,
    ) -> Gateway {
        Gateway(Arc::new(Inner {
            settings: RwLock::new(Arc::new(settings)),
            renewed: watch::Sender::new(()),
            outbox,
            resolver,
            registrar,
            fingerprints: Fingerprints::default(),
            repeats: Mutex::default(),
            counters: Default::default(),
            open: AtomicU64::new(0),
            requests: Requests::default(),
            last_look: LastLook::default(),
            last_lines: Mutex::default(),
        }))
    }

    /// Who keeps users registered with Dovecot, if that is wanted.
    pub fn registrar(&self) -> Option<&Registrar> {
        self.0.registrar.as_ref()
    }

    /// The settings that hold now.
    pub fn settings(&self) -> Arc<Loaded> {
        Arc::clone(&self.0.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Other settings, from the next request or connection on.
    pub(in crate::gateway) fn set_settings(&self, settings: Loaded) {
        *self.0.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        self.0.renewed.send_replace(());
    }

    /// Is told whenever there are other settings.
    pub(in crate::gateway) fn renewed(&self) -> watch::Receiver<()> {
        self.0.renewed.subscribe()
    }

    /// Where accepted events go.
    pub fn outbox(&self) -> &Outbox {
        &self.0.outbox
    }

    /// Who listens.
    pub fn resolver(&self) -> &Resolver {
        &self.0.resolver
    }

    /// What the end-points have done so far.
    pub fn statistics(&self) -> HttpStatistics {
        let counts =
            Count::ALL.map(|count| self.counter(count).map_or(0, |counter| counter.load(Ordering::Relaxed)));
        let requests = self.0.requests.all();
        HttpStatistics { counts, open: self.0.open.load(Ordering::Relaxed), requests }
    }

    pub(super) fn count(&self, count: Count) {
        self.add(count, 1);
    }

    pub(super) fn add(&self, count: Count, more: u64) {
        if let Some(counter) = self.counter(count) {
            counter.fetch_add(more, Ordering::Relaxed);
        }
    }

    fn counter(&self, count: Count) -> Option<&AtomicU64> {
        self.0.counters.get(count as usize)
    }

    pub(super) fn fingerprints(&self) -> &Fingerprints {
        &self.0.fingerprints
    }

    pub(super) fn repeats(&self) -> MutexGuard<'_, Repeats> {
        self.0.repeats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn requests(&self) -> &Requests {
        &self.0.requests
    }

    pub(super) fn last_look(&self) -> &LastLook {
        &self.0.last_look
    }

    /// Whether the outbox has no room for one more ordinary event.
    pub(super) fn outbox_is_full(&self) -> bool {
        let limit = self.settings().settings.outbox.max_octets.get();
        self.0.outbox.statistics().held_octets >= limit.saturating_sub(1024)
    }

    /// Takes the locks on which all events wait, and gives them back.
    pub(in crate::gateway) fn look_at_locks(&self) {
        self.0.outbox.statistics();
        if let Some(registrar) = &self.0.registrar {
            registrar.statistics();
        }
    }

    /// One more connection, unless there are `most`. It counts until the guard is dropped.
    pub(super) fn enter(&self, most: u64) -> Option<Entered> {
        let enter = |open: u64| (open < most).then_some(open + 1);
        self.0.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter).ok()?;
        self.count(Count::Connections);
        Some(Entered(self.clone()))
    }

    /// Whether to write a line about one of these; then how many were passed over since the last one.
    pub(super) fn may_log(&self, count: Count) -> Option<u64> {
        let mut last = self.0.last_lines.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, passed_over) = last.get_mut(count as usize)?;
        if at.is_some_and(|at| at.elapsed() < LOG_EVERY) {
            *passed_over += 1;
            return None;
        }
        *at = Some(Instant::now());
        Some(std::mem::take(passed_over))
    }
}

/// An open connection.
pub(super) struct Entered(Gateway);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
