//! A user's log: what is put into it, what goes out of its front, and what stands there in its place.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use ocbus_resolver::{Cn, Settlement};
use ocbus_wire::native::Lease;
use ocbus_wire::{Event, EventKind, Mailbox, NewMessage, ResyncReason};

use super::super::endpoint::Place;
use super::super::{Home, Order};
use super::{RESYNC_KEPT, User};
use crate::outbox::trace::{Reason, Step};

/// What an entry takes beside the event's own texts: the event, its place in the log, a share of its user.
const ENTRY_OCTETS: usize = 768;

/// What a resync takes.
pub(in crate::outbox::core) const RESYNC_OCTETS: usize = ENTRY_OCTETS;

/// Entries and octets of one send: about what one batch holds, so that little is sent again after a failure.
const SEND_ENTRIES: usize = 1024;
const SEND_OCTETS: usize = 512 * 1024;

/// What is in the log.
#[derive(Debug, Clone)]
pub(in crate::outbox) enum Item {
    /// As it was accepted.
    Event(Arc<Event>),
    /// So many are missing here.
    Resync { reason: ResyncReason, missed: u64 },
}

#[derive(Debug)]
pub(super) struct Entry {
    /// Its number in the log.
    pub(super) at: u64,
    pub(super) item: Item,
    pub(super) octets: usize,
    pub(super) expires: Instant,
    /// Units of the ledger that are settled when it goes.
    pub(super) units: u64,
    /// Somebody has it.
    pub(super) taken: bool,
    /// Why not: somebody cannot take it, or else cannot be told of it.
    pub(super) why_not: Option<Reason>,
}

