//! Endpoints as they stand in the records, and whether anybody is there.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anstyle::Style;
use ocbus::publisher::probe;
use ocbus::resolver::delivery::Outcome;
use ocbus::resolver::{Cn, Listeners, Resolver, ResolverError};
use ocbus::wire::Endpoint;
use ocbus::wire::native::Lease;
use ocbus::wire::sp::Protocol;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::failure::{Failure, chain};
use super::output::{BAD, GOOD, UNSURE};

/// Connections that are tried at once: below the usual limit of descriptors.
const CONCURRENT: usize = 512;

const NATIVE: &str = "native";
const LEGACY: &str = "legacy";

/// An endpoint in a user's records.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    Native { lease: Lease, expired: bool },
    Legacy(String),
}

/// Whether anybody is at an endpoint.
#[derive(Debug, Clone)]
pub(super) enum Reach {
    Reachable,
    Refused,
    Silent,
    /// Somebody else has the port now.
    Stranger(String),
    /// Anything else, in words.
    Fault(String),
}

impl Entry {
    pub(super) fn all(listeners: &Listeners) -> Vec<Entry> {
        let native = |expired| move |lease: &Lease| Entry::Native { lease: lease.clone(), expired };
        let held = listeners.native.iter().map(native(false));
        let ended = listeners.expired.iter().map(native(true));
        held.chain(ended).chain(listeners.legacy.iter().cloned().map(Entry::Legacy)).collect()
    }

    pub(super) fn url(&self) -> &str {
        match self {
            Entry::Native { lease, .. } => &lease.endpoint,
            Entry::Legacy(url) => url,
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Entry::Native { .. } => NATIVE,
            Entry::Legacy(_) => LEGACY,
        }
    }
}

impl Reach {
    /// For machines, and for people where there is no more to say.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Reach::Reachable => "reachable",
            Reach::Refused => "refused",
            Reach::Silent => "silent",
            Reach::Stranger(_) => "stranger",
            Reach::Fault(_) => "fault",
        }
    }

    pub(super) fn words(&self) -> &str {
        match self {
            Reach::Stranger(what) | Reach::Fault(what) => what,
            other => other.word(),
        }
    }

    pub(super) fn style(&self) -> Style {
        match self {
            Reach::Reachable => GOOD,
            Reach::Refused | Reach::Stranger(_) => BAD,
            Reach::Silent | Reach::Fault(_) => UNSURE,
        }
    }
}

/// Users for whom something could not be done, by what it was and why: told at the end, so that the others are served.
#[derive(Debug, Default)]
pub(super) struct Unserved(Vec<(String, Vec<Cn>)>);

impl Unserved {
    pub(super) fn add(&mut self, what: &str, cn: &Cn, error: &ResolverError) {
        let why = format!("{}: {what}", chain(error));
        match self.0.iter_mut().find(|(other, _)| *other == why) {
            Some((_, users)) => users.push(cn.clone()),
            None => self.0.push((why, vec![cn.clone()])),
        }
    }

    /// What was the first, and of how many users it was that or another.
    pub(super) fn first(&self) -> Option<(&str, usize)> {
        let (why, _) = self.0.first()?;
        Some((why, self.0.iter().map(|(_, users)| users.len()).sum()))
    }

    /// A failure if there is any, with each of them by name.
    pub(super) fn tell(self) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        let names = |users: &[Cn]| users.iter().map(Cn::as_str).collect::<Vec<_>>().join(", ");
        let all: Vec<String> = self.0.iter().map(|(why, users)| format!("{why}: {}", names(users))).collect();
        Err(Failure::Failed(all.join("; ")))
    }
}

/// The records of users in their order, but for those that could not be read.
pub(super) async fn look_up(resolver: &Resolver, users: &[Cn]) -> (Vec<(Cn, Listeners)>, Unserved) {
    let (mut found, mut unserved) = (Vec::with_capacity(users.len()), Unserved::default());
    for (cn, listeners) in users.iter().zip(resolver.lookup_many(users).await) {
        match listeners {
            Ok(listeners) => found.push((cn.clone(), listeners)),
            Err(error) => unserved.add("not looked up", cn, &error),
        }
    }
    (found, unserved)
}

/// What was found at endpoints, by their kind and URL.
#[derive(Debug, Default)]
pub(super) struct Reached(HashMap<(&'static str, String), Reach>);

impl Reached {
    pub(super) fn get(&self, entry: &Entry) -> Option<&Reach> {
        self.0.get(&(entry.kind(), entry.url().to_owned()))
    }
}

/// Tries all endpoints at once, each once: a connection, and the handshake of its socket.
pub(super) async fn reach<'a>(entries: impl Iterator<Item = &'a Entry>, limit: Duration) -> Reached {
    let mut targets: Vec<(&'static str, String)> =
        entries.map(|entry| (entry.kind(), entry.url().to_owned())).collect();
    targets.sort_unstable();
    targets.dedup();
    let mut found = Reached::default();
    for some in targets.chunks(CONCURRENT) {
        let deadline = Instant::now() + limit;
        let mut tasks = JoinSet::new();
        for (kind, url) in some.iter().cloned() {
            let ours = if kind == NATIVE { Protocol::Req } else { Protocol::Push };
            tasks.spawn(async move {
                let reach = match Endpoint::parse(&url) {
                    Ok(endpoint) => of(probe(&endpoint, ours, deadline).await),
                    Err(error) => Reach::Fault(error.to_string()),
                };
                ((kind, url), reach)
            });
        }
        while let Some(result) = tasks.join_next().await {
            found.0.extend(result.ok());
        }
    }
    found
}

fn of(outcome: Result<(), Outcome>) -> Reach {
    match outcome {
        Ok(()) => Reach::Reachable,
        Err(Outcome::Refused) => Reach::Refused,
        Err(Outcome::Silent) => Reach::Silent,
        Err(Outcome::Stranger(what)) => Reach::Stranger(format!("not such an endpoint: {what}")),
        Err(Outcome::Broken(what) | Outcome::BadAddress(what)) => Reach::Fault(what),
        Err(other) => Reach::Fault(format!("{other:?}")),
    }
}

/// What is left of a lease, in milliseconds.
pub(super) fn left_ms(lease: &Lease) -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    lease.until_ms.saturating_sub(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
