//! Sessions, their subscriptions and tables, the replies that wait for them, and their parked waits: a state machine
//! without I/O and without a clock.
//!
//! Every call takes `now`: the time since any moment that stays the same, never going back. What the engine wants of
//! its host it keeps until it is fetched; after any call fetch [`Engine::next_query`], [`Engine::next_completed`] and
//! [`Engine::next_user`] until they are empty, and call [`Engine::advance`] at [`Engine::next_deadline`].
//!
//! # What happens to an event
//!
//! Each session of its user is told, in replies that stand in the order of events: first each subscription whose types
//! and scope match, then each table that shows the folder. An event waits until the host has said the ids that it
//! needs; events in the same folder wait for each other, others pass. Without ids less is told: without a message's id its
//! folder is told to have changed, and its tables; without the folder's, when the host failed to find it, every
//! folder and table of the user's sessions. What the host does not have, nobody is told of.
//!
//! A subscription to a whole store is told so of every folder whose id is known. Behind a resync the Inbox and the
//! folder above the top-level ones are among these, and so is a folder that could not be found: they are asked until the
//! host says them, after a failure 1 s later, then 2 s, up to a minute.
//!
//! # What happens when a queue is full
//!
//! What does not fit is not kept, but what it was about is: when what stands in front has been fetched, one TableChanged for
//! each table and one folder-modified for each folder follow in its place. A subscription that is not told of modified
//! folders gets the last reply that did not fit. Nothing is reordered, and nothing is lost in silence.
//!
//! Earlier than that, replies fold: the sixth row event of a table makes all of them one TableChanged; a second
//! folder-modified puts its counts into the first; a second message-modified is dropped.

mod answers;
mod asking;
mod changes;
mod config;
mod error;
mod flow;
mod folders;
mod handles;
mod logons;
mod lost;
mod owed;
mod pending;
mod query;
mod queue;
mod relay;
mod session;
mod sessions;
mod statistics;
mod telling;
mod wait;

pub(crate) use config::count;
pub use config::{ConfigError, EngineConfig, SecondWait};
pub use error::{HandleError, OpenError, UnknownSession};
pub use handles::{MAX_COLUMNS, NewSession, Subscription, Table, TableKind};
pub use logons::{LogonError, MAX_LOGONS};
pub use query::{Answer, MessageRef, Query, QueryId, TableRow, What};
pub(super) use queue::{handle_of, table_event_of};
pub use relay::{Handles, OpenHandle, TableView};
pub use session::Taken;
pub(super) use session::table_changed;
pub use statistics::Statistics;
pub use wait::{Completed, Parked, WaitId, WaitOutcome};

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use ocbus_resolver::Cn;
use ocbus_wire::ropnotify::{Notification, NotificationTypes, RopNotify};
use uuid::Uuid;

use folders::Folders;
use handles::OpenTable;
use owed::Owed;
use pending::Pending;
use query::Queries;
use queue::Bounds;
use sessions::Sessions;

/// The state machine. See the [module](self).
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    sessions: Sessions,
    users: HashMap<Cn, User>,
    /// When users without a session are no longer wanted.
    graces: BTreeSet<(Duration, Cn)>,
    /// When folders are asked again that users are owed.
    owed: BTreeSet<(Duration, Cn)>,
    user_changes: VecDeque<UserChange>,
    queries: Queries,
    /// Events that wait for ids, of all users.
    pending: usize,
    last_serial: u64,
    stopping: bool,
    counters: Statistics,
}

/// A user with sessions, or who had some a moment ago.
#[derive(Debug, Default)]
struct User {
    sessions: Vec<Uuid>,
    folders: Folders,
    /// By their numbers.
    pending: VecDeque<Pending>,
    last_number: u64,
    /// Folders that are still to be told of, if there are any.
    owed: Option<Box<Owed>>,
    /// Set while there is no session: when the user is no longer wanted.
    leaves_at: Option<Duration>,
}

/// Whose events are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserChange {
    /// A first session was opened: the user's events are wanted.
    Joined(Cn),
    /// The last session ended, and the grace is over: they are not any more.
    Left(Cn),
}

impl Engine {
    /// An engine without sessions.
    pub fn new(config: EngineConfig) -> Result<Engine, ConfigError> {
        config.check()?;
        Ok(Engine {
            config,
            sessions: Sessions::default(),
            users: HashMap::new(),
            graces: BTreeSet::new(),
            owed: BTreeSet::new(),
            user_changes: VecDeque::new(),
            queries: Queries::default(),
            pending: 0,
            last_serial: 0,
            stopping: false,
            counters: Statistics::default(),
        })
    }

