//! `POST /v1/events`: the documented JSON, of our Lua script and anybody else.

use axum::extract::{Request, State};
use ocbus_wire::json::{self, Limits};
use uuid::Uuid;

use super::Outcome;
use super::repeats::Named;
use super::state::Gateway;
use super::take::{MAX_SKIPPED, receive};
use crate::now_us;
use crate::outbox::Source;

pub(super) async fn take(State(gateway): State<Gateway>, request: Request) -> Outcome {
    let received = receive(&gateway, request, Source::Http).await?;
    // The body is bounded already.
    let limits = Limits { octets: received.body.len(), ..Limits::default() };
    let mut without_id = false;
    let mut new_id = || {
        without_id = true;
        Uuid::now_v7()
    };
    let decoded = json::decode_events(&received.body, &limits, now_us(), &mut new_id);
    let decoded = decoded.map_err(|why| received.malformed(&gateway, why))?;
    if let Some(first) = decoded.skipped.first() {
        received.note_skipped(&gateway, decoded.skipped.len(), &first.why.to_string());
    }
    let skipped = decoded.skipped.iter().take(MAX_SKIPPED).map(|skipped| skipped.why.to_string()).collect();
    let named = if without_id { Named::Not } else { Named::ByIds };
    received.hand_on(&gateway, decoded.events, named, skipped)
}
