//! The two resolvers: thin loops that carry requests to a store and answers back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ocbus_wire::openchange::DosCharset;
use uuid::Uuid;

use crate::cn::Cn;
use crate::config::Config;
use crate::edit::{Edit, EditLegacy, Leave, Register, Registered, Registration, SettleNative, Settlement};
use crate::error::ResolverError;
use crate::listeners::Listeners;
#[cfg(feature = "tokio")]
use crate::store::AsyncMemcached;
use crate::store::{BlockingMemcached, MemoryStore};
use crate::update::{Expect, Request, Response, Step, Update};

/// How long a canary lives without a heartbeat.
#[cfg(feature = "tokio")]
const CANARY: Duration = Duration::from_secs(600);

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Both records of a user, in one round trip.
fn both(cn: &Cn) -> Request {
    Request::Get { keys: vec![cn.lease_key(), cn.resolver_key()] }
}

fn listeners(cn: &Cn, response: Response, charset: DosCharset) -> Listeners {
    let Response::Items(items) = response else { return Listeners::default() };
    let mut items = items.into_iter();
    let mut value = || items.next().flatten().map(|item| item.value);
    let (leases, hosts) = (value(), value());
    Listeners::read(cn, leases.as_deref(), hosts.as_deref(), charset, now_ms())
}

/// Who listens, for a caller without a runtime: the Dovecot plugin.
#[derive(Debug)]
pub struct BlockingResolver {
    home: BlockingHome,
    charset: DosCharset,
}

#[derive(Debug)]
enum BlockingHome {
    Memcached(BlockingMemcached),
    Memory(MemoryStore),
}

impl BlockingResolver {
    /// A resolver in memcached. Connects when it is first asked.
    pub fn new(config: &Config, charset: DosCharset) -> BlockingResolver {
        BlockingResolver { home: BlockingHome::Memcached(BlockingMemcached::new(config)), charset }
    }

    /// A resolver in this process's memory.
    pub fn in_memory(store: MemoryStore) -> BlockingResolver {
        BlockingResolver { home: BlockingHome::Memory(store), charset: DosCharset::default() }
    }

    /// Who listens for `cn`, from both records in one round trip.
    pub fn lookup(&mut self, cn: &Cn, deadline: Instant) -> Result<Listeners, ResolverError> {
        let response = self.run(both(cn), deadline)?;
        Ok(listeners(cn, response, self.charset))
    }

    /// Removes the endpoints that are gone and marks those that missed events.
    pub fn settle(
        &mut self,
        cn: &Cn,
        settlement: &Settlement,
        deadline: Instant,
    ) -> Result<(), ResolverError> {
        if !settlement.gone.is_empty() || !settlement.missed.is_empty() {
            self.update(SettleNative { cn, settlement, now_ms: now_ms() }, deadline)?;
        }
        if !settlement.gone_legacy.is_empty() {
            let charset = self.charset;
            self.update(EditLegacy { cn, add: None, remove: &settlement.gone_legacy, charset }, deadline)?;
        }
        Ok(())
    }

    fn update<E: Edit>(&mut self, edit: E, deadline: Instant) -> Result<E::Outcome, ResolverError> {
        let mut update = Update::new(edit);
        let mut request = update.begin();
        loop {
            match update.step(self.run(request, deadline)?)? {
                Step::Ask(next) => request = next,
                Step::Over(outcome) => return Ok(outcome),
            }
        }
    }

    fn run(&mut self, request: Request, deadline: Instant) -> Result<Response, ResolverError> {
        match &mut self.home {
            BlockingHome::Memcached(memcached) => memcached.run(&request, deadline),
            BlockingHome::Memory(memory) => Ok(memory.run(request, Instant::now())),
        }
    }
}

/// Who listens, for tasks on tokio. Clones share the connections.
#[cfg(feature = "tokio")]
#[derive(Clone)]
pub struct Resolver {
    home: Home,
    charset: DosCharset,
}

#[cfg(feature = "tokio")]
#[derive(Clone)]
enum Home {
    Memcached(AsyncMemcached),
    Memory(MemoryStore),
}

#[cfg(feature = "tokio")]
impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let home = match &self.home {
            Home::Memcached(_) => "memcached",
            Home::Memory(_) => "memory",
        };
        f.debug_struct("Resolver").field("home", &home).finish_non_exhaustive()
    }
}

#[cfg(feature = "tokio")]
impl Resolver {
    /// The longest lease: memcached reads an expiry above 30 days as a point in time, and a day is more than a
    /// dead endpoint should cost.
    pub const MAX_LEASE: Duration = Duration::from_secs(86_400);

