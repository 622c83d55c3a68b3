//! What Dovecot committed, and the events that it makes. No I/O, no clock.
//!
//! * [`Transaction`]: collects what one transaction does to one mailbox, as ranges of UIDs and not one by one.
//! * [`flags`]: flag and keyword changes, grouped by equal change.
//! * [`Change`]: one thing that happened: an event without its user and id.
//! * [`Delivery`]: what goes out together.

mod change;
mod collect;
pub mod flags;

pub use change::{Change, Counts, Delivery};
pub use collect::{Commit, Mail, Source, Transaction};

/// The longest header value that goes into an event, in octets.
pub const MAX_HEADER: usize = 512;

/// Octets from outside as text: what is not UTF-8 becomes U+FFFD.
pub fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// A header value: as [`text`], cut at a character to [`MAX_HEADER`] octets.
pub fn header(octets: &[u8]) -> String {
    let mut value = text(octets);
    let cut = (0..=MAX_HEADER.min(value.len())).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
    value.truncate(cut);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_cut_at_a_character() {
        assert_eq!(header(b"Hi"), "Hi");
        assert_eq!(header(b"\xff\xfe"), "\u{fffd}\u{fffd}");
        let long = header("ü".repeat(400).as_bytes());
        assert_eq!(long.len(), 512);
        let odd = header(format!("x{}", "ü".repeat(400)).as_bytes());
        assert_eq!(odd.len(), 511);
    }
}
