//! A user's sessions are told of an event whose ids are known, or will not be.

use std::time::Duration;

use ocbus_resolver::Cn;
use ocbus_wire::ropnotify::{FolderId, FolderRow, MessageRow, Notification, TableEvent};
use ocbus_wire::{EventKind, Mailbox};
use uuid::Uuid;

use super::asking::shows;
use super::changes::{Changes, Row, TableChange, folder_changed, folders_changed};
use super::handles::OpenTable;
use super::owed::Ask;
use super::pending::{FolderSlots, Pending, Slot, old_mailbox};
use super::queue::Bounds;
use super::session::table_changed;
use super::sessions::Sessions;
use super::{EngineConfig, Statistics, TableKind, User};

/// Tells the user's sessions what happened. The folders whose ids are missing, so that subscriptions to the whole store
/// were not told of them, and when these are to be asked.
pub(super) fn tell(
    cn: &Cn,
    pending: &Pending,
    user: &mut User,
    sessions: &mut Sessions,
    counters: &mut Statistics,
    config: &EngineConfig,
    now: Duration,
) -> (Vec<Option<Mailbox>>, Ask) {
    let bounds = Bounds::from(config);
    let resync_of_all = pending.keys.is_none();
    if pending.lacks_ids() {
        counters.events_without_ids += 1;
    }
    let failed = |slot: &Slot<FolderId>| *slot == Slot::Failed;
    let lost_track = failed(&pending.folders.folder) || failed(&pending.folders.old_folder);
    let around;
    let made = match &pending.changes {
        Some(made) => made,
        None => {
            around = changes_around(pending);
            &around
        }
    };
    let ids = if resync_of_all || lost_track { user.folders.ids() } else { Vec::new() };
    for guid in &user.sessions {
        sessions.tell(*guid, now, |session, tally| {
            for announcement in &made.announcements {
                session.announce(cn, announcement, &bounds, tally);
            }
            for (types, folder) in &made.unnamed {
                let named = &made.announcements;
                session.tell_messages(cn, *types, Some(*folder), named, &bounds, tally);
            }
            for change in &made.tables {
                let concerned: Vec<u32> = session
                    .tables
                    .iter()
                    .filter(|open| {
                        open.listens() && shows(open, change) && session.cn_of(open.table.logon_id) == cn
                    })
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
                session.resync(cn, &ids, &bounds, tally);
            }
        });
    }
    if resync_of_all {
        let unnamed = user.unnamed_by_a_resync();
        user.folders.stale(None);
        return (unnamed, Ask::Now);
    }
    let FolderSlots { folder, old_folder, .. } = &pending.folders;
    let failed = [(folder, pending.event.mailbox.as_ref()), (old_folder, old_mailbox(&pending.event))];
    let failed = failed.into_iter().filter(|(slot, mailbox)| **slot == Slot::Failed && !user.knows(*mailbox));
    (failed.map(|(_, mailbox)| mailbox.cloned()).collect(), Ask::Later)
}

/// What to tell of an event in a folder that the host does not have.
fn changes_around(pending: &Pending) -> Changes {
    let (kind, found) = (&pending.event.kind, pending.found());
    let mut changes = match (kind, found.old_folder) {
        // What is left behind has changed.
        (EventKind::MessageMove(_) | EventKind::MailboxRename { .. }, Some(old)) => {
            folder_changed(old, found.old_parent)
        }
        _ => Changes::default(),
    };
    // A host learns of a new folder when a client lists the folders anew: so clients are told to.
    let is_new = matches!(kind, EventKind::MailboxCreate | EventKind::MailboxRename { .. });
    if is_new && pending.folders.folder == Slot::Unknown {
        let listed = folders_changed(found.parent);
        for announcement in listed.announcements {
            if !changes.announcements.contains(&announcement) {
                changes.announcements.push(announcement);
            }
        }
        for table in listed.tables {
            if !changes.tables.contains(&table) {
                changes.tables.push(table);
            }
        }
    }
    changes
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
