//! Why a ROP could not be written, and where and why octets could not be read.

use crate::octets::Short;

/// A value that cannot be written. Nothing was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The reply would not fit into any response: fewer tags or a shorter row are needed. For a row,
    /// [`Changed`](super::TableEvent::Changed) says enough.
    #[error("a reply of {octets} octets: at most {max} fit into a response")]
    TooLarge {
        /// Its size.
        octets: usize,
        /// The largest size.
        max: usize,
    },
    /// A NUL in the message class would end it early.
    #[error("the message class has a NUL, at position {position}")]
    InnerNul {
        /// How many characters stand before the NUL.
        position: usize,
    },
    /// A character that has no single octet in every code page.
    #[error("the message class has {character:?}, at position {position}: expected ASCII, or `unicode` set")]
    NotAscii {
        /// The character.
        character: char,
        /// How many characters stand before it.
        position: usize,
    },
    /// New mail that names no message: the specification and OpenChange read it differently.
    #[error("new mail without a message is never written: a message is needed")]
    NewMailWithoutMessage,
    /// A scope of a message without its id, which would be the scope of its folder.
    #[error("the scope names no message: expected a message id other than 0, or the scope of a folder")]
    NoMessage,
}

/// Octets that are not what they should be: at which one, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("at octet {offset}: {reason}")]
pub struct DecodeError {
    offset: usize,
    reason: Malformed,
}

impl DecodeError {
    pub(super) fn new(offset: usize, reason: Malformed) -> Self {
        Self { offset, reason }
    }

    /// The same error, in octets that stand behind others.
    pub(super) fn behind(self, octets: usize) -> Self {
        Self { offset: self.offset.saturating_add(octets), ..self }
    }

    /// Whether more input might help.
    pub(super) fn is_end(&self) -> bool {
        matches!(self.reason, Malformed::Truncated { .. } | Malformed::Unterminated { .. })
    }

    /// Where reading failed: the first octet, counted from 0, of the field that is wrong. Equal to the
    /// length of the input where a field is missing altogether.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// What is wrong there.
    pub fn reason(&self) -> &Malformed {
        &self.reason
    }
}

impl From<Short> for DecodeError {
    fn from(Short { offset, what, needed, left }: Short) -> Self {
        Self::new(offset, Malformed::Truncated { what, needed, left })
    }
}

/// What can be wrong with octets: the reason of a [`DecodeError`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The input ends inside a field, or before it.
    #[error("the input ends too early for the {what}: at least {needed} octets needed, {left} left")]
    Truncated {
        /// The field that is cut off.
        what: &'static str,
        /// How many octets it takes at least.
        needed: usize,
        /// How many there are.
        left: usize,
    },
    /// Another ROP, or none.
    #[error("RopId 0x{found:02x}: expected 0x{expected:02x}")]
    RopId {
        /// The octet found.
        found: u8,
        /// What was to be read.
        expected: u8,
    },
    /// Flags of a notification that the rules do not have: no type or several, a type that is unknown, or a
    /// letter that does not go with the type.
    #[error("notification flags 0x{found:04x}: no such combination of a type and its letters")]
    Flags {
        /// The flags found.
        found: u16,
    },
    /// A table event that is unknown.
    #[error("table event {found}: expected 1, 3, 4, 5 or 7")]
    TableEvent {
        /// The event found.
        found: u16,
    },
    /// A boolean that is neither false nor true.
    #[error("the {what} is {found}: expected 0 or 1")]
    Boolean {
        /// Which field.
        what: &'static str,
        /// The octet found.
        found: u8,
    },
    /// A string has no NUL at its end.
    #[error("the {what} has no NUL before the input ends")]
    Unterminated {
        /// Which string.
        what: &'static str,
    },
    /// An octet of a string that means another character in each code page.
    #[error("the message class: octet 0x{octet:02x}: expected ASCII")]
    NotAscii {
        /// The octet.
        octet: u8,
    },
    /// Half of a surrogate pair.
    #[error("the message class: 0x{unit:04x} is no UTF-16")]
    NotUtf16 {
        /// The unit.
        unit: u16,
    },
    /// The reply goes on beyond what fits into a response.
    #[error("the reply is larger than the {max} octets that fit into a response")]
    TooLarge {
        /// The largest size.
        max: usize,
    },
}
