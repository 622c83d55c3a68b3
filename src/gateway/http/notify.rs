//! `PUT` (or `POST`) `/preliminary/http-notify/v1/notify`: Dovecot's OX driver, and EGroupware's Lua script.

use axum::extract::{Request, State};
use ocbus_wire::ox::OxNotification;
use uuid::Uuid;

use super::Outcome;
use super::repeats::Named;
use super::state::Gateway;
use super::take::receive;
use crate::now_us;
use crate::outbox::Source;

pub(super) async fn take(State(gateway): State<Gateway>, request: Request) -> Outcome {
    let received = receive(&gateway, request, Source::Ox).await?;
    let events = OxNotification::decode(&received.body).and_then(|notification| {
        let user = notification.user.clone();
        notification.into_events(&user, now_us(), &mut Uuid::now_v7)
    });
    let events = events.map_err(|why| received.malformed(&gateway, why))?;
    received.hand_on(&gateway, events, Named::ByBody(&received.body), Vec::new())
}
