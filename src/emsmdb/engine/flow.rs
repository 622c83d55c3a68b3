//! How an event comes to be told: ids are found, then its user's sessions are told, in order.

use std::sync::Arc;
use std::time::Duration;

use ocbus_resolver::Cn;
use ocbus_wire::ropnotify::{
    FolderId, FolderRow, MessageId, MessageRow, Notification, NotificationTypes, Scope, TableEvent,
};
use ocbus_wire::{Event, EventKind, Mailbox, ResyncReason};
use uuid::Uuid;

use super::changes::{Changes, Row, TableChange, changes, folder_changed};
use super::folders::{FolderKey, Lookup, parent};
use super::handles::OpenTable;
use super::pending::{
    FolderSlots, Parents, Pending, PendingRow, Slot, Stage, is_told, message_counts, message_refs,
    message_types, old_mailbox, old_message_refs, parents,
};
use super::query::{Asked, Queries, Waiting};
use super::queue::Bounds;
use super::session::{Session, table_changed};
use super::sessions::Sessions;
use super::{Answer, Engine, EngineConfig, MessageRef, QueryId, Statistics, TableKind, User, What};
use crate::emsmdb::sogo;

/// How many answers fail until the log says so again: at powers of two.
fn is_worth_a_line(count: u64) -> bool {
    count.is_power_of_two()
}

impl Engine {
    /// Takes an event of the bus.
    pub fn event(&mut self, event: &Arc<Event>, now: Duration) {
        self.counters.events += 1;
        let resync = matches!(event.kind, EventKind::Resync { .. });
        self.counters.resyncs += u64::from(resync);
        if event.user.is_empty() {
            if resync {
                let users: Vec<Cn> = self.users.keys().cloned().collect();
                users.iter().for_each(|cn| self.user_event(cn, event, now));
            }
            return;
        }
        match Cn::new(&event.user) {
            Ok(cn) if self.users.contains_key(&cn) => self.user_event(&cn, event, now),
            _ => self.counters.unheard += 1,
        }
    }

    fn user_event(&mut self, cn: &Cn, event: &Arc<Event>, now: Duration) {
        let Some(user) = self.users.get_mut(cn) else { return };
        if user.sessions.is_empty() {
            self.counters.unheard += 1;
            return;
        }
        if !is_told(&event.kind) {
            return;
        }
        let is_barrier = event.mailbox.is_none();
        if is_barrier && !matches!(event.kind, EventKind::Resync { .. }) {
            return;
        }
        if user.pending.len() >= self.config.pending_per_user || self.pending >= self.config.pending {
            self.event_over(cn, event);
            return;
        }
        user.last_number += 1;
        let mut pending = Pending::new(user.last_number, Arc::clone(event));
        if !is_barrier {
            let mut asker = Asker {
                cn,
                user,
                queries: &mut self.queries,
                counters: &mut self.counters,
                config: &self.config,
                deadline: now.saturating_add(self.config.query_timeout),
            };
            pending.folders = asker.folders(event, &self.sessions);
        }
        user.pending.push_back(pending);
        self.pending += 1;
        let at = user.pending.len() - 1;
        if self.step(cn, at, now) {
            self.settle(cn, now);
        }
    }

    /// Too many events wait for ids: one resync behind them stands for what comes now.
    fn event_over(&mut self, cn: &Cn, event: &Arc<Event>) {
        self.counters.events_over += 1;
        if is_worth_a_line(self.counters.events_over) {
            let count = self.counters.events_over;
            tracing::warn!(event = "ids_too_slow", user = %cn, count, "too many events wait for ids: a resync instead");
        }
        let Some(user) = self.users.get_mut(cn) else { return };
        // Ids of before are not to be taken for those of after.
        forget_moved(user, event);
        if user.pending.back().is_some_and(|last| last.keys.is_none()) {
            return;
        }
        self.counters.resyncs += 1;
        let resync = Event::resync(event.id, event.time_us, cn.as_str(), ResyncReason::Overflow, 1);
        user.last_number += 1;
        user.pending.push_back(Pending::new(user.last_number, Arc::new(resync)));
        self.pending += 1;
    }

    /// Answers a question. One that was not asked, or given up since, is counted and does nothing.
    pub fn answer(&mut self, id: QueryId, answer: Answer, now: Duration) {
        match &answer {
            Answer::Failed => self.counters.query_failures += 1,
            Answer::Unknown => self.counters.query_unknown += 1,
            _ => {}
        }
        self.resolve(id, answer, now);
    }

