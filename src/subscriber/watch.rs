//! What the registrar knows of the resolver from one heartbeat to the next. No I/O, and no clock: it is given the time.

use std::time::Duration;

use ocbus_resolver::Canary;
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
    pub(super) slow: Slow,
}

impl Watch {
    pub(super) fn new(subscriber: Uuid) -> Watch {
        Watch { view: View::Unknown, canary: Canary::new(subscriber), plants_at: None, slow: Slow::default() }
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

#[cfg(test)]
mod tests {
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
}
