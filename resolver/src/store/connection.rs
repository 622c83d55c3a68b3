//! One connection to a memcached, by TCP or a unix socket, and the time limits of its steps.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use memcache::exp::{Error, MetaCommand, MetaCommandResult, MetaResponse, ReturnCode, parse_meta_result};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use crate::config::{Server, Timeouts};

/// The longest first line of an answer.
const MAX_LINE: usize = 2048;

/// The largest value: memcached's own default limit.
const MAX_VALUE: usize = 1024 * 1024;

/// A caller's deadline, and the configuration's limits of single steps, which shorten it and never extend it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) deadline: Instant,
    pub(super) timeouts: Timeouts,
}

impl Limits {
    fn connect(&self) -> Result<Duration, Error> {
        self.step([self.timeouts.connect(), None])
    }

    fn write(&self) -> Result<Option<Duration>, Error> {
        self.step([self.timeouts.send(), self.timeouts.poll()]).map(Some)
    }

    fn read(&self) -> Result<Option<Duration>, Error> {
        self.step([self.timeouts.receive(), self.timeouts.poll()]).map(Some)
    }

    /// What is left until the deadline, or less; nothing is a time-out.
    fn step(&self, limits: [Option<Duration>; 2]) -> Result<Duration, Error> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let least = limits.into_iter().flatten().fold(left, Duration::min);
        match least.is_zero() {
            true => Err(Error::Io(io::ErrorKind::TimedOut.into())),
            false => Ok(least),
        }
    }
}

/// memcached's commands and answers are the crate's; the octets are read here, where a claimed length is checked
/// before memory is taken for it.
#[derive(Debug)]
pub(super) struct Connection {
    reader: BufReader<Stream>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_read_timeout(limit),
            Stream::Unix(stream) => stream.set_read_timeout(limit),
        }
    }

    fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_write_timeout(limit),
            Stream::Unix(stream) => stream.set_write_timeout(limit),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(octets),
            Stream::Unix(stream) => stream.read(octets),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(octets),
            Stream::Unix(stream) => stream.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tcp(addresses: &[SocketAddr], keepalive: bool, limits: Limits) -> Result<Stream, Error> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in addresses {
        match TcpStream::connect_timeout(address, limits.connect()?) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                if keepalive {
                    sockopt::set_socket_keepalive(&stream, true).map_err(io::Error::from)?;
                }
                return Ok(Stream::Tcp(stream));
            }
            Err(error) => last = error,
        }
    }
    Err(Error::Io(last))
}

/// Connects at once or fails: where a hung memcached's queue of connections is full, std would wait for ever.
fn unix(path: &str) -> io::Result<UnixStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

impl Connection {
    /// Dials a server's first address that answers.
    pub(super) fn dial(
        server: &Server,
        addresses: &[SocketAddr],
        keepalive: bool,
        limits: Limits,
    ) -> Result<Connection, Error> {
        let stream = match server {
            Server::Tcp { .. } => tcp(addresses, keepalive, limits)?,
            Server::Socket { path, .. } => Stream::Unix(unix(path)?),
        };
        Ok(Connection { reader: BufReader::new(stream) })
    }

    /// Writes all commands at once, and reads an answer to each.
    pub(super) fn exchange(
        &mut self,
        commands: &[MetaCommand],
        limits: Limits,
    ) -> Result<Vec<MetaCommandResult>, Error> {
        let mut octets = Vec::new();
        for command in commands {
            command.encode_into(&mut octets)?;
        }
        self.reader.get_ref().set_write_timeout(limits.write()?)?;
        self.reader.get_mut().write_all(&octets)?;
        commands.iter().map(|_| self.answer(limits)).collect()
    }

    fn answer(&mut self, limits: Limits) -> Result<MetaCommandResult, Error> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() > MAX_LINE {
                return Err(Error::Protocol(format!(
                    "an answer of more than {MAX_LINE} octets without an end"
                )));
            }
            line.extend_from_slice(&self.read(1, limits)?);
        }
        let line = line.trim_ascii_end();
        let response = MetaResponse::parse_header(line)?;
        let value = match response.rc() {
            ReturnCode::Va => Some(self.value(line, limits)?),
            _ => None,
        };
        let mut result = parse_meta_result(response)?;
        result.value = value;
        Ok(result)
    }

    /// The value behind a `VA` line. Its length is only a claim: whoever answers on memcached's port may claim a
    /// gigabyte, and a mail process that cannot have that much memory would be aborted.
    fn value(&mut self, line: &[u8], limits: Limits) -> Result<Vec<u8>, Error> {
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
        let mut value = self.read(length + 2, limits)?;
        match value.ends_with(b"\r\n") {
            true => value.truncate(length),
            false => return Err(Error::Protocol("a value without its end".to_owned())),
        }
        Ok(value)
    }

    fn read(&mut self, count: usize, limits: Limits) -> Result<Vec<u8>, Error> {
        let mut octets = Vec::new();
        while octets.len() < count {
            if self.reader.buffer().is_empty() {
                self.reader.get_ref().set_read_timeout(limits.read()?)?;
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
