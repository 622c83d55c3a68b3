//! A blocking sender: several short exchanges at once, in the calling thread, against one deadline.
//!
//! Non-blocking sockets and poll(2), through rustix's safe calls; no thread, no runtime, no signal. Each job
//! ends in an [`Outcome`], in the order of the jobs; every socket is closed by then, but for those that are
//! [`Kept`].
//!
//! A [`Run`] has two halves. Its start writes what can be written without waiting, so that the caller may do
//! other work while the peers do theirs; its end waits for their answers.
//!
//! At most [`MAX_SOCKETS`] are open at once; the other jobs queue behind them. When there are more jobs than
//! sockets each gets its share of the time, so that silent endpoints in front cannot starve those behind.

mod kept;
mod peer;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::iter::Enumerate;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use ocbus_wire::Endpoint;
use ocbus_wire::sp::{Exchange, ExchangeError, Transport};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use kept::Kept;
use peer::Peer;

/// Sockets open at the same time.
pub const MAX_SOCKETS: usize = 64;

/// One exchange with one endpoint.
#[derive(Debug)]
pub struct Job {
    endpoint: Endpoint,
    exchange: Exchange,
    patience: Duration,
}

impl Job {
    /// PUSH: messages to the PULL socket at `endpoint`, back to back.
    pub fn push<'a>(endpoint: Endpoint, payloads: impl IntoIterator<Item = &'a [u8]>) -> Job {
        // With the peer's end of stream as a receipt, over tcp too: each transaction has a connection of its own, and
        // a PULL socket that has two of them takes their messages in any order.
        let exchange = Exchange::push_all(transport(&endpoint), payloads).with_receipt(true);
        Job { endpoint, exchange, patience: Duration::MAX }
    }

    /// REQ: messages to the REP socket at `endpoint`, each after the reply to the one before it. The ids of
    /// the requests count up from `first`.
    pub fn request<'a>(endpoint: Endpoint, first: u32, payloads: impl IntoIterator<Item = &'a [u8]>) -> Job {
        let exchange = Exchange::request_all(transport(&endpoint), first, payloads);
        Job { endpoint, exchange, patience: Duration::MAX }
    }

    /// At most for so long, whatever the deadline leaves.
    pub fn within(self, patience: Duration) -> Job {
        Job { patience, ..self }
    }
}

fn transport(endpoint: &Endpoint) -> Transport {
    match endpoint {
        Endpoint::Tcp { .. } => Transport::Tcp,
        Endpoint::Ipc { .. } => Transport::Ipc,
    }
}

/// What became of a job.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The endpoint has the messages.
    Delivered {
        /// REQ: what it answered, in the order of the requests.
        replies: Vec<Vec<u8>>,
        /// From the start of the connection.
        took: Duration,
    },
    /// Nobody listens there: connection refused, or no such unix socket.
    Refused,
    /// The deadline came before there was a connection: nothing was said to anybody.
    NotReached,
    /// The deadline came before it was its turn: that says nothing of the endpoint.
    NotBegun,
    /// The deadline came before the answer.
    Silent,
    /// The connection ended too early.
    Broken(io::Error),
    /// The peer is not what we need it to be.
    Protocol(ExchangeError),
    /// No connection for another reason.
    Unreachable(io::Error),
    /// The endpoint names no address that can be had without waiting.
    BadAddress(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Delivered { took, .. } => write!(f, "delivered in {} us", took.as_micros()),
            Outcome::Refused => write!(f, "refused"),
            Outcome::NotReached => write!(f, "not reached"),
            Outcome::NotBegun => write!(f, "not begun"),
            Outcome::Silent => write!(f, "silent"),
            Outcome::Broken(error) => write!(f, "broken: {error}"),
            Outcome::Protocol(error) => write!(f, "protocol error: {error}"),
            Outcome::Unreachable(error) => write!(f, "unreachable: {error}"),
            Outcome::BadAddress(why) => write!(f, "bad address: {why}"),
        }
    }
}

#[derive(Debug)]
struct Active {
    index: usize,
    peer: Peer,
    ready: PollFlags,
}

/// Jobs under way, overlapped.
#[derive(Debug)]
pub struct Run {
    queue: Enumerate<std::vec::IntoIter<Job>>,
    active: Vec<Active>,
    outcomes: Vec<Option<Outcome>>,
    deadline: Instant,
    share: Duration,
    left: Instant,
}

/// Runs all `jobs`, overlapped, and returns at `deadline` at the latest. One outcome for each job, in order.
pub fn run(jobs: Vec<Job>, deadline: Instant) -> Vec<Outcome> {
    let mut kept = Kept::new();
    Run::start(jobs, deadline, &mut kept).finish(&mut kept)
}

