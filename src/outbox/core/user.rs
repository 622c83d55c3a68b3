//! One user's log, and the places of the user's endpoints in it.
//!
//! An entry stays until every endpoint that is to have it has got it. An endpoint that is found for the first time
//! begins where an orphan has stopped, or else behind what was given to others before. What is dropped from the front
//! becomes one resync there, which whoever is not past it gets in its place.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ocbus_resolver::{Cn, Listeners, Settlement};
use ocbus_wire::native::Lease;
use ocbus_wire::{Event, EventKind, Mailbox, NewMessage, ResyncReason};

use super::endpoint::{Place, Who};
use super::{Dispatch, Home, Order, Sent};
use crate::outbox::config::OutboxConfig;
use crate::outbox::trace::{Reason, Step};

/// What an entry takes beside the event's own texts: the event, its place in the log, a share of its user.
const ENTRY_OCTETS: usize = 768;

/// Entries and octets of one send: about what one batch holds, so that little is sent again after a failure.
const SEND_ENTRIES: u64 = 1024;
const SEND_OCTETS: usize = 512 * 1024;

/// Endpoints of each kind: what a plan sends to.
const MAX_ENDPOINTS: usize = 256;

/// Places of a user, orphans included.
const MAX_PLACES: usize = 1024;

/// How long a resync waits for somebody to take it. A subscriber that comes back later has begun anew.
pub(super) const RESYNC_KEPT: Duration = Duration::from_secs(600);

/// How much longer the pauses are when only a resync waits.
const RESYNC_PATIENCE: u32 = 15;

/// What is in the log.
#[derive(Debug, Clone)]
pub(in crate::outbox) enum Item {
    /// As it was accepted.
    Event(Arc<Event>),
    /// So many are missing here.
    Resync { reason: ResyncReason, missed: u64 },
}

#[derive(Debug)]
struct Entry {
    /// Its number in the log.
    at: u64,
    item: Item,
    octets: usize,
    expires: Instant,
    /// Units of the ledger that are settled when it goes.
    units: u64,
    /// Somebody has it.
    taken: bool,
}

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

