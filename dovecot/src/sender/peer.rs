//! One endpoint of a run: its addresses, its socket, and how far the exchange has come.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use ocbus_resolver::addresses;
use ocbus_wire::Endpoint;
use ocbus_wire::sp::{Exchange, ExchangeError, HandshakeError, Outcome as Ended};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect,
    getpeername, getsockname, recv, send, shutdown, socket_with, sockopt,
};

use super::{Kept, Outcome};

/// How soon a unix socket with a full backlog is tried again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(8);

/// Reads in one step, so that a peer that never stops talking cannot hold up the deadline of the others.
const READS: usize = 8;

#[derive(Debug, Clone)]
enum Target {
    Inet(SocketAddr),
    Unix(SocketAddrUnix),
}

/// A unix socket with a full backlog: there is no queue to wait in, so it is dialled again.
#[derive(Debug)]
struct Again {
    target: Target,
    at: Instant,
    pause: Duration,
}

#[derive(Debug)]
pub(super) struct Peer {
    endpoint: Endpoint,
    exchange: Exchange,
    /// It began over a connection that was kept; this is for a new one, where the kept one turns out to be dead.
    afresh: Option<Exchange>,
    /// Where to go on when the present address refuses (a name may have several).
    others: VecDeque<Target>,
    again: Option<Again>,
    socket: Option<OwnedFd>,
    connected: bool,
    half_closed: bool,
    started: Instant,
    until: Instant,
}

impl Peer {
    /// Begins to connect, or to write where a connection was kept. An outcome too when there is nothing to wait
    /// for.
    pub(super) fn start(
        endpoint: Endpoint,
        exchange: Exchange,
        kept: &mut Kept,
        now: Instant,
        until: Instant,
    ) -> (Peer, Option<Outcome>) {
        let mut peer = Peer {
            endpoint,
            exchange,
            afresh: None,
            others: VecDeque::new(),
            again: None,
            socket: None,
            connected: false,
            half_closed: false,
            started: now,
            until,
        };
        let open = match peer.exchange.is_request() {
            true => kept.take(&peer.endpoint, now),
            false => None,
        };
        let outcome = match open {
            Some(socket) => {
                peer.afresh = Some(peer.exchange.clone());
                peer.exchange = peer.exchange.on_open_connection();
                peer.socket = Some(socket);
                peer.connected = true;
                let outcome = peer.talk(false);
                peer.second_try(outcome)
            }
            None => peer.connect(),
        };
        (peer, outcome)
    }

    /// Dials the endpoint.
    fn connect(&mut self) -> Option<Outcome> {
        self.others = match targets(&self.endpoint) {
            Ok(targets) => targets,
            Err(outcome) => return Some(outcome),
        };
        match self.others.pop_front() {
            Some(first) => self.dial(first, FIRST_PAUSE),
            None => Some(Outcome::BadAddress(format!("{} has no address", self.endpoint))),
        }
    }

    /// A kept connection that broke is no outcome: the peer may be there all the same.
    fn second_try(&mut self, outcome: Option<Outcome>) -> Option<Outcome> {
        if !matches!(outcome, Some(Outcome::Broken(_))) {
            return outcome;
        }
        match self.afresh.take() {
            Some(exchange) => {
                self.exchange = exchange;
                self.socket = None;
                self.connected = false;
                self.connect()
            }
            None => outcome,
        }
    }

    /// Whether all that can go out by now has gone out.
    pub(super) fn has_written(&self) -> bool {
        self.connected && self.exchange.output().is_empty()
    }

    /// Its time ends later.
    pub(super) fn delay(&mut self, by: Duration) {
        self.until += by;
    }

    /// Leaves the connection to the next exchange, where that may use it.
    pub(super) fn keep(mut self, outcome: &Outcome, kept: &mut Kept, now: Instant) {
        let answered = self.exchange.is_request() && matches!(outcome, Outcome::Delivered { .. });
        if let Some(socket) = self.socket.take_if(|_| answered) {
            kept.put(self.endpoint, socket, now);
        }
    }

    /// When it must be looked at, whatever its socket says.
    pub(super) fn wake(&self) -> Instant {
        self.again.as_ref().map_or(self.until, |again| self.until.min(again.at))
    }

