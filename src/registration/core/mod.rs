//! Which user's registration is looked at, made or taken back next: decisions without I/O and without a clock.
//!
//! A user is **wanted** while listed in the settings, registered at run time, or holding a session (and for a grace
//! period behind its end). What is **known** of a registration comes from outcomes only. [`Core::next`] gives the
//! tasks by which the known becomes the wanted, and [`Core::done`] takes their outcomes. A registration that is as
//! it should be is looked at again in every reconcile period.

mod roll;
mod user;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub(super) use roll::Why;
pub use roll::{Entry, Refusal, State};

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ocbus_resolver::Cn;

use super::share;
use user::{Known, User};

/// The most users; those beyond are not registered, and counted.
const MAX_USERS: usize = 1_000_000;
/// The longest time until a Dovecot that is away is asked again.
const LONGEST_OUTAGE_RETRY: Duration = Duration::from_secs(30);
/// Routine looks that may come at once.
const BURST: u32 = 16;

/// A point in time by both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// For all decisions.
    pub(super) at: Instant,
    /// Microseconds since the Unix epoch: for people.
    pub(super) unix_us: u64,
}

/// How fast everything goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// A registration that is as it should be is looked at again within this time.
    pub(super) reconcile: Duration,
    /// How many such looks a second at most.
    pub(super) reconcile_per_s: u32,
    /// How long a registration outlives the user's last session.
    pub(super) grace: Duration,
    /// How soon what failed is tried again the first time.
    pub(super) retry: Duration,
}

/// What to do for a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Read the value.
    Look,
    /// Set it to ours.
    Set,
    /// Take it away.
    Unset,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) user: Cn,
    pub(super) act: Act,
    /// It failed before: not together with others, who would wait for it.
    pub(super) alone: bool,
    /// Whether another daemon may have unregistered it by hand, which counts for all: asked when it comes to us.
    pub(super) ask_barred: bool,
}

/// What became of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Of a look: whether the value is ours.
    Found { ours: bool },
    /// Of the others: it is so now.
    Done,
    /// Nothing was done: another daemon has it registered by hand.
    Claimed(String),
    /// Nothing was done: it was unregistered by hand, until its session ends.
    Barred,
    /// Nothing was done: whether another daemon claims it could not be asked.
    Unasked(String),
    /// Dovecot has no such user.
    UnknownUser,
    /// This user's did not work.
    Failed(String),
    /// Nobody's would have worked: Dovecot is away.
    Away(String),
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Registrations made.
    pub(super) set: u64,
    /// Registrations taken back.
    pub(super) unset: u64,
    /// Registrations that were as they should be when they were looked at.
    pub(super) kept: u64,
    /// Registrations that had been there and were not any more, or not ours.
    pub(super) lost: u64,
    /// Tasks for users whom Dovecot does not know.
    pub(super) unknown: u64,
    /// Tasks that failed for one user.
    pub(super) failed: u64,
    /// Times that Dovecot went away.
    pub(super) outages: u64,
    /// Users beyond [`MAX_USERS`].
    pub(super) refused: u64,
}

/// What was done by hand, of which all daemons must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claim {
    /// Registered, by this daemon: no other takes it back.
    Added,
    /// Unregistered in spite of its session: nobody registers it until that has ended.
    Barred,
}

/// Users by how they stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// All that are known.
    pub(super) users: u64,
    /// Registered by this daemon.
    pub(super) registered: u64,
    /// Not registered, though this daemon tried.
    pub(super) failing: u64,
    /// Another daemon's.
    pub(super) elsewhere: u64,
    /// Of those registered, the permanent ones.
    pub(super) permanent: u64,
}

#[derive(Debug, Clone, Copy)]
struct Outage {
    until: Instant,
    tries: u32,
    probing: bool,
}

/// The decisions.
#[derive(Debug)]
pub(super) struct Core {
    pace: Pace,
    /// Our name among the daemons.
    name: String,
    /// The live daemons, we among them, in order.
    daemons: Vec<String>,
    users: BTreeMap<Cn, User>,
    /// Of all users, kept up with each change: whoever asks must not make the others wait.
    tally: Tally,
    /// Claims that are to be given up.
    released: BTreeSet<(Cn, Claim)>,
    /// When something is to be done for whom: the same as each user's `due`.
    queue: BTreeSet<(Instant, Cn)>,
    outage: Option<Outage>,
    /// The next slot for a routine look.
    routine: Option<Instant>,
    counts: Counts,
    /// Grows with whatever changes the list that outlives us.
    generation: u64,
    jitters: u64,
}

