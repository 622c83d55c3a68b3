//! The users whose events are wanted, kept registered by the process's subscriber.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ocbus_resolver::Cn;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::engine::UserChange;
use crate::subscriber::{Subscriber, SubscriberError};

/// Users that are registered or left at once.
const CONCURRENT: usize = 512;

/// How soon a user is tried again whom the subscriber could not take.
const RETRY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Members {
    subscriber: Option<Arc<Subscriber>>,
    /// Users whose registration is not as wanted yet.
    unsettled: Mutex<HashMap<Cn, Unsettled>>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Unsettled {
    wanted: bool,
    /// Being registered or left.
    busy: bool,
    /// Failed: when it is tried again.
    not_before: Option<Instant>,
    /// Who waits until it is done.
    waiting: Vec<oneshot::Sender<()>>,
}

impl Members {
    pub(super) fn new(subscriber: Option<Arc<Subscriber>>) -> Members {
        Members { subscriber, unsettled: Mutex::default(), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Cn, Unsettled>> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change(&self, change: &UserChange) {
        match change {
            UserChange::Joined(cn) => self.want(cn, true),
            UserChange::Left(cn) => self.want(cn, false),
        }
    }

    pub(super) fn want(&self, cn: &Cn, wanted: bool) {
        if self.subscriber.is_some() {
            let mut unsettled = self.lock();
            let user = unsettled.entry(cn.clone()).or_default();
            (user.wanted, user.not_before) = (wanted, None);
            self.changed.notify_one();
        }
    }

    /// Waits until the user is registered, or was tried to be; or left.
    pub(super) async fn settled(&self, cn: &Cn) {
        let settled = {
            let mut unsettled = self.lock();
            let Some(user) = unsettled.get_mut(cn) else { return };
            let (done, settled) = oneshot::channel();
            user.waiting.push(done);
            settled
        };
        // An error: the task has ended.
        let _ = settled.await;
    }

    /// The task.
    pub(super) async fn run(&self) {
        let Some(subscriber) = &self.subscriber else { return };
        let mut under_way = JoinSet::new();
        loop {
            for (cn, wanted) in self.next(CONCURRENT.saturating_sub(under_way.len())) {
                let subscriber = Arc::clone(subscriber);
                under_way.spawn(async move {
                    let settled = settle(&subscriber, &cn, wanted).await;
                    (cn, wanted, settled)
                });
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep_until(self.next_retry()) => {}
                Some(done) = under_way.join_next() => {
                    if let Ok((cn, wanted, settled)) = done {
                        self.done(&cn, wanted, settled);
                    }
                }
            }
        }
    }

    /// The next users to be settled.
    fn next(&self, most: usize) -> Vec<(Cn, bool)> {
        let mut unsettled = self.lock();
        let now = Instant::now();
        let is_due = |user: &Unsettled| !user.busy && user.not_before.is_none_or(|at| at <= now);
        let idle = unsettled.iter_mut().filter(|(_, user)| is_due(user)).take(most);
        idle.map(|(cn, user)| {
            user.busy = true;
            (cn.clone(), user.wanted)
        })
        .collect()
    }

    fn done(&self, cn: &Cn, wanted: bool, settled: bool) {
        let mut unsettled = self.lock();
        let Some(user) = unsettled.get_mut(cn) else { return };
        user.busy = false;
        // Whoever opened a session need not wait for what may take long: it is tried again.
        for waiting in user.waiting.drain(..) {
            // Who does not wait any more does not mind.
            let _ = waiting.send(());
        }
        if settled && user.wanted == wanted {
            unsettled.remove(cn);
        } else if !settled && user.wanted == wanted {
            user.not_before = Some(Instant::now() + RETRY);
        }
    }

    fn next_retry(&self) -> Option<Instant> {
        self.lock().values().filter(|user| !user.busy).filter_map(|user| user.not_before).min()
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Says whether it is done; a registration that the resolver did not take is the subscriber's to repeat.
async fn settle(subscriber: &Subscriber, cn: &Cn, wanted: bool) -> bool {
    let result = match wanted {
        true => subscriber.add(cn).await,
        false => subscriber.remove(cn).await,
    };
    match result {
        Ok(()) => true,
        Err(error @ SubscriberError::Resolver(_)) => {
            tracing::debug!(event = "member_unregistered", user = %cn, wanted, reason = %error);
            true
        }
        Err(error) => {
            tracing::warn!(event = "member_failed", user = %cn, reason = %error, "tried again in {} s", RETRY.as_secs());
            false
        }
    }
}
