//! Answers of the meta protocol, with the flags that resolvers use. Without I/O and without a clock.

use std::io::Write as _;

use super::request::{number, words};
use super::store::{Expiry, Mode, Outcome, Put, Store};
use super::text::{line, stored};

const BAD_FLAG: &str = "CLIENT_ERROR invalid flag";

/// `mg`: `v` value, `c` version, `f` client's flags, `s` size, `t` seconds left, `k` key; `T` changes the end; `O` comes
/// back as it is, `q` says nothing of what is not there.
pub(super) fn get(key: &[u8], flags: &[u8], store: &mut Store, now_ms: u64, out: &mut Vec<u8>) {
    let (mut value, mut quiet, mut touch) = (false, false, None);
    for flag in words(flags) {
        match flag {
            b"v" => value = true,
            b"q" => quiet = true,
            b"c" | b"f" | b"s" | b"t" | b"k" | [b'O', ..] => {}
            [b'T', seconds @ ..] => match number::<i64>(seconds) {
                Some(seconds) => touch = Some(Expiry::of(seconds, now_ms)),
                None => return line(out, BAD_FLAG),
            },
            _ => return line(out, BAD_FLAG),
        }
    }
    let found = match touch {
        Some(expiry) => store.touch(key, expiry, now_ms),
        None => store.get(key, now_ms),
    };
    let Some(item) = found else {
        return if quiet { () } else { line(out, "EN") };
    };
    // Writing to memory does not fail.
    let _ = match value {
        true => write!(out, "VA {}", item.value.len()),
        false => write!(out, "HD"),
    };
    for flag in words(flags) {
        let _ = match flag {
            b"c" => write!(out, " c{}", item.version),
            b"f" => write!(out, " f{}", item.flags),
            b"s" => write!(out, " s{}", item.value.len()),
            b"t" => match item.ends_ms {
                Some(ends_ms) => write!(out, " t{}", ends_ms.saturating_sub(now_ms) / 1000),
                None => write!(out, " t-1"),
            },
            _ => Ok(()),
        };
        echo(flag, key, out);
    }
    out.extend_from_slice(b"\r\n");
    if value {
        out.extend_from_slice(&item.value);
        out.extend_from_slice(b"\r\n");
    }
}

/// `ms`: `T` end, `F` client's flags, `C` only of this version, `M` mode (`E` add, `A` append, `P` prepend, `R` replace,
/// `S` set), `c` the new version comes back; `k`, `O` and `q` as above, but `q` says nothing of what is done.
pub(super) fn put(key: &[u8], value: &[u8], flags: &[u8], store: &mut Store, now_ms: u64, out: &mut Vec<u8>) {
    let mut put = Put { key, value, flags: 0, expiry: Expiry::Never, mode: Mode::Set, version: None };
    let mut quiet = false;
    for flag in words(flags) {
        let known = match flag {
            b"q" => {
                quiet = true;
                Some(())
            }
            b"c" | b"k" | [b'O', ..] => Some(()),
            [b'T', rest @ ..] => number(rest).map(|said| put.expiry = Expiry::of(said, now_ms)),
            [b'F', rest @ ..] => number(rest).map(|said| put.flags = said),
            [b'C', rest @ ..] => number(rest).map(|said| put.version = Some(said)),
            [b'M', rest @ ..] => mode(rest).map(|said| put.mode = said),
            _ => None,
        };
        if known.is_none() {
            return line(out, BAD_FLAG);
        }
    }
    let outcome = store.put(put, now_ms);
    end(outcome, quiet && matches!(outcome, Outcome::Done(_)), key, flags, out);
}

/// `md`: `C` only of this version; `k` and `O` as above, `q` says nothing of what is gone.
pub(super) fn delete(key: &[u8], flags: &[u8], store: &mut Store, now_ms: u64, out: &mut Vec<u8>) {
    let (mut quiet, mut version) = (false, None);
    for flag in words(flags) {
        match flag {
            b"q" => quiet = true,
            b"k" | [b'O', ..] => {}
            [b'C', rest @ ..] => match number(rest) {
                Some(said) => version = Some(said),
                None => return line(out, BAD_FLAG),
            },
            _ => return line(out, BAD_FLAG),
        }
    }
    let outcome = store.delete(key, version, now_ms);
    end(outcome, quiet && outcome != Outcome::Exists, key, flags, out);
}

fn end(outcome: Outcome, silent: bool, key: &[u8], flags: &[u8], out: &mut Vec<u8>) {
    let (code, version) = match outcome {
        Outcome::Done(version) => ("HD", version),
        Outcome::NotStored => ("NS", 0),
        Outcome::Exists => ("EX", 0),
        Outcome::NotFound => ("NF", 0),
        Outcome::NoMemory | Outcome::TooLarge => return line(out, stored(outcome)),
    };
    if silent {
        return;
    }
    out.extend_from_slice(code.as_bytes());
    for flag in words(flags) {
        if flag == b"c" {
            let _ = write!(out, " c{version}");
        }
        echo(flag, key, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Flags that come back.
fn echo(flag: &[u8], key: &[u8], out: &mut Vec<u8>) {
    match flag {
        b"k" => {
            out.extend_from_slice(b" k");
            out.extend_from_slice(key);
        }
        [b'O', ..] => {
            out.push(b' ');
            out.extend_from_slice(flag);
        }
        _ => {}
    }
}

fn mode(letter: &[u8]) -> Option<Mode> {
    Some(match letter {
        b"S" | b"s" => Mode::Set,
        b"E" | b"e" => Mode::Add,
        b"R" | b"r" => Mode::Replace,
        b"A" | b"a" => Mode::Append,
        b"P" | b"p" => Mode::Prepend,
        _ => return None,
    })
}
