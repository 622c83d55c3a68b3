//! Connections that stay open for the next transaction of the same process: LMTP delivers many mails, and to an
//! endpoint that serves all its users most of them go.
//!
//! Only REQ's: each request has its answer. A PUSH over a connection whose peer has vanished without a word would be
//! lost without a word; over a new one the peer's header says that it is there.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ocbus_wire::Endpoint;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// Connections of one process.
const MOST: usize = 32;

/// How long a connection waits for its next use. Well below what a firewall between hosts forgets after.
const LONGEST: Duration = Duration::from_secs(10);

/// Idle connections, the longest idle first.
#[derive(Debug, Default)]
pub struct Kept(Vec<Idle>);

#[derive(Debug)]
struct Idle {
    endpoint: Endpoint,
    socket: OwnedFd,
    since: Instant,
}

impl Kept {
    /// None yet.
    pub fn new() -> Kept {
        Kept::default()
    }

    /// A connection to an endpoint's REP socket, if there is one that is still open.
    pub(super) fn take(&mut self, endpoint: &Endpoint, now: Instant) -> Option<OwnedFd> {
        self.0.retain(|idle| now.saturating_duration_since(idle.since) < LONGEST);
        let at = self.0.iter().position(|idle| idle.endpoint == *endpoint)?;
        let idle = self.0.remove(at);
        // Nobody has anything to say: whatever is there is the end, or none of ours.
        let quiet = recv(&idle.socket, &mut [0u8; 1], RecvFlags::DONTWAIT | RecvFlags::PEEK);
        matches!(quiet, Err(Errno::AGAIN)).then_some(idle.socket)
    }

    /// Keeps a connection on which an exchange has ended well.
    pub(super) fn put(&mut self, endpoint: Endpoint, socket: OwnedFd, now: Instant) {
        self.0.retain(|idle| idle.endpoint != endpoint);
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push(Idle { endpoint, socket, since: now });
    }
}
