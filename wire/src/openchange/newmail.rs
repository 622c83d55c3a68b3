//! The payload that OpenChange's Dovecot plugin pushes to an endpoint: a mail has arrived.

use super::{
    DosCharset, VERSION,
    error::{DecodeError, EncodeError, Malformed},
    ndr::{End, Reader, Writer},
};

/// The one type of notification that version 1 has.
const NEW_MAIL: u16 = 2;

/// What the message name ends with, after the uid.
const MESSAGE_SUFFIX: &str = ".eml";

/// A mail has arrived in a folder of a user, whom the endpoint knows.
///
/// ```text
/// 0  u8  1
/// 1  u16 2, new mail
/// 3  backend NUL, message NUL, folder NUL, all in the dos charset
///    u8  separator
/// ```
///
/// The default is the Inbox of backend `sogo` with separator `/`, and no message named yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMail {
    /// The mapistore backend: `sogo` unless configured otherwise.
    pub backend: String,
    /// The message's name in the backend: `<uid>.eml`, see [`NewMail::uid`].
    pub message: String,
    /// The folder. OpenChange's plugin sends its **storage** name, which is modified UTF-7
    /// ([`mutf7`](super::mutf7)): `Entw&APw-rfe`. Receivers take an empty one for the Inbox.
    pub folder: String,
    /// What separates the parts of `folder`, as an octet. OpenChange's plugin sends the **list's** separator:
    /// `.` for Maildir. Any octet is possible, 0 too.
    pub separator: u8,
}

impl Default for NewMail {
    fn default() -> Self {
        Self { backend: "sogo".to_owned(), message: String::new(), folder: String::new(), separator: b'/' }
    }
}

impl NewMail {
    /// The octets of the payload.
    pub fn encode(&self, charset: DosCharset) -> Result<Vec<u8>, EncodeError> {
        let mut writer = Writer::new();
        writer.version();
        writer.u16(NEW_MAIL);
        writer.string("backend", &self.backend, charset)?;
        writer.string("message name", &self.message, charset)?;
        writer.string("folder", &self.folder, charset)?;
        writer.u8(self.separator);
        Ok(writer.finish())
    }

    /// Reads a payload that must be new mail. A receiver that shall pass over what it does not know uses
    /// [`Notification::decode`].
    pub fn decode(octets: &[u8], charset: DosCharset) -> Result<Self, DecodeError> {
        match Notification::decode(octets, charset)? {
            Notification::NewMail(mail) => Ok(mail),
            Notification::Ignored { version: VERSION, kind } => {
                Err(DecodeError::new(1, Malformed::Kind { found: kind }))
            }
            Notification::Ignored { version, .. } => {
                Err(DecodeError::new(0, Malformed::Version { found: version }))
            }
        }
    }

    /// The message's uid, if its name is the one that Dovecot's plugin gives: `<uid>.eml`, the uid in decimal,
    /// not 0 and without leading zeros, so that [`NewMail::message_name`] gives the same name again.
    pub fn uid(&self) -> Option<u32> {
        let digits = self.message.strip_suffix(MESSAGE_SUFFIX)?;
        if digits.starts_with('0') || !digits.bytes().all(|octet| octet.is_ascii_digit()) {
            return None;
        }
        digits.parse().ok()
    }

    /// The name of the message with this uid: `1.eml`.
    pub fn message_name(uid: u32) -> String {
        format!("{uid}{MESSAGE_SUFFIX}")
    }

    fn read(reader: &mut Reader<'_>, charset: DosCharset) -> Result<Self, DecodeError> {
        Ok(Self {
            backend: reader.string("backend", charset, End::Nul)?,
            message: reader.string("message name", charset, End::Nul)?,
            folder: reader.string("folder", charset, End::Nul)?,
            separator: reader.u8("separator")?,
        })
    }
}

/// What arrives at an endpoint: new mail, or something that OpenChange's receiver passes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification {
    /// A mail has arrived.
    NewMail(NewMail),
    /// Nothing that a receiver acts on: version 0, or a type other than new mail. Not an error, and what
    /// follows the type was not looked at.
    Ignored {
        /// The version octet, 0 or 1.
        version: u8,
        /// The type; 0 with version 0, which has none.
        kind: u16,
    },
}

