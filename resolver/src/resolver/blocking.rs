use std::time::Instant;

use ocbus_wire::openchange::DosCharset;

use super::{both, listeners, now_ms};
use crate::cn::Cn;
use crate::config::{Config, ConfigError};
use crate::edit::{Edit, EditLegacy, SettleNative, Settlement};
use crate::error::ResolverError;
use crate::listeners::Listeners;
use crate::store::{BlockingMemcached, MemoryStore, random};
use crate::update::{Request, Response, Step, Update};

/// Who listens, for a caller without a runtime: the Dovecot plugin.
#[derive(Debug)]
pub struct BlockingResolver {
    home: BlockingHome,
    charset: DosCharset,
}

#[derive(Debug)]
enum BlockingHome {
    Memcached(Box<BlockingMemcached>),
    Memory(MemoryStore),
    /// The configuration names no server.
    None(ConfigError),
}

impl BlockingResolver {
    /// A resolver in memcached. Connects when it is first asked.
    pub fn new(config: &Config, charset: DosCharset) -> BlockingResolver {
        let home = match BlockingMemcached::new(config) {
            Ok(memcached) => BlockingHome::Memcached(Box::new(memcached)),
            Err(error) => BlockingHome::None(error),
        };
        BlockingResolver { home, charset }
    }

    /// A resolver in this process's memory.
    pub fn in_memory(store: MemoryStore) -> BlockingResolver {
        BlockingResolver { home: BlockingHome::Memory(store), charset: DosCharset::default() }
    }

    /// Who listens for `cn`, from both records in one round trip.
    pub fn lookup(&mut self, cn: &Cn, deadline: Instant) -> Result<Listeners, ResolverError> {
        let response = self.run(both(cn), deadline)?;
        let mut listeners = listeners(cn, response, self.charset);
        if let (true, BlockingHome::Memcached(memcached)) = (listeners.is_empty(), &self.home) {
            listeners.unsettled = memcached.is_unsettled(cn);
        }
        Ok(listeners)
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
            let remove = &settlement.gone_legacy;
            self.update(EditLegacy { cn, add: None, remove, charset }, deadline)?;
        }
        Ok(())
    }

    /// For strings in OpenChange's records.
    pub(crate) fn charset(&self) -> DosCharset {
        self.charset
    }

    pub(crate) fn update<E: Edit>(
        &mut self,
        edit: E,
        deadline: Instant,
    ) -> Result<E::Outcome, ResolverError> {
        let mut update = Update::new(edit);
        let mut request = update.begin();
        loop {
            let step = self.run(request, deadline).and_then(|response| update.step(response));
            match step {
                Ok(Step::Ask(next)) => request = next,
                Ok(Step::Over(outcome)) => return Ok(outcome),
                Err(error) => return update.failed(error),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let pause = update.pause(random()).min(left);
            if !pause.is_zero() {
                std::thread::sleep(pause);
            }
        }
    }

    fn run(&mut self, request: Request, deadline: Instant) -> Result<Response, ResolverError> {
        match &mut self.home {
            BlockingHome::Memcached(memcached) => memcached.run(&request, deadline),
            BlockingHome::Memory(memory) => Ok(memory.run(request, Instant::now())),
            BlockingHome::None(error) => Err(error.clone().into()),
        }
    }
}
