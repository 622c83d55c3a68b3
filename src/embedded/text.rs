//! Answers of the text protocol. Without I/O and without a clock.

use std::io::Write as _;

use super::request::{Request, number};
use super::store::{Expiry, Item, Mode, Outcome, Put, Store};

/// What `version` says; clients read the number of memcached that we are like.
pub(super) const VERSION: &str = "1.6.18-ocbus";

/// The answer to a request that has one only; look-ups, lists and `quit` have others.
pub(super) fn answer(request: &Request<'_>, store: &mut Store, now_ms: u64, out: &mut Vec<u8>) {
    let (said, quiet) = match *request {
        Request::Put { key, value, flags, expiry_s, mode, version, quiet } => {
            let expiry = Expiry::of(expiry_s, now_ms);
            let put = Put { key, value, flags, expiry, mode, version };
            (stored(store.put(put, now_ms)), quiet)
        }
        Request::Delete { key, quiet } => {
            let found = store.delete(key, None, now_ms) != Outcome::NotFound;
            (if found { "DELETED" } else { "NOT_FOUND" }, quiet)
        }
        Request::Touch { key, expiry_s, quiet } => {
            let found = store.touch(key, Expiry::of(expiry_s, now_ms), now_ms).is_some();
            (if found { "TOUCHED" } else { "NOT_FOUND" }, quiet)
        }
        Request::Count { key, by, up, quiet } => match count(store, key, by, up, now_ms) {
            Ok(number) => return if quiet { () } else { line(out, &number.to_string()) },
            Err(said) => (said, quiet),
        },
        Request::Flush { quiet } => {
            store.clear();
            ("OK", quiet)
        }
        Request::Verbosity { quiet } => ("OK", quiet),
        Request::Version => {
            let _ = write!(out, "VERSION {VERSION}\r\n");
            return;
        }
        _ => return,
    };
    if !quiet {
        line(out, said);
    }
}

pub(super) fn line(out: &mut Vec<u8>, said: &str) {
    out.extend_from_slice(said.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// An entry of the answer to a look-up.
pub(super) fn value(key: &[u8], item: &Item, versions: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(key);
    // Writing to memory does not fail.
    let _ = write!(out, " {} {}", item.flags, item.value.len());
    if versions {
        let _ = write!(out, " {}", item.version);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&item.value);
    out.extend_from_slice(b"\r\n");
}

/// A line of the list of keys, as `lru_crawler metadump` of memcached has it.
pub(super) fn key(key: &[u8], item: &Item, out: &mut Vec<u8>) {
    out.extend_from_slice(b"key=");
    for octet in key {
        match octet {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(*octet),
            other => drop(write!(out, "%{other:02X}")),
        }
    }
    let ends_s = item.ends_ms.and_then(|ends_ms| i64::try_from(ends_ms / 1000).ok()).unwrap_or(-1);
    let (version, size) = (item.version, key.len() + item.value.len());
    let _ = writeln!(out, " exp={ends_s} la=0 cas={version} fetch=no cls=1 size={size}");
}

pub(super) fn stored(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done(_) => "STORED",
        Outcome::NotStored => "NOT_STORED",
        Outcome::Exists => "EXISTS",
        Outcome::NotFound => "NOT_FOUND",
        Outcome::NoMemory => "SERVER_ERROR out of memory storing object",
        Outcome::TooLarge => "SERVER_ERROR object too large for cache",
    }
}

/// As memcached counts: a number of 64 bits that begins again at 0, and goes down to 0 and no further.
fn count(store: &mut Store, key: &[u8], by: u64, up: bool, now_ms: u64) -> Result<u64, &'static str> {
    let item = store.get(key, now_ms).ok_or("NOT_FOUND")?;
    let before: u64 =
        number(&item.value).ok_or("CLIENT_ERROR cannot increment or decrement non-numeric value")?;
    let now = if up { before.wrapping_add(by) } else { before.saturating_sub(by) };
    let value = now.to_string();
    let put = Put {
        key,
        value: value.as_bytes(),
        flags: item.flags,
        expiry: item.ends_ms.map_or(Expiry::Never, Expiry::AtMs),
        mode: Mode::Set,
        version: Some(item.version),
    };
    match store.put(put, now_ms) {
        Outcome::Done(_) => Ok(now),
        other => Err(stored(other)),
    }
}
