//! `POST /v1/events`: the documented JSON, of our Lua script and anybody else.

use axum::extract::{Request, State};
use uuid::Uuid;

use super::Outcome;
use super::state::Gateway;
use super::take::receive;
use crate::now_us;
use crate::outbox::Source;

pub(super) async fn take(State(gateway): State<Gateway>, request: Request) -> Outcome {
    let received = receive(&gateway, request, Source::Http).await?;
    let decoded = super::seam::events(&received.body, now_us(), &mut Uuid::now_v7);
    let (events, skipped) = decoded.map_err(|why| received.malformed(&gateway, why))?;
    received.hand_on(&gateway, events, skipped)
}
