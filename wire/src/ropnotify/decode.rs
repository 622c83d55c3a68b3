//! Reading: the flags say which notification it is, and with that which fields there are.

use super::error::{DecodeError, Malformed};
use super::flags::{
    COPIED, CREATED, DELETED, MESSAGE, MODIFIED, MOVED, NEW_MAIL, SEARCH, SEARCH_COMPLETE, TABLE, TOTAL,
    UNREAD,
};
use super::table::Row;
use super::{FolderId, MessageClass, MessageId, Notification, RopNotify, TableEvent, Tags};
use crate::octets::Reader;

impl RopNotify {
    /// Reads the reply that stands at the beginning, and says how many octets it has taken.
    pub fn decode(octets: &[u8]) -> Result<(Self, usize), DecodeError> {
        let most = octets.get(..Self::MAX_OCTETS).unwrap_or(octets);
        let mut reader = Reader::new(most);
        match Self::read(&mut reader) {
            Ok(reply) => Ok((reply, reader.offset())),
            // Not the input ends too early, but what may be looked at.
            Err(error) if most.len() < octets.len() && error.is_end() => {
                Err(DecodeError::new(error.offset(), Malformed::TooLarge { max: Self::MAX_OCTETS }))
            }
            Err(error) => Err(error),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        rop_id(reader, Self::ROP_ID)?;
        let handle = reader.u32("handle")?;
        let logon_id = reader.u8("logon id")?;
        let notification = Notification::read(reader)?;
        Ok(Self { handle, logon_id, notification })
    }
}

/// The replies that stand end to end, as in OpenChange's `deliver:` records. Behind one that cannot be read it is
/// unknown where the next begins: an error is the last item. Its offset counts from the beginning of `octets`.
pub fn split(octets: &[u8]) -> impl Iterator<Item = Result<RopNotify, DecodeError>> {
    split_with_octets(octets).map(|reply| Ok(reply?.0))
}

/// The same, each with its octets.
pub(crate) fn split_with_octets(
    octets: &[u8],
) -> impl Iterator<Item = Result<(RopNotify, &[u8]), DecodeError>> {
    let mut rest = octets;
    std::iter::from_fn(move || {
        let begun = octets.len() - rest.len();
        let from = Some(std::mem::take(&mut rest)).filter(|from| !from.is_empty())?;
        let read = RopNotify::decode(from).map_err(|error| error.behind(begun));
        Some(read.map(|(reply, length)| {
            let (own, behind) = from.split_at_checked(length).unwrap_or((from, &[]));
            rest = behind;
            (reply, own)
        }))
    })
}

/// The first octet of a ROP, which must be this one.
pub(super) fn rop_id(reader: &mut Reader<'_>, expected: u8) -> Result<(), DecodeError> {
    let offset = reader.offset();
    match reader.u8("RopId")? {
        found if found == expected => Ok(()),
        found => Err(DecodeError::new(offset, Malformed::RopId { found, expected })),
    }
}

/// A boolean of one octet.
pub(super) fn boolean(reader: &mut Reader<'_>, what: &'static str) -> Result<bool, DecodeError> {
    let offset = reader.offset();
    match reader.u8(what)? {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(DecodeError::new(offset, Malformed::Boolean { what, found })),
    }
}

pub(super) fn folder(reader: &mut Reader<'_>, what: &'static str) -> Result<FolderId, DecodeError> {
    Ok(FolderId::from_octets(reader.array(what)?))
}

pub(super) fn message(reader: &mut Reader<'_>, what: &'static str) -> Result<MessageId, DecodeError> {
    Ok(MessageId::from_octets(reader.array(what)?))
}

impl Notification {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let flags_at = reader.offset();
        let flags = reader.u16("notification flags")?;
        const SEARCH_MESSAGE: u16 = SEARCH | MESSAGE;
        let (letters, kind) = (flags & 0xf000, flags & 0x0fff);
        match (letters, kind) {
            (0, TABLE) => return Ok(Self::HierarchyTable(table_event(reader)?)),
            (MESSAGE, TABLE) => return Ok(Self::ContentsTable(table_event(reader)?)),
            (SEARCH_MESSAGE, TABLE) => return Ok(Self::SearchTable(table_event(reader)?)),
            _ => {}
        }
        let no_such = DecodeError::new(flags_at, Malformed::Flags { found: flags });
        match letters {
            MESSAGE | SEARCH_MESSAGE => Self::read_message(reader, letters == SEARCH_MESSAGE, kind, no_such),
            _ if letters & SEARCH_MESSAGE == 0 => Self::read_folder(reader, letters, kind, no_such),
            _ => Err(no_such),
        }
    }

