//! `session:<async session>`: whose emsmdb session an asynchronous (waiting) session belongs to.

use uuid::Uuid;

use super::{
    DosCharset,
    error::{DecodeError, EncodeError},
    ndr::{End, Reader, Writer},
};

/// Ties the session in which Outlook waits to the emsmdb session that holds its subscriptions.
///
/// ```text
/// 0   u8   1
/// 1   GUID the emsmdb session: u32, u16, u16 little-endian, then eight octets
/// 17  cn   in the dos charset, NUL
/// ```
///
/// The cn stands as the client gave it: unlike a resolver's key it keeps its case and may hold spaces. Reading
/// accepts a missing NUL and ignores what follows it, as OpenChange does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// The emsmdb session, whose `subscription:` and `deliver:` records these are.
    pub session: Uuid,
    /// The user: a username or an e-mail address.
    pub cn: String,
}

impl SessionRecord {
    /// The octets of the record.
    pub fn encode(&self, charset: DosCharset) -> Result<Vec<u8>, EncodeError> {
        let mut writer = Writer::new();
        writer.version();
        writer.array(self.session.to_bytes_le());
        writer.string("cn", &self.cn, charset)?;
        Ok(writer.finish())
    }

    /// Reads a record.
    pub fn decode(octets: &[u8], charset: DosCharset) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(octets);
        reader.version()?;
        let session = Uuid::from_bytes_le(reader.array("session GUID")?);
        let cn = reader.string("cn", charset, End::NulOrInput)?;
        Ok(Self { session, cn })
    }
}

/// The key of a [`SessionRecord`]: the GUID of the asynchronous session, lower case and without braces.
pub fn session_key(async_session: &Uuid) -> String {
    format!("session:{}", async_session.hyphenated())
}

#[cfg(test)]
mod tests {
    use uuid::uuid;

    use super::{super::Malformed, *};

    fn record(cn: &str) -> SessionRecord {
        SessionRecord { session: uuid!("01234567-89ab-cdef-0123-456789abcdef"), cn: cn.to_owned() }
    }

    const OCTETS: &[u8] = b"\x01\x67\x45\x23\x01\xab\x89\xef\xcd\x01\x23\x45\x67\x89\xab\xcd\xefFooBar\0";

    fn decode(octets: &[u8]) -> Result<SessionRecord, DecodeError> {
        SessionRecord::decode(octets, DosCharset::default())
    }

    #[test]
    fn the_first_three_fields_of_a_guid_are_little_endian() {
        assert_eq!(record("FooBar").encode(DosCharset::default()).unwrap(), OCTETS);
        assert_eq!(decode(OCTETS).unwrap(), record("FooBar"));
    }

    #[test]
    fn a_missing_nul_and_trailing_octets_are_accepted() {
        assert_eq!(decode(&OCTETS[..23]).unwrap(), record("FooBar"));
        assert_eq!(decode(&[OCTETS, b"zz\0"].concat()).unwrap(), record("FooBar"));
        assert_eq!(decode(&[&OCTETS[..17], b"\0"].concat()).unwrap(), record(""));
    }

    #[test]
    fn truncation_is_an_error_at_the_field_that_is_cut() {
        for (length, offset) in [(0, 0), (1, 1), (16, 1), (17, 17)] {
            let error = decode(&OCTETS[..length]).unwrap_err();
            assert_eq!(error.offset(), offset, "{error}");
            assert!(matches!(error.reason(), Malformed::Truncated { .. }), "{error}");
        }
    }

    #[test]
    fn another_version_is_an_error() {
        for found in [0, 2, 255] {
            let mut octets = OCTETS.to_vec();
            octets[0] = found;
            let error = decode(&octets).unwrap_err();
            assert_eq!((error.offset(), error.reason()), (0, &Malformed::Version { found }));
        }
    }

    #[test]
    fn a_cn_that_has_no_octets_is_refused() {
        let error = record("Юзер").encode(DosCharset::default()).unwrap_err();
        assert_eq!(error.to_string(), "the cn: CP850 has no 'Ю' (U+042E), at position 0");
        let error = record("a\0b").encode(DosCharset::default()).unwrap_err();
        assert_eq!(error.to_string(), "the cn has a NUL, at position 1");
    }

    #[test]
    fn the_key_is_lower_case() {
        let session = Uuid::parse_str("{AABBCCDD-EEFF-0011-2233-445566778899}").unwrap();
        assert_eq!(session_key(&session), "session:aabbccdd-eeff-0011-2233-445566778899");
    }
}
