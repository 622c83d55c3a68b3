//! Requests of many tasks to one server, several in a round trip: what comes while others are under way forms
//! the next batch. Renewing 100,000 users is a few hundred round trips then, and not 200,000. Where little is under
//! way, a request goes out by itself and at once.

use memcache::exp::{
    AsyncMetaClient, Delete, Error, Get, GetResult, Meta, MutationResult, Op, OpResult, Set,
};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::expiry_s;
use crate::update::{Expect, Item, Request, Response};

/// Requests in one round trip at most.
const MAX_BATCH: usize = 256;

/// Round trips under way at once, so that a slow answer does not hold back everybody.
const MAX_UNDER_WAY: usize = 4;

/// Requests that wait; more wait for a place.
const MAX_WAITING: usize = 4096;

/// The way to one server. Clones share it; it ends with the last of them.
#[derive(Clone)]
pub(super) struct Pipeline {
    client: AsyncMetaClient,
    queue: mpsc::Sender<Waiting>,
    /// For round trips under way.
    places: Arc<Semaphore>,
}

struct Waiting {
    request: Request,
    answer: oneshot::Sender<Result<Response, Error>>,
}

impl Pipeline {
    /// Within a tokio runtime.
    pub(super) fn new(client: AsyncMetaClient) -> Pipeline {
        let (queue, requests) = mpsc::channel(MAX_WAITING);
        let places = Arc::new(Semaphore::new(MAX_UNDER_WAY));
        tokio::spawn(serve(client.clone(), requests, Arc::clone(&places)));
        Pipeline { client, queue, places }
    }

    pub(super) async fn run(&self, request: Request) -> Result<Response, Error> {
        if self.queue.capacity() == MAX_WAITING
            && let Ok(_place) = self.places.try_acquire()
        {
            let results = self.client.run_batch(operations(&request)).await?;
            return response(&request, &mut results.into_iter());
        }
        let (answer, answered) = oneshot::channel();
        let stopped = |_| Error::Protocol("the pipeline has ended".to_owned());
        self.queue.send(Waiting { request, answer }).await.map_err(|_| stopped(()))?;
        answered.await.map_err(|_| stopped(()))?
    }
}

async fn serve(client: AsyncMetaClient, mut requests: mpsc::Receiver<Waiting>, places: Arc<Semaphore>) {
    let mut batch = Vec::new();
    while let Some(first) = requests.recv().await {
        batch.push(first);
        // What comes while there is no place goes into the same batch.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        while batch.len() < MAX_BATCH
            && let Ok(next) = requests.try_recv()
        {
            batch.push(next);
        }
        // Whoever gave up waiting wants nothing done any more.
        batch.retain(|waiting| !waiting.answer.is_closed());
        let (client, batch) = (client.clone(), std::mem::take(&mut batch));
        tokio::spawn(async move {
            exchange(&client, batch).await;
            drop(place);
        });
    }
}

async fn exchange(client: &AsyncMetaClient, batch: Vec<Waiting>) {
    let operations: Vec<Op> = batch.iter().flat_map(|waiting| operations(&waiting.request)).collect();
    match client.run_batch(operations).await {
        Ok(results) => {
            let mut results = results.into_iter();
            for Waiting { request, answer } in batch {
                // Whoever gave up waiting does not want it.
                let _ = answer.send(response(&request, &mut results));
            }
        }
        // One of them cannot be said, and nothing was sent: each by itself then, so that only that one fails.
        Err(_) if batch.len() > 1 => {
            for waiting in batch {
                Box::pin(exchange(client, vec![waiting])).await;
            }
        }
        Err(error) => {
            if let Some(Waiting { answer, .. }) = batch.into_iter().next() {
                let _ = answer.send(Err(error));
            }
        }
    }
}

fn operations(request: &Request) -> Vec<Op> {
    match request {
        Request::Get { keys, .. } => {
            keys.iter().map(|key| Get::new(key).meta(Meta::default().cas()).into()).collect()
        }
        Request::Put { key, value, expiry, expect } => {
            let set = Set::new(key, value).ttl_raw(expiry_s(*expiry));
            vec![match expect {
                Expect::Any => set.into(),
                Expect::Absent => set.add().into(),
                Expect::Cas(cas) => set.compare_cas(*cas).into(),
            }]
        }
        Request::Delete { key, cas } => {
            let delete = Delete::new(key);
            vec![match cas {
                Some(cas) => delete.compare_cas(*cas).into(),
                None => delete.into(),
            }]
        }
        Request::Touch { key, expiry } => {
            vec![Get::new(key).without_value().touch_raw(expiry_s(Some(*expiry))).into()]
        }
    }
}

/// The answer to a request, from as many results as it has operations.
fn response(
    request: &Request,
    results: &mut impl Iterator<Item = Result<OpResult, Error>>,
) -> Result<Response, Error> {
    let missing = || Error::Protocol("an answer is missing".to_owned());
    if let Request::Get { keys, .. } = request {
        let items: Vec<Result<Option<Item>, Error>> =
            keys.iter().map(|_| item(results.next().ok_or_else(missing)??)).collect();
        return items.into_iter().collect::<Result<_, _>>().map(Response::Items);
    }
    let done = match results.next().ok_or_else(missing)?? {
        OpResult::Get(GetResult { status, .. }) => status == memcache::exp::GetStatus::Hit,
        OpResult::Mutation(MutationResult { status, .. }) => status == memcache::exp::MutationStatus::Applied,
        _ => return Err(Error::Protocol("an answer of another kind".to_owned())),
    };
    match done {
        true => Ok(Response::Done),
        false => Ok(Response::NotDone),
    }
}

fn item(result: OpResult) -> Result<Option<Item>, Error> {
    let OpResult::Get(result) = result else {
        return Err(Error::Protocol("an answer of another kind".to_owned()));
    };
    match (result.hit(), result.value, result.item.cas) {
        (false, ..) => Ok(None),
        (true, Some(value), Some(cas)) => Ok(Some(Item { value, cas })),
        (true, ..) => Err(Error::Protocol("a hit without value or cas".to_owned())),
    }
}
