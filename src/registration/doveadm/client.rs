//! The client: hyper's connection pool, one deadline for everything, several servers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;

use super::codec::{ApiError, Auth, Command, CommandError, PATH, Value, body, outcomes};
use crate::registration::endpoints::Endpoints;

/// The largest answer that is read. One outcome takes some 60 octets and the value.
const MAX_ANSWER: usize = 1024 * 1024;
/// Dovecot closes an idle connection of its API after a minute or so; we close it before.
const IDLE: Duration = Duration::from_secs(20);

/// How Dovecot's API is reached.
#[derive(Debug, Clone)]
pub struct DoveadmConfig {
    /// Equal servers, `http://host:port` or `https://host:port`: any of them can serve any user.
    pub endpoints: Vec<Uri>,
    /// How we prove who we are.
    pub auth: Auth,
    /// Requests that are under way at once, and idle connections that are kept to each server.
    pub pool_size: usize,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long an answer may take, once it is asked for.
    pub read_timeout: Duration,
    /// How long a request may take at all, whatever servers are tried.
    pub deadline: Duration,
    /// How long a server that failed is left aside.
    pub retry: Duration,
    /// For https.
    pub tls: Arc<ClientConfig>,
}

/// Why a request has no outcomes. What it would have done may be done or not; every command can be repeated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DoveadmError {
    /// All servers failed less than their time aside ago: nobody was asked.
    #[error("DoveAdm: every endpoint failed a moment ago")]
    AllAside,
    /// The whole deadline is over.
    #[error("DoveAdm: no answer within {} ms", .0.as_millis())]
    Deadline(Duration),
    /// A server was reached and did not answer in time.
    #[error("DoveAdm {endpoint}: no answer within {} ms", .limit.as_millis())]
    Silent {
        /// The server.
        endpoint: String,
        /// The time limit.
        limit: Duration,
    },
    /// The connection did not come about, or broke.
    #[error("DoveAdm {endpoint}: {why}")]
    Connection {
        /// The server.
        endpoint: String,
        /// Why, as far down as it is known.
        why: String,
    },
    /// The answer is too long.
    #[error("DoveAdm {endpoint}: an answer of more than {MAX_ANSWER} octets")]
    TooLong {
        /// The server.
        endpoint: String,
    },
    /// It is not what the API answers, or it refuses us.
    #[error("DoveAdm {endpoint}: {source}")]
    Api {
        /// The server.
        endpoint: String,
        /// What it said.
        #[source]
        source: ApiError,
    },
}

impl DoveadmError {
    /// A server did what it was asked, and said what we cannot use.
    fn is_an_answer(&self) -> bool {
        self.is_unreadable() || matches!(self, DoveadmError::Api { source: ApiError::BadRequest(_), .. })
    }

    /// What stands in a user's mailbox cannot be read: it is nobody else's.
    pub(in crate::registration) fn is_unreadable(&self) -> bool {
        matches!(
            self,
            DoveadmError::TooLong { .. } | DoveadmError::Api { source: ApiError::Unreadable(_), .. }
        )
    }
}

type Connector = HttpsConnector<HttpConnector>;

/// A client of the DoveAdm API. Clones share the connections.
#[derive(Clone)]
pub struct Doveadm {
    shared: Arc<Shared>,
}

struct Shared {
    config: DoveadmConfig,
    authorization: HeaderValue,
    client: Client<Connector, Full<Bytes>>,
    endpoints: Mutex<Endpoints>,
    permits: Semaphore,
}

impl std::fmt::Debug for Doveadm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doveadm").field("endpoints", &self.shared.config.endpoints).finish_non_exhaustive()
    }
}

