//! ocbus: the notification bus that makes Outlook refresh the moment a mail arrives.
//!
//! * [`bus`]: events within one process, over tokio channels. Needs no server at all.
//! * [`subscriber`]: an endpoint that other processes send events to, registered with the resolver.
//! * [`publisher`]: sends events to every endpoint of a user.
//! * [`outbox`]: what the daemon holds for others: it looks up, sends, and tries again.
//! * [`handover`]: the socket at which our Dovecot plugin gives its events to the outbox.
//! * [`gateway`]: the daemon `ocbus serve`: settings, HTTP end-points, signals.
//! * [`embedded`]: a resolver of the process's own, for those who want no memcached.
//! * [`sandbox`]: a private Dovecot and memcached, for the demo, the tests and the benches.
//!
//! The formats are in [`ocbus_wire`], who listens for a user in [`ocbus_resolver`]. Both are re-exported here,
//! so that a program needs this crate only.

pub mod bus;
pub mod embedded;
pub mod gateway;
pub mod handover;
pub mod outbox;
pub mod publisher;
pub mod registration;
pub mod sandbox;
mod sockets;
pub mod subscriber;

pub use bus::Bus;
pub use embedded::Embedded;
pub use ocbus_resolver as resolver;
pub use ocbus_wire as wire;
pub use ocbus_wire::{Event, EventKind, Mailbox};
pub use outbox::Outbox;
pub use publisher::Publisher;
pub use subscriber::Subscriber;

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in microseconds since the Unix epoch: the time of an [`Event`] made in this process.
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