    /// Its bounds.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Opens a session.
    pub fn open(&mut self, new: NewSession, now: Duration) -> Result<(), OpenError> {
        let refused = self.refusal(&new);
        if let Some(refused) = refused {
            self.counters.refused += 1;
            tracing::warn!(event = "session_refused", user = %new.cn, session = %new.guid, reason = %refused);
            return Err(refused);
        }
        tracing::debug!(event = "session_opened", user = %new.cn, session = %new.guid);
        self.join(new.guid, &new.cn);
        self.sessions.open(new, self.config.idle, now);
        Ok(())
    }

    fn refusal(&self, new: &NewSession) -> Option<OpenError> {
        let of_user = self.users.get(&new.cn).map_or(0, |user| self.own_sessions(user, &new.cn));
        if self.stopping {
            Some(OpenError::Stopping)
        } else if self.sessions.contains(new.guid) {
            Some(OpenError::Duplicate { guid: new.guid })
        } else if of_user >= self.config.sessions_per_user {
            Some(OpenError::TooManyOfUser { cn: new.cn.to_string(), max: self.config.sessions_per_user })
        } else if self.sessions.len() >= self.config.sessions {
            Some(OpenError::TooMany { max: self.config.sessions })
        } else {
            None
        }
    }

    /// Closes a session; its parked wait is answered with [`WaitOutcome::UnknownSession`]. Says whether there was one.
    pub fn close(&mut self, session: Uuid, now: Duration) -> bool {
        let Some(closed) = self.sessions.close(session) else { return false };
        tracing::debug!(event = "session_closed", user = %closed.cn, session = %session);
        for cn in closed.cns() {
            self.part(session, &cn, now);
        }
        true
    }

    /// Whether there is such a session.
    pub fn contains(&self, session: Uuid) -> bool {
        self.sessions.contains(session)
    }

    /// The client made any call: its session lives on.
    pub fn touch(&mut self, session: Uuid, now: Duration) -> Result<(), UnknownSession> {
        self.sessions.touch(session, now).map(|_| ())
    }

    /// Adds a subscription (RopRegisterNotification).
    pub fn subscribe(
        &mut self,
        session: Uuid,
        subscription: Subscription,
        now: Duration,
    ) -> Result<(), HandleError> {
        self.check_handle(session, subscription.handle, now)?;
        self.sessions.touch(session, now)?.subscriptions.push(subscription);
        Ok(())
    }

    /// Adds a table (RopGetHierarchyTable, RopGetContentsTable). Nothing is told of it before [`Engine::open_view`].
    pub fn add_table(&mut self, session: Uuid, table: Table, now: Duration) -> Result<(), HandleError> {
        self.check_handle(session, table.handle, now)?;
        let serial = self.next_serial();
        let open = OpenTable { table, columns: [].into(), view: false, serial };
        self.sessions.touch(session, now)?.tables.push(open);
        Ok(())
    }

    fn check_handle(&mut self, session: Uuid, handle: u32, now: Duration) -> Result<(), HandleError> {
        let max = self.config.handles_per_session;
        let session = self.sessions.touch(session, now)?;
        if session.subscription(handle).is_some() || session.table(handle).is_some() {
            return Err(HandleError::Duplicate { handle });
        }
        match session.subscriptions.len() + session.tables.len() >= max {
            true => Err(HandleError::TooMany { max }),
            false => Ok(()),
        }
    }

    fn next_serial(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial
    }

    /// The client set the columns of a table (RopSetColumns), in order, each `(id << 16) | type`. Rows of it are asked
    /// of the host from now on; without columns none are, and changes are told by TableChanged. Row events that wait in
    /// the queue were made for the former columns: one TableChanged takes their place.
    pub fn set_columns(
        &mut self,
        session: Uuid,
        handle: u32,
        columns: &[u32],
        now: Duration,
    ) -> Result<(), HandleError> {
        if columns.len() > MAX_COLUMNS {
            return Err(HandleError::Columns { columns: columns.len() });
        }
        let columns = columns.into();
        self.change_table(session, handle, now, |open| open.columns = columns)
    }

