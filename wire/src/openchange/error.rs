//! Why a value could not be written, and where and why octets could not be read.

use super::charset::Unmappable;

/// A value that has no OpenChange form. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A string holds a NUL, which would end it early on the wire.
    #[error("the {field} has a NUL, at position {position}")]
    InnerNul {
        /// Which string.
        field: &'static str,
        /// How many characters stand before the NUL.
        position: usize,
    },
    /// A string holds a character that the dos charset lacks (OpenChange: "Invalid Data").
    #[error("the {field}: {reason}")]
    Charset {
        /// Which string.
        field: &'static str,
        /// Which character, and where.
        reason: Unmappable,
    },
    /// More entries than a reader accepts.
    #[error("{count} {what}, at most {max} fit")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// The session has a subscription with this handle already (OpenChange: "Already Exists").
    #[error("handle 0x{handle:x} is subscribed already")]
    DuplicateHandle {
        /// The handle.
        handle: u32,
    },
    /// The value would be larger than memcached takes.
    #[error("{octets} octets, at most {max} fit")]
    TooLarge {
        /// Its size.
        octets: usize,
        /// The largest size.
        max: usize,
    },
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
    /// A string has no NUL at its end where one is needed.
    #[error("the {what} has no NUL before the input ends")]
    Unterminated {
        /// Which string.
        what: &'static str,
    },
    /// The version octet is not one that this reader knows.
    #[error("version {found} is unknown, only 1 is known")]
    Version {
        /// The octet found.
        found: u8,
    },
    /// The notification is of another type than new mail.
    #[error("type 0x{found:04x} is not new mail, 0x0002")]
    Kind {
        /// The type found.
        found: u16,
    },
    /// The number of entries is written twice, and the two differ.
    #[error("the two counts of {what}, {first} and {second}, disagree")]
    CountsDisagree {
        /// What is counted.
        what: &'static str,
        /// The count at the lower offset.
        first: u32,
        /// The count at the error's offset.
        second: u32,
    },
    /// More entries than the format allows.
    #[error("{count} {what}, at most {max} are allowed")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// How many the input says there are.
        count: u32,
        /// How many there may be.
        max: usize,
    },
    /// An octet of a string means nothing in the dos charset.
    #[error("the {what}: octet 0x{octet:02x} means nothing in {charset}")]
    Undecodable {
        /// Which string.
        what: &'static str,
        /// The octet.
        octet: u8,
        /// The charset's name.
        charset: &'static str,
    },
}
