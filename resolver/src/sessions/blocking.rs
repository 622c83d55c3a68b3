use std::time::Instant;

use ocbus_wire::openchange::{SessionRecord, Subscription, deliver_key, session_key, subscription_key};
use uuid::Uuid;

use super::deliver::{Append, Peek, Take};
use super::edit::{Register, Remove, Session, Subscribe, Subscriptions, Unsubscribe};
use super::{Appended, MAX_DELIVER_OCTETS, SessionsError, Taken, note};
use crate::edit::Edit;
use crate::resolver::BlockingResolver;

/// OpenChange's `session:`, `subscription:` and `deliver:` records, for a caller without a runtime. Each call has a
/// deadline.
#[derive(Debug)]
pub struct BlockingSessionRecords {
    resolver: BlockingResolver,
    limit: usize,
}

impl BlockingSessionRecords {
    /// The records where a resolver has its own.
    pub fn new(resolver: BlockingResolver) -> BlockingSessionRecords {
        BlockingSessionRecords { resolver, limit: MAX_DELIVER_OCTETS }
    }

    /// Lets at most so many octets wait for a session, up to [`MAX_DELIVER_OCTETS`], which is the default.
    pub fn with_deliver_limit(self, octets: usize) -> BlockingSessionRecords {
        BlockingSessionRecords { limit: octets.min(MAX_DELIVER_OCTETS), ..self }
    }

    /// Ties a waiting session to an emsmdb session and its user.
    pub fn register(
        &mut self,
        async_session: &Uuid,
        record: &SessionRecord,
        deadline: Instant,
    ) -> Result<(), SessionsError> {
        let charset = self.resolver.charset();
        self.update(Register { async_session: *async_session, record, charset }, deadline)
    }

    /// Whom a waiting session belongs to.
    pub fn session(
        &mut self,
        async_session: &Uuid,
        deadline: Instant,
    ) -> Result<SessionRecord, SessionsError> {
        self.update(Session { async_session: *async_session, charset: self.resolver.charset() }, deadline)
    }

    /// Forgets a waiting session.
    pub fn unregister(&mut self, async_session: &Uuid, deadline: Instant) -> Result<(), SessionsError> {
        self.update(Remove { key: session_key(async_session) }, deadline)
    }

    /// Adds a subscription to an emsmdb session.
    pub fn subscribe(
        &mut self,
        session: &Uuid,
        subscription: &Subscription,
        deadline: Instant,
    ) -> Result<(), SessionsError> {
        self.update(Subscribe { session: *session, subscription }, deadline)
    }

    /// Takes a subscription out.
    pub fn unsubscribe(
        &mut self,
        session: &Uuid,
        handle: u32,
        deadline: Instant,
    ) -> Result<(), SessionsError> {
        self.update(Unsubscribe { session: *session, handle }, deadline)
    }

    /// The subscriptions of a session, in the order in which they were made.
    pub fn subscriptions(
        &mut self,
        session: &Uuid,
        deadline: Instant,
    ) -> Result<Vec<Subscription>, SessionsError> {
        self.update(Subscriptions { session: *session }, deadline)
    }

    /// Takes all subscriptions of a session out.
    pub fn unsubscribe_all(&mut self, session: &Uuid, deadline: Instant) -> Result<(), SessionsError> {
        self.update(Remove { key: subscription_key(session) }, deadline)
    }

    /// Lets packed RopNotify replies wait for a session, behind those that do. Where they do not fit, `resync` takes
    /// the place of all that waits: it must make the client look again at whatever it has open.
    ///
    /// Of many writers each one's replies stay in order. After an error they may wait or not.
    pub fn append(
        &mut self,
        session: &Uuid,
        replies: &[u8],
        resync: &[u8],
        deadline: Instant,
    ) -> Result<Appended, SessionsError> {
        let resync = &mut || resync.to_vec();
        let appended =
            self.update(Append { session: *session, replies, resync, limit: self.limit }, deadline)?;
        note(session, appended);
        Ok(appended)
    }

    /// Takes all that waits for a session. One taker at a time: of two, both may get the same.
    pub fn take(&mut self, session: &Uuid, deadline: Instant) -> Result<Taken, SessionsError> {
        Ok(self.resolver.update(Take::new(*session), deadline)?)
    }

    /// What waits for a session; it goes on waiting.
    pub fn waiting(&mut self, session: &Uuid, deadline: Instant) -> Result<Vec<u8>, SessionsError> {
        self.update(Peek { session: *session }, deadline)
    }

    /// Drops what waits for a session that has ended, and its key.
    pub fn discard(&mut self, session: &Uuid, deadline: Instant) -> Result<(), SessionsError> {
        self.update(Remove { key: deliver_key(session) }, deadline)
    }

    fn update<T, E>(&mut self, edit: E, deadline: Instant) -> Result<T, SessionsError>
    where
        E: Edit<Outcome = Result<T, SessionsError>>,
    {
        self.resolver.update(edit, deadline)?
    }
}
