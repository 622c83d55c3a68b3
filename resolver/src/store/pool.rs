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

    /// The request with the keys that memcached sees: the namespace stands in front.
    pub(crate) fn on_the_wire<'r>(&self, request: &'r Request) -> Result<Cow<'r, Request>, ResolverError> {
        match self.all.namespace().is_empty() {
            true => Ok(Cow::Borrowed(request)),
            false => self.named(request.clone()).map(Cow::Owned),
        }
    }

    /// The same for one that is not needed any more.
    pub(crate) fn named(&self, mut request: Request) -> Result<Request, ResolverError> {
        let namespace = self.all.namespace();
        if namespace.is_empty() {
            return Ok(request);
        }
        let keys = match &mut request {
            Request::Get { keys, .. } => keys.iter_mut().collect(),
            Request::Size { key }
            | Request::Put { key, .. }
            | Request::Append { key, .. }
            | Request::Delete { key, .. }
            | Request::Touch { key, .. }
            | Request::Copy { key, .. } => vec![key],
        };
        for key in keys {
            if namespace.len() + key.len() > MAX_KEY_LENGTH {
                let why = format!(
                    "key of {} octets behind a namespace of {}: expected at most {MAX_KEY_LENGTH} together",
                    key.len(),
                    namespace.len()
                );
                return Err(ResolverError::Unwritable { key: key.clone(), why });
            }
            key.insert_str(0, namespace);
        }
        Ok(request)
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
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::update::Version;

    fn pool(options: &str) -> Pool {
        let servers = "--SERVER=one.example --SERVER=two.example --SERVER=three.example";
        Pool::new(&format!("{servers}{options}").parse().unwrap()).unwrap()
    }

    fn refused() -> Result<(), ResolverError> {
        let source = memcache::exp::Error::Io(std::io::ErrorKind::ConnectionRefused.into());
        Err(ResolverError::Memcached { server: "x".to_owned(), source })
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn both_records_of_a_user_have_one_place() {
        let (pool, now) = (pool(""), Instant::now());
        let mut used = BTreeSet::new();
        for n in 0..100 {
            let cn = Cn::new(&format!("user{n}")).unwrap();
            let place = pool.home(&cn.resolver_key(), now);
            assert_eq!(pool.home(&cn.lease_key(), now), place);
            assert_eq!(place, pool.all.index(cn.resolver_key().as_bytes()), "OpenChange's place");
            used.insert(place);
        }
        assert_eq!(used.len(), 3);
    }

    #[test]
    fn a_failed_server_is_left_alone_then_tried_by_one() {
        let (pool, start) = (pool(""), Instant::now());
        pool.admit(1, start).unwrap();
        let error = pool.note(1, start, start, refused()).unwrap_err();
        assert!(error.is_one_server() && !error.is_outage(), "{error}");
        let error = pool.admit(1, start + SECOND).unwrap_err();
        assert!(error.is_one_server() && error.to_string().contains("two.example"), "{error}");
        pool.admit(0, start + SECOND).unwrap();
        let later = start + 2 * SECOND;
        pool.admit(1, later).unwrap();
        assert!(pool.admit(1, later).is_err(), "one tries, the others wait for what it finds");
        pool.note(1, later, later, Ok(())).unwrap();
        pool.admit(1, later).unwrap();
        pool.admit(1, later).unwrap();
    }

    #[test]
    fn all_down_is_an_outage_and_a_hasty_caller_proves_nothing() {
        let (pool, now) = (pool(""), Instant::now());
        for index in 0..3 {
            let timed_out = Err::<(), _>(ResolverError::Deadline { server: String::new() });
            pool.note(index, now, now + PATIENCE / 2, timed_out).unwrap_err();
            pool.admit(index, now).unwrap();
        }
        for index in 0..2 {
            assert!(!pool.note(index, now, now, refused()).unwrap_err().is_outage());
        }
        assert!(pool.note(2, now, now, refused()).unwrap_err().is_outage());
        assert!(pool.admit(0, now).unwrap_err().is_outage());
    }

    #[test]
    #[cfg(feature = "tokio")]
    fn every_return_is_counted_whoever_finds_it_out() {
        for (options, wait) in [("", 2 * SECOND), (" --RETRY-TIMEOUT=0", Duration::ZERO)] {
            let (pool, start) = (pool(options), Instant::now());
            pool.note(1, start, start, Ok(())).unwrap();
            assert_eq!(pool.returns(1), 0, "it was never away");
            for returns in 1..3 {
                pool.note(1, start, start, refused()).unwrap_err();
                assert!(pool.down(1, start + wait).is_some(), "until it has answered");
                pool.admit(1, start + wait).unwrap();
                pool.note(1, start + wait, start + wait, Ok(())).unwrap();
                assert_eq!((pool.returns(1), pool.returns(0)), (returns, 0));
                pool.note(1, start + wait, start + wait, Ok(())).unwrap();
            }
            assert_eq!(pool.returns(1), 2);
        }
    }

    #[test]
    fn a_server_that_refuses_one_request_is_up() {
        let (pool, start) = (pool(""), Instant::now());
        let refuses = || {
            let source = memcache::exp::Error::Server("out of memory storing object".to_owned());
            Err::<(), _>(crate::store::failed(&"two.example", source))
        };
        let error = pool.note(1, start, start, refuses()).unwrap_err();
        assert!(error.is_refused() && !error.is_outage() && !error.is_one_server(), "{error}");
        pool.admit(1, start).unwrap();
        // It is an answer as good as any behind an outage.
        pool.note(1, start, start, refused()).unwrap_err();
        pool.admit(1, start + 2 * SECOND).unwrap();
        pool.note(1, start, start + 2 * SECOND, refuses()).unwrap_err();
        pool.admit(1, start + 2 * SECOND).unwrap();
    }

    #[test]
    fn the_only_server_is_asked_each_time() {
        let (pool, now) = (Pool::new(&Config::default()).unwrap(), Instant::now());
        assert!(pool.note(0, now, now, refused()).unwrap_err().is_outage());
        pool.admit(0, now).unwrap();
    }

    #[test]
    fn keys_of_a_removed_server_move_on_a_ring_and_come_back() {
        let pool = pool(" --DISTRIBUTION=CONSISTENT --REMOVE-FAILED-SERVERS=1");
        let start = Instant::now();
        let keys: Vec<String> = (0..300).map(|n| format!("resolver:user{n}")).collect();
        let places = |now| keys.iter().map(|key| pool.home(key, now)).collect::<Vec<_>>();
        let before = places(start);
        let mut now = start;
        for failure in 1..=Config::SERVER_FAILURE_LIMIT {
            assert_eq!(places(now), before, "in use until the {failure}th failure");
            pool.admit(1, now).unwrap();
            pool.note(1, now, now, refused()).unwrap_err();
            // Whoever was under way at the same time counts for nothing.
            pool.note(1, now, now, refused()).unwrap_err();
            now += 2 * SECOND;
        }
        now -= SECOND;
        let removed = places(now);
        assert!(!removed.contains(&1));
        let left = Selection::without_failed(&pool.config, |index| index != 1).unwrap();
        assert!(keys.iter().zip(&removed).all(|(key, place)| left.index(key.as_bytes()) == *place));
        assert_eq!(places(now + SECOND), before, "to be tried again");
    }

    /// A subscriber's: its heartbeat asks more often than a retry time is long, and nobody else gets through.
    #[test]
    #[cfg(feature = "tokio")]
    fn failed_probes_count_once_a_retry_time() {
        const BEAT: Duration = Duration::from_millis(500);
        let pool = pool(" --DISTRIBUTION=CONSISTENT --REMOVE-FAILED-SERVERS=1");
        let start = Instant::now();
        let key = (0..).map(|n| format!("resolver:user{n}")).find(|key| pool.home(key, start) == 1).unwrap();
        pool.note(1, start, start, refused()).unwrap_err();
        let mut now = start;
        while pool.home(&key, now) == 1 {
            assert!(now - start <= 8 * SECOND, "the fifth failure at the latest");
            assert!(!pool.is_unsettled(&key, now));
            now += BEAT;
            assert!(pool.admit(1, now).is_err());
            pool.put_off(1, now, now);
        }
        assert_eq!(now - start, 8 * SECOND, "four retry times behind the first");
        assert!(pool.is_unsettled(&key, now), "others count by themselves, and may be a little behind");
        for _ in 0..100 {
            now += BEAT;
            pool.put_off(1, now, now);
            assert_ne!(pool.home(&key, now), 1, "for good, while probes fail");
        }
        assert!(!pool.is_unsettled(&key, now));
        pool.note(1, now, now, Ok(())).unwrap();
        assert_eq!((pool.home(&key, now), pool.is_unsettled(&key, now)), (1, true), "back, perhaps empty");
        assert!(!pool.is_unsettled(&key, now + SETTLING));
        let other =
            (0..).map(|n| format!("resolver:user{n}")).find(|key| pool.home(key, start) != 1).unwrap();
        assert!(!pool.is_unsettled(&other, now));
    }

    #[test]
    fn a_write_is_bound_to_the_server_of_what_it_read() {
        let pool = pool(" --DISTRIBUTION=CONSISTENT --REMOVE-FAILED-SERVERS=1");
        let start = Instant::now();
        let key = (0..).map(|n| format!("resolver:user{n}")).find(|key| pool.home(key, start) == 1).unwrap();
        let delete = |server| Request::Delete {
            key: key.clone(),
            version: Some(Version { cas: 1, server, dialled: 1 }),
        };
        let put = |expect| Request::Put { key: key.clone(), value: Vec::new(), expiry: None, expect };
        let (bound, free) =
            (put(Expect::Version(Version { cas: 1, server: 1, dialled: 1 })), put(Expect::Absent));
        assert_eq!(pool.place(&bound, start), Some(1));
        let mut now = start;
        for _ in 0..Config::SERVER_FAILURE_LIMIT {
            pool.admit(1, now).unwrap();
            pool.note(1, now, now, refused()).unwrap_err();
            now += 2 * SECOND;
        }
        now -= SECOND;
        let other = pool.place(&free, now).unwrap();
        assert_ne!(other, 1);
        assert_eq!((pool.place(&bound, now), pool.place(&delete(1), now)), (None, None), "to be read again");
        assert_eq!(pool.place(&delete(other), now), Some(other));
        assert_eq!(pool.place(&delete(other), now + SECOND), None, "it moves back");
    }

    #[test]
    fn any_copy_is_read_as_the_random_number_says() {
        let order = |options: &str, random| {
            let pool = pool(&format!(" --BINARY-PROTOCOL --NUMBER-OF-REPLICAS=2{options}"));
            let mut reading = pool.reading(1, random);
            std::iter::from_fn(|| {
                let server = reading.next()?;
                reading.note(refused().map(|()| unreachable!()));
                Some(server)
            })
            .collect::<Vec<_>>()
        };
        assert_eq!(order("", 1), [1, 2, 0]);
        let randomize = " --RANDOMIZE-REPLICA-READ";
        assert_eq!((order(randomize, 0), order(randomize, 4)), (vec![1, 2, 0], vec![2, 0, 1]));
        let get = |any_copy| Request::Get { keys: vec!["resolver:bob".to_owned()], any_copy };
        let copied = pool(" --BINARY-PROTOCOL --NUMBER-OF-REPLICAS=2");
        assert!(copied.reads_copies(&get(true)) && !copied.reads_copies(&get(false)));
        assert!(!pool(" --NUMBER-OF-REPLICAS=2").reads_copies(&get(true)));
    }

    #[test]
    fn a_namespace_stands_in_front_and_counts_for_the_length() {
        let pool = pool(" --NAMESPACE=\"site1.\"");
        let get = |key: &str| Request::Get { keys: vec![key.to_owned()], any_copy: false };
        assert_eq!(*pool.on_the_wire(&get("resolver:bob")).unwrap(), get("site1.resolver:bob"));
        assert!(pool.on_the_wire(&get(&"k".repeat(244))).is_ok());
        let error = pool.on_the_wire(&get(&"k".repeat(245))).unwrap_err();
        assert!(!error.is_outage(), "{error}");
    }

    #[test]
    fn copies_are_on_the_servers_behind_in_the_binary_protocol_only() {
        assert_eq!(pool(" --NUMBER-OF-REPLICAS=1").copies(0).count(), 0);
        let pool = pool(" --BINARY-PROTOCOL --NUMBER-OF-REPLICAS=5");
        assert_eq!(pool.copies(2).collect::<Vec<_>>(), [0, 1]);
    }
}
