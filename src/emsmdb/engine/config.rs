use std::time::Duration;

use ocbus_wire::ropnotify::{MessageClass, RopNotify};

/// The bounds of an [`Engine`](super::Engine). `docs/settings.md` has the same as a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// Sessions of one user, 1 to 10,000; default 100. One more is refused.
    pub sessions_per_user: usize,
    /// Sessions of all users, 1 to 1,000,000; default 100,000. One more is refused.
    pub sessions: usize,
    /// How long a session lives without a call, 60 s to a day; default 2000 s. Outlook does not say goodbye. A parked
    /// wait keeps its session alive.
    pub idle: Duration,
    /// How long a wait is parked without an event, 1 s to 300 s; default 297 s, three seconds before the client's
    /// patience ends.
    pub wait: Duration,
    /// What becomes of a second wait of one session; default [`SecondWait::Reject`].
    pub second_wait: SecondWait,
    /// Subscriptions and tables of one session together, 1 to 1,000; default 100, as OpenChange's record has it.
    pub handles_per_session: usize,
    /// Memory of one session's queue in octets: its replies and 4 octets for each; 1,024 to 16 MiB, default 64 KiB.
    /// Full: see [`Engine`](super::Engine).
    pub queue_octets: usize,
    /// Replies in one session's queue, 16 to 65,536; default 4,096.
    pub queue_replies: usize,
    /// Row events of one table in one queue, 0 to 100; default 5. At one more, they become one TableChanged.
    pub rows_per_table: usize,
    /// The largest row that is sent, in octets, 0 to 16,384; default 2,048. A larger one becomes TableChanged.
    pub row_octets: usize,
    /// Messages of one event that are told one by one, 1 to 1,000; default 32. Of more, no ids are asked: the folder
    /// and its tables are told to have changed.
    pub messages_per_event: usize,
    /// How long an id is waited for, 10 ms to 60 s; default 2 s.
    pub query_timeout: Duration,
    /// Events of one user that wait for ids, 1 to 65,536; default 256. What comes beyond becomes one resync of the
    /// user's sessions behind them.
    pub pending_per_user: usize,
    /// Events of all users that wait for ids, 1 to 1,000,000; default 65,536. Beyond, likewise.
    pub pending: usize,
    /// Folders whose ids are remembered for one user, 1 to 100,000; default 1,000. Beyond, any is forgotten, and
    /// asked again when it is needed.
    pub folders_per_user: usize,
    /// How long a user is still wanted when the last session has gone, 0 to an hour; default 30 s.
    pub grace: Duration,
    /// The message class of new mail; default `IPM.Note` in ASCII.
    pub message_class: MessageClass,
}

/// What becomes of a second wait of one session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SecondWait {
    /// The second is answered with 0x7EE (Rejected), as Exchange does.
    #[default]
    Reject,
    /// The first is answered with 0x7EE and the second parked, as Kopano does: for clients that lose their
    /// connection and come again.
    Replace,
}

/// A bound outside its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {value}: expected {expected}")]
pub struct ConfigError {
    /// The field of [`EngineConfig`] (or [`EmsmdbConfig`](crate::emsmdb::EmsmdbConfig)).
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// What would be right.
    pub expected: String,
}

impl Default for EngineConfig {
    fn default() -> EngineConfig {
        EngineConfig {
            sessions_per_user: 100,
            sessions: 100_000,
            idle: Duration::from_secs(2000),
            wait: Duration::from_secs(297),
            second_wait: SecondWait::default(),
            handles_per_session: 100,
            queue_octets: 65_536,
            queue_replies: 4_096,
            rows_per_table: 5,
            row_octets: 2_048,
            messages_per_event: 32,
            query_timeout: Duration::from_secs(2),
            pending_per_user: 256,
            pending: 65_536,
            folders_per_user: 1_000,
            grace: Duration::from_secs(30),
            message_class: MessageClass::default(),
        }
    }
}

impl EngineConfig {
    /// Checks every range.
    pub fn check(&self) -> Result<(), ConfigError> {
        count("sessions_per_user", self.sessions_per_user, 1, 10_000)?;
        count("sessions", self.sessions, 1, 1_000_000)?;
        time("idle", self.idle, Duration::from_secs(60), Duration::from_secs(86_400))?;
        time("wait", self.wait, Duration::from_secs(1), Duration::from_secs(300))?;
        count("handles_per_session", self.handles_per_session, 1, 1_000)?;
        count("queue_octets", self.queue_octets, 1_024, 16 << 20)?;
        count("queue_replies", self.queue_replies, 16, 65_536)?;
        count("rows_per_table", self.rows_per_table, 0, 100)?;
        // A row that an empty queue cannot hold would never be sent.
        count("row_octets", self.row_octets, 0, 16_384.min(self.queue_octets / 2))?;
        count("messages_per_event", self.messages_per_event, 1, 1_000)?;
        time("query_timeout", self.query_timeout, Duration::from_millis(10), Duration::from_secs(60))?;
        count("pending_per_user", self.pending_per_user, 1, 65_536)?;
        count("pending", self.pending, 1, 1_000_000)?;
        count("folders_per_user", self.folders_per_user, 1, 100_000)?;
        time("grace", self.grace, Duration::ZERO, Duration::from_secs(3_600))?;
        self.check_class()
    }

    fn check_class(&self) -> Result<(), ConfigError> {
        let class = &self.message_class;
        let plain = class.name.bytes().all(|octet| (b' '..=b'~').contains(&octet));
        match plain && (1..=255).contains(&class.name.len()) {
            true => Ok(()),
            false => Err(ConfigError {
                name: "message_class",
                value: class.name.escape_debug().to_string(),
                expected: "1 to 255 printable ASCII characters, as 'IPM.Note'".to_owned(),
            }),
        }
    }
}

/// Checks a count.
pub(crate) fn count(name: &'static str, value: usize, min: usize, max: usize) -> Result<(), ConfigError> {
    match (min..=max).contains(&value) {
        true => Ok(()),
        false => Err(ConfigError { name, value: value.to_string(), expected: format!("{min} to {max}") }),
    }
}

/// Checks a time.
fn time(name: &'static str, value: Duration, min: Duration, max: Duration) -> Result<(), ConfigError> {
    match (min..=max).contains(&value) {
        true => Ok(()),
        false => Err(ConfigError {
            name,
            value: format!("{} s", value.as_secs_f64()),
            expected: format!("{} to {} s", min.as_secs_f64(), max.as_secs_f64()),
        }),
    }
}

// The largest row fits into a reply, and two of them into what the rules let a response have.
const _: () = assert!(16_384 + 52 <= RopNotify::MAX_OCTETS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_within_its_ranges_and_what_is_outside_is_named() {
        assert_eq!(EngineConfig::default().check(), Ok(()));
        let wrong = EngineConfig { wait: Duration::from_secs(301), ..EngineConfig::default() };
        assert_eq!(wrong.check().unwrap_err().to_string(), "wait: 301 s: expected 1 to 300 s");
        let wrong = EngineConfig { row_octets: 1_025, queue_octets: 2_048, ..EngineConfig::default() };
        assert_eq!(wrong.check().unwrap_err().to_string(), "row_octets: 1025: expected 0 to 1024");
        let wrong = EngineConfig { message_class: MessageClass::ascii("a\0"), ..EngineConfig::default() };
        assert_eq!(wrong.check().unwrap_err().name, "message_class");
    }
}