/// What an event takes, about.
pub(in crate::outbox::core) fn octets(event: &Event) -> usize {
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
    /// Takes events.
    pub(in crate::outbox::core) fn push(&mut self, cn: &Cn, events: Vec<Event>, home: &mut Home<'_>) {
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
        self.trim(cn, home);
    }

    /// Puts a resync behind what is there. One that stands last is moved behind: whoever has had it gets it again. So for
    /// whom it cannot be said to holds one, however often something is missing.
    pub(in crate::outbox::core) fn push_resync(
        &mut self,
        reason: ResyncReason,
        missed: u64,
        units: u64,
        home: &mut Home<'_>,
    ) {
        let until = home.now.at + RESYNC_KEPT;
        if let Some(Entry { item: Item::Resync { missed: sum, .. }, at, units: all, expires, .. }) =
            self.log.back_mut()
        {
            *sum = sum.saturating_add(missed);
            *all = all.saturating_add(units);
            (*at, *expires) = (self.next, until);
            self.next += 1;
            return;
        }
        home.statistics.resyncs += 1;
        self.append(Item::Resync { reason, missed }, RESYNC_OCTETS, until, units, home);
    }

    /// Adds events that found no room to the resync that stands last, if nobody has been given it yet. Says whether
    /// there is one. It takes no room.
    pub(in crate::outbox::core) fn join_resync(&mut self, events: u64) -> bool {
        let given = self.given.max(self.looking.unwrap_or(0));
        match self.log.back_mut() {
            Some(Entry { item: Item::Resync { missed, .. }, at, units, .. }) if *at >= given => {
                *missed = missed.saturating_add(events);
                *units = units.saturating_add(events);
                true
            }
            _ => false,
        }
    }

    fn append(&mut self, item: Item, octets: usize, expires: Instant, units: u64, home: &mut Home<'_>) {
        let at = self.next;
        self.next += 1;
        self.octets += octets;
        *home.octets += octets;
        *home.events += usize::from(matches!(item, Item::Event(_)));
        self.log.push_back(Entry { at, item, octets, expires, units, taken: false, why_not: None });
    }

    /// Turns the first event into a resync, or adds it to the one that stands there. Says whether there was one.
    pub(super) fn drop_first(&mut self, cn: &Cn, reason: Reason, home: &mut Home<'_>) -> bool {
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
    pub(super) fn drop_unheard(&mut self, cn: &Cn, through: u64, home: &mut Home<'_>) {
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
    pub(super) fn trim(&mut self, cn: &Cn, home: &mut Home<'_>) {
        let (now, time_to_live) = (home.now.at, home.config.time_to_live);
        let is_old =
            |place: &&Place| !place.present && place.sending.is_none() && place.seen + time_to_live <= now;
        let old = self.places.iter().filter(is_old).map(|place| place.cursor).min();
        let others = self.places.iter().filter(|place| !is_old(place)).map(|place| place.cursor).min();
        let wanted = others.unwrap_or(u64::MAX).min(self.given);
        while let Some(at) = self.first_event().map(|entry| entry.at).filter(|at| *at < wanted) {
            match old.is_some_and(|old| old <= at) {
                true => self.absorb_first(cn, home),
                false => self.pop(cn, home),
            }
        }
        let wanted = wanted.min(old.unwrap_or(u64::MAX));
        while self.log.front().is_some_and(|entry| entry.at < wanted) {
            self.pop(cn, home);
        }
    }

    /// Makes the first event part of a resync that old orphans wait for.
    fn absorb_first(&mut self, cn: &Cn, home: &mut Home<'_>) {
        let Some(index) = self.log.iter().position(|entry| matches!(entry.item, Item::Event(_))) else {
            return;
        };
        let Some(at) = self.remove(cn, index, Reason::Abandoned, home) else { return };
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
        self.octets += RESYNC_OCTETS;
        *home.octets += RESYNC_OCTETS;
        self.log.insert(
            index,
            Entry { at, item, octets: RESYNC_OCTETS, expires, units, taken: false, why_not: None },
        );
    }

    pub(super) fn pop(&mut self, cn: &Cn, home: &mut Home<'_>) {
        self.remove(cn, 0, Reason::Refused, home);
    }

    /// Takes out what needs no more; `otherwise` is why, if nobody has it. (Who has only endpoints to which it cannot be
    /// said has nobody who listens for it.) Gives its number.
    fn remove(&mut self, cn: &Cn, index: usize, otherwise: Reason, home: &mut Home<'_>) -> Option<u64> {
        let entry = self.log.remove(index)?;
        let reason = entry.why_not.filter(|_| otherwise == Reason::Refused).unwrap_or(otherwise);
        self.octets -= entry.octets;
        *home.octets -= entry.octets;
        *home.settled = home.settled.saturating_add(entry.units);
        if let Item::Event(event) = &entry.item {
            *home.events -= 1;
            if entry.taken {
                home.statistics.delivered += 1;
            } else {
                home.statistics.add_dropped(reason, 1);
                home.trace(cn, &mut std::iter::once(&**event), || Step::Dropped { reason });
            }
        }
        Some(entry.at)
    }

    /// The end. Gives what tells those who are registered, and how many units that settles.
    pub(in crate::outbox::core) fn abandon(&mut self, cn: &Cn, home: &mut Home<'_>) -> (Settlement, u64) {
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

    pub(super) fn first_event(&self) -> Option<&Entry> {
        self.log.iter().find(|entry| matches!(entry.item, Item::Event(_)))
    }

    /// The events between two places, for a trace.
    pub(super) fn events(&self, from: u64, through: u64) -> impl Iterator<Item = &Event> {
        self.log.iter().filter(move |entry| (from..through).contains(&entry.at)).filter_map(|entry| {
            match &entry.item {
                Item::Event(event) => Some(&**event),
                Item::Resync { .. } => None,
            }
        })
    }
}

/// What one send takes from the log, and the place behind it.
pub(super) fn portion(log: &VecDeque<Entry>, from: u64, given: u64) -> (Vec<Item>, u64) {
    let (mut items, mut octets, mut through) = (Vec::new(), 0, from);
    let first = log.partition_point(|entry| entry.at < from);
    for entry in log.range(first..).take_while(|entry| entry.at < given) {
        octets += entry.octets;
        if !items.is_empty() && (items.len() >= SEND_ENTRIES || octets > SEND_OCTETS) {
            return (items, through);
        }
        items.push(entry.item.clone());
        through = entry.at + 1;
    }
    (items, given)
}
