//! What waits for one subscription.
//!
//! A batch goes in under one lock and wakes its reader once, when all of it is there; the reader takes several at a
//! time. tokio's `broadcast` takes three locks for each event and wakes at the first one, so that both sides then
//! meet at each of the others. docs/performance.md ("Publisher to subscriber") has what that costs.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ocbus_wire::Event;
use tokio::sync::Notify;

/// What a reader takes at once, at most: so many may be held besides those that wait.
const TAKEN: usize = 64;

/// Events that wait, the oldest first; so many at most. It has one reader.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Something has come since the reader looked.
    ready: Notify,
    limit: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Arc<Event>>,
    /// How many in front of these are gone.
    lost: u64,
}

/// The reader's end.
#[derive(Debug)]
pub(super) struct Reader {
    queue: Arc<Queue>,
    taken: VecDeque<Arc<Event>>,
}

/// What a reader finds.
#[derive(Debug)]
pub(super) enum Next {
    Event(Arc<Event>),
    /// So many were lost here.
    Lost(u64),
}

impl Queue {
    /// An empty queue for so many events, and its reader.
    pub(super) fn new(limit: usize) -> (Arc<Queue>, Reader) {
        let queue = Arc::new(Queue { waiting: Mutex::default(), ready: Notify::new(), limit: limit.max(1) });
        (Arc::clone(&queue), Reader { queue, taken: VecDeque::new() })
    }

    /// Adds events in their order. Where there is no room all that waits goes: its reader is told to look at everything
    /// anyway, and would be told so again and again if it were always full. Gives how many these are.
    pub(super) fn push<'a>(&self, events: impl Iterator<Item = &'a Arc<Event>>) -> usize {
        let mut gone = Vec::new();
        let mut waiting = self.lock();
        let mut count = 0;
        for event in events {
            if waiting.events.len() >= self.limit {
                waiting.lost += u64::try_from(waiting.events.len()).unwrap_or(u64::MAX);
                gone.push(std::mem::take(&mut waiting.events));
            }
            waiting.events.push_back(Arc::clone(event));
            count += 1;
        }
        drop(waiting);
        // Not under the lock: they may be many.
        drop(gone);
        if count > 0 {
            self.ready.notify_one();
        }
        count
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Whole behind any panic: an event is in it or is not.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// The next one, waiting for it. Nothing is lost when its future is dropped.
    pub(super) async fn next(&mut self) -> Next {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            // What came since then has left a permit.
            self.queue.ready.notified().await;
        }
    }

    pub(super) fn try_next(&mut self) -> Option<Next> {
        if let Some(event) = self.taken.pop_front() {
            return Some(Next::Event(event));
        }
        let mut waiting = self.queue.lock();
        if waiting.lost > 0 {
            return Some(Next::Lost(std::mem::take(&mut waiting.lost)));
        }
        let count = waiting.events.len().min(TAKEN);
        self.taken.extend(waiting.events.drain(..count));
        drop(waiting);
        self.taken.pop_front().map(Next::Event)
    }

    pub(super) fn len(&self) -> usize {
        self.taken.len() + self.queue.lock().events.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocbus_wire::{EventKind, Mailbox};
    use uuid::Uuid;

    fn events(times: std::ops::Range<u64>) -> Vec<Arc<Event>> {
        let event =
            |time| Event::new(Uuid::nil(), time, "bob", Mailbox::new("INBOX", '/'), EventKind::MailboxCreate);
        times.map(|time| Arc::new(event(time))).collect()
    }

    /// Times of events; a loss as its negative number.
    fn read(reader: &mut Reader, most: usize) -> Vec<i64> {
        let next = std::iter::from_fn(|| reader.try_next()).take(most);
        next.map(|next| match next {
            Next::Event(event) => i64::try_from(event.time_us).unwrap(),
            Next::Lost(lost) => -i64::try_from(lost).unwrap(),
        })
        .collect()
    }

    #[test]
    fn what_is_lost_is_told_where_it_was_whatever_the_reader_had_taken() {
        let (queue, mut reader) = Queue::new(100);
        assert_eq!(queue.push(events(0..80).iter()), 80);
        assert_eq!(read(&mut reader, 1), [0]);
        assert_eq!(reader.len(), 79);
        // 16 of the first wait, 64 are taken.
        queue.push(events(80..200).iter());
        assert_eq!(reader.len(), 63 + 36, "a hundred are gone");
        let all = read(&mut reader, 1000);
        let wanted: Vec<i64> = (1..64).chain([-100]).chain(164..200).collect();
        assert_eq!(all, wanted);
        assert_eq!((reader.len(), queue.push([].iter())), (0, 0));
    }

    #[test]
    fn a_reader_that_stays_behind_is_told_once_for_each_fill() {
        let (queue, mut reader) = Queue::new(100);
        let mut told = Vec::new();
        // Two come for each one that is read.
        for time in 0..5_000 {
            queue.push(events(2 * time..2 * time + 2).iter());
            told.extend(read(&mut reader, 1));
        }
        let losses = told.iter().filter(|told| **told < 0).count();
        assert!((1..=100).contains(&losses), "{losses}");
    }

    #[tokio::test]
    async fn a_reader_is_woken_by_what_comes_and_by_what_came_before_it_looked() {
        let (queue, mut reader) = Queue::new(8);
        queue.push(events(0..1).iter());
        assert!(matches!(reader.next().await, Next::Event(_)));
        let waiting = tokio::spawn(async move { (reader.next().await, reader) });
        tokio::task::yield_now().await;
        queue.push(events(1..4).iter());
        let (next, mut reader) = waiting.await.unwrap();
        assert!(matches!(next, Next::Event(event) if event.time_us == 1));
        assert_eq!(read(&mut reader, 9), [2, 3]);
    }
}
