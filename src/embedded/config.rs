use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::sockets::TrustedNetworks;

/// Where an embedded resolver listens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EmbeddedBind {
    /// By TCP; port 0 is any free one.
    Tcp(SocketAddr),
    /// At a unix socket, with this file mode or as the umask has it. Mail users must be able to write to it.
    Socket {
        /// The socket's path.
        path: PathBuf,
        /// Mode of its file.
        mode: Option<u32>,
    },
}

/// How an embedded resolver listens, and its bounds. `docs/settings.md` has the same as a table.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// Where it listens.
    pub bind: EmbeddedBind,
    /// Whose TCP connections are let in. Everybody who is may read and change every registration.
    pub trusted: TrustedNetworks,
    /// Memory for records, in octets, their tables included. A write beyond it is refused.
    pub max_octets: usize,
    /// Connections at once; more wait in the listening socket's backlog.
    pub max_connections: usize,
    /// How long a connection may be silent between requests.
    pub idle: Duration,
    /// How long a client may take for the rest of a request that it has begun, or to take an answer.
    pub patience: Duration,
}

impl Default for EmbeddedConfig {
    /// Port 11211 of 127.0.0.1, loopback only, 64 MiB, 1024 connections, an hour of silence, 5 s for a request.
    fn default() -> EmbeddedConfig {
        EmbeddedConfig {
            bind: EmbeddedBind::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 11211))),
            trusted: TrustedNetworks::default(),
            max_octets: 64 * 1024 * 1024,
            max_connections: 1024,
            idle: Duration::from_secs(3600),
            patience: Duration::from_secs(5),
        }
    }
}