    /// What it waits for.
    pub(super) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let flags = match (self.connected, self.exchange.output().is_empty()) {
            (false, _) => PollFlags::OUT,
            (true, true) => PollFlags::IN,
            (true, false) => PollFlags::IN | PollFlags::OUT,
        };
        self.socket.as_ref().map(|socket| (socket.as_fd(), flags))
    }

    /// Goes on as far as it can without waiting.
    pub(super) fn step(&mut self, ready: PollFlags, now: Instant) -> Option<Outcome> {
        let mut outcome = None;
        if let Some(again) = self.again.take_if(|again| again.at <= now && now < self.until) {
            outcome = self.dial(again.target, again.pause);
        } else if !ready.is_empty() {
            outcome = if self.connected { self.talk(true) } else { self.connecting() };
            outcome = self.second_try(outcome);
        }
        if outcome.is_none() && now >= self.until {
            self.exchange.give_up();
            let silent = if self.connected { Outcome::Silent } else { Outcome::NotReached };
            outcome = Some(self.ended().unwrap_or(silent));
        }
        outcome
    }

    fn dial(&mut self, target: Target, pause: Duration) -> Option<Outcome> {
        let family = match &target {
            Target::Inet(SocketAddr::V4(_)) => AddressFamily::INET,
            Target::Inet(SocketAddr::V6(_)) => AddressFamily::INET6,
            Target::Unix(_) => AddressFamily::UNIX,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = match socket_with(family, SocketType::STREAM, flags, None) {
            Ok(socket) => socket,
            Err(error) => return Some(Outcome::Unreachable(error.into())),
        };
        let begun = match &target {
            Target::Inet(address) => connect(&socket, address),
            Target::Unix(address) => connect(&socket, address),
        };
        match begun {
            Ok(()) => {
                self.socket = Some(socket);
                self.connected = true;
                self.talk(false)
            }
            // Interrupted: the connection goes on being made all the same.
            Err(Errno::INPROGRESS | Errno::INTR) => {
                self.socket = Some(socket);
                None
            }
            Err(Errno::AGAIN) if matches!(target, Target::Unix(_)) => {
                let pause = pause.min(LONGEST_PAUSE);
                self.again = Some(Again { target, at: Instant::now() + pause, pause: pause * 2 });
                None
            }
            Err(error) => self.no_connection(error),
        }
    }

    fn connecting(&mut self) -> Option<Outcome> {
        match sockopt::socket_error(self.socket.as_ref()?) {
            Ok(Ok(())) => {
                self.connected = true;
                self.talk(false)
            }
            Ok(Err(error)) | Err(error) => self.no_connection(error),
        }
    }

    fn no_connection(&mut self, error: Errno) -> Option<Outcome> {
        self.socket = None;
        if let Some(target) = self.others.pop_front() {
            return self.dial(target, FIRST_PAUSE);
        }
        Some(match error {
            Errno::CONNREFUSED | Errno::NOENT => Outcome::Refused,
            _ => Outcome::Unreachable(error.into()),
        })
    }

    /// Writes what can be written and reads what is there.
    fn talk(&mut self, readable: bool) -> Option<Outcome> {
        let socket = self.socket.as_ref()?;
        let mut broken = None;
        while !self.exchange.output().is_empty() {
            match send(socket, self.exchange.output(), SendFlags::NOSIGNAL) {
                Ok(count) => self.exchange.wrote(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => {
                    // What the peer said before may tell why.
                    broken = Some(error);
                    break;
                }
            }
        }
        if readable || broken.is_some() {
            let mut buffer = [0; 4096];
            for _ in 0..READS {
                if self.exchange.outcome().is_some() {
                    break;
                }
                match recv(socket, &mut buffer, RecvFlags::DONTWAIT) {
                    Ok((_, 0)) => self.exchange.closed(),
                    Ok((_, count)) => self.exchange.feed(buffer.get(..count).unwrap_or(&buffer)),
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    Err(error) => {
                        broken = Some(broken.unwrap_or(error));
                        break;
                    }
                }
            }
        }
        if self.exchange.wants_half_close() && !self.half_closed {
            self.half_closed = true;
            // When it fails the connection is gone, and the next read says so.
            let _ = shutdown(socket, Shutdown::Write);
        }
        self.ended().or_else(|| broken.map(|error| Outcome::Broken(error.into())))
    }

    fn ended(&self) -> Option<Outcome> {
        Some(match self.exchange.outcome()? {
            Ok(Ended::Pushed { .. }) => {
                Outcome::Delivered { replies: Vec::new(), took: self.started.elapsed() }
            }
            Ok(Ended::Replied(bodies)) => {
                Outcome::Delivered { replies: bodies.clone(), took: self.started.elapsed() }
            }
            Err(error @ ExchangeError::ClosedEarly { .. }) => {
                Outcome::Broken(io::Error::new(io::ErrorKind::UnexpectedEof, error.clone()))
            }
            Err(ExchangeError::Handshake(HandshakeError::WrongPeer { .. })) if self.is_ourselves() => {
                Outcome::Refused
            }
            Err(error) => Outcome::Protocol(error.clone()),
        })
    }

    /// Whether the socket is connected to itself. TCP does that now and then when nobody listens on a port of
    /// the ephemeral range and the kernel picks that very port for us.
    fn is_ourselves(&self) -> bool {
        let Some(socket) = &self.socket else { return false };
        match (getsockname(socket), getpeername(socket)) {
            (Ok(here), Ok(Some(there))) => here == there,
            _ => false,
        }
    }
}

fn targets(endpoint: &Endpoint) -> Result<VecDeque<Target>, Outcome> {
    match endpoint {
        Endpoint::Tcp { host, port } => match addresses(host, *port, None) {
            Ok(addresses) => Ok(addresses.into_iter().map(Target::Inet).collect()),
            Err(error) => Err(Outcome::BadAddress(error.to_string())),
        },
        Endpoint::Ipc { path } => match SocketAddrUnix::new(path.as_str()) {
            Ok(address) => Ok(VecDeque::from([Target::Unix(address)])),
            Err(_) => Err(Outcome::BadAddress(format!(
                "path of {} octets: a unix socket has at most 107",
                path.len()
            ))),
        },
    }
}
