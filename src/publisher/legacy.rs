//! One legacy endpoint: PUSH, one payload for each mail, as OpenChange's plugin sends it.

use std::io;

use ocbus_resolver::delivery::Outcome;
use ocbus_wire::Endpoint;
use ocbus_wire::sp::{self, Exchange, Protocol, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::endpoint::{Dialled, Job, left, next, outcome_of};
use super::probe::refused;
use crate::sockets::Call;

struct Connection {
    dialled: Dialled,
    call: Call,
}

impl AsRef<Dialled> for Connection {
    fn as_ref(&self) -> &Dialled {
        &self.dialled
    }
}

pub(super) async fn run(endpoint: Endpoint, mut jobs: mpsc::Receiver<Job>) {
    let mut connection = None;
    while let Some(job) = next(&mut jobs, &mut connection).await {
        // Behind a stall: whoever gave it up has judged already, and sent it would be delivered all the same.
        if job.deadline <= Instant::now() {
            job.end(Outcome::Silent);
            continue;
        }
        let pushed = match &endpoint {
            Endpoint::Tcp { .. } => push(&endpoint, &mut connection, &job).await,
            Endpoint::Ipc { path } => timeout_at(job.deadline, push_ipc(&endpoint, path, &job))
                .await
                .unwrap_or(Err(Outcome::Silent)),
        };
        let outcome = match pushed {
            Ok(()) => Outcome::Delivered,
            Err(outcome) => {
                connection = None;
                outcome
            }
        };
        job.end(outcome);
    }
}

async fn push(endpoint: &Endpoint, slot: &mut Option<Connection>, job: &Job) -> Result<(), Outcome> {
    if slot.as_ref().is_some_and(|connection| !connection.dialled.is_connected()) {
        *slot = None;
    }
    let connection = match slot {
        Some(connection) => connection,
        None => {
            let mut dialled = Dialled::new(Protocol::Push, endpoint, job.deadline).await?;
            dialled.ready(job.deadline).await?;
            slot.insert(Connection { dialled, call: Call::sending().map_err(outcome_of)? })
        }
    };
    for payload in job.payloads.iter() {
        let Connection { dialled, call } = &mut *connection;
        call.send(&dialled.socket, &payload.octets(), left(job.deadline)).await.map_err(outcome_of)?;
    }
    Ok(())
}

/// Over ipc by hand, with the peer's end of stream as a receipt: a unix socket that nng closes when we end drops
/// what the peer has not read (libnanomsg 1.1.5 got 131 of 1,000).
async fn push_ipc(endpoint: &Endpoint, path: &str, job: &Job) -> Result<(), Outcome> {
    let mut stream = UnixStream::connect(path).await.map_err(|error| refused(&error, endpoint))?;
    let octets: Vec<_> = job.payloads.iter().map(|payload| payload.octets()).collect();
    let mut exchange = Exchange::push_all(Transport::Ipc, octets.iter().map(AsRef::as_ref));
    drive(&mut stream, &mut exchange).await.map_err(|error| Outcome::Broken(error.to_string()))?;
    match exchange.outcome() {
        Some(Ok(_)) => Ok(()),
        Some(Err(error @ sp::ExchangeError::Handshake(_))) => Err(Outcome::Stranger(error.to_string())),
        Some(Err(error)) => Err(Outcome::Broken(error.to_string())),
        None => Err(Outcome::Broken("ended early".to_owned())),
    }
}

/// Writes and reads until the exchange is over.
async fn drive(stream: &mut UnixStream, exchange: &mut Exchange) -> io::Result<()> {
    let mut buffer = [0; 1024];
    let mut closed = false;
    while exchange.outcome().is_none() {
        if !exchange.output().is_empty() {
            let wrote = stream.write(exchange.output()).await?;
            exchange.wrote(wrote);
        } else if exchange.wants_half_close() && !closed {
            stream.shutdown().await?;
            closed = true;
        } else {
            match stream.read(&mut buffer).await? {
                0 => exchange.closed(),
                count => exchange.feed(buffer.get(..count).unwrap_or_default()),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::sockets::{ListenOptions, Role, Server, TrustedNetworks};
    use ocbus_resolver::delivery::Payload;
    use ocbus_wire::native::Batch;
    use tokio::sync::oneshot;

    /// A job of one message, of which there is no more to tell than that it came.
    fn job(deadline: Instant) -> (Job, oneshot::Receiver<Outcome>) {
        let (done, outcome) = oneshot::channel();
        let payloads = Arc::from([Payload::Batch(Arc::new(Batch::new()))]);
        (Job { payloads, deadline, done }, outcome)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_given_up_is_not_sent_and_leaves_the_connection_to_others() {
        let options = ListenOptions {
            advertise: None,
            ipc_mode: None,
            trusted: TrustedNetworks::default(),
            rejected: Arc::default(),
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pull").to_str().unwrap().to_owned();
        for bind in [Endpoint::parse("tcp://127.0.0.1:0").unwrap(), Endpoint::Ipc { path }] {
            let (came, mut messages) = mpsc::channel(8);
            let handler = Arc::new(move |_: &[u8]| {
                came.try_send(()).unwrap();
                Vec::new()
            });
            let server = Server::listen(Role::Pull, &bind, &options, handler).unwrap();
            let (queue, jobs) = mpsc::channel(3);
            let lives = Instant::now() + Duration::from_secs(20);
            let mut done = Vec::new();
            for deadline in [lives, Instant::now(), lives] {
                let (job, outcome) = job(deadline);
                assert!(queue.try_send(job).is_ok());
                done.push(outcome);
            }
            drop(queue);
            run(server.endpoint.clone(), jobs).await;
            let mut outcomes = Vec::new();
            for outcome in done {
                outcomes.push(outcome.await.unwrap());
            }
            assert_eq!(outcomes, [Outcome::Delivered, Outcome::Silent, Outcome::Delivered], "{bind}");
            for _ in 0..2 {
                let came = tokio::time::timeout(Duration::from_secs(20), messages.recv()).await;
                assert_eq!(came.unwrap(), Some(()));
            }
            drop(server);
            assert!(messages.try_recv().is_err(), "{bind}: what was given up did not come");
        }
    }
}
