//! Requests of many tasks to one server, several in a round trip: what comes while others are under way forms
//! the next batch. Where little is under way, a request goes out by itself and at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::async_connections::{AsyncConnections, by};
use super::commands;
use crate::error::ResolverError;
use crate::update::{Request, Response};

/// Requests in one round trip at most.
const MAX_BATCH: usize = 256;

/// A batch ends at so many octets.
const MAX_BATCH_OCTETS: usize = 1 << 20;

/// Octets that wait, in KiB; a request for which there is no room waits outside.
const MAX_WAITING_KIB: usize = 16 * 1024;

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
    /// For octets that wait, in KiB.
    room: Arc<Semaphore>,
}

struct Waiting {
    request: Request,
    /// Given back when the request has gone out with its batch.
    room: OwnedSemaphorePermit,
    answer: oneshot::Sender<Result<Response, ResolverError>>,
}

impl Pipeline {
    /// Within a tokio runtime. `limit` is for the round trip of a batch.
    pub(super) fn new(connections: Arc<AsyncConnections>, limit: Duration) -> Pipeline {
        let (queue, requests) = mpsc::channel(MAX_WAITING);
        let places = Arc::new(Semaphore::new(MAX_UNDER_WAY));
        tokio::spawn(serve(Arc::clone(&connections), requests, Arc::clone(&places), limit));
        Pipeline { connections, queue, places, room: Arc::new(Semaphore::new(MAX_WAITING_KIB)) }
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
        let answered = by(deadline, async {
            // None of them ends but with the runtime.
            let room = Arc::clone(&self.room).acquire_many_owned(kib(request)).await.ok()?;
            let waiting = Waiting { request: request.clone(), room, answer };
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
        // What comes while there is no place goes into the same batch.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let mut octets = commands::length(&first.request);
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH
            && octets < MAX_BATCH_OCTETS
            && let Ok(next) = requests.try_recv()
        {
            octets += commands::length(&next.request);
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

/// Of a request, and no more than there is at all.
fn kib(request: &Request) -> u32 {
    u32::try_from((commands::length(request) / 1024 + 1).min(MAX_WAITING_KIB)).unwrap_or(u32::MAX)
}

async fn exchange(connections: &AsyncConnections, batch: Vec<Waiting>, deadline: Instant) {
    let (requests, waiting): (Vec<Request>, Vec<_>) =
        batch.into_iter().map(|waiting| (waiting.request, (waiting.answer, waiting.room))).unzip();
    let (answers, failure) = connections.run(&requests, deadline).await;
    let mut answers = answers.into_iter();
    for (answer, _room) in waiting {
        let failed = || Err(failure.as_ref().map_or_else(|| connections.timed_out(), ResolverError::again));
        // Whoever gave up waiting does not want it.
        let _ = answer.send(answers.next().unwrap_or_else(failed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Server};
    use crate::update::Expect;
    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

    /// At a memcached that takes writes, and answers when it is told to.
    #[tokio::test]
    async fn large_requests_wait_outside_when_there_is_no_room() {
        const VALUE: usize = 1_000_000;
        const WRITES: usize = 100;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (go, gone) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut gone = gone.clone();
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let (mut line, mut value) = (String::new(), vec![0; VALUE + 2]);
                    while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
                        stream.read_exact(&mut value).await.unwrap();
                        gone.wait_for(|go| *go).await.unwrap();
                        stream.write_all(b"HD\r\n").await.unwrap();
                        line.clear();
                    }
                });
            }
        });
        let server = Server::tcp("127.0.0.1", port);
        let limit = Duration::from_secs(20);
        let connections = Arc::new(AsyncConnections::new(0, &server, &Config::default(), limit));
        let pipeline = Arc::new(Pipeline::new(connections, limit));
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..WRITES {
            let pipeline = Arc::clone(&pipeline);
            tasks.spawn(async move {
                let (key, value) = (format!("k{n}"), vec![b'v'; VALUE]);
                let put = Request::Put { key, value, expiry: None, expect: Expect::Any };
                pipeline.run(&put, Instant::now() + limit).await
            });
        }
        // As much is taken as may be: then everybody else waits outside.
        let begun = Instant::now();
        while pipeline.room.available_permits() > VALUE / 1024 + 1 {
            assert!(begun.elapsed() < limit, "{} KiB left", pipeline.room.available_permits());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(tasks.len(), WRITES);
        go.send(true).unwrap();
        while let Some(answer) = tasks.join_next().await {
            assert_eq!(answer.unwrap().unwrap(), Response::Done);
        }
        assert_eq!(pipeline.room.available_permits(), MAX_WAITING_KIB, "all is given back");
    }
}