    /// Gives an answer to who waits for it.
    pub(super) fn resolve(&mut self, id: QueryId, answer: Answer, now: Duration) {
        let Some(Asked { cn, waiting }) = self.queries.close(id) else {
            self.counters.late_answers += 1;
            return;
        };
        if answer == Answer::Failed {
            let count = self.counters.query_failures + self.counters.query_timeouts;
            if is_worth_a_line(count) {
                tracing::warn!(event = "ids_failed", user = %cn, count, "an id could not be found: less is told");
            }
        }
        let Some(user) = self.users.get_mut(&cn) else { return };
        let waiting = match waiting {
            Waiting::Event(number) => {
                let Ok(at) = user.pending.binary_search_by_key(&number, |pending| pending.number) else {
                    return;
                };
                if let Some(pending) = user.pending.get_mut(at) {
                    fill(pending, id, answer, &self.config, &mut self.counters);
                }
                vec![number]
            }
            Waiting::Folder(key) => fill_folder(user, &key, id, &answer, &mut self.counters),
        };
        let mut ready = false;
        for number in waiting {
            let place = self.users.get(&cn).map(|user| &user.pending);
            let at = place.and_then(|pending| pending.binary_search_by_key(&number, |p| p.number).ok());
            ready |= at.is_some_and(|at| self.step(&cn, at, now));
        }
        if ready {
            self.settle(&cn, now);
        }
    }

    /// Brings one event on its way as far as it can go without an answer. Says whether it is ready.
    fn step(&mut self, cn: &Cn, at: usize, now: Duration) -> bool {
        let Engine { users, sessions, queries, counters, config, .. } = self;
        let Some(user) = users.get_mut(cn) else { return false };
        let deadline = now.saturating_add(config.query_timeout);
        let mut asking = Asking { cn, queries, counters, config, deadline };
        let User { sessions: guids, pending, .. } = user;
        let Some(pending) = pending.get_mut(at) else { return false };
        let own = || guids.iter().filter_map(|guid| Some((*guid, sessions.get(*guid)?)));
        loop {
            match pending.stage {
                Stage::Folders => {
                    if pending.folders.all().into_iter().any(Slot::is_asked) {
                        return false;
                    }
                    pending.stage = Stage::Messages;
                    ask_messages(pending, own, &mut asking);
                }
                Stage::Messages => {
                    if pending.messages.is_asked() || pending.old_messages.is_asked() {
                        return false;
                    }
                    pending.stage = Stage::Rows;
                    let made = pending.folders.folder.known().map(|folder| {
                        changes(&pending.event, *folder, &pending.found(), &config.message_class)
                    });
                    if let Some(made) = &made {
                        for (guid, session) in own() {
                            for open in session.tables.iter().filter(|open| open.listens()) {
                                asking.rows(pending, made, guid, open);
                            }
                        }
                    }
                    pending.changes = made;
                }
                Stage::Rows => {
                    if pending.rows.iter().any(|row| row.row.is_asked()) {
                        return false;
                    }
                    pending.stage = Stage::Ready;
                }
                Stage::Ready => return true,
            }
        }
    }

    /// Tells what is ready and not behind an event of the same folder that is not.
    fn settle(&mut self, cn: &Cn, now: Duration) {
        let Engine { users, sessions, counters, config, pending: total, .. } = self;
        let Some(user) = users.get_mut(cn) else { return };
        let mut blocked: Vec<FolderKey> = Vec::new();
        let mut at = 0;
        while let Some(pending) = user.pending.get(at) {
            let waits = match &pending.keys {
                Some(keys) => keys.iter().any(|key| blocked.contains(key)),
                None => at > 0,
            };
            if pending.stage == Stage::Ready && !waits {
                if let Some(pending) = user.pending.remove(at) {
                    *total -= 1;
                    tell(&pending, user, sessions, counters, config, now);
                }
                continue;
            }
            match &pending.keys {
                Some(keys) => {
                    for key in keys {
                        if !blocked.contains(key) {
                            blocked.push(key.clone());
                        }
                    }
                }
                None => return,
            }
            at += 1;
        }
    }
}

/// What is needed to ask for a user's folders.
struct Asker<'a> {
    cn: &'a Cn,
    user: &'a mut User,
    queries: &'a mut Queries,
    counters: &'a mut Statistics,
    config: &'a EngineConfig,
    deadline: Duration,
}

