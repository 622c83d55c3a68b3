//! One native endpoint: a batch at a time, acknowledged, the next one made of what came meanwhile. Where a full one is
//! under way and more waits, a second one goes beside it.

use std::collections::VecDeque;
use std::sync::Arc;

use ocbus_resolver::delivery::{Outcome, Payload};
use ocbus_wire::Endpoint;
use ocbus_wire::native::{Ack, Batch, MAX_BATCH_OCTETS};
use ocbus_wire::sp::Protocol;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::endpoint::{Dialled, Job, left, next, outcome_of};
use super::probe::probe;
use crate::sockets::Call;

/// Batches under way at once: while the subscriber works on one, the next is on its way.
const UNDER_WAY: usize = 2;

/// A batch of so many octets goes as it is: what would fit beside it is not worth a copy.
const WHOLE: usize = MAX_BATCH_OCTETS / 8 * 7;

struct Connection {
    dialled: Dialled,
    calls: [Call; UNDER_WAY],
}

/// A job and how far it was sent.
struct Waiting {
    job: Job,
    place: Place,
    acks: Vec<Ack>,
}

/// Where the rest of a job begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    payload: usize,
    event: usize,
}

impl From<Job> for Waiting {
    fn from(job: Job) -> Waiting {
        Waiting { job, place: Place::default(), acks: Vec::new() }
    }
}

impl Waiting {
    fn is_sent(&self) -> bool {
        self.place.payload >= self.job.payloads.len()
    }

    /// Its next batch, where that fills a message by itself.
    fn next_whole(&mut self) -> Option<Arc<Batch>> {
        match self.job.payloads.get(self.place.payload) {
            Some(Payload::Batch(batch)) if self.place.event == 0 && batch.octets() >= WHOLE => {
                self.place.payload += 1;
                Some(Arc::clone(batch))
            }
            _ => None,
        }
    }
}

/// One batch, and the jobs whose events it has.
struct Flight {
    jobs: Vec<Waiting>,
    batch: Arc<Batch>,
    deadline: Instant,
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
        let mut flights = Vec::with_capacity(UNDER_WAY);
        while flights.len() < UNDER_WAY
            && let Some(flight) = board(&mut waiting)
        {
            flights.push(flight);
        }
        let answers = exchange_all(&endpoint, &mut connection, &flights).await;
        // Those that have more to send are in front again, in their order.
        for (flight, answer) in flights.into_iter().zip(answers).rev() {
            land(flight, answer, &mut waiting);
        }
    }
}

/// Takes the jobs in front, as many as fit into one batch; where any are left, the batch is full. The last may have more
/// events, which wait until these have arrived: a job's events stay in order.
fn board(waiting: &mut VecDeque<Waiting>) -> Option<Flight> {
    // The first job's deadline: nobody waits longer than for what stands in front of him.
    let first = waiting.front_mut()?;
    let deadline = first.job.deadline;
    if let Some(batch) = first.next_whole() {
        return waiting.pop_front().map(|job| Flight { jobs: vec![job], batch, deadline });
    }
    let (mut jobs, mut batch) = (Vec::new(), Batch::new());
    while let Some(mut job) = waiting.pop_front() {
        let before = job.place;
        fill(&mut batch, &mut job);
        // The first always has something in it: no event is larger than a batch may be.
        if job.place == before && !job.is_sent() && !jobs.is_empty() {
            waiting.push_front(job);
            break;
        }
        let has_more = !job.is_sent();
        jobs.push(job);
        if has_more {
            break;
        }
    }
    Some(Flight { jobs, batch: Arc::new(batch), deadline })
}

/// Adds of a job's events what there is room for.
fn fill(batch: &mut Batch, job: &mut Waiting) {
    let Waiting { job, place, .. } = job;
    while let Some(payload) = job.payloads.get(place.payload) {
        // Native endpoints are given nothing but batches.
        if let Payload::Batch(events) = payload {
            place.event += batch.append(events, place.event);
            if place.event < events.len() {
                return;
            }
        }
        *place = Place { payload: place.payload + 1, event: 0 };
    }
}

