//! The exchange: one connection for each user, as IMAP has one user a connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_imap::error::Error;
use async_imap::imap_proto::{MailboxDatum, Response, Status};
use async_imap::{Client, Session};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::bounded::{Bounded, Stream};
use super::command::{self, Unquotable};
use super::endpoint::ImapEndpoint;
use crate::gateway::settings::Secret;
use crate::registration::endpoints::Endpoints;

/// The longest reason that is told: a parser's own has the whole answer in it.
const MAX_REASON: usize = 200;

/// As whom we log in.
#[derive(Debug, Clone)]
pub enum Login {
    /// As `user*master`, Dovecot's `auth_master_user_separator` in between.
    Master {
        /// The master user.
        name: String,
        /// Its password.
        password: Secret,
        /// The separator.
        separator: char,
    },
    /// As each user, with the user's own password; who has none here cannot be registered.
    Own(HashMap<String, Secret>),
}

/// How Dovecot's IMAP servers are reached.
#[derive(Debug, Clone)]
pub struct ImapConfig {
    /// Equal servers: any of them can serve any user.
    pub endpoints: Vec<ImapEndpoint>,
    /// As whom we log in.
    pub login: Login,
    /// Sessions at once.
    pub pool_size: usize,
    /// How long a connection may take, its TLS included.
    pub connect_timeout: Duration,
    /// How long one answer may take.
    pub read_timeout: Duration,
    /// How long everything for one user may take, whatever servers are tried.
    pub deadline: Duration,
    /// How long a server that failed is left aside.
    pub retry: Duration,
    /// For imaps.
    pub tls: Arc<ClientConfig>,
}

/// Why a user's metadata could not be read or changed. It may have been changed all the same; every command can be
/// repeated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImapError {
    /// All servers failed less than their time aside ago: nobody was asked.
    #[error("IMAP: every endpoint failed a moment ago")]
    AllAside,
    /// The whole deadline is over.
    #[error("IMAP: not done within {} ms", .0.as_millis())]
    Deadline(Duration),
    /// One answer took too long.
    #[error("IMAP {endpoint}: no answer within {} ms", .limit.as_millis())]
    Silent {
        /// The server.
        endpoint: String,
        /// The time limit.
        limit: Duration,
    },
    /// The connection did not come about, broke, or said what no IMAP server says.
    #[error("IMAP {endpoint}: {why}")]
    Connection {
        /// The server.
        endpoint: String,
        /// Why.
        why: String,
    },
    /// The session broke behind the login. That is one user's: the server was there to log in at.
    #[error("IMAP {endpoint}: behind the login: {why}")]
    Session {
        /// The server.
        endpoint: String,
        /// Why.
        why: String,
    },
    /// What stands in the user's mailbox cannot be read: too long, not ASCII. It is nobody else's.
    #[error("IMAP {endpoint}: {why}: expected a value of ours or none")]
    Unreadable {
        /// The server.
        endpoint: String,
        /// Why.
        why: String,
    },
    /// There is no password for this user.
    #[error("no credentials for this user: expected a master user, or the user among the passwords")]
    NoCredentials,
    /// A name or value that cannot be said.
    #[error(transparent)]
    Unquotable(#[from] Unquotable),
    /// The login was refused: a user whom Dovecot does not know, or wrong credentials. IMAP does not tell which.
    #[error("IMAP {endpoint}: login refused: {answer}")]
    Refused {
        /// The server.
        endpoint: String,
        /// What it said.
        answer: String,
    },
    /// A command was refused.
    #[error("IMAP {endpoint}: {answer}: expected METADATA (imap_metadata = yes and a mail_attribute_dict)")]
    Command {
        /// The server.
        endpoint: String,
        /// What it said.
        answer: String,
    },
}

/// What is to be done with a key.
#[derive(Debug, Clone, Copy)]
pub(in crate::registration) enum Act<'a> {
    Get,
    Set(&'a str),
    Unset,
}

/// A client of IMAP METADATA. Clones share the limits.
#[derive(Debug, Clone)]
pub struct Imap {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: ImapConfig,
    endpoints: Mutex<Endpoints>,
    permits: Semaphore,
}

