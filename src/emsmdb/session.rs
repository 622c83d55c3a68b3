use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ocbus_resolver::Cn;
use ocbus_wire::ropnotify::Notification;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::engine::{
    Engine, HandleError, LogonError, NotifyError, Parked, Subscription, Table, Taken, UnknownSession, WaitId,
    WaitOutcome,
};
use super::service::{Emsmdb, Inner};

/// A session of an [`Emsmdb`]. A handle: clones are the same session, and dropping them closes nothing, since Outlook
/// does not say goodbye. A session ends by [`Session::close`], or when nobody has called it for
/// [`idle`](super::EngineConfig::idle).
#[derive(Clone)]
pub struct Session {
    emsmdb: Emsmdb,
    guid: Uuid,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Session").field(&self.guid).finish()
    }
}

impl Session {
    pub(super) fn new(emsmdb: Emsmdb, guid: Uuid) -> Session {
        Session { emsmdb, guid }
    }

    /// Which.
    pub fn guid(&self) -> Uuid {
        self.guid
    }

    /// The client made any call: the session lives on. All other calls but [`Session::has_replies`] say so too.
    pub fn touch(&self) -> Result<(), UnknownSession> {
        self.emsmdb.inner.with(|engine, now| engine.touch(self.guid, now))
    }

    /// Ties an asynchronous session to this one (EcDoAsyncConnectEx), so that other processes find it; waits until that is
    /// written, or was tried to be. Not shared, nothing is to be done: its waits come here.
    pub async fn connect_async(&self, async_session: Uuid) -> Result<(), UnknownSession> {
        self.touch()?;
        self.emsmdb.inner.keeper.connect_async(self.guid, async_session).await;
        Ok(())
    }

    /// A client has logged on to another mailbox in this session (RopLogon): a shared one, public folders. What is opened with
    /// this logon's number from now on is told of that user's events, who is registered as the session's own user is; waits
    /// until that is done. See [`Engine::logon`].
    pub async fn logon(&self, logon_id: u8, cn: Cn) -> Result<(), LogonError> {
        let inner = &self.emsmdb.inner;
        inner.with(|engine, now| engine.logon(self.guid, logon_id, cn.clone(), now))?;
        inner.members.settled(&cn).await;
        Ok(())
    }

    /// The client has released a logon (RopRelease), and with it all that was opened in it. Says whether anything was there.
    pub fn logoff(&self, logon_id: u8) -> Result<bool, UnknownSession> {
        self.change(|engine, now| engine.logoff(self.guid, logon_id, now))
    }

    /// Changes what is open.
    fn change<T, E>(&self, change: impl FnOnce(&mut Engine, Duration) -> Result<T, E>) -> Result<T, E> {
        let inner = &self.emsmdb.inner;
        let changed = inner.with(change);
        if changed.is_ok() {
            inner.keeper.handles_changed(self.guid);
        }
        changed
    }

    /// Adds a subscription (RopRegisterNotification).
    pub fn subscribe(&self, subscription: Subscription) -> Result<(), HandleError> {
        self.change(|engine, now| engine.subscribe(self.guid, subscription, now))
    }

    /// Adds a table (RopGetHierarchyTable, RopGetContentsTable). Nothing is told of it before [`Session::open_view`].
    pub fn add_table(&self, table: Table) -> Result<(), HandleError> {
        self.emsmdb.inner.with(|engine, now| engine.add_table(self.guid, table, now))
    }

    /// The client set the columns of a table (RopSetColumns): see
    /// [`Engine::set_columns`](super::Engine::set_columns).
    pub fn set_columns(&self, handle: u32, columns: &[u32]) -> Result<(), HandleError> {
        self.change(|engine, now| engine.set_columns(self.guid, handle, columns, now))
    }

    /// The client has read rows of a table: from now on it is told of changes.
    pub fn open_view(&self, handle: u32) -> Result<(), HandleError> {
        self.change(|engine, now| engine.open_view(self.guid, handle, now))
    }

    /// The client has reset a table (RopResetTable): nothing is told of it until the next [`Session::open_view`].
    pub fn reset_table(&self, handle: u32) -> Result<(), HandleError> {
        self.change(|engine, now| engine.reset_table(self.guid, handle, now))
    }

