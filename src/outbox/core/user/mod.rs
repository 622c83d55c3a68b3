//! One user's log, and the places of the user's endpoints in it.
//!
//! An entry stays until every endpoint that is to have it has got it. An endpoint that is found for the first time
//! begins where an orphan has stopped, or else behind what was given to others before. What is dropped from the front
//! becomes one resync there, which whoever is not past it gets in its place.

mod dispatch;
mod log;
mod places;

pub(in crate::outbox) use log::Item;
pub(super) use log::{RESYNC_OCTETS, octets};

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use ocbus_resolver::{Cn, Listeners, Settlement};
use ocbus_wire::ResyncReason;
use ocbus_wire::native::Lease;

use super::endpoint::Place;
use super::{Home, Order};
use crate::outbox::config::OutboxConfig;
use crate::outbox::trace::{Reason, Step};
use log::Entry;

/// Endpoints of each kind: what a plan sends to.
const MAX_ENDPOINTS: usize = 256;

/// How long a resync waits for somebody to take it. A subscriber that comes back later has begun anew.
pub(super) const RESYNC_KEPT: Duration = Duration::from_secs(600);

/// How much longer the pauses are when only a resync waits.
const RESYNC_PATIENCE: u32 = 15;

/// A user.
#[derive(Debug, Default)]
pub(super) struct User {
    log: VecDeque<Entry>,
    /// The number of the next entry.
    next: u64,
    /// Entries in front of this were given to the endpoints of a look-up that found some.
    given: u64,
    places: Vec<Place>,
    /// A look-up is under way, for the entries in front of this.
    looking: Option<u64>,
    /// The resolver did not answer last.
    unanswered: bool,
    /// The resolver said last that nobody is registered.
    nobody: bool,
    /// Look-ups in a row that left something held.
    attempts: u32,
    /// When to look again for whom something is held.
    retry_at: Option<Instant>,
    octets: usize,
    /// It stands in the queue for look-ups.
    pub(super) queued: bool,
    /// When it is to be woken.
    pub(super) timer: Option<Instant>,
}

