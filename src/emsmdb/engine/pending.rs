//! An event whose ids are being found.

use std::sync::Arc;

use ocbus_wire::ropnotify::{FolderId, MessageId, NotificationTypes};
use ocbus_wire::{Event, EventKind, Mailbox, UidSet};
use uuid::Uuid;

use super::changes::{Changes, Found};
use super::folders::FolderKey;
use super::{MessageRef, QueryId, TableRow};
use crate::emsmdb::sogo;

/// An event on its way: first the folders' ids, then the messages', then rows.
#[derive(Debug)]
pub(super) struct Pending {
    /// One more than that of the event before it.
    pub(super) number: u64,
    pub(super) event: Arc<Event>,
    /// The folders in which it happened: events of the same folder stay in order. `None`: a resync of all, which waits
    /// for all before it, and all behind it wait for it.
    pub(super) keys: Option<Vec<FolderKey>>,
    pub(super) folders: FolderSlots,
    pub(super) messages: Slot<Vec<Option<MessageId>>>,
    pub(super) old_messages: Slot<Vec<Option<MessageId>>>,
    pub(super) rows: Vec<PendingRow>,
    /// What to tell, once folders and messages are known.
    pub(super) changes: Option<Changes>,
    pub(super) stage: Stage,
    /// What it counts for among all that wait: ranges of UIDs are most of a large event's memory.
    pub(super) weight: usize,
}

/// Ranges of UIDs that are in the weight of one event.
const RANGES_FOR_ONE: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Folders,
    Messages,
    Rows,
    Ready,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Slot<T> {
    /// Not needed, or not asked for.
    #[default]
    Empty,
    Asked(QueryId),
    Known(T),
    /// The host does not have it.
    Unknown,
    Failed,
}

#[derive(Debug, Default)]
pub(super) struct FolderSlots {
    pub(super) folder: Slot<FolderId>,
    pub(super) parent: Slot<FolderId>,
    pub(super) old_folder: Slot<FolderId>,
    pub(super) old_parent: Slot<FolderId>,
}

/// A row that was asked for.
#[derive(Debug)]
pub(super) struct PendingRow {
    pub(super) session: Uuid,
    pub(super) handle: u32,
    /// The table's, when it was asked.
    pub(super) serial: u64,
    pub(super) folder: FolderId,
    pub(super) message: Option<MessageId>,
    pub(super) row: Slot<TableRow>,
}

impl<T> Slot<T> {
    pub(super) fn known(&self) -> Option<&T> {
        match self {
            Slot::Known(value) => Some(value),
            _ => None,
        }
    }

    pub(super) fn is_asked(&self) -> bool {
        matches!(self, Slot::Asked(_))
    }
}

impl FolderSlots {
    pub(super) fn all(&self) -> [&Slot<FolderId>; 4] {
        [&self.folder, &self.parent, &self.old_folder, &self.old_parent]
    }

    pub(super) fn all_mut(&mut self) -> [&mut Slot<FolderId>; 4] {
        [&mut self.folder, &mut self.parent, &mut self.old_folder, &mut self.old_parent]
    }
}

impl Pending {
    pub(super) fn new(number: u64, event: Arc<Event>) -> Pending {
        let keys = event.mailbox.as_ref().map(|mailbox| {
            let mut keys = vec![FolderKey::of(Some(mailbox))];
            keys.extend(old_mailbox(&event).map(|old| FolderKey::of(Some(old))));
            keys
        });
        let stage = if keys.is_some() { Stage::Folders } else { Stage::Ready };
        let weight = 1 + uid_ranges(&event.kind) / RANGES_FOR_ONE;
        Pending {
            number,
            weight,
            event,
            keys,
            folders: FolderSlots::default(),
            messages: Slot::Empty,
            old_messages: Slot::Empty,
            rows: Vec::new(),
            changes: None,
            stage,
        }
    }

    pub(super) fn found(&self) -> Found<'_> {
        let FolderSlots { parent, old_folder, old_parent, .. } = &self.folders;
        Found {
            parent: parent.known().copied(),
            old_folder: old_folder.known().copied(),
            old_parent: old_parent.known().copied(),
            messages: self.messages.known().map_or(&[], Vec::as_slice),
            old_messages: self.old_messages.known().map_or(&[], Vec::as_slice),
        }
    }

    /// Whether an id is missing that was asked for.
    pub(super) fn lacks_ids(&self) -> bool {
        let folders = self.folders.all().into_iter().any(|slot| matches!(slot, Slot::Unknown | Slot::Failed));
        let lacks = |messages: &Slot<Vec<Option<MessageId>>>| match messages {
            Slot::Known(messages) => messages.iter().any(Option::is_none),
            Slot::Unknown | Slot::Failed => true,
            Slot::Empty | Slot::Asked(_) => false,
        };
        folders || lacks(&self.messages) || lacks(&self.old_messages)
    }
}

/// How many messages the event is about, here and where they came from.
pub(super) fn message_counts(event: &Event) -> (u64, u64) {
    match &event.kind {
        EventKind::MessageNew(_) | EventKind::MessageAppend(_) => (1, 0),
        EventKind::MessageCopy(transfer) | EventKind::MessageMove(transfer) => {
            (transfer.uids.len(), transfer.old_uids.len())
        }
        EventKind::MessageRead { uids }
        | EventKind::MessageTrash { uids }
        | EventKind::MessageExpunge { uids }
        | EventKind::FlagsSet { uids, .. }
        | EventKind::FlagsClear { uids, .. } => (uids.len(), 0),
        _ => (0, 0),
    }
}

