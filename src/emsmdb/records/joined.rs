//! Sessions that another process has opened: found by their asynchronous one, and read again when something happens.

use std::sync::Arc;

use ocbus_resolver::{Cn, CnError, SessionsError};
use ocbus_wire::Event;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::keeper::Keeper;
use super::outages::{Probe, is_timeout, unreachable};
use super::shared::Shared;
use super::{Sharing, entries};
use crate::emsmdb::engine::{Handles, NewSession, OpenError, WaitOutcome};
use crate::emsmdb::service::Inner;

/// Sessions that are read at once.
const AT_ONCE: usize = 512;

/// Why a session is not found by its asynchronous one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// There is no `session:` record: never connected, closed, or forgotten by memcached.
    #[error("asynchronous session {0} is unknown: never connected, or closed")]
    Unknown(Uuid),
    /// The user of its `session:` record is none that events could be for.
    #[error("asynchronous session {async_session} is of the user {cn:?}: {reason}")]
    User {
        /// Its GUID.
        async_session: Uuid,
        /// As the record has it.
        cn: String,
        /// What is wrong with it.
        reason: CnError,
    },
    /// It cannot be opened here: a limit, or the server stops.
    #[error(transparent)]
    Open(OpenError),
    /// memcached failed.
    #[error(transparent)]
    Records(#[from] SessionsError),
}

impl JoinError {
    /// The answer to a wait, where trying again is of no use; `None` while memcached is away.
    ///
    /// A client that is told to look (`UnknownSession`) finds its session where it was opened, if it is there still, and
    /// waits again at once. Where that would go on for ever it is rejected: it polls then, and waits again when it has
    /// connected anew.
    pub(in crate::emsmdb) fn answer(&self) -> Option<WaitOutcome> {
        match self {
            JoinError::Unknown(_) => Some(WaitOutcome::UnknownSession),
            JoinError::Open(OpenError::Stopping) => Some(WaitOutcome::Exiting),
            JoinError::User { .. }
            | JoinError::Open(OpenError::TooManyOfUser { .. } | OpenError::TooMany { .. })
            | JoinError::Records(SessionsError::Malformed { .. }) => Some(WaitOutcome::Rejected),
            JoinError::Open(_) | JoinError::Records(_) => None,
        }
    }
}

impl Keeper {
    /// A session could not be joined: takes note of it, and waits until it is to be tried again. What there is is the turn
    /// of whoever tries for all, until it is known what came of it ([`Keeper::joined`]).
    pub(in crate::emsmdb) async fn until_next_join(&self, error: &JoinError) -> Option<Probe> {
        match error {
            JoinError::Records(error) => {
                self.lock().count_failure(error, Instant::now());
                self.until_next_try(unreachable(error)).await
            }
            _ => self.until_next_try(None).await,
        }
    }

    /// It was tried.
    pub(in crate::emsmdb) fn joined<T>(&self, probe: Option<Probe>, result: &Result<T, JoinError>) {
        let error = result.as_ref().err().and_then(|error| match error {
            JoinError::Records(error) => Some(error),
            _ => None,
        });
        self.outages.tried(probe, error);
    }

