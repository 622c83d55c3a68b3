//! One user: why it is registered, and what is known of it.

use std::time::{Duration, Instant};

use super::{Act, Now, State};

/// What is known of a user's registration at Dovecot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing: look.
    #[default]
    Unknown,
    /// The value is ours.
    Set,
    /// There is none, or another's.
    Absent,
}

#[derive(Debug, Default)]
pub(super) struct User {
    /// Permanent by the settings.
    pub(super) listed: bool,
    /// Permanent by a request at run time.
    pub(super) added: bool,
    /// A session, seen in the resolver.
    pub(super) session: bool,
    /// The last complete census did not have its session: it ends when the next one does not either.
    pub(super) missing: bool,
    /// A session that only this daemon has been told of.
    pub(super) told: bool,
    /// When the last session was gone, if a grace period follows.
    pub(super) gone_at: Option<Instant>,
    /// When the last session was gone, whether or not one does.
    pub(super) ended_at: Option<Instant>,
    /// Unregistered by hand in spite of its session: until that ends.
    pub(super) barred: bool,
    /// Unregistered here by hand, and not known to be gone: nobody else may know that there is something to take back.
    pub(super) leaving: bool,
    pub(super) known: Known,
    /// Since when the value is ours, in microseconds since the Unix epoch.
    pub(super) since_us: Option<u64>,
    pub(super) last_event_us: Option<u64>,
    pub(super) in_flight: Option<Act>,
    /// Its place in the queue.
    pub(super) due: Option<Instant>,
    /// When it may be tried or looked at again.
    pub(super) not_before: Option<Instant>,
    /// A look that is owed besides the routine ones, by then.
    pub(super) again: Option<Instant>,
    /// A slot for its routine look is booked at `due`.
    pub(super) slot: bool,
    /// Not taken back, since nobody could say whether another daemon claims it.
    pub(super) unasked: bool,
    pub(super) failures: u32,
    pub(super) fault: Option<String>,
    /// Who looks after it unless it is pinned: a place among [`super::Core`]'s daemons.
    pub(super) owner: usize,
    /// As what it stands in the tally: its state, and whether it is permanent.
    pub(super) counted: Option<(State, bool)>,
}

impl User {
    /// Whether it stays registered without any session.
    pub(super) fn is_permanent(&self) -> bool {
        self.listed || self.added
    }

    /// Whether no other daemon knows of it.
    pub(super) fn is_pinned(&self) -> bool {
        self.added || self.told || self.leaving
    }

    pub(super) fn has_session(&self) -> bool {
        self.session || self.told
    }

    /// When its grace period ends, if it is in one.
    pub(super) fn grace_end(&self, grace: Duration) -> Option<Instant> {
        self.gone_at.map(|at| at + grace)
    }

    /// Whether it should be registered.
    pub(super) fn wanted(&self, now: Instant, grace: Duration) -> bool {
        let held = self.has_session() || self.grace_end(grace).is_some_and(|end| now < end);
        self.is_permanent() || (held && !self.barred)
    }

    /// Whether nothing is left to remember.
    pub(super) fn is_over(&self, now: Instant, grace: Duration) -> bool {
        !self.has_session() && !self.wanted(now, grace) && self.known == Known::Absent
    }

    /// What brings the known nearer to the wanted; a look where they agree.
    pub(super) fn act(&self, wanted: bool) -> Option<Act> {
        match (wanted, self.known) {
            (true, Known::Absent) => Some(Act::Set),
            // Not wanted and unknown: it may be another's, and is left alone then.
            (_, Known::Unknown) | (true, Known::Set) => Some(Act::Look),
            (false, Known::Set) => Some(Act::Unset),
            (false, Known::Absent) => None,
        }
    }

    pub(super) fn settle(&mut self, known: Known, now: Now) {
        self.not_before = None;
        self.since_us = match known {
            Known::Set => self.since_us.or(Some(now.unix_us)),
            _ => None,
        };
        self.known = known;
        self.leaving &= known != Known::Absent;
    }

    /// Another try, not before `at`. What should have changed may have changed.
    pub(super) fn failed(&mut self, act: Act, why: String, at: Instant) {
        if act != Act::Look {
            self.known = Known::Unknown;
        }
        self.failures = self.failures.saturating_add(1);
        self.fault = Some(why);
        self.not_before = Some(at);
    }

    /// It came to us, or something may have happened to it behind our back: look at once.
    pub(super) fn forget(&mut self) {
        self.known = Known::Unknown;
        self.not_before = None;
    }
}