impl Run {
    /// Begins all `jobs` and goes as far as is possible without waiting.
    pub fn start(jobs: Vec<Job>, deadline: Instant, kept: &mut Kept) -> Run {
        let left = Instant::now();
        let mut run = Run {
            outcomes: jobs.iter().map(|_| None).collect(),
            active: Vec::new(),
            share: share(jobs.len(), deadline.saturating_duration_since(left)),
            queue: jobs.into_iter().enumerate(),
            deadline,
            left,
        };
        run.dial(left, kept);
        // A connection within this machine is there at once, and writable.
        if run.active.iter().any(|one| !one.peer.has_written()) {
            run.look(left, Duration::ZERO, kept);
        }
        run.left = Instant::now();
        run
    }

    /// Whether there is nothing to wait for.
    pub fn is_over(&self) -> bool {
        self.active.is_empty() && self.queue.len() == 0
    }

    /// Waits for the rest, until the deadline at the latest; it is later by the time between start and finish,
    /// which was not spent here. One outcome for each job, in order.
    pub fn finish(mut self, kept: &mut Kept) -> Vec<Outcome> {
        let away = self.left.elapsed();
        self.deadline += away;
        for one in &mut self.active {
            one.peer.delay(away);
        }
        loop {
            let now = Instant::now();
            self.dial(now, kept);
            let Some(wake) = self.active.iter().map(|one| one.peer.wake()).min() else { break };
            self.look(now, wake.saturating_duration_since(now), kept);
        }
        // What is still queued has had no time.
        self.outcomes.into_iter().map(|outcome| outcome.unwrap_or(Outcome::NotBegun)).collect()
    }

    /// Gives sockets to those who wait for one.
    fn dial(&mut self, now: Instant, kept: &mut Kept) {
        while self.active.len() < MAX_SOCKETS && now < self.deadline {
            let Some((index, job)) = self.queue.next() else { break };
            let until = self.deadline.min(now + self.share.min(job.patience));
            match Peer::start(job.endpoint, job.exchange, kept, now, until) {
                (peer, None) => self.active.push(Active { index, peer, ready: PollFlags::empty() }),
                (peer, Some(outcome)) => self.end(index, peer, outcome, kept, now),
            }
        }
    }

    /// Waits until a socket is ready, at most for `pause`, and lets everybody go on.
    fn look(&mut self, now: Instant, pause: Duration, kept: &mut Kept) {
        if let Err(error) = wait(&mut self.active, pause) {
            for one in std::mem::take(&mut self.active) {
                self.settle(one.index, Outcome::Unreachable(error.into()));
            }
        }
        let now = if pause.is_zero() { now } else { Instant::now() };
        for mut one in std::mem::take(&mut self.active) {
            match one.peer.step(one.ready, now) {
                Some(outcome) => self.end(one.index, one.peer, outcome, kept, now),
                None => self.active.push(one),
            }
        }
    }

    fn end(&mut self, index: usize, peer: Peer, outcome: Outcome, kept: &mut Kept, now: Instant) {
        peer.keep(&outcome, kept, now);
        self.settle(index, outcome);
    }

    fn settle(&mut self, index: usize, outcome: Outcome) {
        if let Some(slot) = self.outcomes.get_mut(index) {
            *slot = Some(outcome);
        }
    }
}

/// How long a job may hold its socket, so that all of them have one in time.
pub fn share(jobs: usize, budget: Duration) -> Duration {
    let rounds = u32::try_from(jobs.div_ceil(MAX_SOCKETS)).unwrap_or(u32::MAX);
    budget / rounds.max(1)
}

/// Waits until a socket is ready, at most for `pause`, and notes who is ready.
fn wait(active: &mut [Active], pause: Duration) -> Result<(), rustix::io::Errno> {
    let timeout = Timespec {
        tv_sec: pause.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: pause.subsec_nanos().into(),
    };
    let ready = {
        let mut waiting: Vec<(usize, PollFd<'_>)> = Vec::with_capacity(active.len());
        for (at, one) in active.iter().enumerate() {
            if let Some((socket, flags)) = one.peer.interest() {
                let socket: BorrowedFd<'_> = socket;
                waiting.push((at, PollFd::from_borrowed_fd(socket, flags)));
            }
        }
        let (places, mut sockets): (Vec<usize>, Vec<PollFd<'_>>) = waiting.into_iter().unzip();
        match poll(&mut sockets, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        places.into_iter().zip(sockets.iter().map(PollFd::revents)).collect::<Vec<_>>()
    };
    for one in active.iter_mut() {
        one.ready = PollFlags::empty();
    }
    for (at, flags) in ready {
        if let Some(one) = active.get_mut(at) {
            one.ready = flags;
        }
    }
    Ok(())
}
