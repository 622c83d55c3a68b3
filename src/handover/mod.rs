//! The socket at which our Dovecot plugin hands its events over: a native batch in, an acknowledgement out, before
//! anything is looked up or published.
//!
//! A unix socket that wants write permission to connect: mail users may give events, and nobody can read any. The
//! acknowledgement means that the [`Outbox`] answers for the events; one with a reason (`err`) that it does not, and
//! that the plugin goes the direct way.

mod group;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ocbus_wire::Endpoint;
use ocbus_wire::native::{Ack, Batch};

use crate::outbox::{Outbox, Source};
use crate::sockets::{IpcOptions, IpcServer, Role};

/// How long a mail process may keep a connection without using it. It uses none that is older than 10 s.
const IDLE: Duration = Duration::from_secs(15);

/// Where the hand-over socket is, and who may write to it.
#[derive(Debug, Clone)]
pub struct HandOverConfig {
    /// `ipc:///run/ocbus/bus.sock`.
    pub listen: Endpoint,
    /// Mode of the socket, 0 to 0777. Who may write to it may hand events over; nobody can read anything from it.
    pub mode: u32,
    /// Group of the socket: a name of /etc/group or a number. `None`: the daemon's own.
    pub group: Option<String>,
}

impl HandOverConfig {
    /// The number of the socket's group, if one is set.
    pub fn group(&self) -> Result<Option<u32>, HandOverError> {
        self.group.as_deref().map(group::id).transpose()
    }
}

impl Default for HandOverConfig {
    fn default() -> HandOverConfig {
        let listen = Endpoint::Ipc { path: "/run/ocbus/bus.sock".to_owned() };
        HandOverConfig { listen, mode: 0o660, group: None }
    }
}

/// Why there is no hand-over socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandOverError {
    /// It can only be a unix socket: over tcp anybody on this machine could connect.
    #[error("hand-over: listen: '{0}': expected a unix socket, as ipc:///run/ocbus/bus.sock")]
    NotIpc(Endpoint),
    /// The mode is none.
    #[error("hand-over: mode: {0:#o}: expected 0 to 0o777")]
    Mode(u32),
    /// There is no such group.
    #[error("hand-over: group: '{0}': expected a name in /etc/group, or a number")]
    Group(String),
    /// /etc/group cannot be read.
    #[error("hand-over: group: /etc/group: {0}")]
    Groups(#[source] std::io::Error),
    /// The socket's file cannot be made.
    #[error(
        "hand-over: listen: '{listen}': {source}: expected a path that no other process listens at, in a folder that \
         is ours, and a group that we may give it to"
    )]
    Listen {
        /// As set.
        listen: Endpoint,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The listening socket; it goes with this, and what was accepted stays with the outbox.
#[derive(Debug)]
pub struct HandOver {
    endpoint: Endpoint,
    counters: Arc<Counters>,
    _server: IpcServer,
}

#[derive(Debug, Default)]
struct Counters {
    batches: AtomicU64,
    malformed: AtomicU64,
}

/// What came to the socket; what became of the events [`Outbox::statistics`] says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Batches that could be read.
    pub batches: u64,
    /// Batches and single events that could not.
    pub malformed: u64,
}

impl HandOver {
    /// Listens, and gives what comes to the outbox. A socket that a dead process left behind is replaced, one where
    /// somebody listens is refused. Within a tokio runtime.
    pub fn listen(config: &HandOverConfig, outbox: Outbox) -> Result<HandOver, HandOverError> {
        let Endpoint::Ipc { path } = &config.listen else {
            return Err(HandOverError::NotIpc(config.listen.clone()));
        };
        if config.mode > 0o777 {
            return Err(HandOverError::Mode(config.mode));
        }
        let group = config.group()?;
        let options = IpcOptions { mode: Some(config.mode), group, idle: Some(IDLE) };
        let counters = Arc::new(Counters::default());
        let receiver = Receiver { outbox, counters: Arc::clone(&counters) };
        let handler = Arc::new(move |request: &[u8]| {
            // A panic costs the peer its answer, so that it goes the direct way; its message stands on standard error.
            catch_unwind(AssertUnwindSafe(|| receiver.take(request))).unwrap_or_default()
        });
        let server = IpcServer::listen(Role::Reply, Path::new(path), options, handler)
            .map_err(|source| HandOverError::Listen { listen: config.listen.clone(), source })?;
        Ok(HandOver { endpoint: config.listen.clone(), counters, _server: server })
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What has come so far.
    pub fn statistics(&self) -> Statistics {
        self.tally().statistics()
    }

    /// Whoever wants to know that without the socket.
    pub fn tally(&self) -> Tally {
        Tally(Arc::clone(&self.counters))
    }
}

/// The counters of a socket, which outlive it.
#[derive(Debug, Clone)]
pub struct Tally(Arc<Counters>);

impl Tally {
    /// What has come so far.
    pub fn statistics(&self) -> Statistics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Statistics { batches: read(&self.0.batches), malformed: read(&self.0.malformed) }
    }
}

struct Receiver {
    outbox: Outbox,
    counters: Arc<Counters>,
}

impl Receiver {
    fn take(&self, request: &[u8]) -> Vec<u8> {
        let ack = match Batch::decode(request) {
            Ok(batch) => {
                self.counters.batches.fetch_add(1, Ordering::Relaxed);
                self.note_malformed(batch.skipped, None);
                let skipped = u32::try_from(batch.skipped).unwrap_or(u32::MAX);
                let taken = u32::try_from(batch.events.len()).unwrap_or(u32::MAX);
                match self.outbox.accept(Source::HandOver, batch.events) {
                    Ok(()) => Ack::taken(taken, skipped, Vec::new()),
                    Err(full) => Ack::refused(full.to_string()),
                }
            }
            Err(error) => {
                let error = error.to_string();
                self.note_malformed(1, Some(&error));
                Ack::refused(error)
            }
        };
        // An acknowledgement is far below its limit; an empty answer sends the plugin the direct way.
        ack.encode().unwrap_or_default()
    }

    fn note_malformed(&self, count: usize, reason: Option<&str>) {
        let add = u64::try_from(count).unwrap_or(u64::MAX);
        let count = self.counters.malformed.fetch_add(add, Ordering::Relaxed).saturating_add(add);
        // One line for the first, then whenever there are twice as many.
        let before = count - add;
        if add == 0 || (before > 0 && before.ilog2() == count.ilog2()) {
            return;
        }
        match reason {
            Some(reason) => {
                tracing::warn!(
                    event = "batch_refused",
                    reason,
                    count,
                    "what was handed over could not be read"
                );
            }
            None => {
                tracing::warn!(
                    event = "events_skipped",
                    count,
                    "events that were handed over could not be read"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
