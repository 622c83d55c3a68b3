//! Who is to be registered: sessions, settings, requests, other daemons; and the list of them all.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use ocbus_resolver::Cn;
use serde::{Deserialize, Serialize};

use super::user::{Known, User};
use super::{Claim, Core, MAX_USERS, Now, Tally};

/// How long a daemon remembers whose session has ended under another's care, beyond the grace period: that one may
/// die before it has taken the registration back. In grace periods.
const LINGER: u32 = 2;

/// How long behind a moment at which another daemon may take back what we registered we look whether it did: behind
/// its next census.
const AFTERWARDS: Duration = Duration::from_secs(30);

/// Why a user outlives a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::registration) enum Why {
    /// Registered by hand.
    Added,
    /// Unregistered by hand, until its session ends.
    Barred,
    /// Set at Dovecot for a session or by the settings: to be taken back when that has ended.
    Set,
}

/// A user in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Entry {
    /// The cn.
    pub user: String,
    /// By the settings or by a request; else by a session.
    pub permanent: bool,
    /// Whether it has a session now.
    pub session: bool,
    /// The daemon that looks after it.
    pub daemon: String,
    /// How it stands.
    pub state: State,
    /// Since when it is registered, in microseconds since the Unix epoch, as far as this daemon knows: of what it found
    /// registered, since it found it. With a `state_file` it outlives restarts.
    pub since_us: Option<u64>,
    /// The last event of it, likewise.
    pub last_event_us: Option<u64>,
    /// What went wrong last, if it did.
    pub fault: Option<String>,
}

/// How it stands with a user's registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum State {
    /// The value is ours.
    Registered,
    /// Not yet.
    Pending,
    /// It did not work; it is tried again.
    Failed,
    /// Another daemon has it.
    Elsewhere,
    /// Unregistered by hand, although it has a session.
    Barred,
    /// It is being taken back.
    Leaving,
}

/// Why a user is not registered or unregistered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Nobody.
    #[error("'{0}' is not registered")]
    NotThere(Cn),
    /// The settings would register it again.
    #[error(
        "'{0}' is permanent by the settings: take it out of registration.permanent or permanent_file and reload"
    )]
    Listed(Cn),
    /// Another daemon would register it again.
    #[error("'{user}' is looked after by the daemon '{daemon}': ask that one")]
    Elsewhere {
        /// The user.
        user: Cn,
        /// That daemon.
        daemon: String,
    },
    /// What was made by hand is taken back; another daemon registers it for its session.
    #[error(
        "'{user}' is not registered by hand any more, but has a session, which the daemon '{daemon}' looks after: ask \
         that one"
    )]
    Session {
        /// The user.
        user: Cn,
        /// That daemon.
        daemon: String,
    },
    /// There are too many.
    #[error("'{0}' is not registered: there are {MAX_USERS} users already")]
    Full(Cn),
}

