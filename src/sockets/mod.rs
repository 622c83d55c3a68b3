//! The sockets of this crate: servers that hand messages to a function, and calls that a task can await.
//!
//! tcp is nng's, with untrusted peers turned away at the pipe. ipc servers are ours: the ipc listener of Debian's
//! libnng 1.5.2 is dead for good once a peer hangs up during the handshake (nng issue 1518), which any mail
//! process that runs out of time may do.

mod call;
mod ipc_server;
mod nng_server;
mod server;
mod trusted;

pub(crate) use call::Call;
pub(crate) use ipc_server::{IpcOptions, IpcServer, listen_unix};
pub use server::ListenError;
pub(crate) use server::{ListenOptions, Role, Server};
pub use trusted::{TrustedNetworks, TrustedNetworksError};

/// The largest message that a server takes. A peer that claims more is cut off before memory is taken for it.
pub(crate) const MAX_MESSAGE_OCTETS: usize = ocbus_wire::native::MAX_BATCH_OCTETS + 64;

#[cfg(test)]
mod tests;
