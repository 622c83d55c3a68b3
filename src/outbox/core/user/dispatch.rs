//! What of a user's log goes to which endpoint, and what the end of a send means for it.

use ocbus_resolver::Cn;
use ocbus_wire::EventKind;

use super::super::endpoint::Who;
use super::super::{Dispatch, Home, Order, Sent};
use super::User;
use super::log::{Item, portion};
use crate::outbox::trace::{Reason, Step};

impl User {
    /// One send for all endpoints that are at the same place.
    pub(super) fn dispatch(&mut self, cn: &Cn, fresh: bool, home: &mut Home<'_>) {
        let mut groups: Vec<(u64, Dispatch)> = Vec::new();
        let mut held = Vec::new();
        let (log, given) = (&self.log, self.given);
        for place in &mut self.places {
            let waits = place.sending.is_some() || (place.waits && !fresh);
            if !place.present || waits || place.cursor >= given {
                continue;
            }
            let first = log.partition_point(|entry| entry.at < place.cursor);
            if log.get(first).is_none_or(|entry| entry.at >= given) {
                // All of it is gone by now.
                place.cursor = given;
                continue;
            }
            place.waits = !home.backoff.may_send(&place.who, cn, home.now.at);
            if place.waits {
                if home.traced {
                    held.push((place.cursor, place.who.clone()));
                }
                continue;
            }
            let start = place.cursor;
            let at = groups.iter().position(|(cursor, _)| *cursor == start).unwrap_or_else(|| {
                let (items, through) = portion(log, start, given);
                let (leases, legacy) = (Vec::new(), Vec::new());
                groups
                    .push((start, Dispatch { cn: cn.clone(), leases, legacy, items, through, again: false }));
                groups.len() - 1
            });
            let Some((_, group)) = groups.get_mut(at) else { continue };
            place.sending = Some(group.through);
            if place.attempts > 0 {
                group.again = true;
                home.statistics.retries += 1;
            }
            match (&place.who, &place.lease) {
                (Who::Native { .. }, Some(lease)) => group.leases.push(lease.clone()),
                _ => group.legacy.push(place.who.url().to_owned()),
            }
        }
        home.orders.extend(groups.into_iter().map(|(_, group)| Order::Send(group)));
        for (cursor, who) in held {
            self.trace_held(cn, &who, cursor, given, home);
        }
    }

    /// A send to an endpoint ended.
    pub(in crate::outbox::core) fn sent(
        &mut self,
        cn: &Cn,
        who: &Who,
        through: u64,
        sent: Sent,
        home: &mut Home<'_>,
    ) {
        home.count_send(sent);
        let Some(at) = self.places.iter().position(|place| place.who == *who) else { return };
        let Some(place) = self.places.get_mut(at).filter(|place| place.sending == Some(through)) else {
            return;
        };
        place.sending = None;
        let (from, native) = (place.cursor, who.is_native());
        let passes = match sent {
            Sent::Taken | Sent::Nothing | Sent::Refused => true,
            Sent::Gone => !native,
            Sent::Failed { .. } => !sent.is_held(who),
        };
        if passes {
            place.cursor = place.cursor.max(through);
            (place.attempts, place.waits) = (0, false);
        }
        match sent {
            Sent::Taken => {
                place.alive = home.now.at;
                self.attempts = 0;
                self.note_taken(from, through, native, home);
            }
            Sent::Gone if native => {
                place.present = false;
                (place.attempts, place.waits) = (0, false);
                if self.is_replaced(at) {
                    self.places.remove(at);
                }
            }
            Sent::Failed { .. } if !passes => {
                place.attempts = place.attempts.saturating_add(1);
                place.waits = true;
                self.trace_held(cn, who, from, through, home);
            }
            Sent::Gone | Sent::Failed { .. } => {
                let mails = self.events(from, through);
                let lost = mails.filter(|event| matches!(event.kind, EventKind::MessageNew(_))).count();
                home.statistics.legacy_lost += lost as u64;
            }
            Sent::Nothing => self.note_untaken(from, through, Reason::Unheard),
            Sent::Refused => self.note_untaken(from, through, Reason::Refused),
        }
        self.go_on(cn, false, home);
    }

    fn trace_held(&self, cn: &Cn, who: &Who, from: u64, through: u64, home: &mut Home<'_>) {
        let pause = home.backoff.pause(who, home.now.at);
        let endpoint = Some(who.url().to_owned());
        let retry_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        home.trace(cn, &mut self.events(from, through), || Step::Held { endpoint, retry_ms });
    }

    fn note_untaken(&mut self, from: u64, through: u64, why: Reason) {
        for entry in self.log.iter_mut().filter(|entry| (from..through).contains(&entry.at)) {
            if why == Reason::Refused || entry.why_not.is_none() {
                entry.why_not = Some(why);
            }
        }
    }

    fn note_taken(&mut self, from: u64, through: u64, native: bool, home: &mut Home<'_>) {
        for entry in self.log.iter_mut().filter(|entry| (from..through).contains(&entry.at)) {
            entry.taken = true;
            if let (Item::Event(event), true) = (&entry.item, native) {
                home.statistics.add_latency(home.now.us.saturating_sub(event.time_us));
            }
        }
    }
}
