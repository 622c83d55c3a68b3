//! The settings by their names, as `ocbus_options_set` takes them. `docs/settings.md` has them as a table.

use std::time::Duration;

use ocbus::emsmdb::engine::SecondWait;
use ocbus::emsmdb::{EmsmdbConfig, Part};
use ocbus::resolver::Config;
use ocbus::subscriber::{SubscriberConfig, TrustedNetworks};
use ocbus::wire::Endpoint;
use ocbus::wire::openchange::DosCharset;
use ocbus::wire::ropnotify::MessageClass;

/// What [`ocbus_create`](crate::ocbus_create) is told.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// `None`: no other process sends events.
    pub(crate) resolver: Option<Config>,
    pub(crate) resolver_timeout: Duration,
    pub(crate) subscriber: SubscriberConfig,
    pub(crate) emsmdb: EmsmdbConfig,
    /// `None`: no other process serves the same sessions.
    pub(crate) sharing: Option<Part>,
    pub(crate) threads: usize,
    pub(crate) stop_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            resolver: Some(Config::default()),
            resolver_timeout: Duration::from_secs(1),
            subscriber: SubscriberConfig::default(),
            emsmdb: EmsmdbConfig::default(),
            sharing: None,
            threads: 1,
            stop_timeout: Duration::from_secs(1),
        }
    }
}

impl Settings {
    /// Changes one. The error names it, the value, and what would be right.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let wrong = |expected: String| format!("{name}: '{}': {expected}", value.escape_debug());
        let expected = |what: &str| wrong(format!("expected {what}"));
        let engine = &mut self.emsmdb.engine;
        let subscriber = &mut self.subscriber;
        match name {
            "resolver" if value == "none" => self.resolver = None,
            "resolver" => {
                let config = Config::parse(value).and_then(Config::needs_server);
                self.resolver = Some(config.map_err(|error| wrong(error.to_string()))?);
            }
            "charset" => {
                subscriber.charset = DosCharset::by_name(value).map_err(|error| wrong(error.to_string()))?;
            }
            "bind" => subscriber.bind = endpoint(value).map_err(wrong)?,
            "legacy_bind" => subscriber.legacy_bind = endpoint(value).map_err(wrong)?,
            "advertise" => subscriber.advertise = Some(value.to_owned()),
            "ipc_mode" => {
                let mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o777);
                subscriber.ipc_mode = Some(mode.ok_or_else(|| expected("an octal mode, 0 to 777"))?);
            }
            "trusted_networks" => {
                let networks = value.parse::<TrustedNetworks>();
                subscriber.trusted_networks = networks.map_err(|error| error.to_string())?;
            }
            "second_wait" => {
                engine.second_wait = match value {
                    "reject" => SecondWait::Reject,
                    "replace" => SecondWait::Replace,
                    _ => return Err(expected("reject or replace")),
                }
            }
            "sharing" => {
                self.sharing = match value {
                    "none" => None,
                    "both" => Some(Part::Both),
                    "emsmdb" => Some(Part::Emsmdb),
                    "asyncemsmdb" => Some(Part::AsyncEmsmdb),
                    _ => return Err(expected("none, both, emsmdb or asyncemsmdb")),
                }
            }
            "message_class" => engine.message_class = MessageClass::ascii(value),
            _ => {
                let slot = self.number(name).ok_or_else(|| {
                    let names = Settings::NAMES.join(", ");
                    format!("'{}' is no setting: expected one of {names}", name.escape_debug())
                })?;
                let number = value.parse::<u64>().map_err(|_| expected("a whole number, 0 or more"))?;
                slot.put(number).map_err(|what| expected(&what))?;
            }
        }
        Ok(())
    }

    /// Every name, for the message about one that there is not; a test sets each.
    const NAMES: [&'static str; 31] = [
        "resolver",
        "resolver_timeout_ms",
        "charset",
        "bind",
        "legacy_bind",
        "advertise",
        "ipc_mode",
        "trusted_networks",
        "lease_s",
        "heartbeat_ms",
        "sharing",
        "threads",
        "stop_timeout_ms",
        "sessions_per_user",
        "sessions",
        "idle_s",
        "wait_ms",
        "second_wait",
        "handles_per_session",
        "queue_octets",
        "queue_replies",
        "rows_per_table",
        "row_octets",
        "messages_per_event",
        "query_timeout_ms",
        "pending_per_user",
        "pending",
        "folders_per_user",
        "grace_s",
        "message_class",
        "bus_queue",
    ];

    /// Where a number goes. The engine and the subscriber check their own when they start.
    fn number(&mut self, name: &str) -> Option<Slot<'_>> {
        let engine = &mut self.emsmdb.engine;
        let subscriber = &mut self.subscriber;
        Some(match name {
            "resolver_timeout_ms" => Slot::Bounded(&mut self.resolver_timeout, 10, 60_000),
            "stop_timeout_ms" => Slot::Bounded(&mut self.stop_timeout, 0, 60_000),
            "threads" => Slot::Threads(&mut self.threads),
            "lease_s" => Slot::Seconds(&mut subscriber.lease),
            "heartbeat_ms" => Slot::Millis(&mut subscriber.heartbeat),
            "idle_s" => Slot::Seconds(&mut engine.idle),
            "wait_ms" => Slot::Millis(&mut engine.wait),
            "query_timeout_ms" => Slot::Millis(&mut engine.query_timeout),
            "grace_s" => Slot::Seconds(&mut engine.grace),
            "sessions_per_user" => Slot::Count(&mut engine.sessions_per_user),
            "sessions" => Slot::Count(&mut engine.sessions),
            "handles_per_session" => Slot::Count(&mut engine.handles_per_session),
            "queue_octets" => Slot::Count(&mut engine.queue_octets),
            "queue_replies" => Slot::Count(&mut engine.queue_replies),
            "rows_per_table" => Slot::Count(&mut engine.rows_per_table),
            "row_octets" => Slot::Count(&mut engine.row_octets),
            "messages_per_event" => Slot::Count(&mut engine.messages_per_event),
            "pending_per_user" => Slot::Count(&mut engine.pending_per_user),
            "pending" => Slot::Count(&mut engine.pending),
            "folders_per_user" => Slot::Count(&mut engine.folders_per_user),
            "bus_queue" => Slot::Count(&mut self.emsmdb.bus_queue),
            _ => return None,
        })
    }
}