    /// Removes a subscription or a table (RopRelease). Says whether it was there.
    pub fn unsubscribe(&self, handle: u32) -> Result<bool, UnknownSession> {
        self.change(|engine, now| engine.release(self.guid, handle, now))
    }

    /// Queues what the host has seen itself, and the bus does not tell.
    pub fn notify(&self, handle: u32, notification: Notification) -> Result<(), NotifyError> {
        self.emsmdb.inner.with(|engine, now| engine.notify(self.guid, handle, notification, now))
    }

    /// Waits as EcDoAsyncWaitEx and NotificationWait do. Dropped before it is ready, the wait is taken back: what
    /// would have ended it is still queued, and ends the next one at once.
    pub async fn wait(&self) -> WaitOutcome {
        let (done, completed) = oneshot::channel();
        let done = move |outcome| {
            // The receiver may be gone, just before it takes the wait back.
            let _ = done.send(outcome);
        };
        match self.park(done) {
            Parked::Done(outcome) => outcome,
            Parked::Parked(wait) => {
                let inner = Arc::clone(&self.emsmdb.inner);
                let mut parked = Cancel { inner, session: self.guid, wait: Some(wait) };
                let outcome = completed.await;
                parked.wait = None;
                // Its sender only goes unused when everything is dropped.
                outcome.unwrap_or(WaitOutcome::Exiting)
            }
        }
    }

    /// Waits without a future: `done` is called once, from any thread and soon; it may call back here. Not called
    /// if the wait is answered at once ([`Parked::Done`]) or taken back by [`Session::cancel`].
    pub fn park(&self, done: impl FnOnce(WaitOutcome) + Send + 'static) -> Parked {
        self.emsmdb.inner.park(self.guid, Box::new(done))
    }

    /// Takes a parked wait back, as the client is gone. Says whether it was parked still: if not, its `done` was called or
    /// is being called.
    pub fn cancel(&self, wait: WaitId) -> bool {
        self.emsmdb.inner.cancel(self.guid, wait)
    }

    /// Whether replies wait in this process; not those of a shared session that wait in memcached.
    pub fn has_replies(&self) -> bool {
        self.emsmdb.inner.with(|engine, _| engine.has_replies(self.guid))
    }

    /// Moves whole replies behind `out`, in order, and RopPending behind them if some are left: no more than
    /// `free_octets` ([`notification_room`](super::notification_room)) altogether. What does not fit stays in front.
    pub fn take(&self, free_octets: usize, out: &mut Vec<u8>) -> Result<Taken, UnknownSession> {
        match self.emsmdb.inner.keeper.is_on() {
            true => self.touch().map(|()| Taken::default()),
            false => self.emsmdb.inner.with(|engine, now| engine.take(self.guid, free_octets, out, now)),
        }
    }

    /// Likewise for a session that may be shared: of one that was opened here it takes what is in `deliver:`, whoever has
    /// appended it. That costs a round trip to memcached. Without memcached, and of a session that was opened elsewhere,
    /// nothing is taken, and nothing lost; [`Session::take`] takes nothing that is shared. Nor is anything where there is
    /// no room for RopPending, 3 octets: what the client is not told of must end its next wait. [`Taken::pending`] says then
    /// whether something waits.
    pub async fn fetch(&self, free_octets: usize, out: &mut Vec<u8>) -> Result<Taken, UnknownSession> {
        let inner = &self.emsmdb.inner;
        if !inner.keeper.is_on() {
            return self.take(free_octets, out);
        }
        match inner.keeper.fetch(inner, self.guid, free_octets, out).await {
            Some(fetched) => fetched,
            None => self.touch().map(|()| Taken::default()),
        }
    }

    /// Ends the session: its wait is answered, its replies are dropped. Says whether it was open.
    pub fn close(&self) -> bool {
        self.emsmdb.inner.with(|engine, now| engine.close(self.guid, now))
    }
}

/// Takes a wait back when its future is dropped.
struct Cancel {
    inner: Arc<Inner>,
    session: Uuid,
    wait: Option<WaitId>,
}

impl Drop for Cancel {
    fn drop(&mut self) {
        if let Some(wait) = self.wait {
            self.inner.cancel(self.session, wait);
        }
    }
}
