//! What the host is asked for an event: its folders' ids, its messages' ids if somebody is told of them one by one, and the
//! rows of tables.

use std::sync::Arc;
use std::time::Duration;

use ocbus_resolver::Cn;
use ocbus_wire::ropnotify::{FolderId, MessageId, NotificationTypes, Scope};
use ocbus_wire::{Event, EventKind, Mailbox};
use uuid::Uuid;

use super::changes::{Changes, Row, TableChange};
use super::folders::{FolderKey, Lookup, parent};
use super::handles::OpenTable;
use super::pending::{
    FolderSlots, Parents, Pending, PendingRow, Slot, message_refs, message_types, old_mailbox,
    old_message_refs, old_uidvalidity, parents,
};
use super::query::{Queries, Waiting};
use super::session::Session;
use super::sessions::Sessions;
use super::{EngineConfig, MessageRef, QueryId, Statistics, TableKind, User, What};
use crate::emsmdb::sogo;

/// Rows that are asked for one event, in all tables of the user's sessions; the other tables are told to have changed.
/// (100 sessions with 99 tables would ask 49,500.)
const ROWS_PER_EVENT: usize = 256;

/// What is needed to ask for a user's folders.
pub(super) struct FolderAsker<'a> {
    pub(super) cn: &'a Cn,
    pub(super) user: &'a mut User,
    pub(super) queries: &'a mut Queries,
    pub(super) counters: &'a mut Statistics,
    pub(super) config: &'a EngineConfig,
    pub(super) deadline: Duration,
}

impl FolderAsker<'_> {
    /// The ids of the event's folders, as far as they are known; the others are asked for.
    pub(super) fn folders(&mut self, event: &Event, sessions: &Sessions) -> FolderSlots {
        let Some(mailbox) = &event.mailbox else { return FolderSlots::default() };
        if matches!(event.kind, EventKind::Resync { .. }) {
            self.user.folders.stale(Some(&FolderKey::of(Some(mailbox))));
        }
        // What a new folder's name stood for before is over.
        if matches!(event.kind, EventKind::MailboxCreate | EventKind::MailboxRename { .. }) {
            self.user.folders.forget(&FolderKey::of(Some(mailbox)));
        }
        let old = old_mailbox(event);
        let wants_parents = match parents(&event.kind) {
            Parents::Always => true,
            Parents::Never => false,
            Parents::ForTables => self
                .user
                .sessions
                .iter()
                .filter_map(|guid| sessions.get(*guid))
                .any(|session| wants_parents(session, self.cn)),
        };
        let slots = FolderSlots {
            folder: self.folder(Some(mailbox)),
            parent: if wants_parents { self.folder(parent(mailbox).as_ref()) } else { Slot::Empty },
            old_folder: old.map_or(Slot::Empty, |old| self.folder(Some(old))),
            old_parent: match old {
                Some(old) if wants_parents => self.folder(parent(old).as_ref()),
                _ => Slot::Empty,
            },
        };
        forget_moved(self.user, event);
        slots
    }

    /// One folder's id, if it is known; else it is asked for.
    pub(super) fn folder(&mut self, mailbox: Option<&Mailbox>) -> Slot<FolderId> {
        let key = FolderKey::of(mailbox);
        match self.user.folders.lookup(&key) {
            Lookup::Known(folder) => Slot::Known(folder),
            Lookup::Asked(query) => Slot::Asked(query),
            Lookup::Unknown => {
                let sogo_uri = sogo::folder_uri(self.cn.as_str(), mailbox);
                let what = What::Folder { mailbox: mailbox.cloned(), sogo_uri };
                self.counters.queries += 1;
                let query = self.queries.ask(self.cn, what, Waiting::Folder(key.clone()), self.deadline);
                self.user.folders.asked(key, query, self.config.folders_per_user);
                Slot::Asked(query)
            }
        }
    }
}

/// A folder that is deleted, or has another name, is no longer known by the one it had.
pub(super) fn forget_moved(user: &mut User, event: &Event) {
    match &event.kind {
        EventKind::MailboxDelete => user.folders.forget(&FolderKey::of(event.mailbox.as_ref())),
        EventKind::MailboxRename { old } => user.folders.forget(&FolderKey::of(Some(old))),
        _ => {}
    }
}

fn wants_parents(session: &Session, cn: &Cn) -> bool {
    session
        .tables
        .iter()
        .filter(|open| open.listens() && open.table.kind == TableKind::Hierarchy && !open.table.depth)
        .any(|open| session.cn_of(open.table.logon_id) == cn)
}

