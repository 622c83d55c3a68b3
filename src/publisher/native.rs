//! One native endpoint: a batch at a time, acknowledged, the next one made of what came meanwhile.

use std::collections::VecDeque;

use ocbus_resolver::delivery::{Outcome, Payload};
use ocbus_wire::Endpoint;
use ocbus_wire::native::{Ack, Batch};
use ocbus_wire::sp::Protocol;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::endpoint::{Dialled, Job, left, next, outcome_of};
use crate::sockets::Call;

struct Connection {
    dialled: Dialled,
    call: Call,
}

/// A job and what of it is still to be sent.
struct Waiting {
    job: Job,
    batches: VecDeque<Batch>,
    acks: Vec<Ack>,
}

impl From<Job> for Waiting {
    fn from(job: Job) -> Waiting {
        let batch = |payload: &Payload| match payload {
            Payload::Batch(batch) => Some(batch.clone()),
            Payload::NewMail(_) => None,
        };
        Waiting { batches: job.payloads.iter().filter_map(batch).collect(), acks: Vec::new(), job }
    }
}

pub(super) async fn run(endpoint: Endpoint, mut jobs: mpsc::Receiver<Job>) {
    let mut connection = None;
    let mut waiting: VecDeque<Waiting> = VecDeque::new();
    loop {
        if waiting.is_empty() {
            match next(&mut jobs).await {
                Some(job) => waiting.push_back(job.into()),
                None => return,
            }
        }
        while let Ok(job) = jobs.try_recv() {
            waiting.push_back(job.into());
        }
        let (batch, members) = join(&waiting);
        // The first job's deadline: nobody waits longer than for what stands in front of him.
        let Some(deadline) = waiting.front().map(|first| first.job.deadline) else { continue };
        let mut answer = exchange(&endpoint, &mut connection, &batch, deadline).await;
        if let Err(Outcome::Broken(_)) = answer {
            // The same batch again over a new connection, once: the subscriber drops what it has seen.
            connection = None;
            answer = exchange(&endpoint, &mut connection, &batch, deadline).await;
        }
        match answer {
            Ok(ack) => settle(&mut waiting, members, &ack),
            Err(outcome) => {
                connection = None;
                for failed in waiting.drain(..members) {
                    failed.job.end(outcome.clone());
                }
            }
        }
    }
}

/// The first batches of as many jobs as fit into one; a job that has several goes alone until its last.
fn join(waiting: &VecDeque<Waiting>) -> (Batch, usize) {
    let mut joined = Batch::new();
    let mut members = 0;
    for job in waiting {
        // The first always fits: no batch is larger than one may be.
        if !job.batches.front().is_none_or(|batch| joined.append(batch)) && members > 0 {
            break;
        }
        members += 1;
        if job.batches.len() > 1 {
            break;
        }
    }
    (joined, members)
}

/// Gives the acknowledgement to the jobs whose events it covers, and ends those that have no more.
fn settle(waiting: &mut VecDeque<Waiting>, members: usize, ack: &Ack) {
    let covered: Vec<Waiting> = waiting.drain(..members).collect();
    for mut job in covered {
        job.batches.pop_front();
        job.acks.push(ack.clone());
        match job.batches.is_empty() {
            true => job.job.end(Outcome::Acknowledged(job.acks)),
            // Only the last one covered can have more: it is in front again.
            false => waiting.push_front(job),
        }
    }
}

async fn exchange(
    endpoint: &Endpoint,
    slot: &mut Option<Connection>,
    batch: &Batch,
    deadline: Instant,
) -> Result<Ack, Outcome> {
    if slot.as_ref().is_some_and(|connection| !connection.dialled.is_connected()) {
        *slot = None;
    }
    let connection = match slot {
        Some(connection) => connection,
        None => slot.insert(connect(endpoint, deadline).await?),
    };
    let octets = batch.encode();
    let Connection { dialled, call } = connection;
    let request = call.request(&octets, left(deadline));
    let reply = tokio::select! {
        reply = request => reply.map_err(outcome_of)?,
        // It ended, or restarts: the next batch finds out. nng alone would wait for it to come back.
        () = dialled.lost() => return Err(match super::probe::probe(endpoint, Protocol::Req, deadline).await {
            Err(outcome) => outcome,
            Ok(()) => Outcome::Broken("closed before its answer".to_owned()),
        }),
    };
    Ack::decode(&reply).map_err(|error| Outcome::Broken(format!("its answer: {error}")))
}

async fn connect(endpoint: &Endpoint, deadline: Instant) -> Result<Connection, Outcome> {
    let mut dialled = Dialled::new(Protocol::Req, endpoint, deadline).await?;
    dialled.ready(deadline).await?;
    let call = Call::requesting(&dialled.socket).map_err(|error| Outcome::Broken(error.to_string()))?;
    Ok(Connection { call, dialled })
}
