//! Sessions whose replies are not fetched here, but handed on by the host: to a record that other processes append to
//! and take from as well ([`Sharing`](crate::emsmdb::Sharing)).
//!
//! The queue of such a session is only the way there. It ends no wait: what is in it cannot be fetched yet. The host
//! takes it ([`Engine::take_relay`]), stores it, and says then that it can be ([`Engine::wake`]).

use std::sync::Arc;
use std::time::Duration;

use ocbus_resolver::Cn;
use ocbus_wire::ropnotify::FolderId;
use uuid::Uuid;

use super::handles::OpenTable;
use super::queue::Bounds;
use super::session::{Session, Tally, table_changed};
use super::{Engine, Subscription, Table, TableKind, UnknownSession};

/// The octets of a resync that stands in for a full record, at most.
const MAX_RESYNC_OCTETS: usize = 256 * 1024;

/// What a session has open, as another process is to know it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handles {
    /// In the order in which they were made.
    pub subscriptions: Vec<Subscription>,
    /// Tables of which something is told, and their columns.
    pub tables: Vec<(Table, Vec<u32>)>,
}

/// What a session has open under a handle, as who hands replies to its client has to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenHandle {
    /// Its number.
    pub handle: u32,
    /// The logon in which it was opened.
    pub logon_id: u8,
    /// Of a table; `None`: a subscription.
    pub table: Option<TableView>,
}

/// How a table is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableView {
    /// What its rows are.
    pub kind: TableKind,
    /// The folder that it shows.
    pub folder: FolderId,
    /// Its columns.
    pub columns: Arc<[u32]>,
    /// Its client is to be told of changes: it has a view.
    pub listens: bool,
}

impl Engine {
    /// Lets the host hand on what is queued for a session. Says whether there is one.
    pub fn relay(&mut self, session: Uuid) -> bool {
        let found = self.sessions.get_mut(session);
        found.map(|session| session.relayed = true).is_some()
    }

    /// The next session with something to hand on; [`Engine::take_relay`] gives it.
    pub fn next_relay(&mut self) -> Option<Uuid> {
        self.sessions.relays.pop_front()
    }

    /// Moves whole replies of a relayed session behind `out`, in order, until `octets` or more are there. Says whether some
    /// are left: then the session comes by [`Engine::next_relay`] again.
    pub fn take_relay(&mut self, session: Uuid, octets: usize, out: &mut Vec<u8>) -> bool {
        let bounds = Bounds::from(&self.config);
        let Some(found) = self.sessions.get_mut(session) else { return false };
        let enough = out.len().saturating_add(octets);
        while out.len() < enough && found.next_into(out, &bounds) {}
        found.relay_due = !found.queue.is_empty();
        let left = found.relay_due;
        if left {
            self.sessions.relays.push_back(session);
        }
        left
    }

    /// Replies of a relayed session can be fetched where the host has stored them: its wait is answered. Says whether one
    /// was parked.
    pub fn wake(&mut self, session: Uuid, now: Duration) -> bool {
        self.sessions.wake(session, now)
    }

    /// The client of a relayed session has fetched so many replies; its call counts as one. Gives the session's index.
    pub fn fetched(&mut self, session: Uuid, replies: usize, now: Duration) -> Result<u16, UnknownSession> {
        self.counters.taken += u64::try_from(replies).unwrap_or(u64::MAX);
        Ok(self.sessions.touch(session, now)?.index)
    }

    /// All that a session has open, in whichever mailbox.
    pub fn open_handles(&self, session: Uuid) -> Vec<OpenHandle> {
        let Some(session) = self.sessions.get(session) else { return Vec::new() };
        let subscriptions = session.subscriptions.iter().map(|of| OpenHandle {
            handle: of.handle,
            logon_id: of.logon_id,
            table: None,
        });
        let tables = session.tables.iter().map(|open| OpenHandle {
            handle: open.table.handle,
            logon_id: open.table.logon_id,
            table: Some(TableView {
                kind: open.table.kind,
                folder: open.table.folder,
                columns: Arc::clone(&open.columns),
                listens: open.listens(),
            }),
        });
        subscriptions.chain(tables).collect()
    }

