//! The bits of notification types, in requests (a mask) and in replies (one of them).

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// A set of notification types: what a client asks to be told. Bits that mean nothing here are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NotificationTypes(u16);

impl NotificationTypes {
    /// A mail came.
    pub const NEW_MAIL: Self = Self(0x0002);
    /// A folder or a message was created.
    pub const OBJECT_CREATED: Self = Self(0x0004);
    /// A folder or a message was deleted.
    pub const OBJECT_DELETED: Self = Self(0x0008);
    /// A folder or a message was modified.
    pub const OBJECT_MODIFIED: Self = Self(0x0010);
    /// A folder or a message was moved.
    pub const OBJECT_MOVED: Self = Self(0x0020);
    /// A folder or a message was copied.
    pub const OBJECT_COPIED: Self = Self(0x0040);
    /// A search folder has found all there is.
    pub const SEARCH_COMPLETE: Self = Self(0x0080);
    /// A table was modified.
    pub const TABLE_MODIFIED: Self = Self(0x0100);
    /// Reserved. In a request one more octet follows.
    pub const EXTENDED: Self = Self(0x0400);

    /// The set with these bits.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// Its bits.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether all of the other are in it.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for NotificationTypes {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for NotificationTypes {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Display for NotificationTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:04x}", self.0)
    }
}

/// About a message; without it, about a folder.
pub(super) const MESSAGE: u16 = 0x8000;
/// In a search folder. Only with [`MESSAGE`].
pub(super) const SEARCH: u16 = 0x4000;
/// The number of unread messages follows.
pub(super) const UNREAD: u16 = 0x2000;
/// The number of messages follows.
pub(super) const TOTAL: u16 = 0x1000;

pub(super) const NEW_MAIL: u16 = NotificationTypes::NEW_MAIL.0;
pub(super) const CREATED: u16 = NotificationTypes::OBJECT_CREATED.0;
pub(super) const DELETED: u16 = NotificationTypes::OBJECT_DELETED.0;
pub(super) const MODIFIED: u16 = NotificationTypes::OBJECT_MODIFIED.0;
pub(super) const MOVED: u16 = NotificationTypes::OBJECT_MOVED.0;
pub(super) const COPIED: u16 = NotificationTypes::OBJECT_COPIED.0;
pub(super) const SEARCH_COMPLETE: u16 = NotificationTypes::SEARCH_COMPLETE.0;
pub(super) const TABLE: u16 = NotificationTypes::TABLE_MODIFIED.0;
