//! What did not fit into a full queue, as what is to be told in its place.

use ocbus_wire::ropnotify::{FolderId, Notification, RopNotify};

use super::queue::Total;

/// Folders that are told one by one; more than a user has. Beyond, a change is only counted.
const MAX_FOLDERS: usize = 8_192;

/// A resync in the making: one TableChanged for each table, one folder-modified for each folder; and, for a
/// subscription that is not told of modified folders, the last reply that did not fit.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Handles.
    pub(super) tables: Vec<u32>,
    pub(super) folders: Vec<LostFolder>,
    /// Handle and octets.
    pub(super) last: Vec<(u32, Box<[u8]>)>,
}

/// A folder in which something happened that nobody was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LostFolder {
    /// The logon in whose mailbox it is: another's may have a folder of the same id.
    pub(super) logon_id: u8,
    pub(super) folder: FolderId,
    /// The latest counts, where known.
    pub(super) total: Option<u32>,
    pub(super) unread: Option<u32>,
}

impl Lost {
    pub(super) fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.folders.is_empty() && self.last.is_empty()
    }

    pub(super) fn table(&mut self, handle: u32) {
        if !self.tables.contains(&handle) {
            self.tables.push(handle);
        }
    }

    /// Says whether there was room.
    pub(super) fn folder(&mut self, logon_id: u8, folder: FolderId) -> bool {
        let is_it = |lost: &LostFolder| (lost.logon_id, lost.folder) == (logon_id, folder);
        if folder == FolderId::NONE || self.folders.iter().any(is_it) {
            return true;
        }
        let room = self.folders.len() < MAX_FOLDERS;
        if room {
            self.folders.push(LostFolder { logon_id, folder, total: None, unread: None });
        }
        room
    }

    pub(super) fn last(&mut self, handle: u32, octets: &[u8]) {
        match self.last.iter_mut().find(|(of, _)| *of == handle) {
            Some((_, last)) => *last = octets.into(),
            None => self.last.push((handle, octets.into())),
        }
    }

    /// Forgets what is for a handle. Says whether there was something.
    pub(super) fn release(&mut self, handle: u32) -> bool {
        let before = self.tables.len() + self.last.len();
        self.tables.retain(|table| *table != handle);
        self.last.retain(|(of, _)| *of != handle);
        self.tables.len() + self.last.len() < before
    }

    /// Takes note of a notification. Says whether there was room for its folders.
    pub(super) fn note(&mut self, reply: &RopNotify, of_total: Total) -> bool {
        let RopNotify { handle, logon_id, ref notification } = *reply;
        match notification {
            Notification::HierarchyTable(_)
            | Notification::ContentsTable(_)
            | Notification::SearchTable(_) => {
                self.table(handle);
                true
            }
            Notification::FolderModified { folder, total, unread, .. } => {
                let room = self.folder(logon_id, *folder);
                let is_it = |lost: &&mut LostFolder| (lost.logon_id, lost.folder) == (logon_id, *folder);
                if let Some(lost) = self.folders.iter_mut().find(is_it) {
                    let total = of_total.behind(lost.total, *total, *unread);
                    (lost.total, lost.unread) = (total, *unread);
                }
                room
            }
            Notification::NewMail { folder, .. }
            | Notification::NewMailWithoutMessage { folder, .. }
            | Notification::MessageCreated { folder, .. }
            | Notification::MessageDeleted { folder, .. }
            | Notification::MessageModified { folder, .. }
            | Notification::SearchComplete { folder } => self.folder(logon_id, *folder),
            Notification::MessageMoved { folder, old_folder, .. }
            | Notification::MessageCopied { folder, old_folder, .. } => {
                self.folder(logon_id, *folder) & self.folder(logon_id, *old_folder)
            }
            Notification::FolderCreated { folder, parent, .. }
            | Notification::FolderDeleted { folder, parent } => {
                self.folder(logon_id, *folder) & self.folder(logon_id, *parent)
            }
            Notification::FolderMoved { folder, parent, old_folder, old_parent }
            | Notification::FolderCopied { folder, parent, old_folder, old_parent } => {
                [folder, parent, old_folder, old_parent].map(|folder| self.folder(logon_id, *folder))
                    == [true; 4]
            }
            _ => true,
        }
    }
}
