//! What all requests with events have in common: a bounded body, users who become cns, repetitions, the outbox.

use std::time::Instant;

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use ocbus_wire::Event;
use serde::Serialize;

use super::Outcome;
use super::answer::{self, Refusal};
use super::body;
use super::gate::Peer;
use super::repeats::Named;
use super::state::{Count, Gateway};
use crate::now_us;
use crate::outbox::Source;

/// A request's body and where it came from.
pub(super) struct Received {
    pub(super) body: Bytes,
    peer: Option<Peer>,
    source: Source,
}

/// What a request has to say, told in the answer.
#[derive(Debug, Default, Serialize)]
struct Taken {
    /// Events that are on their way.
    accepted: usize,
    /// The request came already; nothing was done.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    repeated: bool,
    /// What was left out, a line for each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    skipped: Vec<String>,
}

/// Most lines about what was left out.
pub(super) const MAX_SKIPPED: usize = 16;

/// Reads the body.
pub(super) async fn receive(
    gateway: &Gateway,
    request: Request,
    source: Source,
) -> Result<Received, Refusal> {
    let limits = &gateway.settings().settings.http;
    let (head, body) = request.into_parts();
    let peer = head.extensions.get::<Peer>().copied();
    let body =
        body::read(&head.headers, body, limits.max_body_octets.count(), limits.body_timeout_ms.ms()).await;
    match body {
        Ok(body) => Ok(Received { body, peer, source }),
        Err(refusal) => {
            let count = match refusal.status {
                StatusCode::PAYLOAD_TOO_LARGE => Count::TooLarge,
                StatusCode::REQUEST_TIMEOUT => Count::Slow,
                _ => Count::Malformed,
            };
            Err(refused(gateway, count, peer, source, refusal))
        }
    }
}

impl Received {
    /// A body that makes no sense.
    pub(super) fn malformed(&self, gateway: &Gateway, why: impl ToString) -> Refusal {
        let refusal = Refusal::new(StatusCode::BAD_REQUEST, why);
        refused(gateway, Count::Malformed, self.peer, self.source, refusal)
    }

    /// Gives the events to the outbox, and answers. Their users are still as the sender named them; `named` says by what
    /// the request is known when it comes again.
    pub(super) fn hand_on(
        &self,
        gateway: &Gateway,
        events: Vec<Event>,
        named: Named<'_>,
        mut skipped: Vec<String>,
    ) -> Outcome {
        let settings = gateway.settings();
        let mut known = Vec::with_capacity(events.len());
        for mut event in events {
            match settings.settings.users.cn(&event.user) {
                Ok(cn) => {
                    event.user = cn.as_str().to_owned();
                    if let Some(registrar) = gateway.registrar() {
                        registrar.saw(&cn, now_us());
                    }
                    known.push(event);
                }
                Err(why) => {
                    gateway.count(Count::NoUser);
                    if let Some(passed_over) = gateway.may_log(Count::NoUser) {
                        let user = event.user.escape_debug();
                        tracing::warn!(event = "no_user", %user, reason = %why, passed_over, "event left out");
                    }
                    if skipped.len() < MAX_SKIPPED {
                        skipped.push(format!("user '{}': {why}", event.user.escape_debug()));
                    }
                }
            }
        }
        if known.is_empty() {
            return Ok(taken(Taken { skipped, ..Taken::default() }));
        }
        let http = &settings.settings.http;
        let (now, window) = (Instant::now(), http.repeat_window_s.s());
        let fingerprint = gateway.fingerprints().of(&known, named);
        // Held until it is accepted and remembered, so that two at the same time do not both pass; nothing waits in it.
        let mut repeats = gateway.repeats();
        if fingerprint.is_some_and(|fingerprint| repeats.has(fingerprint, now, window)) {
            drop(repeats);
            gateway.count(Count::Repeated);
            if let Some(passed_over) = gateway.may_log(Count::Repeated) {
                let (peer, source) = (self.peer(), self.source.name());
                tracing::info!(event = "repeated", ?peer, source, passed_over, "request came again");
            }
            return Ok(taken(Taken { repeated: true, skipped, ..Taken::default() }));
        }
        let accepted = known.len();
        let user = known.first().map(|event| event.user.clone());
        if let Err(full) = gateway.outbox().accept(self.source, known) {
            drop(repeats);
            let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, full);
            return Err(refused(gateway, Count::Full, self.peer, self.source, refusal));
        }
        if let Some(fingerprint) = fingerprint {
            repeats.remember(fingerprint, now, window, http.repeat_requests.count());
        }
        drop(repeats);
        gateway.count(Count::Accepted);
        let (peer, source) = (self.peer(), self.source.name());
        tracing::debug!(event = "accepted", ?peer, source, user, events = accepted, "on their way");
        Ok(taken(Taken { accepted, skipped, ..Taken::default() }))
    }

    /// Counts events that make no sense, and says so of the first.
    pub(super) fn note_skipped(&self, gateway: &Gateway, count: usize, first: &str) {
        gateway.add(Count::Skipped, count as u64);
        if let Some(passed_over) = gateway.may_log(Count::Skipped) {
            let (peer, source) = (self.peer(), self.source.name());
            tracing::warn!(event = "skipped", ?peer, source, count, reason = %first, passed_over, "events left out");
        }
    }

    fn peer(&self) -> Option<std::net::SocketAddr> {
        self.peer.map(|peer| peer.0)
    }
}

fn taken(taken: Taken) -> Response {
    answer::json(StatusCode::OK, &taken)
}

/// Counts a refusal, with a line in the log at most once a second.
fn refused(gateway: &Gateway, count: Count, peer: Option<Peer>, source: Source, refusal: Refusal) -> Refusal {
    gateway.count(count);
    if let Some(passed_over) = gateway.may_log(count) {
        let (peer, source) = (peer.map(|peer| peer.0), source.name());
        let (status, reason) = (refusal.status.as_u16(), &refusal.why);
        tracing::warn!(event = "refused", ?peer, source, status, %reason, passed_over, "request refused");
    }
    refusal
}
