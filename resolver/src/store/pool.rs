//! Which server a request goes to, under which key, and which servers are left alone for a while. No I/O, and no
//! clock: every call that needs the time is given it.
//!
//! * OpenChange's records are where libmemcached has them: [`Selection`] by `resolver:<cn>`. The leases of the same
//!   user, `ocbus:<cn>`, are put beside them whatever their own key would choose, so that one round trip reads both.
//! * A server that failed is left alone until its retry time is over: its requests fail at once, and the others'
//!   never wait for it. Then one request tries again, while the rest still fail at once.
//! * The only server of a pool is asked each time. Nothing else is to be had from leaving it alone, and those who
//!   ask it have a heartbeat (subscribers) or an account of outages (the plugin) of their own.

use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use memcache::exp::{MAX_KEY_LENGTH, Router};

use super::copies::Reading;
use super::ineffective;
use crate::cn::Cn;
use crate::config::{Config, ConfigError, Server};
use crate::error::ResolverError;
use crate::selection::Selection;
use crate::update::{Expect, Request};

/// How long it says nothing that nobody is found where a server has just taken users over. Whoever registers counts
/// failures as we do, but by its heartbeats (0.5 s): it may be behind us by one of them and a time limit for each failure.
const SETTLING: Duration = Duration::from_secs(10);

/// A time-out of a caller in a greater hurry than this says nothing about the server.
const PATIENCE: Duration = Duration::from_millis(20);

/// Servers, the choice between them, and their health. Shared by all that use the same connections.
#[derive(Debug)]
pub(crate) struct Pool {
    config: Config,
    all: Selection,
    /// The servers as the crate's [`Router`] names them.
    identities: Vec<String>,
    health: Mutex<Health>,
}

#[derive(Debug)]
struct Health {
    servers: Vec<Standing>,
    /// With REMOVE-FAILED-SERVERS: which servers are in use, and the choice between these.
    left: Option<(Vec<bool>, Selection)>,
}

/// What is known of one server.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    /// Failures in a row, each counted once a retry time, as libmemcached meets them.
    failures: u32,
    counted: Option<Instant>,
    /// Left alone until then, unless somebody finds it back.
    down_until: Option<Instant>,
    /// When there were too many: with REMOVE-FAILED-SERVERS its users went to others then.
    removed: Option<Instant>,
    /// When it was in use again after a failure.
    returned: Option<Instant>,
    /// How often it was in use again after a failure. Kept: whoever watches it compares.
    returns: u64,
}

impl Standing {
    fn is_down(&self, now: Instant) -> bool {
        self.down_until.is_some_and(|until| now < until)
    }

    fn is_removed(&self, now: Instant) -> bool {
        self.removed.is_some() && self.is_down(now)
    }

    /// Counts a failure of a request that began then, once a retry time. Says whether now there are too many.
    fn count(&mut self, begun: Instant, now: Instant, retry: Duration) -> bool {
        if self.counted.is_some_and(|counted| begun < counted + retry) {
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        self.counted = Some(begun);
        let too_many = self.failures >= Config::SERVER_FAILURE_LIMIT && self.removed.is_none();
        if too_many {
            self.removed = Some(now);
        }
        too_many
    }
}

impl Pool {
    pub(crate) fn new(config: &Config) -> Result<Pool, ConfigError> {
        ineffective::tell(config);
        let servers = vec![Standing::default(); config.servers.len()];
        Ok(Pool {
            all: Selection::new(config)?,
            identities: config.servers.iter().map(Server::to_string).collect(),
            config: config.clone(),
            health: Mutex::new(Health { servers, left: None }),
        })
    }

    pub(crate) fn servers(&self) -> &[Server] {
        self.all.servers()
    }

    /// How a server is called in errors.
    pub(crate) fn name(&self, index: usize) -> String {
        self.servers().get(index).map(Server::to_string).unwrap_or_default()
    }

    /// The server of a request at this time. `None` where a write is bound to what was read on another server, and
    /// the record has moved since: it must not happen there, whatever the versions, and not here any more either.
    pub(crate) fn place(&self, request: &Request, now: Instant) -> Option<usize> {
        match request.bound_to() {
            None => Some(self.home(request.key(), now)),
            Some(server) if !self.config.remove_failed_servers => Some(server),
            Some(server) => (self.home(request.key(), now) == server).then_some(server),
        }
    }

    /// The server of a record at this time.
    pub(crate) fn home(&self, key: &str, now: Instant) -> usize {
        let beside = Cn::resolver_key_beside(key);
        let key = beside.as_deref().unwrap_or(key);
        if !self.config.remove_failed_servers {
            return self.route(&self.all, key);
        }
        let mut health = self.lock();
        let lives: Vec<bool> = health.servers.iter().map(|server| !server.is_removed(now)).collect();
        if lives.iter().all(|lives| *lives) {
            return self.route(&self.all, key);
        }
        if health.left.as_ref().is_none_or(|(before, _)| *before != lives) {
            let left = Selection::without_failed(&self.config, |index| lives.get(index) != Some(&false));
            health.left = left.ok().map(|left| (lives, left));
        }
        self.route(health.left.as_ref().map_or(&self.all, |(_, left)| left), key)
    }

