//! The daemon's settings: `/etc/ocbus/ocbus.toml`. `docs/settings.md` has each key with its range and default, and
//! `packaging/ocbus.toml` is a file with all of them.
//!
//! Values check themselves while they are read ([`values`](self)), so that an error names the file, the line, the
//! key, the value and what would be right. What cannot be judged by itself is judged in [`Loaded::read`].

mod changes;
mod error;
mod http;
mod secret;
mod sections;
mod summary;
#[cfg(test)]
mod tests;
mod values;

pub use changes::Changes;
pub use error::SettingsError;
pub use http::{CredentialKind, CredentialSettings, HttpSettings, May, Rights, TlsSettings, UrlPath};
pub(crate) use secret::readable_by_others;
pub use secret::{Secret, SecretError, SecretSource};
pub use sections::{
    EmbeddedSettings, HandOverSettings, IpcEndpoint, OutboxSettings, PublisherSettings, SocketMode,
};
pub use values::Bounded;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ocbus_resolver::Config;
use serde::Deserialize;

use super::credentials::Credentials;
use super::tls;
use super::users::UsersSettings;
use crate::registration::{RegistrationConfig, RegistrationSettings};

/// Where the settings are unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/ocbus/ocbus.toml";

/// The longest file of settings.
const MAX_OCTETS: u64 = 4 << 20;

/// All settings of `ocbus serve`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Who listens.
    pub resolver: ResolverSettings,
    /// Time for one request to memcached.
    pub resolver_timeout_ms: Bounded<1, 60_000>,
    /// How long accepted events may take to be sent after SIGTERM.
    pub drain_s: Bounded<0, 3600>,
    /// `[http]`.
    pub http: HttpSettings,
    /// `[users]`.
    pub users: UsersSettings,
    /// `[publisher]`.
    pub publisher: PublisherSettings,
    /// `[outbox]`.
    pub outbox: OutboxSettings,
    /// `[handover]`.
    pub handover: HandOverSettings,
    /// `[registration]`.
    pub registration: RegistrationSettings,
    /// `[embedded]`.
    pub embedded: EmbeddedSettings,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            resolver: ResolverSettings::default(),
            resolver_timeout_ms: Bounded::of(1000),
            drain_s: Bounded::of(10),
            http: HttpSettings::default(),
            users: UsersSettings::default(),
            publisher: PublisherSettings::default(),
            outbox: OutboxSettings::default(),
            handover: HandOverSettings::default(),
            registration: RegistrationSettings::default(),
            embedded: EmbeddedSettings::default(),
        }
    }
}

/// `resolver`: a configuration string of libmemcached, or `memory`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolverSettings {
    /// memcached, as a configuration string names it.
    Memcached {
        /// As written.
        text: String,
        /// What it says.
        config: Box<Config>,
    },
    /// A resolver within the daemon, for sites without memcached.
    Memory,
}

impl Default for ResolverSettings {
    fn default() -> ResolverSettings {
        let text = "--SERVER=127.0.0.1:11211";
        match text.parse() {
            Ok(settings) => settings,
            // The text is right; a test looks.
            Err(_) => ResolverSettings::Memory,
        }
    }
}

impl FromStr for ResolverSettings {
    type Err = String;

    fn from_str(text: &str) -> Result<ResolverSettings, String> {
        if text == "memory" {
            return Ok(ResolverSettings::Memory);
        }
        let config = Config::parse(text).and_then(Config::needs_server).map_err(|error| {
            format!("'{}': {error}; expected a configuration string or \"memory\"", text.escape_debug())
        })?;
        Ok(ResolverSettings::Memcached { text: text.to_owned(), config: Box::new(config) })
    }
}

impl<'de> Deserialize<'de> for ResolverSettings {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<ResolverSettings, D::Error> {
        values::text(deserializer)
    }
}

impl Settings {
    /// Reads a text. `path` is its file, for the errors.
    pub fn parse(text: &str, path: &Path) -> Result<Settings, SettingsError> {
        let wrong = |span: Option<std::ops::Range<usize>>, key: String, reason: &str| SettingsError::Wrong {
            path: path.to_path_buf(),
            line: span
                .and_then(|span| text.get(..span.start))
                .map_or(1, |head| head.matches('\n').count() + 1),
            key,
            reason: one_line(reason),
        };
        let reader = toml::Deserializer::parse(text)
            .map_err(|error| wrong(error.span(), String::new(), error.message()))?;
        serde_path_to_error::deserialize(reader).map_err(|error| {
            let key = Some(error.path().to_string()).filter(|path| path != ".").unwrap_or_default();
            wrong(error.inner().span(), key, error.inner().message())
        })
    }
}

fn one_line(text: &str) -> String {
    let text = text.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    text.replace("unknown field", "unknown key").replace("unknown variant", "unknown value").replace('`', "'")
}

