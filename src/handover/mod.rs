//! The socket at which our Dovecot plugin hands its events over.
//!
//! SKELETON of the API; the real thing is being written on branch `handover`.

use ocbus_wire::Endpoint;

use crate::outbox::Outbox;

/// Where the hand-over socket is, and who may write to it.
#[derive(Debug, Clone)]
pub struct HandOverConfig {
    /// `ipc:///run/ocbus/bus.sock`.
    pub listen: Endpoint,
    /// Mode of the socket, 0 to 0777. Who may write to it may hand events over; nobody can read anything from it.
    pub mode: u32,
    /// Group of the socket: a name of /etc/group or a number. `None`: the daemon's own.
    pub group: Option<String>,
}

impl Default for HandOverConfig {
    fn default() -> HandOverConfig {
        let listen = Endpoint::Ipc { path: "/run/ocbus/bus.sock".to_owned() };
        HandOverConfig { listen, mode: 0o660, group: None }
    }
}

/// Why there is no hand-over socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandOverError {
    /// It can only be a unix socket.
    #[error("hand-over: listen: {0}: expected a unix socket, as ipc:///run/ocbus/bus.sock")]
    NotIpc(Endpoint),
    /// The socket cannot listen.
    #[error("hand-over: {0}")]
    Listen(#[from] crate::subscriber::ListenError),
}

/// The listening socket; it goes with this.
#[derive(Debug)]
pub struct HandOver {
    endpoint: Endpoint,
}

impl HandOver {
    /// Listens, and gives what comes to the outbox. Within a tokio runtime.
    pub fn listen(config: &HandOverConfig, _outbox: Outbox) -> Result<HandOver, HandOverError> {
        Ok(HandOver { endpoint: config.listen.clone() })
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}
