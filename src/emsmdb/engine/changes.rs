//! From an event to what is told of it: the table of section 6 of the reference (`docs/formats.md` names the
//! notifications), as a function of the event and the ids that were found.

use ocbus_wire::ropnotify::{
    FolderId, MessageClass, MessageId, Notification, NotificationTypes, Scope, Tags,
};
use ocbus_wire::{Event, EventKind, NewMessage, Transfer};

use super::Subscription;
use super::queue::Total;
use super::session::folder_modified;

/// PidTagMessageFlags.
const MESSAGE_READ: u32 = 0x01;
const MESSAGE_UNMODIFIED: u32 = 0x02;

/// The ids of an event, as far as they were found.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Found<'a> {
    pub(super) parent: Option<FolderId>,
    pub(super) old_folder: Option<FolderId>,
    pub(super) old_parent: Option<FolderId>,
    /// In the order of the event's UIDs; empty if none were asked.
    pub(super) messages: &'a [Option<MessageId>],
    pub(super) old_messages: &'a [Option<MessageId>],
}

/// What is told to subscriptions and to tables, each in order.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Changes {
    pub(super) announcements: Vec<Announcement>,
    pub(super) tables: Vec<TableChange>,
    /// Folders in which something happened to messages that are not named, and what: who has subscribed to one of
    /// their messages is told that it has changed.
    pub(super) unnamed: Vec<(NotificationTypes, FolderId)>,
}

/// A notification for every subscription that asked for it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Announcement {
    pub(super) types: NotificationTypes,
    /// Subscriptions to one of these folders are told.
    pub(super) folders: [FolderId; 4],
    /// Subscriptions to one of these messages are.
    pub(super) messages: [MessageId; 2],
    pub(super) notification: Notification,
    /// Of a folder-modified.
    pub(super) total: Total,
}

/// Something for the tables that show a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TableChange {
    /// For the contents tables of the folder.
    Contents { folder: FolderId, row: Row<MessageId> },
    /// For the hierarchy tables that show the parent's folders; without a parent for all hierarchy tables.
    Hierarchy { parent: Option<FolderId>, row: Row<FolderId> },
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Row<Id> {
    /// Something: the table is to be read again.
    Changed,
    Added(Id),
    Deleted(Id),
    Modified(Id),
}

impl Announcement {
    pub(super) fn folder_modified(folder: FolderId, total: Option<u32>, unread: Option<u32>) -> Announcement {
        Announcement::of_folders(
            NotificationTypes::OBJECT_MODIFIED,
            &[folder],
            folder_modified(folder, total, unread),
        )
    }

    fn of_folders(
        types: NotificationTypes,
        folders: &[FolderId],
        notification: Notification,
    ) -> Announcement {
        let mut places = [FolderId::NONE; 4];
        places.iter_mut().zip(folders).for_each(|(place, folder)| *place = *folder);
        Announcement {
            types,
            folders: places,
            messages: [MessageId::NONE; 2],
            notification,
            total: Total::Unknown,
        }
    }

    /// That a folder has changed, for subscriptions to the whole store alone.
    pub(super) fn for_stores(folder: FolderId) -> Announcement {
        Announcement { folders: [FolderId::NONE; 4], ..Announcement::folder_modified(folder, None, None) }
    }

    /// Messages of the folder have changed, none has come or gone.
    fn unread_changed(folder: FolderId, unread: Option<u32>) -> Announcement {
        Announcement { total: Total::Same, ..Announcement::folder_modified(folder, None, unread) }
    }

    fn of_message(
        types: NotificationTypes,
        folder: FolderId,
        message: MessageId,
        notification: Notification,
    ) -> Announcement {
        Announcement {
            messages: [message, MessageId::NONE],
            ..Announcement::of_folders(types, &[folder], notification)
        }
    }

    /// Whether the subscription asked for it: by its types and by its scope.
    pub(super) fn is_for(&self, subscription: &Subscription) -> bool {
        subscription.types.contains(self.types)
            && match subscription.scope {
                Scope::Store => true,
                Scope::Folder(folder) => folder != FolderId::NONE && self.folders.contains(&folder),
                Scope::Message { message, .. } => {
                    message != MessageId::NONE && self.messages.contains(&message)
                }
            }
    }
}

