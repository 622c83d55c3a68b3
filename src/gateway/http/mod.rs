//! The HTTP end-points.
//!
//! * `notify`: what Dovecot's OX driver sends, `PUT /preliminary/http-notify/v1/notify`;
//! * `events`: `POST /v1/events`, for our Lua script and anybody else;
//! * `/v1/users`, where users are registered with Dovecot: `crate::registration`;
//! * `health`: `GET /healthz`;
//! * `requests`: how many requests to which path were answered how;
//! * `gate`: who may send; `body`: bounded bodies; `repeats`: what comes twice; `answer`: how we answer.
//!
//! Connections and their time limits are `connections`'s.

mod answer;
mod body;
pub(super) mod connections;
mod events;
mod gate;
mod health;
mod notify;
mod patience;
mod repeats;
mod requests;
mod state;
mod take;

pub(in crate::gateway) use answer::Refusal;
pub use gate::Peer;
pub(in crate::gateway) use gate::Ticket;
use gate::{Gate, Need};
pub(in crate::gateway) use health::{Health, Reach, look};
pub use state::{Count, Gateway, HttpStatistics};

use axum::Router;
use axum::http::StatusCode;
use axum::middleware;
use axum::response::Response;
use axum::routing::{get, post, put};

/// All end-points: ours, those of the `status` page, `/metrics` and traces, and those where `users` are registered.
pub fn router(gateway: &Gateway, status: Router<Gateway>, users: Router<Gateway>) -> Router {
    let mut send = Router::new().route("/v1/events", post(events::take));
    for path in &gateway.settings().settings.http.notify_paths {
        send = send.route(path.as_str(), put(notify::take).post(notify::take));
    }
    // Of a router without routes there would be none to put it in front of.
    let behind = |need, routes: Router<Gateway>| match routes.has_routes() {
        true => {
            let gate = Gate { gateway: gateway.clone(), need };
            routes.route_layer(middleware::from_fn_with_state(gate, gate::pass))
        }
        false => routes,
    };
    behind(Need::Send, send)
        .merge(behind(Need::Look, status))
        .merge(behind(Need::Users, users))
        .route("/healthz", get(health::healthz))
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(gateway.clone(), requests::count))
        .with_state(gateway.clone())
}

async fn nothing_here() -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "nothing here: expected /preliminary/http-notify/v1/notify, /v1/events, or / with a browser",
    )
}

async fn wrong_method() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method: see the header Allow")
}

/// What a handler gives.
type Outcome = Result<Response, Refusal>;