    /// The client has read rows of a table (the first query-type ROP: RopQueryRows, RopFindRow, ...): from now on it is
    /// told of changes. Calling it again changes nothing.
    pub fn open_view(&mut self, session: Uuid, handle: u32, now: Duration) -> Result<(), HandleError> {
        let open = self.sessions.touch(session, now)?.table_mut(handle);
        open.map(|open| open.view = true).ok_or(HandleError::Unknown { handle })
    }

    /// The client has reset a table (RopResetTable): nothing is told of it until the next [`Engine::open_view`], and what
    /// waits is taken back. The columns are gone, as the rules have it.
    pub fn reset_table(&mut self, session: Uuid, handle: u32, now: Duration) -> Result<(), HandleError> {
        self.change_table(session, handle, now, |open| {
            open.view = false;
            open.columns = [].into();
        })
    }

    fn change_table(
        &mut self,
        session: Uuid,
        handle: u32,
        now: Duration,
        change: impl FnOnce(&mut OpenTable),
    ) -> Result<(), HandleError> {
        let serial = self.next_serial();
        let bounds = Bounds::from(&self.config);
        let found = self.sessions.touch(session, now)?;
        let open = found.table_mut(handle).ok_or(HandleError::Unknown { handle })?;
        change(open);
        open.serial = serial;
        let kind = open.table.kind;
        let waiting = found.queue.release(handle);
        if waiting {
            self.sessions.tell(session, now, |session, tally| {
                session.tell_table(handle, table_changed(kind), &bounds, tally);
            });
        }
        Ok(())
    }

    /// The client has released a handle (RopRelease). What waits for it is taken out: the handle may soon be another
    /// object's. Nothing else is. Says whether it was there.
    pub fn release(&mut self, session: Uuid, handle: u32, now: Duration) -> Result<bool, UnknownSession> {
        let session = self.sessions.touch(session, now)?;
        let before = session.subscriptions.len() + session.tables.len();
        session.subscriptions.retain(|subscription| subscription.handle != handle);
        session.tables.retain(|open| open.table.handle != handle);
        session.queue.release(handle);
        Ok(session.subscriptions.len() + session.tables.len() < before)
    }

    /// Queues what the host has seen itself, and the bus does not tell: for a table's handle a table's event, for a
    /// subscription's handle anything that it asked for. What the client did itself in this session it need not be told.
    pub fn notify(
        &mut self,
        session: Uuid,
        handle: u32,
        notification: Notification,
        now: Duration,
    ) -> Result<(), NotifyError> {
        let bounds = Bounds::from(&self.config);
        let max = self.config.queue_octets / 2;
        // No sign of life: a host that calls this now and then must not keep sessions of clients that are gone.
        let found = self.sessions.get(session).ok_or(HandleError::from(UnknownSession(session)))?;
        let subscription = found.subscription(handle).copied();
        let logon_id = match (&subscription, found.table(handle)) {
            (Some(subscription), _) => subscription.logon_id,
            (None, Some(open)) => open.table.logon_id,
            (None, None) => return Err(HandleError::Unknown { handle }.into()),
        };
        let reply = RopNotify { handle, logon_id, notification };
        if reply.encoded_len() > max {
            return Err(NotifyError::TooLarge { octets: reply.encoded_len(), max });
        }
        reply.encode().map_err(NotifyError::Encode)?;
        let is_table =
            NotificationTypes::from_bits(reply.flags()).contains(NotificationTypes::TABLE_MODIFIED);
        self.sessions.tell(session, now, |session, tally| match is_table {
            true => session.tell_table(handle, reply.notification, &bounds, tally),
            false => session.tell_subscription(&reply, &bounds, tally),
        });
        Ok(())
    }

    /// Moves whole replies of a session behind `out`, in order, and RopPending behind them if some are left: no more than
    /// `free_octets` altogether ([`notification_room`](crate::emsmdb::notification_room)). What does not fit stays in
    /// front.
    pub fn take(
        &mut self,
        session: Uuid,
        free_octets: usize,
        out: &mut Vec<u8>,
        now: Duration,
    ) -> Result<Taken, UnknownSession> {
        let bounds = Bounds::from(&self.config);
        let taken = self.sessions.touch(session, now)?.take(free_octets, out, &bounds);
        self.counters.taken += u64::try_from(taken.replies).unwrap_or(u64::MAX);
        Ok(taken)
    }

    /// Whether replies wait for a session.
    pub fn has_replies(&self, session: Uuid) -> bool {
        self.sessions.get(session).is_some_and(|session| !session.queue.is_empty())
    }