/// Asks for the event's messages, if somebody could be told of them one by one.
pub(super) fn ask_messages<'a, S: Iterator<Item = (Uuid, &'a Session)>>(
    pending: &mut Pending,
    own: impl Fn() -> S,
    asking: &mut MessageAsker<'_>,
) {
    let event = Arc::clone(&pending.event);
    let (folder, old_folder) =
        (pending.folders.folder.known().copied(), pending.folders.old_folder.known().copied());
    let types = message_types(&event);
    let wanted = own().any(|(_, session)| wants_messages(session, asking.cn, types, [folder, old_folder]));
    if !wanted {
        return;
    }
    let (cn, most) = (asking.cn.as_str(), asking.config.messages_per_event);
    if let (Some(folder), Some(mailbox)) = (folder, &event.mailbox)
        && let Some(messages) = message_refs(&event, cn, most)
    {
        pending.messages = asking.messages(pending.number, folder, mailbox, event.uidvalidity, messages);
    }
    if let (Some(folder), Some(mailbox)) = (old_folder, old_mailbox(&event))
        && let Some(messages) = old_message_refs(&event, cn, most)
    {
        let uidvalidity = old_uidvalidity(&event);
        pending.old_messages = asking.messages(pending.number, folder, mailbox, uidvalidity, messages);
    }
}

/// Whether a session has something open that names messages of these folders one by one.
fn wants_messages(
    session: &Session,
    cn: &Cn,
    types: NotificationTypes,
    folders: [Option<FolderId>; 2],
) -> bool {
    let mut subscriptions = session.subscriptions.iter();
    subscriptions.any(|subscription| {
        subscription.types.bits() & types.bits() != 0
            && session.cn_of(subscription.logon_id) == cn
            && match subscription.scope {
                Scope::Store | Scope::Message { .. } => true,
                Scope::Folder(folder) => folders.contains(&Some(folder)),
            }
    }) || session.tables.iter().any(|open| {
        let table = &open.table;
        // Without columns there are no rows but those that are gone.
        let rows = !open.columns.is_empty() || types.contains(NotificationTypes::OBJECT_DELETED);
        rows && open.listens()
            && table.kind == TableKind::Contents
            && folders.contains(&Some(table.folder))
            && session.cn_of(table.logon_id) == cn
    })
}

/// What is needed to ask for one event.
pub(super) struct MessageAsker<'a> {
    pub(super) cn: &'a Cn,
    pub(super) queries: &'a mut Queries,
    pub(super) counters: &'a mut Statistics,
    pub(super) config: &'a EngineConfig,
    pub(super) deadline: Duration,
}

impl MessageAsker<'_> {
    fn messages(
        &mut self,
        number: u64,
        folder: FolderId,
        mailbox: &Mailbox,
        uidvalidity: Option<u32>,
        messages: Vec<MessageRef>,
    ) -> Slot<Vec<Option<MessageId>>> {
        if messages.is_empty() {
            // A message without UID and name: nobody can know it.
            return Slot::Known(vec![None]);
        }
        let what = What::Messages { folder, mailbox: mailbox.clone(), uidvalidity, messages };
        Slot::Asked(self.ask(what, number))
    }

    fn ask(&mut self, what: What, number: u64) -> QueryId {
        self.counters.queries += 1;
        self.queries.ask(self.cn, what, Waiting::Event(number), self.deadline)
    }

    /// Asks for the rows of one table, if it has columns and they are not so many that they fold anyway.
    pub(super) fn rows(&mut self, pending: &mut Pending, made: &Changes, session: Uuid, open: &OpenTable) {
        let wanted = || made.tables.iter().filter_map(|change| wanted_row(change, open));
        let room = ROWS_PER_EVENT.saturating_sub(pending.rows.len());
        if open.columns.is_empty() || wanted().count() > self.config.rows_per_table.min(room) {
            return;
        }
        for (folder, message) in wanted() {
            let what = What::Row {
                session,
                handle: open.table.handle,
                kind: open.table.kind,
                folder,
                message,
                columns: Arc::clone(&open.columns),
            };
            let row = Slot::Asked(self.ask(what, pending.number));
            let (handle, serial) = (open.table.handle, open.serial);
            pending.rows.push(PendingRow { session, handle, serial, folder, message, row });
        }
    }
}

/// The row that a table needs to tell a change.
fn wanted_row(change: &TableChange, open: &OpenTable) -> Option<(FolderId, Option<MessageId>)> {
    match *change {
        TableChange::Contents { folder, row: Row::Added(message) | Row::Modified(message) }
            if shows(open, change) =>
        {
            Some((folder, Some(message)))
        }
        TableChange::Hierarchy { row: Row::Added(folder) | Row::Modified(folder), .. }
            if shows(open, change) =>
        {
            Some((folder, None))
        }
        _ => None,
    }
}

/// Whether the change is one of the table's rows.
pub(super) fn shows(open: &OpenTable, change: &TableChange) -> bool {
    let table = &open.table;
    match *change {
        TableChange::Contents { folder, .. } => table.kind == TableKind::Contents && table.folder == folder,
        TableChange::Hierarchy { parent, .. } => {
            table.kind == TableKind::Hierarchy
                && (table.depth || parent.is_none_or(|parent| parent == table.folder))
        }
    }
}
