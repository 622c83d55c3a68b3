//! Who has a place in a user's log: what a look-up says, who takes whose place, and whom something is still held for.

use std::time::Instant;

use ocbus_wire::native::Lease;

use super::super::endpoint::{Place, Who};
use super::User;

/// Places of a user, orphans included.
const MAX_PLACES: usize = 1024;

impl User {
    /// Brings the places up to date. Says whether there is a new one.
    pub(super) fn note(&mut self, native: Vec<Lease>, legacy: Vec<String>, now: Instant) -> bool {
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

    /// Whether another process of the same host has begun in time to have all that this dead one lacks: it was
    /// started anew, and registered before we noticed.
    pub(super) fn is_replaced(&self, at: usize) -> bool {
        let Some(dead) = self.places.get(at) else { return false };
        self.places.iter().any(|place| {
            place.present
                && place.who.is_native()
                && place.found > dead.alive
                && place.start <= dead.cursor
                && place.who.is_beside(&dead.who)
        })
    }

    /// Whether those who are registered have the entry, and it is held for one that is not.
    pub(super) fn is_given_up(&self, at: u64) -> bool {
        match at < self.given {
            true => !self.places.iter().any(|place| place.present && place.cursor <= at),
            false => self.nobody,
        }
    }

    /// Whether the one that an entry is held for may be among those who are there, somewhere else: they came since it
    /// was heard last.
    pub(super) fn may_have_come_back(&self, at: u64) -> bool {
        let orphans = self.places.iter().filter(|place| place.is_orphan() && place.cursor <= at);
        let gone = orphans.map(|place| place.alive).min();
        let mut there = self.places.iter().filter(|place| place.present && place.who.is_native());
        gone.is_some_and(|gone| there.any(|place| place.found > gone))
    }
}
