//! What the registrar knows of the resolver from one heartbeat to the next. No I/O, and no clock: it is given the time.

use std::collections::BTreeMap;
use std::time::Duration;

use ocbus_resolver::{Canary, Cn};
use tokio::time::Instant;
use uuid::Uuid;

/// What the last heartbeat said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// Nothing planted yet.
    Unknown,
    /// It has not forgotten us.
    Remembers,
    /// It did not answer.
    Absent,
}

#[derive(Debug)]
pub(super) struct Watch {
    pub(super) view: View,
    pub(super) canary: Canary,
    /// A canary was refused: when it is tried again.
    pub(super) plants_at: Option<Instant>,
    /// Of each server, by its index.
    pub(super) slow: BTreeMap<usize, Slow>,
    pub(super) forgets: Forgets,
}

impl Watch {
    pub(super) fn new(subscriber: Uuid) -> Watch {
        Watch {
            view: View::Unknown,
            canary: Canary::new(subscriber),
            plants_at: None,
            slow: BTreeMap::new(),
            forgets: Forgets::default(),
        }
    }
}

/// A resolver that answers late: we waited for it, a publisher with a small budget has not. Users are told to look
/// again when it is over, which is mostly at the next heartbeat; while it goes on, or comes and goes, not more often
/// than once a period.
#[derive(Debug, Default)]
pub(super) struct Slow {
    /// Since when something may have been missed that users have not been told.
    owed: Option<Instant>,
    told: Option<Instant>,
}

/// What follows from a heartbeat.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The log is to say that it is slow.
    pub(super) warn: bool,
    /// Users are to be told to look again.
    pub(super) resync: bool,
}

impl Slow {
    /// Takes note of an answer, late or not.
    pub(super) fn note(&mut self, late: bool, now: Instant, period: Duration) -> Told {
        let past = |since: Option<Instant>| since.is_none_or(|since| now >= since + period);
        let warn = late && self.owed.is_none();
        if warn {
            self.owed = Some(now);
        }
        // While it is late, what is told now is not the last of it.
        let resync = self.owed.is_some() && past(self.told) && (!late || past(self.owed));
        if resync {
            self.all_told(now);
        }
        Told { warn, resync }
    }

    /// All users have been told to look again.
    pub(super) fn all_told(&mut self, now: Instant) {
        (self.owed, self.told) = (None, Some(now));
    }
}

/// A memcached that forgets all, canary included. That is a restart or a flush, and its users are told at once; where it
/// goes on, it is one under such pressure that nothing stays there, and they are told as of single evictions.
#[derive(Debug, Default)]
pub(super) struct Forgets {
    /// How often lately, and when one of these was let go.
    lately: u32,
    since: Option<Instant>,
}

impl Forgets {
    /// In a row; then once a period.
    const AT_ONCE: u32 = 5;

    /// It has forgotten. Says whether users are to be told at once.
    pub(super) fn note(&mut self, now: Instant, period: Duration) -> bool {
        let mut since = self.since.unwrap_or(now);
        while self.lately > 0 && now >= since + period {
            (self.lately, since) = (self.lately - 1, since + period);
        }
        self.since = Some(if self.lately == 0 { now } else { since });
        let at_once = self.lately < Forgets::AT_ONCE;
        self.lately += u32::from(at_once);
        at_once
    }
}

/// What became of one user's registration between renewals: it may be gone, by an eviction or a writer without
/// compare-and-swap. The user is told to look again, at most once a period: what comes in between is told behind it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lost {
    told: Option<Instant>,
    owed: bool,
    in_a_row: u32,
}

impl Lost {
    /// Periods until a registration that is lost again and again is renewed, at most: below a lease, which is three.
    const MOST_PERIODS: u32 = 2;

    /// The user may have missed something.
    pub(super) fn owe(&mut self) {
        self.owed = true;
    }

    /// It was gone, and is registered again.
    pub(super) fn lost(&mut self) {
        self.owe();
        self.in_a_row = self.in_a_row.saturating_add(1);
    }

    /// It stood there.
    pub(super) fn kept(&mut self) {
        self.in_a_row = 0;
    }

    /// The user has been told to look again for another reason.
    pub(super) fn all_told(&mut self) {
        self.owed = false;
    }

    pub(super) fn is_due(&self, now: Instant, period: Duration) -> bool {
        self.owed && self.told.is_none_or(|told| now >= told + period)
    }

    /// Whether the user is to be told now; then that is so.
    pub(super) fn tell(&mut self, now: Instant, period: Duration) -> bool {
        let due = self.is_due(now, period);
        if due {
            (self.owed, self.told) = (false, Some(now));
        }
        due
    }

    /// Whether it was gone within the last period.
    pub(super) fn is_recent(&self, now: Instant, period: Duration) -> bool {
        self.owed || self.told.is_some_and(|told| now < told + period)
    }

    /// After how many periods it is to be renewed where memcached has no room for all.
    pub(super) fn periods(&self) -> u32 {
        self.in_a_row.clamp(1, Lost::MOST_PERIODS)
    }
}

/// Registrations that were gone, for one line in the log a period: a memcached that is too small loses thousands a
/// second.
#[derive(Debug, Default)]
pub(super) struct Losses {
    first: Option<Cn>,
    count: u64,
    said: Option<Instant>,
}

impl Losses {
    pub(super) fn add(&mut self, cn: &Cn) {
        self.first.get_or_insert_with(|| cn.clone());
        self.count += 1;
    }

