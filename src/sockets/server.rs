use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ocbus_wire::sp::Protocol;
use ocbus_wire::{Endpoint, EndpointError};

use super::ipc_server::{IpcOptions, IpcServer};
use super::nng_server::NngServer;
use super::trusted::TrustedNetworks;

/// The longest path of a unix socket: `sun_path` holds 107 octets and a NUL.
const MAX_PATH_OCTETS: usize = 107;

/// What a server does with its peers' messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Answers each one (SP REP).
    Reply,
    /// Takes them (SP PULL).
    Pull,
}

impl Role {
    pub(super) fn protocol(self) -> Protocol {
        match self {
            Role::Reply => Protocol::Rep,
            Role::Pull => Protocol::Pull,
        }
    }
}

/// Takes a message and gives the reply, which only [`Role::Reply`] sends. It must not block.
pub(crate) type Handler = Arc<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// A listening socket and what answers on it; ends when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    /// Where publishers reach it: with the port that was chosen, where 0 was asked for.
    pub(crate) endpoint: Endpoint,
    _socket: Socket,
}

#[derive(Debug)]
#[expect(dead_code, reason = "held for their lives")]
enum Socket {
    Nng(NngServer),
    Ipc(IpcServer),
}

/// How a socket listens.
#[derive(Debug, Clone)]
pub(crate) struct ListenOptions {
    /// The host to be told to publishers instead of the bound one.
    pub(crate) advertise: Option<String>,
    /// Mode of an ipc socket.
    pub(crate) ipc_mode: Option<u32>,
    /// Whose pipes are let in.
    pub(crate) trusted: TrustedNetworks,
    /// Counts the others.
    pub(crate) rejected: Arc<AtomicU64>,
}

/// Why a socket cannot listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address is none.
    #[error("bind: {0}")]
    Endpoint(#[from] EndpointError),
    /// The address stands for every interface, so that nobody could be told where to send.
    #[error(
        "bind {bind}: it stands for every address: expected 'advertise' to name the one that publishers reach"
    )]
    Wildcard {
        /// As set.
        bind: String,
    },
    /// nng cannot listen there.
    #[error("bind {bind}: {source}: expected a free port of this machine")]
    Tcp {
        /// As set.
        bind: String,
        /// Why.
        #[source]
        source: nng::Error,
    },
    /// The resolver cannot listen there.
    #[error("bind {bind}: {source}: expected a free port of this machine")]
    Resolver {
        /// As set.
        bind: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The name of the socket's file is longer than a unix socket can have.
    #[error(
        "bind {bind}: a path of {octets} octets: expected at most {MAX_PATH_OCTETS}, as a unix socket has"
    )]
    IpcPath {
        /// As set.
        bind: String,
        /// Of its path.
        octets: usize,
    },
    /// The socket's file cannot be made.
    #[error(
        "bind {bind}: {source}: expected a path that no other process listens at, in a folder that is ours"
    )]
    Ipc {
        /// As set.
        bind: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Server {
    /// Listens at `bind` (port 0: any free port). Within a tokio runtime.
    pub(crate) fn listen(
        role: Role,
        bind: &Endpoint,
        options: &ListenOptions,
        handler: Handler,
    ) -> Result<Server, ListenError> {
        let advertise = options.advertise.as_deref();
        // An ipc peer would lose its connection, an nng context would never answer again.
        let guarded: Handler = Arc::new(move |message| {
            // The panic's own message stands on standard error.
            catch_unwind(AssertUnwindSafe(|| handler(message))).unwrap_or_default()
        });
        match bind {
            Endpoint::Tcp { host, .. } => {
                if advertise.is_none() && host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
                {
                    return Err(ListenError::Wildcard { bind: bind.to_string() });
                }
                let failed = |source| ListenError::Tcp { bind: bind.to_string(), source };
                let server = NngServer::listen(role, bind, options, guarded).map_err(failed)?;
                let endpoint = Endpoint::Tcp {
                    host: advertise.unwrap_or(host).to_owned(),
                    port: server.port().map_err(failed)?,
                };
                Ok(Server { endpoint, _socket: Socket::Nng(server) })
            }
            Endpoint::Ipc { path } if path.len() > MAX_PATH_OCTETS => {
                Err(ListenError::IpcPath { bind: bind.to_string(), octets: path.len() })
            }
            Endpoint::Ipc { path } => {
                let ipc = IpcOptions { mode: options.ipc_mode, ..IpcOptions::default() };
                let server = IpcServer::listen(role, path.as_ref(), ipc, guarded)
                    .map_err(|source| ListenError::Ipc { bind: bind.to_string(), source })?;
                Ok(Server { endpoint: bind.clone(), _socket: Socket::Ipc(server) })
            }
        }
    }
}
