use std::io;
use std::time::Instant;

use memcache::exp::Error;

use super::connection::{Connection, Limits};
use super::exchange::Exchange;
use super::failed;
use crate::config::{Config, Server, Timeouts};
use crate::error::ResolverError;
use crate::names::addresses;
use crate::names::known::Known;
use crate::update::{Request, Response};

/// One memcached and the connection to it that is kept. The look-up and what follows it share what is left of one
/// budget.
#[derive(Debug)]
pub(super) struct BlockingServer {
    server: Server,
    /// Its index among all.
    place: usize,
    timeouts: Timeouts,
    keepalive: bool,
    addresses: Known,
    connection: Option<Connection>,
    /// Connections so far. The one that is kept is the last.
    dialled: u64,
}

impl BlockingServer {
    pub(super) fn new(place: usize, server: &Server, config: &Config) -> BlockingServer {
        BlockingServer {
            server: server.clone(),
            place,
            timeouts: config.timeouts,
            keepalive: config.tcp_keepalive,
            addresses: Known::default(),
            connection: None,
            dialled: 0,
        }
    }

    pub(super) fn run(&mut self, request: &Request, deadline: Instant) -> Result<Response, ResolverError> {
        let limits = Limits { deadline, timeouts: self.timeouts };
        let kept = self.connection.is_some();
        let mut exchange = Exchange::new(std::slice::from_ref(request), self.place);
        let mut over = self.exchange(&mut exchange, limits);
        // A kept connection may have been closed while it was idle. Every request may be repeated: a write that is
        // bound to what was read over the former connection is a lost race, and the record is read again.
        if kept && matches!(&over, Err(error) if !is_timeout(error)) {
            over = self.exchange(&mut exchange, limits);
        }
        let memcached = |source| failed(&self.server, source);
        match over {
            Ok(()) => {
                let missing = || Err(Error::Protocol("an answer is missing".to_owned()));
                exchange.into_responses().pop().unwrap_or_else(missing).map_err(memcached)
            }
            Err(ExchangeError::Name(source)) => {
                Err(ResolverError::Name { server: self.server.to_string(), source })
            }
            Err(ExchangeError::Memcached(source)) => Err(memcached(source)),
        }
    }

    fn exchange(&mut self, exchange: &mut Exchange<'_>, limits: Limits) -> Result<(), ExchangeError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.dial(limits)?,
        };
        let octets = exchange.begin(self.dialled, self.dialled)?;
        connection.exchange(exchange, &octets, limits)?;
        // Kept only in step: behind an error the answers that are still to come would be taken for others'.
        self.connection = Some(connection).filter(Connection::is_in_step);
        Ok(())
    }

    fn dial(&mut self, limits: Limits) -> Result<Connection, ExchangeError> {
        if let (None, Server::Tcp { host, port, .. }) = (self.addresses.good(), &self.server) {
            let until = self.addresses.until(Instant::now(), limits.deadline);
            let found = addresses(host, *port, Some(until));
            self.addresses.looked_up(found).map_err(ExchangeError::Name)?;
        }
        let dialled = Connection::dial(&self.server, self.addresses.all(), self.keepalive, limits);
        let connection = dialled.inspect_err(|_| self.addresses.doubt())?;
        self.dialled += 1;
        Ok(connection)
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