/// Gives the acknowledgement to the jobs whose events it covers, and ends those that have no more.
fn land(flight: Flight, answer: Result<Ack, Outcome>, waiting: &mut VecDeque<Waiting>) {
    for mut job in flight.jobs {
        match &answer {
            Err(outcome) => job.job.end(outcome.clone()),
            Ok(ack) => {
                job.acks.push(ack.clone());
                match job.is_sent() {
                    true => job.job.end(Outcome::Acknowledged(job.acks)),
                    // Only the last one covered can have more: it is in front again.
                    false => waiting.push_front(job),
                }
            }
        }
    }
}

/// Sends the batches, at most [`UNDER_WAY`], and gives their answers.
async fn exchange_all(
    endpoint: &Endpoint,
    slot: &mut Option<Connection>,
    flights: &[Flight],
) -> Vec<Result<Ack, Outcome>> {
    let mut answers = exchange(endpoint, slot, flights).await;
    // Those that broke go again over a new connection, once: the subscriber drops what it has seen.
    for (flight, answer) in flights.iter().zip(&mut answers) {
        if let Err(Outcome::Broken(_)) = answer {
            *slot = None;
            let again = exchange(endpoint, slot, std::slice::from_ref(flight)).await;
            if let Some(again) = again.into_iter().next() {
                *answer = again;
            }
        }
    }
    if answers.iter().any(Result::is_err) {
        *slot = None;
    }
    answers
}

async fn exchange(
    endpoint: &Endpoint,
    slot: &mut Option<Connection>,
    flights: &[Flight],
) -> Vec<Result<Ack, Outcome>> {
    if slot.as_ref().is_some_and(|connection| !connection.dialled.is_connected()) {
        *slot = None;
    }
    let Some(first) = flights.first() else { return Vec::new() };
    let connection = match slot {
        Some(connection) => connection,
        None => match connect(endpoint, first.deadline).await {
            Ok(connection) => slot.insert(connection),
            Err(outcome) => return flights.iter().map(|_| Err(outcome.clone())).collect(),
        },
    };
    let Connection { dialled, calls: [one, other] } = connection;
    let send = |call, flight| exchange_one(endpoint, dialled, call, flight);
    match flights.get(1) {
        None => vec![send(one, first).await],
        Some(second) => {
            let (first, second) = tokio::join!(send(one, first), send(other, second));
            vec![first, second]
        }
    }
}

async fn exchange_one(
    endpoint: &Endpoint,
    dialled: &Dialled,
    call: &mut Call,
    flight: &Flight,
) -> Result<Ack, Outcome> {
    let request = call.request(message_of(&flight.batch), left(flight.deadline));
    let reply = tokio::select! {
        reply = request => reply.map_err(outcome_of)?,
        // It ended, or restarts: the next batch finds out. nng alone would wait for it to come back.
        () = dialled.lost() => return Err(match probe(endpoint, Protocol::Req, flight.deadline).await {
            Err(outcome) => outcome,
            Ok(()) => Outcome::Broken("closed before its answer".to_owned()),
        }),
    };
    Ack::decode(&reply).map_err(|error| Outcome::Broken(format!("its answer: {error}")))
}

fn message_of(batch: &Batch) -> nng::Message {
    let mut message = nng::Message::with_capacity(MAX_BATCH_OCTETS.min(batch.octets() + 16));
    batch.encode_to(|piece| message.push_back(piece));
    message
}