enum Slot<'a> {
    Count(&'a mut usize),
    Threads(&'a mut usize),
    Seconds(&'a mut Duration),
    Millis(&'a mut Duration),
    /// Milliseconds, from and to.
    Bounded(&'a mut Duration, u64, u64),
}

impl Slot<'_> {
    fn put(self, number: u64) -> Result<(), String> {
        match self {
            Slot::Count(slot) => *slot = usize::try_from(number).unwrap_or(usize::MAX),
            Slot::Threads(slot) => match number {
                1 => *slot = 1,
                2 => *slot = 2,
                _ => return Err("1 or 2".to_owned()),
            },
            Slot::Seconds(slot) => *slot = Duration::from_secs(number),
            Slot::Millis(slot) => *slot = Duration::from_millis(number),
            Slot::Bounded(slot, least, most) if (least..=most).contains(&number) => {
                *slot = Duration::from_millis(number);
            }
            Slot::Bounded(_, least, most) => return Err(format!("{least} to {most} ms")),
        }
        Ok(())
    }
}

fn endpoint(value: &str) -> Result<Option<Endpoint>, String> {
    match value {
        "none" => Ok(None),
        url => Endpoint::parse(url).map(Some).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_name_of_the_message_is_a_setting() {
        let text = |name| match name {
            "resolver" => "--SERVER=mem.example:11212 --SERVER=other.example",
            "charset" => "CP1252",
            "bind" | "legacy_bind" => "ipc:///run/ocbus.sock",
            "advertise" => "ocbus.example",
            "ipc_mode" => "660",
            "trusted_networks" => "10.0.0.0/8",
            "second_wait" => "replace",
            "sharing" => "asyncemsmdb",
            "message_class" => "IPM.Note.X",
            "threads" => "2",
            _ => "59",
        };
        for name in Settings::NAMES {
            let mut settings = Settings::default();
            let before = format!("{settings:?}");
            settings.set(name, text(name)).unwrap();
            assert_ne!(format!("{settings:?}"), before, "{name} changes something");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |name, value| Settings::default().set(name, value).unwrap_err();
        assert_eq!(error("second_wait", "x"), "second_wait: 'x': expected reject or replace");
        assert_eq!(error("threads", "3"), "threads: '3': expected 1 or 2");
        assert_eq!(error("wait_ms", "-1"), "wait_ms: '-1': expected a whole number, 0 or more");
        assert_eq!(error("resolver_timeout_ms", "1"), "resolver_timeout_ms: '1': expected 10 to 60000 ms");
        assert!(error("resolvr", "x").starts_with("'resolvr' is no setting: expected one of resolver, "));
        assert!(error("resolver", "SERVER").starts_with("resolver: 'SERVER': "));
        assert!(error("bind", "udp://x:1").starts_with("bind: 'udp://x:1': "));
    }

    #[test]
    fn none_switches_off() {
        let mut settings = Settings::default();
        settings.set("resolver", "none").unwrap();
        settings.set("bind", "none").unwrap();
        assert!(settings.resolver.is_none() && settings.subscriber.bind.is_none());
    }
}
