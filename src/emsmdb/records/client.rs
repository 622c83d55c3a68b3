//! What a client comes for: its wait, and its replies.

use std::sync::Arc;

use ocbus_resolver::SessionsError;
use ocbus_wire::ropnotify::RopPending;
use tokio::sync::MutexGuard;
use tokio::time::Instant;
use uuid::Uuid;

use super::Sharing;
use super::front::Front;
use super::keeper::{Asked, Keeper, wide};
use super::shared::Shared;
use crate::emsmdb::engine::{Taken, UnknownSession};
use crate::emsmdb::service::Inner;

impl Keeper {
    /// A wait is parked: ended if something can be fetched, or if there is no such session any more.
    pub(super) async fn look_at(
        &self,
        inner: &Arc<Inner>,
        sharing: &Sharing,
        guid: Uuid,
        joined: Option<Uuid>,
    ) -> Result<Asked, SessionsError> {
        let mut asked = Asked::Nobody;
        if let Some(async_session) = joined {
            if self.is_gone(sharing, guid, async_session).await? {
                tracing::debug!(event = "session_gone", session = %guid, "closed where it was opened");
                inner.with(|engine, now| engine.close(guid, now));
                return Ok(Asked::Memcached);
            }
            asked = Asked::Memcached;
            self.look_once_more(inner, guid);
        }
        let front = self.lock().sessions.get(&guid).map(|shared| Arc::clone(&shared.front));
        let Some(front) = front else { return Ok(asked) };
        let mut waits = front.lock().await.left() > 0;
        if !waits {
            waits = sharing.records.waiting_octets(&guid).await? > 0;
            asked = Asked::Memcached;
        }
        if waits {
            inner.with(|engine, now| engine.wake(guid, now));
        }
        Ok(asked)
    }

    /// A wait that is parked while memcached may have forgotten the session: nobody else would look whether its records
    /// have come back.
    fn look_once_more(&self, inner: &Arc<Inner>, guid: Uuid) {
        let until =
            self.lock().sessions.get_mut(&guid).and_then(|shared| shared.look_once_more(Instant::now()));
        let Some(until) = until else { return };
        let inner = Arc::downgrade(inner);
        self.runtime.spawn(async move {
            tokio::time::sleep_until(until).await;
            if let Some(inner) = inner.upgrade() {
                inner.keeper.due(guid, |shared| (shared.look, shared.looks_once_more) = (true, false));
            }
        });
    }

    /// Whether a session that another process has opened is closed there. Where memcached may have forgotten it, that
    /// process has some time to write its records again.
    pub(super) async fn is_gone(
        &self,
        sharing: &Sharing,
        guid: Uuid,
        async_session: Uuid,
    ) -> Result<bool, SessionsError> {
        match sharing.records.session(&async_session).await {
            Err(SessionsError::NotFound { .. }) => {
                let state = self.lock();
                let shared = state.sessions.get(&guid);
                Ok(!shared.is_some_and(|shared| shared.is_perhaps_forgotten(Instant::now())))
            }
            Err(error @ SessionsError::Store(_)) => Err(error),
            _ => Ok(false),
        }
    }

    /// Gives a client what waits for it: what was taken before, then what is in `deliver:` now. `None`: the session is not
    /// opened here, or not shared.
    pub(in crate::emsmdb) async fn fetch(
        &self,
        inner: &Arc<Inner>,
        guid: Uuid,
        free: usize,
        out: &mut Vec<u8>,
    ) -> Option<Result<Taken, UnknownSession>> {
        let front = {
            let state = self.lock();
            let shared = state.sessions.get(&guid).filter(|shared| shared.owner && !shared.ended)?;
            Arc::clone(&shared.front)
        };
        let bringing = Arc::clone(inner);
        // In a task of its own: dropped in the middle, what it has taken would be lost.
        let brought = self.runtime.spawn(async move { bringing.keeper.bring(&bringing, guid, free).await });
        let pending = brought.await.unwrap_or_else(|error| {
            tracing::debug!(event = "fetch_ended", session = %guid, reason = %error);
            false
        });
        let mut front = front.lock().await;
        let index = match inner.with(|engine, now| engine.fetched(guid, 0, now)) {
            Ok(index) => index,
            Err(unknown) => return Some(Err(unknown)),
        };
        self.check_now_and_then(inner, guid);
        if front.left() == 0 {
            return Some(Ok(Taken { pending, ..Taken::default() }));
        }
        let open = inner.with(|engine, _| engine.open_handles(guid));
        let given = {
            let state = self.lock();
            let (rows, now) = (state.sessions.get(&guid).map(|shared| &shared.rows), Instant::now());
            let are_good = |handle, view: &_| rows.is_some_and(|rows| rows.are_good(handle, view, now));
            front.give(free, &open, are_good, index, out)
        };
        drop(front);
        let _ = inner.with(|engine, now| engine.fetched(guid, given.taken.replies, now));
        {
            let mut state = self.lock();
            state.counters.released += given.released;
            state.counters.outdated += given.outdated;
            state.counters.unreadable_octets += wide(given.unreadable);
        }
        if given.unreadable > 0 {
            tracing::warn!(event = "deliver_unreadable", session = %guid, octets = given.unreadable);
            inner.with(|engine, now| engine.resync(guid, now));
        }
        Some(Ok(given.taken))
    }