async fn connect(endpoint: &Endpoint, deadline: Instant) -> Result<Connection, Outcome> {
    let mut dialled = Dialled::new(Protocol::Req, endpoint, deadline).await?;
    dialled.ready(deadline).await?;
    let call = || Call::requesting(&dialled.socket).map_err(|error| Outcome::Broken(error.to_string()));
    Ok(Connection { calls: [call()?, call()?], dialled })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

    use super::*;
    use ocbus_wire::{Event, EventKind, Mailbox};
    use std::time::Duration;
    use tokio::sync::oneshot;
    use uuid::Uuid;

    /// A job of batches of so many events each, its events' times counting on from `first`; an event takes some 600 octets,
    /// so that a batch has room for about a hundred.
    fn job(first: u64, batches: &[u64]) -> (Waiting, oneshot::Receiver<Outcome>) {
        let mut time = first;
        let payloads = batches.iter().map(|&count| {
            let mut batch = Batch::new();
            for _ in 0..count {
                let mailbox = Mailbox::new("x".repeat(500), '/');
                let event = Event::new(Uuid::now_v7(), time, "bob", mailbox, EventKind::MailboxCreate);
                assert!(batch.push(&event).unwrap());
                time += 1;
            }
            Payload::Batch(Arc::new(batch))
        });
        let (done, outcome) = oneshot::channel();
        let job =
            Job { payloads: payloads.collect(), deadline: Instant::now() + Duration::from_secs(1), done };
        (job.into(), outcome)
    }

    fn times(batch: &Batch) -> Vec<u64> {
        Batch::decode(&batch.encode()).unwrap().events.iter().map(|event| event.time_us).collect()
    }

    #[tokio::test]
    async fn batches_are_filled_whatever_the_jobs_are() {
        let (one, mut one_done) = job(0, &[60]);
        let (two, mut two_done) = job(1000, &[60]);
        let (three, mut three_done) = job(2000, &[5, 5]);
        let mut waiting = VecDeque::from([one, two, three]);
        let first = board(&mut waiting).unwrap();
        assert_eq!(first.jobs.len(), 2);
        let sent = times(&first.batch);
        assert_eq!(sent[..60], (0..60).collect::<Vec<u64>>());
        let split = sent.len() as u64 - 60;
        assert!(split > 30 && split < 60, "the second is split: {split}");
        // The rest of the second waits for its beginning; the third does not wait for it.
        let beside = board(&mut waiting).unwrap();
        assert_eq!(times(&beside.batch), (2000..2010).collect::<Vec<u64>>());
        assert!(board(&mut waiting).is_none());

        land(beside, Ok(Ack::taken(10, 0, Vec::new())), &mut waiting);
        land(first, Ok(Ack::taken(0, 3, Vec::new())), &mut waiting);
        assert!(matches!(one_done.try_recv(), Ok(Outcome::Acknowledged(acks)) if acks.len() == 1));
        assert!(matches!(three_done.try_recv(), Ok(Outcome::Acknowledged(acks)) if acks.len() == 1));
        assert!(two_done.try_recv().is_err(), "not all of it has arrived");
        let rest = board(&mut waiting).unwrap();
        assert_eq!(times(&rest.batch), (1000 + split..1060).collect::<Vec<u64>>());
        land(rest, Ok(Ack::taken(0, 0, Vec::new())), &mut waiting);
        assert!(matches!(two_done.try_recv(), Ok(Outcome::Acknowledged(acks)) if acks.len() == 2));
        assert!(waiting.is_empty());
    }

    #[tokio::test]
    async fn a_full_batch_goes_as_it_is_and_the_next_one_behind_its_answer() {
        let (long, mut done) = job(0, &[100, 3]);
        let Payload::Batch(own) = &long.job.payloads[0] else { panic!() };
        let own = Arc::clone(own);
        let mut waiting = VecDeque::from([long]);
        let first = board(&mut waiting).unwrap();
        assert!(Arc::ptr_eq(&first.batch, &own) && waiting.is_empty());
        land(first, Ok(Ack::taken(100, 0, Vec::new())), &mut waiting);
        let rest = board(&mut waiting).unwrap();
        assert_eq!(times(&rest.batch), [100, 101, 102]);
        land(rest, Ok(Ack::taken(3, 0, Vec::new())), &mut waiting);
        assert!(matches!(done.try_recv(), Ok(Outcome::Acknowledged(acks)) if acks.len() == 2));
    }

    #[tokio::test]
    async fn a_job_whose_beginning_fails_fails_whole() {
        let (long, mut done) = job(0, &[100, 100]);
        let mut waiting = VecDeque::from([long]);
        let first = board(&mut waiting).unwrap();
        assert!(first.batch.len() < 200 && waiting.is_empty());
        land(first, Err(Outcome::Silent), &mut waiting);
        assert_eq!(done.try_recv().unwrap(), Outcome::Silent);
        assert!(waiting.is_empty());
    }
}
