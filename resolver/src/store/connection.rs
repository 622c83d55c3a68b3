//! One connection to a memcached, by TCP or a unix socket, and the time limits of its steps.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use memcache::exp::Error;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::buffer::Buffer;
use super::exchange::Exchange;
use crate::config::{Server, Timeouts};
use crate::share::shares;

/// What is handed to the system at once. Of more, each part could wait for as long as the socket's time limit: a unix
/// socket's begins anew with each buffer (32 KiB).
const WRITE_AT_ONCE: usize = 16 * 1024;

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

/// Within the limits of its caller. Not the crate's, which takes what a server claims for true: see [`answer`].
///
/// [`answer`]: super::answer
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    buffer: Buffer,
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
    for (address, until) in shares(addresses, limits.deadline) {
        // One that hangs leaves time for the next.
        let limit = Limits { deadline: until, ..limits }.connect()?;
        match TcpStream::connect_timeout(address, limit) {
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
        Ok(Connection { stream, buffer: Buffer::new() })
    }

    /// Writes all that an exchange has begun with, and reads until it is over.
    pub(super) fn exchange(
        &mut self,
        exchange: &mut Exchange<'_>,
        octets: &[u8],
        limits: Limits,
    ) -> Result<(), Error> {
        let mut unsent = octets;
        while !unsent.is_empty() {
            self.stream.set_write_timeout(limits.write()?)?;
            match self.stream.write(unsent.get(..WRITE_AT_ONCE).unwrap_or(unsent)) {
                Ok(0) => return Err(Error::Io(io::ErrorKind::WriteZero.into())),
                Ok(written) => unsent = unsent.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        while !exchange.is_over() {
            self.stream.set_read_timeout(limits.read()?)?;
            let read = self.stream.read(self.buffer.room())?;
            if read == 0 {
                return Err(Error::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            self.buffer.feed(read, exchange)?;
        }
        self.buffer.rest();
        Ok(())
    }

    /// Whether it is in step: nothing was said that nobody asked for.
    pub(super) fn is_in_step(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::update::{Expect, Request};

    /// Reads an octet now and then: each write gets on, and all of it takes seconds.
    fn slow_reader(mut stream: impl Read) {
        let mut octets = [0; 4096];
        while stream.read(&mut octets).is_ok_and(|read| read > 0) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[cfg(feature = "tokio")]
    #[test]
    fn an_address_in_a_black_hole_leaves_time_for_the_next() {
        let hole = crate::names::dial::tests::Blackhole::new();
        let live = TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = [hole.address, live.local_addr().unwrap()];
        let server = Server::Tcp { host: "cache".to_owned(), port: 1, weight: 1 };
        let begun = Instant::now();
        let deadline = begun + Duration::from_millis(400);
        let limits = Limits { deadline, timeouts: Timeouts::default() };
        Connection::dial(&server, &addresses, false, limits).unwrap();
        assert!(begun.elapsed() < Duration::from_millis(350), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_slow_reader_does_not_stretch_the_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let unix = UnixListener::bind(&path).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        std::thread::spawn(move || slow_reader(unix.accept().unwrap().0));
        std::thread::spawn(move || slow_reader(tcp.accept().unwrap().0));
        let socket = Server::Socket { path: path.to_str().unwrap().to_owned(), weight: 1 };
        let port = Server::Tcp { host: "127.0.0.1".to_owned(), port: address.port(), weight: 1 };
        // More than any socket's buffers hold.
        let value = vec![b'v'; 16 << 20];
        let put = [Request::Put { key: "k".to_owned(), value, expiry: None, expect: Expect::Any }];
        for server in [socket, port] {
            let (begun, limit) = (Instant::now(), Duration::from_millis(300));
            let limits = Limits { deadline: begun + limit, timeouts: Timeouts::default() };
            let mut connection = Connection::dial(&server, &[address], false, limits).unwrap();
            let mut exchange = Exchange::new(&put, 0);
            let octets = exchange.begin(1, 1).unwrap();
            let error = connection.exchange(&mut exchange, &octets, limits).unwrap_err();
            let took = begun.elapsed();
            assert!(crate::store::timed_out(&error), "{server}: {error}");
            assert!(took >= limit && took < 2 * limit, "{server}: {took:?}");
        }
    }
}