    /// Notifications about a message.
    fn read_message(
        reader: &mut Reader<'_>,
        in_search_folder: bool,
        kind: u16,
        no_such: DecodeError,
    ) -> Result<Self, DecodeError> {
        if !matches!(
            (in_search_folder, kind),
            (_, CREATED | DELETED | MODIFIED) | (false, NEW_MAIL | MOVED | COPIED)
        ) {
            return Err(no_such);
        }
        let folder_id = folder(reader, "folder id")?;
        let message_id = message(reader, "message id")?;
        let search_folder = |reader: &mut Reader<'_>| match in_search_folder {
            true => folder(reader, "search folder's id").map(Some),
            false => Ok(None),
        };
        Ok(match kind {
            CREATED => Self::MessageCreated {
                folder: folder_id,
                message: message_id,
                search_folder: search_folder(reader)?,
                tags: Tags::read(reader)?,
            },
            DELETED => Self::MessageDeleted {
                folder: folder_id,
                message: message_id,
                search_folder: search_folder(reader)?,
            },
            MODIFIED => Self::MessageModified {
                folder: folder_id,
                message: message_id,
                in_search_folder,
                tags: Tags::read(reader)?,
            },
            MOVED => Self::MessageMoved {
                folder: folder_id,
                message: message_id,
                old_folder: folder(reader, "old folder id")?,
                old_message: message(reader, "old message id")?,
            },
            COPIED => Self::MessageCopied {
                folder: folder_id,
                message: message_id,
                old_folder: folder(reader, "old folder id")?,
                old_message: message(reader, "old message id")?,
            },
            NEW_MAIL => Self::NewMail {
                folder: folder_id,
                message: message_id,
                message_flags: reader.u32("message flags")?,
                class: MessageClass::read(reader)?,
            },
            _ => return Err(no_such),
        })
    }

    /// Notifications about a folder; with the letters T and U only that it was modified.
    fn read_folder(
        reader: &mut Reader<'_>,
        letters: u16,
        kind: u16,
        no_such: DecodeError,
    ) -> Result<Self, DecodeError> {
        if !matches!(
            (letters, kind),
            (_, MODIFIED) | (0, NEW_MAIL | CREATED | DELETED | MOVED | COPIED | SEARCH_COMPLETE)
        ) {
            return Err(no_such);
        }
        let folder_id = folder(reader, "folder id")?;
        let parent = |reader: &mut Reader<'_>| folder(reader, "parent folder id");
        let old_folder = |reader: &mut Reader<'_>| folder(reader, "old folder id");
        let old_parent = |reader: &mut Reader<'_>| folder(reader, "old parent folder id");
        let count = |reader: &mut Reader<'_>, letter, what| match letters & letter {
            0 => Ok(None),
            _ => reader.u32(what).map(Some),
        };
        Ok(match kind {
            CREATED => {
                Self::FolderCreated { folder: folder_id, parent: parent(reader)?, tags: Tags::read(reader)? }
            }
            DELETED => Self::FolderDeleted { folder: folder_id, parent: parent(reader)? },
            MODIFIED => Self::FolderModified {
                folder: folder_id,
                tags: Tags::read(reader)?,
                total: count(reader, TOTAL, "total message count")?,
                unread: count(reader, UNREAD, "unread message count")?,
            },
            MOVED => Self::FolderMoved {
                folder: folder_id,
                parent: parent(reader)?,
                old_folder: old_folder(reader)?,
                old_parent: old_parent(reader)?,
            },
            COPIED => Self::FolderCopied {
                folder: folder_id,
                parent: parent(reader)?,
                old_folder: old_folder(reader)?,
                old_parent: old_parent(reader)?,
            },
            SEARCH_COMPLETE => Self::SearchComplete { folder: folder_id },
            NEW_MAIL => Self::NewMailWithoutMessage {
                folder: folder_id,
                message_flags: reader.u32("message flags")?,
                class: MessageClass::read(reader)?,
            },
            _ => return Err(no_such),
        })
    }
}

