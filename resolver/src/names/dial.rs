use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::time::timeout_at;

use crate::share::shares;

/// Connects to the first of a host's addresses that answers. One that hangs costs its share of the time, not all.
pub(crate) async fn connect(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the host has no address");
    for (address, until) in shares(addresses, deadline) {
        match timeout_at(until.into(), TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};

    use super::*;

    /// An address at which a connection hangs, as behind a firewall that drops: its backlog is full.
    pub(crate) struct Blackhole {
        pub(crate) address: SocketAddr,
        _listener: OwnedFd,
        _filling: Vec<TcpStream>,
    }

    impl Blackhole {
        pub(crate) fn new() -> Blackhole {
            let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
            bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
            listen(&listener, 0).unwrap();
            let listener = TcpListener::from(listener);
            let address = listener.local_addr().unwrap();
            let mut filling = Vec::new();
            while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(50)) {
                filling.push(stream);
                assert!(filling.len() < 16, "the backlog fills up");
            }
            Blackhole { address, _listener: listener.into(), _filling: filling }
        }
    }

    #[tokio::test]
    async fn an_address_in_a_black_hole_leaves_time_for_the_next() {
        let (hole, live) = (Blackhole::new(), TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = [hole.address, live.local_addr().unwrap()];
        let begun = Instant::now();
        let stream = connect(&addresses, begun + Duration::from_millis(400)).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), addresses[1]);
        assert!(begun.elapsed() < Duration::from_millis(350), "{:?}", begun.elapsed());
        let begun = Instant::now();
        let error = connect(&addresses[..1], begun + Duration::from_millis(100)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
    }
}