/// What to tell of an event whose folder is known. A resync of all mailboxes is not one of these.
pub(super) fn changes(event: &Event, folder: FolderId, found: &Found<'_>, class: &MessageClass) -> Changes {
    let mut maker = Maker { event, folder, found, changes: Changes::default() };
    match &event.kind {
        EventKind::MessageNew(message) => maker.new_message(Some((message, class))),
        EventKind::MessageAppend(_) => maker.new_message(None),
        EventKind::MessageCopy(transfer) => maker.copied(transfer),
        EventKind::MessageMove(transfer) => maker.moved(transfer),
        EventKind::MessageRead { uids } => maker.flags(uids.len(), true),
        EventKind::FlagsSet { uids, flags, .. } | EventKind::FlagsClear { uids, flags, .. } => {
            maker.flags(uids.len(), flags.iter().any(|flag| flag.eq_ignore_ascii_case("\\Seen")));
        }
        EventKind::MessageTrash { uids } => maker.trashed(uids.len()),
        EventKind::MessageExpunge { uids } => maker.expunged(uids.len()),
        EventKind::MailboxCreate => maker.folder_created(),
        EventKind::MailboxDelete => maker.folder_deleted(),
        EventKind::MailboxRename { .. } => maker.folder_moved(),
        EventKind::Resync { .. } => maker.folder_changed(),
        _ => {}
    }
    maker.changes
}

/// What to tell of a folder of which no more is known than that something happened there.
pub(super) fn folder_changed(folder: FolderId, parent: Option<FolderId>) -> Changes {
    Changes {
        announcements: vec![Announcement::folder_modified(folder, None, None)],
        tables: vec![
            TableChange::Contents { folder, row: Row::Changed },
            TableChange::Hierarchy { parent, row: Row::Changed },
        ],
        unnamed: vec![(NotificationTypes::OBJECT_MODIFIED, folder)],
    }
}

/// What to tell of a new folder that the host does not know yet: the list of folders that it is in has changed.
pub(super) fn folders_changed(parent: Option<FolderId>) -> Changes {
    Changes {
        announcements: parent
            .map(|parent| Announcement::folder_modified(parent, None, None))
            .into_iter()
            .collect(),
        tables: vec![TableChange::Hierarchy { parent, row: Row::Changed }],
        unnamed: Vec::new(),
    }
}

struct Maker<'a> {
    event: &'a Event,
    folder: FolderId,
    found: &'a Found<'a>,
    changes: Changes,
}

