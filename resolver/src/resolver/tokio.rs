use std::sync::Arc;
use std::time::{Duration, Instant};

use ocbus_wire::native::{Lease, LeaseRecord};
use ocbus_wire::openchange::DosCharset;
use uuid::Uuid;

use super::{both, listeners, now_ms};
use crate::canary::{Canary, Sighting};
use crate::census::Census;
use crate::cn::Cn;
use crate::config::Config;
use crate::edit::{Edit, EditLegacy, Leave, Register, Registered, Registration, SettleNative, Settlement};
use crate::error::ResolverError;
use crate::listeners::Listeners;
use crate::selection::Distribution;
use crate::store::{AsyncMemcached, MemoryStore, Timed, answered, random};
use crate::update::{Expect, Request, Response, Step, Update};
use crate::update_many::UpdateMany;

/// Users of one call on the store; its time limit is for so many.
const MOST_AT_ONCE: usize = 256;

/// How long a canary lives without a heartbeat.
const CANARY: Duration = Duration::from_secs(600);

/// Who listens, for tasks on tokio. Clones share the connections.
#[derive(Clone)]
pub struct Resolver {
    home: Home,
    charset: DosCharset,
}

#[derive(Clone)]
enum Home {
    Memcached(AsyncMemcached, Arc<Config>),
    Memory(MemoryStore),
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let home = match &self.home {
            Home::Memcached(..) => "memcached",
            Home::Memory(_) => "memory",
        };
        f.debug_struct("Resolver").field("home", &home).finish_non_exhaustive()
    }
}

impl Resolver {
    /// The longest lease: memcached reads an expiry above 30 days as a point in time, and a day is more than a
    /// dead endpoint should cost.
    pub const MAX_LEASE: Duration = Duration::from_secs(86_400);

    /// A resolver in memcached. `timeout` is the time limit of each request. A memcached that has no address or does
    /// not answer is no error here: it is looked up and connected to when it is asked.
    ///
    /// # Errors
    /// When the configuration names no server, or one in a way that cannot be.
    pub async fn new(
        config: &Config,
        charset: DosCharset,
        timeout: Duration,
    ) -> Result<Resolver, ResolverError> {
        let memcached = AsyncMemcached::new(config, timeout).await?;
        Ok(Resolver { home: Home::Memcached(memcached, Arc::new(config.clone())), charset })
    }

    /// A resolver in this process's memory.
    pub fn in_memory(store: MemoryStore) -> Resolver {
        Resolver { home: Home::Memory(store), charset: DosCharset::default() }
    }

    /// Who listens for `cn`, from both records in one round trip.
    pub async fn lookup(&self, cn: &Cn) -> Result<Listeners, ResolverError> {
        let response = self.run(both(cn), self.deadline()).await?;
        Ok(self.listeners(cn, response))
    }

    /// Who listens for each of several users, in their order, in as few round trips as can be.
    /// Users of a server that fails get its error, the others their listeners.
    pub async fn lookup_many(&self, cns: &[Cn]) -> Vec<Result<Listeners, ResolverError>> {
        let mut found = Vec::with_capacity(cns.len());
        for some in cns.chunks(MOST_AT_ONCE) {
            let answers = self.run_many(some.iter().map(both).collect(), self.deadline()).await;
            let listeners = |(cn, answer): (&Cn, Result<Response, _>)| {
                answer.map(|response| self.listeners(cn, response))
            };
            found.extend(some.iter().zip(answers).map(listeners));
        }
        found
    }

    fn listeners(&self, cn: &Cn, response: Response) -> Listeners {
        let mut listeners = listeners(cn, response, self.charset);
        if let (true, Home::Memcached(memcached, _)) = (listeners.is_empty(), &self.home) {
            listeners.unsettled = memcached.is_unsettled(cn);
        }
        listeners
    }

    /// Users parted so that each part is one round trip of [`Resolver::lookup_many`], to one server. Whoever looks
    /// the parts up at the same time is not held back by a server that hangs, but for its own users.
    pub fn round_trips(&self, cns: Vec<Cn>) -> Vec<Vec<Cn>> {
        let servers = match &self.home {
            Home::Memcached(memcached, _) => memcached.by_server(cns),
            Home::Memory(_) => vec![cns],
        };
        servers.iter().flat_map(|users| users.chunks(MOST_AT_ONCE)).map(<[Cn]>::to_vec).collect()
    }

