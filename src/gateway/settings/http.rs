//! `[http]`: where and from whom requests are taken, and how much of what.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

use super::secret::{Secret, SecretSource};
use super::values::{Bounded, one_or_many};
use crate::subscriber::TrustedNetworks;

/// `[http]`. `docs/settings.md` has the same as a table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// Addresses and ports; port 0 is any free one. None: no HTTP.
    #[serde(deserialize_with = "addresses")]
    pub listen: Vec<SocketAddr>,
    /// The paths at which OX notifications are taken, whatever Dovecot's URL names.
    #[serde(deserialize_with = "paths")]
    pub notify_paths: Vec<UrlPath>,
    /// Whose connections are taken. Others are told 403 and closed before anything is read.
    #[serde(deserialize_with = "networks")]
    pub trusted_networks: TrustedNetworks,
    /// Who may send. None: whoever connects, which is refused unless only this host can.
    pub credentials: Vec<CredentialSettings>,
    /// TLS on all of `listen`.
    pub tls: Option<TlsSettings>,
    /// The largest request, without its head.
    pub max_body_octets: Bounded<1024, 16_777_216>,
    /// The largest head: request line and all headers.
    pub max_head_octets: Bounded<8192, 1_048_576>,
    /// The most headers of one request.
    pub max_headers: Bounded<16, 1000>,
    /// Connections at once. One more is told 503 and closed.
    pub max_connections: Bounded<1, 100_000>,
    /// Status pages and traces that are followed at once. One more is told 503.
    pub max_streams: Bounded<0, 10_000>,
    /// From a request's first octet to the end of its head; for TLS also the handshake.
    pub head_timeout_ms: Bounded<1, 600_000>,
    /// From the end of the head to the end of the body, and for an answer that nobody reads.
    pub body_timeout_ms: Bounded<1, 600_000>,
    /// How long a connection may wait for its next request.
    pub idle_timeout_s: Bounded<1, 86_400>,
    /// How long a request is remembered, to know it when it comes again. 0: not at all.
    pub repeat_window_s: Bounded<0, 3600>,
    /// How many requests are remembered at most.
    pub repeat_requests: Bounded<1, 10_000_000>,
}

impl Default for HttpSettings {
    fn default() -> HttpSettings {
        HttpSettings {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8009))],
            notify_paths: vec![UrlPath("/preliminary/http-notify/v1/notify".to_owned())],
            trusted_networks: TrustedNetworks::default(),
            credentials: Vec::new(),
            tls: None,
            max_body_octets: Bounded::of(262_144),
            max_head_octets: Bounded::of(16_384),
            max_headers: Bounded::of(64),
            max_connections: Bounded::of(2048),
            max_streams: Bounded::of(32),
            head_timeout_ms: Bounded::of(5000),
            body_timeout_ms: Bounded::of(5000),
            idle_timeout_s: Bounded::of(90),
            repeat_window_s: Bounded::of(60),
            repeat_requests: Bounded::of(65_536),
        }
    }
}

impl HttpSettings {
    /// An address at which other hosts can reach it.
    pub(super) fn reached_by_others(&self) -> Option<SocketAddr> {
        let outside = |address: &&SocketAddr| !address.ip().to_canonical().is_loopback();
        self.listen.iter().find(outside).copied()
    }
}

/// A path as it stands in a request, as `/preliminary/http-notify/v1/notify`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlPath(String);

impl UrlPath {
    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UrlPath {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<UrlPath, &'static str> {
        let fits = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~/%".contains(&octet);
        // The others have a meaning of their own.
        let taken =
            ["/", "/events", "/healthz", "/metrics", "/v1"].contains(&text) || text.starts_with("/v1/");
        match text.starts_with('/') && !taken && text.len() <= 255 && text.bytes().all(fits) {
            true => Ok(UrlPath(text.to_owned())),
            false => Err("expected a path of its own (not /, /events, /healthz, /metrics, /v1/...), as \
                          /preliminary/http-notify/v1/notify"),
        }
    }
}

/// Addresses with their ports.
fn addresses<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    let texts: Vec<String> = one_or_many(deserializer)?;
    let all = texts.iter().map(|text| address_of(text).map_err(serde::de::Error::custom));
    let addresses = all.collect::<Result<Vec<SocketAddr>, D::Error>>()?;
    for (index, address) in addresses.iter().enumerate() {
        if let Some(other) = addresses.iter().take(index).find(|other| has_both(address, other)) {
            let (text, why) = match address == other {
                true => (format!("'{address}' twice"), "expected each address once"),
                false => {
                    (format!("'{address}' and '{other}'"), "expected no address that another one has in it")
                }
            };
            return Err(serde::de::Error::custom(format_args!("{text}: {why}")));
        }
    }
    Ok(addresses)
}

/// Whether a connection could come to both, which the kernel allows nobody. (What `[::]` has in it is the system's to say,
/// beside IPv6.)
fn has_both(one: &SocketAddr, other: &SocketAddr) -> bool {
    let (first, second) = (one.ip().to_canonical(), other.ip().to_canonical());
    let any = first.is_unspecified() || second.is_unspecified();
    let overlap = first == second || (any && first.is_ipv4() == second.is_ipv4());
    overlap && one.port() == other.port() && one.port() != 0
}

