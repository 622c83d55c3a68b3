//! A request's body: bounded in octets and in time.

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use axum::http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use std::time::Duration;

use super::answer::Refusal;

/// What of a body that is too large is read and thrown away, so that its sender gets to read the answer: a connection
/// that is closed with unread octets in it is reset, and the answer with it.
const DISCARD_OCTETS: usize = 32 << 20;

/// Reads it whole.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    max_octets: usize,
    timeout: Duration,
) -> Result<Bytes, Refusal> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let too_large = |octets: String| {
        Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("body of {octets} octets: expected at most {max_octets}"),
        )
    };
    if let Some(length) = length.filter(|length| *length > max_octets as u64) {
        // Whoever waits for 100 Continue has not begun, and will not.
        if !headers.contains_key(EXPECT) {
            discard(body, timeout).await;
        }
        return Err(too_large(length.to_string()));
    }
    let mut limited = Limited::new(body, max_octets);
    let whole = async {
        let collected = (&mut limited).collect().await;
        collected.map(http_body_util::Collected::to_bytes)
    };
    match tokio::time::timeout(timeout, whole).await {
        Ok(Ok(octets)) => Ok(octets),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(too_large(format!("more than {max_octets}")))
        }
        Ok(Err(error)) => Err(Refusal::new(StatusCode::BAD_REQUEST, format!("body: {error}"))),
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("body: not complete within {} ms", timeout.as_millis()),
        )),
    }
}

async fn discard(body: Body, timeout: Duration) {
    let mut body = Limited::new(body, DISCARD_OCTETS);
    let all = async { while let Some(Ok(_)) = body.frame().await {} };
    // Whether all of it came makes no difference to the answer.
    let _ = tokio::time::timeout(timeout, all).await;
}
