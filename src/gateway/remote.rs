//! The other end of the HTTP end-points, for our own commands: `/v1/users` for `ocbus users`, and `/v1/traces`, which
//! [`Following`](super::Following) reads.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use ocbus_resolver::Cn;
use serde::Deserialize;

use super::settings::Secret;
use crate::registration::doveadm::chain;
use crate::registration::tls;
use crate::registration::{Entry, TlsError};

/// The largest answer: some 200 octets a user.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// A daemon, and how to get in.
#[derive(Debug)]
pub struct Remote {
    url: Uri,
    authorization: Option<HeaderValue>,
    limit: Duration,
    authorities: Option<std::path::PathBuf>,
}

/// Who is registered, as a daemon tells it.
#[derive(Debug, Clone, Deserialize)]
pub struct Roll {
    /// The daemon that answered.
    pub daemon: String,
    /// Everybody of whom it knows.
    pub users: Vec<Entry>,
}

/// What became of a request for one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// How it stands now.
    Entry(Entry),
    /// The user is not registered any more.
    Gone,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// A credential that cannot stand in a header.
    #[error("credentials: expected login:password or a token, in ASCII without control characters")]
    Credentials,
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No connection, or a broken one.
    #[error("{url}: {why}")]
    Connection {
        /// The daemon.
        url: String,
        /// Why.
        why: String,
    },
    /// No answer in time.
    #[error("{url}: no answer within {} s", .limit.as_secs())]
    Deadline {
        /// The daemon.
        url: String,
        /// The limit.
        limit: Duration,
    },
    /// The daemon refuses, or is none.
    #[error("{url}: {status}: {why}")]
    Refused {
        /// The daemon.
        url: String,
        /// HTTP's status.
        status: u16,
        /// What it said.
        why: String,
    },
}

#[derive(Deserialize)]
struct Fault {
    error: String,
}

impl Remote {
    /// A daemon at `http://host:port` or `https://...`. `credentials`: `login:password`, or a token without a colon.
    /// `authorities`: for https; none: the system's.
    pub fn new(
        url: Uri,
        credentials: Option<&Secret>,
        authorities: Option<&Path>,
        limit: Duration,
    ) -> Result<Remote, RemoteError> {
        let header = |words: &Secret| match words.expose().contains(':') {
            true => format!("Basic {}", STANDARD.encode(words.expose())),
            false => format!("Bearer {}", words.expose()),
        };
        let authorization = credentials.map(|words| HeaderValue::try_from(header(words))).transpose();
        let mut authorization = authorization.map_err(|_| RemoteError::Credentials)?;
        authorization.iter_mut().for_each(|value| value.set_sensitive(true));
        Ok(Remote { url, authorization, limit, authorities: authorities.map(Path::to_path_buf) })
    }

    /// Everybody.
    pub async fn list(&self) -> Result<Roll, RemoteError> {
        let (status, body) = self.ask(Method::GET, "/v1/users").await?;
        serde_json::from_slice(&body).map_err(|error| self.refused(status, &error.to_string()))
    }

    /// Makes a user permanent.
    pub async fn register(&self, cn: &Cn) -> Result<Told, RemoteError> {
        self.change(Method::PUT, cn).await
    }

    /// Takes a registration back.
    pub async fn unregister(&self, cn: &Cn) -> Result<Told, RemoteError> {
        self.change(Method::DELETE, cn).await
    }

    async fn change(&self, method: Method, cn: &Cn) -> Result<Told, RemoteError> {
        let (status, body) = self.ask(method, &format!("/v1/users/{}", encoded(cn.as_str()))).await?;
        match serde_json::from_slice(&body) {
            Ok(entry) => Ok(Told::Entry(entry)),
            Err(_) if status == 200 => Ok(Told::Gone),
            Err(error) => Err(self.refused(status, &error.to_string())),
        }
    }

