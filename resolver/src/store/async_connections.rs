use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use memcache::exp::Error;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use super::async_connection::AsyncConnection;
use super::exchange::Exchange;
use super::failed;
use crate::config::{Config, Server};
use crate::error::ResolverError;
use crate::names::addresses_by;
use crate::names::known::Known;
use crate::update::{Request, Response};

/// Connections to one server at most, where `--POOL-MAX` says nothing.
const CONNECTIONS: usize = 16;

/// How long a connection above `--POOL-MIN` may be idle.
const MAX_IDLE: Duration = Duration::from_secs(90);

/// The connections to one memcached: those in use belong to whoever uses them, the others are kept here.
#[derive(Debug)]
pub(super) struct AsyncConnections {
    server: Server,
    /// Its index among all.
    place: usize,
    keepalive: bool,
    /// To connect.
    connecting: Duration,
    /// For one exchange.
    exchanging: Duration,
    /// Connections that stay open, used or not.
    least: usize,
    /// One task looks up, and the others wait for what it finds.
    addresses: tokio::sync::Mutex<Known>,
    /// The one that was used last is at the end, and is used next.
    idle: Mutex<Vec<(Open, Instant)>>,
    /// In use, or dialled ahead, at most.
    slots: Semaphore,
    /// Connections that are there or dialled. One more is counted with `idle` locked, by whom has found none there:
    /// so there are never more than are needed.
    open: Arc<AtomicUsize>,
    /// Connections so far.
    dialled: AtomicU64,
    filling: AtomicBool,
}

/// A connection that is counted as long as it lives.
#[derive(Debug)]
struct Open {
    connection: AsyncConnection,
    /// Among all to this server: 1 is the first.
    number: u64,
    _place: Place,
}

