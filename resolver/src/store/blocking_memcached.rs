use std::time::Instant;

use super::blocking_server::BlockingServer;
use super::pool::Pool;
use super::random;
use crate::cn::Cn;
use crate::config::{Config, ConfigError};
use crate::error::ResolverError;
use crate::update::{Request, Response};

/// memcached for one caller that has a deadline for each call and no runtime: the Dovecot plugin.
///
/// One connection to each server is kept, from its first use on.
#[derive(Debug)]
pub(crate) struct BlockingMemcached {
    pool: Pool,
    /// In the order of the pool's.
    servers: Vec<BlockingServer>,
}

impl BlockingMemcached {
    pub(crate) fn new(config: &Config) -> Result<BlockingMemcached, ConfigError> {
        let pool = Pool::new(config)?;
        let servers = pool.servers().iter().enumerate();
        let servers = servers.map(|(place, server)| BlockingServer::new(place, server, config)).collect();
        Ok(BlockingMemcached { pool, servers })
    }

    /// Whether the server that has a user's records took them over a moment ago.
    pub(crate) fn is_unsettled(&self, cn: &Cn) -> bool {
        self.pool.is_unsettled(&cn.resolver_key(), Instant::now())
    }

    pub(crate) fn run(&mut self, request: &Request, deadline: Instant) -> Result<Response, ResolverError> {
        let Some(place) = self.pool.place(request, Instant::now()) else { return Ok(Response::NotDone) };
        if self.pool.reads_copies(request) {
            let mut reading = self.pool.reading(place, random());
            while let Some(server) = reading.next() {
                let until = reading.until(Instant::now(), deadline);
                reading.note(self.ask(server, request, until));
            }
            return reading.result();
        }
        let result = match request {
            Request::Copy { .. } => Ok(Response::Done),
            request => self.ask(place, request, deadline),
        };
        if matches!(result, Ok(Response::Done)) {
            self.copy(place, request, deadline);
        }
        result
    }

    /// Writes the copies, as well as it can be done: the record itself is what counts.
    fn copy(&mut self, place: usize, request: &Request, deadline: Instant) {
        for copy in self.pool.copies(place) {
            let Some(request) = Pool::copy_of(request) else { return };
            if let Err(error) = self.ask(copy, &request, deadline) {
                tracing::debug!(event = "copy_failed", reason = %error, "a copy was not written");
            }
        }
    }

    fn ask(&mut self, index: usize, request: &Request, deadline: Instant) -> Result<Response, ResolverError> {
        let request = self.pool.on_the_wire(request)?;
        let begun = Instant::now();
        if begun >= deadline {
            // Nobody was asked: this is the caller's time-out, and nothing to hold against the server.
            return Err(ResolverError::Deadline { server: self.pool.name(index) });
        }
        self.pool.admit(index, begun)?;
        let Some(server) = self.servers.get_mut(index) else {
            return Err(ResolverError::Config(ConfigError::NoServer));
        };
        let result = server.run(&request, deadline);
        self.pool.note(index, begun, Instant::now(), result)
    }
}