impl Core {
    /// Who has a session, as the resolver enumerates them: some of them.
    pub(in crate::registration) fn came<'a>(&mut self, now: Now, present: impl IntoIterator<Item = &'a Cn>) {
        for cn in present {
            self.change(now, cn, |user| user.came(false));
        }
    }

    /// Whose session is not among them.
    pub(in crate::registration) fn missing(&self, present: &HashSet<Cn>) -> Vec<Cn> {
        let missing = |(cn, user): &(&Cn, &User)| user.session && !present.contains(*cn);
        self.users.iter().filter(missing).map(|(cn, _)| cn.clone()).collect()
    }

    /// All who have a session have been told by [`Core::came`]. A session ends when two complete censuses in a row do not
    /// have it: to end one that lives costs mails. Not `complete`: a server could not be asked, and who is missing
    /// may be there.
    pub(in crate::registration) fn sessions(&mut self, now: Now, present: &HashSet<Cn>, complete: bool) {
        if !complete {
            return;
        }
        let linger = self.pace.grace * LINGER;
        let mut changed = Vec::new();
        let mut forgotten = Vec::new();
        for (cn, user) in &mut self.users {
            if user.session && !present.contains(cn) {
                if std::mem::replace(&mut user.missing, true) {
                    changed.push(cn.clone());
                }
            } else if user.due.is_none() && user.in_flight.is_none() && !user.is_permanent() {
                // Under another's care, or at rest.
                let over = user.ended_at.is_none_or(|ended| ended + linger <= now.at);
                if over && !user.has_session() {
                    forgotten.push(cn.clone());
                }
            }
        }
        for cn in forgotten {
            self.remove(&cn);
        }
        let grace = self.pace.grace;
        for cn in changed {
            if self.users.get(&cn).is_some_and(|user| user.barred) {
                self.released.insert((cn.clone(), Claim::Barred));
                self.generation += 1;
            }
            self.change(now, &cn, |user| {
                user.went(false, now);
                // Whoever looked after the session may not have seen that we claim it.
                user.look_by(now.at + grace + AFTERWARDS);
            });
        }
    }

    /// A session that came or went, of which only this daemon is told.
    pub(in crate::registration) fn session(&mut self, now: Now, cn: &Cn, present: bool) {
        match present {
            true => self.change(now, cn, |user| user.came(true)),
            false if self.users.contains_key(cn) => self.change(now, cn, |user| user.went(true, now)),
            false => true,
        };
    }

    /// Who is permanent by the settings: these and no others.
    pub(in crate::registration) fn set_listed(&mut self, now: Now, listed: &HashSet<Cn>) {
        let former: Vec<Cn> = self
            .users
            .iter()
            .filter(|(cn, user)| user.listed && !listed.contains(*cn))
            .map(|(cn, _)| cn.clone())
            .collect();
        for cn in former {
            self.change(now, &cn, |user| user.listed = false);
        }
        for cn in listed {
            self.unbar(cn);
            self.change(now, cn, |user| {
                user.listed = true;
                user.barred = false;
            });
        }
    }

    /// Makes a user permanent, here, until [`Core::unregister`].
    pub(in crate::registration) fn register(&mut self, now: Now, cn: &Cn) -> Result<(), Refusal> {
        self.unbar(cn);
        self.released.remove(&(cn.clone(), Claim::Added));
        let taken = self.change(now, cn, |user| {
            user.added = true;
            user.barred = false;
            user.not_before = None;
            user.look_by(now.at + AFTERWARDS);
        });
        self.generation += 1;
        if taken { Ok(()) } else { Err(Refusal::Full(cn.clone())) }
    }

    /// Takes a user's registration back, whether it was made by hand or for a session; one with a session stays so
    /// until that has ended.
    pub(in crate::registration) fn unregister(&mut self, now: Now, cn: &Cn) -> Result<(), Refusal> {
        let user = self.users.get(cn).ok_or_else(|| Refusal::NotThere(cn.clone()))?;
        if user.listed {
            return Err(Refusal::Listed(cn.clone()));
        }
        let daemon = self.owner(user).to_owned();
        if !self.is_mine_as(user) {
            return Err(Refusal::Elsewhere { user: cn.clone(), daemon });
        }
        // Another daemon has it registered for its session, and would not know that we take it back.
        let others = daemon != self.name && user.session && !user.told;
        if user.added {
            self.released.insert((cn.clone(), Claim::Added));
        }
        self.released.remove(&(cn.clone(), Claim::Barred));
        let was_barred = user.barred;
        self.change(now, cn, |user| {
            user.added = false;
            user.barred = user.has_session() && !others;
            user.gone_at = None;
            user.not_before = None;
            if was_barred {
                // Another daemon may have set it since, if it was registered there by hand.
                user.known = Known::Unknown;
            }
            user.leaving = !others && (user.known != Known::Absent || user.in_flight.is_some());
        });
        self.plan(cn, now);
        self.generation += 1;
        if others { Err(Refusal::Session { user: cn.clone(), daemon }) } else { Ok(()) }
    }

    /// Another daemon has a user registered by hand, too: it is that one's alone from now on.
    pub(in crate::registration) fn disclaim(&mut self, now: Now, cn: &Cn) {
        if self.users.get(cn).is_some_and(|user| user.added) {
            self.released.insert((cn.clone(), Claim::Added));
            self.generation += 1;
            self.change(now, cn, |user| user.added = false);
        }
    }

    /// The claim to a user, if there is one.
    pub(in crate::registration) fn claim_to(&self, cn: &Cn) -> Option<Claim> {
        self.users.get(cn).and_then(|user| self.claim(user))
    }

    /// What a former run of this daemon kept, and since when it was registered.
    pub(in crate::registration) fn recall(&mut self, now: Now, cn: &Cn, why: Why, since_us: Option<u64>) {
        self.change(now, cn, |user| {
            user.added |= why == Why::Added;
            // Of what an older version kept there is no time.
            user.since_us = user.since_us.or(since_us).or((why == Why::Set).then_some(now.unix_us));
            if why == Why::Barred && !user.is_permanent() {
                // Its session is there until the censuses say otherwise.
                (user.barred, user.session) = (true, true);
            }
            if !user.has_session() && !user.is_permanent() {
                (user.gone_at, user.ended_at) = (Some(now.at), Some(now.at));
            }
        });
    }

    /// What the next run of this daemon should know: why, and since when it is registered.
    pub(in crate::registration) fn kept(&self) -> Vec<(Cn, Why, Option<u64>)> {
        let kept = |(cn, user): (&Cn, &User)| {
            let why = match user {
                User { added: true, .. } => Why::Added,
                User { barred: true, .. } => Why::Barred,
                User { known: Known::Set, .. } => Why::Set,
                // What is being looked at or taken back may be there.
                User { since_us: Some(_), .. } if self.is_mine_as(user) => Why::Set,
                _ => return None,
            };
            Some((cn.clone(), why, user.since_us))
        };
        self.users.iter().filter_map(kept).collect()
    }

    /// What all daemons must know of this one, by name, behind `after`, and at most so much.
    pub(in crate::registration) fn claims(&self, after: Option<&Cn>, most: usize) -> Vec<(Cn, Claim)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = self.users.range::<Cn, _>((after.map_or(Unbounded, Excluded), Unbounded));
        let claim = |(cn, user): (&Cn, &User)| self.claim(user).map(|claim| (cn.clone(), claim));
        range.filter_map(claim).take(most).collect()
    }

    fn claim(&self, user: &User) -> Option<Claim> {
        match user {
            User { added: true, .. } => Some(Claim::Added),
            User { barred: true, session: true, .. } if self.is_mine_as(user) => Some(Claim::Barred),
            _ => None,
        }
    }

    /// Claims that are to be given up; given back by [`Core::release`] when that does not work.
    pub(in crate::registration) fn released(&mut self) -> BTreeSet<(Cn, Claim)> {
        let mut released = std::mem::take(&mut self.released);
        // It may have been made anew.
        released.retain(|(cn, claim)| self.users.get(cn).and_then(|user| self.claim(user)) != Some(*claim));
        released
    }

    /// See [`Core::released`].
    pub(in crate::registration) fn release(&mut self, cn: Cn, claim: Claim) {
        self.released.insert((cn, claim));
    }

    fn unbar(&mut self, cn: &Cn) {
        if self.users.get(cn).is_some_and(|user| user.barred) {
            self.released.insert((cn.clone(), Claim::Barred));
            self.generation += 1;
        }
    }

    /// Grows when [`Core::kept`] may have changed.
    pub(in crate::registration) fn generation(&self) -> u64 {
        self.generation
    }

    /// Which daemons live. Ours is always among them.
    pub(in crate::registration) fn set_daemons(&mut self, now: Now, daemons: &[String]) {
        let mut daemons = daemons.to_vec();
        if !daemons.contains(&self.name) {
            daemons.push(self.name.clone());
        }
        daemons.sort();
        daemons.dedup();
        if daemons == self.daemons {
            return;
        }
        let users: Vec<Cn> = self.users.keys().cloned().collect();
        let before: Vec<bool> = self.users.values().map(|user| self.is_mine_as(user)).collect();
        self.daemons = daemons;
        let (mut came, mut went) = (0u32, 0u32);
        for (cn, was) in users.iter().zip(before) {
            let owner = self.place_of_owner(cn);
            if let Some(user) = self.users.get_mut(cn) {
                user.owner = owner;
            }
            let is = self.is_mine(cn);
            if is == was {
                continue;
            }
            if let Some(user) = self.users.get_mut(cn) {
                // Whoever had it meanwhile may have changed it.
                user.forget();
            }
            *(if is { &mut came } else { &mut went }) += 1;
            self.plan(cn, now);
        }
        let daemons = self.daemons.join(" ");
        tracing::info!(event = "daemons_changed", daemons, came, went, "users are shared anew");
    }

    /// An event of a user was seen.
    pub(in crate::registration) fn saw(&mut self, cn: &Cn, unix_us: u64) {
        if let Some(user) = self.users.get_mut(cn) {
            user.last_event_us = user.last_event_us.max(Some(unix_us));
        }
    }

    /// Everybody, by name.
    pub(in crate::registration) fn list(&self, now: Now) -> Vec<Entry> {
        self.users.iter().map(|(cn, user)| self.entry(now, cn, user)).collect()
    }

    /// How many there are of each kind: as each was when something was last done for it.
    pub(in crate::registration) fn tally(&self) -> Tally {
        self.tally
    }

    /// One user.
    pub(in crate::registration) fn find(&self, now: Now, cn: &Cn) -> Option<Entry> {
        self.users.get(cn).map(|user| self.entry(now, cn, user))
    }

    fn entry(&self, now: Now, cn: &Cn, user: &User) -> Entry {
        let mine = self.is_mine_as(user);
        let state = self.state(now, mine, user);
        Entry {
            user: cn.to_string(),
            permanent: user.is_permanent(),
            session: user.has_session(),
            daemon: if mine { self.name.clone() } else { self.owner(user).to_owned() },
            state,
            since_us: user.since_us,
            last_event_us: user.last_event_us,
            fault: user.fault.clone(),
        }
    }

    pub(super) fn state(&self, now: Now, mine: bool, user: &User) -> State {
        let wanted = user.wanted(now.at, self.pace.grace);
        match user.known {
            _ if !mine => State::Elsewhere,
            Known::Set | Known::Unknown if !wanted => State::Leaving,
            _ if user.barred => State::Barred,
            _ if user.fault.is_some() => State::Failed,
            Known::Set => State::Registered,
            _ => State::Pending,
        }
    }

    /// Changes why a user is registered. Says whether there was room.
    fn change(&mut self, now: Now, cn: &Cn, change: impl FnOnce(&mut User)) -> bool {
        if !self.users.contains_key(cn) {
            if self.users.len() >= MAX_USERS {
                self.counts.refused += 1;
                return false;
            }
            let owner = self.place_of_owner(cn);
            self.users.insert(cn.clone(), User { owner, ..User::default() });
        }
        let grace = self.pace.grace;
        let Some(user) = self.users.get_mut(cn) else { return false };
        let before = (user.wanted(now.at, grace), user.gone_at, user.is_pinned(), user.due.is_none());
        change(user);
        let after = (user.wanted(now.at, grace), user.gone_at, user.is_pinned(), user.due.is_none());
        // What did not change is planned already, unless it is new.
        if before != after || user.due.is_none() {
            if before.0 != after.0 && user.failures == 0 && user.known != Known::Set {
                user.not_before = None;
            }
            self.plan(cn, now);
        } else {
            self.recount(cn, now);
        }
        true
    }
}

impl User {
    fn came(&mut self, told: bool) {
        match told {
            true => self.told = true,
            false => (self.session, self.missing) = (true, false),
        }
        self.gone_at = None;
        self.leaving &= self.barred;
    }

    fn went(&mut self, told: bool, now: Now) {
        match told {
            true => self.told = false,
            false => (self.session, self.missing) = (false, false),
        }
        if !self.has_session() {
            // By hand it was unregistered at once: no grace, and the next session counts again.
            self.gone_at = (!std::mem::take(&mut self.barred)).then_some(now.at);
            self.ended_at = Some(now.at);
        }
    }

    /// Looks at what is registered by then at the latest, and not only in its period.
    fn look_by(&mut self, at: Instant) {
        if self.added {
            self.again = Some(at);
            self.not_before = self.not_before.map(|not_before| not_before.min(at));
        }
    }
}
