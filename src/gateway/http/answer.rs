//! Answers: a status and one JSON object.

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// An answer with a JSON body.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let text = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Why a request is refused: a status and one line.
#[derive(Debug)]
pub(in crate::gateway) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) why: String,
}

impl Refusal {
    pub(in crate::gateway) fn new(status: StatusCode, why: impl ToString) -> Refusal {
        Refusal { status, why: why.to_string() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Error<'a> {
            error: &'a str,
        }

        let mut response = json(self.status, &Error { error: &self.why });
        match self.status {
            StatusCode::UNAUTHORIZED => {
                for scheme in ["Basic realm=\"ocbus\", charset=\"UTF-8\"", "Bearer realm=\"ocbus\""] {
                    response.headers_mut().append(WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
                }
            }
            // What is left of the body would be taken for the next request.
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT => {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}
