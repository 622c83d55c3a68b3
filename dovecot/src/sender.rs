//! A blocking sender: several short exchanges at once, in the calling thread, against one deadline.
//!
//! Non-blocking sockets and poll(2), through rustix's safe calls; no thread, no runtime, no signal. Each job
//! ends in an [`Outcome`], in the order of the jobs, and every socket is closed by then.
//!
//! At most [`MAX_SOCKETS`] are open at once; the other jobs queue behind them. When there are more jobs than
//! sockets each gets its share of the time, so that silent endpoints in front cannot starve those behind.

mod peer;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use ocbus_wire::Endpoint;
use ocbus_wire::sp::{Exchange, ExchangeError, Transport};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use peer::Peer;

/// Sockets open at the same time.
pub const MAX_SOCKETS: usize = 64;

/// One exchange with one endpoint.
#[derive(Debug)]
pub struct Job {
    endpoint: Endpoint,
    exchange: Exchange,
}

impl Job {
    /// PUSH: messages to the PULL socket at `endpoint`, back to back.
    pub fn push<'a>(endpoint: Endpoint, payloads: impl IntoIterator<Item = &'a [u8]>) -> Job {
        let exchange = Exchange::push_all(transport(&endpoint), payloads);
        Job { endpoint, exchange }
    }

    /// REQ: messages to the REP socket at `endpoint`, each after the reply to the one before it. The ids of
    /// the requests count up from `first`.
    pub fn request<'a>(endpoint: Endpoint, first: u32, payloads: impl IntoIterator<Item = &'a [u8]>) -> Job {
        let exchange = Exchange::request_all(transport(&endpoint), first, payloads);
        Job { endpoint, exchange }
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
    /// The deadline came first.
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
            Outcome::Silent => write!(f, "silent"),
            Outcome::Broken(error) => write!(f, "broken: {error}"),
            Outcome::Protocol(error) => write!(f, "protocol error: {error}"),
            Outcome::Unreachable(error) => write!(f, "unreachable: {error}"),
            Outcome::BadAddress(why) => write!(f, "bad address: {why}"),
        }
    }
}

struct Active {
    index: usize,
    peer: Peer,
    ready: PollFlags,
}

/// Runs all `jobs`, overlapped, and returns at `deadline` at the latest. One outcome for each job, in order.
pub fn run(jobs: Vec<Job>, deadline: Instant) -> Vec<Outcome> {
    let mut outcomes: Vec<Option<Outcome>> = jobs.iter().map(|_| None).collect();
    let mut settle = |index: usize, outcome: Outcome| {
        if let Some(slot) = outcomes.get_mut(index) {
            *slot = Some(outcome);
        }
    };
    let share = share(jobs.len(), deadline.saturating_duration_since(Instant::now()));
    let mut queue = jobs.into_iter().enumerate();
    let mut active: Vec<Active> = Vec::new();
    loop {
        let now = Instant::now();
        while active.len() < MAX_SOCKETS && now < deadline {
            let Some((index, job)) = queue.next() else { break };
            match Peer::start(&job.endpoint, job.exchange, now, deadline.min(now + share)) {
                Ok(peer) => active.push(Active { index, peer, ready: PollFlags::empty() }),
                Err(outcome) => settle(index, outcome),
            }
        }
        if active.is_empty() {
            break;
        }
        if let Err(error) = wait(&mut active, now) {
            for one in active.drain(..) {
                settle(one.index, Outcome::Unreachable(error.into()));
            }
        }
        let now = Instant::now();
        active.retain_mut(|one| match one.peer.step(one.ready, now) {
            Some(outcome) => {
                settle(one.index, outcome);
                false
            }
            None => true,
        });
    }
    // What is still queued has had no time.
    outcomes.into_iter().map(|outcome| outcome.unwrap_or(Outcome::Silent)).collect()
}

/// How long a job may hold its socket, so that all of them have one in time.
fn share(jobs: usize, budget: Duration) -> Duration {
    let rounds = u32::try_from(jobs.div_ceil(MAX_SOCKETS)).unwrap_or(u32::MAX);
    budget / rounds.max(1)
}

/// Waits until a socket is ready or a peer's time is up, and notes who is ready.
fn wait(active: &mut [Active], now: Instant) -> Result<(), rustix::io::Errno> {
    let wake = active.iter().map(|one| one.peer.wake()).min().unwrap_or(now);
    let pause = wake.saturating_duration_since(now);
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
