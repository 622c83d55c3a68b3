//! Sends events to every endpoint of a user: native ones in acknowledged batches, legacy ones as OpenChange v1
//! payloads.
//!
//! Which endpoint gets what, and what a failure means, is decided in [`ocbus_resolver::delivery`], the same for
//! the Dovecot plugin. Here each endpoint has a task of its own, so that endpoints never wait for one another;
//! what arrives for one while its batch is under way forms the next batch.

mod endpoint;
mod legacy;
mod native;
mod probe;
mod report;

pub use probe::probe;
pub use report::{EndpointReport, PublishError, Report};

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use ocbus_resolver::delivery::{self, Options, Outcome, Send, Verdicts};
use ocbus_resolver::{Cn, Resolver};
use ocbus_wire::Event;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use endpoint::Job;

/// Endpoints that have a task, and mostly a connection, at once. OpenChange has one endpoint for each user: of more, those
/// that had nothing to send for the longest time end early.
const MAX_ENDPOINTS: usize = 4096;

/// Jobs that wait for one endpoint, in its queue and in its task each.
const MAX_JOBS: usize = 1024;

/// How a publisher sends. `docs/settings.md` has the same as a table.
#[derive(Debug, Clone)]
pub struct PublisherConfig {
    /// Encodings, and whether refused legacy endpoints are kept.
    pub options: Options,
    /// Time for one [`Publisher::publish`]: the look-up and all sends together, 1 ms to a minute.
    pub budget: Duration,
}

impl Default for PublisherConfig {
    fn default() -> PublisherConfig {
        PublisherConfig { options: Options::default(), budget: Duration::from_secs(1) }
    }
}

impl PublisherConfig {
    /// Checks the ranges.
    pub fn check(&self) -> Result<(), PublishError> {
        match self.budget < Duration::from_millis(1) || self.budget > Duration::from_secs(60) {
            true => Err(PublishError::Budget(self.budget)),
            false => Ok(()),
        }
    }
}

/// The queues of the endpoints' tasks, by kind (native or not) and URL.
type Endpoints = HashMap<(bool, String), Queue>;

struct Queue {
    jobs: mpsc::Sender<Job>,
    used: Instant,
}

/// Sends events. Clones share the connections.
#[derive(Clone)]
pub struct Publisher {
    resolver: Resolver,
    config: Arc<RwLock<Arc<PublisherConfig>>>,
    endpoints: Arc<Mutex<Endpoints>>,
}

impl Publisher {
    /// A publisher; it connects to endpoints when there is something to send.
    pub fn new(resolver: Resolver, config: PublisherConfig) -> Result<Publisher, PublishError> {
        config.check()?;
        let config = Arc::new(RwLock::new(Arc::new(config)));
        Ok(Publisher { resolver, config, endpoints: Arc::default() })
    }