/// What an event takes, about.
pub(super) fn octets(event: &Event) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let texts = |texts: &[String]| texts.iter().map(|text| text.len() + 24).sum::<usize>();
    let mailbox = |mailbox: &Mailbox| mailbox.name.len() + mailbox.storage_name.len();
    let message = |message: &NewMessage| {
        let texts = texts(&message.flags) + texts(&message.keywords);
        let headers = text(&message.from) + text(&message.subject) + text(&message.message_id);
        texts + headers + text(&message.backend) + text(&message.name)
    };
    let kind = match &event.kind {
        EventKind::MessageNew(new) | EventKind::MessageAppend(new) => message(new),
        EventKind::MessageCopy(transfer) | EventKind::MessageMove(transfer) => {
            mailbox(&transfer.old) + 8 * (transfer.uids.ranges().len() + transfer.old_uids.ranges().len())
        }
        EventKind::MessageRead { uids }
        | EventKind::MessageTrash { uids }
        | EventKind::MessageExpunge { uids } => 8 * uids.ranges().len(),
        EventKind::FlagsSet { uids, flags, keywords } | EventKind::FlagsClear { uids, flags, keywords } => {
            8 * uids.ranges().len() + texts(flags) + texts(keywords)
        }
        EventKind::MailboxRename { old } => mailbox(old),
        EventKind::Unknown { name } => name.len(),
        _ => 0,
    };
    ENTRY_OCTETS + event.user.len() + event.mailbox.as_ref().map_or(0, mailbox) + kind
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

    /// Takes events.
    pub(super) fn push(&mut self, cn: &Cn, events: Vec<Event>, home: &mut Home<'_>) {
        let expires = home.now.at + home.config.time_to_live;
        for mut event in events {
            // Subscribers name strangers by what stands in the event.
            if event.user != cn.as_str() {
                cn.as_str().clone_into(&mut event.user);
            }
            let octets = octets(&event);
            self.append(Item::Event(Arc::new(event)), octets, expires, 1, home);
        }
        while self.octets > home.config.max_user_octets && self.drop_first(cn, Reason::Overflow, home) {}
        self.trim(home);
    }

    /// Puts a resync behind what is there.
    pub(super) fn push_resync(&mut self, reason: ResyncReason, missed: u64, units: u64, home: &mut Home<'_>) {
        home.statistics.resyncs += 1;
        let item = Item::Resync { reason, missed };
        self.append(item, ENTRY_OCTETS, home.now.at + RESYNC_KEPT, units, home);
    }

    fn append(&mut self, item: Item, octets: usize, expires: Instant, units: u64, home: &mut Home<'_>) {
        let at = self.next;
        self.next += 1;
        self.octets += octets;
        *home.octets += octets;
        *home.events += usize::from(matches!(item, Item::Event(_)));
        self.log.push_back(Entry { at, item, octets, expires, units, taken: false });
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
        // A subscriber that listens both ways gets each event once: natively.
        let twins: HashSet<&String> =
            listeners.native.iter().filter_map(|lease| lease.legacy.as_ref()).collect();
        let mut legacy = std::mem::take(&mut listeners.legacy);
        legacy.retain(|url| !twins.contains(url));
        legacy.truncate(MAX_ENDPOINTS);
        let mut native = listeners.native;
        native.truncate(MAX_ENDPOINTS);
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

    /// Whether somebody listened within a time to live.
    fn was_heard_lately(&self, home: &Home<'_>) -> bool {
        let since = |place: &Place| home.now.at.saturating_duration_since(place.seen);
        let resync = self.log.iter().any(|entry| matches!(entry.item, Item::Resync { .. }));
        let orphans = self.places.iter().filter(|place| place.is_orphan());
        // What a resync stands for was held before; it waits longer.
        orphans.map(since).any(|since| since < home.config.time_to_live || (resync && since < RESYNC_KEPT))
    }

    /// Brings the places up to date. Says whether there is a new one.
    fn note(&mut self, native: Vec<Lease>, legacy: Vec<String>, now: Instant) -> bool {
        for place in &mut self.places {
            place.present = false;
        }
        let mut new = Vec::new();
        for lease in native {
            let who = Who::native(&lease);
            match self.places.iter_mut().find(|place| place.who == who) {
                Some(place) => {
                    // Its holder has renewed it: it lives.
                    let renewed = place.lease.as_ref().is_none_or(|old| old.until_ms < lease.until_ms);
                    place.alive = if renewed { now } else { place.alive };
                    (place.present, place.seen, place.lease) = (true, now, Some(lease));
                }
                None => new.push((who, Some(lease))),
            }
        }
        for url in legacy {
            let who = Who::legacy(&url);
            match self.places.iter_mut().find(|place| place.who == who) {
                Some(place) => (place.present, place.seen) = (true, now),
                None => new.push((who, None)),
            }
        }
        // A legacy endpoint that is gone has no heir.
        self.places.retain(|place| place.present || place.is_orphan());
        let news = !new.is_empty();
        for (who, lease) in new {
            let heritage = match lease {
                Some(_) => self
                    .take_orphan(&who, 1)
                    .or_else(|| self.behind_neighbour(&who))
                    .or_else(|| self.take_orphan(&who, 0)),
                None => None,
            };
            let start = heritage.map_or(self.given, |cursor| cursor.min(self.given));
            self.places.push(Place::new(who, lease, start, now));
        }
        while self.places.len() > MAX_PLACES {
            let Some(at) = self.places.iter().position(|place| !place.present) else { break };
            self.places.remove(at);
        }
        news
    }

    /// The orphan whose place this endpoint takes most likely, if one is that like it: where it had stopped.
    fn take_orphan(&mut self, heir: &Who, least: u32) -> Option<u64> {
        let fits = |place: &Place| place.is_orphan() && place.who.likeness(heir) >= least;
        let orphans = self.places.iter().enumerate().filter(|(_, place)| fits(place));
        let best =
            orphans.max_by_key(|(_, place)| (place.who.likeness(heir), std::cmp::Reverse(place.cursor)));
        let at = best.map(|(at, _)| at)?;
        let cursor = self.places.get(at).map(|place| place.cursor);
        if least > 0 {
            // One of another host may be somebody else: the orphan is still waited for.
            self.places.remove(at);
        }
        cursor
    }

    /// Where an endpoint of the same host is that has not got everything: it may be dead, and this one be it, started
    /// anew. If not, the new one gets what had happened just before it came.
    fn behind_neighbour(&self, new: &Who) -> Option<u64> {
        let behind = self.places.iter().filter(|place| place.who.is_native() && place.cursor < self.given);
        behind.filter(|place| place.who.is_beside(new)).map(|place| place.cursor).min()
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

    /// A send to an endpoint ended.
    pub(super) fn sent(&mut self, cn: &Cn, who: &Who, through: u64, sent: Sent, home: &mut Home<'_>) {
        home.count_send(sent);
        let Some(at) = self.places.iter().position(|place| place.who == *who) else { return };
        let Some(place) = self.places.get_mut(at).filter(|place| place.sending == Some(through)) else {
            return;
        };
        place.sending = None;
        let (from, native, kept) = (place.cursor, who.is_native(), home.keep_refused);
        let passes = match sent {
            Sent::Taken | Sent::Nothing | Sent::Refused => true,
            Sent::Gone => !native,
            Sent::Failed { unsent } => !(native || unsent && kept),
        };
        if passes {
            place.cursor = place.cursor.max(through);
            (place.attempts, place.retry_at) = (0, None);
        }
        match sent {
            Sent::Taken => {
                place.alive = home.now.at;
                self.attempts = 0;
                self.note_taken(from, through, native, home);
            }
            Sent::Gone if native => {
                place.present = false;
                (place.attempts, place.retry_at) = (0, None);
                if self.is_replaced(at) {
                    self.places.remove(at);
                }
            }
            Sent::Failed { .. } if !passes => {
                let pause = home.pause(place.attempts);
                place.attempts = place.attempts.saturating_add(1);
                place.retry_at = Some(home.now.at + pause);
                let endpoint = Some(who.url().to_owned());
                let retry_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                home.trace(cn, &mut self.events(from, through), || Step::Held { endpoint, retry_ms });
            }
            Sent::Gone | Sent::Failed { .. } => {
                let mails = self.events(from, through);
                let lost = mails.filter(|event| matches!(event.kind, EventKind::MessageNew(_))).count();
                home.statistics.legacy_lost += lost as u64;
            }
            Sent::Nothing | Sent::Refused => {}
        }
        self.go_on(cn, false, home);
    }

    fn note_taken(&mut self, from: u64, through: u64, native: bool, home: &mut Home<'_>) {
        for entry in self.log.iter_mut().filter(|entry| (from..through).contains(&entry.at)) {
            entry.taken = true;
            if let (Item::Event(event), true) = (&entry.item, native) {
                home.statistics.add_latency(home.now.us.saturating_sub(event.time_us));
            }
        }
    }

    /// Whether another process of the same host has begun in time to have all that this dead one lacks: it was
    /// started anew, and registered before we noticed.
    fn is_replaced(&self, at: usize) -> bool {
        let Some(dead) = self.places.get(at) else { return false };
        self.places.iter().any(|place| {
            place.present
                && place.who.is_native()
                && place.found > dead.alive
                && place.start <= dead.cursor
                && place.who.is_beside(&dead.who)
        })
    }

    /// Sends what can be sent now, and sees to what cannot. `fresh`: behind a look-up, which a retry wants first.
    fn go_on(&mut self, cn: &Cn, fresh: bool, home: &mut Home<'_>) {
        self.trim(home);
        self.dispatch(cn, fresh, home);
        self.trim(home);
        self.hold(cn, home);
    }

    /// One send for all endpoints that are at the same place.
    fn dispatch(&mut self, cn: &Cn, fresh: bool, home: &mut Home<'_>) {
        let now = home.now.at;
        let mut groups: Vec<Dispatch> = Vec::new();
        let (log, given) = (&self.log, self.given);
        let mut starts: Vec<u64> = Vec::new();
        for place in &mut self.places {
            let paused = place.retry_at.is_some_and(|retry| !fresh || retry > now);
            let waits = place.sending.is_some() || paused;
            if !place.present || waits || place.cursor >= given {
                continue;
            }
            let at = starts.iter().position(|start| *start == place.cursor);
            let at = at.unwrap_or_else(|| {
                let (items, through) = portion(log, place.cursor, given);
                let (leases, legacy) = (Vec::new(), Vec::new());
                groups.push(Dispatch { cn: cn.clone(), leases, legacy, items, through, again: false });
                starts.push(place.cursor);
                starts.len() - 1
            });
            let Some(group) = groups.get_mut(at) else { continue };
            if group.items.is_empty() {
                // All of it is gone by now.
                place.cursor = group.through;
                continue;
            }
            place.sending = Some(group.through);
            place.retry_at = None;
            if place.attempts > 0 {
                group.again = true;
                home.statistics.retries += 1;
            }
            match (&place.who, &place.lease) {
                (Who::Native { .. }, Some(lease)) => group.leases.push(lease.clone()),
                _ => group.legacy.push(place.who.url().to_owned()),
            }
        }
        home.orders.extend(groups.into_iter().filter(|group| !group.items.is_empty()).map(Order::Send));
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
            self.pop(home);
        }
        let longest = RESYNC_KEPT.max(home.config.time_to_live);
        self.places.retain(|place| place.present || place.sending.is_some() || place.seen + longest > now);
        self.go_on(cn, false, home);
        abandoned > 0 || self.looks().any(|at| at <= now)
    }

    fn first_event(&self) -> Option<&Entry> {
        self.log.iter().find(|entry| matches!(entry.item, Item::Event(_)))
    }

    /// When a look-up is due; none, while one is under way or queued.
    fn looks(&self) -> impl Iterator<Item = Instant> {
        let given = self.given;
        let waits = move |place: &&Place| place.present && place.sending.is_none() && place.cursor < given;
        let retries = self.places.iter().filter(waits).filter_map(|place| place.retry_at);
        let asked = self.looking.is_some() || self.queued || self.log.is_empty();
        let retries = retries.filter(move |_| !asked && !self.unanswered);
        retries.chain(self.retry_at.filter(|_| !asked))
    }

    /// Whether those who are registered have the entry, and it is held for one that is not.
    fn is_given_up(&self, at: u64) -> bool {
        match at < self.given {
            true => !self.places.iter().any(|place| place.present && place.cursor <= at),
            false => self.nobody,
        }
    }

    /// Whether the one that an entry is held for may be among those who are there, somewhere else: they came since it
    /// was heard last.
    fn may_have_come_back(&self, at: u64) -> bool {
        let orphans = self.places.iter().filter(|place| place.is_orphan() && place.cursor <= at);
        let gone = orphans.map(|place| place.alive).min();
        let mut there = self.places.iter().filter(|place| place.present && place.who.is_native());
        gone.is_some_and(|gone| there.any(|place| place.found > gone))
    }

    /// When it is to be woken.
    pub(super) fn next_wake(&self, config: &OutboxConfig) -> Option<Instant> {
        let expires = [self.first_event(), self.log.front()].into_iter().flatten().map(|entry| entry.expires);
        let busy = !self.log.is_empty() || self.queued || self.looking.is_some();
        let busy = busy || self.places.iter().any(|place| place.sending.is_some());
        let forgets = self.places.iter().map(|place| place.seen + config.time_to_live).max();
        self.looks().chain(expires).chain(forgets.filter(|_| !busy)).min()
    }

    /// Turns the first event into a resync, or adds it to the one that stands there. Says whether there was one.
    fn drop_first(&mut self, cn: &Cn, reason: Reason, home: &mut Home<'_>) -> bool {
        let Some(index) = self.log.iter().position(|entry| matches!(entry.item, Item::Event(_))) else {
            return false;
        };
        let Some(entry) = self.log.remove(index) else { return false };
        self.count_dropped(cn, &entry, reason, home);
        let at = entry.at;
        let waits = |place: &&Place| place.cursor <= at;
        let wanted = at >= self.given || self.places.iter().filter(waits).any(|place| place.who.is_native());
        // Those whose lease stands there are told by it, should we not live to tell them.
        let missed: Vec<(Lease, u64)> = match reason {
            Reason::Expired | Reason::Abandoned if at < self.given => {
                let waiting = self.places.iter().filter(waits).filter(|place| place.present);
                waiting.filter_map(|place| Some((place.lease.clone()?, 1))).collect()
            }
            _ => Vec::new(),
        };
        if !missed.is_empty() {
            self.settle_missed(cn, missed, home);
        }
        let expires = home.now.at + RESYNC_KEPT;
        match self.log.get_mut(index.wrapping_sub(1)) {
            Some(Entry { item: Item::Resync { missed, .. }, at, expires: until, units, .. }) => {
                // Who has had the resync and lacks this one gets it again, with this one.
                *missed = missed.saturating_add(1);
                (*at, *until) = (entry.at, expires);
                *units = units.saturating_add(entry.units);
            }
            _ if wanted => {
                let why = match reason {
                    Reason::Overflow => ResyncReason::Overflow,
                    _ => ResyncReason::Unreachable,
                };
                self.insert_resync(index, why, at, expires, entry.units, home);
            }
            _ => *home.settled = home.settled.saturating_add(entry.units),
        }
        true
    }

    /// Writes the leases once for what expires together.
    fn settle_missed(&self, cn: &Cn, missed: Vec<(Lease, u64)>, home: &mut Home<'_>) {
        if let Some(Order::Settle(of, settlement)) = home.orders.last_mut()
            && of == cn
        {
            for (lease, count) in missed {
                match settlement.missed.iter_mut().find(|(known, _)| *known == lease) {
                    Some((_, sum)) => *sum = sum.saturating_add(count),
                    None => settlement.missed.push((lease, count)),
                }
            }
            return;
        }
        home.orders.push(Order::Settle(cn.clone(), Settlement { missed, ..Settlement::default() }));
    }

    fn count_dropped(&mut self, cn: &Cn, entry: &Entry, reason: Reason, home: &mut Home<'_>) {
        self.octets -= entry.octets;
        *home.octets -= entry.octets;
        if let Item::Event(event) = &entry.item {
            *home.events -= 1;
            home.statistics.add_dropped(reason, 1);
            home.trace(cn, &mut std::iter::once(&**event), || Step::Dropped { reason });
        }
    }

    /// Drops what a look-up was for that found nobody.
    fn drop_unheard(&mut self, cn: &Cn, through: u64, home: &mut Home<'_>) {
        while self.log.front().is_some_and(|entry| entry.at < through) {
            let Some(entry) = self.log.pop_front() else { break };
            self.count_dropped(cn, &entry, Reason::Unheard, home);
            *home.settled = home.settled.saturating_add(entry.units);
        }
        self.given = through;
        self.places.retain(|place| place.sending.is_some());
    }

    /// Lets go of what everybody has. An orphan that nobody has followed for a time to live gets no events any more: of
    /// what it lacks one resync is left.
    fn trim(&mut self, home: &mut Home<'_>) {
        let (now, time_to_live) = (home.now.at, home.config.time_to_live);
        let is_old =
            |place: &&Place| !place.present && place.sending.is_none() && place.seen + time_to_live <= now;
        let old = self.places.iter().filter(is_old).map(|place| place.cursor).min();
        let others = self.places.iter().filter(|place| !is_old(place)).map(|place| place.cursor).min();
        let wanted = others.unwrap_or(u64::MAX).min(self.given);
        while let Some(at) = self.first_event().map(|entry| entry.at).filter(|at| *at < wanted) {
            match old.is_some_and(|old| old <= at) {
                true => self.absorb_first(home),
                false => self.pop(home),
            }
        }
        let wanted = wanted.min(old.unwrap_or(u64::MAX));
        while self.log.front().is_some_and(|entry| entry.at < wanted) {
            self.pop(home);
        }
    }

    /// Makes the first event part of a resync that old orphans wait for.
    fn absorb_first(&mut self, home: &mut Home<'_>) {
        let Some(index) = self.log.iter().position(|entry| matches!(entry.item, Item::Event(_))) else {
            return;
        };
        let Some(at) = self.remove(index, Reason::Abandoned, home) else { return };
        match self.log.get_mut(index.wrapping_sub(1)) {
            Some(Entry { item: Item::Resync { missed, .. }, at: until, .. }) => {
                *missed = missed.saturating_add(1);
                *until = at;
            }
            _ => {
                let expires = home.now.at + RESYNC_KEPT;
                self.insert_resync(index, ResyncReason::Unreachable, at, expires, 0, home);
            }
        }
    }

    fn insert_resync(
        &mut self,
        index: usize,
        reason: ResyncReason,
        at: u64,
        expires: Instant,
        units: u64,
        home: &mut Home<'_>,
    ) {
        home.statistics.resyncs += 1;
        let item = Item::Resync { reason, missed: 1 };
        self.octets += ENTRY_OCTETS;
        *home.octets += ENTRY_OCTETS;
        self.log.insert(index, Entry { at, item, octets: ENTRY_OCTETS, expires, units, taken: false });
    }

    fn pop(&mut self, home: &mut Home<'_>) {
        self.remove(0, Reason::Refused, home);
    }

    /// Takes out what needs no more; `otherwise` is why, if nobody has it. Gives its number.
    fn remove(&mut self, index: usize, otherwise: Reason, home: &mut Home<'_>) -> Option<u64> {
        let entry = self.log.remove(index)?;
        self.octets -= entry.octets;
        *home.octets -= entry.octets;
        *home.settled = home.settled.saturating_add(entry.units);
        if let Item::Event(_) = entry.item {
            *home.events -= 1;
            match entry.taken {
                true => home.statistics.delivered += 1,
                false => home.statistics.add_dropped(otherwise, 1),
            }
        }
        Some(entry.at)
    }

    /// The end. Gives what tells those who are registered, and how many units that settles.
    pub(super) fn abandon(&mut self, cn: &Cn, home: &mut Home<'_>) -> (Settlement, u64) {
        let (mut settlement, mut told) = (Settlement::default(), 0);
        while let Some(entry) = self.log.pop_front() {
            self.count_dropped(cn, &entry, Reason::Stopped, home);
            let waiting: Vec<&Place> = self
                .places
                .iter()
                .filter(|place| place.cursor <= entry.at && place.who.is_native())
                .collect();
            let known = entry.at < self.given && waiting.iter().all(|place| place.present);
            if !known {
                continue;
            }
            told += entry.units;
            for lease in waiting.iter().filter_map(|place| place.lease.as_ref()) {
                match settlement.missed.iter_mut().find(|(other, _)| other == lease) {
                    Some((_, count)) => *count += 1,
                    None => settlement.missed.push((lease.clone(), 1)),
                }
            }
        }
        (settlement, told)
    }

    /// The events between two places, for a trace.
    fn events(&self, from: u64, through: u64) -> impl Iterator<Item = &Event> {
        self.log.iter().filter(move |entry| (from..through).contains(&entry.at)).filter_map(|entry| {
            match &entry.item {
                Item::Event(event) => Some(&**event),
                Item::Resync { .. } => None,
            }
        })
    }
}

/// What one send takes from the log, and the place behind it.
fn portion(log: &VecDeque<Entry>, from: u64, given: u64) -> (Vec<Item>, u64) {
    let (mut items, mut octets, mut through) = (Vec::new(), 0, from);
    let first = log.partition_point(|entry| entry.at < from);
    for entry in log.range(first..).take_while(|entry| entry.at < given) {
        octets += entry.octets;
        if !items.is_empty() && (items.len() as u64 >= SEND_ENTRIES || octets > SEND_OCTETS) {
            return (items, through);
        }
        items.push(entry.item.clone());
        through = entry.at + 1;
    }
    (items, given)
}