impl Maker<'_> {
    fn announce(&mut self, announcement: Announcement) {
        self.changes.announcements.push(announcement);
    }

    fn contents(&mut self, folder: FolderId, row: Row<MessageId>) {
        self.changes.tables.push(TableChange::Contents { folder, row });
    }

    fn hierarchy(&mut self, parent: Option<FolderId>, row: Row<FolderId>) {
        self.changes.tables.push(TableChange::Hierarchy { parent, row });
    }

    /// The event's folder with its counts, and its row in the tables of folders.
    fn counts(&mut self) {
        let Event { messages, unseen, .. } = *self.event;
        self.announce(Announcement::folder_modified(self.folder, messages, unseen));
    }

    fn hierarchy_counts(&mut self) {
        self.hierarchy(self.found.parent, Row::Modified(self.folder));
    }

    /// Something happened to messages of the folder. Unless all of them are named, subscriptions to one are told.
    fn messages(&mut self, types: NotificationTypes, folder: FolderId, are_named: bool) {
        if !are_named {
            self.changes.unnamed.push((types, folder));
        }
    }

    /// Something happened in the folder.
    fn folder_changed(&mut self) {
        self.counts();
        self.messages(NotificationTypes::OBJECT_MODIFIED, self.folder, false);
        self.contents(self.folder, Row::Changed);
        self.hierarchy(self.found.parent, Row::Changed);
    }

    /// The rows of the event's messages; one change of all of it if a message is not known. `messages`: how many
    /// there should be.
    fn rows(&mut self, messages: u64, row: fn(MessageId) -> Row<MessageId>) {
        let found = self.found.messages;
        rows(&mut self.changes.tables, self.folder, found, messages, row);
    }

    fn created(&mut self, message: MessageId) {
        let notification = Notification::MessageCreated {
            folder: self.folder,
            message,
            search_folder: None,
            tags: Tags::default(),
        };
        let types = NotificationTypes::OBJECT_CREATED;
        self.announce(Announcement::of_message(types, self.folder, message, notification));
    }

    fn new_message(&mut self, new_mail: Option<(&NewMessage, &MessageClass)>) {
        let is_inbox = self.event.mailbox.as_ref().is_some_and(ocbus_wire::Mailbox::is_inbox);
        if let [Some(message)] = *self.found.messages {
            if let Some((mail, class)) = new_mail.filter(|_| is_inbox) {
                let seen = mail.flags.iter().any(|flag| flag.eq_ignore_ascii_case("\\Seen"));
                let read = if seen { MESSAGE_READ } else { 0 };
                let notification = Notification::NewMail {
                    folder: self.folder,
                    message,
                    message_flags: MESSAGE_UNMODIFIED | read,
                    class: class.clone(),
                };
                let types = NotificationTypes::NEW_MAIL;
                self.announce(Announcement::of_message(types, self.folder, message, notification));
            }
            self.created(message);
        }
        self.counts();
        self.rows(1, Row::Added);
        self.hierarchy_counts();
    }

    fn copied(&mut self, transfer: &Transfer) {
        let types = NotificationTypes::OBJECT_COPIED;
        for (at, message) in self.found.messages.iter().enumerate() {
            let Some(message) = *message else { continue };
            // A copy of something unknown is something new.
            match self.old(at) {
                Some((old_folder, old_message)) => self.transferred(
                    types,
                    [message, old_message],
                    old_folder,
                    Notification::MessageCopied { folder: self.folder, message, old_folder, old_message },
                ),
                None => self.created(message),
            }
        }
        self.counts();
        self.rows(transfer.uids.len(), Row::Added);
        self.hierarchy_counts();
    }

    fn moved(&mut self, transfer: &Transfer) {
        let types = NotificationTypes::OBJECT_MOVED;
        let pairs = self.found.messages.len().max(self.found.old_messages.len());
        for at in 0..pairs {
            match (self.found.messages.get(at).copied().flatten(), self.old(at)) {
                (Some(message), Some((old_folder, old_message))) => self.transferred(
                    types,
                    [message, old_message],
                    old_folder,
                    Notification::MessageMoved { folder: self.folder, message, old_folder, old_message },
                ),
                (Some(message), None) => self.created(message),
                (None, Some((old_folder, old_message))) => self.deleted(old_folder, old_message),
                (None, None) => {}
            }
        }
        self.counts();
        if let Some(old) = self.found.old_folder {
            self.announce(Announcement::folder_modified(old, None, None));
            let found = self.found.old_messages;
            rows(&mut self.changes.tables, old, found, transfer.uids.len(), Row::Deleted);
            let are_named = is_whole(found, transfer.uids.len());
            self.messages(NotificationTypes::OBJECT_MOVED, old, are_named);
        }
        self.rows(transfer.uids.len(), Row::Added);
        if let Some(old) = self.found.old_folder {
            self.hierarchy(self.found.old_parent, Row::Modified(old));
        }
        self.hierarchy_counts();
    }

    /// The folder and the message that the n-th one came from.
    fn old(&self, at: usize) -> Option<(FolderId, MessageId)> {
        Some((self.found.old_folder?, (*self.found.old_messages.get(at)?)?))
    }

    fn transferred(
        &mut self,
        types: NotificationTypes,
        messages: [MessageId; 2],
        old_folder: FolderId,
        notification: Notification,
    ) {
        let folders = [self.folder, old_folder];
        self.announce(Announcement { messages, ..Announcement::of_folders(types, &folders, notification) });
    }

    fn deleted(&mut self, folder: FolderId, message: MessageId) {
        let notification = Notification::MessageDeleted { folder, message, search_folder: None };
        let types = NotificationTypes::OBJECT_DELETED;
        self.announce(Announcement::of_message(types, folder, message, notification));
    }

    fn modified(&mut self, messages: u64) {
        let are_named = is_whole(self.found.messages, messages);
        self.messages(NotificationTypes::OBJECT_MODIFIED, self.folder, are_named);
        for message in self.found.messages.iter().flatten().copied() {
            let notification = Notification::MessageModified {
                folder: self.folder,
                message,
                in_search_folder: false,
                tags: Tags::default(),
            };
            let types = NotificationTypes::OBJECT_MODIFIED;
            self.announce(Announcement::of_message(types, self.folder, message, notification));
        }
    }

    fn flags(&mut self, messages: u64, seen: bool) {
        self.modified(messages);
        self.announce(Announcement::unread_changed(self.folder, self.event.unseen));
        self.rows(messages, Row::Modified);
        if seen {
            self.hierarchy_counts();
        }
    }

    /// `\Deleted` was set: the messages are still there. Where one of them cannot be named, its folder is.
    fn trashed(&mut self, messages: u64) {
        self.modified(messages);
        if !is_whole(self.found.messages, messages) {
            self.announce(Announcement::unread_changed(self.folder, self.event.unseen));
            self.contents(self.folder, Row::Changed);
        }
    }

    fn expunged(&mut self, messages: u64) {
        for message in self.found.messages.iter().flatten().copied() {
            self.deleted(self.folder, message);
        }
        let are_named = is_whole(self.found.messages, messages);
        self.messages(NotificationTypes::OBJECT_DELETED, self.folder, are_named);
        self.counts();
        self.rows(messages, Row::Deleted);
        self.hierarchy_counts();
    }

    fn folder_created(&mut self) {
        self.announce_created();
        self.hierarchy(self.found.parent, Row::Added(self.folder));
    }

    /// A notification of a new, gone or moved folder names its parent. Where the host does not have that, as may be of
    /// what is above the top-level folders, the folder has changed: who asked is not left without a word.
    fn announce_created(&mut self) {
        let folder = self.folder;
        let Some(parent) = self.found.parent else { return self.announce_modified(folder) };
        let notification = Notification::FolderCreated { folder, parent, tags: Tags::default() };
        let types = NotificationTypes::OBJECT_CREATED;
        self.announce(Announcement::of_folders(types, &[folder, parent], notification));
    }

    fn announce_modified(&mut self, folder: FolderId) {
        self.announce(Announcement::folder_modified(folder, None, None));
    }

    fn folder_deleted(&mut self) {
        let folder = self.folder;
        match self.found.parent {
            Some(parent) => {
                let notification = Notification::FolderDeleted { folder, parent };
                let types = NotificationTypes::OBJECT_DELETED;
                self.announce(Announcement::of_folders(types, &[folder, parent], notification));
            }
            None => self.announce_modified(folder),
        }
        self.messages(NotificationTypes::OBJECT_DELETED, folder, false);
        self.hierarchy(self.found.parent, Row::Deleted(self.folder));
    }

    fn folder_moved(&mut self) {
        let folder = self.folder;
        let Found { parent, old_folder, old_parent, .. } = *self.found;
        // By its name it may be another one now, and its messages others.
        if let Some(old) = old_folder.filter(|old| *old != folder) {
            self.messages(NotificationTypes::OBJECT_MOVED, old, false);
        }
        if let (Some(parent), Some(old_folder), Some(old_parent)) = (parent, old_folder, old_parent) {
            let notification = Notification::FolderMoved { folder, parent, old_folder, old_parent };
            let folders = [folder, parent, old_folder, old_parent];
            self.announce(Announcement::of_folders(NotificationTypes::OBJECT_MOVED, &folders, notification));
        } else {
            // Of a folder under a name that the host has no more: something new, as with messages.
            self.announce_created();
            if let Some(old) = old_folder.filter(|old| *old != folder) {
                self.announce_modified(old);
            }
        }
        match old_folder {
            Some(old) if old == folder && parent.is_some() && parent == old_parent => {
                self.hierarchy(parent, Row::Modified(folder));
            }
            Some(old) => {
                self.hierarchy(old_parent, Row::Deleted(old));
                self.hierarchy(parent, Row::Added(folder));
            }
            None => {
                self.hierarchy(old_parent, Row::Changed);
                self.hierarchy(parent, Row::Added(folder));
            }
        }
    }
}

