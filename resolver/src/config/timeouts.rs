use std::time::Duration;

/// Time limits, each in the unit and the 32 bits in which libmemcached has it; the methods give durations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Timeouts {
    /// `--CONNECT-TIMEOUT`, in milliseconds.
    pub connect_ms: i32,
    /// `--POLL-TIMEOUT`, in milliseconds.
    pub poll_ms: i32,
    /// `--SND-TIMEOUT`, in microseconds; 0 is none.
    pub send_us: i32,
    /// `--RCV-TIMEOUT`, in microseconds; 0 is none.
    pub receive_us: i32,
    /// `--RETRY-TIMEOUT`, in seconds.
    pub retry_s: i32,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts { connect_ms: 4_000, poll_ms: 5_000, send_us: 0, receive_us: 0, retry_s: 2 }
    }
}

impl Timeouts {
    /// For a connection to come about; `None` is no limit (a number that 32 bits read as negative).
    pub fn connect(&self) -> Option<Duration> {
        limit(self.connect_ms, Duration::from_millis)
    }

    /// For an answer; `None` is no limit.
    pub fn poll(&self) -> Option<Duration> {
        limit(self.poll_ms, Duration::from_millis)
    }

    /// For one write; `None` is no limit.
    pub fn send(&self) -> Option<Duration> {
        limit(self.send_us, Duration::from_micros).filter(|limit| !limit.is_zero())
    }

    /// For one read; `None` is no limit.
    pub fn receive(&self) -> Option<Duration> {
        limit(self.receive_us, Duration::from_micros).filter(|limit| !limit.is_zero())
    }

    /// How long a server that failed is left alone.
    pub fn retry(&self) -> Duration {
        limit(self.retry_s, Duration::from_secs).unwrap_or_default()
    }
}

fn limit(number: i32, unit: fn(u64) -> Duration) -> Option<Duration> {
    u64::try_from(number).ok().map(unit)
}