impl Asker<'_> {
    /// The ids of the event's folders, as far as they are known; the others are asked for.
    fn folders(&mut self, event: &Event, sessions: &Sessions) -> FolderSlots {
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
            Parents::ForTables => {
                self.user.sessions.iter().filter_map(|guid| sessions.get(*guid)).any(wants_parents)
            }
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

    fn folder(&mut self, mailbox: Option<&Mailbox>) -> Slot<FolderId> {
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
fn forget_moved(user: &mut User, event: &Event) {
    match &event.kind {
        EventKind::MailboxDelete => user.folders.forget(&FolderKey::of(event.mailbox.as_ref())),
        EventKind::MailboxRename { old } => user.folders.forget(&FolderKey::of(Some(old))),
        _ => {}
    }
}

fn wants_parents(session: &Session) -> bool {
    session
        .tables
        .iter()
        .any(|open| open.listens() && open.table.kind == TableKind::Hierarchy && !open.table.depth)
}

/// Asks for the event's messages, if somebody could be told of them one by one.
fn ask_messages<'a, S: Iterator<Item = (Uuid, &'a Session)>>(
    pending: &mut Pending,
    own: impl Fn() -> S,
    asking: &mut Asking<'_>,
) {
    let event = Arc::clone(&pending.event);
    let (folder, old_folder) =
        (pending.folders.folder.known().copied(), pending.folders.old_folder.known().copied());
    let types = message_types(&event);
    let wanted = own().any(|(_, session)| wants_messages(session, types, [folder, old_folder]));
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
        // The UIDVALIDITY is that of where they are now.
        pending.old_messages = asking.messages(pending.number, folder, mailbox, None, messages);
    }
}

/// Whether a session has something open that names messages of these folders one by one.
fn wants_messages(session: &Session, types: NotificationTypes, folders: [Option<FolderId>; 2]) -> bool {
    let mut subscriptions = session.subscriptions.iter();
    subscriptions.any(|subscription| {
        subscription.types.bits() & types.bits() != 0
            && match subscription.scope {
                Scope::Store | Scope::Message { .. } => true,
                Scope::Folder(folder) => folders.contains(&Some(folder)),
            }
    }) || session.tables.iter().any(|open| {
        let table = &open.table;
        // Without columns there are no rows but those that are gone.
        let rows = !open.columns.is_empty() || types.contains(NotificationTypes::OBJECT_DELETED);
        rows && open.listens() && table.kind == TableKind::Contents && folders.contains(&Some(table.folder))
    })
}

/// What is needed to ask for one event.
struct Asking<'a> {
    cn: &'a Cn,
    queries: &'a mut Queries,
    counters: &'a mut Statistics,
    config: &'a EngineConfig,
    deadline: Duration,
}

