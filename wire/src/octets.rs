//! A bounded little-endian reader and writer, below the formats that have no framing of their own.

/// The input ends inside a field, or before it. Each format makes its own error of this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Short {
    /// Where the field begins.
    pub(crate) offset: usize,
    /// The field.
    pub(crate) what: &'static str,
    /// How many octets it takes at least.
    pub(crate) needed: usize,
    /// How many there are.
    pub(crate) left: usize,
}

/// Reads from the front of a slice and knows how far it is.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self { rest: input, offset: 0 }
    }

    /// How many octets have been read.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// What has not been read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Short> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.short(what, N))?;
        self.rest = rest;
        self.offset += N;
        Ok(*head)
    }

    /// As many octets, where they are.
    pub(crate) fn octets(&mut self, what: &'static str, count: usize) -> Result<&'a [u8], Short> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or_else(|| self.short(what, count))?;
        self.rest = rest;
        self.offset += count;
        Ok(head)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, Short> {
        self.array(what).map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, Short> {
        self.array(what).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, Short> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, Short> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Checks that `count` entries of at least `entry_octets` each can be there, before any memory is taken
    /// for them.
    pub(crate) fn holds(&self, what: &'static str, count: usize, entry_octets: usize) -> Result<(), Short> {
        let needed = count.saturating_mul(entry_octets);
        if needed > self.rest.len() { Err(self.short(what, needed)) } else { Ok(()) }
    }

    pub(crate) fn short(&self, what: &'static str, needed: usize) -> Short {
        Short { offset: self.offset, what, needed, left: self.rest.len() }
    }
}

/// Collects octets.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    octets: Vec<u8>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Goes on behind what is there.
    pub(crate) fn behind(octets: Vec<u8>) -> Self {
        Self { octets }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.octets
    }

    pub(crate) fn octets(&mut self, octets: &[u8]) {
        self.octets.extend_from_slice(octets);
    }

    pub(crate) fn array<const N: usize>(&mut self, octets: [u8; N]) {
        self.octets(&octets);
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.array(value.to_le_bytes());
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.array(value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.array(value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.array(value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_little_endian_and_advance() {
        let mut reader = Reader::new(b"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10");
        assert_eq!(reader.u8("a"), Ok(0x01));
        assert_eq!(reader.u16("b"), Ok(0x0302));
        assert_eq!(reader.u32("c"), Ok(0x0706_0504));
        assert_eq!(reader.u64("d"), Ok(0x0f0e_0d0c_0b0a_0908));
        assert_eq!((reader.offset(), reader.rest()), (15, b"\x10".as_slice()));
        assert_eq!(reader.octets("e", 1), Ok(b"\x10".as_slice()));
        assert_eq!((reader.offset(), reader.rest()), (16, b"".as_slice()));

        let mut writer = Writer::behind(vec![0]);
        writer.u8(0x01);
        writer.u16(0x0302);
        writer.u32(0x0706_0504);
        writer.u64(0x0f0e_0d0c_0b0a_0908);
        assert_eq!(writer.finish(), b"\0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f");
    }

    #[test]
    fn what_is_cut_names_its_field_and_start() {
        let mut reader = Reader::new(b"\x01\x02");
        reader.u8("version").unwrap();
        let short = |needed| Short { offset: 1, what: "type", needed, left: 1 };
        assert_eq!(reader.u16("type"), Err(short(2)));
        assert_eq!(reader.octets("type", 3), Err(short(3)));
        assert_eq!(reader.holds("type", 2, 2), Err(short(4)));
        assert_eq!(reader.holds("type", usize::MAX, 2), Err(short(usize::MAX)));
        assert_eq!(reader.u8("type"), Ok(2), "a failed read takes nothing");
    }
}
