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
    /// How often each server had come back when all was registered, and when it was looked at last.
    planted: Option<Vec<u64>>,
    seen: Vec<u64>,
}

impl Canary {
    /// As if planted everywhere.
    pub fn new(subscriber: Uuid) -> Canary {
        Canary { subscriber, refused: BTreeSet::new(), planted: None, seen: Vec::new() }
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

    /// All that was asked of servers until this look is made good by what is done before [`Canary::all_planted`].
    pub(crate) fn saw(&mut self, returns: Vec<u64>) {
        self.planted.get_or_insert_with(|| returns.clone());
        self.seen = returns;
    }

    /// Every server that is up has answered.
    pub(crate) fn all_planted(&mut self) {
        if self.planted.is_some() {
            self.planted = Some(self.seen.clone());
        }
    }

    /// Whether a server is as it was: it was never away, and the canary is there.
    pub(crate) fn is_well(&self, server: usize, there: bool) -> bool {
        let returns = |all: &[u64]| all.get(server).copied();
        returns(&self.seen) == self.planted.as_deref().and_then(returns)
            && (there || self.refused.contains(&server))
    }
}
