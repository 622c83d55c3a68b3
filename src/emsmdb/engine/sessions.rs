//! All sessions, their timers and their waits.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use ocbus_resolver::Cn;
use uuid::Uuid;

use super::queue::Bounds;
use super::session::{Session, Tally};
use super::{Completed, EngineConfig, NewSession, Parked, SecondWait, UnknownSession, WaitId, WaitOutcome};

#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_guid: HashMap<Uuid, Session>,
    /// When each session is to be looked at next: no later than its wait or its life ends.
    timers: BTreeSet<(Duration, Uuid)>,
    completed: VecDeque<Completed>,
    /// Relayed sessions with something to hand on, each once.
    pub(super) relays: VecDeque<Uuid>,
    /// Relayed sessions that have ended.
    pub(super) ended: VecDeque<Uuid>,
    last_wait: u64,
    pub(super) tally: Tally,
    pub(super) waits: Waits,
}

/// How waits were answered.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Waits {
    pub(super) event: u64,
    pub(super) timed_out: u64,
    pub(super) rejected: u64,
    pub(super) unknown: u64,
    pub(super) exiting: u64,
}

impl Waits {
    fn count(&mut self, outcome: WaitOutcome) {
        *match outcome {
            WaitOutcome::EventPending => &mut self.event,
            WaitOutcome::TimedOut => &mut self.timed_out,
            WaitOutcome::Rejected => &mut self.rejected,
            WaitOutcome::UnknownSession => &mut self.unknown,
            WaitOutcome::Exiting => &mut self.exiting,
        } += 1;
    }
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.by_guid.len()
    }

    pub(super) fn contains(&self, guid: Uuid) -> bool {
        self.by_guid.contains_key(&guid)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Session> {
        self.by_guid.values()
    }

    /// When each was called last, and whose it is.
    pub(super) fn touched(&self) -> impl Iterator<Item = (Duration, &Cn, &Uuid)> {
        self.by_guid.iter().map(|(guid, session)| (session.touched, &session.cn, guid))
    }

    pub(super) fn get(&self, guid: Uuid) -> Option<&Session> {
        self.by_guid.get(&guid)
    }

    pub(super) fn get_mut(&mut self, guid: Uuid) -> Option<&mut Session> {
        self.by_guid.get_mut(&guid)
    }

    pub(super) fn open(&mut self, new: NewSession, idle: Duration, now: Duration) {
        let NewSession { guid, cn, index } = new;
        let timer = now.saturating_add(idle);
        let session = Session::new(cn, index, now, timer);
        self.timers.insert((timer, guid));
        self.by_guid.insert(guid, session);
    }

    /// The session, which was called now.
    pub(super) fn touch(&mut self, guid: Uuid, now: Duration) -> Result<&mut Session, UnknownSession> {
        let session = self.by_guid.get_mut(&guid).ok_or(UnknownSession(guid))?;
        session.touched = session.touched.max(now);
        Ok(session)
    }

    /// Takes a session away, and answers its wait.
    pub(super) fn close(&mut self, guid: Uuid) -> Option<Session> {
        let session = self.by_guid.remove(&guid)?;
        self.timers.remove(&(session.timer, guid));
        if let Some((wait, _)) = session.parked {
            self.complete(wait, guid, WaitOutcome::UnknownSession);
        }
        if session.relayed {
            self.ended.push_back(guid);
        }
        Some(session)
    }

    fn complete(&mut self, wait: WaitId, session: Uuid, outcome: WaitOutcome) {
        self.waits.count(outcome);
        self.completed.push_back(Completed { wait, session, outcome });
    }

    pub(super) fn next_completed(&mut self) -> Option<Completed> {
        self.completed.pop_front()
    }

    /// Changes a session's queue, and wakes its wait if something is in it then; or says that it is to be handed on.
    pub(super) fn tell(&mut self, guid: Uuid, now: Duration, change: impl FnOnce(&mut Session, &mut Tally)) {
        let Some(session) = self.by_guid.get_mut(&guid) else { return };
        let overflows = self.tally.overflows;
        change(session, &mut self.tally);
        if self.tally.overflows > overflows {
            let (user, replies) = (session.cn.as_str(), session.queue.replies());
            tracing::warn!(event = "queue_full", user, session = %guid, replies, "a resync stands for the rest");
        }
        if session.queue.is_empty() {
            return;
        }
        if session.relayed {
            if !std::mem::replace(&mut session.relay_due, true) {
                self.relays.push_back(guid);
            }
            return;
        }
        self.wake(guid, now);
    }

    /// Answers a session's wait, as something can be fetched. Says whether one was parked.
    pub(super) fn wake(&mut self, guid: Uuid, now: Duration) -> bool {
        let Some(session) = self.by_guid.get_mut(&guid) else { return false };
        let Some((wait, _)) = session.parked.take() else { return false };
        session.touched = session.touched.max(now);
        self.complete(wait, guid, WaitOutcome::EventPending);
        true
    }

    /// Parks a wait. The queue is looked at under the same call that parks: nothing comes in between.
    pub(super) fn park(&mut self, guid: Uuid, config: &EngineConfig, now: Duration) -> Parked {
        let Ok(session) = self.touch(guid, now) else {
            return self.answer(WaitOutcome::UnknownSession);
        };
        if !session.relayed && !session.queue.is_empty() {
            return self.answer(WaitOutcome::EventPending);
        }
        let older = session.parked;
        if older.is_some() && config.second_wait == SecondWait::Reject {
            tracing::debug!(event = "second_wait", session = %guid, "rejected");
            return self.answer(WaitOutcome::Rejected);
        }
        self.last_wait += 1;
        let wait = WaitId(self.last_wait);
        let until = now.saturating_add(config.wait);
        if let Some(session) = self.by_guid.get_mut(&guid) {
            session.parked = Some((wait, until));
            if until < session.timer {
                self.timers.remove(&(session.timer, guid));
                session.timer = until;
                self.timers.insert((until, guid));
            }
        }
        if let Some((older, _)) = older {
            self.complete(older, guid, WaitOutcome::Rejected);
        }
        Parked::Parked(wait)
    }

    /// A wait that is answered at once.
    pub(super) fn answer(&mut self, outcome: WaitOutcome) -> Parked {
        self.waits.count(outcome);
        Parked::Done(outcome)
    }

    /// Takes a parked wait back. Says whether it was there.
    pub(super) fn cancel(&mut self, guid: Uuid, wait: WaitId) -> bool {
        match self.by_guid.get_mut(&guid) {
            Some(session) if session.parked.is_some_and(|(parked, _)| parked == wait) => {
                session.parked = None;
                true
            }
            _ => false,
        }
    }

    /// Answers every parked wait.
    pub(super) fn release_waits(&mut self, outcome: WaitOutcome) {
        let parked: Vec<(WaitId, Uuid)> = self
            .by_guid
            .iter_mut()
            .filter_map(|(guid, session)| session.parked.take().map(|(wait, _)| (wait, *guid)))
            .collect();
        for (wait, guid) in parked {
            self.complete(wait, guid, outcome);
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Answers waits whose time is over. The sessions that nobody calls any more: they are for the caller to close.
    pub(super) fn advance(&mut self, config: &EngineConfig, now: Duration) -> Vec<Uuid> {
        let mut expired = Vec::new();
        while let Some((at, guid)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, guid));
            let Some(session) = self.by_guid.get_mut(&guid) else { continue };
            let mut timed_out = None;
            if let Some((wait, until)) = session.parked
                && until <= now
            {
                session.parked = None;
                session.touched = session.touched.max(now);
                timed_out = Some(wait);
            }
            let idle_until = session.touched.saturating_add(config.idle);
            let next = session.parked.map_or(idle_until, |(_, until)| until);
            if next <= now {
                expired.push(guid);
            } else {
                session.timer = next;
                self.timers.insert((next, guid));
            }
            if let Some(wait) = timed_out {
                self.complete(wait, guid, WaitOutcome::TimedOut);
            }
        }
        expired
    }
}

impl From<&EngineConfig> for Bounds {
    fn from(config: &EngineConfig) -> Bounds {
        Bounds {
            octets: config.queue_octets,
            replies: config.queue_replies,
            rows_per_table: config.rows_per_table,
        }
    }
}
