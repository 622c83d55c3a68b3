use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use memcache::exp::{
    DeleteOptions, Error, GetOptions, MetaCommand, MetaCommandResult, MetaConnection, ReturnCode, SetMode,
    SetOptions, build_delete, build_get, build_set, parse_meta_result,
};

use super::{expiry_s, failed, first_server};
use crate::config::{Config, Server};
use crate::error::ResolverError;
use crate::names::addresses;
use crate::update::{Expect, Item, Request, Response};

/// memcached for one caller that has a deadline for each call and no runtime: the Dovecot plugin.
///
/// One connection is kept. Over `MetaConnection` rather than `MetaClient`, whose time limits are fixed when it
/// is made: here the look-up and what follows it share what is left of one budget.
#[derive(Debug)]
pub(crate) struct BlockingMemcached {
    server: Server,
    /// Resolved at first use and kept: a name costs at most one look-up in a process.
    addresses: Vec<SocketAddr>,
    connection: Option<Connection>,
}

struct Connection(MetaConnection);

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl BlockingMemcached {
    pub(crate) fn new(config: &Config) -> BlockingMemcached {
        BlockingMemcached { server: first_server(config), addresses: Vec::new(), connection: None }
    }

    pub(crate) fn run(&mut self, request: &Request, deadline: Instant) -> Result<Response, ResolverError> {
        let commands = commands(request).map_err(|source| failed(&self.server, source))?;
        let kept = self.connection.is_some();
        let mut answer = self.exchange(&commands, deadline);
        // A kept connection may have been closed while it was idle. Every request may be repeated: writes are
        // bound to what was read before, so a second one that finds the first done is a lost race.
        if kept && matches!(&answer, Err(error) if !is_timeout(error)) {
            answer = self.exchange(&commands, deadline);
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
        deadline: Instant,
    ) -> Result<Vec<MetaCommandResult>, ExchangeError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection(self.dial(deadline)?),
        };
        connection.0.set_io_timeout(Some(left(deadline)?));
        let responses = connection.0.execute_batch(commands)?;
        let results = responses.into_iter().map(parse_meta_result).collect::<Result<Vec<_>, _>>()?;
        // Kept only in step: behind an error the answers that are still to come would be taken for others'.
        self.connection = Some(connection);
        Ok(results)
    }

    fn dial(&mut self, deadline: Instant) -> Result<MetaConnection, ExchangeError> {
        if self.addresses.is_empty() {
            let (host, port) = self.server.name_and_port();
            self.addresses = addresses(host, port, true).map_err(ExchangeError::Name)?;
        }
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in &self.addresses {
            match TcpStream::connect_timeout(address, left(deadline)?) {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(Error::Io)?;
                    return Ok(MetaConnection::from_stream(stream));
                }
                Err(error) => last = error,
            }
        }
        Err(Error::Io(last).into())
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

/// What is left until the deadline; nothing is a time-out.
fn left(deadline: Instant) -> Result<Duration, Error> {
    let left = deadline.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(Error::Io(io::ErrorKind::TimedOut.into())),
        false => Ok(left),
    }
}

fn commands(request: &Request) -> Result<Vec<MetaCommand>, Error> {
    match request {
        Request::Get { keys } => {
            let mut options = GetOptions::default();
            options.return_cas = true;
            keys.iter().map(|key| build_get(key, &options)).collect()
        }
        Request::Put { key, value, expiry, expect } => {
            let mut options = SetOptions::default();
            options.ttl = Some(expiry_s(*expiry));
            match expect {
                Expect::Any => {}
                Expect::Absent => options.mode = SetMode::Add,
                Expect::Cas(cas) => options.compare_cas = Some(*cas),
            }
            Ok(vec![build_set(key, value.as_slice(), &options)?])
        }
        Request::Delete { key, cas } => {
            let mut options = DeleteOptions::default();
            options.compare_cas = Some(*cas);
            Ok(vec![build_delete(key, &options)?])
        }
        Request::Touch { key, expiry } => {
            let mut options = GetOptions::default();
            options.value = false;
            options.touch = Some(expiry_s(Some(*expiry)));
            Ok(vec![build_get(key, &options)?])
        }
    }
}

fn response(request: &Request, results: Vec<MetaCommandResult>) -> Result<Response, Error> {
    if let Request::Get { .. } = request {
        return results.into_iter().map(item).collect::<Result<_, _>>().map(Response::Items);
    }
    match results.first().map(|result| result.rc) {
        Some(ReturnCode::Hd) => Ok(Response::Done),
        Some(ReturnCode::Ns | ReturnCode::Ex | ReturnCode::Nf | ReturnCode::En) => Ok(Response::NotDone),
        other => Err(Error::Protocol(format!("unexpected answer {other:?}"))),
    }
}

fn item(result: MetaCommandResult) -> Result<Option<Item>, Error> {
    match (result.rc, result.value, result.cas) {
        (ReturnCode::En, _, _) => Ok(None),
        (ReturnCode::Va, Some(value), Some(cas)) => Ok(Some(Item { value, cas })),
        (rc, ..) => Err(Error::Protocol(format!("unexpected answer {rc:?} to a look-up"))),
    }
}
