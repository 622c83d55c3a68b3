//! Whether the servers still have what was registered on them: each holds a canary, which goes when it forgets.

use std::collections::BTreeSet;

use uuid::Uuid;

/// A subscriber's canaries, and what it knows of them from one heartbeat to the next. For
/// [`Resolver::remembers`](crate::Resolver::remembers) and [`Resolver::plant`](crate::Resolver::plant).
#[derive(Debug, Clone)]
pub struct Canary {
    subscriber: Uuid,
    /// Servers that had no room for one: that it is not there says nothing.
    refused: BTreeSet<usize>,
}

impl Canary {
    /// As if planted everywhere.
    pub fn new(subscriber: Uuid) -> Canary {
        Canary { subscriber, refused: BTreeSet::new() }
    }

    /// Not below `ocbus:`, where a user may be called anything.
    pub(crate) fn key(&self) -> String {
        format!("ocbus-canary:{}", self.subscriber)
    }

    /// Notes that a server took it, or refused it.
    pub(crate) fn planted(&mut self, server: usize, taken: bool) {
        match taken {
            true => self.refused.remove(&server),
            false => self.refused.insert(server),
        };
    }

    /// Whether a server is as it was, by whether the canary is there.
    pub(crate) fn is_well(&self, server: usize, there: bool) -> bool {
        there || self.refused.contains(&server)
    }
}
