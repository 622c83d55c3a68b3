//! One native endpoint: a batch at a time, acknowledged, the next one made of what came meanwhile. Where more than a full
//! one waits, others go beside it, each as soon as there is a place: then neither side waits for the other.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use ocbus_resolver::delivery::{Outcome, Payload};
use ocbus_wire::Endpoint;
use ocbus_wire::native::{Ack, Batch, MAX_BATCH_OCTETS};
use ocbus_wire::sp::Protocol;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::MAX_JOBS;
use super::endpoint::{Dialled, Job, left, next, outcome_of};
use super::probe::probe;
use crate::sockets::Call;

/// Batches under way at once: while the subscriber works on one, the next are on their way.
const UNDER_WAY: usize = 3;

/// A batch of so many octets goes as it is: what would fit beside it is not worth a copy.
const WHOLE: usize = MAX_BATCH_OCTETS / 8 * 7;

struct Connection {
    dialled: Dialled,
    /// Those that are free.
    calls: Vec<Call>,
}

impl AsRef<Dialled> for Connection {
    fn as_ref(&self) -> &Dialled {
        &self.dialled
    }
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
            match next(&mut jobs, &mut connection).await {
                Some(job) => waiting.push_back(job.into()),
                None => return,
            }
        }
        take_all(&mut jobs, &mut waiting);
        let broken = send_all(&endpoint, &mut connection, &mut waiting, &mut jobs).await;
        // Over a new connection, once: the subscriber drops what it has seen.
        for flight in broken {
            let answer = send_again(&endpoint, &mut connection, &flight).await;
            land(flight, answer, &mut waiting);
        }
    }
}

/// What has come, as far as there is room; the rest stays in its queue, which then refuses more.
fn take_all(jobs: &mut mpsc::Receiver<Job>, waiting: &mut VecDeque<Waiting>) {
    while waiting.len() < MAX_JOBS
        && let Ok(job) = jobs.try_recv()
    {
        waiting.push_back(job.into());
    }
}

/// Takes the jobs in front, as many as fit into one batch; where any are left, the batch is full. The last may have more
/// events, which wait until these have arrived: a job's events stay in order.
fn board(waiting: &mut VecDeque<Waiting>) -> Option<Flight> {
    // Behind a stall: whoever gave those up has judged already, and they must not end the others that would go along.
    let now = Instant::now();
    while waiting.front().is_some_and(|first| first.job.deadline <= now)
        && let Some(late) = waiting.pop_front()
    {
        late.job.end(Outcome::Silent);
    }
    let first = waiting.front_mut()?;
    let mut deadline = first.job.deadline;
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
        // Whose own is earlier waits no longer than that.
        deadline = deadline.max(job.job.deadline);
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

/// Sends what waits, and what comes meanwhile, until nothing is left or something fails. Gives what has to be sent again.
async fn send_all(
    endpoint: &Endpoint,
    slot: &mut Option<Connection>,
    waiting: &mut VecDeque<Waiting>,
    jobs: &mut mpsc::Receiver<Job>,
) -> Vec<Flight> {
    // Before there is a connection, which is waited for as long as these have time, and fails these and no others.
    let Some(first) = board(waiting) else { return Vec::new() };
    let Connection { dialled, calls } = match connected(endpoint, slot, first.deadline).await {
        Ok(connection) => connection,
        Err(outcome) => {
            land(first, Err(outcome), waiting);
            return Vec::new();
        }
    };
    let mut first = Some(first);
    let dialled = &*dialled;
    let (mut broken, mut failed) = (Vec::new(), false);
    let mut under_way = FuturesUnordered::new();
    loop {
        // Beside others only a full one: what would be less waits for more, until the way is free.
        while !failed
            && (under_way.is_empty() || is_full(waiting))
            && let Some(mut call) = calls.pop()
        {
            let Some(flight) = first.take().or_else(|| board(waiting)) else {
                calls.push(call);
                break;
            };
            under_way.push(async move {
                let answer = exchange_one(endpoint, dialled, &mut call, &flight).await;
                (call, flight, answer)
            });
        }
        if under_way.is_empty() {
            break;
        }
        tokio::select! {
            Some((call, flight, answer)) = under_way.next() => {
                calls.push(call);
                failed |= answer.is_err();
                match answer {
                    Err(Outcome::Broken(_)) => broken.push(flight),
                    answer => land(flight, answer, waiting),
                }
                take_all(jobs, waiting);
            }
            Some(job) = jobs.recv(), if !failed && !calls.is_empty() && waiting.len() < MAX_JOBS => {
                waiting.push_back(job.into());
            }
        }
    }
    drop(under_way);
    if failed {
        *slot = None;
    }
    broken
}

async fn send_again(
    endpoint: &Endpoint,
    slot: &mut Option<Connection>,
    flight: &Flight,
) -> Result<Ack, Outcome> {
    let Connection { dialled, calls } = connected(endpoint, slot, flight.deadline).await?;
    let Some(call) = calls.first_mut() else { return Err(Outcome::Broken("no call".to_owned())) };
    let answer = exchange_one(endpoint, dialled, call, flight).await;
    if answer.is_err() {
        *slot = None;
    }
    answer
}

/// The open connection, or a new one.
async fn connected<'a>(
    endpoint: &Endpoint,
    slot: &'a mut Option<Connection>,
    deadline: Instant,
) -> Result<&'a mut Connection, Outcome> {
    if slot.as_ref().is_some_and(|connection| !connection.dialled.is_connected()) {
        *slot = None;
    }
    match slot {
        Some(connection) => Ok(connection),
        None => Ok(slot.insert(connect(endpoint, deadline).await?)),
    }
}