impl Asking<'_> {
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
    fn rows(&mut self, pending: &mut Pending, made: &Changes, session: Uuid, open: &OpenTable) {
        let wanted = || made.tables.iter().filter_map(|change| wanted_row(change, open));
        if open.columns.is_empty() || wanted().count() > self.config.rows_per_table {
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
fn shows(open: &OpenTable, change: &TableChange) -> bool {
    let table = &open.table;
    match *change {
        TableChange::Contents { folder, .. } => table.kind == TableKind::Contents && table.folder == folder,
        TableChange::Hierarchy { parent, .. } => {
            table.kind == TableKind::Hierarchy
                && (table.depth || parent.is_none_or(|parent| parent == table.folder))
        }
    }
}

/// Puts the answer into the event that asked.
fn fill(
    pending: &mut Pending,
    id: QueryId,
    answer: Answer,
    config: &EngineConfig,
    counters: &mut Statistics,
) {
    let (count, old_count) = message_counts(&pending.event);
    for (slot, count) in [(&mut pending.messages, count), (&mut pending.old_messages, old_count)] {
        if *slot == Slot::Asked(id) {
            *slot = match answer {
                Answer::Messages(messages) if u64::try_from(messages.len()) == Ok(count) => {
                    let unknown = messages.iter().filter(|message| message.is_none()).count();
                    counters.query_unknown += u64::try_from(unknown).unwrap_or(u64::MAX);
                    Slot::Known(messages)
                }
                Answer::Unknown => Slot::Unknown,
                Answer::Failed => Slot::Failed,
                _ => mistaken(counters),
            };
            return;
        }
    }
    if let Some(row) = pending.rows.iter_mut().find(|row| row.row == Slot::Asked(id)) {
        row.row = match answer {
            Answer::Row(found) if found.data.len() <= config.row_octets => Slot::Known(found),
            // Too large: the table is told to have changed.
            Answer::Row(_) | Answer::Unknown => Slot::Unknown,
            Answer::Failed => Slot::Failed,
            _ => mistaken(counters),
        };
    }
}

/// An answer to something else than was asked.
fn mistaken<T>(counters: &mut Statistics) -> Slot<T> {
    counters.query_failures += 1;
    Slot::Failed
}

/// Puts a folder's id into all events that wait for it, and says which they are.
fn fill_folder(
    user: &mut User,
    key: &FolderKey,
    id: QueryId,
    answer: &Answer,
    counters: &mut Statistics,
) -> Vec<u64> {
    let slot = match *answer {
        Answer::Folder(folder) if folder != FolderId::NONE => Slot::Known(folder),
        Answer::Unknown => Slot::Unknown,
        Answer::Failed => Slot::Failed,
        _ => mistaken(counters),
    };
    user.folders.answered(key, id, slot.known().copied());
    let mut waiting = Vec::new();
    for pending in &mut user.pending {
        let mut filled = false;
        for own in pending.folders.all_mut() {
            if *own == Slot::Asked(id) {
                *own = slot.clone();
                filled = true;
            }
        }
        if filled {
            waiting.push(pending.number);
        }
    }
    waiting
}

/// Tells the user's sessions what happened.
fn tell(
    pending: &Pending,
    user: &mut User,
    sessions: &mut Sessions,
    counters: &mut Statistics,
    config: &EngineConfig,
    now: Duration,
) {
    let bounds = Bounds::from(config);
    let resync_of_all = pending.keys.is_none();
    if pending.lacks_ids() {
        counters.events_without_ids += 1;
    }
    let failed = |slot: &Slot<FolderId>| *slot == Slot::Failed;
    let lost_track = failed(&pending.folders.folder) || failed(&pending.folders.old_folder);
    let found = pending.found();
    let changed_only;
    let made = match (&pending.changes, found.old_folder) {
        (Some(made), _) => made,
        // Moved to where the host has no folder: what is left behind has changed.
        (None, Some(old))
            if matches!(pending.event.kind, EventKind::MessageMove(_) | EventKind::MailboxRename { .. }) =>
        {
            changed_only = folder_changed(old, found.old_parent);
            &changed_only
        }
        _ => &Changes::default(),
    };
    let ids = if resync_of_all || lost_track { user.folders.ids() } else { Vec::new() };
    for guid in &user.sessions {
        sessions.tell(*guid, now, |session, tally| {
            for announcement in &made.announcements {
                session.announce(announcement, &bounds, tally);
            }
            for change in &made.tables {
                let concerned: Vec<u32> = session
                    .tables
                    .iter()
                    .filter(|open| open.listens() && shows(open, change))
                    .map(|open| open.table.handle)
                    .collect();
                for handle in concerned {
                    if let Some(open) = session.table(handle) {
                        let notification = table_notification(change, pending, *guid, open);
                        session.tell_table(handle, notification, &bounds, tally);
                    }
                }
            }
            if resync_of_all || lost_track {
                session.resync(&ids, &bounds, tally);
            }
        });
    }
    if resync_of_all {
        user.folders.stale(None);
    }
}

/// What a table is told: the row, where it is needed and known.
fn table_notification(
    change: &TableChange,
    pending: &Pending,
    session: Uuid,
    open: &OpenTable,
) -> Notification {
    let row = |folder, message| {
        let asked = pending.rows.iter().find(|row| {
            (row.session, row.handle, row.serial) == (session, open.table.handle, open.serial)
                && (row.folder, row.message) == (folder, message)
        });
        asked.and_then(|row| row.row.known())
    };
    match *change {
        TableChange::Contents { folder, row: Row::Deleted(message) } => {
            let row = MessageRow { folder, message, instance: 0 };
            Notification::ContentsTable(TableEvent::RowDeleted { row })
        }
        TableChange::Contents { folder, row: change @ (Row::Added(message) | Row::Modified(message)) } => {
            match row(folder, Some(message)) {
                Some(found) => {
                    let row = MessageRow { folder, message, instance: found.instance };
                    Notification::ContentsTable(row_event(change, row, found.after, found.data.clone()))
                }
                None => table_changed(TableKind::Contents),
            }
        }
        TableChange::Hierarchy { row: Row::Deleted(folder), .. } => {
            Notification::HierarchyTable(TableEvent::RowDeleted { row: FolderRow { folder } })
        }
        TableChange::Hierarchy { row: change @ (Row::Added(folder) | Row::Modified(folder)), .. } => {
            match row(folder, None) {
                Some(found) => {
                    let after = FolderRow { folder: found.after.folder };
                    Notification::HierarchyTable(row_event(
                        change,
                        FolderRow { folder },
                        after,
                        found.data.clone(),
                    ))
                }
                None => table_changed(TableKind::Hierarchy),
            }
        }
        TableChange::Contents { row: Row::Changed, .. } => table_changed(TableKind::Contents),
        TableChange::Hierarchy { row: Row::Changed, .. } => table_changed(TableKind::Hierarchy),
    }
}

fn row_event<Id, R>(change: Row<Id>, row: R, after: R, data: Vec<u8>) -> TableEvent<R> {
    match change {
        Row::Modified(_) => TableEvent::RowModified { row, after, data },
        _ => TableEvent::RowAdded { row, after, data },
    }
}