    /// Tells a session to look at whatever it has open: replies of it were lost.
    pub fn resync(&mut self, session: Uuid, now: Duration) {
        let bounds = Bounds::from(&self.config);
        self.counters.resyncs += 1;
        for (cn, folders) in self.folders_of(session) {
            self.sessions.tell(session, now, |session, tally| session.resync(&cn, &folders, &bounds, tally));
            self.owe_resync(&cn, now);
        }
    }

    /// The replies that make a client look at whatever it has open, without queueing them. Empty if nothing is.
    pub fn resync_replies(&self, session: Uuid) -> Vec<u8> {
        let Some(found) = self.sessions.get(session) else { return Vec::new() };
        let bounds =
            Bounds { octets: MAX_RESYNC_OCTETS, replies: self.config.queue_replies, rows_per_table: 0 };
        let mut scratch = found.without_replies();
        for (cn, folders) in self.folders_of(session) {
            scratch.resync(&cn, &folders, &bounds, &mut Tally::default());
        }
        let mut out = Vec::new();
        while scratch.next_into(&mut out, &bounds) && out.len() < MAX_RESYNC_OCTETS {}
        out
    }

    /// The mailboxes that a session shows, and the folders of each that are known.
    fn folders_of(&self, session: Uuid) -> Vec<(Cn, Vec<FolderId>)> {
        let cns = self.sessions.get(session).map(Session::cns).unwrap_or_default();
        let known = |cn: &Cn| self.users.get(cn).map(|user| user.folders.ids()).unwrap_or_default();
        cns.into_iter().map(|cn| (cn.clone(), known(&cn))).collect()
    }

    /// What a session has open in its own mailbox. (Who reads it elsewhere knows of no logons, and would take another
    /// mailbox's for it.)
    pub fn handles(&self, session: Uuid) -> Option<Handles> {
        let session = self.sessions.get(session)?;
        let is_own = |logon_id| *session.cn_of(logon_id) == session.cn;
        let told = session.tables.iter().filter(|open| open.listens() && is_own(open.table.logon_id));
        let own = session.subscriptions.iter().filter(|subscription| is_own(subscription.logon_id));
        Some(Handles {
            subscriptions: own.copied().collect(),
            tables: told.map(|open| (open.table, open.columns.to_vec())).collect(),
        })
    }

    /// Makes this what a session has open, as another process has written it down. A table that stays as it is keeps what
    /// was asked for it; of one that is another, or has other columns, what waits becomes one TableChanged. More than
    /// [`handles_per_session`](super::EngineConfig::handles_per_session) are left out.
    pub fn replace_handles(&mut self, session: Uuid, handles: Handles, now: Duration) {
        let max = self.config.handles_per_session;
        let bounds = Bounds::from(&self.config);
        let mut serial = self.last_serial;
        let Some(found) = self.sessions.get_mut(session) else { return };
        let mut before = std::mem::take(&mut found.tables);
        found.subscriptions = handles.subscriptions;
        found.subscriptions.truncate(max);
        let room = max - found.subscriptions.len();
        for (table, columns) in handles.tables.into_iter().take(room) {
            let same = |open: &OpenTable| open.table == table && *open.columns == *columns;
            let open = match before.iter().position(same) {
                Some(at) => before.swap_remove(at),
                None => {
                    serial += 1;
                    OpenTable { table, columns: columns.into(), view: true, serial }
                }
            };
            found.tables.push(open);
        }
        self.last_serial = serial;
        if before.is_empty() {
            return;
        }
        self.sessions.tell(session, now, |session, tally| {
            for handle in before.into_iter().map(|gone| gone.table.handle) {
                let lost = session.queue.release(handle);
                if let Some(kind) = session.table(handle).filter(|_| lost).map(|open| open.table.kind) {
                    session.tell_table(handle, table_changed(kind), &bounds, tally);
                }
            }
        });
    }

    /// The next relayed session that has ended, by [`Engine::close`] or because nobody called it.
    pub fn next_ended(&mut self) -> Option<Uuid> {
        self.sessions.ended.pop_front()
    }

    /// Whose mailbox a session shows.
    pub fn user_of(&self, session: Uuid) -> Option<&Cn> {
        self.sessions.get(session).map(|session| &session.cn)
    }

    /// The sessions of a user.
    pub fn sessions_of(&self, cn: &Cn) -> &[Uuid] {
        self.users.get(cn).map_or(&[], |user| &user.sessions)
    }
}