/// Whether the ledger can be made there.
fn writable(folder: &Path) -> Result<(), String> {
    let right = "expected a folder that is there and that the daemon may write to";
    let shown = folder.display();
    match std::fs::metadata(folder) {
        Ok(found) if !found.is_dir() => Err(format!("'{shown}' is no folder: {right}")),
        Ok(_) => rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
            .map_err(|error| format!("'{shown}': {}: {right}", std::io::Error::from(error))),
        Err(error) => Err(format!("'{shown}': {error}: {right}")),
    }
}

/// Settings with all that they name: secrets, certificates.
#[derive(Debug)]
pub struct Loaded {
    /// Their file.
    pub path: PathBuf,
    /// The settings.
    pub settings: Settings,
    /// `http.credentials`, with their secrets read.
    pub credentials: Credentials,
    /// `http.tls`, with its files read.
    pub tls: Option<tls::Identity>,
    /// `registration`, with its secrets, users and certificates read; nothing where nobody is to be registered.
    pub registration: Option<RegistrationConfig>,
    /// What is not wrong, but should be looked at.
    pub warnings: Vec<String>,
}

impl Loaded {
    /// Reads the file and what it names.
    pub fn read(path: &Path) -> Result<Loaded, SettingsError> {
        let of_file = |source| SettingsError::Read { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(of_file)?;
        let mut text = String::new();
        file.take(MAX_OCTETS + 1).read_to_string(&mut text).map_err(of_file)?;
        let octets = text.len() as u64;
        if octets > MAX_OCTETS {
            return Err(SettingsError::TooLong { path: path.to_path_buf(), octets, max: MAX_OCTETS });
        }
        Loaded::of(Settings::parse(&text, path)?, path)
    }

    /// The defaults, which name nothing.
    pub fn defaults() -> Loaded {
        Loaded {
            path: DEFAULT_PATH.into(),
            settings: Settings::default(),
            credentials: Credentials::default(),
            tls: None,
            registration: None,
            warnings: vec![format!("no {DEFAULT_PATH}: the defaults hold")],
        }
    }

    /// Reads the file anew, as far as its settings can change without a start. All or nothing: what only a start can
    /// change stays as it is here, and must be right together with all that is new.
    pub(in crate::gateway) fn reread(&self, path: &Path) -> Result<(Loaded, Changes), SettingsError> {
        let new = Loaded::read(path)?;
        let (merged, changes) = self.settings.take_over(&new.settings);
        if changes.restart.is_empty() {
            return Ok((new, changes));
        }
        let loaded = Loaded::of(merged, path).map_err(|error| error.with_kept(&changes.restart))?;
        Ok((loaded, changes))
    }

    /// Reads what settings name, and looks whether they are right together.
    fn of(settings: Settings, path: &Path) -> Result<Loaded, SettingsError> {
        let mut warnings = Vec::new();
        let unusable =
            |key: String, reason: String| SettingsError::Unusable { path: path.to_path_buf(), key, reason };
        let beside = path.parent().unwrap_or(Path::new("."));
        let credentials = Credentials::read(&settings.http.credentials, beside, &mut warnings)
            .map_err(|(index, reason)| unusable(format!("http.credentials[{index}]"), reason))?;
        let registration = settings
            .registration
            .read(beside, &mut warnings)
            .map_err(|error| unusable(format!("registration.{}", error.key), error.reason))?;
        let plain = settings.http.credentials.iter().any(CredentialSettings::is_plain);
        if plain || settings.registration.has_plain_secret() {
            warnings.extend(readable_by_others(path));
        }
        let outbox = settings.outbox.config();
        outbox.check().map_err(|error| unusable("outbox".to_owned(), error.to_string()))?;
        if let Some(folder) = &outbox.state_dir {
            writable(folder).map_err(|why| unusable("outbox.state_dir".to_owned(), why))?;
        }
        if let Some(handover) = settings.handover.config() {
            handover.group().map_err(|error| unusable("handover.group".to_owned(), error.to_string()))?;
        }
        if settings.http.credentials.is_empty() {
            let others = settings.http.reached_by_others();
            if let Some(address) = others.filter(|_| !settings.http.trusted_networks.only_this_host()) {
                return Err(unusable(
                    "http.credentials".to_owned(),
                    format!(
                        "none, and http.listen has {address}: expected at least one credential, or addresses and \
                             trusted_networks of this host only"
                    ),
                ));
            }
            if !settings.http.listen.is_empty() {
                warnings.push(
                    "http.credentials: none: every process of this host may tell events of any user"
                        .to_owned(),
                );
            }
        }
        let tls = match &settings.http.tls {
            Some(tls) => Some(
                tls::Identity::read(tls, beside, &mut warnings)
                    .map_err(|error| unusable("http.tls".to_owned(), error.to_string()))?,
            ),
            None => {
                let plain = |address: &&std::net::SocketAddr| !address.ip().to_canonical().is_loopback();
                warnings.extend(settings.http.listen.iter().find(plain).map(|address| {
                    format!("http.listen: {address} without http.tls: passwords and events cross the network in clear")
                }));
                None
            }
        };
        Ok(Loaded { path: path.to_path_buf(), settings, credentials, tls, registration, warnings })
    }
}
