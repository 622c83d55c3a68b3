//! What waits for the host's thread: questions, answered waits and lines of the log; and the descriptor that is
//! readable as long as something does.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ocbus::emsmdb::{Query, Reply, WaitId, WaitOutcome};
use rustix::event::{EventfdFlags, eventfd};
use tokio::task::AbortHandle;
use tracing::Level;
use uuid::Uuid;

use crate::log::Line;
use crate::wait::Callback;

/// Questions that wait for a host that does not dispatch. One more is answered as failed.
const MAX_QUERIES: usize = 8_192;

/// Lines of the log that wait. Of more, the number is told.
const MAX_LINES: usize = 1_000;

/// See the module. Waits of sessions need no bound of their own: a session has one. Those of asynchronous sessions, which
/// may be of any number, have one.
#[derive(Debug)]
pub(crate) struct Outbox {
    descriptor: OwnedFd,
    max_joining: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Line>,
    lost_lines: u64,
    queries: VecDeque<(Query, Reply)>,
    /// Every wait whose answer the host has not been told.
    waits: HashMap<u64, Wait>,
    last_wait: u64,
    /// Those among them that are waits of asynchronous sessions.
    async_waits: usize,
    /// Waits of asynchronous sessions, each in a task of ours until it is answered.
    joining: HashMap<u64, AbortHandle>,
    /// Answered waits with a callback.
    called: VecDeque<(u64, WaitOutcome)>,
    /// Answered waits without one: [`ocbus_wait_next`](crate::ocbus_wait_next) fetches them.
    fetched: VecDeque<(u64, WaitOutcome)>,
    /// What the descriptor says.
    readable: bool,
}

/// A wait that C has parked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    pub(crate) session: Uuid,
    pub(crate) callback: Option<Callback>,
    /// Its number in the engine, as soon as it has one.
    parked: Option<WaitId>,
    /// Of an asynchronous session, whose GUID `session` is: its number among those, as soon as it has one.
    joining: Option<u64>,
    is_async: bool,
}

/// A wait that its host takes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forgotten {
    /// Of a session, with its number in the engine.
    Parked(Uuid, Option<WaitId>),
    /// Of an asynchronous session, with its number among those; none: answered at once.
    Joining(Uuid, Option<u64>),
}

/// A wait and how it was answered.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) id: u64,
    pub(crate) wait: Wait,
    pub(crate) outcome: WaitOutcome,
}

/// Something for a callback.
#[derive(Debug)]
pub(crate) enum Job {
    Line(Line),
    Query(Query, Reply),
    Answered(Answered),
}