    /// Finds the session that an asynchronous one belongs to, and opens it here if it is not open.
    pub(in crate::emsmdb) async fn join(
        &self,
        inner: &Arc<Inner>,
        async_session: Uuid,
    ) -> Result<(Uuid, Cn), JoinError> {
        let known = self.lock().by_async.get(&async_session).copied();
        let user = |guid: Uuid| inner.with(|engine, _| Some((guid, engine.user_of(guid)?.clone())));
        if let Some(found) = known.and_then(user) {
            return Ok(found);
        }
        let Some(sharing) = &self.sharing else { return Err(JoinError::Unknown(async_session)) };
        let record = match sharing.records.session(&async_session).await {
            Err(SessionsError::NotFound { .. }) => return Err(JoinError::Unknown(async_session)),
            record => record?,
        };
        let guid = record.session;
        if self.lock().sessions.get(&guid).is_some_and(|shared| shared.owner && shared.ended) {
            // Closed here, and just being removed.
            return Err(JoinError::Unknown(async_session));
        }
        let cn =
            Cn::new(&record.cn).map_err(|reason| JoinError::User { async_session, cn: record.cn, reason })?;
        let new = NewSession { guid, cn: cn.clone(), index: 0 };
        // Before it is open: no event is to find it without what it has.
        let handles = match sharing.records.subscriptions(&guid).await {
            Ok(entries) => entries::from_record(&entries),
            Err(SessionsError::NotFound { .. }) => Handles::default(),
            Err(error @ SessionsError::Store(_)) => return Err(error.into()),
            Err(error) => {
                tracing::warn!(event = "subscriptions_unread", session = %guid, reason = %error);
                Handles::default()
            }
        };
        // Opened here, it is by ourselves (`Both`), or by an earlier asynchronous session.
        inner
            .with(|engine, now| {
                let is_new = !engine.contains(guid);
                if is_new {
                    engine.open(new, now)?;
                    engine.relay(guid);
                    engine.replace_handles(guid, handles, now);
                }
                let mut state = self.lock();
                if is_new {
                    state.put(guid, Shared::new(cn.clone(), false));
                }
                if let Some(shared) = state.sessions.get_mut(&guid)
                    && !shared.asyncs.contains(&async_session)
                {
                    shared.asyncs.push(async_session);
                }
                state.by_async.insert(async_session, guid);
                Ok(())
            })
            .map_err(JoinError::Open)?;
        Ok((guid, cn))
    }

    /// The user of a session that was joined is registered: now, and not earlier, its client is told to look at what it
    /// has open. What came before that is seen by it. Who is not there any more to say so leaves it to the next wait.
    pub(in crate::emsmdb) fn is_heard(&self, inner: &Arc<Inner>, guid: Uuid) {
        inner.with(|engine, now| {
            let unheard = |shared: &mut Shared| std::mem::take(&mut shared.unheard);
            let first = self.lock().sessions.get_mut(&guid).is_some_and(unheard);
            if first {
                engine.resync(guid, now);
            }
        });
    }

    /// Reads again what is open in the sessions of the users of these events, where it was not opened here. An event of
    /// no user concerns all of them.
    pub(in crate::emsmdb) async fn refresh(&self, inner: &Arc<Inner>, events: &[Arc<Event>]) {
        if self.sharing.is_none() {
            return;
        }
        let mut users: Vec<Cn> = events.iter().filter_map(|event| Cn::new(&event.user).ok()).collect();
        users.sort_unstable();
        users.dedup();
        let all = events.iter().any(|event| event.user.is_empty());
        let of_users: Option<Vec<Uuid>> = (!all).then(|| {
            inner.with(|engine, _| users.iter().flat_map(|cn| engine.sessions_of(cn)).copied().collect())
        });
        let joined: Vec<Uuid> = {
            let state = self.lock();
            let is_joined = |guid: &Uuid| state.sessions.get(guid).is_some_and(|shared| !shared.owner);
            match of_users {
                Some(sessions) => sessions.into_iter().filter(is_joined).collect(),
                None => state.sessions.keys().copied().filter(is_joined).collect(),
            }
        };
        // Events do not wait for a memcached that hangs, nor is it asked once more for each.
        let (mut later, joined): (Vec<Uuid>, Vec<Uuid>) = {
            let state = self.lock();
            let is_away = state.is_spared();
            let is_failing = |guid: &Uuid| state.sessions.get(guid).is_some_and(|shared| shared.failing);
            joined.into_iter().partition(|guid| is_away || is_failing(guid))
        };
        let mut late = false;
        for some in joined.chunks(AT_ONCE) {
            if late {
                later.extend(some);
                continue;
            }
            // They share round trips.
            let mut reading = JoinSet::new();
            for guid in some.iter().copied() {
                let inner = Arc::clone(inner);
                reading.spawn(async move {
                    let sharing = inner.keeper.sharing.as_ref()?;
                    let error = inner.keeper.refresh_session(&inner, sharing, guid).await.err()?;
                    Some((guid, error))
                });
            }
            while let Some(read) = reading.join_next().await {
                if let Ok(Some((guid, error @ SessionsError::Store(_)))) = read {
                    late |= is_timeout(&error);
                    later.push(guid);
                }
            }
        }
        // What was open before is told of now, and what was opened since when it can be read.
        for guid in later {
            self.due(guid, |shared| shared.unread = true);
        }
    }

