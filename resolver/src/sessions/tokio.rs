use std::time::Duration;

use ocbus_wire::openchange::{SessionRecord, Subscription, deliver_key, session_key, subscription_key};
use uuid::Uuid;

use super::deliver::{Append, Peek, PutBack, Take};
use super::edit::{Register, Remove, Replace, Session, Subscribe, Subscriptions, Unsubscribe};
use super::{Appended, MAX_DELIVER_OCTETS, SessionsError, Taken, note};
use crate::edit::Edit;
use crate::resolver::Resolver;

/// OpenChange's `session:`, `subscription:` and `deliver:` records, for tasks on tokio. Over a resolver's
/// connections; clones share them.
#[derive(Debug, Clone)]
pub struct SessionRecords {
    resolver: Resolver,
    limit: usize,
}

impl SessionRecords {
    /// The records where a resolver has its own.
    pub fn new(resolver: &Resolver) -> SessionRecords {
        SessionRecords { resolver: resolver.clone(), limit: MAX_DELIVER_OCTETS }
    }

    /// Lets at most so many octets wait for a session, up to [`MAX_DELIVER_OCTETS`], which is the default.
    pub fn with_deliver_limit(self, octets: usize) -> SessionRecords {
        SessionRecords { limit: octets.min(MAX_DELIVER_OCTETS), ..self }
    }

    /// Ties a waiting session to an emsmdb session and its user. That it is tied so already is an error, as with
    /// OpenChange ([`SessionsError::SessionExists`]).
    pub async fn register(&self, async_session: &Uuid, record: &SessionRecord) -> Result<(), SessionsError> {
        let charset = self.resolver.charset();
        self.update(Register { async_session: *async_session, record, charset }).await
    }

    /// Whom a waiting session belongs to.
    pub async fn session(&self, async_session: &Uuid) -> Result<SessionRecord, SessionsError> {
        self.update(Session { async_session: *async_session, charset: self.resolver.charset() }).await
    }

    /// Forgets a waiting session.
    pub async fn unregister(&self, async_session: &Uuid) -> Result<(), SessionsError> {
        self.update(Remove { key: session_key(async_session) }).await
    }

    /// Adds a subscription to an emsmdb session.
    pub async fn subscribe(&self, session: &Uuid, subscription: &Subscription) -> Result<(), SessionsError> {
        self.update(Subscribe { session: *session, subscription }).await
    }

    /// Takes a subscription out.
    pub async fn unsubscribe(&self, session: &Uuid, handle: u32) -> Result<(), SessionsError> {
        self.update(Unsubscribe { session: *session, handle }).await
    }

    /// Makes these the subscriptions of a session, whatever the record has been, malformed or not there: for the one
    /// who keeps them, and writes them again when memcached has forgotten. None take the key along.
    pub async fn replace_subscriptions(
        &self,
        session: &Uuid,
        subscriptions: &[Subscription],
    ) -> Result<(), SessionsError> {
        self.update(Replace { session: *session, subscriptions }).await
    }

    /// The subscriptions of a session, in the order in which they were made.
    pub async fn subscriptions(&self, session: &Uuid) -> Result<Vec<Subscription>, SessionsError> {
        self.update(Subscriptions { session: *session }).await
    }

    /// Takes all subscriptions of a session out.
    pub async fn unsubscribe_all(&self, session: &Uuid) -> Result<(), SessionsError> {
        self.update(Remove { key: subscription_key(session) }).await
    }

    /// Lets packed RopNotify replies wait for a session, behind those that do. Where they do not fit, `resync` takes
    /// the place of all that waits: it must make the client look again at whatever it has open.
    ///
    /// Of many writers each one's replies stay in order. After an error they may wait or not.
    pub async fn append(
        &self,
        session: &Uuid,
        replies: &[u8],
        resync: &[u8],
    ) -> Result<Appended, SessionsError> {
        self.append_or(session, replies, || resync.to_vec()).await
    }

    /// Likewise, with a resync that is made only where it is needed; again, if others write meanwhile.
    pub async fn append_or(
        &self,
        session: &Uuid,
        replies: &[u8],
        mut resync: impl FnMut() -> Vec<u8> + Send,
    ) -> Result<Appended, SessionsError> {
        let append = Append { session: *session, replies, resync: &mut resync, limit: self.limit };
        let appended = self.update(append).await?;
        note(session, appended);
        Ok(appended)
    }

    /// Puts replies that were taken, and not given to the client, in front of those that wait by now. Where they do not
    /// fit nothing is done ([`SessionsError::Invalid`]). After another error they may wait or not.
    pub async fn put_back(&self, session: &Uuid, replies: &[u8]) -> Result<(), SessionsError> {
        self.update(PutBack { session: *session, replies, limit: self.limit }).await
    }

    /// How long a call may take at most.
    pub fn time_limit(&self) -> Duration {
        self.resolver.time_limit()
    }

    /// Takes all that waits for a session. One taker at a time: of two, both may get the same.
    ///
    /// Let it come to its end: when it is dropped in the middle, what it has taken out is lost.
    pub async fn take(&self, session: &Uuid) -> Result<Taken, SessionsError> {
        Ok(self.resolver.update(Take::new(*session)).await?)
    }

    /// How many octets wait for a session. Costs as little as can be: they are not read.
    pub async fn waiting_octets(&self, session: &Uuid) -> Result<usize, SessionsError> {
        Ok(self.resolver.size(deliver_key(session)).await?)
    }

    /// What waits for a session; it goes on waiting.
    pub async fn waiting(&self, session: &Uuid) -> Result<Vec<u8>, SessionsError> {
        self.update(Peek { session: *session }).await
    }

    /// Drops what waits for a session that has ended, and its key.
    pub async fn discard(&self, session: &Uuid) -> Result<(), SessionsError> {
        self.update(Remove { key: deliver_key(session) }).await
    }

    async fn update<T, E>(&self, edit: E) -> Result<T, SessionsError>
    where
        E: Edit<Outcome = Result<T, SessionsError>>,
    {
        self.resolver.update(edit).await?
    }
}
