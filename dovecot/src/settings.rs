//! A user's settings: read by the shim as text, checked here once.

use std::time::Duration;

use ocbus_resolver::delivery::Options;
use ocbus_resolver::{Cn, CnError, Config, ConfigError};
use ocbus_wire::Endpoint;
use ocbus_wire::openchange::{CharsetNameError, DosCharset};

use crate::filter::{Folders, Kinds};
use crate::log;

const DEFAULT_BUDGET: Duration = Duration::from_millis(50);
const MAX_BUDGET_MS: u64 = 10_000;

/// The settings as Dovecot has them; `None` is not set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawSettings {
    /// `openchange_resolver`.
    pub resolver: Option<String>,
    /// `openchange_cn`.
    pub cn: Option<String>,
    /// `openchange_backend`.
    pub backend: Option<String>,
    /// `openchange_budget`.
    pub budget: Option<String>,
    /// `openchange_keep_refused`.
    pub keep_refused: Option<String>,
    /// `openchange_charset`.
    pub charset: Option<String>,
    /// `openchange_bus`.
    pub bus: Option<String>,
    /// `openchange_events`.
    pub events: Option<String>,
    /// `openchange_folders`.
    pub folders: Option<String>,
}

/// What of a login is the cn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CnFrom {
    /// The part before the `@`.
    Username,
    /// All of it.
    Email,
}

/// The settings, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the resolver's memcached is.
    pub resolver: Config,
    /// What of a login is the cn.
    pub cn: CnFrom,
    /// For everything that one transaction costs.
    pub budget: Duration,
    /// Backend, charset, and whether refused legacy endpoints stay.
    pub options: Options,
    /// The daemon's socket, if events are handed over to it.
    pub bus: Option<Endpoint>,
    /// Which kinds of events are told.
    pub events: Kinds,
    /// Of which mailboxes.
    pub folders: Folders,
    /// What was wrong and is done without, and what counts in its place.
    pub ignored: Vec<(SettingsError, &'static str)>,
}

const DEFAULT: &str = "the default counts";
const REST: &str = "the rest of it counts";

/// Why a setting, or a user name, is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// `openchange_resolver`.
    #[error("setting openchange_resolver '{value}': {source}")]
    Resolver {
        /// Its value.
        value: String,
        /// What is wrong with it.
        source: ConfigError,
    },
    /// `openchange_cn`.
    #[error("setting openchange_cn '{value}': expected username or email")]
    Cn {
        /// Its value.
        value: String,
    },
    /// `openchange_backend`.
    #[error(
        "setting openchange_backend '{value}': expected a name as sogo, without control characters, in the charset {charset}"
    )]
    Backend {
        /// Its value.
        value: String,
        /// The charset in which it goes over the wire.
        charset: &'static str,
    },
    /// `openchange_budget`.
    #[error("setting openchange_budget '{value}': expected milliseconds, 1 to 10000")]
    Budget {
        /// Its value.
        value: String,
    },
    /// `openchange_keep_refused`.
    #[error("setting openchange_keep_refused '{value}': expected yes or no")]
    KeepRefused {
        /// Its value.
        value: String,
    },
    /// `openchange_charset`.
    #[error("setting openchange_charset '{value}': {source}")]
    Charset {
        /// Its value.
        value: String,
        /// What is wrong with it.
        source: CharsetNameError,
    },
    /// `openchange_bus`.
    #[error(
        "setting openchange_bus '{value}': expected the daemon's unix socket, as ipc:///run/ocbus/bus.sock"
    )]
    Bus {
        /// Its value.
        value: String,
    },
    /// `openchange_events`.
    #[error(
        "setting openchange_events '{value}': '{wrong}': expected kinds as MessageNew or groups (all, messages, flags, mailboxes), each with ! in front to take it out"
    )]
    Events {
        /// Its value.
        value: String,
        /// What of it is wrong.
        wrong: String,
    },
    /// `openchange_folders`.
    #[error(
        "setting openchange_folders '{value}': '{wrong}': expected names or patterns as Lists/* or special uses as \\Junk, separated by commas, each with ! in front to take it out, 256 at most"
    )]
    Folders {
        /// Its value.
        value: String,
        /// What of it is wrong.
        wrong: String,
    },
    /// No cn can be made of the user's name.
    #[error("user '{user}': {source}")]
    User {
        /// The login.
        user: String,
        /// What is wrong with it.
        source: CnError,
    },
}

