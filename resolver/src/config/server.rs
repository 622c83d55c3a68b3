use std::fmt;
use std::net::Ipv6Addr;

/// The port that libmemcached takes when none is named, or 0.
pub(crate) const DEFAULT_PORT: u16 = 11211;

/// One memcached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Server {
    /// Reached by TCP.
    Tcp {
        /// Address or host name; an IPv6 address without brackets.
        host: String,
        /// Port.
        port: u16,
        /// Its share of the keys, beside the others' weights. It counts on a weighted ring only.
        weight: u32,
    },
    /// Reached by a unix socket.
    Socket {
        /// The socket's path.
        path: String,
        /// As above.
        weight: u32,
    },
}

impl Server {
    /// A server of weight 1.
    pub fn tcp(host: impl Into<String>, port: u16) -> Server {
        Server::Tcp { host: host.into(), port, weight: 1 }
    }

    /// Host or path, and port (0 for a socket): what libmemcached sorts by and puts on the ring.
    pub(crate) fn name_and_port(&self) -> (&str, u16) {
        match self {
            Server::Tcp { host, port, .. } => (host, *port),
            Server::Socket { path, .. } => (path, 0),
        }
    }

    /// Its weight.
    pub fn weight(&self) -> u32 {
        match self {
            Server::Tcp { weight, .. } | Server::Socket { weight, .. } => *weight,
        }
    }
}

/// `host:port`, `[address]:port` or the path of the socket.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Server::Tcp { host, port, .. } if host.parse::<Ipv6Addr>().is_ok() => {
                write!(f, "[{host}]:{port}")
            }
            Server::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Server::Socket { path, .. } => f.write_str(path),
        }
    }
}
