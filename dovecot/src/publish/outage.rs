//! A memcached that does not answer is left alone for a while, so that it costs one budget and not one for each
//! mail. No clock in here.

use std::time::{Duration, Instant};

/// How long it is left alone after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// What is known of memcached's health.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// Since when it fails.
    since: Option<Instant>,
    /// Not before this.
    retry: Option<Instant>,
    transactions: u64,
    events: u64,
}

impl Outage {
    /// Whether it is to be left alone now. If so, these events are counted as not sent.
    pub(super) fn holds(&mut self, now: Instant, events: usize) -> bool {
        let holds = self.retry.is_some_and(|retry| now < retry);
        if holds {
            self.count(events);
        }
        holds
    }

    /// It failed, and these events were not sent. True when that is new, and worth a line.
    pub(super) fn failed(&mut self, now: Instant, events: usize) -> bool {
        self.retry = Some(now + PAUSE);
        let new = self.since.is_none();
        self.since.get_or_insert(now);
        self.count(events);
        new
    }

    /// It answered. The line to log when it had failed before.
    pub(super) fn answered(&mut self, now: Instant) -> Option<String> {
        self.retry = None;
        let since = self.since.take()?;
        let seconds = now.saturating_duration_since(since).as_secs_f64();
        Some(format!("memcached answers again after {seconds:.1} s: {}", self.lost()))
    }

    /// The process ends. The line to log when more was lost than the first line said.
    pub(super) fn close(&mut self) -> Option<String> {
        self.since.take()?;
        let line =
            (self.transactions > 1).then(|| format!("memcached has not answered since: {}", self.lost()));
        *self = Outage::default();
        line
    }

    fn count(&mut self, events: usize) {
        self.transactions += 1;
        self.events = self.events.saturating_add(u64::try_from(events).unwrap_or(u64::MAX));
    }

    fn lost(&mut self) -> String {
        let Outage { transactions, events, .. } = std::mem::take(self);
        format!("{events} events in {transactions} transactions were not sent")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_has_one_line_at_its_beginning_and_one_at_its_end() {
        let begun = Instant::now();
        let after = |milliseconds| begun + Duration::from_millis(milliseconds);
        let mut outage = Outage::default();
        assert!(!outage.holds(begun, 1));
        assert_eq!(outage.answered(begun), None);
        assert!(outage.failed(after(50), 1), "the beginning");
        assert!(outage.holds(after(51), 2));
        assert!(outage.holds(after(1049), 3));
        assert!(!outage.holds(after(1050), 4), "tried again");
        assert!(!outage.failed(after(1100), 4), "still the same outage");
        assert!(!outage.holds(after(2200), 1));
        let line = outage.answered(after(2250)).unwrap();
        assert_eq!(line, "memcached answers again after 2.2 s: 10 events in 4 transactions were not sent");
        assert_eq!(outage.answered(after(2300)), None);
        assert!(!outage.holds(after(2300), 1));
        assert_eq!(outage.close(), None);
    }

    #[test]
    fn a_process_that_ends_in_an_outage_says_what_was_lost_unless_it_said_so() {
        let now = Instant::now();
        let mut outage = Outage::default();
        outage.failed(now, 1);
        assert_eq!(outage.close(), None, "the first line said it all");
        outage.failed(now, 1);
        outage.holds(now, 1);
        assert!(outage.close().unwrap().contains("2 events in 2 transactions"));
    }
}