    /// Takes from `deliver:` what the next response may need. Where it has no room, nothing; then it says whether something
    /// waits there.
    async fn bring(&self, inner: &Arc<Inner>, guid: Uuid, free: usize) -> bool {
        let Some(sharing) = &self.sharing else { return false };
        let found = {
            let state = self.lock();
            // What is in `deliver:` of a former life is nobody's.
            let shared = state.sessions.get(&guid).filter(|shared| !shared.failing && !shared.clear);
            shared.map(|shared| (Arc::clone(&shared.front), shared.appended, state.is_spared()))
        };
        let Some((front, appended, spared)) = found else { return false };
        if spared {
            self.due(guid, |shared| shared.look = true);
            return false;
        }
        // One taker at a time.
        let front = front.lock().await;
        if free < RopPending::OCTETS {
            return self.leave(sharing, guid, front).await.unwrap_or_else(|error| {
                self.fetch_failed(guid, &error);
                false
            });
        }
        if front.left() > free {
            return false;
        }
        self.take(inner, sharing, guid, appended, front).await;
        false
    }

    /// The client cannot be told that something waits here. Whoever parks its next wait elsewhere sees what is in
    /// `deliver:`, and not what is here.
    async fn leave(
        &self,
        sharing: &Sharing,
        guid: Uuid,
        mut front: MutexGuard<'_, Front>,
    ) -> Result<bool, SessionsError> {
        let records = &sharing.records;
        if front.left() > 0 && !self.hears() {
            match records.put_back(&guid, front.rest()).await {
                // So much waits there that the wait ends anyway.
                Err(SessionsError::Invalid { .. }) => {}
                result => {
                    result?;
                    front.clear();
                    return Ok(true);
                }
            }
        }
        Ok(front.left() > 0 || records.waiting_octets(&guid).await? > 0)
    }

    async fn take(
        &self,
        inner: &Arc<Inner>,
        sharing: &Sharing,
        guid: Uuid,
        appended: u64,
        mut front: MutexGuard<'_, Front>,
    ) {
        let taken = match sharing.records.take(&guid).await {
            Ok(taken) => taken,
            Err(error) => {
                drop(front);
                return self.fetch_failed(guid, &error);
            }
        };
        let forgotten = {
            let mut state = self.lock();
            state.counters.taken_octets += wide(taken.replies.len());
            let Some(shared) = state.sessions.get_mut(&guid) else { return };
            // We leave it there, if empty, and nobody else takes it away.
            let was_there = std::mem::replace(&mut shared.found, taken.found);
            let forgotten = !taken.found && (was_there || appended > shared.fetched);
            shared.fetched = appended;
            forgotten
        };
        front.add(taken.replies);
        drop(front);
        if forgotten {
            self.was_forgotten(inner, guid, "memcached lost replies: a resync");
        }
    }

    /// memcached has forgotten something of a session: all of it is written again, and made good. Again and again, that is
    /// put off.
    pub(super) fn was_forgotten(&self, inner: &Arc<Inner>, guid: Uuid, what: &'static str) {
        let now = Instant::now();
        let at = {
            let mut state = self.lock();
            state.counters.forgotten += 1;
            state.sessions.get_mut(&guid).and_then(|shared| shared.next_mend(now))
        };
        let Some(at) = at else { return };
        if at <= now {
            return self.mend(inner, guid, what);
        }
        let inner = Arc::downgrade(inner);
        self.runtime.spawn(async move {
            tokio::time::sleep_until(at).await;
            if let Some(inner) = inner.upgrade() {
                inner.keeper.mend(&inner, guid, what);
            }
        });
    }

    fn mend(&self, inner: &Arc<Inner>, guid: Uuid, what: &str) {
        tracing::warn!(event = "deliver_forgotten", session = %guid, "{what}");
        inner.with(|engine, now| engine.resync(guid, now));
        self.due(guid, Shared::rewrite);
    }

    /// A client has called: perhaps as its session is not known any more where it waits.
    fn check_now_and_then(&self, inner: &Arc<Inner>, guid: Uuid) {
        let now = Instant::now();
        let at = {
            let mut state = self.lock();
            let shared = state.sessions.get_mut(&guid).filter(|shared| !shared.failing);
            shared.and_then(|shared| shared.next_check(now))
        };
        let Some(at) = at else { return };
        if at <= now {
            return self.due(guid, |shared| shared.check = true);
        }
        let inner = Arc::downgrade(inner);
        self.runtime.spawn(async move {
            tokio::time::sleep_until(at).await;
            if let Some(inner) = inner.upgrade() {
                inner.keeper.due(guid, |shared| shared.check = true);
            }
        });
    }

    fn fetch_failed(&self, guid: Uuid, error: &SessionsError) {
        tracing::debug!(event = "records_failed", session = %guid, reason = %error, "fetched later");
        let now = Instant::now();
        let mut state = self.lock();
        state.count_failure(error, now);
        let Some(shared) = state.sessions.get_mut(&guid) else { return };
        let waiting = std::mem::take(&mut shared.waiting);
        shared.again(now);
        shared.waiting = waiting;
        // Whoever works for it already finds out.
        if !shared.busy {
            self.stall(&mut state, guid, error);
        }
    }
}