impl Doveadm {
    /// A client; connects to nobody yet. An error when the key or password cannot stand in a header.
    pub fn new(config: DoveadmConfig) -> Result<Doveadm, hyper::header::InvalidHeaderValue> {
        let mut authorization = HeaderValue::try_from(config.auth.header())?;
        authorization.set_sensitive(true);
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(config.connect_timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config((*config.tls).clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(config.pool_size)
            .build(connector);
        let endpoints = Mutex::new(Endpoints::new(config.endpoints.len(), config.retry));
        let permits = Semaphore::new(config.pool_size.max(1));
        Ok(Doveadm { shared: Arc::new(Shared { config, authorization, client, endpoints, permits }) })
    }

    /// Its servers, for people.
    pub(in crate::registration) fn endpoints(&self) -> String {
        let endpoints: Vec<String> = self.shared.config.endpoints.iter().map(ToString::to_string).collect();
        endpoints.join(", ")
    }

    /// How many servers there are, and how many of them are left aside.
    pub(in crate::registration) fn aside(&self) -> (u64, u64) {
        self.shared.endpoints().aside()
    }

    /// A user's value under `key` on the mailbox `""`; empty when there is none.
    pub async fn get(&self, user: &str, key: &str) -> Result<Result<Value, CommandError>, DoveadmError> {
        self.one(Command::Get { user, key }).await
    }

    /// Sets a user's value.
    pub async fn set(
        &self,
        user: &str,
        key: &str,
        value: &str,
    ) -> Result<Result<Value, CommandError>, DoveadmError> {
        self.one(Command::Set { user, key, value }).await
    }

    /// Takes a user's value away; that there is none is no error.
    pub async fn unset(&self, user: &str, key: &str) -> Result<Result<Value, CommandError>, DoveadmError> {
        self.one(Command::Unset { user, key }).await
    }

    /// The keys that a user has, without `/private/`.
    pub async fn list(&self, user: &str) -> Result<Result<Value, CommandError>, DoveadmError> {
        self.one(Command::List { user }).await
    }

    async fn one(&self, command: Command<'_>) -> Result<Result<Value, CommandError>, DoveadmError> {
        let mut outcomes = self.run(&[command]).await?;
        Ok(outcomes.pop().unwrap_or(Ok(Value::default())))
    }

    /// Does these commands in one request, one after the other; an outcome for each.
    pub(in crate::registration) async fn run(
        &self,
        commands: &[Command<'_>],
    ) -> Result<Vec<Result<Value, CommandError>>, DoveadmError> {
        // Whoever waits here waits for others' deadlines. The semaphore is never closed.
        let _permit = self.shared.permits.acquire().await;
        let deadline = self.shared.config.deadline;
        match timeout(deadline, self.try_in_turn(commands)).await {
            Ok(result) => result,
            Err(_) => Err(DoveadmError::Deadline(deadline)),
        }
    }

    async fn try_in_turn(
        &self,
        commands: &[Command<'_>],
    ) -> Result<Vec<Result<Value, CommandError>>, DoveadmError> {
        let shared = &self.shared;
        let request = body(commands)
            .map_err(|source| DoveadmError::Api { endpoint: "(request)".to_owned(), source })?;
        let request = Bytes::from(request);
        let order = shared.endpoints().order(Instant::now());
        let mut failure = DoveadmError::AllAside;
        for index in order {
            let Some(endpoint) = shared.config.endpoints.get(index) else { continue };
            let result = shared.ask(endpoint, request.clone(), commands.len()).await;
            let now = Instant::now();
            let (result, changed) = match result {
                Err(silent @ DoveadmError::Silent { .. }) => {
                    let users: Vec<&str> = commands.iter().map(Command::user).collect();
                    (silent, shared.endpoints().silent(index, &users, now))
                }
                Err(error) if !error.is_an_answer() => (error, shared.endpoints().failed(index, now)),
                // It is our request that it cannot read, or a user's value that we cannot: the others would not do
                // better.
                answer => {
                    if shared.endpoints().answered(index) {
                        tracing::info!(event = "doveadm_back", %endpoint, "the endpoint answers again");
                    }
                    return answer;
                }
            };
            if changed {
                let retry_s = shared.config.retry.as_secs();
                tracing::warn!(event = "doveadm_aside", %endpoint, reason = %result, retry_s, "left aside");
            }
            failure = result;
        }
        Err(failure)
    }
}

impl Shared {
    fn endpoints(&self) -> MutexGuard<'_, Endpoints> {
        // Every change is one assignment: whole even behind a panic.
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks one server.
    async fn ask(
        &self,
        endpoint: &Uri,
        request: Bytes,
        asked: usize,
    ) -> Result<Vec<Result<Value, CommandError>>, DoveadmError> {
        let name = || endpoint.to_string();
        let broken =
            |error: &dyn std::error::Error| DoveadmError::Connection { endpoint: name(), why: chain(error) };
        let uri = format!("{}{PATH}", endpoint.to_string().trim_end_matches('/'));
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(AUTHORIZATION, self.authorization.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(request))
            .map_err(|error| broken(&error))?;
        // The connector has its own limit for the connection; TLS shakes hands within the sum of both.
        let limit = self.config.connect_timeout + self.config.read_timeout;
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|error| broken(&error))?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|error| {
                match error.downcast_ref::<LengthLimitError>() {
                    Some(_) => DoveadmError::TooLong { endpoint: name() },
                    None => broken(&*error),
                }
            })?;
            let read = outcomes(status, &body.to_bytes(), asked);
            read.map_err(|source| DoveadmError::Api { endpoint: name(), source })
        };
        match timeout(limit, exchange).await {
            Ok(result) => result,
            Err(_) => Err(DoveadmError::Silent { endpoint: name(), limit }),
        }
    }
}

/// An error and its sources in one line: hyper's own says little.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
