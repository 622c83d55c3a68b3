//! `[registration]`: with which Dovecot, how, and whom.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use ocbus_resolver::Cn;
use serde::Deserialize;
use tokio_rustls::rustls::ClientConfig;

use super::core::Pace;
use super::doveadm::{Auth, Doveadm, DoveadmConfig};
use super::endpoints::is_local;
use super::metadata::{Imap, ImapConfig, ImapEndpoint, Login};
use super::reach::Mailboxes;
use super::template::Template;
use super::tls;
use crate::gateway::settings::{Bounded, Secret, SecretSource, readable_by_others};

/// The longest file of users or passwords.
const MAX_FILE: u64 = 64 << 20;

/// How users are registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Dovecot's DoveAdm HTTP API.
    Doveadm,
    /// IMAP METADATA.
    Imap,
}

/// `[registration]`. `docs/settings.md` has the same as a table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrationSettings {
    /// How. Without it nobody is registered.
    pub by: Option<By>,
    /// Equal servers: `http://host:port` or `https://...` for DoveAdm, `imap://host[:port]` or `imaps://...`.
    pub endpoints: Vec<String>,
    /// Dovecot's `doveadm_api_key`.
    pub api_key: Option<Secret>,
    /// A file with it.
    pub api_key_file: Option<PathBuf>,
    /// A variable of the environment with it.
    pub api_key_env: Option<String>,
    /// Dovecot's `doveadm_password`, or the master user's password.
    pub password: Option<Secret>,
    /// A file with it.
    pub password_file: Option<PathBuf>,
    /// A variable of the environment with it.
    pub password_env: Option<String>,
    /// For IMAP: the master user.
    pub master_user: Option<String>,
    /// What stands between user and master user, Dovecot's `auth_master_user_separator`.
    pub master_separator: char,
    /// For IMAP without a master user: a file of lines `login:password`.
    pub passwords_file: Option<PathBuf>,
    /// For https and imaps: the authorities that are trusted, in PEM. Else the system's.
    pub tls_ca_file: Option<PathBuf>,
    /// Requests at once.
    pub pool_size: Bounded<1, 256>,
    /// Users in one request to DoveAdm.
    pub batch: Bounded<1, 256>,
    /// How long a connection may take.
    pub connect_timeout_ms: Bounded<1, 60_000>,
    /// How long an answer may take.
    pub read_timeout_ms: Bounded<1, 600_000>,
    /// How long a request may take at all, whatever endpoints are tried.
    pub deadline_ms: Bounded<1, 3_600_000>,
    /// How long an endpoint that failed is left aside, and the first pause before what failed is tried again.
    pub retry_s: Bounded<1, 3600>,
    /// Within this time each registration is looked at again.
    pub reconcile_s: Bounded<1, 604_800>,
    /// How many such looks a second at most.
    pub reconcile_per_s: Bounded<1, 10_000>,
    /// How long a registration outlives the user's last session.
    pub grace_s: Bounded<0, 604_800>,
    /// How often the resolver is asked who has a session.
    pub sessions_s: Bounded<1, 3600>,
    /// Users who are registered without any session.
    pub permanent: Vec<String>,
    /// A file with more of them, one a line; empty lines and those that begin with `#` are passed over.
    pub permanent_file: Option<PathBuf>,
    /// The value of the key.
    pub value: Template,
    /// What Dovecot calls a user.
    pub login: Template,
    /// The name of this daemon among those that share users. None: the host's name.
    pub daemon: Option<String>,
    /// Which daemons share users: those of the same group.
    pub group: String,
    /// How long a daemon counts as alive without a sign of life. Renewed at a third of it.
    pub lease_s: Bounded<1, 3600>,
    /// Where it is kept who is registered, over restarts.
    pub state_file: Option<PathBuf>,
}

