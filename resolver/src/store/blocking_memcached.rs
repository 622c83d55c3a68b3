use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use memcache::exp::{
    DeleteOptions, Error, GetOptions, MetaCommand, MetaCommandResult, MetaResponse, ReturnCode, SetMode,
    SetOptions, build_delete, build_get, build_set, parse_meta_result,
};

use super::{expiry_s, failed, first_server};
use crate::config::{Config, Server};
use crate::error::ResolverError;
use crate::names::addresses;
use crate::update::{Expect, Item, Request, Response};

/// memcached for one caller that has a deadline for each call and no runtime: the Dovecot plugin.
///
/// One connection is kept. Not over `MetaClient`, whose time limits are fixed when it is made: here the look-up and
/// what follows it share what is left of one budget.
#[derive(Debug)]
pub(crate) struct BlockingMemcached {
    server: Server,
    /// Resolved at first use and kept: a name costs at most one answered look-up in a process.
    addresses: Vec<SocketAddr>,
    connection: Option<Connection>,
}

/// memcached's commands and answers are the crate's; the octets are read here, where a claimed length is checked
/// before memory is taken for it.
#[derive(Debug)]
struct Connection {
    reader: BufReader<TcpStream>,
}

/// The longest first line of an answer.
const MAX_LINE: usize = 2048;

/// The largest value: memcached's own default limit.
const MAX_VALUE: usize = 1024 * 1024;

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
            None => self.dial(deadline)?,
        };
        let results = connection.exchange(commands, deadline)?;
        // Kept only in step: behind an error the answers that are still to come would be taken for others'.
        self.connection = Some(connection);
        Ok(results)
    }

    fn dial(&mut self, deadline: Instant) -> Result<Connection, ExchangeError> {
        if self.addresses.is_empty() {
            let (host, port) = self.server.name_and_port();
            self.addresses = addresses(host, port, Some(deadline)).map_err(ExchangeError::Name)?;
        }
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in &self.addresses {
            match TcpStream::connect_timeout(address, left(deadline)?) {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(Error::Io)?;
                    return Ok(Connection { reader: BufReader::new(stream) });
                }
                Err(error) => last = error,
            }
        }
        Err(Error::Io(last).into())
    }
}

impl Connection {
    /// Writes all commands at once, and reads an answer to each.
    fn exchange(
        &mut self,
        commands: &[MetaCommand],
        deadline: Instant,
    ) -> Result<Vec<MetaCommandResult>, Error> {
        let mut octets = Vec::new();
        for command in commands {
            command.encode_into(&mut octets)?;
        }
        self.reader.get_ref().set_write_timeout(Some(left(deadline)?))?;
        self.reader.get_mut().write_all(&octets)?;
        commands.iter().map(|_| self.answer(deadline)).collect()
    }

    fn answer(&mut self, deadline: Instant) -> Result<MetaCommandResult, Error> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() > MAX_LINE {
                return Err(Error::Protocol(format!(
                    "an answer of more than {MAX_LINE} octets without an end"
                )));
            }
            line.extend_from_slice(&self.read(1, deadline)?);
        }
        let line = line.trim_ascii_end();
        let response = MetaResponse::parse_header(line)?;
        let value = match response.rc() {
            ReturnCode::Va => Some(self.value(line, deadline)?),
            _ => None,
        };
        let mut result = parse_meta_result(response)?;
        result.value = value;
        Ok(result)
    }

    /// The value behind a `VA` line. Its length is only a claim: whoever answers on memcached's port may claim a
    /// gigabyte, and a mail process that cannot have that much memory would be aborted.
    fn value(&mut self, line: &[u8], deadline: Instant) -> Result<Vec<u8>, Error> {
        let length =
            line.split(|&octet| octet == b' ').nth(1).and_then(|word| std::str::from_utf8(word).ok());
        let length: usize = length
            .and_then(|word| word.parse().ok())
            .filter(|&length| length <= MAX_VALUE)
            .ok_or_else(|| {
            Error::Protocol(format!(
                "a value of {}: expected at most {MAX_VALUE} octets",
                length.unwrap_or("no length")
            ))
        })?;
        let mut value = self.read(length + 2, deadline)?;
        match value.ends_with(b"\r\n") {
            true => value.truncate(length),
            false => return Err(Error::Protocol("a value without its end".to_owned())),
        }
        Ok(value)
    }

    fn read(&mut self, count: usize, deadline: Instant) -> Result<Vec<u8>, Error> {
        let mut octets = Vec::new();
        while octets.len() < count {
            if self.reader.buffer().is_empty() {
                self.reader.get_ref().set_read_timeout(Some(left(deadline)?))?;
            }
            let ready = self.reader.fill_buf()?;
            if ready.is_empty() {
                return Err(Error::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            let part = ready.get(..count - octets.len()).unwrap_or(ready);
            octets.extend_from_slice(part);
            let taken = part.len();
            self.reader.consume(taken);
        }
        Ok(octets)
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