    /// Sends events of one user to all the user's endpoints, and says what happened at each. Events of one
    /// caller arrive in order at each endpoint if the caller awaits one call before the next.
    pub async fn publish(&self, cn: &Cn, events: &[Event]) -> Result<Report, PublishError> {
        let config = self.config();
        let deadline = Instant::now() + config.budget;
        let listeners = tokio::time::timeout_at(deadline, self.resolver.lookup(cn))
            .await
            .map_err(|_| PublishError::LookupDeadline(config.budget))??;
        let plan = delivery::plan(&listeners, events, &config.options);
        let mut verdicts = Verdicts::of(&plan);
        let waiting: Vec<(Send, oneshot::Receiver<Outcome>)> =
            plan.sends.into_iter().map(|send| (send.clone(), self.submit(send, deadline))).collect();
        let mut report = Report { skipped: plan.skipped, ..Report::default() };
        for (send, outcome) in waiting {
            let outcome = match tokio::time::timeout_at(deadline, outcome).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Outcome::Broken("its task ended".to_owned()),
                Err(_) => Outcome::Silent,
            };
            let verdict = delivery::judge(&send, &outcome, cn.as_str(), &config.options);
            report.endpoints.push(EndpointReport::new(&send, &verdict));
            verdicts.add(&send, verdict);
        }
        for fault in &verdicts.faults {
            tracing::warn!(event = "endpoint_fault", user = %cn, events = events.len(), fault, "not delivered");
        }
        if !verdicts.settlement.is_empty()
            && let Err(error) = self.resolver.settle(cn, &verdicts.settlement).await
        {
            tracing::warn!(event = "settle_failed", user = %cn, reason = %error, "records are left as they were");
            report.unsettled = Some(error.to_string());
        }
        Ok(report)
    }

    /// How it sends.
    pub(crate) fn config(&self) -> Arc<PublisherConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends in another way from here on, as do all clones.
    pub(crate) fn renew(&self, config: PublisherConfig) -> Result<(), PublishError> {
        config.check()?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        Ok(())
    }

    /// Hands a send to its endpoint's task.
    pub(crate) fn submit(&self, send: Send, deadline: Instant) -> oneshot::Receiver<Outcome> {
        let (done, outcome) = oneshot::channel();
        let native = matches!(send.target, delivery::Target::Native(_));
        let key = (native, send.url.clone());
        let mut job = Job { payloads: send.payloads, deadline, done };
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let used = Instant::now();
        if let Some(queue) = endpoints.get_mut(&key) {
            queue.used = used;
            match queue.jobs.try_send(job) {
                Ok(()) => return outcome,
                Err(mpsc::error::TrySendError::Full(job)) => {
                    job.end(Outcome::NotBegun(format!("{MAX_JOBS} sends wait for it already")));
                    return outcome;
                }
                // It was idle for long and has ended.
                Err(mpsc::error::TrySendError::Closed(back)) => job = back,
            }
        }
        if endpoints.len() >= MAX_ENDPOINTS {
            make_room(&mut endpoints);
        }
        let (queue, jobs) = mpsc::channel(MAX_JOBS);
        // The queue is empty and its receiver is here.
        if let Err(error) = queue.try_send(job) {
            error.into_inner().end(Outcome::NotBegun("its queue is closed".to_owned()));
        }
        match native {
            true => drop(tokio::spawn(native::run(send.endpoint, jobs))),
            false => drop(tokio::spawn(legacy::run(send.endpoint, jobs))),
        }
        endpoints.insert(key, Queue { jobs: queue, used });
        outcome
    }
}

/// Takes out those that have ended, and some that were used longest ago: their tasks do what they have, and end.
fn make_room(endpoints: &mut Endpoints) {
    endpoints.retain(|_, queue| !queue.jobs.is_closed());
    if endpoints.len() < MAX_ENDPOINTS {
        return;
    }
    let mut used: Vec<Instant> = endpoints.values().map(|queue| queue.used).collect();
    let (_, oldest, _) = used.select_nth_unstable(MAX_ENDPOINTS / 8);
    let oldest = *oldest;
    endpoints.retain(|_, queue| queue.used > oldest);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

    use super::*;

    #[test]
    fn those_that_were_used_longest_ago_make_room() {
        let begun = Instant::now();
        let mut open = Vec::new();
        let mut endpoints: Endpoints = (0..MAX_ENDPOINTS)
            .map(|number| {
                let (jobs, queue) = mpsc::channel(1);
                open.push(queue);
                let used = begun + Duration::from_millis(number as u64);
                ((false, number.to_string()), Queue { jobs, used })
            })
            .collect();
        make_room(&mut endpoints);
        let left = endpoints.len();
        assert!((MAX_ENDPOINTS / 2..MAX_ENDPOINTS).contains(&left), "{left}");
        let is_left = |number: usize| endpoints.contains_key(&(false, number.to_string()));
        assert!((0..MAX_ENDPOINTS - left).all(|number| !is_left(number)));
        assert!((MAX_ENDPOINTS - left..MAX_ENDPOINTS).all(is_left));
        // Their tasks are told.
        assert!(
            open[0].is_closed()
                || open[0].try_recv().is_err_and(|error| error == mpsc::error::TryRecvError::Disconnected)
        );
    }

    #[test]
    fn those_that_have_ended_go_first() {
        let (jobs, _open) = mpsc::channel(1);
        let mut endpoints: Endpoints = (0..MAX_ENDPOINTS)
            .map(|number| {
                let jobs = if number < 10 { mpsc::channel(1).0 } else { jobs.clone() };
                ((false, number.to_string()), Queue { jobs, used: Instant::now() })
            })
            .collect();
        make_room(&mut endpoints);
        assert_eq!(endpoints.len(), MAX_ENDPOINTS - 10);
    }
}