impl Imap {
    /// A client; connects to nobody yet.
    pub fn new(config: ImapConfig) -> Imap {
        let endpoints = Mutex::new(Endpoints::new(config.endpoints.len(), config.retry));
        let permits = Semaphore::new(config.pool_size.max(1));
        Imap { shared: Arc::new(Shared { config, endpoints, permits }) }
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
    pub async fn get(&self, user: &str, key: &str) -> Result<String, ImapError> {
        self.run(user, key, Act::Get).await
    }

    /// Sets a user's value.
    pub async fn set(&self, user: &str, key: &str, value: &str) -> Result<(), ImapError> {
        self.run(user, key, Act::Set(value)).await.map(|_| ())
    }

    /// Takes a user's value away; that there is none is no error.
    pub async fn unset(&self, user: &str, key: &str) -> Result<(), ImapError> {
        self.run(user, key, Act::Unset).await.map(|_| ())
    }

    /// One login, one command. Of a get: the value.
    pub(in crate::registration) async fn run(
        &self,
        user: &str,
        key: &str,
        act: Act<'_>,
    ) -> Result<String, ImapError> {
        // Whoever waits here waits for others' deadlines. The semaphore is never closed.
        let _permit = self.shared.permits.acquire().await;
        let deadline = self.shared.config.deadline;
        match timeout(deadline, self.try_in_turn(user, key, act)).await {
            Ok(result) => result,
            Err(_) => Err(ImapError::Deadline(deadline)),
        }
    }

    async fn try_in_turn(&self, user: &str, key: &str, act: Act<'_>) -> Result<String, ImapError> {
        let shared = &self.shared;
        let (name, password) = shared.credentials(user)?;
        command::check_login(&name)?;
        let order = shared.endpoints().order(Instant::now());
        let mut failure = ImapError::AllAside;
        for index in order {
            let Some(endpoint) = shared.config.endpoints.get(index) else { continue };
            let result = shared.ask(endpoint, &name, password, key, act).await;
            let now = Instant::now();
            let (result, changed) = match result {
                Err(silent @ ImapError::Silent { .. }) => {
                    (silent, shared.endpoints().silent(index, &[user], now))
                }
                Err(error @ ImapError::Connection { .. }) => (error, shared.endpoints().failed(index, now)),
                // What it refuses, the others would refuse as well.
                result => {
                    if shared.endpoints().answered(index) {
                        tracing::info!(event = "imap_back", %endpoint, "the endpoint answers again");
                    }
                    return result;
                }
            };
            if changed {
                let retry_s = shared.config.retry.as_secs();
                tracing::warn!(event = "imap_aside", %endpoint, reason = %result, retry_s, "left aside");
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

    fn credentials(&self, user: &str) -> Result<(String, &Secret), ImapError> {
        match &self.config.login {
            Login::Master { name, password, separator } => Ok((format!("{user}{separator}{name}"), password)),
            Login::Own(passwords) => {
                let password = passwords.get(user).ok_or(ImapError::NoCredentials)?;
                Ok((user.to_owned(), password))
            }
        }
    }

    async fn ask(
        &self,
        endpoint: &ImapEndpoint,
        name: &str,
        password: &Secret,
        key: &str,
        act: Act<'_>,
    ) -> Result<String, ImapError> {
        let stream = self.connect(endpoint).await?;
        let mut client = Client::new(Bounded::new(stream));
        let step = Step { endpoint, limit: self.config.read_timeout };
        let greeting = step.of(async { Ok(client.read_response().await?) }).await?;
        if greeting.is_none() {
            return Err(step.broken("closed the connection before its greeting"));
        }
        let login = async { client.login(name, password.expose()).await.map_err(|(error, _)| error) };
        let mut session = step.of(login).await.map_err(|error| match error {
            ImapError::Command { endpoint, answer } => ImapError::Refused { endpoint, answer },
            other => other,
        })?;
        session.get_mut().expect_ascii();
        let value = step.run(&mut session, key, act).await;
        // The answer is known; whoever does not say goodbye in time is left.
        let _ = timeout(self.config.read_timeout, session.logout()).await;
        value
    }

    async fn connect(&self, endpoint: &ImapEndpoint) -> Result<Box<dyn Stream>, ImapError> {
        let step = Step { endpoint, limit: self.config.connect_timeout };
        let host = endpoint.host.trim_start_matches('[').trim_end_matches(']');
        let connect = async {
            let stream = TcpStream::connect((host, endpoint.port)).await?;
            stream.set_nodelay(true)?;
            if !endpoint.tls {
                return Ok(Box::new(stream) as Box<dyn Stream>);
            }
            let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
            let stream = TlsConnector::from(Arc::clone(&self.config.tls)).connect(name, stream).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        };
        match timeout(self.config.connect_timeout, connect).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(step.broken(&std::io::Error::to_string(&error))),
            // Unlike a silence behind it, this is the server's.
            Err(_) => Err(step.broken(&format!("no connection within {} ms", step.limit.as_millis()))),
        }
    }
}

/// One exchange with a server, within its limit.
struct Step<'a> {
    endpoint: &'a ImapEndpoint,
    limit: Duration,
}

impl Step<'_> {
    async fn of<T>(&self, step: impl Future<Output = Result<T, Error>>) -> Result<T, ImapError> {
        let endpoint = || self.endpoint.to_string();
        match timeout(self.limit, step).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(Error::No(answer) | Error::Bad(answer))) => {
                Err(ImapError::Command { endpoint: endpoint(), answer: answer.escape_debug().to_string() })
            }
            Ok(Err(error)) => Err(self.broken(&error.to_string())),
            Err(_) => Err(ImapError::Silent { endpoint: endpoint(), limit: self.limit }),
        }
    }

    /// The command, behind the login.
    async fn run(
        &self,
        session: &mut Session<Bounded>,
        key: &str,
        act: Act<'_>,
    ) -> Result<String, ImapError> {
        let command = match act {
            Act::Get => command::get(key),
            Act::Set(value) => command::set(key, value)?,
            Act::Unset => command::unset(key),
        };
        let mut unreadable = false;
        let exchange = async {
            let result = match act {
                Act::Get => get(session, command, key).await,
                Act::Set(_) | Act::Unset => {
                    session.run_command_and_check_ok(command).await.map(|()| String::new())
                }
            };
            unreadable = result.as_ref().is_err_and(is_unreadable);
            result
        };
        let result = self.of(exchange).await;
        result.map_err(|error| match error {
            ImapError::Connection { endpoint, why } if unreadable => ImapError::Unreadable { endpoint, why },
            ImapError::Connection { endpoint, why } => ImapError::Session { endpoint, why },
            other => other,
        })
    }

    fn broken(&self, why: &str) -> ImapError {
        let why: String = why.escape_debug().take(MAX_REASON).collect();
        ImapError::Connection { endpoint: self.endpoint.to_string(), why }
    }
}

