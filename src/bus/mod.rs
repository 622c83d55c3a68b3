//! Events within one process: published once, to everyone whose filter they pass.
//!
//! Nobody waits for anybody. A publisher never blocks; a subscriber that falls behind loses what waits for it,
//! is told so by one [`Resync`](crate::EventKind::Resync) in its place, and is counted. An event whose id was
//! seen before is dropped, so that a sender may send again.
//!
//! ```
//! use ocbus::bus::{Bus, Filter};
//! use ocbus::{Event, EventKind, Mailbox};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let bus = Bus::new();
//! let mut inbox = bus.subscribe(Filter::user("bob").mailbox("INBOX"));
//! let kind = EventKind::MailboxSubscribe;
//! let event = Event::new(uuid::Uuid::now_v7(), ocbus::now_us(), "bob", Mailbox::new("INBOX", '/'), kind);
//! assert_eq!(bus.publish(event.clone()).delivered, 1);
//! assert!(bus.publish(event.clone()).duplicate);
//! assert_eq!(*inbox.recv().await.unwrap(), event);
//! # }
//! ```

mod filter;
mod queue;
mod seen;
mod subscription;

pub use filter::Filter;
pub use subscription::Subscription;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ocbus_wire::Event;

use filter::lower_case;
use queue::Queue;
use seen::Seen;

/// Ids that a bus remembers by default: a sender that sends again does so within seconds.
const DEFAULT_SEEN: usize = 65_536;

/// Events that wait for one subscription by default.
const DEFAULT_QUEUE: usize = 256;

/// The bus of a process. Clones are the same bus.
#[derive(Debug, Clone, Default)]
pub struct Bus {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    subscriptions: RwLock<Subscriptions>,
    seen: Mutex<Seen>,
    counters: Counters,
}

/// Subscriptions by their filter's user, so that an event is offered only to those who may want it.
#[derive(Debug, Default)]
struct Subscriptions {
    by_user: HashMap<String, Vec<Entry>>,
    of_all: Vec<Entry>,
    last_id: u64,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    filter: Filter,
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Counters {
    published: AtomicU64,
    duplicates: AtomicU64,
    delivered: AtomicU64,
    unheard: AtomicU64,
    lost: AtomicU64,
}

/// What a bus has done since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Events published, duplicates not among them.
    pub published: u64,
    /// Events dropped because their id had been seen.
    pub duplicates: u64,
    /// Events put into a subscription's queue; one event counts once for each.
    pub delivered: u64,
    /// Events that passed nobody's filter.
    pub unheard: u64,
    /// Events that slow subscriptions lost; each loss was told by a resync.
    pub lost: u64,
}

/// What became of events whose ids were new.
#[derive(Debug, Clone, Copy, Default)]
struct Offered {
    /// Queues that got one; one event counts once for each.
    delivered: usize,
    /// Events that passed nobody's filter.
    unheard: usize,
}

/// What became of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Subscriptions that got it.
    pub delivered: usize,
    /// Its id had been seen: nobody got it again.
    pub duplicate: bool,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared {
            subscriptions: RwLock::default(),
            seen: Mutex::new(Seen::new(DEFAULT_SEEN)),
            counters: Counters::default(),
        }
    }
}

impl Bus {
    /// A bus without subscriptions that remembers 65,536 ids.
    pub fn new() -> Bus {
        Bus::default()
    }

    /// A bus that remembers the last `ids` ids, and up to as many more: at least as many as are published between a send
    /// and its repetition.
    pub fn remembering(ids: usize) -> Bus {
        let shared = Shared { seen: Mutex::new(Seen::new(ids)), ..Shared::default() };
        Bus { shared: Arc::new(shared) }
    }

    /// Gives the event to every subscription whose filter it passes. Never blocks.
    pub fn publish(&self, event: Event) -> Published {
        // A poisoned lock: a panic elsewhere in the process. The maps behind it are whole.
        let new = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(event.id);
        if !new {
            self.shared.counters.duplicates.fetch_add(1, Ordering::Relaxed);
            return Published { delivered: 0, duplicate: true };
        }
        let subscriptions = self.shared.subscriptions.read().unwrap_or_else(PoisonError::into_inner);
        let offered = subscriptions.offer(&[Arc::new(event)]);
        drop(subscriptions);
        self.count_published(1, offered);
        Published { delivered: offered.delivered, duplicate: false }
    }