impl Settings {
    /// Checks the settings; what is not set has its default. So has what only says how much is told, or how, where it
    /// is wrong: no event is lost for it. Where it says to whom and as what, there is no good guess.
    pub fn parse(raw: &RawSettings) -> Result<Settings, SettingsError> {
        let shown = |value: &str| log::name(value);
        let mut ignored = Vec::new();
        let resolver = match &raw.resolver {
            None => Config::default(),
            Some(value) => Config::parse(value)
                .and_then(Config::needs_server)
                .map_err(|source| SettingsError::Resolver { value: shown(value), source })?,
        };
        let cn = match raw.cn.as_deref() {
            None => CnFrom::Username,
            Some(value) if value.eq_ignore_ascii_case("username") => CnFrom::Username,
            Some(value) if value.eq_ignore_ascii_case("email") => CnFrom::Email,
            Some(value) => return Err(SettingsError::Cn { value: shown(value) }),
        };
        let mut options = Options::default();
        if let Some(value) = &raw.charset {
            options.charset = DosCharset::by_name(value)
                .map_err(|source| SettingsError::Charset { value: shown(value), source })?;
        }
        if let Some(value) = &raw.backend {
            let fits = !value.chars().any(char::is_control) && options.charset.encode(value).is_ok();
            if value.is_empty() || !fits {
                let charset = options.charset.name();
                return Err(SettingsError::Backend { value: shown(value), charset });
            }
            options.backend.clone_from(value);
        }
        if let Some(value) = &raw.keep_refused {
            match boolean(value) {
                Some(value) => options.keep_refused = value,
                None => ignored.push((SettingsError::KeepRefused { value: shown(value) }, DEFAULT)),
            }
        }
        let budget = match &raw.budget {
            None => DEFAULT_BUDGET,
            Some(value) => budget(value).unwrap_or_else(|| {
                ignored.push((SettingsError::Budget { value: shown(value) }, DEFAULT));
                DEFAULT_BUDGET
            }),
        };
        let bus = match &raw.bus {
            None => None,
            // tcp would let everybody on this machine answer for the daemon.
            Some(value) => match Endpoint::parse(value) {
                Ok(endpoint @ Endpoint::Ipc { .. }) => Some(endpoint),
                _ => return Err(SettingsError::Bus { value: shown(value) }),
            },
        };
        let counts = |is_default| if is_default { DEFAULT } else { REST };
        let mut events = Kinds::default();
        if let Some(value) = &raw.events {
            let read = Kinds::parse(value);
            events = read.list;
            if !read.wrong.is_empty() {
                let (value, wrong) = (shown(value), shown(&read.wrong.join(" ")));
                ignored.push((SettingsError::Events { value, wrong }, counts(read.is_default)));
            }
        }
        let mut folders = Folders::default();
        if let Some(value) = &raw.folders {
            let read = Folders::parse(value);
            folders = read.list;
            if !read.wrong.is_empty() {
                let (value, wrong) = (shown(value), shown(&read.wrong.join(", ")));
                ignored.push((SettingsError::Folders { value, wrong }, counts(read.is_default)));
            }
        }
        Ok(Settings { resolver, cn, budget, options, bus, events, folders, ignored })
    }

    /// The cn of a login.
    pub fn cn(&self, login: &str) -> Result<Cn, SettingsError> {
        let name = match self.cn {
            CnFrom::Email => login,
            CnFrom::Username => login.split('@').next().unwrap_or(login),
        };
        Cn::new(name).map_err(|source| SettingsError::User { user: log::name(login), source })
    }
}

fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "yes" | "y" | "true" | "1" => Some(true),
        "no" | "n" | "false" | "0" => Some(false),
        _ => None,
    }
}

