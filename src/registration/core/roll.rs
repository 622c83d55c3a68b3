//! Who is to be registered: sessions, settings, requests, other daemons; and the list of them all.

use std::collections::HashSet;

use ocbus_resolver::Cn;
use serde::{Deserialize, Serialize};

use super::user::{Known, User};
use super::{Core, MAX_USERS, Now, Tally};

/// How long a daemon remembers whose session has ended under another's care, beyond the grace period: that one may
/// die before it has taken the registration back. In grace periods.
const LINGER: u32 = 2;

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
    /// Since when it is registered, in microseconds since the Unix epoch.
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
    /// There are too many.
    #[error("'{0}' is not registered: there are {MAX_USERS} users already")]
    Full(Cn),
}

impl Core {
    /// Who has a session, as the resolver enumerates them. Not `complete`: a server could not be asked, and who is
    /// missing may be there.
    pub(in crate::registration) fn sessions(&mut self, now: Now, present: &HashSet<Cn>, complete: bool) {
        for cn in present {
            self.change(now, cn, |user| user.came(false));
        }
        if !complete {
            return;
        }
        let linger = self.pace.grace * LINGER;
        let mut changed = Vec::new();
        let mut forgotten = Vec::new();
        for (cn, user) in &self.users {
            if user.session && !present.contains(cn) {
                changed.push(cn.clone());
            } else if user.due.is_none() && user.in_flight.is_none() && !user.is_permanent() {
                // Under another's care, or at rest.
                let over = user.ended_at.is_none_or(|ended| ended + linger <= now.at);
                if over && !user.has_session() {
                    forgotten.push(cn.clone());
                }
            }
        }
        for cn in forgotten {
            self.users.remove(&cn);
        }
        for cn in changed {
            self.change(now, &cn, |user| user.went(false, now));
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
            self.change(now, cn, |user| {
                user.listed = true;
                user.barred = false;
            });
        }
    }

    /// Makes a user permanent, here, until [`Core::unregister`].
    pub(in crate::registration) fn register(&mut self, now: Now, cn: &Cn) -> Result<(), Refusal> {
        let taken = self.change(now, cn, |user| {
            user.added = true;
            user.barred = false;
            user.not_before = None;
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
        if !self.is_mine(cn) {
            return Err(Refusal::Elsewhere { user: cn.clone(), daemon: self.owner(cn).to_owned() });
        }
        self.change(now, cn, |user| {
            user.added = false;
            user.barred = user.has_session();
            user.gone_at = None;
            user.not_before = None;
            user.leaving = user.known != Known::Absent || user.in_flight.is_some();
        });
        self.plan(cn, now);
        self.generation += 1;
        Ok(())
    }

    /// What a former run of this daemon kept: registered by hand, or for a session that may have ended meanwhile.
    pub(in crate::registration) fn recall(&mut self, now: Now, cn: &Cn, added: bool) {
        self.change(now, cn, |user| {
            user.added |= added;
            if !user.has_session() && !user.is_permanent() {
                (user.gone_at, user.ended_at) = (Some(now.at), Some(now.at));
            }
        });
    }

    /// What the next run of this daemon should know: each with whether it was by hand.
    pub(in crate::registration) fn kept(&self) -> Vec<(Cn, bool)> {
        let kept = |(cn, user): (&Cn, &User)| {
            (user.added || user.known == Known::Set && !user.listed).then(|| (cn.clone(), user.added))
        };
        self.users.iter().filter_map(kept).collect()
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
        let before: Vec<bool> = users.iter().map(|cn| self.is_mine(cn)).collect();
        self.daemons = daemons;
        let (mut came, mut went) = (0u32, 0u32);
        for (cn, was) in users.iter().zip(before) {
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

    /// How many there are of each kind.
    pub(in crate::registration) fn tally(&self, now: Now) -> Tally {
        let mut tally = Tally::default();
        for (cn, user) in &self.users {
            let state = self.state(now, self.is_mine(cn), user);
            tally.users += 1;
            tally.registered += u64::from(state == State::Registered);
            tally.failing += u64::from(state == State::Failed);
            tally.elsewhere += u64::from(state == State::Elsewhere);
            tally.permanent += u64::from(state == State::Registered && user.is_permanent());
        }
        tally
    }

    /// One user.
    pub(in crate::registration) fn find(&self, now: Now, cn: &Cn) -> Option<Entry> {
        self.users.get(cn).map(|user| self.entry(now, cn, user))
    }

    fn entry(&self, now: Now, cn: &Cn, user: &User) -> Entry {
        let mine = self.is_mine(cn);
        let state = self.state(now, mine, user);
        Entry {
            user: cn.to_string(),
            permanent: user.is_permanent(),
            session: user.has_session(),
            daemon: if mine { self.name.clone() } else { self.owner(cn).to_owned() },
            state,
            since_us: user.since_us,
            last_event_us: user.last_event_us,
            fault: user.fault.clone(),
        }
    }

    fn state(&self, now: Now, mine: bool, user: &User) -> State {
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
            self.users.insert(cn.clone(), User::default());
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
        }
        true
    }
}

impl User {
    fn came(&mut self, told: bool) {
        *(if told { &mut self.told } else { &mut self.session }) = true;
        self.gone_at = None;
        self.leaving &= self.barred;
    }

    fn went(&mut self, told: bool, now: Now) {
        *(if told { &mut self.told } else { &mut self.session }) = false;
        if !self.has_session() {
            // By hand it was unregistered at once: no grace, and the next session counts again.
            self.gone_at = (!std::mem::take(&mut self.barred)).then_some(now.at);
            self.ended_at = Some(now.at);
        }
    }
}
