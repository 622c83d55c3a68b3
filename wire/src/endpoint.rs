//! Where a subscriber listens, as nanomsg writes it.

use std::fmt;
use std::str::FromStr;

/// The longest endpoint URL that is accepted, in octets. A unix socket's path has at most 107 octets and
/// a host name at most 253, so nothing real is near it.
const MAX_URL: usize = 512;

/// The address of a subscriber's socket: `tcp://host:port` or `ipc://path`.
///
/// The host of a tcp endpoint is an IPv4 address, an IPv6 address in brackets, or a name. Endpoints in the
/// resolver's records are compared as whole strings, never by prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// A TCP socket.
    Tcp {
        /// Address or name, an IPv6 address without its brackets.
        host: String,
        /// Port, in host order.
        port: u16,
    },
    /// A unix socket (nanomsg calls this transport ipc).
    Ipc {
        /// Absolute or relative path of the socket.
        path: String,
    },
}

/// Why a string is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Neither `tcp://` nor `ipc://`.
    #[error("endpoint '{0}': unknown scheme, expected tcp://host:port or ipc://path")]
    Scheme(String),
    /// No port, or one outside 0 to 65535.
    #[error("endpoint '{0}': expected a port from 0 to 65535 after the host, as in tcp://127.0.0.1:9005")]
    Port(String),
    /// No host, or one with characters that no host has.
    #[error("endpoint '{0}': expected an address or a host name, IPv6 in brackets as in tcp://[::1]:9005")]
    Host(String),
    /// No path after `ipc://`, or one with control characters.
    #[error("endpoint '{0}': expected the path of a socket, as in ipc:///run/ocbus/bus.sock")]
    Path(String),
    /// Longer than any endpoint can be.
    #[error("endpoint of {0} octets: expected at most 512")]
    TooLong(usize),
}

impl Endpoint {
    /// Reads `tcp://host:port` or `ipc://path`.
    pub fn parse(url: &str) -> Result<Endpoint, EndpointError> {
        if url.len() > MAX_URL {
            return Err(EndpointError::TooLong(url.len()));
        }
        if let Some(path) = url.strip_prefix("ipc://") {
            if path.is_empty() || path.chars().any(char::is_control) {
                return Err(EndpointError::Path(url.escape_debug().to_string()));
            }
            return Ok(Endpoint::Ipc { path: path.to_owned() });
        }
        let shown = || url.escape_debug().to_string();
        let rest = url.strip_prefix("tcp://").ok_or_else(|| EndpointError::Scheme(shown()))?;
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| EndpointError::Port(shown()))?;
        let decimal = !port.is_empty() && port.bytes().all(|octet| octet.is_ascii_digit());
        let port = port.parse().ok().filter(|_| decimal).ok_or_else(|| EndpointError::Port(shown()))?;
        let host = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok().then_some(inner),
            None => Some(host).filter(|host| !host.is_empty() && host.bytes().all(is_named)),
        };
        let host = host.ok_or_else(|| EndpointError::Host(shown()))?;
        Ok(Endpoint::Tcp { host: host.to_owned(), port })
    }
}

/// Whether a host name or an IPv4 address may have this octet.
fn is_named(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b'_')
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(url: &str) -> Result<Endpoint, EndpointError> {
        Endpoint::parse(url)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Endpoint::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Endpoint::Ipc { path } => write!(f, "ipc://{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for url in [
            "tcp://127.0.0.1:9005",
            "tcp://[::1]:9005",
            "tcp://host-1.example.org:65535",
            "ipc:///tmp/x.sock",
        ] {
            assert_eq!(Endpoint::parse(url).unwrap().to_string(), url);
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_its_text() {
        for url in [
            "",
            "tcp://",
            "tcp://h",
            "tcp://h:",
            "tcp://h:+1",
            "tcp://h:65536",
            "tcp://:1",
            "tcp://a b:1",
            "tcp://::1:9005",
            "tcp://[::1:9005",
            "tcp://[a b\r\n:1",
            "tcp://::1]:1",
            "tcp://[]:1",
            "tcp://[x]:1",
            "udp://h:1",
            "ipc://",
            "ipc:///a\r\nb",
            "tcp://h\r\nflush_all:1",
        ] {
            let error = Endpoint::parse(url).unwrap_err().to_string();
            assert!(error.contains(&url.escape_debug().to_string()), "{error}");
            assert!(!error.contains('\n'), "one line: {error}");
        }
        assert!(matches!(Endpoint::parse(&"x".repeat(600)), Err(EndpointError::TooLong(600))));
    }
}
