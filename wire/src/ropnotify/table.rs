//! What happened to a table that a client has open, and its rows.

use super::decode::{folder, message};
use super::error::DecodeError;
use super::{FolderId, MessageId};
use crate::octets::{Reader, Writer};

/// What happened to a table (TableEventType).
///
/// A server need not tell more than [`Changed`](TableEvent::Changed): the client then reads the table again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TableEvent<R> {
    /// 1: something; the client reads the table again.
    Changed,
    /// 3: a row is new.
    RowAdded {
        /// The row.
        row: R,
        /// The row before it; all zero if it is the first.
        after: R,
        /// A PropertyRow for the columns that the client set on the table; at most 65,535 octets, and less if
        /// the reply is to fit.
        data: Vec<u8>,
    },
    /// 4: a row is gone.
    RowDeleted {
        /// The row.
        row: R,
    },
    /// 5: a row is another, and perhaps elsewhere.
    RowModified {
        /// The row.
        row: R,
        /// The row before it; all zero if it is the first.
        after: R,
        /// As with [`RowAdded`](TableEvent::RowAdded).
        data: Vec<u8>,
    },
    /// 7: the table shows other rows.
    RestrictionChanged,
}

/// A row of a hierarchy table: a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FolderRow {
    /// The folder; all zero before the first row.
    pub folder: FolderId,
}

/// A row of a contents or search table: a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct MessageRow {
    /// The message's folder.
    pub folder: FolderId,
    /// The message; all zero before the first row.
    pub message: MessageId,
    /// Which instance of a message that stands in the table several times (once for each value of a
    /// multi-valued column); otherwise 0.
    pub instance: u32,
}

impl FolderRow {
    /// What stands before the first row.
    pub const NONE: Self = Self { folder: FolderId::NONE };
}

impl MessageRow {
    /// What stands before the first row.
    pub const NONE: Self = Self { folder: FolderId::NONE, message: MessageId::NONE, instance: 0 };
}

/// TableEventType.
impl<R> TableEvent<R> {
    pub(super) const CHANGED: u16 = 1;
    pub(super) const ROW_ADDED: u16 = 3;
    pub(super) const ROW_DELETED: u16 = 4;
    pub(super) const ROW_MODIFIED: u16 = 5;
    pub(super) const RESTRICTION_CHANGED: u16 = 7;

    pub(super) fn kind(&self) -> u16 {
        match self {
            Self::Changed => Self::CHANGED,
            Self::RowAdded { .. } => Self::ROW_ADDED,
            Self::RowDeleted { .. } => Self::ROW_DELETED,
            Self::RowModified { .. } => Self::ROW_MODIFIED,
            Self::RestrictionChanged => Self::RESTRICTION_CHANGED,
        }
    }
}

/// What names a row. The row before it is named in the same way.
pub(super) trait Row: Sized {
    const OCTETS: usize;

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    fn write(&self, writer: &mut Writer);
}

impl Row for FolderRow {
    const OCTETS: usize = FolderId::OCTETS;

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { folder: folder(reader, "row's folder id")? })
    }

    fn write(&self, writer: &mut Writer) {
        writer.array(self.folder.to_octets());
    }
}

impl Row for MessageRow {
    const OCTETS: usize = FolderId::OCTETS + MessageId::OCTETS + 4;

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            folder: folder(reader, "row's folder id")?,
            message: message(reader, "row's message id")?,
            instance: reader.u32("row's instance")?,
        })
    }

    fn write(&self, writer: &mut Writer) {
        writer.array(self.folder.to_octets());
        writer.array(self.message.to_octets());
        writer.u32(self.instance);
    }
}