impl User {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.log.is_empty()
    }

    pub(super) fn is_looking(&self) -> bool {
        self.looking.is_some()
    }

    /// Whether nothing is to be remembered of it.
    pub(super) fn is_forgettable(&self, now: Instant, time_to_live: Duration, crowded: bool) -> bool {
        let busy = self.queued || self.looking.is_some() || !self.log.is_empty();
        let lately = |place: &Place| place.sending.is_some() || (!crowded && place.seen + time_to_live > now);
        !busy && !self.places.iter().any(lately)
    }

    /// Says whether there is something to look up for.
    pub(super) fn begin_look_up(&mut self) -> bool {
        let begins = !self.log.is_empty() && self.looking.is_none();
        if begins {
            self.looking = Some(self.next);
            self.retry_at = None;
        }
        begins
    }

    /// The look-up's answer. Says whether there has to be another.
    pub(super) fn looked_up(
        &mut self,
        cn: &Cn,
        mut listeners: Listeners,
        grace: bool,
        took: Duration,
        home: &mut Home<'_>,
    ) -> bool {
        let Some(through) = self.looking.take() else { return false };
        self.unanswered = false;
        let grace = grace || listeners.unsettled;
        self.tell_ended(cn, &listeners, through, home);
        // A subscriber that listens both ways gets each event once: natively.
        let twins: HashSet<&String> =
            listeners.native.iter().filter_map(|lease| lease.legacy.as_ref()).collect();
        let mut legacy = std::mem::take(&mut listeners.legacy);
        legacy.retain(|url| !twins.contains(url));
        let mut native = listeners.native;
        // The last ones, as a plan has them: whoever comes stands behind those who are there.
        let passed_over = |count: usize| count.saturating_sub(MAX_ENDPOINTS);
        let (too_many, too_many_legacy) = (passed_over(native.len()), passed_over(legacy.len()));
        if too_many + too_many_legacy > 0 {
            let (native, legacy) = (too_many, too_many_legacy);
            let why = "in front of the last 256 of one user, which are tried";
            tracing::warn!(event = "endpoints_passed_over", user = %cn, native, legacy, "{why}");
        }
        legacy.drain(..too_many_legacy);
        native.drain(..too_many);
        if home.traced {
            let (native, legacy) = (native.len(), legacy.len());
            let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            let given = self.given;
            home.trace(cn, &mut self.events(given, through), || Step::LookedUp { native, legacy, took_us });
        }
        let found = !native.is_empty() || !legacy.is_empty();
        let news = self.note(native, legacy, home.now.at);
        self.nobody = !found;
        if found {
            self.given = through;
        } else if !grace && !self.was_heard_lately(home) {
            self.drop_unheard(cn, through, home);
        }
        self.attempts = if news { 0 } else { self.attempts };
        self.go_on(cn, true, home);
        // What came meanwhile has not been looked up for.
        self.next > through
    }

    /// Says that leases have ended, once each, and marks them: a holder that renews behind that lives, with a clock that
    /// is behind ours by more than a lease, and gets nothing else.
    fn tell_ended(&self, cn: &Cn, listeners: &Listeners, through: u64, home: &mut Home<'_>) {
        let new = self.events(self.given, through).count() as u64;
        let missed: Vec<(Lease, u64)> = listeners.ended().map(|lease| (lease.clone(), new)).collect();
        let Some((first, _)) = missed.first().filter(|_| new > 0) else { return };
        let (leases, endpoint) = (missed.len(), &first.endpoint);
        let why = "not sent: crashed, or its clock is behind this host's by more than a lease";
        tracing::warn!(event = "lease_ended", user = %cn, endpoint, leases, "{why}");
        home.orders.push(Order::Settle(cn.clone(), Settlement { missed, ..Settlement::default() }));
    }

    /// Whether somebody listened within a time to live.
    fn was_heard_lately(&self, home: &Home<'_>) -> bool {
        let since = |place: &Place| home.now.at.saturating_duration_since(place.seen);
        let resync = self.log.iter().any(|entry| matches!(entry.item, Item::Resync { .. }));
        let orphans = self.places.iter().filter(|place| place.is_orphan());
        // What a resync stands for was held before; it waits longer.
        orphans.map(since).any(|since| since < home.config.time_to_live || (resync && since < RESYNC_KEPT))
    }

    /// The look-up failed.
    pub(super) fn look_up_failed(
        &mut self,
        cn: &Cn,
        own: bool,
        reason: &str,
        took: Duration,
        home: &mut Home<'_>,
    ) {
        if self.looking.take().is_none() {
            return;
        }
        (self.unanswered, self.nobody) = (true, false);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let given = self.given;
        home.trace(cn, &mut self.events(given, self.next), || Step::LookUpFailed {
            reason: reason.to_owned(),
            took_us,
        });
        if own {
            self.hold(cn, home);
        }
    }

    /// Sends what can be sent now, and sees to what cannot. `fresh`: behind a look-up, which a retry wants first.
    fn go_on(&mut self, cn: &Cn, fresh: bool, home: &mut Home<'_>) {
        self.trim(cn, home);
        self.dispatch(cn, fresh, home);
        self.trim(cn, home);
        self.hold(cn, home);
    }

    /// Where something waits for an endpoint that is not there, somebody has to look again.
    fn hold(&mut self, cn: &Cn, home: &mut Home<'_>) {
        let next = self.next;
        let orphaned = self.places.iter().any(|place| place.is_orphan() && place.cursor < next);
        let nobody = self.given < next && !self.places.iter().any(|place| place.present);
        let held = !self.log.is_empty() && (orphaned || nobody || self.unanswered);
        if !held {
            self.retry_at = None;
            return;
        }
        if self.retry_at.is_some() || self.looking.is_some() || self.queued {
            return;
        }
        let mut pause = home.pause(self.attempts);
        if self.log.iter().all(|entry| matches!(entry.item, Item::Resync { .. })) {
            pause *= RESYNC_PATIENCE;
        }
        self.attempts = self.attempts.saturating_add(1);
        self.retry_at = Some(home.now.at + pause);
        let retry_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        home.trace(cn, &mut self.events(0, next), || Step::Held { endpoint: None, retry_ms });
    }

    /// Does what is due. Says whether a look-up is.
    pub(super) fn wake(&mut self, cn: &Cn, home: &mut Home<'_>) -> bool {
        let now = home.now.at;
        let mut abandoned = 0;
        while let Some(at) = self.first_event().filter(|entry| entry.expires <= now).map(|entry| entry.at) {
            let given_up = self.is_given_up(at);
            abandoned += u64::from(given_up && self.may_have_come_back(at));
            self.drop_first(cn, if given_up { Reason::Abandoned } else { Reason::Expired }, home);
        }
        if abandoned > 0 {
            self.push_resync(ResyncReason::Unreachable, abandoned, 0, home);
        }
        while let Some(entry) = self.log.front_mut().filter(|entry| entry.expires <= now) {
            let at = entry.at;
            let waits = |place: &Place| place.present && place.who.is_native() && place.cursor <= at;
            if self.places.iter().any(waits) {
                entry.expires = now + RESYNC_KEPT;
                break;
            }
            self.pop(cn, home);
        }
        let longest = RESYNC_KEPT.max(home.config.time_to_live);
        self.places.retain(|place| place.present || place.sending.is_some() || place.seen + longest > now);
        self.go_on(cn, false, home);
        abandoned > 0 || self.looks().is_some_and(|at| at <= now)
    }

    /// When a look-up is due; none, while one is under way or queued.
    fn looks(&self) -> Option<Instant> {
        let asked = self.looking.is_some() || self.queued || self.log.is_empty();
        self.retry_at.filter(|_| !asked)
    }

    /// When it is to be woken.
    pub(super) fn next_wake(&self, config: &OutboxConfig) -> Option<Instant> {
        let expires = [self.first_event(), self.log.front()].into_iter().flatten().map(|entry| entry.expires);
        let busy = !self.log.is_empty() || self.queued || self.looking.is_some();
        let busy = busy || self.places.iter().any(|place| place.sending.is_some());
        let forgets = self.places.iter().map(|place| place.seen + config.time_to_live).max();
        self.looks().into_iter().chain(expires).chain(forgets.filter(|_| !busy)).min()
    }
}