    /// What there is to say, if it is time to: one of the users, and how many losses there were since.
    pub(super) fn say(&mut self, now: Instant, period: Duration) -> Option<(Cn, u64)> {
        if self.said.is_some_and(|said| now < said + period) {
            return None;
        }
        let first = self.first.take()?;
        self.said = Some(now);
        Some((first, std::mem::take(&mut self.count)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const BEAT: Duration = Duration::from_millis(500);
    const PERIOD: Duration = Duration::from_secs(20);

    /// How many warnings and resyncs there are in two minutes of heartbeats, and at which the first resync is.
    fn count(late: impl Fn(u32) -> bool) -> (usize, usize, Option<u32>) {
        let (mut slow, begun) = (Slow::default(), Instant::now());
        let told: Vec<Told> =
            (0..240).map(|beat| slow.note(late(beat), begun + beat * BEAT, PERIOD)).collect();
        let first = told.iter().position(|told| told.resync).and_then(|beat| u32::try_from(beat).ok());
        let count = |what: fn(&Told) -> bool| told.iter().filter(|told| what(told)).count();
        (count(|told| told.warn), count(|told| told.resync), first)
    }

    #[test]
    fn a_hiccup_is_told_at_the_next_heartbeat_and_a_slow_server_once_a_period() {
        assert_eq!(count(|_| false), (0, 0, None));
        assert_eq!(count(|beat| beat == 7), (1, 1, Some(8)));
        // For a minute: twice meanwhile, and once when it is over.
        assert_eq!(count(|beat| beat < 120), (3, 3, Some(40)));
        let (warnings, resyncs, first) = count(|beat| beat % 2 == 0);
        assert!(warnings <= 7 && resyncs <= 7, "{warnings} {resyncs}");
        assert_eq!(first, Some(1));
        let (warnings, resyncs, _) = count(|_| true);
        assert!(warnings <= 7 && (5..=6).contains(&resyncs), "{warnings} {resyncs}");
    }

    #[test]
    fn what_all_were_told_for_another_reason_is_not_told_again() {
        let (mut slow, now) = (Slow::default(), Instant::now());
        assert!(slow.note(true, now, PERIOD).warn);
        slow.all_told(now + BEAT);
        assert_eq!(slow.note(false, now + 2 * BEAT, PERIOD), Told::default());
    }

    #[test]
    fn a_loss_is_told_at_once_and_more_of_them_once_a_period_and_none_is_forgotten() {
        let (mut lost, begun) = (Lost::default(), Instant::now());
        let at = |beat: u32| begun + beat * BEAT;
        assert!(!lost.tell(at(0), PERIOD));
        lost.lost();
        assert!(lost.tell(at(1), PERIOD));
        assert!(!lost.tell(at(2), PERIOD), "once");
        // Lost at each heartbeat, for two minutes: at each 40th.
        let mut told = 0;
        for beat in 3..=241 {
            lost.lost();
            told += usize::from(lost.tell(at(beat), PERIOD));
        }
        assert_eq!(told, 6);
        // The last is owed, and told when it is time.
        lost.lost();
        lost.kept();
        assert!(!lost.tell(at(280), PERIOD) && lost.tell(at(281), PERIOD) && !lost.tell(at(400), PERIOD));
        lost.lost();
        lost.all_told();
        assert!(!lost.tell(at(500), PERIOD), "told for another reason");
    }

    #[test]
    fn restarts_are_told_at_once_and_a_memcached_that_keeps_nothing_once_a_period() {
        let (mut forgets, begun) = (Forgets::default(), Instant::now());
        // At each heartbeat of two minutes, six periods.
        let told = (0..240).filter(|&beat| forgets.note(begun + beat * BEAT, PERIOD));
        let told: Vec<u32> = told.collect();
        assert_eq!(told, [0, 1, 2, 3, 4, 40, 80, 120, 160, 200]);
        // After a quiet time it is as at first.
        let later = begun + 20 * PERIOD;
        assert!((0..5).all(|beat| forgets.note(later + beat * BEAT, PERIOD)));
        assert!(!forgets.note(later + 5 * BEAT, PERIOD));
    }

    #[test]
    fn who_is_lost_again_is_renewed_later_and_before_a_lease_is_over() {
        let mut lost = Lost::default();
        assert_eq!(lost.periods(), 1);
        lost.lost();
        assert_eq!(lost.periods(), 1);
        lost.lost();
        assert_eq!(lost.periods(), 2);
        (0..10).for_each(|_| lost.lost());
        assert_eq!(lost.periods(), 2);
        lost.kept();
        assert_eq!(lost.periods(), 1);
    }

    #[test]
    fn losses_are_one_line_a_period_with_their_number() {
        let (mut losses, begun) = (Losses::default(), Instant::now());
        let cn = |name: &str| Cn::new(name).unwrap();
        assert_eq!(losses.say(begun, PERIOD), None);
        losses.add(&cn("bob"));
        assert_eq!(losses.say(begun, PERIOD), Some((cn("bob"), 1)), "the first at once");
        losses.add(&cn("alice"));
        losses.add(&cn("bob"));
        assert_eq!(losses.say(begun + PERIOD - BEAT, PERIOD), None);
        assert_eq!(losses.say(begun + PERIOD, PERIOD), Some((cn("alice"), 2)));
        assert_eq!(losses.say(begun + 3 * PERIOD, PERIOD), None);
    }
}
