//! Server-sent events: the page's, and traces. Whoever follows is bounded in number, keeps nothing waiting, and is
//! let go in good order when the daemon stops.
//!
//! A page is sent what it looks like now, so that a slow one only sees less of what was in between. Of traces nothing
//! may be missing: whoever is too slow for them is told how many he missed, and let go.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::header::{CACHE_CONTROL, HeaderName};
use axum::http::{HeaderValue, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::{self, Stream};
use ocbus_resolver::Cn;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use super::{Entered, Status, html};
use crate::gateway::http::{Refusal, Ticket};
use crate::outbox::Trace;

/// How often a page is brought up to date.
const TICK: Duration = Duration::from_millis(500);
/// The longest silence, before a comment: proxies close what is silent, and a peer that is gone is noticed.
const SILENCE: Duration = Duration::from_secs(15);

/// A stream with its place among the others.
struct Follower {
    status: Status,
    stop: watch::Receiver<bool>,
    ticket: Ticket,
    renewed: watch::Receiver<()>,
    spoke: Instant,
    silence: Duration,
    _entered: Entered,
}

impl Follower {
    fn enter(status: Status, ticket: Ticket) -> Result<Follower, Refusal> {
        let settings = status.0.gateway.settings();
        let http = &settings.settings.http;
        let Some(entered) = status.enter() else {
            let why =
                format!("{} streams are followed: expected at most http.max_streams", http.max_streams.get());
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why));
        };
        // A connection that is silent for http.idle_timeout_s is closed.
        let silence = SILENCE.min(http.idle_timeout_s.s() / 2);
        let stop = status.0.stop.clone();
        let mut renewed = status.0.gateway.renewed();
        // They may have changed since it was let in.
        renewed.mark_changed();
        Ok(Follower { status, stop, ticket, renewed, spoke: Instant::now(), silence, _entered: entered })
    }

    /// Comes when it must be let go: the daemon stops, or the settings do not let it in any more.
    async fn end(&mut self) {
        loop {
            tokio::select! {
                _ = self.stop.wait_for(|stop| *stop) => return,
                Ok(()) = self.renewed.changed() => {
                    if !self.ticket.still_lets_look(&self.status.0.gateway) {
                        return;
                    }
                }
            }
        }
    }
}

fn answer(stream: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Response {
    let mut response = Sse::new(stream).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would hold it back.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

fn event(name: &str, data: &impl Serialize) -> Event {
    Event::default().event(name).data(serde_json::to_string(data).unwrap_or_default())
}

/// `GET /events`: the parts of the page that have changed, as `event: page` with `{"id of the part": "html"}`.
pub(super) async fn page(
    State(status): State<Status>,
    Extension(ticket): Extension<Ticket>,
) -> Result<Response, Refusal> {
    let follower = Follower::enter(status, ticket)?;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let start = (follower, ticks, BTreeMap::new());
    Ok(answer(stream::unfold(start, |(mut follower, mut ticks, mut shown)| async move {
        let event = next_page(&mut follower, &mut ticks, &mut shown).await?;
        follower.spoke = Instant::now();
        Some((Ok(event), (follower, ticks, shown)))
    })))
}

async fn next_page(
    follower: &mut Follower,
    ticks: &mut Interval,
    shown: &mut BTreeMap<&'static str, String>,
) -> Option<Event> {
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = follower.end() => return None,
        }
        let mut changed = BTreeMap::new();
        for (id, part) in html::parts(&follower.status.view()) {
            if shown.get(id) != Some(&part) {
                shown.insert(id, part.clone());
                changed.insert(id, part);
            }
        }
        if !changed.is_empty() {
            return Some(event("page", &changed));
        }
        if follower.spoke.elapsed() >= follower.silence {
            return Some(Event::default().comment("nothing new"));
        }
    }
}

/// What is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Only this user's.
    user: Option<String>,
}

/// How many traces were too many.
#[derive(Serialize)]
struct Missed {
    missed: u64,
}

/// `GET /v1/traces?user=bob`: each step of events, as `event: trace` with JSON; `event: ready` first, once none is
/// missed any more, and `event: missed` with `{"missed": 12}` last, when too many came.
pub(super) async fn traces(
    State(status): State<Status>,
    Extension(ticket): Extension<Ticket>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(which) = which.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let user = which.user.as_deref().map(Cn::new).transpose();
    let user = user.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("user: {error}")))?;
    let follower = Follower::enter(status, ticket)?;
    let traces = follower.status.0.gateway.outbox().traces();
    let start = Some((follower, traces, user, false));
    Ok(answer(stream::unfold(start, |state| async move {
        let (mut follower, mut traces, user, begun) = state?;
        if !begun {
            return Some((Ok(event("ready", &())), Some((follower, traces, user, true))));
        }
        let (event, last) = next_trace(&mut follower, &mut traces, user.as_ref()).await?;
        follower.spoke = Instant::now();
        Some((Ok(event), (!last).then_some((follower, traces, user, true))))
    })))
}

/// The next one, and whether it is the last.
async fn next_trace(
    follower: &mut Follower,
    traces: &mut broadcast::Receiver<Arc<Trace>>,
    user: Option<&Cn>,
) -> Option<(Event, bool)> {
    loop {
        let trace = tokio::select! {
            trace = traces.recv() => trace,
            () = sleep_until(follower.spoke + follower.silence) => {
                return Some((Event::default().comment("nothing new"), false));
            }
            () = follower.end() => return None,
        };
        match trace {
            Ok(trace) if user.is_none_or(|user| user.as_str() == trace.user) => {
                return Some((event("trace", &*trace), false));
            }
            Ok(_) => {}
            Err(RecvError::Lagged(missed)) => return Some((event("missed", &Missed { missed }), true)),
            Err(RecvError::Closed) => return None,
        }
    }
}
