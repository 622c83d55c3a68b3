//! What the calls on `session:` and `subscription:` do to a record.

use ocbus_wire::openchange::{
    DosCharset, EncodeError, SessionRecord, Subscription, SubscriptionRecord, session_key, subscription_key,
};
use uuid::Uuid;

use super::SessionsError;
use crate::edit::{Change, Edit};
use crate::error::ResolverError;

/// What a call comes to: the record may be all right and the call not.
type Outcome<T> = Result<T, SessionsError>;

/// Nothing changes, and this is why.
fn refused<T>(error: SessionsError) -> Result<(Change, Outcome<T>), ResolverError> {
    Ok((Change::Keep, Err(error)))
}

/// Ties a waiting session to an emsmdb session.
pub(super) struct Register<'a> {
    pub(super) async_session: Uuid,
    pub(super) record: &'a SessionRecord,
    pub(super) charset: DosCharset,
}

impl Edit for Register<'_> {
    type Outcome = Outcome<()>;

    fn key(&self) -> String {
        session_key(&self.async_session)
    }

    fn apply(&mut self, current: Option<&[u8]>) -> Result<(Change, Outcome<()>), ResolverError> {
        if current.is_some() {
            return refused(SessionsError::SessionExists { key: self.key() });
        }
        match self.record.encode(self.charset) {
            Ok(value) => Ok((Change::Put { value, expiry: None }, Ok(()))),
            Err(source) => refused(SessionsError::Invalid { key: self.key(), source }),
        }
    }
}

/// Reads whom a waiting session belongs to.
pub(super) struct Session {
    pub(super) async_session: Uuid,
    pub(super) charset: DosCharset,
}

impl Edit for Session {
    type Outcome = Outcome<SessionRecord>;

    fn key(&self) -> String {
        session_key(&self.async_session)
    }

    fn apply(&mut self, current: Option<&[u8]>) -> Result<(Change, Self::Outcome), ResolverError> {
        let key = self.key();
        let Some(current) = current else { return refused(SessionsError::NotFound { key }) };
        let record = SessionRecord::decode(current, self.charset);
        Ok((Change::Keep, record.map_err(|source| SessionsError::Malformed { key, source })))
    }
}

/// Adds a subscription.
pub(super) struct Subscribe<'a> {
    pub(super) session: Uuid,
    pub(super) subscription: &'a Subscription,
}

impl Edit for Subscribe<'_> {
    type Outcome = Outcome<()>;

    fn key(&self) -> String {
        subscription_key(&self.session)
    }

    fn apply(&mut self, current: Option<&[u8]>) -> Result<(Change, Outcome<()>), ResolverError> {
        let key = self.key();
        let mut record = match SubscriptionRecord::decode(current.unwrap_or_default()) {
            Ok(record) => record,
            Err(source) => return refused(SessionsError::Malformed { key, source }),
        };
        match record.add(self.subscription.clone()).and_then(|()| record.encode()) {
            Ok(value) => Ok((Change::Put { value, expiry: None }, Ok(()))),
            Err(EncodeError::DuplicateHandle { handle }) => {
                refused(SessionsError::HandleExists { key, handle })
            }
            Err(source) => refused(SessionsError::Invalid { key, source }),
        }
    }
}

/// Makes the subscriptions these.
#[cfg(feature = "tokio")]
pub(super) struct Replace<'a> {
    pub(super) session: Uuid,
    pub(super) subscriptions: &'a [Subscription],
}

#[cfg(feature = "tokio")]
impl Edit for Replace<'_> {
    type Outcome = Outcome<()>;

    fn key(&self) -> String {
        subscription_key(&self.session)
    }

    fn apply(&mut self, current: Option<&[u8]>) -> Result<(Change, Outcome<()>), ResolverError> {
        let mut record = SubscriptionRecord::default();
        let added = self.subscriptions.iter().try_for_each(|subscription| record.add(subscription.clone()));
        match added.and_then(|()| record.encode()) {
            Ok(_) if record.subscriptions.is_empty() => Ok((Change::Delete, Ok(()))),
            Ok(value) if current == Some(value.as_slice()) => Ok((Change::Keep, Ok(()))),
            Ok(value) => Ok((Change::Put { value, expiry: None }, Ok(()))),
            Err(source) => refused(SessionsError::Invalid { key: self.key(), source }),
        }
    }
}

/// Takes a subscription out; the last one takes the key along.
pub(super) struct Unsubscribe {
    pub(super) session: Uuid,
    pub(super) handle: u32,
}

impl Edit for Unsubscribe {
    type Outcome = Outcome<()>;

    fn key(&self) -> String {
        subscription_key(&self.session)
    }

    fn apply(&mut self, current: Option<&[u8]>) -> Result<(Change, Outcome<()>), ResolverError> {
        let key = self.key();
        let mut record = match SubscriptionRecord::decode(current.unwrap_or_default()) {
            Ok(record) => record,
            Err(source) => return refused(SessionsError::Malformed { key, source }),
        };
        let before = record.subscriptions.len();
        record.subscriptions.retain(|subscription| subscription.handle != self.handle);
        if record.subscriptions.len() == before {
            return refused(SessionsError::NotFound { key });
        }
        if record.subscriptions.is_empty() {
            return Ok((Change::Delete, Ok(())));
        }
        match record.encode() {
            Ok(value) => Ok((Change::Put { value, expiry: None }, Ok(()))),
            Err(source) => refused(SessionsError::Invalid { key, source }),
        }
    }
}

/// Reads the subscriptions of a session.
pub(super) struct Subscriptions {
    pub(super) session: Uuid,
}

impl Edit for Subscriptions {
    type Outcome = Outcome<Vec<Subscription>>;

    fn key(&self) -> String {
        subscription_key(&self.session)
    }

    fn apply(&mut self, current: Option<&[u8]>) -> Result<(Change, Self::Outcome), ResolverError> {
        let key = self.key();
        let Some(current) = current else { return refused(SessionsError::NotFound { key }) };
        let record = SubscriptionRecord::decode(current);
        let subscriptions = record.map(|record| record.subscriptions);
        Ok((Change::Keep, subscriptions.map_err(|source| SessionsError::Malformed { key, source })))
    }
}

/// Takes a whole record out, malformed or not.
pub(super) struct Remove {
    pub(super) key: String,
}

impl Edit for Remove {
    type Outcome = Outcome<()>;

    fn key(&self) -> String {
        self.key.clone()
    }

    fn apply(&mut self, current: Option<&[u8]>) -> Result<(Change, Outcome<()>), ResolverError> {
        match current {
            Some(_) => Ok((Change::Delete, Ok(()))),
            None => refused(SessionsError::NotFound { key: self.key() }),
        }
    }
}
