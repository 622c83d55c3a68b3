//! Lets those through who have a credential that is good for what they ask.

use std::net::SocketAddr;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::answer::Refusal;
use super::state::{Count, Gateway};
use crate::gateway::settings::May;

/// Who is at the other end; in each request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// A gate in front of some routes.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) gateway: Gateway,
    pub(super) need: Need,
}

/// What one must be allowed to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Need {
    Send,
    Look,
    /// To look, or to register where the request changes something.
    Users,
}

/// What a request came in by, for those that go on while the settings change.
#[derive(Debug, Clone)]
pub(in crate::gateway) struct Ticket {
    authorization: Option<HeaderValue>,
    peer: Option<Peer>,
}

impl Ticket {
    /// Whether it would still be let in, to look.
    pub(in crate::gateway) fn still_lets_look(&self, gateway: &Gateway) -> bool {
        let settings = gateway.settings();
        let trusted = &settings.settings.http.trusted_networks;
        let found = settings.credentials.check(self.authorization.as_ref());
        self.peer.is_none_or(|peer| trusted.contain(peer.0.ip()))
            && found.is_ok_and(|found| found.is_none_or(|(_, may)| may.have(May::Look)))
    }
}

pub(super) async fn pass(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let gateway = &gate.gateway;
    let settings = gateway.settings();
    let need = match gate.need {
        Need::Send => May::Send,
        Need::Users if !request.method().is_safe() => May::Register,
        Need::Look | Need::Users => May::Look,
    };
    let (count, refusal) = if comes_from_another_site(request.method(), request.headers()) {
        let why = "sent by a page of another site: expected a request of this one, or of no page";
        (Count::Forbidden, Refusal::new(StatusCode::FORBIDDEN, why))
    } else {
        match settings.credentials.check(request.headers().get(AUTHORIZATION)) {
            Ok(Some((name, may))) if !may.have(need) => {
                let why = format!("the credential '{name}' {may}: expected one that may {need}");
                (Count::Forbidden, Refusal::new(StatusCode::FORBIDDEN, why))
            }
            Ok(_) => {
                let authorization = request.headers().get(AUTHORIZATION).cloned();
                let peer = request.extensions().get::<Peer>().copied();
                request.extensions_mut().insert(Ticket { authorization, peer });
                return next.run(request).await;
            }
            Err(why) => (Count::Unauthorized, Refusal::new(StatusCode::UNAUTHORIZED, why)),
        }
    };
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    gateway.count(count);
    if let Some(passed_over) = gateway.may_log(count) {
        let (event, path, why) = (count.name(), request.uri().path(), &refusal.why);
        tracing::warn!(event, ?peer, path, reason = %why, passed_over, "request refused");
    }
    refusal.into_response()
}

/// Whether a browser says that another site's page made the request. A browser sends the login of the status page with
/// any request to us, and a form needs nobody's leave; what is not a browser says nothing of the kind. To follow a
/// link to us is no harm.
fn comes_from_another_site(method: &Method, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("sec-fetch-site") {
        Some("same-origin" | "none") => false,
        Some(_) => !(method.is_safe() && text("sec-fetch-mode") == Some("navigate")),
        // An older browser, or one that comes without TLS. "null" is nobody's.
        None => headers.get(ORIGIN).is_some_and(|origin| {
            let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
            let ours = headers.get(HOST).and_then(|host| host.to_str().ok());
            match (origin.as_ref().and_then(Uri::authority), ours) {
                (Some(origin), Some(host)) => !origin.as_str().eq_ignore_ascii_case(host),
                _ => true,
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_sites_page_sends_is_known() {
        let other = |method: Method, headers: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            map.insert(HOST, HeaderValue::from_static("mail1:8009"));
            for (name, value) in headers {
                map.insert(*name, HeaderValue::from_static(value));
            }
            comes_from_another_site(&method, &map)
        };
        for headers in [
            &[][..],
            &[("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
            &[("origin", "http://mail1:8009")],
            &[("origin", "http://proxy"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(!other(Method::POST, headers), "{headers:?}");
        }
        for headers in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "navigate")],
            &[("origin", "http://mail1")],
            &[("origin", "null")],
            &[("origin", "https://evil.example")],
        ] {
            assert!(other(Method::POST, headers), "{headers:?}");
        }
        let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert!(!other(Method::GET, &link), "a link to the page");
        assert!(other(Method::GET, &link[..1]), "an image, or a script's request");
    }
}
