//! `[publisher]`, `[outbox]`, `[handover]` and `[embedded]`: how events are sent, held, and taken from our plugin, and
//! the resolver of our own.

use std::net::SocketAddr;
use std::path::PathBuf;

use ocbus_resolver::delivery::Options;
use ocbus_wire::Endpoint;
use ocbus_wire::openchange::DosCharset;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::http::{address, networks};
use super::values::{self, Bounded};
use crate::embedded::{EmbeddedBind, EmbeddedConfig};
use crate::handover::HandOverConfig;
use crate::outbox::OutboxConfig;
use crate::publisher::PublisherConfig;
use crate::subscriber::TrustedNetworks;

/// `[publisher]`: how events are sent to endpoints, as the plugin's settings of the same names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PublisherSettings {
    /// Time for the look-up and all sends of one try.
    pub budget_ms: Bounded<1, 60_000>,
    /// The backend that a legacy payload names.
    #[serde(deserialize_with = "backend")]
    pub backend: String,
    /// The charset of legacy payloads and records.
    #[serde(deserialize_with = "values::text")]
    pub charset: DosCharset,
    /// Keep legacy endpoints that refuse in their record.
    pub keep_refused: bool,
}

impl Default for PublisherSettings {
    fn default() -> PublisherSettings {
        PublisherSettings {
            budget_ms: Bounded::of(1000),
            backend: "sogo".to_owned(),
            charset: DosCharset::default(),
            keep_refused: false,
        }
    }
}

impl PublisherSettings {
    /// The same for a [`Publisher`](crate::Publisher).
    pub fn config(&self) -> PublisherConfig {
        let options =
            Options { backend: self.backend.clone(), charset: self.charset, keep_refused: self.keep_refused };
        PublisherConfig { options, budget: self.budget_ms.ms() }
    }
}

fn backend<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
        true => Err(D::Error::custom(format_args!(
            "'{}': expected 1 to 255 octets without control characters",
            text.escape_debug()
        ))),
        false => Ok(text),
    }
}

/// `[outbox]`: how accepted events are held until everybody has them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutboxSettings {
    /// What all events may take.
    pub max_octets: Bounded<1_048_576, 68_719_476_736>,
    /// What one user's events may take.
    pub max_user_octets: Bounded<65_536, 68_719_476_736>,
    /// How long an event is held for those whom it has not reached.
    pub time_to_live_s: Bounded<1, 86_400>,
    /// The pause before the first retry.
    pub retry_min_ms: Bounded<1, 3_600_000>,
    /// The longest pause.
    pub retry_max_ms: Bounded<1, 3_600_000>,
    /// How long somebody may take to register after a start or an outage.
    pub grace_s: Bounded<0, 3600>,
    /// How long accepted events wait for others, to be looked up and sent together.
    pub gather_ms: Bounded<0, 1000>,
    /// Look-ups at once.
    pub lookups: Bounded<1, 4096>,
    /// The folder of the ledger; without it systemd's `$STATE_DIRECTORY`, without that no ledger.
    pub state_dir: Option<PathBuf>,
}

impl Default for OutboxSettings {
    fn default() -> OutboxSettings {
        OutboxSettings {
            max_octets: Bounded::of(64 << 20),
            max_user_octets: Bounded::of(1 << 20),
            time_to_live_s: Bounded::of(60),
            retry_min_ms: Bounded::of(50),
            retry_max_ms: Bounded::of(2000),
            grace_s: Bounded::of(10),
            gather_ms: Bounded::of(20),
            lookups: Bounded::of(256),
            state_dir: None,
        }
    }
}

impl OutboxSettings {
    /// The same for an [`Outbox`](crate::Outbox).
    pub fn config(&self) -> OutboxConfig {
        let of_systemd = || std::env::var_os("STATE_DIRECTORY").map(PathBuf::from);
        OutboxConfig {
            max_octets: self.max_octets.count(),
            max_user_octets: self.max_user_octets.count(),
            time_to_live: self.time_to_live_s.s(),
            retry_min: self.retry_min_ms.ms(),
            retry_max: self.retry_max_ms.ms(),
            grace: self.grace_s.s(),
            gather: self.gather_ms.ms(),
            lookups: self.lookups.count(),
            state_dir: self.state_dir.clone().or_else(of_systemd),
        }
    }
}

/// `[handover]`: the socket of our Dovecot plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HandOverSettings {
    /// `ipc:///run/ocbus/bus.sock`. None: no hand-over.
    pub listen: Option<IpcEndpoint>,
    /// The socket's mode.
    pub mode: SocketMode,
    /// The socket's group.
    pub group: Option<String>,
}

impl HandOverSettings {
    /// The same for a [`HandOver`](crate::handover::HandOver), when there is one.
    pub fn config(&self) -> Option<HandOverConfig> {
        let listen = self.listen.clone()?.0;
        Some(HandOverConfig { listen, mode: self.mode.0, group: self.group.clone() })
    }
}

/// `[embedded]`: the resolver within the daemon, where `resolver = "memory"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddedSettings {
    /// Where subscribers register, and our plugin looks.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// Whose connections are taken.
    #[serde(deserialize_with = "networks")]
    pub trusted_networks: TrustedNetworks,
    /// Memory for records.
    pub max_octets: Bounded<65_536, 68_719_476_736>,
    /// Connections at once.
    pub max_connections: Bounded<1, 100_000>,
}

impl Default for EmbeddedSettings {
    fn default() -> EmbeddedSettings {
        EmbeddedSettings {
            listen: SocketAddr::from(([127, 0, 0, 1], 11211)),
            trusted_networks: TrustedNetworks::default(),
            max_octets: Bounded::of(64 << 20),
            max_connections: Bounded::of(1024),
        }
    }
}

impl EmbeddedSettings {
    /// The same for an [`Embedded`](crate::embedded::Embedded).
    pub fn config(&self) -> EmbeddedConfig {
        EmbeddedConfig {
            bind: EmbeddedBind::Tcp(self.listen),
            trusted: self.trusted_networks.clone(),
            max_octets: self.max_octets.count(),
            max_connections: self.max_connections.count(),
            ..EmbeddedConfig::default()
        }
    }
}

/// An endpoint that is a unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpcEndpoint(pub Endpoint);

impl<'de> Deserialize<'de> for IpcEndpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<IpcEndpoint, D::Error> {
        let text = String::deserialize(deserializer)?;
        match Endpoint::parse(&text) {
            Ok(endpoint @ Endpoint::Ipc { .. }) => Ok(IpcEndpoint(endpoint)),
            _ => Err(D::Error::custom(format_args!(
                "'{}': expected a unix socket, as ipc:///run/ocbus/bus.sock",
                text.escape_debug()
            ))),
        }
    }
}

/// A file mode in octal digits, as `"0660"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketMode(pub u32);

impl Default for SocketMode {
    fn default() -> SocketMode {
        SocketMode(0o660)
    }
}

impl<'de> Deserialize<'de> for SocketMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SocketMode, D::Error> {
        // A number is told as it was meant: 0o660 and 432 are the same to TOML.
        let (shown, mode) = match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => {
                (format!("'{}'", text.escape_debug()), u32::from_str_radix(&text, 8).ok())
            }
            toml::Value::Integer(number) => (number.to_string(), None),
            other => (format!("a value of the type {}", other.type_str()), None),
        };
        match mode {
            Some(mode) if mode <= 0o777 => Ok(SocketMode(mode)),
            _ => Err(D::Error::custom(format_args!(
                "{shown}: expected octal digits in quotes, \"0000\" to \"0777\", as \"0660\""
            ))),
        }
    }
}
