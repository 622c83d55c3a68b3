//! A bounded little-endian reader and writer: the part of DCE/RPC's NDR that OpenChange's formats use. No
//! padding, strings of single octets that end with a NUL, and before an array its length, twice.

use super::{
    DosCharset, VERSION,
    error::{DecodeError, EncodeError, Malformed},
};

/// Reads from the front of a slice and knows how far it is.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    offset: usize,
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

impl<'a> Reader<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self { rest: input, offset: 0 }
    }

    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.truncated(what, N));
        };
        self.rest = rest;
        self.offset += N;
        Ok(*head)
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.array(what).map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        self.array(what).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// The version octet of a record, which must be the one that is known. OpenChange crashed on most other
    /// values, and took some for an empty record.
    pub(super) fn version(&mut self) -> Result<(), DecodeError> {
        let offset = self.offset;
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
        let first_at = self.offset;
        let first = self.u32(what)?;
        let count = usize::try_from(first)
            .ok()
            .filter(|count| *count <= max)
            .ok_or_else(|| DecodeError::new(first_at, Malformed::TooMany { what, count: first, max }))?;
        let second_at = self.offset;
        let second = self.u32(what)?;
        if first != second {
            return Err(DecodeError::new(second_at, Malformed::CountsDisagree { what, first, second }));
        }
        self.holds(what, count, entry_octets)?;
        Ok(count)
    }

    /// Checks that `count` entries of at least `entry_octets` each can be there, before any memory is taken
    /// for them.
    pub(super) fn holds(
        &self,
        what: &'static str,
        count: usize,
        entry_octets: usize,
    ) -> Result<(), DecodeError> {
        let needed = count.saturating_mul(entry_octets);
        if needed > self.rest.len() { Err(self.truncated(what, needed)) } else { Ok(()) }
    }

    /// A string, without its NUL.
    pub(super) fn string(
        &mut self,
        what: &'static str,
        charset: DosCharset,
        end: End,
    ) -> Result<String, DecodeError> {
        let start = self.offset;
        let (octets, rest) = match self.rest.iter().position(|octet| *octet == 0) {
            Some(nul) => {
                let (octets, rest) = self.rest.split_at(nul);
                (octets, rest.split_first().map_or(rest, |(_nul, rest)| rest))
            }
            None if self.rest.is_empty() => return Err(self.truncated(what, 1)),
            None if end == End::NulOrInput => (self.rest, [].as_slice()),
            None => return Err(DecodeError::new(start, Malformed::Unterminated { what })),
        };
        let text = charset.decode(octets).map_err(|error| {
            let reason = Malformed::Undecodable { what, octet: error.octet, charset: error.charset };
            DecodeError::new(start + error.position, reason)
        })?;
        self.offset += self.rest.len() - rest.len();
        self.rest = rest;
        Ok(text)
    }

    fn truncated(&self, what: &'static str, needed: usize) -> DecodeError {
        DecodeError::new(self.offset, Malformed::Truncated { what, needed, left: self.rest.len() })
    }
}

/// Collects octets.
#[derive(Debug, Default)]
pub(super) struct Writer {
    octets: Vec<u8>,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.octets
    }

    pub(super) fn array<const N: usize>(&mut self, octets: [u8; N]) {
        self.octets.extend_from_slice(&octets);
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.array(value.to_le_bytes());
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.array(value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.array(value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.array(value.to_le_bytes());
    }

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
        self.octets.extend_from_slice(&octets);
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
    fn integers_are_little_endian_and_advance() {
        let mut reader = Reader::new(b"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f");
        assert_eq!(reader.u8("a"), Ok(0x01));
        assert_eq!(reader.u16("b"), Ok(0x0302));
        assert_eq!(reader.u32("c"), Ok(0x0706_0504));
        assert_eq!(reader.u64("d"), Ok(0x0f0e_0d0c_0b0a_0908));
        assert_eq!(reader.offset, 15);

        let mut writer = Writer::new();
        writer.u8(0x01);
        writer.u16(0x0302);
        writer.u32(0x0706_0504);
        writer.u64(0x0f0e_0d0c_0b0a_0908);
        assert_eq!(writer.finish(), b"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f");
    }

    #[test]
    fn a_truncated_integer_names_its_field_and_start() {
        let mut reader = Reader::new(b"\x01\x02");
        reader.u8("version").unwrap();
        assert_eq!(
            reason(reader.u16("type").unwrap_err()),
            (1, "the input ends too early for the type: at least 2 octets needed, 1 left".to_owned())
        );
    }

    #[test]
    fn strings_end_with_a_nul_or_where_the_caller_allows_it_with_the_input() {
        let charset = DosCharset::default();
        let mut reader = Reader::new(b"a\0\0\x81");
        assert_eq!(reader.string("x", charset, End::Nul).unwrap(), "a");
        assert_eq!(reader.string("x", charset, End::Nul).unwrap(), "");
        assert_eq!(reader.offset, 3);
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
