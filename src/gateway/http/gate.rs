//! Lets those through who have a credential.

use std::net::SocketAddr;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::answer::Refusal;
use super::state::{Count, Gateway};

/// Who is at the other end; in each request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

pub(super) async fn pass(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    let settings = gateway.settings();
    match settings.credentials.check(request.headers().get(AUTHORIZATION)) {
        Ok(_) => next.run(request).await,
        Err(why) => {
            let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
            gateway.count(Count::Unauthorized);
            if let Some(passed_over) = gateway.may_log(Count::Unauthorized) {
                tracing::warn!(event = "unauthorized", ?peer, path = request.uri().path(), reason = %why, passed_over,
                    "request refused");
            }
            Refusal::new(StatusCode::UNAUTHORIZED, why).into_response()
        }
    }
}
