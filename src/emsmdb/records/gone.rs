//! Room for a session that is joined where there are as many as may be: sessions whose client is gone do not say so here,
//! and idle for half an hour; the process that opened them has removed their `session:`.

use std::sync::Arc;

use ocbus_resolver::{Cn, SessionsError};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::joined::JoinError;
use super::keeper::Keeper;
use crate::emsmdb::engine::OpenError;
use crate::emsmdb::service::Inner;

/// Sessions whose `session:` is looked at for one that is to be joined: those that have been silent for the longest. They
/// share round trips.
const LOOKED_AT: usize = 128;

impl Keeper {
    /// Finds the session that an asynchronous one belongs to, and opens it here ([`Keeper::join`]); where a limit is in the
    /// way, in the place of sessions that are gone.
    pub(in crate::emsmdb) async fn join_in_place(
        &self,
        inner: &Arc<Inner>,
        async_session: Uuid,
    ) -> Result<(Uuid, Cn), JoinError> {
        let refused = match self.join(inner, async_session).await {
            Err(JoinError::Open(refused)) => refused,
            Err(JoinError::Records(error @ SessionsError::Malformed { .. })) => {
                tracing::warn!(event = "session_unreadable", %async_session, reason = %error, "its client polls");
                return Err(JoinError::Records(error));
            }
            Err(error @ JoinError::User { .. }) => {
                tracing::warn!(event = "session_unreadable", %async_session, reason = %error, "its client polls");
                return Err(error);
            }
            joined => return joined,
        };
        let of = match &refused {
            OpenError::TooManyOfUser { cn, .. } => Cn::new(cn).ok(),
            OpenError::TooMany { .. } => None,
            _ => return Err(JoinError::Open(refused)),
        };
        match self.close_gone(inner, of.as_ref()).await {
            0 => Err(JoinError::Open(refused)),
            _ => self.join(inner, async_session).await,
        }
    }

    /// Closes sessions that another process has opened and closed. `of`: this user's, else anybody's. How many there were.
    async fn close_gone(&self, inner: &Arc<Inner>, of: Option<&Cn>) -> usize {
        let silent = inner.with(|engine, _| {
            let state = self.lock();
            let is_joined = |guid: &Uuid| state.sessions.get(guid).is_some_and(|shared| !shared.owner);
            engine.most_silent_sessions(of, LOOKED_AT, is_joined)
        });
        let mut reading = JoinSet::new();
        {
            let state = self.lock();
            for guid in silent {
                // Its client has connected by the last one.
                let last = state.sessions.get(&guid).and_then(|shared| shared.asyncs.last().copied());
                let Some(async_session) = last else { continue };
                let inner = Arc::clone(inner);
                reading.spawn(async move {
                    let sharing = inner.keeper.sharing.as_ref()?;
                    // Of one that memcached cannot tell of nothing is known.
                    let gone = inner.keeper.is_gone(sharing, guid, async_session).await;
                    gone.is_ok_and(|gone| gone).then_some(guid)
                });
            }
        }
        let mut closed = 0;
        while let Some(read) = reading.join_next().await {
            if let Ok(Some(guid)) = read {
                tracing::debug!(event = "session_gone", session = %guid, "closed where it was opened");
                closed += usize::from(inner.with(|engine, now| engine.close(guid, now)));
            }
        }
        closed
    }
}
