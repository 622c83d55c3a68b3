//! One legacy endpoint: PUSH, one payload for each mail, as OpenChange's plugin sends it.

use ocbus_resolver::delivery::Outcome;
use ocbus_wire::Endpoint;
use ocbus_wire::sp::Protocol;
use tokio::sync::mpsc;

use super::endpoint::{Dialled, Job, left, next, outcome_of};
use crate::sockets::Call;

struct Connection {
    dialled: Dialled,
    call: Call,
}

pub(super) async fn run(endpoint: Endpoint, mut jobs: mpsc::Receiver<Job>) {
    let mut connection = None;
    while let Some(job) = next(&mut jobs).await {
        let outcome = match push(&endpoint, &mut connection, &job).await {
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
            slot.insert(Connection { dialled, call: Call::new().map_err(outcome_of)? })
        }
    };
    for payload in job.payloads.iter() {
        let Connection { dialled, call } = &mut *connection;
        call.send(&dialled.socket, &payload.octets(), left(job.deadline)).await.map_err(outcome_of)?;
    }
    Ok(())
}