    /// An answer with an entry in it is one whatever its status; all others must be 200.
    async fn ask(&self, method: Method, path: &str) -> Result<(u16, Bytes), RemoteError> {
        let exchange = async {
            let answer = self.begin(method, path).await?;
            let status = answer.status().as_u16();
            Ok::<_, RemoteError>((status, self.body(answer.into_body()).await?))
        };
        let (status, body) = match tokio::time::timeout(self.limit, exchange).await {
            Ok(answer) => answer?,
            Err(_) => return Err(self.late()),
        };
        match status {
            200 | 202 | 502 => Ok((status, body)),
            _ => Err(self.fault(status, &body)),
        }
    }

    /// An answer whose body goes on: one user's traces, as server-sent events.
    pub(crate) async fn follow(&self, cn: &Cn) -> Result<Incoming, RemoteError> {
        let path = format!("/v1/traces?user={}", encoded(cn.as_str()));
        let exchange = async {
            let answer = self.begin(Method::GET, &path).await?;
            match answer.status().as_u16() {
                200 => Ok(answer.into_body()),
                404 => Err(self.refused(404, "it has no traces: expected an `ocbus serve` of this version")),
                status => Err(self.fault(status, &self.body(answer.into_body()).await?)),
            }
        };
        tokio::time::timeout(self.limit, exchange).await.unwrap_or_else(|_| Err(self.late()))
    }

    fn late(&self) -> RemoteError {
        RemoteError::Deadline { url: self.url.to_string(), limit: self.limit }
    }

    /// Silence for so long.
    pub(crate) fn silent(&self, limit: Duration) -> RemoteError {
        RemoteError::Deadline { url: self.url.to_string(), limit }
    }

    pub(crate) fn broken(&self, error: &dyn std::error::Error) -> RemoteError {
        RemoteError::Connection { url: self.url.to_string(), why: chain(error) }
    }

    async fn body(&self, body: Incoming) -> Result<Bytes, RemoteError> {
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        Ok(body.map_err(|error| self.broken(&*error))?.to_bytes())
    }

    /// The head of the answer.
    async fn begin(&self, method: Method, path: &str) -> Result<Response<Incoming>, RemoteError> {
        let url = self.url.to_string();
        let https = self.url.scheme_str() == Some("https");
        let authorities = self.authorities.as_deref().unwrap_or(Path::new(tls::SYSTEM));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config((*tls::client(https.then_some(authorities))?).clone())
            .https_or_http()
            .enable_http1()
            .build();
        let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
        let mut request =
            Request::builder().method(method).uri(format!("{}{path}", url.trim_end_matches('/')));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Empty::new()).map_err(|error| self.broken(&error))?;
        client.request(request).await.map_err(|error| match (error.is_connect(), self.broken(&error)) {
            (true, RemoteError::Connection { url, why }) => {
                RemoteError::Connection { url, why: format!("{why}: is `ocbus serve` running there?") }
            }
            (_, other) => other,
        })
    }

    /// Why it is none of the answers that are expected.
    fn fault(&self, status: u16, body: &[u8]) -> RemoteError {
        let told = serde_json::from_slice(body).map(|fault: Fault| fault.error);
        let beginning = body.get(..200).unwrap_or(body);
        let told =
            told.unwrap_or_else(|_| String::from_utf8_lossy(beginning).trim().escape_debug().to_string());
        let why = match status {
            401 => format!("{told}: expected credentials of http.credentials"),
            404 if told.contains("nothing here") => {
                "this daemon registers nobody: see [registration]".to_owned()
            }
            _ => told,
        };
        self.refused(status, &why)
    }

    pub(crate) fn refused(&self, status: u16, why: &str) -> RemoteError {
        RemoteError::Refused { url: self.url.to_string(), status, why: why.to_owned() }
    }
}

/// A name as one segment of a path.
fn encoded(name: &str) -> String {
    let mut segment = String::with_capacity(name.len());
    for octet in name.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' => {
                segment.push(char::from(octet))
            }
            other => segment.push_str(&format!("%{other:02X}")),
        }
    }
    match segment.as_str() {
        // Dots alone would be taken for folders.
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => segment,
    }
}