    /// Everybody who is registered in memcached; `limit` is for each step. `None`: the records are in memory.
    pub fn census(&self, limit: Duration) -> Option<Census> {
        match &self.home {
            Home::Memcached(_, config) => Some(Census::new(config, limit)),
            Home::Memory(_) => None,
        }
    }

    /// Everybody who is registered in this process's memory; nobody, if the records are in memcached.
    pub fn registered_in_memory(&self) -> Vec<Cn> {
        match &self.home {
            Home::Memcached(..) => Vec::new(),
            Home::Memory(store) => store.registered(),
        }
    }

    /// Registers a native endpoint, or renews it.
    pub async fn register(
        &self,
        cn: &Cn,
        registration: Registration<'_>,
    ) -> Result<Registered, ResolverError> {
        self.hold(cn.lease_key(), registration).await
    }

    /// Puts a lease into the record under `key`, or renews it there.
    async fn hold(&self, key: String, registration: Registration<'_>) -> Result<Registered, ResolverError> {
        self.update(register(key, registration)?).await
    }

    /// Registers or renews native endpoints of several users, in their order, in as few round trips as can be.
    pub async fn register_many(
        &self,
        users: &[(&Cn, Registration<'_>)],
    ) -> Vec<Result<Registered, ResolverError>> {
        self.update_many(users, |&(cn, registration)| register(cn.lease_key(), registration)).await
    }

    /// Registers endpoints in OpenChange's records of several users. Says of each, in their order, whether it was
    /// absent.
    pub async fn register_legacy_many(&self, users: &[(&Cn, &str)]) -> Vec<Result<bool, ResolverError>> {
        let charset = self.charset;
        self.update_many(users, |&(cn, endpoint)| {
            Ok(EditLegacy { cn, add: Some(endpoint), remove: &[], charset })
        })
        .await
    }

    /// Takes a native endpoint out again, if it is still this subscriber's. Says whether it stood there.
    pub async fn leave(&self, cn: &Cn, endpoint: &str, subscriber: Uuid) -> Result<bool, ResolverError> {
        self.update(Leave { key: cn.lease_key(), endpoint, subscriber, now_ms: now_ms() }).await
    }

    /// Makes a daemon a live member of a group for as long as `registration.lease`, or renews that. Its name is
    /// the `endpoint` of the registration: whoever joins under the same name takes the former one's place.
    ///
    /// Members stand in a record of leases under `ocbus-daemons:<group>`, which is no user's key.
    pub async fn join(
        &self,
        group: &Cn,
        registration: Registration<'_>,
    ) -> Result<Registered, ResolverError> {
        self.hold(members_key(group), registration).await
    }

    /// Takes a member out again, if it is still this process. Says whether it stood there.
    pub async fn resign(&self, group: &Cn, name: &str, id: Uuid) -> Result<bool, ResolverError> {
        let leave = Leave { key: members_key(group), endpoint: name, subscriber: id, now_ms: now_ms() };
        self.update(leave).await
    }

    /// The live members of a group, in no order: those whose lease holds by this machine's clock.
    pub async fn members(&self, group: &Cn) -> Result<Vec<Lease>, ResolverError> {
        let key = members_key(group);
        // Not from a copy, which may be older: who has resigned would live on in it.
        let request = Request::Get { keys: vec![key.clone()], any_copy: false };
        let Response::Items(items) = self.run(request, self.deadline()).await? else {
            return Ok(Vec::new());
        };
        let value = items.into_iter().flatten().next().map(|item| item.value).unwrap_or_default();
        let now_ms = now_ms();
        match LeaseRecord::decode(&value) {
            Ok(record) => Ok(record.leases.into_iter().filter(|lease| lease.until_ms > now_ms).collect()),
            Err(source) => Err(ResolverError::Record { key, source }),
        }
    }

    /// The octets that a group's name may have: with one more memcached has no key for it, and every call on that group
    /// fails.
    pub fn longest_group(&self) -> usize {
        match &self.home {
            Home::Memcached(memcached, _) => memcached.longest_key().saturating_sub(MEMBERS.len()),
            Home::Memory(_) => Cn::MAX_OCTETS,
        }
    }

    /// Registers an endpoint in OpenChange's record. Says whether it was absent.
    pub async fn register_legacy(&self, cn: &Cn, endpoint: &str) -> Result<bool, ResolverError> {
        let charset = self.charset;
        self.update(EditLegacy { cn, add: Some(endpoint), remove: &[], charset }).await
    }

    /// Takes an endpoint out of OpenChange's record. Says whether it stood there.
    pub async fn leave_legacy(&self, cn: &Cn, endpoint: &str) -> Result<bool, ResolverError> {
        let (remove, charset) = ([endpoint.to_owned()], self.charset);
        self.update(EditLegacy { cn, add: None, remove: &remove, charset }).await
    }

    /// Removes the endpoints that are gone and marks those that missed events.
    pub async fn settle(&self, cn: &Cn, settlement: &Settlement) -> Result<(), ResolverError> {
        if !settlement.gone.is_empty() || !settlement.missed.is_empty() {
            self.update(SettleNative { cn, settlement, now_ms: now_ms() }).await?;
        }
        if !settlement.gone_legacy.is_empty() {
            let (remove, charset) = (&settlement.gone_legacy, self.charset);
            self.update(EditLegacy { cn, add: None, remove, charset }).await?;
        }
        Ok(())
    }

    /// Whether the store still knows this subscriber's canary. `false`: it has forgotten, whether by a restart, a
    /// flush or an eviction, and so perhaps all that the subscriber registered.
    ///
    /// There is one canary on every server. A server that is out of reach has forgotten nothing yet: it is asked
    /// behind the caller's back. When it answers again, that or any other request, it counts as forgetful until the
    /// next [`Resolver::plant`], so that what publishers missed there is made good. An error when all are out of
    /// reach.
    pub async fn remembers(&self, canary: &mut Canary) -> Result<bool, ResolverError> {
        // Before they are asked: one that comes back meanwhile is seen next time.
        canary.saw(match &self.home {
            Home::Memcached(memcached, _) => memcached.returns(),
            Home::Memory(_) => Vec::new(),
        });
        let touch = Request::Touch { key: canary.key(), expiry: CANARY };
        let answers = answered(self.run_everywhere(touch).await);
        let some = answers.as_deref().unwrap_or_default().iter();
        canary.looked(some.map(|(server, (answer, took))| (*server, *answer == Response::Done, *took)));
        answers.map(|_| canary.sightings().iter().all(Sighting::is_well))
    }

    /// How a server is called in the log: host:port, or a socket's path.
    pub fn server_name(&self, server: usize) -> String {
        match &self.home {
            Home::Memcached(memcached, _) => memcached.server_name(server),
            Home::Memory(_) => "memory".to_owned(),
        }
    }

    /// Those of several users whose records one of these servers has, by the index of a
    /// [`Sighting`]. All of them where that does not follow from the name alone: with
    /// `--DISTRIBUTION=RANDOM`, and with `--REMOVE-FAILED-SERVERS`, where the others' users may move as well when a
    /// server fails or comes back.
    pub fn users_on(&self, servers: &[usize], cns: Vec<Cn>) -> Vec<Cn> {
        match &self.home {
            Home::Memcached(memcached, config)
                if !config.remove_failed_servers && config.distribution != Distribution::Random =>
            {
                let parts = memcached.by_server(cns).into_iter().enumerate();
                parts.filter(|(server, _)| servers.contains(server)).flat_map(|(_, users)| users).collect()
            }
            _ => cns,
        }
    }

    /// Plants the canary for [`Resolver::remembers`]: when all is registered, not before.
    ///
    /// # Errors
    /// When no server is in reach. A [refusal](ResolverError::is_refused) is of a server that has no room for it: the
    /// others have theirs, and [`Resolver::remembers`] goes by these until it is planted there as well.
    pub async fn plant(&self, canary: &mut Canary) -> Result<(), ResolverError> {
        let value = b"1".to_vec();
        let plant = Request::Put { key: canary.key(), value, expiry: Some(CANARY), expect: Expect::Any };
        let results = self.run_everywhere(plant).await;
        let mut refusal = None;
        for (server, result) in &results {
            match result {
                Ok(_) => canary.planted(*server, true),
                Err(error) if error.is_refused() => {
                    canary.planted(*server, false);
                    refusal = Some(error.again());
                }
                Err(_) => {}
            }
        }
        let planted = match refusal {
            Some(refusal) => Err(refusal),
            None => answered(results).map(|_| ()),
        };
        if planted.as_ref().map_or_else(ResolverError::is_refused, |()| true) {
            canary.all_planted();
        }
        planted
    }

    /// Lets the canary go, at the end.
    pub async fn uproot(&self, canary: &Canary) -> Result<(), ResolverError> {
        let uproot = Request::Delete { key: canary.key(), version: None };
        answered(self.run_everywhere(uproot).await).map(|_| ())
    }

    /// On every server that is up: what came of it and how long it took, by the server's index.
    async fn run_everywhere(&self, request: Request) -> Vec<(usize, Result<Timed, ResolverError>)> {
        match &self.home {
            Home::Memcached(memcached, _) => memcached.run_everywhere(&request).await,
            Home::Memory(memory) => {
                vec![(0, Ok((memory.run(request, Instant::now()), Duration::ZERO)))]
            }
        }
    }

    /// For strings in OpenChange's records.
    pub(crate) fn charset(&self) -> DosCharset {
        self.charset
    }

    /// The octets of a value, 0 if there is none.
    pub(crate) async fn size(&self, key: String) -> Result<usize, ResolverError> {
        match self.run(Request::Size { key }, self.deadline()).await? {
            Response::Size(Some((octets, _))) => Ok(octets),
            _ => Ok(0),
        }
    }

    pub(crate) async fn update<E: Edit>(&self, edit: E) -> Result<E::Outcome, ResolverError> {
        let mut update = Update::new(edit);
        let mut request = update.begin();
        // One time limit for the whole call: each request of an endless race would have its own.
        let deadline = self.deadline();
        loop {
            let step = self.run(request, deadline).await.and_then(|response| update.step(response));
            match step {
                Ok(Step::Ask(next)) => request = next,
                Ok(Step::Over(outcome)) => return Ok(outcome),
                Err(error) => return update.failed(error),
            }
            rest(update.pause(random())).await;
        }
    }

    /// The same for several records: each step of all of them is one call on the store, and whoever lost a race is
    /// in the next one.
    async fn update_many<U, E: Edit>(
        &self,
        users: &[U],
        edit: impl Fn(&U) -> Result<E, ResolverError>,
    ) -> Vec<Result<E::Outcome, ResolverError>> {
        let mut outcomes = Vec::with_capacity(users.len());
        for some in users.chunks(MOST_AT_ONCE) {
            let deadline = self.deadline();
            let mut updates = UpdateMany::new(some.iter().map(&edit));
            while let Some(requests) = updates.requests() {
                rest(updates.pause(random())).await;
                updates.step(self.run_many(requests, deadline).await);
            }
            outcomes.extend(updates.into_outcomes());
        }
        outcomes
    }

    fn deadline(&self) -> Instant {
        match &self.home {
            Home::Memcached(memcached, _) => memcached.deadline(),
            Home::Memory(_) => Instant::now(),
        }
    }

    /// How long a call may take at most.
    pub(crate) fn time_limit(&self) -> Duration {
        match &self.home {
            Home::Memcached(memcached, _) => memcached.time_limit(),
            // None; but who is to make it may be late.
            Home::Memory(_) => Duration::from_secs(1),
        }
    }

    async fn run(&self, request: Request, deadline: Instant) -> Result<Response, ResolverError> {
        match &self.home {
            Home::Memcached(memcached, _) => memcached.run(&request, deadline).await,
            Home::Memory(memory) => Ok(memory.run(request, Instant::now())),
        }
    }

    async fn run_many(
        &self,
        requests: Vec<Request>,
        deadline: Instant,
    ) -> Vec<Result<Response, ResolverError>> {
        match &self.home {
            Home::Memcached(memcached, _) => memcached.run_many(requests, deadline).await,
            Home::Memory(memory) => {
                let now = Instant::now();
                requests.into_iter().map(|request| Ok(memory.run(request, now))).collect()
            }
        }
    }
}

async fn rest(pause: Duration) {
    if !pause.is_zero() {
        ::tokio::time::sleep(pause).await;
    }
}

fn register(key: String, registration: Registration<'_>) -> Result<Register<'_>, ResolverError> {
    let lease = registration.lease;
    if lease < Duration::from_secs(1) || lease > Resolver::MAX_LEASE {
        return Err(ResolverError::Lease(lease));
    }
    Ok(Register { key, registration, now_ms: now_ms(), found: Registered::default() })
}

/// What stands in front of a group's name. Not below `ocbus:`, where a user may be called anything.
const MEMBERS: &str = "ocbus-daemons:";

fn members_key(group: &Cn) -> String {
    format!("{MEMBERS}{group}")
}