    /// A resolver in memcached. `timeout` is the time limit of each request.
    pub async fn new(
        config: &Config,
        charset: DosCharset,
        timeout: Duration,
    ) -> Result<Resolver, ResolverError> {
        Ok(Resolver { home: Home::Memcached(AsyncMemcached::new(config, timeout).await?), charset })
    }

    /// A resolver in this process's memory.
    pub fn in_memory(store: MemoryStore) -> Resolver {
        Resolver { home: Home::Memory(store), charset: DosCharset::default() }
    }

    /// Who listens for `cn`, from both records in one round trip.
    pub async fn lookup(&self, cn: &Cn) -> Result<Listeners, ResolverError> {
        let response = self.run(both(cn)).await?;
        Ok(listeners(cn, response, self.charset))
    }

    /// Registers a native endpoint, or renews it.
    pub async fn register(
        &self,
        cn: &Cn,
        registration: Registration<'_>,
    ) -> Result<Registered, ResolverError> {
        let lease = registration.lease;
        if lease < Duration::from_secs(1) || lease > Resolver::MAX_LEASE {
            return Err(ResolverError::Lease(lease));
        }
        self.update(Register { cn, registration, now_ms: now_ms() }).await
    }

    /// Takes a native endpoint out again, if it is still this subscriber's. Says whether it stood there.
    pub async fn leave(&self, cn: &Cn, endpoint: &str, subscriber: Uuid) -> Result<bool, ResolverError> {
        self.update(Leave { cn, endpoint, subscriber, now_ms: now_ms() }).await
    }

    /// Registers an endpoint in OpenChange's record. Says whether it was absent.
    pub async fn register_legacy(&self, cn: &Cn, endpoint: &str) -> Result<bool, ResolverError> {
        self.update(EditLegacy { cn, add: Some(endpoint), remove: &[], charset: self.charset }).await
    }

    /// Takes an endpoint out of OpenChange's record. Says whether it stood there.
    pub async fn leave_legacy(&self, cn: &Cn, endpoint: &str) -> Result<bool, ResolverError> {
        self.update(EditLegacy { cn, add: None, remove: &[endpoint.to_owned()], charset: self.charset }).await
    }

    /// Removes the endpoints that are gone and marks those that missed events.
    pub async fn settle(&self, cn: &Cn, settlement: &Settlement) -> Result<(), ResolverError> {
        if !settlement.gone.is_empty() || !settlement.missed.is_empty() {
            self.update(SettleNative { cn, settlement, now_ms: now_ms() }).await?;
        }
        if !settlement.gone_legacy.is_empty() {
            let edit = EditLegacy { cn, add: None, remove: &settlement.gone_legacy, charset: self.charset };
            self.update(edit).await?;
        }
        Ok(())
    }

    /// Whether the store still knows this subscriber's canary. `false`: it has forgotten, whether by a restart, a
    /// flush or an eviction, and so perhaps all that the subscriber registered.
    pub async fn remembers(&self, subscriber: Uuid) -> Result<bool, ResolverError> {
        let touch = Request::Touch { key: canary_key(subscriber), expiry: CANARY };
        Ok(self.run(touch).await? == Response::Done)
    }

    /// Plants the canary for [`Resolver::remembers`]: when all is registered, not before.
    pub async fn plant(&self, subscriber: Uuid) -> Result<(), ResolverError> {
        let key = canary_key(subscriber);
        self.run(Request::Put { key, value: b"1".to_vec(), expiry: Some(CANARY), expect: Expect::Any })
            .await?;
        Ok(())
    }

    async fn update<E: Edit>(&self, edit: E) -> Result<E::Outcome, ResolverError> {
        let mut update = Update::new(edit);
        let mut request = update.begin();
        loop {
            match update.step(self.run(request).await?)? {
                Step::Ask(next) => request = next,
                Step::Over(outcome) => return Ok(outcome),
            }
        }
    }

    async fn run(&self, request: Request) -> Result<Response, ResolverError> {
        match &self.home {
            Home::Memcached(memcached) => memcached.run(&request).await,
            Home::Memory(memory) => Ok(memory.run(request, Instant::now())),
        }
    }
}

/// Not below `ocbus:`, where a user may be called anything.
#[cfg(feature = "tokio")]
fn canary_key(subscriber: Uuid) -> String {
    format!("ocbus-canary:{subscriber}")
}