impl Core {
    /// Nobody yet, and no other daemon than ourselves.
    pub(super) fn new(name: &str, pace: Pace) -> Core {
        Core {
            pace,
            name: name.to_owned(),
            daemons: vec![name.to_owned()],
            users: BTreeMap::new(),
            tally: Tally::default(),
            released: BTreeSet::new(),
            queue: BTreeSet::new(),
            outage: None,
            routine: None,
            counts: Counts::default(),
            generation: 0,
            jitters: 0,
        }
    }

    /// Another pace, and perhaps other servers and secrets: what failed is tried again at once.
    pub(super) fn renew(&mut self, now: Now, pace: Pace) {
        self.pace = pace;
        if let Some(outage) = &mut self.outage {
            outage.until = now.at;
            outage.tries = 1;
        }
        let latest = now.at + pace.reconcile;
        let sooner = |user: &User| user.failures > 0 || user.not_before.is_some_and(|at| at > latest);
        let users: Vec<Cn> =
            self.users.iter().filter(|(_, user)| sooner(user)).map(|(cn, _)| cn.clone()).collect();
        for cn in users {
            if let Some(user) = self.users.get_mut(&cn) {
                user.not_before = Some(if user.failures > 0 { now.at } else { latest });
            }
            self.plan(&cn, now);
        }
    }