/// What a connection is counted by, before it is dialled already.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Place {
    fn new(open: &Arc<AtomicUsize>) -> Place {
        open.fetch_add(1, Ordering::AcqRel);
        Place(Arc::clone(open))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl AsyncConnections {
    /// `limit` shortens the configuration's time limits.
    pub(super) fn new(place: usize, server: &Server, config: &Config, limit: Duration) -> AsyncConnections {
        let size = |size: Option<u32>| size.and_then(|size| usize::try_from(size).ok());
        // More than a semaphore can count is no limit anyway.
        let most = size(config.pool_max).filter(|most| *most > 0).unwrap_or(CONNECTIONS).min(1 << 16);
        let timeouts = config.timeouts;
        let shortest = |limits: &[Option<Duration>]| limits.iter().flatten().fold(limit, |a, b| a.min(*b));
        AsyncConnections {
            server: server.clone(),
            place,
            keepalive: config.tcp_keepalive,
            connecting: shortest(&[timeouts.connect()]),
            exchanging: shortest(&[timeouts.poll(), timeouts.send(), timeouts.receive()]),
            least: size(config.pool_min).unwrap_or(0).min(most),
            addresses: tokio::sync::Mutex::default(),
            idle: Mutex::new(Vec::new()),
            slots: Semaphore::new(most),
            open: Arc::default(),
            dialled: AtomicU64::new(0),
            filling: AtomicBool::new(false),
        }
    }

    /// Resolves the server's name: once, and again when none of its addresses has answered.
    pub(super) async fn find(&self, deadline: Instant) -> Result<Vec<SocketAddr>, ResolverError> {
        let Server::Tcp { host, port, .. } = &self.server else { return Ok(Vec::new()) };
        let mut known = by(deadline, self.addresses.lock()).await.ok_or_else(|| self.timed_out())?;
        if let Some(good) = known.good() {
            return Ok(good.to_vec());
        }
        let until = known.until(Instant::now(), deadline);
        let found = by(until, addresses_by(host, *port, until)).await;
        let found = found.unwrap_or_else(|| Err(ErrorKind::TimedOut.into()));
        let name = |source| ResolverError::Name { server: self.server.to_string(), source };
        known.looked_up(found).map(<[SocketAddr]>::to_vec).map_err(name)
    }

    /// Answers to requests, in their order: as many as came until one failed in a way that ended the connection,
    /// and that failure. Dropped in the middle, it takes its connection with it.
    pub(super) async fn run(
        &self,
        requests: &[Request],
        deadline: Instant,
    ) -> (Vec<Result<Response, ResolverError>>, Option<ResolverError>) {
        let mut exchange = Exchange::new(requests, self.place);
        let over = self.exchange(&mut exchange, deadline).await;
        let mut responses = exchange.into_responses().into_iter();
        let responses = responses.by_ref().map(|answer| answer.map_err(|source| self.failed(source)));
        (responses.collect(), over.err())
    }

    async fn exchange(&self, exchange: &mut Exchange<'_>, deadline: Instant) -> Result<(), ResolverError> {
        let slot = self.slots.acquire();
        let _slot =
            by(deadline, slot).await.ok_or_else(|| self.timed_out())?.map_err(|_| self.timed_out())?;
        let mut kept = self.kept();
        loop {
            let was_kept = kept.is_ok();
            let mut open = match kept {
                Ok(open) => open,
                Err(place) => self.dial(place, deadline).await?,
            };
            // Before anything is read: whatever is dialled from here on may lead to another memcached.
            let begun = exchange.begin(open.number, self.dialled.load(Ordering::Acquire));
            let octets = begun.map_err(|error| self.failed(error))?;
            let limit = deadline.min(Instant::now() + self.exchanging);
            match by(limit, open.connection.exchange(exchange, &octets)).await {
                Some(Ok(())) => {
                    self.keep(open);
                    return Ok(());
                }
                // An idle connection may be closed by the server at the very moment when it is taken up again.
                // Every request may be repeated: a write that is bound to what was read before is a lost race over
                // a new connection, and the record is read again.
                Some(Err(Error::Io(error))) if was_kept && was_closed(error.kind()) => {
                    // A server that was restarted has closed the others as well.
                    let mut idle = self.idle();
                    idle.clear();
                    drop(open);
                    kept = Err(Place::new(&self.open));
                }
                Some(Err(error)) => return Err(self.failed(error)),
                None => return Err(self.timed_out()),
            }
        }
    }

    async fn dial(&self, place: Place, deadline: Instant) -> Result<Open, ResolverError> {
        let deadline = deadline.min(Instant::now() + self.connecting);
        let addresses = self.find(deadline).await?;
        let dialled = AsyncConnection::dial(&self.server, &addresses, self.keepalive, deadline);
        let dialled = by(deadline, dialled).await.unwrap_or_else(|| Err(ErrorKind::TimedOut.into()));
        if dialled.is_err()
            // Whoever has it looks up just now.
            && let Ok(mut known) = self.addresses.try_lock()
        {
            known.doubt();
        }
        let connection = dialled.map_err(|error| self.failed(Error::Io(error)))?;
        let number = self.dialled.fetch_add(1, Ordering::AcqRel) + 1;
        Ok(Open { connection, number, _place: place })
    }

    /// An idle connection that is still good, or else a place for a new one.
    fn kept(&self) -> Result<Open, Place> {
        let mut idle = self.idle();
        while let Some((open, since)) = idle.pop() {
            if (self.is_least() || since.elapsed() < MAX_IDLE) && open.connection.is_fit() {
                return Ok(open);
            }
        }
        Err(Place::new(&self.open))
    }

    /// A place for one that is dialled ahead, as long as fewer than `--POOL-MIN` are there or dialled.
    fn lacking(&self) -> Option<Place> {
        let _idle = self.idle();
        (self.open.load(Ordering::Acquire) < self.least).then(|| Place::new(&self.open))
    }

    fn keep(&self, open: Open) {
        let mut idle = self.idle();
        idle.push((open, Instant::now()));
        // The one that was idle longest is never taken while there are younger ones.
        let old = |since: &Instant| !self.is_least() && since.elapsed() >= MAX_IDLE;
        if idle.first().is_some_and(|(open, since)| old(since) || !open.connection.is_fit()) {
            idle.remove(0);
        }
    }

    fn is_least(&self) -> bool {
        self.open.load(Ordering::Acquire) <= self.least
    }

    /// Opens connections up to `--POOL-MIN`, as well as it can be done, behind the caller's back: at the start, and
    /// whenever some are missing after a request went well.
    pub(super) fn fill(self: &Arc<Self>) {
        if self.open.load(Ordering::Acquire) >= self.least || self.filling.swap(true, Ordering::AcqRel) {
            return;
        }
        let connections = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok(_slot) = connections.slots.acquire().await
                && let Some(place) = connections.lacking()
            {
                match connections.dial(place, Instant::now() + connections.connecting).await {
                    Ok(open) => connections.keep(open),
                    Err(error) => {
                        tracing::debug!(event = "pool_min_failed", reason = %error, "fewer connections are kept");
                        break;
                    }
                }
            }
            connections.filling.store(false, Ordering::Release);
        });
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Open, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, source: Error) -> ResolverError {
        failed(&self.server, source)
    }

    pub(super) fn timed_out(&self) -> ResolverError {
        ResolverError::Deadline { server: self.server.to_string() }
    }
}

/// `None` at the deadline.
pub(super) async fn by<T>(deadline: Instant, step: impl Future<Output = T>) -> Option<T> {
    timeout_at(deadline.into(), step).await.ok()
}

/// Whether the server ended the connection. (One that it refused is not dialled twice.)
fn was_closed(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}
