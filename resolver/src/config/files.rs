//! The files that a string names, within bounds: libmemcached has none, and ends in a crash.

use std::fs::{File, metadata};
use std::io::{self, Read as _};

/// The most that is read of one file.
const MAX_OCTETS: u64 = 1 << 20;

/// How deep files may name files.
pub(super) const MAX_DEPTH: usize = 16;

/// How many files one string may lead to.
pub(super) const MAX_FILES: usize = 256;

/// libmemcached reads lines in pieces of this, and takes each piece for a line.
pub(super) const MAX_LINE: usize = 8191;

/// Reads a file from the file system.
pub(super) fn read(path: &str) -> io::Result<Vec<u8>> {
    // A fifo would let us wait for ever.
    if !metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut octets = Vec::new();
    File::open(path)?.take(MAX_OCTETS + 1).read_to_end(&mut octets)?;
    match u64::try_from(octets.len()) {
        Ok(length) if length <= MAX_OCTETS => Ok(octets),
        _ => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {MAX_OCTETS} octets"))),
    }
}

/// The lines of a file that libmemcached looks at, with their numbers: all but empty ones.
pub(super) fn lines(octets: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let lines = octets.split_inclusive(|octet| *octet == b'\n');
    lines.enumerate().map(|(index, line)| (index + 1, line)).filter(|(_, line)| *line != b"\n")
}
