//! `/v1/users`: who is registered. The gateway puts its credentials in front.
//!
//! * `GET /v1/users`: everybody of whom this daemon knows;
//! * `PUT /v1/users/USER`: makes a user permanent;
//! * `DELETE /v1/users/USER`: takes a registration back.
//!
//! Answers are JSON. A fault is `{"error": "..."}`.

use std::time::Duration;

use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use ocbus_resolver::Cn;
use serde::Serialize;

use super::Registrar;
use super::core::{Entry, Refusal, State};

/// How long an answer waits for Dovecot's.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Serialize)]
struct List {
    /// The daemon that answers.
    daemon: String,
    users: Vec<Entry>,
}

#[derive(Serialize)]
struct Fault {
    error: String,
}

#[derive(Serialize)]
struct Gone<'a> {
    user: &'a str,
    state: &'static str,
}

/// The routes, for any router's state.
pub fn router<S: Clone + Send + Sync + 'static>(registrar: Registrar) -> Router<S> {
    Router::new()
        .route("/v1/users", get(list))
        .route("/v1/users/{user}", put(register).delete(unregister))
        .with_state(registrar)
}

async fn list(Shared(registrar): Shared<Registrar>) -> Response {
    // Of many users it takes long, and deliveries wait for no list.
    let list = move || Json(List { daemon: registrar.daemon(), users: registrar.list() }).into_response();
    match tokio::task::spawn_blocking(list).await {
        Ok(answer) => answer,
        Err(error) => fault(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn register(Shared(registrar): Shared<Registrar>, Path(user): Path<String>) -> Response {
    let cn = match Cn::new(&user) {
        Ok(cn) => cn,
        Err(error) => return fault(StatusCode::BAD_REQUEST, error.to_string()),
    };
    match registrar.register(&cn, PATIENCE).await {
        Ok(Some(entry)) => told(entry),
        Ok(None) => fault(StatusCode::CONFLICT, format!("'{cn}' was unregistered meanwhile")),
        Err(refusal) => refused(&refusal),
    }
}

async fn unregister(Shared(registrar): Shared<Registrar>, Path(user): Path<String>) -> Response {
    let cn = match Cn::new(&user) {
        Ok(cn) => cn,
        Err(error) => return fault(StatusCode::BAD_REQUEST, error.to_string()),
    };
    match registrar.unregister(&cn, PATIENCE).await {
        Ok(None) => Json(Gone { user: cn.as_str(), state: "unregistered" }).into_response(),
        Ok(Some(entry)) => told(entry),
        Err(refusal) => refused(&refusal),
    }
}

/// How it stands: 200 when it is done, 202 when it goes on, 502 when Dovecot did not do it.
fn told(entry: Entry) -> Response {
    let status = match (entry.state, &entry.fault) {
        (State::Registered | State::Barred, _) => StatusCode::OK,
        (_, Some(_)) => StatusCode::BAD_GATEWAY,
        (_, None) => StatusCode::ACCEPTED,
    };
    (status, Json(entry)).into_response()
}

fn refused(refusal: &Refusal) -> Response {
    let status = match refusal {
        Refusal::NotThere(_) => StatusCode::NOT_FOUND,
        Refusal::Listed(_) | Refusal::Elsewhere { .. } | Refusal::Session { .. } => StatusCode::CONFLICT,
        Refusal::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
    };
    fault(status, refusal.to_string())
}

fn fault(status: StatusCode, error: String) -> Response {
    (status, Json(Fault { error })).into_response()
}
