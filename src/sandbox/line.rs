//! A connection that speaks in lines, each wait with a deadline.

use super::SandboxError;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// The longest line that we take from a server.
const LINE_LIMIT: u64 = 1 << 20;
/// The largest literal.
const LITERAL_LIMIT: usize = 64 << 20;

/// A client's connection to a server on this machine.
#[derive(Debug)]
pub(super) struct Line {
    stream: BufReader<TcpStream>,
    peer: &'static str,
    deadline: Duration,
}

impl Line {
    /// Connects to a port of 127.0.0.1. `deadline` bounds the connecting and each wait for octets after it.
    pub(super) fn connect(peer: &'static str, port: u16, deadline: Duration) -> Result<Self, SandboxError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let connect = || {
            let stream = TcpStream::connect_timeout(&address, deadline)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(deadline))?;
            stream.set_write_timeout(Some(deadline))?;
            io::Result::Ok(stream)
        };
        let stream = connect().map_err(SandboxError::io(format!("connect to {peer} at {address}")))?;
        Ok(Self { stream: BufReader::new(stream), peer, deadline })
    }

    pub(super) fn set_deadline(&mut self, deadline: Duration) -> Result<(), SandboxError> {
        let stream = self.stream.get_ref();
        stream
            .set_read_timeout(Some(deadline))
            .and_then(|()| stream.set_write_timeout(Some(deadline)))
            .map_err(SandboxError::io(format!("set a deadline of {deadline:?}")))?;
        self.deadline = deadline;
        Ok(())
    }

    pub(super) fn send(&mut self, octets: &[u8]) -> Result<(), SandboxError> {
        self.stream.get_mut().write_all(octets).map_err(|error| self.failed("taking what we sent", error))
    }

    /// The next line, without its end.
    pub(super) fn line(&mut self) -> Result<String, SandboxError> {
        let mut line = Vec::new();
        let mut limited = (&mut self.stream).take(LINE_LIMIT);
        let result = limited.read_until(b'\n', &mut line);
        result.map_err(|error| self.failed("a line", error))?;
        if line.pop() != Some(b'\n') {
            let why = io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection was closed, or the line is too long",
            );
            return Err(self.failed("a line", why));
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// Exactly `count` octets.
    pub(super) fn octets(&mut self, count: usize) -> Result<Vec<u8>, SandboxError> {
        if count > LITERAL_LIMIT {
            let why = io::Error::other(format!("{count} octets are more than {LITERAL_LIMIT}"));
            return Err(self.failed("a literal", why));
        }
        let mut octets = vec![0; count];
        let result = self.stream.read_exact(&mut octets);
        result.map_err(|error| self.failed("a literal", error))?;
        Ok(octets)
    }

    fn failed(&self, what: &str, source: io::Error) -> SandboxError {
        let what = format!("{what} from {}", self.peer);
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => SandboxError::Deadline {
                what,
                after: self.deadline,
                detail: "the connection is silent".to_owned(),
            },
            _ => SandboxError::Io { what, source },
        }
    }
}