/// Whether what waits fills a batch.
fn is_full(waiting: &VecDeque<Waiting>) -> bool {
    let mut octets = 0;
    for Waiting { job, place, .. } in waiting {
        let left = job.payloads.iter().skip(place.payload);
        let batches = left.filter_map(|payload| match payload {
            Payload::Batch(batch) => Some(batch.octets()),
            Payload::NewMail(_) => None,
        });
        octets += batches.sum::<usize>();
        if octets >= WHOLE {
            return true;
        }
    }
    false
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
    let call = |_| Call::requesting(&dialled.socket).map_err(|error| Outcome::Broken(error.to_string()));
    let calls = (0..UNDER_WAY).map(call).collect::<Result<_, _>>()?;
    Ok(Connection { calls, dialled })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

    use super::*;
    use crate::sockets::{ListenOptions, Role, Server, TrustedNetworks};
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

    /// Behind a stall, what is late ends alone, and the rest has its own time.
    #[tokio::test]
    async fn a_late_job_takes_no_other_with_it() {
        let (mut late, mut late_done) = job(0, &[1]);
        let (mut next, _next_done) = job(1000, &[1]);
        let (last, _last_done) = job(2000, &[1]);
        let now = Instant::now();
        late.job.deadline = now;
        next.job.deadline = now + Duration::from_millis(500);
        let until = last.job.deadline;
        let flight = board(&mut VecDeque::from([late, next, last])).unwrap();
        assert_eq!(late_done.try_recv().unwrap(), Outcome::Silent);
        assert_eq!((times(&flight.batch), flight.deadline), (vec![1000, 2000], until));
    }

    /// Behind a stall there may be no connection any more: the one for those that live has their time.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_late_job_in_front_does_not_end_the_dialling_for_those_behind_it() {
        let options = ListenOptions {
            advertise: None,
            ipc_mode: None,
            trusted: TrustedNetworks::default(),
            rejected: Arc::default(),
        };
        let bind = Endpoint::parse("tcp://127.0.0.1:0").unwrap();
        let taken = Arc::new(|_: &[u8]| Ack::taken(1, 0, Vec::new()).encode().unwrap());
        let server = Server::listen(Role::Reply, &bind, &options, taken).unwrap();
        let (mut late, late_done) = job(0, &[1]);
        let (mut lives, lives_done) = job(1000, &[1]);
        late.job.deadline = Instant::now();
        lives.job.deadline = Instant::now() + Duration::from_secs(20);
        let (queue, jobs) = mpsc::channel(2);
        assert!(queue.try_send(late.job).is_ok() && queue.try_send(lives.job).is_ok());
        tokio::spawn(run(server.endpoint.clone(), jobs));
        assert_eq!(late_done.await.unwrap(), Outcome::Silent);
        let outcome = lives_done.await.unwrap();
        assert!(matches!(outcome, Outcome::Acknowledged(_)), "{outcome:?}");
    }

    #[tokio::test]
    async fn who_has_more_time_is_not_given_up_with_who_has_less() {
        // Takes connections, and says nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::parse(&format!("tcp://{}", silent.local_addr().unwrap())).unwrap();
        let (mut hasty, _hasty_done) = job(0, &[1]);
        let (mut patient, patient_done) = job(1000, &[1]);
        let end = Instant::now() + Duration::from_millis(400);
        hasty.job.deadline = Instant::now() + Duration::from_millis(100);
        patient.job.deadline = end;
        let (queue, jobs) = mpsc::channel(2);
        assert!(queue.try_send(hasty.job).is_ok() && queue.try_send(patient.job).is_ok());
        tokio::spawn(run(endpoint, jobs));
        assert_eq!(patient_done.await.unwrap(), Outcome::Silent);
        assert!(Instant::now() >= end, "{:?} too early", end - Instant::now());
    }

    #[tokio::test]
    async fn a_full_batch_goes_as_it_is_and_the_next_one_behind_its_answer() {
        let (long, mut done) = job(0, &[110, 3]);
        let Payload::Batch(own) = &long.job.payloads[0] else { panic!() };
        let own = Arc::clone(own);
        let mut waiting = VecDeque::from([long]);
        let first = board(&mut waiting).unwrap();
        assert!(Arc::ptr_eq(&first.batch, &own) && waiting.is_empty());
        land(first, Ok(Ack::taken(100, 0, Vec::new())), &mut waiting);
        let rest = board(&mut waiting).unwrap();
        assert_eq!(times(&rest.batch), [110, 111, 112]);
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
