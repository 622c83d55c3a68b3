//! `/healthz`: whether the daemon does its work, for load balancers and monitors. Without credentials, so it says
//! no more than that.

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use ocbus_resolver::Cn;
use serde::Serialize;

use super::{Gateway, answer};

/// How long an answer of the resolver holds: requests without credentials must not become requests to memcached.
const FRESH: Duration = Duration::from_secs(1);

/// What is being told.
#[derive(Debug, Serialize)]
struct Told {
    /// `ok`, or `failing` when one of the others is.
    status: &'static str,
    /// `ok`, or `unreachable`: events are held, and nobody is told of them yet.
    resolver: &'static str,
    /// `ok`, or `full`: events are refused.
    outbox: &'static str,
}

/// Whether the daemon does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) struct Health {
    /// The resolver answers.
    pub(in crate::gateway) resolver: bool,
    /// The outbox has no room.
    pub(in crate::gateway) full: bool,
}

impl Health {
    pub(in crate::gateway) fn is_ok(self) -> bool {
        self.resolver && !self.full
    }
}

/// When the resolver was asked, and whether it answered.
pub(super) type LastLook = tokio::sync::Mutex<Option<(Instant, bool)>>;

pub(super) async fn healthz(State(gateway): State<Gateway>) -> Response {
    let health = look(&gateway).await;
    let told = Told {
        status: if health.is_ok() { "ok" } else { "failing" },
        resolver: if health.resolver { "ok" } else { "unreachable" },
        outbox: if health.full { "full" } else { "ok" },
    };
    let status = if health.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer::json(status, &told)
}

/// How it is now, or was a moment ago.
pub(in crate::gateway) async fn look(gateway: &Gateway) -> Health {
    Health { resolver: resolver_answers(gateway).await, full: gateway.outbox_is_full() }
}

/// Asks at most once in [`FRESH`]; whoever comes meanwhile waits for the same answer.
async fn resolver_answers(gateway: &Gateway) -> bool {
    let mut last = gateway.last_look().lock().await;
    if let Some((at, answered)) = *last
        && at.elapsed() < FRESH
    {
        return answered;
    }
    let answered = match Cn::new("ocbus-health") {
        Ok(nobody) => gateway.resolver().lookup(&nobody).await.is_ok(),
        Err(_) => false,
    };
    *last = Some((Instant::now(), answered));
    answered
}
