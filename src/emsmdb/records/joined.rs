//! Sessions that another process has opened: found by their asynchronous one, and read again when something happens.

use std::sync::Arc;

use ocbus_resolver::{Cn, SessionsError};
use ocbus_wire::Event;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::keeper::Keeper;
use super::shared::Shared;
use super::{Sharing, entries};
use crate::emsmdb::engine::{NewSession, OpenError, WaitOutcome};
use crate::emsmdb::service::Inner;

/// Why a session is not found by its asynchronous one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// There is no `session:` record: never connected, closed, or forgotten by memcached.
    #[error("asynchronous session {0} is unknown: never connected, or closed")]
    Unknown(Uuid),
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
            JoinError::Open(OpenError::TooManyOfUser { .. } | OpenError::TooMany { .. })
            | JoinError::Records(SessionsError::Malformed { .. }) => Some(WaitOutcome::Rejected),
            JoinError::Open(_) | JoinError::Records(_) => None,
        }
    }
}

impl Keeper {
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
        let cn = Cn::new(&record.cn).map_err(|_| JoinError::Unknown(async_session))?;
        let new = NewSession { guid, cn: cn.clone(), index: 0 };
        // Opened here, it is by ourselves (`Both`), or by an earlier asynchronous session.
        let opened = inner.with(|engine, now| {
            let is_new = !engine.contains(guid);
            if is_new {
                engine.open(new, now)?;
                engine.relay(guid);
            }
            Ok(is_new)
        });
        let is_new = opened.map_err(JoinError::Open)?;
        {
            let mut state = self.lock();
            if is_new {
                state.removing.remove(&guid);
                state.sessions.insert(guid, Shared::new(cn.clone(), false));
            }
            if let Some(shared) = state.sessions.get_mut(&guid)
                && !shared.asyncs.contains(&async_session)
            {
                shared.asyncs.push(async_session);
            }
            state.by_async.insert(async_session, guid);
        }
        if is_new {
            self.refresh_session(inner, sharing, guid).await;
            // Nobody has listened for it until now.
            inner.with(|engine, now| engine.resync(guid, now));
        }
        Ok((guid, cn))
    }

    /// Reads again what is open in the sessions of the users of these events, where it was not opened here.
    pub(in crate::emsmdb) async fn refresh(&self, inner: &Arc<Inner>, events: &[Arc<Event>]) {
        if self.sharing.is_none() {
            return;
        }
        let mut users: Vec<Cn> = events.iter().filter_map(|event| Cn::new(&event.user).ok()).collect();
        users.sort_unstable();
        users.dedup();
        let sessions: Vec<Uuid> =
            inner.with(|engine, _| users.iter().flat_map(|cn| engine.sessions_of(cn)).copied().collect());
        let joined: Vec<Uuid> = {
            let state = self.lock();
            let is_joined = |guid: &Uuid| state.sessions.get(guid).is_some_and(|shared| !shared.owner);
            sessions.into_iter().filter(is_joined).collect()
        };
        // All at once: they share round trips.
        let mut reading = JoinSet::new();
        for guid in joined {
            let inner = Arc::clone(inner);
            reading.spawn(async move {
                if let Some(sharing) = &inner.keeper.sharing {
                    inner.keeper.refresh_session(&inner, sharing, guid).await;
                }
            });
        }
        while reading.join_next().await.is_some() {}
    }

    async fn refresh_session(&self, inner: &Arc<Inner>, sharing: &Sharing, guid: Uuid) {
        let entries = match sharing.records.subscriptions(&guid).await {
            Ok(entries) => entries,
            Err(SessionsError::NotFound { .. }) => Vec::new(),
            Err(error) => {
                // What was open before is told of.
                tracing::debug!(event = "subscriptions_unread", session = %guid, reason = %error);
                self.lock().counters.failures += 1;
                return;
            }
        };
        inner.with(|engine, _| engine.replace_handles(guid, entries::from_record(&entries)));
    }
}
