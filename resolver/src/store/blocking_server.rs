use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use memcache::exp::{Error, MetaCommand, MetaCommandResult};

use super::commands::{commands, response};
use super::connection::{Connection, Limits};
use super::failed;
use crate::config::{Config, Server, Timeouts};
use crate::error::ResolverError;
use crate::names::addresses;
use crate::update::{Request, Response};

/// One memcached and the connection to it that is kept.
///
/// Not over `MetaClient`, whose time limits are fixed when it is made: here the look-up and what follows it share
/// what is left of one budget.
#[derive(Debug)]
pub(super) struct BlockingServer {
    server: Server,
    timeouts: Timeouts,
    keepalive: bool,
    /// Resolved at first use and kept: a name costs at most one answered look-up in a process.
    addresses: Vec<SocketAddr>,
    connection: Option<Connection>,
}

impl BlockingServer {
    pub(super) fn new(server: &Server, config: &Config) -> BlockingServer {
        BlockingServer {
            server: server.clone(),
            timeouts: config.timeouts,
            keepalive: config.tcp_keepalive,
            addresses: Vec::new(),
            connection: None,
        }
    }

    pub(super) fn run(&mut self, request: &Request, deadline: Instant) -> Result<Response, ResolverError> {
        let commands = commands(request).map_err(|source| failed(&self.server, source))?;
        let limits = Limits { deadline, timeouts: self.timeouts };
        let kept = self.connection.is_some();
        let mut answer = self.exchange(&commands, limits);
        // A kept connection may have been closed while it was idle. Every request may be repeated: writes are
        // bound to what was read before, so a second one that finds the first done is a lost race.
        if kept && matches!(&answer, Err(error) if !is_timeout(error)) {
            answer = self.exchange(&commands, limits);
        }
        let results = match answer {
            Ok(results) => results,
            Err(ExchangeError::Name(source)) => {
                return Err(ResolverError::Name { server: self.server.to_string(), source });
            }
            Err(ExchangeError::Memcached(source)) => return Err(failed(&self.server, source)),
        };
        response(request, results).map_err(|source| failed(&self.server, source))
    }

    fn exchange(
        &mut self,
        commands: &[MetaCommand],
        limits: Limits,
    ) -> Result<Vec<MetaCommandResult>, ExchangeError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.dial(limits)?,
        };
        let results = connection.exchange(commands, limits)?;
        // Kept only in step: behind an error the answers that are still to come would be taken for others'.
        self.connection = Some(connection);
        Ok(results)
    }

    fn dial(&mut self, limits: Limits) -> Result<Connection, ExchangeError> {
        if let (true, Server::Tcp { host, port, .. }) = (self.addresses.is_empty(), &self.server) {
            self.addresses = addresses(host, *port, Some(limits.deadline)).map_err(ExchangeError::Name)?;
        }
        Ok(Connection::dial(&self.server, &self.addresses, self.keepalive, limits)?)
    }
}

#[derive(Debug)]
enum ExchangeError {
    Name(io::Error),
    Memcached(Error),
}

impl From<Error> for ExchangeError {
    fn from(error: Error) -> ExchangeError {
        ExchangeError::Memcached(error)
    }
}

fn is_timeout(error: &ExchangeError) -> bool {
    matches!(error, ExchangeError::Memcached(error) if super::timed_out(error))
}