impl Outbox {
    /// `max_joining`: waits of asynchronous sessions, until the host has been told of their answers.
    pub(crate) fn new(max_joining: usize) -> std::io::Result<Outbox> {
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Outbox { descriptor, max_joining, state: Mutex::default() })
    }

    /// The descriptor to be polled.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// Changes what waits; the descriptor follows.
    fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = change(&mut state);
        let wanted = !state.is_empty();
        if wanted != state.readable {
            state.readable = wanted;
            let mut counter = [0; 8];
            // Neither can fail: the counter goes from 0 to 1 and back, under the lock.
            let _ = match wanted {
                true => rustix::io::write(self.descriptor.as_fd(), &1u64.to_ne_bytes()),
                false => rustix::io::read(self.descriptor.as_fd(), &mut counter),
            };
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A poisoned lock: a panic elsewhere in the process. The queues behind it are whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push_line(&self, line: Line) {
        self.with(|state| match state.lines.len() < MAX_LINES {
            true => state.lines.push_back(line),
            false => state.lost_lines += 1,
        });
    }

    pub(crate) fn push_query(&self, query: Query, reply: Reply) {
        let refused = self.with(|state| match state.queries.len() < MAX_QUERIES {
            true => {
                state.queries.push_back((query, reply));
                None
            }
            false => Some(reply),
        });
        // Answers that it failed; not under the lock, since that may answer waits.
        drop(refused);
    }

    /// A wait that is about to be parked.
    pub(crate) fn add_wait(&self, session: Uuid, callback: Option<Callback>) -> u64 {
        self.lock().add(Wait { session, callback, parked: None, joining: None, is_async: false })
    }

    /// Likewise of an asynchronous session. An error is the bound.
    pub(crate) fn add_async_wait(&self, session: Uuid, callback: Option<Callback>) -> Result<u64, usize> {
        let mut state = self.lock();
        if state.async_waits >= self.max_joining {
            return Err(self.max_joining);
        }
        state.async_waits += 1;
        Ok(state.add(Wait { session, callback, parked: None, joining: None, is_async: true }))
    }

    /// It is parked, and may be answered by now.
    pub(crate) fn parked(&self, id: u64, parked: WaitId) {
        if let Some(wait) = self.lock().waits.get_mut(&id) {
            wait.parked = Some(parked);
        }
    }

    /// It waits in a task, which may be over by now. `number`: its number among those of asynchronous sessions.
    pub(crate) fn joining(&self, id: u64, number: u64, task: AbortHandle) {
        let mut state = self.lock();
        if let Some(wait) = state.waits.get_mut(&id) {
            wait.joining = Some(number);
        }
        let answered = state.called.iter().chain(&state.fetched).any(|(of, _)| *of == id);
        // Answered, and told by now; or forgotten.
        let over = !state.waits.contains_key(&id);
        if !answered && !over {
            state.joining.insert(id, task);
        }
    }

    /// Its answer is here.
    pub(crate) fn answered(&self, id: u64, outcome: WaitOutcome) {
        self.with(|state| state.answered(id, outcome));
    }

    /// Answers the waits that tasks wait for: nobody will any more.
    pub(crate) fn end_joining(&self) {
        self.with(|state| {
            for (id, task) in std::mem::take(&mut state.joining) {
                task.abort();
                state.answered(id, WaitOutcome::Exiting);
            }
        });
    }

    /// Forgets a wait: its callback is not called any more. Says which it was.
    pub(crate) fn forget_wait(&self, id: u64) -> Option<Forgotten> {
        self.with(|state| {
            let wait = state.remove(id)?;
            if let Some(task) = state.joining.remove(&id) {
                task.abort();
            }
            state.called.retain(|(answered, _)| *answered != id);
            state.fetched.retain(|(answered, _)| *answered != id);
            Some(match wait.is_async {
                true => Forgotten::Joining(wait.session, wait.joining),
                false => Forgotten::Parked(wait.session, wait.parked),
            })
        })
    }

    /// An answered wait that has no callback.
    pub(crate) fn next_fetched(&self) -> Option<Answered> {
        self.with(|state| {
            let (id, outcome) = state.fetched.pop_front()?;
            state.remove(id).map(|wait| Answered { id, wait, outcome })
        })
    }

    /// How many jobs there are for callbacks now.
    pub(crate) fn jobs(&self) -> usize {
        let state = self.lock();
        state.lines.len() + usize::from(state.lost_lines > 0) + state.queries.len() + state.called.len()
    }

    /// The next job: lines of the log first, then answers, then questions.
    pub(crate) fn next_job(&self) -> Option<Job> {
        self.with(State::next_job)
    }
}

impl State {
    fn add(&mut self, wait: Wait) -> u64 {
        self.last_wait += 1;
        self.waits.insert(self.last_wait, wait);
        self.last_wait
    }

    fn remove(&mut self, id: u64) -> Option<Wait> {
        let wait = self.waits.remove(&id)?;
        self.async_waits -= usize::from(wait.is_async);
        Some(wait)
    }

    fn answered(&mut self, id: u64, outcome: WaitOutcome) {
        self.joining.remove(&id);
        match self.waits.get(&id) {
            Some(Wait { callback: Some(_), .. }) => self.called.push_back((id, outcome)),
            Some(_) => self.fetched.push_back((id, outcome)),
            None => {}
        }
    }

    fn is_empty(&self) -> bool {
        self.lines.is_empty()
            && self.lost_lines == 0
            && self.queries.is_empty()
            && self.called.is_empty()
            && self.fetched.is_empty()
    }

