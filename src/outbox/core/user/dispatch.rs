//! What of a user's log goes to which endpoint, and what the end of a send means for it.

use ocbus_resolver::Cn;
use ocbus_wire::EventKind;

use super::super::endpoint::Who;
use super::super::{Dispatch, Home, Order, Sent};
use super::User;
use super::log::{Item, portion};
use crate::outbox::trace::Step;

impl User {
    /// One send for all endpoints that are at the same place.
    pub(super) fn dispatch(&mut self, cn: &Cn, fresh: bool, home: &mut Home<'_>) {
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
}
