//! A resolver of the process's own, for those who want no memcached: a small server that speaks as much of memcached's
//! text and meta protocols as ocbus, the Dovecot plugin, `ocbus list` and OpenChange's servers (libmemcached) do.
//!
//! * `store`: records, their ends, and the bound on memory. Pure.
//! * `request`: requests out of octets; `text`, `meta`: their answers. Pure.
//! * `connection`: one client and its time limits.
//! * `shared`: what all connections share; `config`, `statistics`: what goes in and what comes out.
//!
//! Registrations live as long as the process. When it starts again, subscribers miss their canary within half a second
//! and register anew, as with any memcached.

mod config;
mod connection;
mod meta;
mod request;
mod shared;
mod statistics;
mod store;
mod text;

pub use config::{EmbeddedBind, EmbeddedConfig};
pub use statistics::EmbeddedStatistics;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use crate::sockets::{IpcOptions, ListenError, listen_unix};
use shared::Shared;

/// How soon an accept is tried again after descriptors ran short.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A resolver that listens. It ends when it is dropped, and its records with it.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    address: Address,
    acceptor: JoinHandle<()>,
}

#[derive(Debug)]
enum Address {
    Tcp(SocketAddr),
    Socket(PathBuf),
}

enum Listener {
    Tcp(TcpListener),
    Socket(UnixListener),
}

impl Embedded {
    /// Listens, and serves whoever comes. Within a tokio runtime.
    ///
    /// # Errors
    /// When it cannot listen there.
    pub fn listen(config: EmbeddedConfig) -> Result<Embedded, ListenError> {
        let (listener, address) = match &config.bind {
            EmbeddedBind::Tcp(bind) => {
                let failed = |source| ListenError::Resolver { bind: bind.to_string(), source };
                let listener = listen_tcp(*bind).map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                (Listener::Tcp(listener), Address::Tcp(address))
            }
            EmbeddedBind::Socket { path, mode } => {
                let failed = |source| ListenError::Ipc { bind: path.display().to_string(), source };
                let options = IpcOptions { mode: *mode, ..IpcOptions::default() };
                let listener = listen_unix(path, options).map_err(failed)?;
                (Listener::Socket(listener), Address::Socket(path.clone()))
            }
        };
        let shared = Arc::new(Shared::new(config));
        let acceptor = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Embedded { shared, address, acceptor })
    }

    /// The configuration string by which subscribers, publishers and OpenChange reach it from this machine.
    pub fn config_string(&self) -> String {
        match &self.address {
            Address::Tcp(address) => {
                let host = match address.ip() {
                    IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                    host => host,
                };
                format!("--SERVER={}", SocketAddr::new(host, address.port()))
            }
            Address::Socket(path) => format!("--SOCKET=\"{}\"", path.display()),
        }
    }

    /// What it has, and what happened so far.
    pub fn statistics(&self) -> EmbeddedStatistics {
        self.shared.statistics()
    }

    /// Closes all connections, and the listening socket.
    pub async fn stop(mut self) {
        self.acceptor.abort();
        // It has been told to end: whether it did so before does not matter.
        let _ = (&mut self.acceptor).await;
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Address::Socket(path) = &self.address {
            // The file first: once we do not listen any more, a successor may have one of its own there.
            let _ = std::fs::remove_file(path);
        }
        self.acceptor.abort();
    }
}

fn listen_tcp(bind: SocketAddr) -> io::Result<TcpListener> {
    // std sets SO_REUSEADDR: a restart does not wait for former connections.
    let listener = std::net::TcpListener::bind(bind)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn accept(listener: Listener, shared: Arc<Shared>) {
    // Dropped with this task, and the connections with it.
    let mut clients = JoinSet::new();
    let places = Arc::new(Semaphore::new(shared.config.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    loop {
        // Before the accept, so that a client beyond the limit waits instead of being cut off.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match next(&listener, &shared).await {
            Ok(Some(stream)) => stream,
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(event = "accept_failed", reason = %error, "a client could not be let in");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        shared.connections.fetch_add(1, Ordering::Relaxed);
        clients.spawn(async move {
            if let Err(error) = connection::serve(stream, &shared).await {
                tracing::debug!(event = "resolver_client_ended", reason = %error, "a connection ended early");
            }
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            drop(place);
        });
        while clients.try_join_next().is_some() {}
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// The next client; none where it was turned away.
async fn next(listener: &Listener, shared: &Shared) -> io::Result<Option<Box<dyn Stream>>> {
    match listener {
        Listener::Socket(listener) => Ok(Some(Box::new(listener.accept().await?.0))),
        Listener::Tcp(listener) => {
            let (stream, peer) = listener.accept().await?;
            if !shared.config.trusted.contain(peer.ip()) {
                shared.rejected.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(event = "peer_rejected", peer = %peer, "not in the trusted networks");
                return Ok(None);
            }
            Ok(prepare(&stream).ok().map(|()| Box::new(stream) as Box<dyn Stream>))
        }
    }
}

/// Answers go out at once, and a peer whose machine is gone is found out. Fails where the peer is gone already.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    Ok(())
}
