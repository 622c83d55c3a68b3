//! The part of DCE/RPC's NDR that OpenChange's formats use: no padding, strings of single octets that end with a
//! NUL, and before an array its length, twice.

use super::{
    DosCharset, VERSION,
    error::{DecodeError, EncodeError, Malformed},
};
use crate::octets::Short;
pub(super) use crate::octets::{Reader, Writer};

impl From<Short> for DecodeError {
    fn from(Short { offset, what, needed, left }: Short) -> Self {
        Self::new(offset, Malformed::Truncated { what, needed, left })
    }
}

/// How a string may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With a NUL.
    Nul,
    /// With a NUL, or with the input: OpenChange reads `resolver:` and `session:` records so. A string
    /// needs an octet even then.
    NulOrInput,
}

impl Reader<'_> {
    /// The version octet of a record, which must be the one that is known. OpenChange crashed on most other
    /// values, and took some for an empty record.
    pub(super) fn version(&mut self) -> Result<(), DecodeError> {
        let offset = self.offset();
        match self.u8("version")? {
            VERSION => Ok(()),
            found => Err(DecodeError::new(offset, Malformed::Version { found })),
        }
    }

    /// The length of an array, written twice. What it returns is at most `max`, and small enough for the
    /// rest of the input if each entry takes `entry_octets` of it: safe to reserve memory for.
    pub(super) fn counts(
        &mut self,
        what: &'static str,
        max: usize,
        entry_octets: usize,
    ) -> Result<usize, DecodeError> {
        let first_at = self.offset();
        let first = self.u32(what)?;
        let count = usize::try_from(first)
            .ok()
            .filter(|count| *count <= max)
            .ok_or_else(|| DecodeError::new(first_at, Malformed::TooMany { what, count: first, max }))?;
        let second_at = self.offset();
        let second = self.u32(what)?;
        if first != second {
            return Err(DecodeError::new(second_at, Malformed::CountsDisagree { what, first, second }));
        }
        self.holds(what, count, entry_octets)?;
        Ok(count)
    }

    /// A string, without its NUL.
    pub(super) fn string(
        &mut self,
        what: &'static str,
        charset: DosCharset,
        end: End,
    ) -> Result<String, DecodeError> {
        let start = self.offset();
        let rest = self.rest();
        let (count, with_end) = match rest.iter().position(|octet| *octet == 0) {
            Some(nul) => (nul, nul + 1),
            None if rest.is_empty() => return Err(self.short(what, 1).into()),
            None if end == End::NulOrInput => (rest.len(), rest.len()),
            None => return Err(DecodeError::new(start, Malformed::Unterminated { what })),
        };
        let octets = self.octets(what, with_end)?;
        let octets = octets.get(..count).unwrap_or(octets);
        charset.decode(octets).map_err(|error| {
            let reason = Malformed::Undecodable { what, octet: error.octet, charset: error.charset };
            DecodeError::new(start + error.position, reason)
        })
    }
}

impl Writer {
    pub(super) fn version(&mut self) {
        self.u8(VERSION);
    }

    /// The length of an array, twice.
    pub(super) fn counts(&mut self, what: &'static str, count: usize, max: usize) -> Result<(), EncodeError> {
        let written = u32::try_from(count).ok().filter(|_| count <= max).ok_or(EncodeError::TooMany {
            what,
            count,
            max,
        })?;
        self.u32(written);
        self.u32(written);
        Ok(())
    }

    /// A string and its NUL.
    pub(super) fn string(
        &mut self,
        field: &'static str,
        text: &str,
        charset: DosCharset,
    ) -> Result<(), EncodeError> {
        if let Some(position) = text.chars().position(|character| character == '\0') {
            return Err(EncodeError::InnerNul { field, position });
        }
        let octets = charset.encode(text).map_err(|reason| EncodeError::Charset { field, reason })?;
        self.octets(&octets);
        self.u8(0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(error: DecodeError) -> (usize, String) {
        (error.offset(), error.reason().to_string())
    }

    #[test]
    fn strings_end_with_a_nul_or_where_the_caller_allows_it_with_the_input() {
        let charset = DosCharset::default();
        let mut reader = Reader::new(b"a\0\0\x81");
        assert_eq!(reader.string("x", charset, End::Nul).unwrap(), "a");
        assert_eq!(reader.string("x", charset, End::Nul).unwrap(), "");
        assert_eq!(reader.offset(), 3);
        let error = reader.string("x", charset, End::Nul).unwrap_err();
        assert_eq!((error.offset(), error.reason()), (3, &Malformed::Unterminated { what: "x" }));
        assert_eq!(reader.string("x", charset, End::NulOrInput).unwrap(), "ü");
        // A string that is not there at all is missing, however it may end.
        let error = reader.string("x", charset, End::NulOrInput).unwrap_err();
        assert_eq!(
            (error.offset(), error.reason()),
            (4, &Malformed::Truncated { what: "x", needed: 1, left: 0 })
        );
    }

    #[test]
    fn an_octet_without_a_meaning_is_pointed_at() {
        let charset = DosCharset::by_name("ASCII").unwrap();
        let mut reader = Reader::new(b"\x01ab\xff\0");
        reader.u8("first").unwrap();
        assert_eq!(
            reader.string("name", charset, End::Nul).unwrap_err().to_string(),
            "at octet 3: the name: octet 0xff means nothing in ASCII"
        );
    }

    #[test]
    fn counts_are_checked_before_anyone_reserves_memory() {
        let counts = |input: &[u8]| Reader::new(input).counts("hosts", 3, 2).map_err(reason);
        assert_eq!(counts(b"\x02\0\0\0\x02\0\0\0abcd"), Ok(2));
        assert_eq!(
            counts(b"\x04\0\0\0\x04\0\0\0abcdefgh"),
            Err((0, "4 hosts, at most 3 are allowed".into()))
        );
        assert_eq!(
            counts(b"\x02\0\0\0\x01\0\0\0abcd"),
            Err((4, "the two counts of hosts, 2 and 1, disagree".into()))
        );
        assert_eq!(
            counts(b"\x02\0\0\0\x02\0\0\0abc"),
            Err((8, "the input ends too early for the hosts: at least 4 octets needed, 3 left".into()))
        );
    }

    #[test]
    fn a_nul_inside_a_string_is_refused() {
        let mut writer = Writer::new();
        assert_eq!(
            writer.string("folder", "ü\0b", DosCharset::default()),
            Err(EncodeError::InnerNul { field: "folder", position: 1 })
        );
    }
}
