//! Writing: which flags and which fields a notification has. The order of the fields is that of MS-OXCNOTIF
//! 2.2.1.4.1.2; reading (`decode`) goes the same way.

use super::error::EncodeError;
use super::flags::{
    COPIED, CREATED, DELETED, MESSAGE, MODIFIED, MOVED, NEW_MAIL, SEARCH, SEARCH_COMPLETE, TABLE, TOTAL,
    UNREAD,
};
use super::table::Row;
use super::{FolderId, MessageClass, Notification, RopNotify, TableEvent, Tags};
use crate::octets::Writer;

/// RopId, handle, logon id and flags.
const HEAD_OCTETS: usize = 1 + 4 + 1 + 2;
const ID: usize = FolderId::OCTETS;

impl Notification {
    /// NotificationFlags: one type in the low 12 bits, and what follows in the high 4.
    pub fn flags(&self) -> u16 {
        let search = |search: bool| if search { SEARCH } else { 0 };
        match self {
            Self::NewMail { .. } => MESSAGE | NEW_MAIL,
            Self::NewMailWithoutMessage { .. } => NEW_MAIL,
            Self::MessageCreated { search_folder, .. } => MESSAGE | CREATED | search(search_folder.is_some()),
            Self::MessageDeleted { search_folder, .. } => MESSAGE | DELETED | search(search_folder.is_some()),
            Self::MessageModified { in_search_folder, .. } => MESSAGE | MODIFIED | search(*in_search_folder),
            Self::MessageMoved { .. } => MESSAGE | MOVED,
            Self::MessageCopied { .. } => MESSAGE | COPIED,
            Self::FolderCreated { .. } => CREATED,
            Self::FolderDeleted { .. } => DELETED,
            Self::FolderModified { total, unread, .. } => {
                let total = total.map_or(0, |_| TOTAL);
                MODIFIED | total | unread.map_or(0, |_| UNREAD)
            }
            Self::FolderMoved { .. } => MOVED,
            Self::FolderCopied { .. } => COPIED,
            Self::SearchComplete { .. } => SEARCH_COMPLETE,
            Self::HierarchyTable(_) => TABLE,
            Self::ContentsTable(_) => MESSAGE | TABLE,
            Self::SearchTable(_) => MESSAGE | SEARCH | TABLE,
        }
    }

    /// The octets behind the flags.
    fn fields_len(&self) -> usize {
        match self {
            Self::NewMail { class, .. } => (2 * ID + 4).saturating_add(class.encoded_len()),
            Self::NewMailWithoutMessage { class, .. } => (ID + 4).saturating_add(class.encoded_len()),
            Self::MessageCreated { search_folder, tags, .. } => {
                let parent = search_folder.map_or(0, |_| ID);
                (2 * ID + parent).saturating_add(tags.encoded_len())
            }
            Self::MessageDeleted { search_folder, .. } => 2 * ID + search_folder.map_or(0, |_| ID),
            Self::MessageModified { tags, .. } | Self::FolderCreated { tags, .. } => {
                (2 * ID).saturating_add(tags.encoded_len())
            }
            Self::MessageMoved { .. }
            | Self::MessageCopied { .. }
            | Self::FolderMoved { .. }
            | Self::FolderCopied { .. } => 4 * ID,
            Self::FolderDeleted { .. } => 2 * ID,
            Self::FolderModified { tags, total, unread, .. } => {
                let counts = total.map_or(0, |_| 4) + unread.map_or(0, |_| 4);
                (ID + counts).saturating_add(tags.encoded_len())
            }
            Self::SearchComplete { .. } => ID,
            Self::HierarchyTable(event) => table_event_len(event),
            Self::ContentsTable(event) | Self::SearchTable(event) => table_event_len(event),
        }
    }

    /// What no reader could read back, or could read in two ways.
    fn check(&self) -> Result<(), EncodeError> {
        match self {
            Self::NewMail { class, .. } => class.check(),
            Self::NewMailWithoutMessage { .. } => Err(EncodeError::NewMailWithoutMessage),
            _ => Ok(()),
        }
    }

