//! RopNotify, RopPending and RopRegisterNotification: the worked examples and OpenChange's own octets, both ways;
//! all 65,536 flags; the tables of MS-OXCNOTIF row by row, written down here once more as tables; every limit.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "tests")]

#[path = "ropnotify/examples.rs"]
mod examples;
#[path = "ropnotify/limits.rs"]
mod limits;
#[path = "ropnotify/register.rs"]
mod register;
#[path = "ropnotify/tables.rs"]
mod tables;
#[path = "ropnotify/vectors.rs"]
mod vectors;

use std::collections::BTreeMap;

use ocbus_wire::ropnotify::{DecodeError, FolderId, Malformed, MessageId, RopNotify};

fn folder(counter: u64) -> FolderId {
    FolderId::from_parts(1, counter).unwrap()
}

fn message(counter: u64) -> MessageId {
    MessageId::from_parts(1, counter).unwrap()
}

fn hex(digits: &str) -> Vec<u8> {
    let digits: String = digits.split_whitespace().collect();
    assert!(digits.len().is_multiple_of(2), "{digits}");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// The octets of E1 to E25.
fn examples() -> BTreeMap<&'static str, Vec<u8>> {
    let lines = include_str!("data/ropnotify-examples.txt").lines().filter(|line| !line.starts_with('#'));
    let lines: Vec<&str> = lines.collect();
    let examples: BTreeMap<_, _> =
        lines.chunks(2).map(|pair| (pair[0].split_once("  ").unwrap().0, hex(pair[1]))).collect();
    assert_eq!(examples.len(), 25);
    examples
}

/// Every proper prefix is refused, at an octet that is there or just behind.
fn assert_prefixes_refused<T: std::fmt::Debug>(
    octets: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
) {
    for length in 0..octets.len() {
        let error = decode(&octets[..length]).unwrap_err();
        assert!(
            matches!(error.reason(), Malformed::Truncated { .. } | Malformed::Unterminated { .. }),
            "{length} octets: {error}"
        );
        assert!(error.offset() <= length, "{length} octets: {error}");
    }
}

/// What holds for each reply that can be written.
fn assert_both_ways(reply: &RopNotify, octets: &[u8]) {
    assert_eq!(reply.encode().as_deref(), Ok(octets), "{reply:?}");
    assert_eq!(reply.encoded_len(), octets.len(), "{reply:?}");
    assert_eq!(reply.flags().to_le_bytes(), octets[6..8], "{reply:?}");
    assert_eq!(RopNotify::decode(octets), Ok((reply.clone(), octets.len())));
    let behind = [octets, b"\x2a\xff"].concat();
    assert_eq!(RopNotify::decode(&behind), Ok((reply.clone(), octets.len())), "the rest is left");
    let mut before = b"before".to_vec();
    reply.encode_into(&mut before).unwrap();
    assert_eq!(before, [b"before", octets].concat());
    assert_prefixes_refused(octets, RopNotify::decode);
}