    /// Reads what could not be read when events came, and tells a resync in their place.
    pub(super) async fn read_late(
        &self,
        inner: &Arc<Inner>,
        sharing: &Sharing,
        guid: Uuid,
    ) -> Result<(), SessionsError> {
        match self.read_handles(inner, sharing, guid).await {
            Err(error @ SessionsError::Store(_)) => {
                if let Some(shared) = self.lock().sessions.get_mut(&guid) {
                    shared.unread = true;
                }
                return Err(error);
            }
            Err(error) => {
                tracing::debug!(event = "subscriptions_unread", session = %guid, reason = %error);
            }
            Ok(()) => {}
        }
        inner.with(|engine, now| engine.resync(guid, now));
        Ok(())
    }

    async fn refresh_session(
        &self,
        inner: &Arc<Inner>,
        sharing: &Sharing,
        guid: Uuid,
    ) -> Result<(), SessionsError> {
        let read = self.read_handles(inner, sharing, guid).await;
        if let Err(error) = &read {
            // What was open before is told of.
            tracing::debug!(event = "subscriptions_unread", session = %guid, reason = %error);
            self.lock().count_failure(error, Instant::now());
        }
        read
    }

    async fn read_handles(
        &self,
        inner: &Arc<Inner>,
        sharing: &Sharing,
        guid: Uuid,
    ) -> Result<(), SessionsError> {
        let entries = match sharing.records.subscriptions(&guid).await {
            Ok(entries) => Some(entries),
            Err(SessionsError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        if entries.is_none() {
            let async_session =
                self.lock().sessions.get(&guid).and_then(|shared| shared.asyncs.last().copied());
            if let Some(async_session) = async_session
                && self.is_gone(sharing, guid, async_session).await?
            {
                // If it is only forgotten: its client finds out, and so does who has opened it.
                tracing::debug!(event = "session_gone", session = %guid, "closed where it was opened");
                inner.with(|engine, now| engine.close(guid, now));
                return Ok(());
            }
        }
        let absent = {
            let mut state = self.lock();
            let Some(shared) = state.sessions.get_mut(&guid) else { return Ok(()) };
            match entries {
                Some(_) => std::mem::take(&mut shared.absent),
                None if shared.is_perhaps_forgotten(Instant::now()) => return Ok(()),
                None => {
                    shared.absent = shared.absent.saturating_add(1);
                    shared.absent
                }
            }
        };
        let is_there = entries.is_some();
        let handles = entries::from_record(&entries.unwrap_or_default());
        inner.with(|engine, now| match (is_there, absent) {
            // Everything was released, or the record was evicted. Told once too often, the client finds nothing; and
            // with its call whoever has opened the session sees that the record is not there.
            (false, ..=1) => {}
            // It may be the last that it is told.
            (false, 2) => engine.resync(guid, now),
            (false, _) => engine.replace_handles(guid, handles, now),
            (true, _) => {
                engine.replace_handles(guid, handles, now);
                if absent > 2 {
                    // Written again behind an eviction: what has happened meanwhile was told to nothing.
                    engine.resync(guid, now);
                }
            }
        });
        Ok(())
    }
}
