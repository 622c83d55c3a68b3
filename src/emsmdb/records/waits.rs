//! Waits by asynchronous sessions: one for each at a time, from the call on, whether or not its session is found.

use std::sync::Arc;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::keeper::Keeper;
use crate::emsmdb::engine::{Parked, SecondWait, WaitId, WaitOutcome};
use crate::emsmdb::service::Inner;
use crate::emsmdb::session::Session;

/// A wait that is not answered yet.
#[derive(Debug)]
pub(super) struct Waiting {
    number: u64,
    /// Parked in the engine by now.
    parked: Option<(Uuid, WaitId)>,
    /// Dropped when another takes its place, or it is taken back.
    _stays: oneshot::Sender<()>,
}

/// The place of a wait among those of its asynchronous session; dropped, it is free, and nothing is parked.
#[derive(Debug)]
pub(in crate::emsmdb) struct Place {
    inner: Arc<Inner>,
    async_session: Uuid,
    number: u64,
}

/// Resolves when another wait has taken the place, or it was taken back.
pub(in crate::emsmdb) type Lost = oneshot::Receiver<()>;

impl Keeper {
    /// Takes the place of the wait of an asynchronous session, or says how the wait is answered.
    pub(in crate::emsmdb) fn place(
        &self,
        inner: &Arc<Inner>,
        async_session: Uuid,
        policy: SecondWait,
    ) -> Result<(Place, Lost), WaitOutcome> {
        let (stays, lost) = oneshot::channel();
        let mut state = self.lock();
        if policy == SecondWait::Reject && state.waits.contains_key(&async_session) {
            tracing::debug!(event = "second_wait", %async_session, "rejected");
            return Err(WaitOutcome::Rejected);
        }
        state.last_number += 1;
        let number = state.last_number;
        let older = state.waits.insert(async_session, Waiting { number, parked: None, _stays: stays });
        drop(state);
        unpark(inner, older);
        Ok((Place { inner: Arc::clone(inner), async_session, number }, lost))
    }

    /// Takes a wait back. Says whether it was there.
    pub(in crate::emsmdb) fn free(&self, inner: &Arc<Inner>, async_session: Uuid, number: u64) -> bool {
        let mut state = self.lock();
        let is_it = state.waits.get(&async_session).is_some_and(|waiting| waiting.number == number);
        let waiting = if is_it { state.waits.remove(&async_session) } else { None };
        drop(state);
        unpark(inner, waiting);
        is_it
    }
}

fn unpark(inner: &Arc<Inner>, waiting: Option<Waiting>) {
    if let Some((session, wait)) = waiting.and_then(|waiting| waiting.parked) {
        inner.cancel(session, wait);
    }
}

impl Place {
    pub(in crate::emsmdb) fn number(&self) -> u64 {
        self.number
    }

    /// Waits for a session.
    pub(in crate::emsmdb) async fn wait(&self, session: &Session) -> WaitOutcome {
        let (done, completed) = oneshot::channel();
        let parked = session.park(move |outcome| {
            // The receiver may be gone, just before it takes the wait back.
            let _ = done.send(outcome);
        });
        let wait = match parked {
            Parked::Done(outcome) => return outcome,
            Parked::Parked(wait) => wait,
        };
        let guid = session.guid();
        let is_ours = {
            let mut state = self.inner.keeper.lock();
            let waiting = state.waits.get_mut(&self.async_session);
            waiting.filter(|waiting| waiting.number == self.number).map(|waiting| {
                waiting.parked = Some((guid, wait));
            })
        };
        if is_ours.is_none() {
            // Taken back meanwhile.
            self.inner.cancel(guid, wait);
            return WaitOutcome::Rejected;
        }
        // Its sender only goes unused when everything is dropped, or the wait was taken back.
        completed.await.unwrap_or(WaitOutcome::Exiting)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.inner.keeper.free(&self.inner, self.async_session, self.number);
    }
}