    fn next_job(&mut self) -> Option<Job> {
        if let Some(line) = self.lines.pop_front() {
            return Some(Job::Line(line));
        }
        if self.lost_lines > 0 {
            let lost = std::mem::take(&mut self.lost_lines);
            let text =
                format!("{lost} lines of the log were lost, as nobody dispatched (event=log_lines_lost)");
            return Some(Job::Line(Line { level: Level::WARN, text }));
        }
        while let Some((id, outcome)) = self.called.pop_front() {
            if let Some(wait) = self.remove(id) {
                return Some(Job::Answered(Answered { id, wait, outcome }));
            }
        }
        let (query, reply) = self.queries.pop_front()?;
        Some(Job::Query(query, reply))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn readable(outbox: &Outbox) -> bool {
        let mut polled = [PollFd::new(&outbox.descriptor, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).unwrap() == 1
    }

    fn line(text: &str) -> Line {
        Line { level: Level::INFO, text: text.to_owned() }
    }

    #[test]
    fn the_descriptor_is_readable_as_long_as_something_waits() {
        let outbox = Outbox::new(2).unwrap();
        assert!(!readable(&outbox));
        outbox.push_line(line("a"));
        outbox.push_line(line("b"));
        assert!(readable(&outbox));
        assert!(matches!(outbox.next_job(), Some(Job::Line(_))));
        assert!(readable(&outbox));
        assert!(matches!(outbox.next_job(), Some(Job::Line(_))));
        assert!(!readable(&outbox));

        let wait = outbox.add_wait(Uuid::nil(), None);
        assert!(!readable(&outbox), "parked, not answered");
        outbox.answered(wait, WaitOutcome::TimedOut);
        assert!(readable(&outbox));
        assert!(outbox.next_job().is_none(), "the host fetches it");
        assert_eq!(outbox.next_fetched().unwrap().id, wait);
        assert!(!readable(&outbox));
    }

    #[test]
    fn a_wait_that_is_forgotten_is_not_told() {
        let outbox = Outbox::new(2).unwrap();
        let wait = outbox.add_wait(Uuid::nil(), None);
        outbox.answered(wait, WaitOutcome::EventPending);
        assert_eq!(outbox.forget_wait(wait), Some(Forgotten::Parked(Uuid::nil(), None)));
        assert_eq!(outbox.forget_wait(wait), None);
        assert!(outbox.next_fetched().is_none());
        assert!(!readable(&outbox));
        outbox.answered(wait, WaitOutcome::EventPending);
        assert!(!readable(&outbox));
    }

    #[test]
    fn waits_of_asynchronous_sessions_are_bounded_until_they_are_told() {
        let outbox = Outbox::new(2).unwrap();
        let add = || outbox.add_async_wait(Uuid::nil(), None);
        let (first, second) = (add().unwrap(), add().unwrap());
        assert_eq!(add(), Err(2));
        outbox.answered(first, WaitOutcome::Rejected);
        assert_eq!(add(), Err(2), "the host has not fetched it");
        assert_eq!(outbox.next_fetched().unwrap().id, first);
        let third = add().unwrap();
        assert_eq!(outbox.forget_wait(second), Some(Forgotten::Joining(Uuid::nil(), None)));
        assert_eq!(outbox.forget_wait(third), Some(Forgotten::Joining(Uuid::nil(), None)));
        assert!(add().is_ok() && add().is_ok() && add().is_err());
        outbox.add_wait(Uuid::nil(), None);
    }

    #[test]
    fn of_too_many_lines_the_number_is_told() {
        let outbox = Outbox::new(2).unwrap();
        (0..MAX_LINES + 7).for_each(|n| outbox.push_line(line(&n.to_string())));
        assert_eq!(outbox.jobs(), MAX_LINES + 1);
        let last = std::iter::from_fn(|| outbox.next_job()).last().unwrap();
        assert!(matches!(&last, Job::Line(line) if line.text.starts_with("7 lines")), "{last:?}");
        assert!(!readable(&outbox));
    }
}
