use std::sync::Arc;
use std::time::Duration;

use nng::options::{Options as _, SendBufferSize};
use nng::{PipeEvent, Protocol, Socket};
use ocbus_resolver::delivery::{Outcome, Payload};
use ocbus_wire::{Endpoint, sp};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::probe::probe;

/// How long an endpoint's task waits for something to send before it closes its connection.
const IDLE: Duration = Duration::from_secs(60);

/// What one `publish` wants of one endpoint.
pub(super) struct Job {
    pub(super) payloads: Arc<[Payload]>,
    pub(super) deadline: Instant,
    pub(super) done: oneshot::Sender<Outcome>,
}

impl Job {
    pub(super) fn end(self, outcome: Outcome) {
        // Whoever gave up waiting has judged already.
        drop(self.done.send(outcome));
    }
}

/// The next job, or `None` when there was none for long and the task may end. A connection that is lost meanwhile is
/// let go: nng would dial a peer that is gone ten times a second.
pub(super) async fn next<C: AsRef<Dialled>>(
    jobs: &mut mpsc::Receiver<Job>,
    connection: &mut Option<C>,
) -> Option<Job> {
    let end = Instant::now() + IDLE;
    loop {
        let lost = async {
            match connection.as_ref() {
                Some(connection) => connection.as_ref().lost().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            job = jobs.recv() => return job,
            () = lost => *connection = None,
            () = tokio::time::sleep_until(end) => {
                // Nothing gets in behind this; what got in before is still done.
                jobs.close();
                return jobs.try_recv().ok();
            }
        }
    }
}

/// A dialling socket that knows whether it has a pipe.
///
/// nng tells a refused connection from a slow one only when it dials blocking, for more than 5 s. So an
/// endpoint is probed by a handshake before it is dialled, and again when its pipe is lost.
pub(super) struct Dialled {
    pub(super) socket: Socket,
    connected: watch::Receiver<bool>,
}

impl Dialled {
    /// Probes and dials, within the deadline.
    pub(super) async fn new(
        protocol: sp::Protocol,
        endpoint: &Endpoint,
        deadline: Instant,
    ) -> Result<Dialled, Outcome> {
        probe(endpoint, protocol, deadline).await?;
        let broken = |error: nng::Error| Outcome::Broken(error.to_string());
        let push = protocol == sp::Protocol::Push;
        let socket = Socket::new(if push { Protocol::Push0 } else { Protocol::Req0 }).map_err(broken)?;
        if push {
            // With a buffer, a send is Ok long before the message is out, and is lost when we end.
            socket.set_opt::<SendBufferSize>(0).map_err(broken)?;
        }
        let (is_connected, connected) = watch::channel(false);
        let notify = move |_, event| match event {
            PipeEvent::AddPost => drop(is_connected.send(true)),
            PipeEvent::RemovePost => drop(is_connected.send(false)),
            _ => {}
        };
        socket.pipe_notify(notify).map_err(broken)?;
        socket.dial_async(&endpoint.to_string()).map_err(broken)?;
        Ok(Dialled { socket, connected })
    }

    /// Waits until there is a pipe. A peer that accepts and is silent never gets one.
    pub(super) async fn ready(&mut self, deadline: Instant) -> Result<(), Outcome> {
        match tokio::time::timeout_at(deadline, self.connected.wait_for(|&connected| connected)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Outcome::Broken("its socket closed".to_owned())),
            Err(_) => Err(Outcome::Silent),
        }
    }

    /// Ends when the pipe is lost.
    pub(super) async fn lost(&self) {
        // An error means that the socket is gone, and the pipe with it.
        let _ = self.connected.clone().wait_for(|&connected| !connected).await;
    }

    pub(super) fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }
}

/// What is left until the deadline, and not nothing: nng takes 0 for "do not wait".
pub(super) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// The outcome that an nng error stands for.
pub(super) fn outcome_of(error: nng::Error) -> Outcome {
    match error {
        nng::Error::TimedOut => Outcome::Silent,
        nng::Error::ConnectionRefused => Outcome::Refused,
        other => Outcome::Broken(other.to_string()),
    }
}