fn uid_ranges(kind: &EventKind) -> usize {
    match kind {
        EventKind::MessageCopy(transfer) | EventKind::MessageMove(transfer) => {
            transfer.uids.ranges().len() + transfer.old_uids.ranges().len()
        }
        EventKind::MessageRead { uids }
        | EventKind::MessageTrash { uids }
        | EventKind::MessageExpunge { uids }
        | EventKind::FlagsSet { uids, .. }
        | EventKind::FlagsClear { uids, .. } => uids.ranges().len(),
        _ => 0,
    }
}

/// Where its messages, or the folder itself, came from.
pub(super) fn old_mailbox(event: &Event) -> Option<&Mailbox> {
    match &event.kind {
        EventKind::MessageCopy(transfer) | EventKind::MessageMove(transfer) => Some(&transfer.old),
        EventKind::MailboxRename { old } => Some(old),
        _ => None,
    }
}

/// The UIDVALIDITY of where messages were before, where it was told: `Event::uidvalidity` is that of where they are now.
pub(super) fn old_uidvalidity(event: &Event) -> Option<u32> {
    match &event.kind {
        EventKind::MessageCopy(transfer) | EventKind::MessageMove(transfer) => transfer.old_uidvalidity,
        _ => None,
    }
}

/// Which parents an event needs: for what happens to folders always, for counts in tables of folders only if there is
/// such a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parents {
    Never,
    ForTables,
    Always,
}

pub(super) fn parents(kind: &EventKind) -> Parents {
    match kind {
        EventKind::MailboxCreate | EventKind::MailboxDelete | EventKind::MailboxRename { .. } => {
            Parents::Always
        }
        EventKind::MessageTrash { .. } => Parents::Never,
        _ => Parents::ForTables,
    }
}

/// Whether anybody could be told anything of it.
pub(super) fn is_told(kind: &EventKind) -> bool {
    !matches!(kind, EventKind::MailboxSubscribe | EventKind::MailboxUnsubscribe | EventKind::Unknown { .. })
}

/// The types of notifications that name the event's messages.
pub(super) fn message_types(event: &Event) -> NotificationTypes {
    let created = NotificationTypes::OBJECT_CREATED;
    match &event.kind {
        EventKind::MessageNew(_) if event.mailbox.as_ref().is_some_and(Mailbox::is_inbox) => {
            NotificationTypes::NEW_MAIL | created
        }
        EventKind::MessageNew(_) | EventKind::MessageAppend(_) => created,
        EventKind::MessageCopy(_) => NotificationTypes::OBJECT_COPIED | created,
        EventKind::MessageMove(_) => {
            NotificationTypes::OBJECT_MOVED | created | NotificationTypes::OBJECT_DELETED
        }
        EventKind::MessageRead { .. }
        | EventKind::MessageTrash { .. }
        | EventKind::FlagsSet { .. }
        | EventKind::FlagsClear { .. } => NotificationTypes::OBJECT_MODIFIED,
        EventKind::MessageExpunge { .. } => NotificationTypes::OBJECT_DELETED,
        _ => NotificationTypes::default(),
    }
}

/// The event's messages by their names; `None` if there are more than `most`, or none at all. A message of which
/// neither UID nor name is known cannot be asked for: then the list is empty.
pub(super) fn message_refs(event: &Event, cn: &str, most: usize) -> Option<Vec<MessageRef>> {
    let mailbox = event.mailbox.as_ref()?;
    match &event.kind {
        EventKind::MessageNew(message) | EventKind::MessageAppend(message) => {
            let folder = sogo::folder_uri(cn, Some(mailbox));
            let named = message.uid.is_some() || message.name.is_some();
            let sogo_uri = || sogo::message_uri(&folder, message.uid, message.name.as_deref());
            Some(named.then(|| MessageRef { uid: message.uid, sogo_uri: sogo_uri() }).into_iter().collect())
        }
        EventKind::MessageCopy(transfer) | EventKind::MessageMove(transfer) => {
            uid_refs(cn, mailbox, &transfer.uids, most)
        }
        EventKind::MessageRead { uids }
        | EventKind::MessageTrash { uids }
        | EventKind::MessageExpunge { uids }
        | EventKind::FlagsSet { uids, .. }
        | EventKind::FlagsClear { uids, .. } => uid_refs(cn, mailbox, uids, most),
        _ => None,
    }
}

/// Likewise those where the event's messages came from.
pub(super) fn old_message_refs(event: &Event, cn: &str, most: usize) -> Option<Vec<MessageRef>> {
    match &event.kind {
        EventKind::MessageCopy(transfer) | EventKind::MessageMove(transfer) => {
            uid_refs(cn, &transfer.old, &transfer.old_uids, most)
        }
        _ => None,
    }
}

fn uid_refs(cn: &str, mailbox: &Mailbox, uids: &UidSet, most: usize) -> Option<Vec<MessageRef>> {
    if uids.is_empty() || uids.len() > u64::try_from(most).unwrap_or(u64::MAX) {
        return None;
    }
    let folder = sogo::folder_uri(cn, Some(mailbox));
    let one = |uid| MessageRef { uid: Some(uid), sogo_uri: sogo::message_uri(&folder, Some(uid), None) };
    Some(uids.iter().map(one).collect())
}