    /// A client waits (EcDoAsyncWaitEx, NotificationWait): answered at once, or parked and completed later, once.
    pub fn park(&mut self, session: Uuid, now: Duration) -> Parked {
        match self.stopping {
            true => self.sessions.answer(WaitOutcome::Exiting),
            false => self.sessions.park(session, &self.config, now),
        }
    }

    /// The client that waited is gone. Says whether the wait was parked still; it will not be completed then.
    pub fn cancel(&mut self, session: Uuid, wait: WaitId) -> bool {
        self.sessions.cancel(session, wait)
    }

    /// The next wait that is to be answered.
    pub fn next_completed(&mut self) -> Option<Completed> {
        self.sessions.next_completed()
    }

    /// The next question to the host; it is to be answered by [`Engine::answer`] within
    /// [`query_timeout`](EngineConfig::query_timeout).
    pub fn next_query(&mut self) -> Option<Query> {
        self.queries.next()
    }

    /// Whether there is a question to be fetched.
    pub fn has_queries(&self) -> bool {
        self.queries.has_outgoing()
    }

    /// The users whose events are wanted.
    pub fn users(&self) -> impl Iterator<Item = &Cn> {
        self.users.keys()
    }

    /// The next user whose events are wanted, or not any more.
    pub fn next_user(&mut self) -> Option<UserChange> {
        self.user_changes.pop_front()
    }

    /// When [`Engine::advance`] is to be called, at the latest. It may turn out that nothing was to be done.
    pub fn next_deadline(&self) -> Option<Duration> {
        let grace = self.graces.first().map(|(at, _)| *at);
        let all = [self.sessions.deadline(), self.queries.deadline(), self.owed_deadline(), grace];
        all.into_iter().flatten().min()
    }

    /// Does what is due: waits time out, unanswered questions fail, others are asked again, idle sessions end, users leave.
    pub fn advance(&mut self, now: Duration) {
        while let Some(late) = self.queries.next_late(now) {
            self.counters.query_timeouts += 1;
            self.resolve(late, Answer::Failed, now);
        }
        self.advance_owed(now);
        for expired in self.sessions.advance(&self.config, now) {
            self.counters.expired += 1;
            tracing::info!(event = "session_expired", session = %expired, "nobody called it any more");
            self.close(expired, now);
        }
        while let Some((at, cn)) = self.graces.first().cloned().filter(|(at, _)| *at <= now) {
            self.graces.remove(&(at, cn.clone()));
            self.users.remove(&cn);
            self.user_changes.push_back(UserChange::Left(cn));
        }
    }

    /// The server stops: every wait is answered with [`WaitOutcome::Exiting`], now and from now on, and no session is
    /// opened. Replies can still be fetched.
    pub fn stop(&mut self) {
        self.stopping = true;
        self.sessions.release_waits(WaitOutcome::Exiting);
    }

    /// What it holds now, which is counted now, and what it has done.
    pub fn statistics(&self) -> Statistics {
        let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let (tally, waits) = (self.sessions.tally, self.sessions.waits);
        let sum = |of: fn(&session::Session) -> usize| wide(self.sessions.all().map(of).sum());
        Statistics {
            sessions: wide(self.sessions.len()),
            users: wide(self.users.len()),
            parked: sum(|session| usize::from(session.parked.is_some())),
            pending: wide(self.pending),
            queued_replies: sum(|session| session.queue.replies()),
            queued_octets: sum(|session| session.queue.reply_octets()),
            queued: tally.queued,
            folded: tally.folded,
            lost: tally.lost,
            overflows: tally.overflows,
            waits_event: waits.event,
            waits_timed_out: waits.timed_out,
            waits_rejected: waits.rejected,
            waits_unknown: waits.unknown,
            waits_exiting: waits.exiting,
            ..self.counters
        }
    }
}

/// Why a notification of the host is not queued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotifyError {
    /// No such session or handle.
    #[error(transparent)]
    Handle(#[from] HandleError),
    /// It would fill most of the queue.
    #[error("a reply of {octets} octets: expected at most half of queue_octets, {max}")]
    TooLarge {
        /// Its size.
        octets: usize,
        /// The bound.
        max: usize,
    },
    /// It cannot be written.
    #[error(transparent)]
    Encode(ocbus_wire::ropnotify::EncodeError),
}