    fn write(&self, writer: &mut Writer) {
        let mut ids = |ids: &[[u8; ID]]| ids.iter().for_each(|id| writer.octets(id));
        match self {
            Self::NewMail { folder, message, message_flags, class } => {
                ids(&[folder.to_octets(), message.to_octets()]);
                writer.u32(*message_flags);
                class.write(writer);
            }
            Self::NewMailWithoutMessage { folder, message_flags, class } => {
                ids(&[folder.to_octets()]);
                writer.u32(*message_flags);
                class.write(writer);
            }
            Self::MessageCreated { folder, message, search_folder, tags } => {
                ids(&[folder.to_octets(), message.to_octets()]);
                search_folder.iter().for_each(|parent| ids(&[parent.to_octets()]));
                tags.write(writer);
            }
            Self::MessageDeleted { folder, message, search_folder } => {
                ids(&[folder.to_octets(), message.to_octets()]);
                search_folder.iter().for_each(|parent| ids(&[parent.to_octets()]));
            }
            Self::MessageModified { folder, message, in_search_folder: _, tags } => {
                ids(&[folder.to_octets(), message.to_octets()]);
                tags.write(writer);
            }
            Self::MessageMoved { folder, message, old_folder, old_message }
            | Self::MessageCopied { folder, message, old_folder, old_message } => ids(&[
                folder.to_octets(),
                message.to_octets(),
                old_folder.to_octets(),
                old_message.to_octets(),
            ]),
            Self::FolderCreated { folder, parent, tags } => {
                ids(&[folder.to_octets(), parent.to_octets()]);
                tags.write(writer);
            }
            Self::FolderDeleted { folder, parent } => ids(&[folder.to_octets(), parent.to_octets()]),
            Self::FolderModified { folder, tags, total, unread } => {
                ids(&[folder.to_octets()]);
                tags.write(writer);
                total.iter().chain(unread).for_each(|count| writer.u32(*count));
            }
            Self::FolderMoved { folder, parent, old_folder, old_parent }
            | Self::FolderCopied { folder, parent, old_folder, old_parent } => {
                ids(&[folder, parent, old_folder, old_parent].map(|id| id.to_octets()));
            }
            Self::SearchComplete { folder } => ids(&[folder.to_octets()]),
            Self::HierarchyTable(event) => write_table_event(event, writer),
            Self::ContentsTable(event) | Self::SearchTable(event) => write_table_event(event, writer),
        }
    }
}

impl RopNotify {
    /// The octets of the reply.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut octets = Vec::new();
        self.encode_into(&mut octets)?;
        Ok(octets)
    }

    /// Writes the reply behind what is there. After an error nothing has changed.
    pub fn encode_into(&self, octets: &mut Vec<u8>) -> Result<(), EncodeError> {
        let length = self.encoded_len();
        if length > Self::MAX_OCTETS {
            return Err(EncodeError::TooLarge { octets: length, max: Self::MAX_OCTETS });
        }
        self.notification.check()?;
        octets.reserve(length);
        let mut writer = Writer::behind(std::mem::take(octets));
        writer.u8(Self::ROP_ID);
        writer.u32(self.handle);
        writer.u8(self.logon_id);
        writer.u16(self.flags());
        self.notification.write(&mut writer);
        *octets = writer.finish();
        Ok(())
    }

    /// How many octets the reply has.
    pub fn encoded_len(&self) -> usize {
        self.notification.fields_len().saturating_add(HEAD_OCTETS)
    }

    /// NotificationFlags: one type in the low 12 bits, and what follows in the high 4.
    pub fn flags(&self) -> u16 {
        self.notification.flags()
    }
}

impl Tags {
    fn encoded_len(&self) -> usize {
        match self {
            Self::Unspecified => 2,
            Self::List(tags) => tags.len().saturating_mul(4).saturating_add(2),
        }
    }

    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Unspecified => writer.u16(Self::UNSPECIFIED),
            Self::List(tags) => {
                writer.u16(count(tags));
                tags.iter().for_each(|tag| writer.u32(*tag));
            }
        }
    }
}

impl MessageClass {
    /// The octets of flag, name and NUL.
    fn encoded_len(&self) -> usize {
        let name = match self.unicode {
            true => self.name.encode_utf16().count().saturating_add(1).saturating_mul(2),
            false => self.name.len().saturating_add(1),
        };
        name.saturating_add(1)
    }

    fn check(&self) -> Result<(), EncodeError> {
        let wrong = |character: &char| *character == '\0' || !(self.unicode || character.is_ascii());
        match self.name.chars().enumerate().find(|(_, character)| wrong(character)) {
            None => Ok(()),
            Some((position, '\0')) => Err(EncodeError::InnerNul { position }),
            Some((position, character)) => Err(EncodeError::NotAscii { character, position }),
        }
    }

    fn write(&self, writer: &mut Writer) {
        writer.u8(u8::from(self.unicode));
        if self.unicode {
            self.name.encode_utf16().chain([0]).for_each(|unit| writer.u16(unit));
        } else {
            writer.octets(self.name.as_bytes());
            writer.u8(0);
        }
    }
}

fn table_event_len<R: Row>(event: &TableEvent<R>) -> usize {
    match event {
        TableEvent::Changed | TableEvent::RestrictionChanged => 2,
        TableEvent::RowDeleted { .. } => 2 + R::OCTETS,
        TableEvent::RowAdded { data, .. } | TableEvent::RowModified { data, .. } => {
            data.len().saturating_add(2 + 2 * R::OCTETS + 2)
        }
    }
}

fn write_table_event<R: Row>(event: &TableEvent<R>, writer: &mut Writer) {
    writer.u16(event.kind());
    match event {
        TableEvent::Changed | TableEvent::RestrictionChanged => {}
        TableEvent::RowDeleted { row } => row.write(writer),
        TableEvent::RowAdded { row, after, data } | TableEvent::RowModified { row, after, data } => {
            row.write(writer);
            after.write(writer);
            writer.u16(count(data));
            writer.octets(data);
        }
    }
}

/// The length of a list in a reply that has at most `MAX_OCTETS`, and so less than 65,535 entries.
fn count<T>(entries: &[T]) -> u16 {
    u16::try_from(entries.len()).unwrap_or(u16::MAX)
}