fn budget(value: &str) -> Option<Duration> {
    let digits = !value.is_empty() && value.bytes().all(|octet| octet.is_ascii_digit());
    let milliseconds: u64 = value.parse().ok().filter(|_| digits)?;
    (1..=MAX_BUDGET_MS).contains(&milliseconds).then(|| Duration::from_millis(milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(set: impl FnOnce(&mut RawSettings)) -> Result<Settings, SettingsError> {
        let mut raw = RawSettings::default();
        set(&mut raw);
        Settings::parse(&raw)
    }

    #[test]
    fn what_is_not_set_has_its_default() {
        let settings = parsed(|_| ()).unwrap();
        assert_eq!(settings.resolver.to_string(), "--SERVER=127.0.0.1:11211");
        assert_eq!(settings.cn, CnFrom::Username);
        assert_eq!(settings.budget, Duration::from_millis(50));
        assert_eq!(settings.options.backend, "sogo");
        assert_eq!(settings.options.charset.name(), "CP850");
        assert_eq!(settings.bus, None);
        assert!(!settings.options.keep_refused);
    }

    #[test]
    fn what_is_set_counts() {
        let settings = parsed(|raw| {
            raw.resolver = Some("--SERVER=10.0.0.1:1".to_owned());
            raw.cn = Some("email".to_owned());
            raw.backend = Some("exchange".to_owned());
            raw.budget = Some("10000".to_owned());
            raw.keep_refused = Some("yes".to_owned());
            raw.charset = Some("cp1252".to_owned());
            raw.bus = Some("ipc:///run/ocbus/bus.sock".to_owned());
        })
        .unwrap();
        assert_eq!(settings.resolver.to_string(), "--SERVER=10.0.0.1:1");
        assert_eq!(settings.budget, Duration::from_secs(10));
        assert_eq!(settings.options.backend, "exchange");
        assert_eq!(settings.bus.as_ref().unwrap().to_string(), "ipc:///run/ocbus/bus.sock");
        assert!(settings.options.keep_refused);
        assert_eq!(settings.cn("John@Example.com").unwrap().as_str(), "john@example.com");
        let settings = parsed(|_| ()).unwrap();
        assert_eq!(settings.cn("John@Example.com").unwrap().as_str(), "john");
        assert_eq!(settings.cn("bob").unwrap().as_str(), "bob");
    }

    #[test]
    fn a_wrong_value_names_the_setting_the_value_and_what_would_be_right() {
        type Set = fn(&mut RawSettings, String);
        let all: [(&str, Set, &[&str]); 9] = [
            (
                "resolver",
                |raw, value| raw.resolver = Some(value),
                &["", "127.0.0.1", "--SERVER=", "--SERVER=h:0"],
            ),
            ("cn", |raw, value| raw.cn = Some(value), &["", "user", "e-mail\r\n"]),
            ("backend", |raw, value| raw.backend = Some(value), &["", "a\nb", "\u{65e5}\u{672c}"]),
            (
                "budget",
                |raw, value| raw.budget = Some(value),
                &["", "0", "10001", "-1", "+5", "50ms", "99999999999999999999"],
            ),
            ("keep_refused", |raw, value| raw.keep_refused = Some(value), &["", "perhaps"]),
            (
                "bus",
                |raw, value| raw.bus = Some(value),
                &["", "/run/ocbus/bus.sock", "ipc://", "tcp://127.0.0.1:9000"],
            ),
            ("charset", |raw, value| raw.charset = Some(value), &["", "klingon", "utf-8"]),
            ("events", |raw, value| raw.events = Some(value), &["", "MessageLevitate", "flags; all"]),
            ("folders", |raw, value| raw.folders = Some(value), &["", "a,,b", "\\Inbox"]),
        ];
        for (name, set, values) in all {
            for value in values {
                let mut raw = RawSettings::default();
                set(&mut raw, (*value).to_owned());
                let error = match Settings::parse(&raw) {
                    Ok(settings) => settings.ignored[0].0.to_string(),
                    Err(error) => error.to_string(),
                };
                assert!(error.contains(&format!("setting openchange_{name} '")), "{error}");
                let right =
                    error.contains("expected") || error.contains("known:") || error.contains("name CP850");
                assert!(error.contains(&log::name(value)) && right, "{error}");
                assert!(!error.contains(['\r', '\n']), "{error}");
            }
        }
    }

    #[test]
    fn what_is_wrong_and_says_how_much_is_told_has_its_default() {
        let settings = parsed(|raw| {
            raw.budget = Some("0".to_owned());
            raw.keep_refused = Some("perhaps".to_owned());
            raw.events = Some("MessageNew, flgas".to_owned());
            raw.folders = Some("INBOX, !\\Tarsh".to_owned());
        })
        .unwrap();
        assert_eq!((settings.budget, settings.options.keep_refused), (DEFAULT_BUDGET, false));
        assert_eq!(settings.events, Kinds::default());
        assert_eq!(settings.folders, Folders::parse("INBOX").list);
        let said: Vec<String> =
            settings.ignored.iter().map(|(error, counts)| format!("{error}; {counts}")).collect();
        assert_eq!(said.len(), 4);
        assert!(said[2].contains("'MessageNew, flgas': 'flgas': expected") && said[2].ends_with(DEFAULT));
        assert!(said[3].contains("'!\\\\Tarsh': expected") && said[3].ends_with(REST), "{}", said[3]);
        assert!(parsed(|_| ()).unwrap().ignored.is_empty());
    }

    #[test]
    fn a_name_that_is_no_cn_is_refused() {
        let settings = parsed(|_| ()).unwrap();
        for login in ["", "@example.com", "a b", "x\r\nflush_all", "nul\0", &"x".repeat(300)] {
            let error = settings.cn(login).unwrap_err().to_string();
            assert!(error.contains("expected") && !error.contains('\n'), "{error}");
        }
    }
}
