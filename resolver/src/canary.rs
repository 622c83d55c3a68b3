//! Whether the servers still have what was registered on them: each holds a canary, which goes when it forgets.

use std::collections::BTreeSet;
use std::time::Duration;

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
    sightings: Vec<Sighting>,
}

/// What the last [`Resolver::remembers`](crate::Resolver::remembers) found of one server that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sighting {
    /// Its index, for [`Resolver::server_name`](crate::Resolver::server_name) and
    /// [`Resolver::users_on`](crate::Resolver::users_on).
    pub server: usize,
    /// Whether the canary is gone, and with it perhaps all that was registered there.
    pub forgot: bool,
    /// Whether it was out of reach for a while.
    pub away: bool,
    /// How long it took to answer, by the clock of the caller.
    pub took: Duration,
}

impl Sighting {
    /// Whether it is as it was.
    pub fn is_well(&self) -> bool {
        !self.forgot && !self.away
    }
}

impl Canary {
    /// As if planted everywhere.
    pub fn new(subscriber: Uuid) -> Canary {
        Canary {
            subscriber,
            refused: BTreeSet::new(),
            planted: None,
            seen: Vec::new(),
            sightings: Vec::new(),
        }
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

    /// What was found of each server: whether its canary was there, and how long the answer took.
    pub(crate) fn looked(&mut self, answers: impl Iterator<Item = (usize, bool, Duration)>) {
        let returns = |all: &[u64], server: usize| all.get(server).copied();
        let sighting = |(server, there, took): (usize, bool, Duration)| {
            let forgot = !there && !self.refused.contains(&server);
            let stayed = returns(&self.seen, server)
                == self.planted.as_deref().and_then(|planted| returns(planted, server));
            Sighting { server, forgot, away: !stayed, took }
        };
        self.sightings = answers.map(sighting).collect();
    }

    /// What the last look found of each server that answered. A server that is out of reach is not among them.
    pub fn sightings(&self) -> &[Sighting] {
        &self.sightings
    }
}
