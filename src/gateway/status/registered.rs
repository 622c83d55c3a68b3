//! Who is registered: counted in the background when somebody wants to know, and not often, for it reads every record.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ocbus_resolver::{Cn, Resolver};
use tokio::sync::Notify;

use crate::now_us;

/// Between two counts; and so many times as long as the last one took.
const PAUSE: Duration = Duration::from_secs(5);
const SHARE: u32 = 20;
/// A count takes 0.6 s or more, and nobody waits for one each time: only when the last one is older than this.
const OLD_US: u64 = 30_000_000;
/// For each step of a count.
const LIMIT: Duration = Duration::from_secs(5);
/// Users that are counted at most.
const USERS: usize = 500_000;
/// Endpoints that are told apart at most.
const ENDPOINTS: usize = 10_000;

/// The last count. Clones of its answers are cheap.
#[derive(Default)]
pub(super) struct Registered(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    counted: Notify,
}

#[derive(Default)]
struct State {
    last: Arc<Found>,
    next: Option<Instant>,
    counting: bool,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// When; `None`: not yet. Microseconds since the Unix epoch.
    pub(super) at_us: Option<u64>,
    /// Users with an endpoint.
    pub(super) users: u64,
    /// Users' leases of native endpoints: sessions.
    pub(super) native: u64,
    /// Users' legacy endpoints.
    pub(super) legacy: u64,
    /// Users of each endpoint, and whether it is native.
    pub(super) endpoints: HashMap<String, (bool, u64)>,
    /// Why there may be more.
    pub(super) fault: Option<String>,
}

impl Registered {
    /// The last count.
    pub(super) fn last(&self) -> Arc<Found> {
        Arc::clone(&lock(&self.0.state).last)
    }

    /// Counts in the background, if it is time to.
    pub(super) fn refresh(&self, resolver: &Resolver) {
        let mut state = lock(&self.0.state);
        let begun = Instant::now();
        if state.counting || state.next.is_some_and(|next| begun < next) {
            return;
        }
        state.counting = true;
        drop(state);
        let (shared, resolver) = (Arc::clone(&self.0), resolver.clone());
        tokio::spawn(async move {
            let (found, idle) = count(&resolver).await;
            let mut state = lock(&shared.state);
            state.last = Arc::new(match (&found.fault, found.users) {
                // What was known is better than nothing, with the fault beside it.
                (Some(_), 0) => Found { fault: found.fault, ..(*state.last).clone() },
                _ => found,
            });
            state.next = Some(Instant::now() + PAUSE.max(begun.elapsed().saturating_sub(idle) * SHARE));
            state.counting = false;
            drop(state);
            shared.counted.notify_waiters();
        });
    }

    /// The last count; where that is old, a new one if it is time to, waited for at most so long.
    pub(super) async fn fresh(&self, resolver: &Resolver, limit: Duration) -> Arc<Found> {
        let counted = self.0.counted.notified();
        self.refresh(resolver);
        let old = self.last().at_us.is_none_or(|at| at.saturating_add(OLD_US) < now_us());
        if old && lock(&self.0.state).counting {
            let _ = tokio::time::timeout(limit, counted).await;
        }
        self.last()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// And how long it waited in between.
async fn count(resolver: &Resolver) -> (Found, Duration) {
    let mut found = Found { at_us: Some(now_us()), ..Found::default() };
    let Some(mut census) = resolver.census(LIMIT) else { return (found, Duration::ZERO) };
    // A memcached must not wait for look-ups: first all the names.
    let mut names: Vec<Cn> = Vec::new();
    loop {
        match census.next().await {
            Ok(Some(_)) if names.len() >= USERS => {
                found.fault = Some(format!("more than {USERS} users: the others are not counted"));
                break;
            }
            Ok(Some(cn)) => names.push(cn),
            Ok(None) => break,
            Err(error) => found.fault = Some(error.to_string()),
        }
    }
    let idle = census.idle();
    drop(census);
    for some in names.chunks(256) {
        for listeners in resolver.lookup_many(some).await {
            match listeners {
                Ok(listeners) => {
                    let native = listeners.native.iter().map(|lease| (lease.endpoint.clone(), true));
                    let legacy = listeners.legacy.iter().map(|url| (url.clone(), false));
                    found.users += u64::from(!listeners.is_empty());
                    native.chain(legacy).for_each(|(url, native)| found.add(url, native));
                }
                Err(error) => found.fault = Some(error.to_string()),
            }
        }
    }
    (found, idle)
}

impl Found {
    fn add(&mut self, url: String, native: bool) {
        match native {
            true => self.native += 1,
            false => self.legacy += 1,
        }
        if self.endpoints.len() < ENDPOINTS || self.endpoints.contains_key(&url) {
            self.endpoints.entry(url).or_insert((native, 0)).1 += 1;
        }
    }
}