impl Default for RegistrationSettings {
    fn default() -> RegistrationSettings {
        // The texts are right; a test looks.
        let template = |text: &str| Template::from_str(text).unwrap_or_default();
        RegistrationSettings {
            by: None,
            endpoints: Vec::new(),
            api_key: None,
            api_key_file: None,
            api_key_env: None,
            password: None,
            password_file: None,
            password_env: None,
            master_user: None,
            master_separator: '*',
            passwords_file: None,
            tls_ca_file: None,
            pool_size: Bounded::of(4),
            batch: Bounded::of(16),
            connect_timeout_ms: Bounded::of(2000),
            read_timeout_ms: Bounded::of(10_000),
            deadline_ms: Bounded::of(30_000),
            retry_s: Bounded::of(5),
            reconcile_s: Bounded::of(3600),
            reconcile_per_s: Bounded::of(20),
            grace_s: Bounded::of(300),
            sessions_s: Bounded::of(10),
            permanent: Vec::new(),
            permanent_file: None,
            value: template("user={user}"),
            login: template("{user}"),
            daemon: None,
            group: "dovecot".to_owned(),
            lease_s: Bounded::of(6),
            state_file: None,
        }
    }
}

/// A setting that cannot be used, with the others or because of what it names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("registration.{key}: {reason}")]
pub struct RegistrationError {
    /// The key within the section.
    pub key: &'static str,
    /// What is wrong, and what would be right.
    pub reason: String,
}

fn wrong(key: &'static str, reason: impl Display) -> RegistrationError {
    RegistrationError { key, reason: reason.to_string() }
}

/// Settings with all that they name, ready to begin.
#[derive(Debug, Clone)]
pub struct RegistrationConfig {
    pub(super) mailboxes: Mailboxes,
    pub(super) pace: Pace,
    pub(super) pool_size: usize,
    pub(super) batch: usize,
    pub(super) sessions: Duration,
    pub(super) listed: HashSet<Cn>,
    pub(super) value: Template,
    pub(super) login: Template,
    pub(super) daemon: String,
    pub(super) group: Cn,
    pub(super) lease: Duration,
    pub(super) state_file: Option<PathBuf>,
}

impl RegistrationConfig {
    /// The same, but for what cannot change while a daemon runs: its place among the others, and whose value is whose.
    pub(super) fn in_place_of(self, former: &RegistrationConfig) -> RegistrationConfig {
        RegistrationConfig {
            value: former.value.clone(),
            login: former.login.clone(),
            daemon: former.daemon.clone(),
            group: former.group.clone(),
            lease: former.lease,
            state_file: former.state_file.clone(),
            ..self
        }
    }

    /// What is done by it, without any secret.
    pub fn summary(&self) -> String {
        let (way, endpoints) = self.mailboxes.told();
        format!(
            "registers users with Dovecot by {way} ({endpoints}): those with sessions and {} permanent ones, as the \
             daemon {} of the group {}",
            self.listed.len(),
            self.daemon,
            self.group
        )
    }
}