    /// Whether the server that has a record has taken it over a moment ago: it stands in for one that failed, or has
    /// just come back itself. Whoever is to stand in the record may not have got there yet.
    pub(crate) fn is_unsettled(&self, key: &str, now: Instant) -> bool {
        let beside = Cn::resolver_key_beside(key);
        let (own, home) = (self.route(&self.all, beside.as_deref().unwrap_or(key)), self.home(key, now));
        let health = self.lock();
        let lately = |since: Option<Instant>| since.is_some_and(|since| now < since + SETTLING);
        match home == own {
            true => health.servers.get(own).is_some_and(|server| lately(server.returned)),
            // Another stand-in may have failed or come back, too.
            false => health.servers.iter().any(|server| lately(server.removed) || lately(server.returned)),
        }
    }

    /// The memcache crate's routing: by the key as it is in memcached, with the namespace.
    fn route(&self, router: &impl Router, key: &str) -> usize {
        match self.all.namespace() {
            "" => router.route(key.as_bytes(), &self.identities),
            namespace => router.route(format!("{namespace}{key}").as_bytes(), &self.identities),
        }
    }

    /// Where libmemcached has the copies of a record: on the servers behind its own.
    pub(crate) fn copies(&self, place: usize) -> impl Iterator<Item = usize> + use<> {
        let servers = self.servers().len();
        (1..=self.config.copies()).filter_map(move |step| (place + step).checked_rem(servers))
    }

    /// Whether there are copies, and a request may be answered by one: it is only looked at what it finds.
    pub(crate) fn reads_copies(&self, request: &Request) -> bool {
        matches!(request, Request::Get { any_copy: true, .. }) && self.config.copies() > 0
    }

    /// Whether what is written is written to copies as well.
    #[cfg(feature = "tokio")]
    pub(crate) fn has_copies(&self) -> bool {
        self.config.copies() > 0
    }

    /// Where such a request is answered: the record itself first, then the copies; after `--RANDOMIZE-REPLICA-READ`
    /// beginning with any of them, as the random number says.
    pub(crate) fn reading(&self, place: usize, random: u64) -> Reading {
        let mut order = vec![place];
        order.extend(self.copies(place));
        if self.config.randomize_replica_read {
            let ways = u64::try_from(order.len()).unwrap_or(1);
            order.rotate_left(usize::try_from(random % ways).unwrap_or(0));
        }
        Reading::new(place, order.into_iter())
    }

    /// What is sent to a copy when the record itself was written, or to make the copy like it. It has no
    /// compare-and-swap: that has decided on the record itself.
    pub(crate) fn copy_of(request: &Request) -> Option<Request> {
        match request {
            Request::Put { key, value, expiry, .. } => Some(Request::Put {
                key: key.clone(),
                value: value.clone(),
                expiry: *expiry,
                expect: Expect::Any,
            }),
            Request::Append { key, value, .. } => {
                Some(Request::Append { key: key.clone(), value: value.clone(), version: None })
            }
            Request::Delete { key, .. } | Request::Copy { key, value: None } => {
                Some(Request::Delete { key: key.clone(), version: None })
            }
            Request::Copy { key, value: Some(value) } => Some(Request::Put {
                key: key.clone(),
                value: value.clone(),
                expiry: None,
                expect: Expect::Any,
            }),
            Request::Get { .. } | Request::Size { .. } | Request::Touch { .. } => None,
        }
    }