    /// Counts since the start.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// When [`Core::next`] has something again; `None`: when something else happens first.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let (first, _) = self.queue.first()?;
        match self.outage {
            None => Some(*first),
            Some(Outage { probing: true, .. }) => None,
            Some(outage) => Some((*first).max(outage.until)),
        }
    }

    /// What is to be done now, at most so much. Every task must come back by [`Core::done`].
    pub(super) fn next(&mut self, now: Now, max: usize) -> Vec<Task> {
        let mut tasks = Vec::new();
        let max = match &self.outage {
            None => max,
            Some(outage) if outage.probing || now.at < outage.until => 0,
            // One to see whether it is back.
            Some(_) => max.min(1),
        };
        while tasks.len() < max {
            let Some((at, cn)) = self.queue.first().cloned() else { break };
            if at > now.at {
                break;
            }
            self.queue.pop_first();
            if let Some(task) = self.begin(&cn, now) {
                tasks.push(task);
            }
        }
        if let Some(outage) = &mut self.outage {
            outage.probing |= !tasks.is_empty();
        }
        tasks
    }

    /// The task of a user who is due.
    fn begin(&mut self, cn: &Cn, now: Now) -> Option<Task> {
        let pace = self.pace;
        let user = self.users.get_mut(cn)?;
        user.due = None;
        let wanted = user.wanted(now.at, pace.grace);
        let Some(act) = user.act(wanted).filter(|_| user.not_before.is_none_or(|at| at <= now.at) || !wanted)
        else {
            self.plan(cn, now);
            return None;
        };
        if act == Act::Look && user.known == Known::Set && !std::mem::take(&mut user.slot) {
            let at = self.routine_slot(now.at);
            if at > now.at {
                if let Some(user) = self.users.get_mut(cn) {
                    user.slot = true;
                }
                self.enqueue(cn, at);
                return None;
            }
        }
        let user = self.users.get_mut(cn)?;
        user.in_flight = Some(act);
        let ask_barred =
            act == Act::Look && user.known == Known::Unknown && wanted && !user.is_permanent() && !user.told;
        let task = Task { user: cn.clone(), act, alone: user.failures > 0, ask_barred };
        self.recount(cn, now);
        Some(task)
    }

    /// Books the next slot for a routine look: now, while a burst has room, or later.
    fn routine_slot(&mut self, now: Instant) -> Instant {
        let each = Duration::from_secs(1) / self.pace.reconcile_per_s.max(1);
        let slot = self.routine.map_or(now, |next| next.max(now));
        self.routine = Some(slot + each);
        slot.checked_sub(each * (BURST - 1)).map_or(now, |at| at.max(now))
    }

    /// What became of a task.
    pub(super) fn done(&mut self, now: Now, cn: &Cn, outcome: Outcome) {
        self.note_outage(now.at, &outcome);
        let pace = self.pace;
        let jitter = self.jitter(cn);
        let Some(user) = self.users.get_mut(cn) else { return };
        let Some(act) = user.in_flight.take() else { return };
        let was = user.known;
        if !matches!(outcome, Outcome::Failed(_) | Outcome::Away(_) | Outcome::Unasked(_)) {
            user.failures = 0;
            user.fault = None;
        }
        let was_unasked = std::mem::take(&mut user.unasked);
        match outcome {
            Outcome::Found { ours: true } => {
                // What outlives us has it now.
                self.generation += u64::from(was != Known::Set);
                user.settle(Known::Set, now);
                user.not_before = Some(now.at + pace.reconcile.mul_f64(jitter));
                self.counts.kept += 1;
            }
            Outcome::Found { ours: false } => {
                user.settle(Known::Absent, now);
                if was == Known::Set {
                    self.counts.lost += 1;
                    tracing::warn!(event = "registration_lost", user = %cn, "it was gone or another's; set again");
                }
            }
            Outcome::Claimed(daemon) => {
                tracing::info!(event = "registration_left", user = %cn, %daemon, "registered there by hand");
                if !user.wanted(now.at, pace.grace) {
                    self.remove(cn);
                    self.generation += 1;
                    return;
                }
            }
            Outcome::Barred => {
                // Who has become permanent meanwhile is so in spite of it.
                user.barred = !user.is_permanent();
                self.generation += 1;
            }
            Outcome::Done if act == Act::Unset => {
                user.settle(Known::Absent, now);
                self.counts.unset += 1;
                self.generation += 1;
                tracing::info!(event = "unregistered", user = %cn, "taken back from Dovecot");
            }
            Outcome::Done => {
                user.settle(Known::Set, now);
                user.not_before = Some(now.at + pace.reconcile.mul_f64(jitter));
                self.counts.set += 1;
                self.generation += 1;
                tracing::info!(event = "registered", user = %cn, "set at Dovecot");
            }
            Outcome::UnknownUser => {
                user.settle(Known::Absent, now);
                user.not_before = Some(now.at + pace.reconcile.mul_f64(jitter));
                user.fault = Some("Dovecot knows no such user".to_owned());
                self.counts.unknown += 1;
            }
            Outcome::Unasked(why) => {
                if !was_unasked {
                    tracing::warn!(event = "claims_unread", user = %cn, reason = %why, "not taken back until they can be");
                }
                // It is the resolver that is away, for whoever it is, and none of this user's failures.
                user.unasked = true;
                user.fault = Some(why);
                user.not_before = Some(now.at + pace.retry.mul_f64(jitter));
            }
            Outcome::Failed(why) => {
                self.counts.failed += 1;
                if user.fault.as_ref() != Some(&why) {
                    tracing::warn!(event = "registration_failed", user = %cn, reason = %why, "tried again");
                }
                user.failed(
                    act,
                    why,
                    now.at + backoff(pace.retry, user.failures, pace.reconcile).mul_f64(jitter),
                );
            }
            Outcome::Away(why) => {
                let failures = user.failures;
                user.failed(act, why, now.at);
                user.failures = failures;
            }
        }
        user.again = user.again.filter(|at| *at > now.at);
        if let Some(again) = user.again {
            user.not_before = user.not_before.map(|at| at.min(again));
        }
        self.plan(cn, now);
    }

    fn note_outage(&mut self, now: Instant, outcome: &Outcome) {
        let why = match outcome {
            Outcome::Away(why) => why,
            // Dovecot was not asked: another user's task is to find out.
            Outcome::Claimed(_) | Outcome::Barred | Outcome::Unasked(_) => {
                if let Some(outage) = &mut self.outage {
                    outage.probing = false;
                }
                return;
            }
            _ => {
                if self.outage.take().is_some() {
                    tracing::info!(event = "dovecot_back", "registrations go on");
                }
                return;
            }
        };
        let retry = self.pace.retry;
        match &mut self.outage {
            None => {
                self.counts.outages += 1;
                tracing::warn!(event = "dovecot_away", reason = %why, "registrations wait until it answers");
                self.outage = Some(Outage { until: now + retry, tries: 1, probing: false });
            }
            Some(outage) if outage.probing => {
                let wait = backoff(retry, outage.tries, LONGEST_OUTAGE_RETRY.max(retry));
                *outage = Outage { until: now + wait, tries: outage.tries.saturating_add(1), probing: false };
            }
            // Others that were under way when it went.
            Some(_) => {}
        }
    }

    /// Puts a user where the queue has it due, or out of it, or out of everything.
    fn plan(&mut self, cn: &Cn, now: Now) {
        let pace = self.pace;
        let mine = self.is_mine(cn);
        let Some(user) = self.users.get_mut(cn) else { return };
        if let Some(at) = user.due.take() {
            self.queue.remove(&(at, cn.clone()));
        }
        if user.in_flight.is_some() {
            return self.recount(cn, now);
        }
        if !mine {
            if user.is_over(now.at, pace.grace) {
                return self.remove(cn);
            }
            // Whoever has it may change it.
            user.known = Known::Unknown;
            return self.recount(cn, now);
        }
        let wanted = user.wanted(now.at, pace.grace);
        if wanted && std::mem::take(&mut user.unasked) {
            user.fault = None;
        }
        let waits = wanted || user.failures > 0 || user.unasked;
        let at = match user.act(wanted) {
            Some(_) => user.not_before.filter(|_| waits).unwrap_or(now.at).max(now.at),
            None if user.is_over(now.at, pace.grace) => return self.remove(cn),
            // Barred: until its session ends.
            None => return self.recount(cn, now),
        };
        // When the grace ends it is another matter.
        let grace_end =
            user.grace_end(pace.grace).filter(|end| wanted && *end > now.at && !user.is_permanent());
        self.enqueue(cn, grace_end.map_or(at, |end| end.min(at)));
        self.recount(cn, now);
    }

    /// Forgets a user who is not in the queue.
    fn remove(&mut self, cn: &Cn) {
        if let Some(user) = self.users.remove(cn) {
            self.tally.take(user.counted);
        }
    }

    /// Brings the tally up to date: behind whatever may have changed a user's state.
    fn recount(&mut self, cn: &Cn, now: Now) {
        let Some(user) = self.users.get(cn) else { return };
        let counted = Some((self.state(now, self.is_mine_as(user), user), user.is_permanent()));
        if user.counted == counted {
            return;
        }
        self.tally.take(user.counted);
        self.tally.add(counted);
        if let Some(user) = self.users.get_mut(cn) {
            user.counted = counted;
        }
    }

    fn enqueue(&mut self, cn: &Cn, at: Instant) {
        if let Some(user) = self.users.get_mut(cn) {
            user.due = Some(at);
            self.queue.insert((at, cn.clone()));
        }
    }

    /// Whether this daemon looks after a user: its own for whom only it knows, else by rendezvous.
    fn is_mine(&self, cn: &Cn) -> bool {
        match self.users.get(cn) {
            Some(user) => self.is_mine_as(user),
            None => share::owner(cn.as_str(), &self.daemons).is_none_or(|owner| owner == self.name),
        }
    }

    fn is_mine_as(&self, user: &User) -> bool {
        user.is_pinned() || self.owner(user) == self.name
    }

    /// Who looks after a user who is not pinned.
    fn owner(&self, user: &User) -> &str {
        self.daemons.get(user.owner).unwrap_or(&self.name)
    }

    /// The place of a user's owner. It costs a hash for each daemon, and so is kept with the user.
    fn place_of_owner(&self, cn: &Cn) -> usize {
        let owner = share::owner(cn.as_str(), &self.daemons);
        self.daemons.iter().position(|daemon| Some(daemon.as_str()) == owner).unwrap_or_default()
    }

    /// Between a half and one, another each time: what began together does not stay together.
    fn jitter(&mut self, cn: &Cn) -> f64 {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        self.jitters = self.jitters.wrapping_add(1);
        let mut hasher = DefaultHasher::new();
        (cn, self.jitters).hash(&mut hasher);
        let octet = hasher.finish().to_le_bytes();
        0.5 + f64::from(u16::from_le_bytes([octet[0], octet[1]])) / f64::from(u16::MAX) / 2.0
    }
}

impl Tally {
    fn add(&mut self, counted: Option<(State, bool)>) {
        self.change(counted, u64::wrapping_add);
    }

    fn take(&mut self, counted: Option<(State, bool)>) {
        self.change(counted, u64::wrapping_sub);
    }

    fn change(&mut self, counted: Option<(State, bool)>, by: fn(u64, u64) -> u64) {
        let Some((state, permanent)) = counted else { return };
        let registered = state == State::Registered;
        for (count, is) in [
            (&mut self.users, true),
            (&mut self.registered, registered),
            (&mut self.failing, state == State::Failed),
            (&mut self.elsewhere, state == State::Elsewhere),
            (&mut self.permanent, registered && permanent),
        ] {
            *count = by(*count, u64::from(is));
        }
    }
}

/// Doubled with each failure.
fn backoff(first: Duration, failures: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << failures.min(16)).min(longest.max(first))
}