    /// Gives the events, in order, to every subscription whose filter they pass, as [`Bus::publish`] does with each;
    /// quicker than one after the other. Gives how many had been seen.
    pub fn publish_all(&self, events: Vec<Event>) -> usize {
        self.publish_shared(events.into_iter().map(Arc::new).collect())
    }

    /// The same, of events that may have others who hold them.
    pub fn publish_shared(&self, mut events: Vec<Arc<Event>>) -> usize {
        let told = events.len();
        {
            let mut seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
            events.retain(|event| seen.insert(event.id));
        }
        let duplicates = told - events.len();
        let mut all = Offered::default();
        {
            let subscriptions = self.shared.subscriptions.read().unwrap_or_else(PoisonError::into_inner);
            // Most batches are one user's.
            for run in events.chunk_by(|one, next| one.user == next.user) {
                let offered = subscriptions.offer(run);
                all.delivered += offered.delivered;
                all.unheard += offered.unheard;
            }
        }
        self.shared.counters.duplicates.fetch_add(wide(duplicates), Ordering::Relaxed);
        self.count_published(events.len(), all);
        duplicates
    }

    fn count_published(&self, published: usize, offered: Offered) {
        let counters = &self.shared.counters;
        counters.published.fetch_add(wide(published), Ordering::Relaxed);
        counters.unheard.fetch_add(wide(offered.unheard), Ordering::Relaxed);
        counters.delivered.fetch_add(wide(offered.delivered), Ordering::Relaxed);
    }

    /// A subscription whose queue holds 256 events.
    pub fn subscribe(&self, filter: Filter) -> Subscription {
        self.subscribe_with_queue(filter, DEFAULT_QUEUE)
    }

    /// A subscription whose queue holds `events` events; at least 1, at most 65,536. It takes room as they come.
    pub fn subscribe_with_queue(&self, filter: Filter, events: usize) -> Subscription {
        let (queue, reader) = Queue::new(events.clamp(1, 65_536));
        let mut subscriptions = self.shared.subscriptions.write().unwrap_or_else(PoisonError::into_inner);
        subscriptions.last_id += 1;
        let id = subscriptions.last_id;
        let entry = Entry { id, filter: filter.clone(), queue };
        match filter.only_user() {
            Some(user) => subscriptions.by_user.entry(user.to_owned()).or_default().push(entry),
            None => subscriptions.of_all.push(entry),
        }
        Subscription::new(self.clone(), id, filter, reader)
    }

    /// What has happened so far.
    pub fn statistics(&self) -> Statistics {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Statistics {
            published: read(&counters.published),
            duplicates: read(&counters.duplicates),
            delivered: read(&counters.delivered),
            unheard: read(&counters.unheard),
            lost: read(&counters.lost),
        }
    }

    fn count_lost(&self, lost: u64) {
        self.shared.counters.lost.fetch_add(lost, Ordering::Relaxed);
    }

    fn unsubscribe(&self, id: u64, filter: &Filter) {
        let mut subscriptions = self.shared.subscriptions.write().unwrap_or_else(PoisonError::into_inner);
        match filter.only_user() {
            Some(user) => {
                if let Some(entries) = subscriptions.by_user.get_mut(user) {
                    entries.retain(|entry| entry.id != id);
                    if entries.is_empty() {
                        subscriptions.by_user.remove(user);
                    }
                }
            }
            None => subscriptions.of_all.retain(|entry| entry.id != id),
        }
    }
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

impl Subscriptions {
    /// Puts events of one user into the queues of those who want them.
    fn offer(&self, events: &[Arc<Event>]) -> Offered {
        let Some(first) = events.first() else { return Offered::default() };
        let mut delivered = 0;
        let mut heard = vec![false; events.len()];
        for entry in self.offered(first) {
            let wanted = events.iter().zip(&mut heard).filter_map(|(event, heard)| {
                let passes = entry.filter.passes(event);
                *heard |= passes;
                passes.then_some(event)
            });
            delivered += entry.queue.push(wanted);
        }
        Offered { delivered, unheard: heard.iter().filter(|heard| !**heard).count() }
    }

    /// Whom events of this one's user may concern.
    fn offered(&self, event: &Event) -> impl Iterator<Item = &Entry> {
        // A resync for all users has none, and concerns every subscription.
        let everyone = event.user.is_empty().then(|| self.by_user.values().flatten());
        let own = self.by_user.get(lower_case(&event.user).as_ref()).into_iter().flatten();
        self.of_all.iter().chain(own).chain(everyone.into_iter().flatten())
    }
}