/// The value of a key, empty when there is none. async-imap's own command puts the options behind the mailbox, which
/// Dovecot refuses, and takes a NO for no value.
async fn get(session: &mut Session<Bounded>, command: String, key: &str) -> Result<String, Error> {
    let id = session.run_command(command).await?;
    let mut found = String::new();
    while let Some(response) = session.read_response().await? {
        match response.parsed() {
            Response::MailboxData(MailboxDatum::MetadataSolicited { values, .. }) => {
                let value = values.iter().find(|one| one.entry.eq_ignore_ascii_case(key));
                found = value.and_then(|one| one.value.clone()).unwrap_or(found);
            }
            Response::Done { tag, status, outcome } if *tag == id => {
                let words = || outcome.information.as_deref().unwrap_or_default().to_owned();
                return match status {
                    Status::Ok => Ok(found),
                    Status::No => Err(Error::No(words())),
                    _ => Err(Error::Bad(words())),
                };
            }
            _ => {}
        }
    }
    Err(Error::ConnectionLost)
}

/// Whether an answer came, and it is what it says that cannot be read: its parser's errors and those of [`Bounded`] are
/// "other".
fn is_unreadable(error: &Error) -> bool {
    match error {
        Error::Parse(_) => true,
        Error::Io(error) => error.kind() == std::io::ErrorKind::Other,
        _ => false,
    }
}
