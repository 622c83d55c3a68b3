//! A memcached that hangs is left alone for a while, so that it costs a budget now and then, and not one for each
//! mail; what was not sent meanwhile is owed to its users. No clock in here.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ocbus_resolver::Cn;

/// How long it is left alone when it hangs.
const PAUSE: Duration = Duration::from_secs(1);

/// How many time-outs in a row mean that it hangs. One may be this machine's fault; a refusal costs nothing, and
/// is asked for again each time.
const STRIKES: u32 = 2;

/// How long it is left alone after the first: whoever has just waited for it does not wait once more within the same
/// command (an APPEND lets us tell things before its literal, too).
const AT_FIRST: Duration = Duration::from_millis(250);

/// Users whose missed events are remembered.
const MAX_OWED: usize = 1024;

/// What is known of memcached's health.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// Since when it fails.
    since: Option<Instant>,
    /// Not before this.
    retry: Option<Instant>,
    /// Time-outs in a row.
    strikes: u32,
    /// Events that each user's endpoints missed and nobody has been told of.
    owed: HashMap<Cn, u64>,
    transactions: u64,
    events: u64,
}

impl Outage {
    /// Whether it is to be left alone now. If so, these events of a user are counted as not sent.
    pub(super) fn holds(&mut self, now: Instant, cn: &Cn, events: usize) -> bool {
        let holds = self.retry.is_some_and(|retry| now < retry);
        if holds {
            self.owe(cn, events);
        }
        holds
    }

    /// It failed, and these events of a user were not sent. True when that is new, and worth a line.
    pub(super) fn failed(&mut self, now: Instant, timed_out: bool, cn: &Cn, events: usize) -> bool {
        self.strikes = if timed_out { self.strikes.saturating_add(1) } else { 0 };
        let pause = if self.strikes >= STRIKES { PAUSE } else { AT_FIRST };
        self.retry = timed_out.then(|| now + pause);
        let new = self.since.is_none();
        self.since.get_or_insert(now);
        self.owe(cn, events);
        new
    }

    /// Events that a user's endpoints missed, to be told to them now; the debt is gone with this.
    pub(super) fn take_owed(&mut self, cn: &Cn) -> Option<u64> {
        self.owed.remove(cn)
    }

    /// Whether a user is owed something.
    pub(super) fn owes(&self, cn: &Cn) -> bool {
        self.owed.contains_key(cn)
    }

    /// A debt that could not be told.
    pub(super) fn owe_again(&mut self, cn: &Cn, events: u64) {
        if self.owed.len() < MAX_OWED || self.owed.contains_key(cn) {
            let owed = self.owed.entry(cn.clone()).or_default();
            *owed = owed.saturating_add(events);
        }
    }

    /// It answered. The line to log when it had failed before.
    pub(super) fn answered(&mut self, now: Instant) -> Option<String> {
        self.retry = None;
        self.strikes = 0;
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

    fn owe(&mut self, cn: &Cn, events: usize) {
        let events = u64::try_from(events).unwrap_or(u64::MAX);
        self.transactions += 1;
        self.events = self.events.saturating_add(events);
        self.owe_again(cn, events);
    }

    fn lost(&mut self) -> String {
        let (transactions, events) =
            (std::mem::take(&mut self.transactions), std::mem::take(&mut self.events));
        format!("{events} events in {transactions} transactions were not sent")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bob() -> Cn {
        Cn::new("bob").unwrap()
    }

    #[test]
    fn an_outage_has_one_line_at_its_beginning_and_one_at_its_end() {
        let begun = Instant::now();
        let after = |milliseconds| begun + Duration::from_millis(milliseconds);
        let mut outage = Outage::default();
        assert!(!outage.holds(begun, &bob(), 1));
        assert_eq!(outage.answered(begun), None);
        assert!(outage.failed(after(50), true, &bob(), 1), "the beginning");
        assert!(outage.holds(after(299), &bob(), 1), "nobody waits twice at once");
        assert!(!outage.holds(after(300), &bob(), 1), "once may be our own fault");
        assert!(!outage.failed(after(350), true, &bob(), 2));
        assert!(outage.holds(after(351), &bob(), 3));
        assert!(outage.holds(after(1349), &bob(), 3));
        assert!(!outage.holds(after(1350), &bob(), 4), "tried again");
        assert!(!outage.failed(after(1400), true, &bob(), 1), "still the same outage");
        assert!(!outage.holds(after(2400), &bob(), 1));
        let line = outage.answered(after(2250)).unwrap();
        assert_eq!(line, "memcached answers again after 2.2 s: 11 events in 6 transactions were not sent");
        assert_eq!(outage.answered(after(2500)), None);
        assert!(!outage.holds(after(2500), &bob(), 1));
        assert_eq!(outage.take_owed(&bob()), Some(11));
        assert_eq!(outage.take_owed(&bob()), None, "told once");
        assert_eq!(outage.close(), None);
    }

    #[test]
    fn a_refusal_is_asked_for_again_each_time() {
        let now = Instant::now();
        let mut outage = Outage::default();
        for _ in 0..5 {
            outage.failed(now, false, &bob(), 1);
            assert!(!outage.holds(now, &bob(), 1));
        }
        assert!(outage.answered(now).unwrap().contains("5 events in 5 transactions"));
    }

    #[test]
    fn debts_are_bounded() {
        let mut outage = Outage::default();
        for user in 0..2 * MAX_OWED {
            outage.failed(Instant::now(), false, &Cn::new(&format!("u{user}")).unwrap(), 1);
        }
        assert_eq!(outage.owed.len(), MAX_OWED);
    }

    #[test]
    fn a_process_that_ends_in_an_outage_says_what_was_lost_unless_it_said_so() {
        let now = Instant::now();
        let mut outage = Outage::default();
        outage.failed(now, true, &bob(), 1);
        assert_eq!(outage.close(), None, "the first line said it all");
        outage.failed(now, true, &bob(), 1);
        outage.failed(now, true, &bob(), 1);
        assert!(outage.close().unwrap().contains("2 events in 2 transactions"));
    }
}
