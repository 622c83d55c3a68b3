//! The class of a message: `IPM.Note` is a mail.

/// PidTagMessageClass, and how it is written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MessageClass {
    /// `IPM.Note`. Without `unicode` it must be ASCII; a NUL would end it.
    pub name: String,
    /// In UTF-16, and not one octet for each character. MS-OXCNOTIF wants `false` for a client in cached mode,
    /// gromox writes `true` for these; OpenChange writes `false` always, and every client reads both.
    pub unicode: bool,
}

/// A mail, as OpenChange announces it.
impl Default for MessageClass {
    fn default() -> Self {
        Self::ascii("IPM.Note")
    }
}

impl MessageClass {
    /// A class written with one octet for each character.
    pub fn ascii(name: impl Into<String>) -> Self {
        Self { name: name.into(), unicode: false }
    }
}
