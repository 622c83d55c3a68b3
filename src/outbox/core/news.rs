//! What is worth a line in the log: decided here, written by whoever calls the core.

use std::time::{Duration, Instant};

use crate::outbox::trace::Reason;

/// Between two accounts of what was dropped.
const PAUSE: Duration = Duration::from_secs(1);

type Dropped = [u64; Reason::ALL.len()];

/// A line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::outbox) enum News {
    /// The resolver answers again.
    ResolverBack {
        /// For how long it did not.
        lasted: Duration,
        /// Events that are held now, to be sent.
        held: u64,
        /// Events that were dropped meanwhile.
        dropped: u64,
    },
    /// Events were dropped, for this reason.
    Dropped {
        /// Why.
        reason: Reason,
        /// Since the last account.
        events: u64,
    },
}

/// What was dropped and is not in the log yet: an account each second at most.
#[derive(Debug, Default)]
pub(super) struct Drops {
    told: Dropped,
    quiet_until: Option<Instant>,
}

impl Drops {
    /// The account, if it is time for one. `dropped` are the counters.
    pub(super) fn take(&mut self, now: Instant, dropped: &Dropped) -> Vec<News> {
        if self.quiet_until.is_some_and(|until| now < until) || !self.is_behind(dropped) {
            return Vec::new();
        }
        self.quiet_until = Some(now + PAUSE);
        self.rest(dropped)
    }

    /// The account, whenever the last one was.
    pub(super) fn rest(&mut self, dropped: &Dropped) -> Vec<News> {
        let counts = Reason::ALL.iter().zip(dropped.iter().zip(&self.told));
        let news = counts.filter_map(|(reason, (now, told))| {
            let events = now.saturating_sub(*told);
            (is_news(*reason) && events > 0).then_some(News::Dropped { reason: *reason, events })
        });
        let news = news.collect();
        self.told = *dropped;
        news
    }

    /// When the next account is due.
    pub(super) fn due(&self, dropped: &Dropped) -> Option<Instant> {
        self.quiet_until.filter(|_| self.is_behind(dropped))
    }

    fn is_behind(&self, dropped: &Dropped) -> bool {
        let mut counts = Reason::ALL.iter().zip(dropped.iter().zip(&self.told));
        counts.any(|(reason, (now, told))| is_news(*reason) && now > told)
    }
}

/// Events that were dropped and should not have been.
pub(super) fn faults(dropped: &Dropped) -> u64 {
    Reason::ALL.iter().zip(dropped).filter(|(reason, _)| is_news(**reason)).map(|(_, count)| count).sum()
}

/// That nobody listens for a user is no fault.
fn is_news(reason: Reason) -> bool {
    reason != Reason::Unheard
}