    /// The request with the keys that memcached sees: the namespace stands in front. An error: one is too long, which
    /// must be found out here, and not where it shares a round trip with others'.
    pub(crate) fn on_the_wire<'r>(&self, request: &'r Request) -> Result<Cow<'r, Request>, ResolverError> {
        match self.all.namespace().is_empty() {
            true => self.fits(request).map(|()| Cow::Borrowed(request)),
            false => self.named(request.clone()).map(Cow::Owned),
        }
    }

    /// The same for one that is not needed any more.
    pub(crate) fn named(&self, mut request: Request) -> Result<Request, ResolverError> {
        self.fits(&request)?;
        let namespace = self.all.namespace();
        if namespace.is_empty() {
            return Ok(request);
        }
        request.keys_mut().iter_mut().for_each(|key| key.insert_str(0, namespace));
        Ok(request)
    }

    /// Octets that a key may have behind the namespace.
    pub(crate) fn longest_key(&self) -> usize {
        MAX_KEY_LENGTH.saturating_sub(self.all.namespace().len())
    }

    fn fits(&self, request: &Request) -> Result<(), ResolverError> {
        let most = self.longest_key();
        let Some(key) = request.keys().iter().find(|key| key.len() > most) else { return Ok(()) };
        let octets = key.len();
        let why = match self.all.namespace().len() {
            0 => format!("key of {octets} octets: expected at most {MAX_KEY_LENGTH}"),
            namespace => format!(
                "key of {octets} octets behind a namespace of {namespace}: expected at most {MAX_KEY_LENGTH} together"
            ),
        };
        Err(ResolverError::Unwritable { key: key.clone(), why })
    }

    /// Lets a request through to a server, or says that this one is left alone for now. Whoever is let through
    /// when the retry time is over is the only one for as long again.
    pub(crate) fn admit(&self, index: usize, now: Instant) -> Result<(), ResolverError> {
        let mut health = self.lock();
        let Some(server) = health.servers.get_mut(index) else { return Ok(()) };
        match server.down_until {
            None => Ok(()),
            Some(until) if now < until => Err(self.one_of(
                &health,
                now,
                ResolverError::Down { server: self.name(index), left: until - now },
            )),
            Some(_) => {
                server.down_until = Some(now + self.config.timeouts.retry());
                Ok(())
            }
        }
    }

    /// Takes note of how a request that began then ended now; an error says whether other servers are left.
    pub(crate) fn note<T>(
        &self,
        index: usize,
        begun: Instant,
        now: Instant,
        result: Result<T, ResolverError>,
    ) -> Result<T, ResolverError> {
        let mut health = self.lock();
        let alone = health.servers.len() < 2;
        let Some(server) = health.servers.get_mut(index) else { return result };
        let error = match result {
            // Who refuses one request lives.
            Ok(_) | Err(ResolverError::Refused { .. }) => {
                let back = server.down_until.is_some();
                let returned = if back { Some(now) } else { server.returned };
                let returns = server.returns + u64::from(back);
                *server = Standing { returns, returned, ..Standing::default() };
                if back {
                    tracing::warn!(event = "server_back", server = self.name(index), "in use again");
                }
                return result;
            }
            Err(error) if !error.is_outage() => return Err(error),
            Err(error) => error,
        };
        let hasty = error.is_timeout() && now.saturating_duration_since(begun) < PATIENCE;
        if !alone && !hasty {
            let retry = self.config.timeouts.retry();
            if server.count(begun, now, retry) {
                self.tell_removed(index);
            }
            if !server.is_down(now) {
                let (server, retry_ms) = (self.name(index), retry.as_millis());
                tracing::warn!(event = "server_down", server, retry_ms, reason = %error, "left alone for a while");
            }
            // Since it was asked, not since it has not answered, so that it is used again within the retry time
            // after its return; but for a while in any case.
            server.down_until = Some((begun + retry).max(now + retry / 2));
        }
        Err(self.one_of(&health, now, error))
    }

    /// For a server that has failed and not answered since, whether or not its time is over: why it is not asked.
    #[cfg(feature = "tokio")]
    pub(crate) fn down(&self, index: usize, now: Instant) -> Option<ResolverError> {
        let until = self.lock().servers.get(index)?.down_until?;
        Some(ResolverError::Down { server: self.name(index), left: until.saturating_duration_since(now) })
    }

    /// How often a server was in use again after a failure, whoever's request found that out.
    #[cfg(feature = "tokio")]
    pub(crate) fn returns(&self, index: usize) -> u64 {
        self.lock().servers.get(index).map_or(0, |server| server.returns)
    }

    /// A probe that began then found a server still out of reach: it is left alone for longer. That is a failure like
    /// any other: no ordinary request meets one while probes go on.
    #[cfg(feature = "tokio")]
    pub(crate) fn put_off(&self, index: usize, begun: Instant, now: Instant) {
        if let Some(server) = self.lock().servers.get_mut(index) {
            let retry = self.config.timeouts.retry();
            if server.count(begun, now, retry) {
                self.tell_removed(index);
            }
            server.down_until = Some(now + retry);
        }
    }

    fn tell_removed(&self, index: usize) {
        if self.config.remove_failed_servers {
            let (server, failures) = (self.name(index), Config::SERVER_FAILURE_LIMIT);
            tracing::warn!(event = "server_removed", server, failures, "others stand in for it on a ring");
        }
    }

    /// An error of one server among others that are up concerns some users, not all.
    fn one_of(&self, health: &Health, now: Instant, error: ResolverError) -> ResolverError {
        match health.servers.iter().any(|server| !server.is_down(now)) && health.servers.len() > 1 {
            true => ResolverError::OneServer { source: Box::new(error) },
            false => error,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Health> {
        // Every change is one assignment: it is whole even behind a panic.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
