//! How fast: the outbox's counters of the last hour, a sample each second.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::outbox::{Reason, Statistics};

/// What is looked back at.
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
const SECONDS: usize = 60;

/// Samples, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Rates(VecDeque<(Instant, Sample)>);

/// Counters since the start, or what they have grown by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) accepted: u64,
    pub(super) delivered: u64,
    /// Without those that nobody listened for.
    pub(super) dropped: u64,
    pub(super) unheard: u64,
    pub(super) failed: u64,
}

impl Sample {
    fn of(statistics: &Statistics) -> Sample {
        let unheard =
            Reason::ALL.iter().zip(statistics.dropped).find(|(reason, _)| **reason == Reason::Unheard);
        let unheard = unheard.map_or(0, |(_, count)| count);
        let [_taken, _gone, failed, refused] = statistics.sends;
        Sample {
            accepted: statistics.accepted.iter().sum(),
            delivered: statistics.delivered,
            dropped: statistics.dropped.iter().sum::<u64>().saturating_sub(unheard),
            unheard,
            failed: failed.saturating_add(refused),
        }
    }

    fn since(self, earlier: Sample) -> Sample {
        Sample {
            accepted: self.accepted.saturating_sub(earlier.accepted),
            delivered: self.delivered.saturating_sub(earlier.delivered),
            dropped: self.dropped.saturating_sub(earlier.dropped),
            unheard: self.unheard.saturating_sub(earlier.unheard),
            failed: self.failed.saturating_sub(earlier.failed),
        }
    }
}

/// Since the start, in the last hour, and in the last minute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Growth {
    pub(super) total: Sample,
    pub(super) hour: Sample,
    pub(super) minute: Sample,
    /// Events accepted in each of the last sixty seconds or so, the oldest first.
    pub(super) seconds: Vec<u64>,
}

impl Rates {
    pub(super) fn add(&mut self, now: Instant, statistics: &Statistics) {
        // One that is older than an hour stays, to count from.
        while self.0.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= HOUR) {
            self.0.pop_front();
        }
        self.0.push_back((now, Sample::of(statistics)));
    }

    /// Up to these statistics, from the last sample backwards.
    pub(super) fn now(&self, statistics: &Statistics) -> Growth {
        let total = Sample::of(statistics);
        let Some((last, _)) = self.0.back() else {
            return Growth { total, hour: total, minute: total, seconds: Vec::new() };
        };
        let since = |span: Duration| {
            let behind = self.0.partition_point(|(at, _)| last.saturating_duration_since(*at) >= span);
            // Less than the span since the start: from zero.
            behind.checked_sub(1).and_then(|at| self.0.get(at)).map(|(_, sample)| *sample).unwrap_or_default()
        };
        Growth {
            total,
            hour: total.since(since(HOUR)),
            minute: total.since(since(MINUTE)),
            seconds: self.seconds(),
        }
    }

    fn seconds(&self) -> Vec<u64> {
        // The newest first, so that each is less the one behind it.
        let counters: Vec<u64> =
            self.0.iter().rev().take(SECONDS + 1).map(|(_, sample)| sample.accepted).collect();
        let mut grown: Vec<u64> = counters
            .windows(2)
            .map(|pair| pair.iter().copied().reduce(u64::saturating_sub).unwrap_or(0))
            .collect();
        grown.resize(SECONDS, 0);
        grown.reverse();
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(count: u64) -> Statistics {
        Statistics { accepted: [0, count, 0], ..Statistics::default() }
    }

    #[test]
    fn a_minute_and_an_hour_are_told_apart() {
        let mut rates = Rates::default();
        let begun = Instant::now();
        assert_eq!(rates.now(&accepted(3)).minute.accepted, 3, "no sample yet");
        // One event each second for two hours.
        for second in 0..=7200 {
            rates.add(begun + Duration::from_secs(second), &accepted(second));
        }
        let growth = rates.now(&accepted(7200));
        assert_eq!((growth.total.accepted, growth.hour.accepted, growth.minute.accepted), (7200, 3600, 60));
        assert_eq!(growth.seconds, [1; 60]);
        assert!(rates.0.len() <= 3602, "{}", rates.0.len());
        let mut rates = Rates::default();
        rates.add(begun, &accepted(5));
        rates.add(begun + Duration::from_secs(10), &accepted(7));
        assert_eq!(rates.now(&accepted(9)).minute.accepted, 9, "all since the start ten seconds ago");
    }
}
