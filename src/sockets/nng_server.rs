//! A tcp server over nng: everything that nng calls back is here, and neither blocks nor panics.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use nng::options::transport::tcp::BoundPort;
use nng::options::{Options, RecvMaxSize, RemAddr};
use nng::{
    Aio, AioResult, Context, Listener, ListenerBuilder, Message, Pipe, PipeEvent, Protocol, Result, Socket,
    SocketAddr,
};
use ocbus_wire::Endpoint;

use super::MAX_MESSAGE_OCTETS;
use super::server::{Handler, ListenOptions, Role};
use super::trusted::TrustedNetworks;

/// Requests that are worked on at once. Each takes microseconds; more publishers wait in nng's queues.
const CONTEXTS: usize = 8;

/// The socket and the operations that are under way on it.
#[derive(Debug)]
pub(super) struct NngServer {
    socket: Socket,
    listener: Listener,
    operations: Vec<Aio>,
}

impl NngServer {
    pub(super) fn listen(
        role: Role,
        bind: &Endpoint,
        options: &ListenOptions,
        handler: Handler,
    ) -> Result<NngServer> {
        let socket = Socket::new(match role {
            Role::Reply => Protocol::Rep0,
            Role::Pull => Protocol::Pull0,
        })?;
        socket.set_opt::<RecvMaxSize>(MAX_MESSAGE_OCTETS)?;
        let (trusted, rejected) = (options.trusted.clone(), std::sync::Arc::clone(&options.rejected));
        socket.pipe_notify(move |pipe, event| guarded(|| admit(pipe, event, &trusted, &rejected)))?;
        let mut operations = Vec::new();
        match role {
            Role::Reply => {
                for _ in 0..CONTEXTS {
                    operations.push(answer(&socket, handler.clone())?);
                }
            }
            Role::Pull => operations.push(pull(&socket, handler)?),
        }
        let listener =
            ListenerBuilder::new(&socket, &bind.to_string())?.start().map_err(|(_, error)| error)?;
        Ok(NngServer { socket, listener, operations })
    }

    /// The port that it is bound to.
    pub(super) fn port(&self) -> Result<u16> {
        self.listener.get_opt::<BoundPort>()
    }
}

impl Drop for NngServer {
    fn drop(&mut self) {
        // The callbacks hold the socket too.
        self.socket.close();
        // A callback that still runs holds its operation as well. Were it the last to, it would free the operation
        // in the operation's own callback: nng waits there for that callback to end, for ever, on one of its few threads.
        for operation in &self.operations {
            operation.wait();
        }
    }
}

/// One context of a REP socket: a request is answered, an answer sent means the next request.
fn answer(socket: &Socket, handler: Handler) -> Result<Aio> {
    let context = Context::new(socket)?;
    let own = context.clone();
    let aio = Aio::new(move |aio, result| {
        guarded(|| {
            let next = match result {
                AioResult::Recv(Ok(request)) => {
                    own.send(&aio, Message::from(handler(&request).as_slice())).map_err(|(_, error)| error)
                }
                AioResult::Recv(Err(error)) | AioResult::Send(Err((_, error))) if is_end(error) => return,
                // The peer went before its answer: it will ask again.
                _ => own.recv(&aio),
            };
            note_end(next);
        });
    })?;
    context.recv(&aio)?;
    Ok(aio)
}

/// Reads a PULL socket.
fn pull(socket: &Socket, handler: Handler) -> Result<Aio> {
    let own = socket.clone();
    let aio = Aio::new(move |aio, result| {
        guarded(|| {
            match result {
                AioResult::Recv(Ok(message)) => drop(handler(&message)),
                AioResult::Recv(Err(error)) if is_end(error) => return,
                _ => {}
            }
            note_end(own.recv_async(&aio));
        });
    })?;
    socket.recv_async(&aio)?;
    Ok(aio)
}

/// nng aborts the process when a callback panics, as one in the program's log would.
fn guarded(work: impl FnOnce()) {
    drop(catch_unwind(AssertUnwindSafe(work)));
}

fn is_end(error: nng::Error) -> bool {
    matches!(error, nng::Error::Closed | nng::Error::Canceled)
}

fn note_end(next: Result<()>) {
    match next {
        Ok(()) => {}
        Err(error) if is_end(error) => {}
        Err(error) => tracing::error!(event = "server_stalled", %error, "a socket takes no further messages"),
    }
}

/// Closes the pipe of a peer outside the trusted networks before the socket ever sees it.
fn admit(pipe: Pipe, event: PipeEvent, trusted: &TrustedNetworks, rejected: &AtomicU64) {
    if event != PipeEvent::AddPre {
        return;
    }
    let address: Option<IpAddr> = match pipe.get_opt::<RemAddr>() {
        Ok(SocketAddr::Inet(address)) => Some((*address.ip()).into()),
        Ok(SocketAddr::Inet6(address)) => Some((*address.ip()).into()),
        _ => None,
    };
    if address.is_some_and(|address| trusted.contain(address)) {
        return;
    }
    pipe.close();
    let Some(peer) = address else {
        // Reset: the kernel has forgotten who it was. A publisher that was stopped or in a hurry, as a rule.
        tracing::debug!(event = "peer_gone", "a peer hung up before it was looked at");
        return;
    };
    // One line for the first, then at each power of two: a scanner must not fill the log.
    let count = rejected.fetch_add(1, Ordering::Relaxed) + 1;
    if count.is_power_of_two() {
        tracing::warn!(event = "peer_rejected", %peer, count, "a peer outside trusted_networks was turned away");
    }
}
