use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::async_connections::AsyncConnections;
use super::commands;
use super::pipeline::Pipeline;
use crate::config::{Config, Server};
use crate::error::ResolverError;
use crate::update::{Request, Response};

/// Requests of one caller in one round trip at most. More would be more memory, and no faster.
const MOST_AT_ONCE: usize = 256;

/// A round trip ends at so many octets.
const MOST_OCTETS: usize = 1 << 20;

/// One memcached for many tasks.
pub(super) struct AsyncServer {
    connections: Arc<AsyncConnections>,
    pipeline: Pipeline,
    /// Somebody is finding out whether it is back.
    probed: Arc<AtomicBool>,
}

/// How many requests, from the first on, are one round trip.
fn at_once(requests: &[Request]) -> usize {
    let mut octets = 0;
    let fits = |request: &&Request| {
        let fits = octets < MOST_OCTETS;
        octets += commands::length(request);
        fits
    };
    requests.iter().take(MOST_AT_ONCE).take_while(fits).count()
}

/// Ends a probe when it is dropped.
pub(super) struct Probing(Arc<AtomicBool>);

impl Drop for Probing {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl AsyncServer {
    /// Within a tokio runtime.
    pub(super) fn new(place: usize, server: &Server, config: &Config, limit: Duration) -> AsyncServer {
        let connections = Arc::new(AsyncConnections::new(place, server, config, limit));
        let pipeline = Pipeline::new(Arc::clone(&connections), limit);
        AsyncServer { connections, pipeline, probed: Arc::default() }
    }

    /// Leave to find out whether it is back; nobody else gets it meanwhile.
    pub(super) fn probing(&self) -> Option<Probing> {
        let before = self.probed.swap(true, Ordering::AcqRel);
        (!before).then(|| Probing(Arc::clone(&self.probed)))
    }

    /// Resolves its name, and begins to open the connections that are kept.
    pub(super) async fn find(&self, deadline: Instant) -> Result<(), ResolverError> {
        self.connections.find(deadline).await?;
        self.connections.fill();
        Ok(())
    }

    pub(super) async fn run(&self, request: &Request, deadline: Instant) -> Result<Response, ResolverError> {
        let answer = self.pipeline.run(request, deadline).await;
        if answer.is_ok() {
            self.connections.fill();
        }
        answer
    }

    /// An answer to each request, in as few round trips as can be.
    pub(super) async fn run_many(
        &self,
        requests: &[Request],
        deadline: Instant,
    ) -> Vec<Result<Response, ResolverError>> {
        if let [request] = requests {
            // May share a round trip with other callers'.
            return vec![self.run(request, deadline).await];
        }
        let mut answers = Vec::with_capacity(requests.len());
        let mut left = requests;
        while !left.is_empty() {
            let (some, rest) = left.split_at_checked(at_once(left)).unwrap_or((left, &[]));
            left = rest;
            let (some_answers, failure) = self.connections.run(some, deadline).await;
            answers.extend(some_answers);
            if let Some(failure) = failure {
                // For those as well that were not asked: they would fail alike.
                answers.resize_with(requests.len(), || Err(failure.again()));
                return answers;
            }
        }
        self.connections.fill();
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::Expect;

    #[test]
    fn a_round_trip_ends_at_its_count_or_its_octets() {
        let put = |octets| Request::Put {
            key: "k".to_owned(),
            value: vec![0; octets],
            expiry: None,
            expect: Expect::Any,
        };
        assert_eq!(at_once(&vec![put(10); 1000]), MOST_AT_ONCE);
        assert_eq!(at_once(&vec![put(MOST_OCTETS / 2); 10]), 2);
        assert_eq!(at_once(&vec![put(2 * MOST_OCTETS); 10]), 1, "one at least");
    }
}