impl RegistrationSettings {
    /// Reads what they name: secrets, users, certificates. `beside` is the folder of the settings. `None`: nobody is
    /// to be registered.
    pub fn read(
        &self,
        beside: &Path,
        warnings: &mut Vec<String>,
    ) -> Result<Option<RegistrationConfig>, RegistrationError> {
        let Some(by) = self.by else {
            return match *self == RegistrationSettings::default() {
                true => Ok(None),
                false => Err(wrong(
                    "by",
                    "not given, and other keys are: expected \"doveadm\" or \"imap\", or no other key",
                )),
            };
        };
        if self.endpoints.is_empty() {
            return Err(wrong("endpoints", "none: expected at least one, as http://127.0.0.1:8080"));
        }
        let mailboxes = match by {
            By::Doveadm => Mailboxes::Doveadm(self.doveadm(beside, warnings)?),
            By::Imap => Mailboxes::Imap(self.imap(beside, warnings)?),
        };
        let daemon = match &self.daemon {
            Some(name) => name.clone(),
            None => host_name(),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        if daemon.is_empty() || daemon.len() > 128 || !daemon.chars().all(plain) {
            let shown = daemon.escape_debug();
            return Err(wrong(
                "daemon",
                format!("'{shown}': expected 1 to 128 ASCII letters, digits, '-', '_', '.', ':'"),
            ));
        }
        Ok(Some(RegistrationConfig {
            mailboxes,
            pace: Pace {
                reconcile: self.reconcile_s.s(),
                reconcile_per_s: u32::try_from(self.reconcile_per_s.get()).unwrap_or(u32::MAX),
                grace: self.grace_s.s(),
                retry: self.retry_s.s(),
            },
            pool_size: self.pool_size.count(),
            batch: if by == By::Doveadm { self.batch.count() } else { 1 },
            sessions: self.sessions_s.s(),
            listed: self.listed(beside)?,
            value: self.value.clone(),
            login: self.login.clone(),
            daemon,
            group: Cn::new(&self.group).map_err(|error| wrong("group", error))?,
            lease: self.lease_s.s(),
            state_file: self.state_file.as_ref().map(|path| beside.join(path)),
        }))
    }

    fn doveadm(&self, beside: &Path, warnings: &mut Vec<String>) -> Result<Doveadm, RegistrationError> {
        if self.master_user.is_some() || self.passwords_file.is_some() {
            return Err(wrong(
                "by",
                "\"doveadm\" has no use for master_user and passwords_file: expected \"imap\"",
            ));
        }
        let auth = match (self.api_key()?, self.password()?) {
            (Some(key), None) => Auth::ApiKey(read(&key, "api_key", beside, warnings)?),
            (None, Some(password)) => Auth::Password(read(&password, "password", beside, warnings)?),
            _ => {
                let why =
                    "expected one of api_key (Dovecot's doveadm_api_key) and password (its doveadm_password)";
                return Err(wrong("api_key", why));
            }
        };
        let endpoints =
            self.endpoints.iter().map(|text| http_endpoint(text)).collect::<Result<Vec<Uri>, _>>()?;
        for endpoint in &endpoints {
            let host = endpoint.host().unwrap_or_default();
            if endpoint.scheme_str() == Some("http") && !is_local(host) {
                warnings.push(format!(
                    "registration.endpoints: {endpoint} without TLS: the key crosses the network in clear"
                ));
            }
        }
        let https = endpoints.iter().any(|endpoint| endpoint.scheme_str() == Some("https"));
        let config = DoveadmConfig {
            endpoints,
            auth,
            pool_size: self.pool_size.count(),
            connect_timeout: self.connect_timeout_ms.ms(),
            read_timeout: self.read_timeout_ms.ms(),
            deadline: self.deadline_ms.ms(),
            retry: self.retry_s.s(),
            tls: self.tls(https, beside)?,
        };
        Doveadm::new(config).map_err(|error| wrong("api_key", error))
    }

    fn imap(&self, beside: &Path, warnings: &mut Vec<String>) -> Result<Imap, RegistrationError> {
        if self.api_key()?.is_some() {
            return Err(wrong(
                "api_key",
                "by = \"imap\" has no use for it: expected master_user or passwords_file",
            ));
        }
        let login = match (&self.master_user, self.password()?, &self.passwords_file) {
            (Some(name), Some(password), None) => Login::Master {
                name: name.clone(),
                password: read(&password, "password", beside, warnings)?,
                separator: self.master_separator,
            },
            (None, None, Some(path)) => Login::Own(passwords(&beside.join(path), warnings)?),
            _ => {
                let why = "expected master_user with password, password_file or password_env, or passwords_file alone";
                return Err(wrong("master_user", why));
            }
        };
        let mut endpoints = Vec::with_capacity(self.endpoints.len());
        for text in &self.endpoints {
            let endpoint: ImapEndpoint = text.parse().map_err(|why| wrong("endpoints", why))?;
            if !endpoint.has_tls() && !endpoint.is_local() {
                warnings.push(format!(
                    "registration.endpoints: {endpoint} without TLS: passwords cross the network in clear"
                ));
            }
            endpoints.push(endpoint);
        }
        let imaps = endpoints.iter().any(ImapEndpoint::has_tls);
        Ok(Imap::new(ImapConfig {
            endpoints,
            login,
            pool_size: self.pool_size.count(),
            connect_timeout: self.connect_timeout_ms.ms(),
            read_timeout: self.read_timeout_ms.ms(),
            deadline: self.deadline_ms.ms(),
            retry: self.retry_s.s(),
            tls: self.tls(imaps, beside)?,
        }))
    }

    /// Whether the settings themselves have a secret.
    pub fn has_plain_secret(&self) -> bool {
        self.api_key.is_some() || self.password.is_some()
    }

    fn api_key(&self) -> Result<Option<SecretSource>, RegistrationError> {
        let (key, file, env) = (self.api_key.clone(), self.api_key_file.clone(), self.api_key_env.clone());
        SecretSource::one_of("api_key", key, file, env).map_err(|why| wrong("api_key", why))
    }

    fn password(&self) -> Result<Option<SecretSource>, RegistrationError> {
        let (key, file, env) = (self.password.clone(), self.password_file.clone(), self.password_env.clone());
        SecretSource::one_of("password", key, file, env).map_err(|why| wrong("password", why))
    }

    fn tls(&self, wanted: bool, beside: &Path) -> Result<Arc<ClientConfig>, RegistrationError> {
        let file =
            self.tls_ca_file.as_ref().map_or_else(|| PathBuf::from(tls::SYSTEM), |path| beside.join(path));
        tls::client(wanted.then_some(file.as_path())).map_err(|error| wrong("tls_ca_file", error))
    }

    fn listed(&self, beside: &Path) -> Result<HashSet<Cn>, RegistrationError> {
        let mut listed = HashSet::new();
        for name in &self.permanent {
            listed.insert(Cn::new(name).map_err(|error| wrong("permanent", error))?);
        }
        if let Some(path) = &self.permanent_file {
            let path = beside.join(path);
            for (number, line) in lines(&path).map_err(|why| wrong("permanent_file", why))? {
                let cn = Cn::new(&line).map_err(|error| {
                    wrong("permanent_file", format!("{}:{number}: {error}", path.display()))
                })?;
                listed.insert(cn);
            }
        }
        Ok(listed)
    }
}

fn read(
    source: &SecretSource,
    key: &'static str,
    beside: &Path,
    warnings: &mut Vec<String>,
) -> Result<Secret, RegistrationError> {
    let key = match (source, key) {
        (SecretSource::File(_), "api_key") => "api_key_file",
        (SecretSource::Environment(_), "api_key") => "api_key_env",
        (SecretSource::File(_), "password") => "password_file",
        (SecretSource::Environment(_), "password") => "password_env",
        _ => key,
    };
    source.read(beside, warnings).map_err(|error| wrong(key, error))
}

fn http_endpoint(text: &str) -> Result<Uri, RegistrationError> {
    let fits = |uri: &Uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.port_u16() != Some(0)
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
            && !text.contains('@')
    };
    text.parse().ok().filter(fits).ok_or_else(|| {
        wrong(
            "endpoints",
            format!("'{}': expected http://host:port or https://host:port", text.escape_debug()),
        )
    })
}

fn passwords(path: &Path, warnings: &mut Vec<String>) -> Result<HashMap<String, Secret>, RegistrationError> {
    warnings.extend(readable_by_others(path));
    let mut passwords = HashMap::new();
    for (number, line) in lines(path).map_err(|why| wrong("passwords_file", why))? {
        // The line is not told: it has a password.
        let (login, password) =
            line.split_once(':').filter(|(login, _)| !login.is_empty()).ok_or_else(|| {
                wrong("passwords_file", format!("{}:{number}: expected login:password", path.display()))
            })?;
        passwords.insert(login.to_owned(), Secret::new(password));
    }
    Ok(passwords)
}

/// The lines of a file that say something, with their numbers.
fn lines(path: &Path) -> Result<Vec<(usize, String)>, String> {
    let of_file = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut text = String::new();
    File::open(path).map_err(of_file)?.take(MAX_FILE + 1).read_to_string(&mut text).map_err(of_file)?;
    if text.len() as u64 > MAX_FILE {
        return Err(format!("{}: expected at most {MAX_FILE} octets", path.display()));
    }
    let lines =
        text.lines().map(str::trim).zip(1..).filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(|(line, number)| (number, line.to_owned())).collect())
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