impl Notification {
    /// Reads a payload. Octets after it are ignored; any truncation and a version above 1 are errors.
    pub fn decode(octets: &[u8], charset: DosCharset) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(octets);
        match reader.u8("version")? {
            0 => return Ok(Self::Ignored { version: 0, kind: 0 }),
            VERSION => {}
            found => return Err(DecodeError::new(0, Malformed::Version { found })),
        }
        match reader.u16("type")? {
            NEW_MAIL => NewMail::read(&mut reader, charset).map(Self::NewMail),
            kind => Ok(Self::Ignored { version: VERSION, kind }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OCTETS: &[u8] = b"\x01\x02\x00sogo\x001.eml\x00INBOX\x00/";

    fn inbox() -> NewMail {
        NewMail { message: "1.eml".into(), folder: "INBOX".into(), ..NewMail::default() }
    }

    fn named(message: &str) -> NewMail {
        NewMail { message: message.to_owned(), ..NewMail::default() }
    }

    fn decode(octets: &[u8]) -> Result<Notification, DecodeError> {
        Notification::decode(octets, DosCharset::default())
    }

    #[test]
    fn inbox_uid_1() {
        assert_eq!(inbox().encode(DosCharset::default()).unwrap(), OCTETS);
        assert_eq!(decode(OCTETS).unwrap(), Notification::NewMail(inbox()));
        assert_eq!(NewMail::decode(OCTETS, DosCharset::default()).unwrap(), inbox());
    }

    #[test]
    fn trailing_octets_are_accepted_and_any_truncation_is_not() {
        assert_eq!(decode(&[OCTETS, b"\0"].concat()).unwrap(), Notification::NewMail(inbox()));
        for length in 0..OCTETS.len() {
            let error = decode(&OCTETS[..length]).unwrap_err();
            assert!(
                matches!(error.reason(), Malformed::Truncated { .. } | Malformed::Unterminated { .. }),
                "{length}: {error}"
            );
        }
        assert_eq!(
            decode(&OCTETS[..OCTETS.len() - 1]).unwrap_err().to_string(),
            "at octet 20: the input ends too early for the separator: at least 1 octets needed, 0 left"
        );
    }

    #[test]
    fn version_0_and_other_types_are_ignored_and_not_read_further() {
        for octets in [b"\x00".as_slice(), b"\x00\x02\x00sogo"] {
            assert_eq!(decode(octets).unwrap(), Notification::Ignored { version: 0, kind: 0 });
        }
        assert_eq!(decode(b"\x01\x02\x01").unwrap(), Notification::Ignored { version: 1, kind: 0x102 });
    }

    #[test]
    fn versions_above_1_are_errors() {
        for found in [2, 255] {
            let error = decode(&[found]).unwrap_err();
            assert_eq!((error.offset(), error.reason()), (0, &Malformed::Version { found }));
        }
    }

    #[test]
    fn who_wants_new_mail_is_told_what_else_it_is() {
        let error = |octets: &[u8]| NewMail::decode(octets, DosCharset::default()).unwrap_err().to_string();
        assert_eq!(error(b"\x01\x03\x00"), "at octet 1: type 0x0003 is not new mail, 0x0002");
        assert_eq!(error(b"\x00\x02\x00"), "at octet 0: version 0 is unknown, only 1 is known");
    }

    #[test]
    fn uids() {
        assert_eq!(named("1.eml").uid(), Some(1));
        assert_eq!(named("4294967295.eml").uid(), Some(u32::MAX));
        for other in [
            "",
            ".eml",
            "0.eml",
            "01.eml",
            "+1.eml",
            "-1.eml",
            " 1.eml",
            "4294967296.eml",
            "1",
            "1.EML",
            "1.eml.eml",
            "x.eml",
        ] {
            assert_eq!(named(other).uid(), None, "{other}");
        }
        assert_eq!(NewMail::message_name(42), "42.eml");
    }

    #[test]
    fn strings_that_have_no_octets_are_refused_by_name() {
        let error = |mail: NewMail| mail.encode(DosCharset::default()).unwrap_err().to_string();
        assert_eq!(
            error(NewMail { folder: "5€".into(), ..inbox() }),
            "the folder: CP850 has no '€' (U+20AC), at position 1"
        );
        assert_eq!(
            error(NewMail { backend: "so\0go".into(), ..inbox() }),
            "the backend has a NUL, at position 2"
        );
        assert_eq!(error(named("\0")), "the message name has a NUL, at position 0");
    }
}
