//! Requests of many tasks to one server, several in a round trip: what comes while others are under way forms
//! the next batch. Where little is under way, a request goes out by itself and at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::async_connections::{AsyncConnections, by};
use crate::error::ResolverError;
use crate::update::{Request, Response};

/// Requests in one round trip at most.
const MAX_BATCH: usize = 256;

/// Round trips under way at once, so that a slow answer does not hold back everybody.
const MAX_UNDER_WAY: usize = 4;

/// Requests that wait; more wait for a place.
const MAX_WAITING: usize = 4096;

/// The way to one server for single requests. It ends when it is dropped.
pub(super) struct Pipeline {
    connections: Arc<AsyncConnections>,
    queue: mpsc::Sender<Waiting>,
    /// For round trips under way.
    places: Arc<Semaphore>,
}

struct Waiting {
    request: Request,
    answer: oneshot::Sender<Result<Response, ResolverError>>,
}

impl Pipeline {
    /// Within a tokio runtime. `limit` is for the round trip of a batch.
    pub(super) fn new(connections: Arc<AsyncConnections>, limit: Duration) -> Pipeline {
        let (queue, requests) = mpsc::channel(MAX_WAITING);
        let places = Arc::new(Semaphore::new(MAX_UNDER_WAY));
        tokio::spawn(serve(Arc::clone(&connections), requests, Arc::clone(&places), limit));
        Pipeline { connections, queue, places }
    }

    pub(super) async fn run(&self, request: &Request, deadline: Instant) -> Result<Response, ResolverError> {
        if self.queue.capacity() == MAX_WAITING
            && let Ok(_place) = self.places.try_acquire()
        {
            let (mut answers, failure) = self.connections.run(std::slice::from_ref(request), deadline).await;
            return match failure {
                Some(failure) => Err(failure),
                None => answers.pop().unwrap_or_else(|| Err(self.connections.timed_out())),
            };
        }
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { request: request.clone(), answer };
        let answered = by(deadline, async {
            // Neither ends but with the runtime.
            self.queue.send(waiting).await.ok()?;
            answered.await.ok()
        });
        answered.await.flatten().unwrap_or_else(|| Err(self.connections.timed_out()))
    }
}

async fn serve(
    connections: Arc<AsyncConnections>,
    mut requests: mpsc::Receiver<Waiting>,
    places: Arc<Semaphore>,
    limit: Duration,
) {
    while let Some(first) = requests.recv().await {
        let mut batch = vec![first];
        // What comes while there is no place goes into the same batch.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        while batch.len() < MAX_BATCH
            && let Ok(next) = requests.try_recv()
        {
            batch.push(next);
        }
        // Whoever gave up waiting wants nothing done any more.
        batch.retain(|waiting| !waiting.answer.is_closed());
        let connections = Arc::clone(&connections);
        tokio::spawn(async move {
            exchange(&connections, batch, Instant::now() + limit).await;
            drop(place);
        });
    }
}

async fn exchange(connections: &AsyncConnections, batch: Vec<Waiting>, deadline: Instant) {
    let (requests, waiting): (Vec<Request>, Vec<_>) =
        batch.into_iter().map(|waiting| (waiting.request, waiting.answer)).unzip();
    let (answers, failure) = connections.run(&requests, deadline).await;
    let mut answers = answers.into_iter();
    for answer in waiting {
        let failed = || Err(failure.as_ref().map_or_else(|| connections.timed_out(), ResolverError::again));
        // Whoever gave up waiting does not want it.
        let _ = answer.send(answers.next().unwrap_or_else(failed));
    }
}
