//! One legacy endpoint: PUSH, one payload for each mail, as OpenChange's plugin sends it.

use std::io;

use ocbus_resolver::delivery::Outcome;
use ocbus_wire::Endpoint;
use ocbus_wire::sp::{self, Exchange, Protocol, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout_at;

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
