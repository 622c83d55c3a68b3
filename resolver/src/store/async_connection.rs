use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Instant;

use memcache::exp::Error;
use rustix::net::sockopt;
use tokio::io::{AsyncReadExt as _, Interest, Ready};
use tokio::net::{TcpStream, UnixStream};

use super::buffer::Buffer;
use super::exchange::Exchange;
use crate::config::Server;
use crate::names::dial::connect;

/// One connection to a memcached, for a task. Its caller sees to the time limits.
///
/// Not the crate's `AsyncMetaConnection`, though it can be had over a TCP stream with our options: it takes what a
/// server claims for true, writes a whole batch before it reads, and does not let an idle one be looked at.
#[derive(Debug)]
pub(super) struct AsyncConnection {
    stream: Stream,
    buffer: Buffer,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Stream::Tcp(stream) => stream.ready(interest).await,
            Stream::Unix(stream) => stream.ready(interest).await,
        }
    }

    fn try_read(&self, octets: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.try_read(octets),
            Stream::Unix(stream) => stream.try_read(octets),
        }
    }

    fn try_write(&self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.try_write(octets),
            Stream::Unix(stream) => stream.try_write(octets),
        }
    }

    /// Knows that there is no more behind a read that did not fill its room, and saves asking again.
    async fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(octets).await,
            Stream::Unix(stream) => stream.read(octets).await,
        }
    }
}

impl AsyncConnection {
    /// Dials a server's first address that answers.
    pub(super) async fn dial(
        server: &Server,
        addresses: &[SocketAddr],
        keepalive: bool,
        deadline: Instant,
    ) -> io::Result<AsyncConnection> {
        let stream = match server {
            Server::Tcp { .. } => Stream::Tcp(tcp(addresses, keepalive, deadline).await?),
            Server::Socket { path, .. } => Stream::Unix(UnixStream::connect(path).await?),
        };
        Ok(AsyncConnection { stream, buffer: Buffer::new() })
    }

    /// Writes all that an exchange has begun with, and reads until it is over.
    pub(super) async fn exchange(&mut self, exchange: &mut Exchange<'_>, octets: &[u8]) -> Result<(), Error> {
        let mut unsent = octets;
        // Answers are read while requests are still written: a server whose answers nobody takes reads no more
        // requests, and both would wait for ever.
        while !unsent.is_empty() {
            match self.stream.try_write(unsent) {
                Ok(0) => return Err(Error::Io(ErrorKind::WriteZero.into())),
                Ok(written) => unsent = unsent.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let ready = self.stream.ready(Interest::READABLE | Interest::WRITABLE).await?;
                    if ready.is_readable() {
                        match self.stream.try_read(self.buffer.room()) {
                            Ok(read) => self.take(read, exchange)?,
                            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                            Err(error) => return Err(error.into()),
                        }
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        while !exchange.is_over() {
            let read = self.stream.read(self.buffer.room()).await?;
            self.take(read, exchange)?;
        }
        self.buffer.rest();
        Ok(())
    }

    fn take(&mut self, read: usize, exchange: &mut Exchange<'_>) -> Result<(), Error> {
        match read {
            0 => Err(Error::Io(ErrorKind::UnexpectedEof.into())),
            read => self.buffer.feed(read, exchange),
        }
    }

    /// Whether it may be used again: it is silent and open. What came unasked would be taken for the next answer.
    pub(super) fn is_fit(&self) -> bool {
        let silent = |error: io::Error| error.kind() == ErrorKind::WouldBlock;
        self.buffer.is_empty() && self.stream.try_read(&mut [0]).is_err_and(silent)
    }
}

async fn tcp(addresses: &[SocketAddr], keepalive: bool, deadline: Instant) -> io::Result<TcpStream> {
    let stream = connect(addresses, deadline).await?;
    stream.set_nodelay(true)?;
    if keepalive {
        sockopt::set_socket_keepalive(&stream, true)?;
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixListener;

    use super::*;
    use crate::update::{Expect, Request, Response};

    /// A server that reads nothing more until its answers are taken.
    #[tokio::test]
    async fn answers_are_taken_while_requests_are_still_written() {
        const READS: usize = 40;
        const WRITES: usize = 2000;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let value = [b"VA 100000 c1\r\n".as_slice(), &[b'v'; 100_000], b"\r\n"].concat();
            for _ in 0..READS {
                stream.write_all(&value).await.unwrap();
            }
            let mut left = WRITES;
            let mut octets = vec![0; 1 << 16];
            while left > 0 {
                let read = stream.read(&mut octets).await.unwrap();
                left -= octets[..read].iter().filter(|octet| **octet == b'!').count();
            }
            stream.write_all("HD\r\n".repeat(WRITES).as_bytes()).await.unwrap();
        });
        let get = Request::Get { keys: vec!["k".to_owned()], any_copy: false };
        let value = [&[b'v'; 1000][..], b"!"].concat();
        let put = Request::Put { key: "k".to_owned(), value, expiry: None, expect: Expect::Any };
        let mut requests = vec![get; READS];
        requests.resize(READS + WRITES, put);
        let soon = Instant::now() + Duration::from_secs(5);
        let server = Server::Socket { path: path.to_str().unwrap().to_owned(), weight: 1 };
        let mut connection = AsyncConnection::dial(&server, &[], false, soon).await.unwrap();
        let mut exchange = Exchange::new(&requests, 0);
        let octets = exchange.begin(1, 1).unwrap();
        let limit = Duration::from_secs(10);
        tokio::time::timeout(limit, connection.exchange(&mut exchange, &octets)).await.unwrap().unwrap();
        let responses = exchange.into_responses();
        assert_eq!(responses.len(), READS + WRITES);
        assert!(matches!(responses.last(), Some(Ok(Response::Done))));
    }
}