impl Tags {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = reader.u16("count of property tags")?;
        if count == Self::UNSPECIFIED {
            return Ok(Self::Unspecified);
        }
        let count = usize::from(count);
        reader.holds("property tags", count, 4)?;
        let tags = (0..count).map(|_| reader.u32("property tag")).collect::<Result<_, _>>()?;
        Ok(Self::List(tags))
    }
}

impl MessageClass {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let unicode = boolean(reader, "Unicode flag")?;
        let name = if unicode { Self::read_utf16(reader)? } else { Self::read_ascii(reader)? };
        Ok(Self { name, unicode })
    }

    fn read_ascii(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
        let start = reader.offset();
        let end = reader.rest().iter().position(|octet| *octet == 0);
        let name = reader.octets("message class", end.ok_or_else(|| unterminated(start))?)?;
        reader.u8("end of the message class")?;
        let character = |(at, octet): (usize, &u8)| match octet.is_ascii() {
            true => Ok(char::from(*octet)),
            false => Err(DecodeError::new(start + at, Malformed::NotAscii { octet: *octet })),
        };
        name.iter().enumerate().map(character).collect()
    }

    fn read_utf16(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
        let start = reader.offset();
        let (units, _) = reader.rest().as_chunks::<2>();
        let length = units.iter().position(|unit| *unit == [0, 0]).ok_or_else(|| unterminated(start))?;
        let mut units = reader.octets("message class", 2 * length)?;
        reader.u16("end of the message class")?;
        let mut read = 0;
        let units = std::iter::from_fn(|| {
            let (unit, rest) = units.split_first_chunk()?;
            units = rest;
            Some(u16::from_le_bytes(*unit))
        });
        let character = |decoded: Result<char, std::char::DecodeUtf16Error>| match decoded {
            Ok(character) => {
                read += 2 * character.len_utf16();
                Ok(character)
            }
            Err(error) => {
                let unit = error.unpaired_surrogate();
                Err(DecodeError::new(start + read, Malformed::NotUtf16 { unit }))
            }
        };
        char::decode_utf16(units).map(character).collect()
    }
}

fn unterminated(start: usize) -> DecodeError {
    DecodeError::new(start, Malformed::Unterminated { what: "message class" })
}

fn table_event<R: Row>(reader: &mut Reader<'_>) -> Result<TableEvent<R>, DecodeError> {
    let event_at = reader.offset();
    let found = reader.u16("table event")?;
    Ok(match found {
        TableEvent::<R>::CHANGED => TableEvent::Changed,
        TableEvent::<R>::ROW_ADDED => {
            TableEvent::RowAdded { row: R::read(reader)?, after: R::read(reader)?, data: row_data(reader)? }
        }
        TableEvent::<R>::ROW_DELETED => TableEvent::RowDeleted { row: R::read(reader)? },
        TableEvent::<R>::ROW_MODIFIED => TableEvent::RowModified {
            row: R::read(reader)?,
            after: R::read(reader)?,
            data: row_data(reader)?,
        },
        TableEvent::<R>::RESTRICTION_CHANGED => TableEvent::RestrictionChanged,
        _ => return Err(DecodeError::new(event_at, Malformed::TableEvent { found })),
    })
}

fn row_data(reader: &mut Reader<'_>) -> Result<Vec<u8>, DecodeError> {
    let size = reader.u16("size of the row")?;
    Ok(reader.octets("row", usize::from(size))?.to_vec())
}
