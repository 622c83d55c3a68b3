//! What a client has open in a session: subscriptions and tables.

use std::sync::Arc;

use ocbus_resolver::Cn;
use ocbus_wire::ropnotify::{FolderId, NotificationTypes, RegisterNotification, Scope};
use uuid::Uuid;

/// The most columns that a table may have.
pub const MAX_COLUMNS: usize = 4_096;

/// A session to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// Which: the GUID of the emsmdb session.
    pub guid: Uuid,
    /// Whose mailbox it shows.
    pub cn: Cn,
    /// The index that the client was given when it connected: it stands in RopPending.
    pub index: u16,
}

/// What a client asked for by RopRegisterNotification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    /// The handle that was put at the request's output index: it stands in each RopNotify.
    pub handle: u32,
    /// The logon in which it was asked.
    pub logon_id: u8,
    /// What to be told.
    pub types: NotificationTypes,
    /// Where.
    pub scope: Scope,
}

impl Subscription {
    /// What a request asks for, under the handle that the server has given it.
    pub fn of(request: &RegisterNotification, handle: u32) -> Subscription {
        let RegisterNotification { logon_id, types, scope, .. } = *request;
        Subscription { handle, logon_id, types, scope }
    }
}

/// A table that a client has opened. It has no view yet, and nothing is told of it until it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Its handle: it stands in each RopNotify of the table.
    pub handle: u32,
    /// The logon in which it was opened.
    pub logon_id: u8,
    /// What its rows are.
    pub kind: TableKind,
    /// The folder whose folders or messages it shows.
    pub folder: FolderId,
    /// A hierarchy table of all folders below, not only of those in the folder (Depth). Of these the engine tells a
    /// change in any folder of the store: it does not know the tree.
    pub depth: bool,
    /// Whether its client wants to be told: `false` for a table opened with NoNotifications.
    pub notifications: bool,
}

/// What the rows of a table are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableKind {
    /// Folders.
    Hierarchy,
    /// The messages of a folder.
    Contents,
    /// The messages that a search folder finds. Events do not say which these are: such a table is told of resyncs, and
    /// of what the host says itself ([`Engine::notify`](super::Engine::notify)).
    Search,
}

/// A table as the engine keeps it.
#[derive(Debug, Clone)]
pub(super) struct OpenTable {
    pub(super) table: Table,
    /// The columns that the client set; none: nobody can make a row, and none is asked.
    pub(super) columns: Arc<[u32]>,
    /// The client has read rows: there is something that changes.
    pub(super) view: bool,
    /// Another for each setting of columns and each view: a row that was asked for an earlier one is not sent.
    pub(super) serial: u64,
}

impl OpenTable {
    /// Whether its client is to be told of changes now.
    pub(super) fn listens(&self) -> bool {
        self.view && self.table.notifications
    }
}
