use std::path::PathBuf;
use std::time::Duration;

use super::ledger::LedgerError;
use crate::publisher::PublishError;

const MIB: usize = 1024 * 1024;

/// How an outbox holds and retries. `docs/settings.md` has the same as a table.
#[derive(Debug, Clone)]
pub struct OutboxConfig {
    /// What all users' events may take, in octets, 1 MiB to 64 GiB. Full: nothing more is accepted.
    pub max_octets: usize,
    /// What one user's events may take, in octets, 64 KiB to `max_octets`. More: the oldest become one resync.
    pub max_user_octets: usize,
    /// How long an event is held for those that it has not reached, 1 s to a day.
    pub time_to_live: Duration,
    /// The pause before the first retry, 1 ms to `retry_max`; doubled each time.
    pub retry_min: Duration,
    /// The longest pause, at most an hour.
    pub retry_max: Duration,
    /// For how long after its start, and after an outage of the resolver, the outbox waits for somebody to register
    /// before it takes a user to be unheard; at most an hour. A subscriber notices within its heartbeat.
    pub grace: Duration,
    /// How long accepted events wait for others before they are looked up and sent together, at most a second. Many
    /// users then share one round trip and one batch, and a delivery is over before the daemon takes its processor.
    pub gather: Duration,
    /// Look-ups that are under way at once, 1 to 4096.
    pub lookups: usize,
    /// Where the ledger is, a folder that is ours. `None`: no ledger; what a killed daemon had accepted is lost in
    /// silence.
    pub state_dir: Option<PathBuf>,
}

impl Default for OutboxConfig {
    fn default() -> OutboxConfig {
        OutboxConfig {
            max_octets: 64 * MIB,
            max_user_octets: MIB,
            time_to_live: Duration::from_secs(60),
            retry_min: Duration::from_millis(50),
            retry_max: Duration::from_secs(2),
            grace: Duration::from_secs(10),
            gather: Duration::from_millis(20),
            lookups: 256,
            state_dir: None,
        }
    }
}

/// Why an outbox cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxError {
    /// `max_octets`.
    #[error("max_octets: {0}: expected 1048576 (1 MiB) to 68719476736 (64 GiB)")]
    MaxOctets(usize),
    /// `max_user_octets`.
    #[error("max_user_octets: {value}: expected 65536 (64 KiB) to max_octets ({max_octets})")]
    MaxUserOctets {
        /// As set.
        value: usize,
        /// As set.
        max_octets: usize,
    },
    /// `time_to_live`.
    #[error("time_to_live: {} s: expected 1 to 86400 s", .0.as_secs_f64())]
    TimeToLive(Duration),
    /// `retry_min` or `retry_max`.
    #[error(
        "retry_min, retry_max: {} and {} ms: expected 1 ms to 3600000 ms, the first not above the second",
        .min.as_millis(), .max.as_millis()
    )]
    Retry {
        /// As set.
        min: Duration,
        /// As set.
        max: Duration,
    },
    /// `grace`.
    #[error("grace: {} s: expected at most 3600 s", .0.as_secs_f64())]
    Grace(Duration),
    /// `gather`.
    #[error("gather: {} ms: expected at most 1000 ms", .0.as_millis())]
    Gather(Duration),
    /// `lookups`.
    #[error("lookups: {0}: expected 1 to 4096")]
    Lookups(usize),
    /// `state_dir`.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl OutboxConfig {
    /// Checks the ranges.
    pub fn check(&self) -> Result<(), OutboxError> {
        const HOUR: Duration = Duration::from_secs(3600);
        if self.max_octets < MIB || self.max_octets > 64 * 1024 * MIB {
            return Err(OutboxError::MaxOctets(self.max_octets));
        }
        if self.max_user_octets < 64 * 1024 || self.max_user_octets > self.max_octets {
            let (value, max_octets) = (self.max_user_octets, self.max_octets);
            return Err(OutboxError::MaxUserOctets { value, max_octets });
        }
        if self.time_to_live < Duration::from_secs(1) || self.time_to_live > 24 * HOUR {
            return Err(OutboxError::TimeToLive(self.time_to_live));
        }
        let (min, max) = (self.retry_min, self.retry_max);
        if min < Duration::from_millis(1) || min > max || max > HOUR {
            return Err(OutboxError::Retry { min, max });
        }
        if self.grace > HOUR {
            return Err(OutboxError::Grace(self.grace));
        }
        if self.gather > Duration::from_secs(1) {
            return Err(OutboxError::Gather(self.gather));
        }
        if self.lookups == 0 || self.lookups > 4096 {
            return Err(OutboxError::Lookups(self.lookups));
        }
        Ok(())
    }
}

/// Why an outbox goes on as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenewError {
    /// How it holds and retries.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// How it sends.
    #[error(transparent)]
    Publisher(#[from] PublishError),
}

/// Why events were not accepted: none of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Full {
    /// There is no room for them.
    #[error("the outbox is full: {held} octets of {max_octets} are taken, these are {octets}")]
    Octets {
        /// What these events take.
        octets: usize,
        /// What is taken.
        held: usize,
        /// What there is.
        max_octets: usize,
    },
    /// The outbox is being drained.
    #[error("the outbox is stopping")]
    Stopping,
}