/// One address with its port.
pub(super) fn address<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    address_of(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

fn address_of(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!(
            "'{}': expected an address with its port, as 127.0.0.1:8009 or [::1]:8009 (no name)",
            text.escape_debug()
        )
    })
}

/// Paths, each once.
fn paths<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<UrlPath>, D::Error> {
    let paths: Vec<UrlPath> = one_or_many(deserializer)?;
    for (index, path) in paths.iter().enumerate() {
        if paths.iter().take(index).any(|other| other == path) {
            return Err(serde::de::Error::custom(format_args!(
                "'{}' twice: expected each path once",
                path.0
            )));
        }
    }
    Ok(paths)
}

/// What a credential is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum May {
    /// Tell events: `http.notify_paths`, `/v1/events`.
    Send,
    /// See: the status page, `/metrics`, everybody's traces, who is registered with Dovecot.
    Look,
    /// Register users with Dovecot and take that back.
    Register,
}

/// All that a credential is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    send: bool,
    look: bool,
    register: bool,
}

impl Rights {
    /// Everything.
    pub const ALL: Rights = Rights { send: true, look: true, register: true };

    /// Whether this is among them.
    pub fn have(self, may: May) -> bool {
        match may {
            May::Send => self.send,
            May::Look => self.look,
            May::Register => self.register,
        }
    }
}

impl fmt::Display for May {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            May::Send => "send",
            May::Look => "look",
            May::Register => "register",
        })
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = [May::Send, May::Look, May::Register]
            .into_iter()
            .filter(|may| self.have(*may))
            .map(|may| may.to_string())
            .collect();
        write!(f, "may {}", words.join(", "))
    }
}

/// One of `[[http.credentials]]`: a login with a password, or a bearer token.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawCredential")]
pub struct CredentialSettings {
    /// For the log.
    pub name: String,
    /// What it is.
    pub kind: CredentialKind,
    /// What it is good for.
    pub may: Rights,
}

/// What a credential consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialKind {
    /// `Authorization: Basic`.
    Basic {
        /// The login of Dovecot's `http:login:password@host`.
        login: String,
        /// Where the password is.
        password: SecretSource,
    },
    /// `Authorization: Bearer`.
    Bearer(SecretSource),
}

impl CredentialSettings {
    /// Its secret's place.
    pub(crate) fn secret(&self) -> &SecretSource {
        match &self.kind {
            CredentialKind::Basic { password, .. } => password,
            CredentialKind::Bearer(token) => token,
        }
    }

    /// Whether the settings themselves have the secret.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.secret(), SecretSource::Plain(_))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCredential {
    name: String,
    login: Option<String>,
    password: Option<Secret>,
    password_file: Option<PathBuf>,
    password_env: Option<String>,
    bearer: Option<Secret>,
    bearer_file: Option<PathBuf>,
    bearer_env: Option<String>,
    may: Option<Vec<May>>,
}

impl TryFrom<RawCredential> for CredentialSettings {
    type Error = String;

    fn try_from(raw: RawCredential) -> Result<CredentialSettings, String> {
        let name = raw.name;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return Err(format!(
                "name '{}': expected 1 to 64 ASCII letters, digits, '-', '_' and '.'",
                name.escape_debug()
            ));
        }
        let password = SecretSource::one_of("password", raw.password, raw.password_file, raw.password_env)?;
        let bearer = SecretSource::one_of("bearer", raw.bearer, raw.bearer_file, raw.bearer_env)?;
        let kind = match (raw.login, password, bearer) {
            (Some(login), Some(_), None) if login.is_empty() || login.contains(':') => {
                return Err(format!("login '{}': expected a name without ':'", login.escape_debug()));
            }
            (Some(login), Some(password), None) => CredentialKind::Basic { login, password },
            (None, None, Some(bearer)) => CredentialKind::Bearer(bearer),
            _ => {
                return Err(format!(
                    "'{name}': expected login with password, password_file or password_env, or one of bearer, \
                     bearer_file and bearer_env"
                ));
            }
        };
        let may = match raw.may.as_deref() {
            None => Rights::ALL,
            Some([]) => return Err(format!("'{name}': may: nothing: expected some of send, look, register")),
            Some(may) => Rights {
                send: may.contains(&May::Send),
                look: may.contains(&May::Look),
                register: may.contains(&May::Register),
            },
        };
        Ok(CredentialSettings { name, kind, may })
    }
}

/// `[http.tls]`: both files in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The certificate, and behind it those that lead to the root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// One text of networks, or an array of them.
pub(super) fn networks<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<TrustedNetworks, D::Error> {
    let texts: Vec<String> = one_or_many(deserializer)?;
    texts.join(",").parse().map_err(|error: crate::subscriber::TrustedNetworksError| {
        let text = error.to_string();
        serde::de::Error::custom(text.strip_prefix("trusted_networks: ").unwrap_or(&text))
    })
}
