use std::sync::Arc;

use ocbus_wire::{Event, ResyncReason};
use uuid::Uuid;

use super::queue::{Next, Reader};
use super::{Bus, Filter};
use crate::now_us;

/// One subscriber's queue on a [`Bus`]. Dropped, it is gone from the bus.
#[derive(Debug)]
pub struct Subscription {
    bus: Bus,
    id: u64,
    filter: Filter,
    events: Reader,
    /// How often it lost events.
    losses: u64,
}

impl Subscription {
    pub(super) fn new(bus: Bus, id: u64, filter: Filter, events: Reader) -> Subscription {
        Subscription { bus, id, filter, events, losses: 0 }
    }

    /// The next event, waiting for it. Who falls behind by more than the queue holds loses all that waits in it, and
    /// finds one resync in the place of these events, which says how many they were. `None` cannot happen while
    /// this subscription lives; it is there so that the loop over it reads well.
    pub async fn recv(&mut self) -> Option<Arc<Event>> {
        let next = self.events.next().await;
        Some(self.told(next))
    }

    /// The next event if one is there.
    pub fn try_recv(&mut self) -> Option<Arc<Event>> {
        let next = self.events.try_next()?;
        Some(self.told(next))
    }

    /// Events that wait.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn told(&mut self, next: Next) -> Arc<Event> {
        match next {
            Next::Event(event) => event,
            Next::Lost(lost) => self.resync(lost),
        }
    }

    fn resync(&mut self, lost: u64) -> Arc<Event> {
        self.bus.count_lost(lost);
        let user = self.filter.only_user().unwrap_or_default();
        self.losses += 1;
        // One that stays slow does not fill the log as well.
        if self.losses.is_power_of_two() {
            let count = self.losses;
            tracing::warn!(
                event = "events_lost",
                user,
                lost,
                count,
                "a slow subscription lost what waited for it"
            );
        }
        Arc::new(Event::resync(Uuid::now_v7(), now_us(), user, ResyncReason::SlowSubscriber, lost))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.bus.unsubscribe(self.id, &self.filter);
    }
}
