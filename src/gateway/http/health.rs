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

/// Names that are made up, to have one for each server.
const NAMES: usize = 256;

/// What is being told.
#[derive(Debug, Serialize)]
struct Told {
    /// `ok`; `degraded` when the daemon works for some users; `failing` when it does not work.
    status: &'static str,
    /// `ok`; `partly-unreachable`: one of several servers, whose users' events are held; `unreachable`: all of them, and
    /// nobody is told of anything yet.
    resolver: &'static str,
    /// `ok`, or `full`: events are refused.
    outbox: &'static str,
}

/// Whether the daemon does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) struct Health {
    /// The resolver answers.
    pub(in crate::gateway) resolver: Reach,
    /// The outbox has no room.
    pub(in crate::gateway) full: bool,
}

/// How much of the resolver answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Reach {
    /// Every server.
    All,
    /// Some of several: other users' events are held.
    Some,
    /// None.
    None,
}

impl Health {
    /// Whether it works for somebody: taking it out of service would help nobody.
    fn works(self) -> bool {
        self.resolver != Reach::None && !self.full
    }
}

/// When the resolver was asked, and whether it answered.
pub(super) type LastLook = tokio::sync::Mutex<Option<(Instant, Reach)>>;

pub(super) async fn healthz(State(gateway): State<Gateway>) -> Response {
    let health = look(&gateway).await;
    let told = Told {
        status: match health {
            Health { resolver: Reach::Some, full: false } => "degraded",
            health if health.works() => "ok",
            _ => "failing",
        },
        resolver: match health.resolver {
            Reach::All => "ok",
            Reach::Some => "partly-unreachable",
            Reach::None => "unreachable",
        },
        outbox: if health.full { "full" } else { "ok" },
    };
    let status = if health.works() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer::json(status, &told)
}

/// How it is now, or was a moment ago.
pub(in crate::gateway) async fn look(gateway: &Gateway) -> Health {
    Health { resolver: reach(gateway).await, full: gateway.outbox_is_full() }
}

/// Asks at most once in [`FRESH`]; whoever comes meanwhile waits for the same answer.
async fn reach(gateway: &Gateway) -> Reach {
    let mut last = gateway.last_look().lock().await;
    if let Some((at, reach)) = *last
        && at.elapsed() < FRESH
    {
        return reach;
    }
    let resolver = gateway.resolver();
    // Which server has a name is chance: among so many there is one for each server.
    let names = (0..NAMES).filter_map(|number| Cn::new(&format!("ocbus-health-{number}")).ok()).collect();
    let asked: Vec<Cn> =
        resolver.round_trips(names).into_iter().filter_map(|part| part.into_iter().next()).collect();
    let answers = resolver.lookup_many(&asked).await;
    let failed = answers.iter().filter(|answer| answer.is_err()).count();
    let reach = match failed {
        0 => Reach::All,
        failed if failed < answers.len() => Reach::Some,
        _ => Reach::None,
    };
    *last = Some((Instant::now(), reach));
    reach
}