fn is_whole(found: &[Option<MessageId>], messages: u64) -> bool {
    u64::try_from(found.len()) == Ok(messages) && found.iter().all(Option::is_some)
}

fn rows(
    tables: &mut Vec<TableChange>,
    folder: FolderId,
    found: &[Option<MessageId>],
    messages: u64,
    row: fn(MessageId) -> Row<MessageId>,
) {
    if is_whole(found, messages) {
        tables.extend(found.iter().flatten().map(|id| TableChange::Contents { folder, row: row(*id) }));
    } else {
        tables.push(TableChange::Contents { folder, row: Row::Changed });
    }
}

#[cfg(test)]
mod tests {
    use ocbus_wire::Mailbox;
    use uuid::Uuid;

    use super::*;

    const FOLDER: FolderId = FolderId::from_u64(1);
    const PARENT: FolderId = FolderId::from_u64(2);
    const OLD: FolderId = FolderId::from_u64(3);

    fn announced(kind: EventKind, found: &Found<'_>) -> Vec<Notification> {
        let event = Event::new(Uuid::nil(), 0, "bob", Mailbox::new("A/B", '/'), kind);
        let made = changes(&event, FOLDER, found, &MessageClass::default());
        made.announcements.into_iter().map(|announcement| announcement.notification).collect()
    }

    fn rename() -> EventKind {
        EventKind::MailboxRename { old: Mailbox::new("C", '/') }
    }

    fn modified(folder: FolderId) -> Notification {
        folder_modified(folder, None, None)
    }

    #[test]
    fn without_a_parent_a_folder_is_told_to_have_changed() {
        let found = Found::default();
        for kind in [EventKind::MailboxCreate, EventKind::MailboxDelete, rename()] {
            assert_eq!(announced(kind.clone(), &found), [modified(FOLDER)], "{kind:?}");
        }
    }

    #[test]
    fn under_a_name_that_the_host_has_forgotten_it_is_new() {
        let found = Found { parent: Some(PARENT), ..Found::default() };
        let created = Notification::FolderCreated { folder: FOLDER, parent: PARENT, tags: Tags::default() };
        assert_eq!(announced(rename(), &found), std::slice::from_ref(&created));
        // Where it came from has no parent that is known.
        let found = Found { old_folder: Some(OLD), ..found };
        assert_eq!(announced(rename(), &found), [created, modified(OLD)]);
    }
}
