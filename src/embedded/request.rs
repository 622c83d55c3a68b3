//! Reads requests out of octets: memcached's text protocol and the part of its meta protocol that resolvers speak.
//! Without I/O; no memory is taken for what is only claimed.

use super::store::{MAX_KEY, MAX_VALUE, Mode};

/// The longest line. (memcached has 2048, and more for the keys of a `get`.)
pub(super) const MAX_LINE: usize = 8192;

/// The first octet of the binary protocol.
const BINARY: u8 = 0x80;

/// A request. Texts in it stand in what was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request<'o> {
    /// `get`, `gets`: keys with spaces in between.
    Get { keys: &'o [u8], versions: bool },
    /// `set`, `add`, `replace`, `append`, `prepend`, `cas`.
    Put {
        key: &'o [u8],
        value: &'o [u8],
        flags: u32,
        expiry_s: i64,
        mode: Mode,
        version: Option<u64>,
        quiet: bool,
    },
    /// `delete`.
    Delete { key: &'o [u8], quiet: bool },
    /// `touch`.
    Touch { key: &'o [u8], expiry_s: i64, quiet: bool },
    /// `incr`, `decr`.
    Count { key: &'o [u8], by: u64, up: bool, quiet: bool },
    /// `flush_all`.
    Flush { quiet: bool },
    /// `mg`: flags with spaces in between.
    MetaGet { key: &'o [u8], flags: &'o [u8] },
    /// `ms`.
    MetaPut { key: &'o [u8], value: &'o [u8], flags: &'o [u8] },
    /// `md`.
    MetaDelete { key: &'o [u8], flags: &'o [u8] },
    /// `mn`.
    MetaNoop,
    /// `lru_crawler metadump all`.
    Keys,
    /// `stats` without a subject; others have no rows.
    Statistics { whole: bool },
    /// `version`.
    Version,
    /// `verbosity`: changes nothing.
    Verbosity { quiet: bool },
    /// `quit`.
    Quit,
}

/// What stands at the beginning of some octets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading<'o> {
    /// Not a whole request yet; it has this many octets at least.
    Part { least: usize },
    /// A request, and its length.
    Whole(Request<'o>, usize),
    /// None that is served: the answer, the length of what is understood of it, and how many octets behind belong to
    /// it and say nothing.
    Refused { answer: &'static str, used: usize, skip: u64 },
    /// What follows cannot be told apart: the answer, and the end of the connection.
    Lost(&'static str),
    /// The binary protocol: the end of the connection, too.
    Binary,
}

const ERROR: &str = "ERROR";
const BAD_LINE: &str = "CLIENT_ERROR bad command line format";
const BAD_VALUE: &str = "CLIENT_ERROR bad data chunk";
const TOO_LARGE: &str = "SERVER_ERROR object too large for cache";

pub(super) fn read(octets: &[u8]) -> Reading<'_> {
    if octets.first() == Some(&BINARY) {
        return Reading::Binary;
    }
    let Some(end) = octets.iter().take(MAX_LINE).position(|octet| *octet == b'\n') else {
        return match octets.len() < MAX_LINE {
            true => Reading::Part { least: octets.len() + 1 },
            false => Reading::Lost("CLIENT_ERROR line too long"),
        };
    };
    let line = octets.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let used = end + 1;
    let refused = |answer| Reading::Refused { answer, used, skip: 0 };
    let (command, rest) = word(line);
    let (key, behind) = word(rest);
    let quiet = rest.ends_with(b" noreply");
    let put = |mode, with_version| put(octets, used, rest, mode, with_version);
    let request = match command {
        b"get" | b"gets" => Some(Request::Get { keys: rest, versions: command == b"gets" })
            .filter(|_| words(rest).next().is_some() && words(rest).all(is_key)),
        b"set" => return put(Mode::Set, false),
        b"add" => return put(Mode::Add, false),
        b"replace" => return put(Mode::Replace, false),
        b"append" => return put(Mode::Append, false),
        b"prepend" => return put(Mode::Prepend, false),
        b"cas" => return put(Mode::Set, true),
        b"ms" => return meta_put(octets, used, rest),
        // An old client says a time behind the key, which must be 0.
        b"delete" => Some(Request::Delete { key, quiet })
            .filter(|_| is_key(key) && matches!(behind, b"" | b"0" | b"noreply" | b"0 noreply")),
        b"touch" => number(word(behind).0).map(|expiry_s| Request::Touch { key, expiry_s, quiet }),
        b"incr" | b"decr" => {
            number(word(behind).0).map(|by| Request::Count { key, by, up: command == b"incr", quiet })
        }
        b"mg" => Some(Request::MetaGet { key, flags: behind }),
        b"md" => Some(Request::MetaDelete { key, flags: behind }),
        b"mn" => return Reading::Whole(Request::MetaNoop, used),
        b"flush_all" => return Reading::Whole(Request::Flush { quiet: quiet || rest == b"noreply" }, used),
        b"stats" => return Reading::Whole(Request::Statistics { whole: rest.is_empty() }, used),
        b"lru_crawler" if rest == b"metadump all" => return Reading::Whole(Request::Keys, used),
        b"version" => return Reading::Whole(Request::Version, used),
        b"verbosity" => return Reading::Whole(Request::Verbosity { quiet }, used),
        b"quit" => return Reading::Whole(Request::Quit, used),
        _ => return refused(ERROR),
    };
    match request {
        Some(request) if is_key(key) => Reading::Whole(request, used),
        _ if key.is_empty() => refused(ERROR),
        _ => refused(BAD_LINE),
    }
}

fn put<'o>(octets: &'o [u8], used: usize, rest: &'o [u8], mode: Mode, with_version: bool) -> Reading<'o> {
    let mut words = words(rest);
    let key = words.next().unwrap_or_default();
    let flags = words.next().and_then(number::<u32>);
    let expiry_s = words.next().and_then(number::<i64>);
    let length = words.next();
    let version = if with_version { Some(words.next().and_then(number::<u64>)) } else { None };
    let quiet = match (words.next(), words.next()) {
        (None, _) => Some(false),
        (Some(b"noreply"), None) => Some(true),
        _ => None,
    };
    let Some(length) = length else { return Reading::Refused { answer: ERROR, used, skip: 0 } };
    let whole = match (flags, expiry_s, version, quiet) {
        (Some(flags), Some(expiry_s), None, Some(quiet)) => Some((flags, expiry_s, None, quiet)),
        (Some(flags), Some(expiry_s), Some(Some(version)), Some(quiet)) => {
            Some((flags, expiry_s, Some(version), quiet))
        }
        _ => None,
    };
    value(octets, used, key, length, whole.is_some(), |value| {
        let (flags, expiry_s, version, quiet) = whole?;
        Some(Request::Put { key, value, flags, expiry_s, mode, version, quiet })
    })
}

fn meta_put<'o>(octets: &'o [u8], used: usize, rest: &'o [u8]) -> Reading<'o> {
    let (key, behind) = word(rest);
    let (length, flags) = word(behind);
    value(octets, used, key, length, true, |value| Some(Request::MetaPut { key, value, flags }))
}

/// The value behind a line. Where the line is wrong, the value still belongs to it.
fn value<'o>(
    octets: &'o [u8],
    used: usize,
    key: &[u8],
    length: &[u8],
    line_is_good: bool,
    request: impl FnOnce(&'o [u8]) -> Option<Request<'o>>,
) -> Reading<'o> {
    let Some(length) = number::<u32>(length) else {
        return Reading::Refused { answer: BAD_VALUE, used, skip: 0 };
    };
    let skip = u64::from(length) + 2;
    if !(line_is_good && is_key(key)) {
        return Reading::Refused { answer: BAD_LINE, used, skip };
    }
    let Some(length) = usize::try_from(length).ok().filter(|length| *length <= MAX_VALUE) else {
        return Reading::Refused { answer: TOO_LARGE, used, skip };
    };
    let end = used + length;
    match octets.get(end..end + 2) {
        None => Reading::Part { least: end + 2 },
        Some(b"\r\n") => match request(octets.get(used..end).unwrap_or_default()) {
            Some(request) => Reading::Whole(request, end + 2),
            None => Reading::Refused { answer: BAD_LINE, used: end + 2, skip: 0 },
        },
        Some(_) => Reading::Lost(BAD_VALUE),
    }
}

/// Words of a line, which spaces separate.
pub(super) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|octet| *octet == b' ').filter(|word| !word.is_empty())
}

/// The first word, and what stands behind it.
fn word(line: &[u8]) -> (&[u8], &[u8]) {
    let line = line.trim_ascii();
    let end = line.iter().position(|octet| *octet == b' ').unwrap_or(line.len());
    let (word, rest) = line.split_at_checked(end).unwrap_or_default();
    (word, rest.trim_ascii_start())
}

/// A decimal number, and nothing else.
pub(super) fn number<T: std::str::FromStr>(word: &[u8]) -> Option<T> {
    let digits = word.strip_prefix(b"-").unwrap_or(word);
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(word).ok().filter(|_| plain)?.parse().ok()
}

fn is_key(word: &[u8]) -> bool {
    (1..=MAX_KEY).contains(&word.len()) && word.iter().all(|octet| *octet > b' ' && *octet != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (&'static str, u64) {
        match read(text.as_bytes()) {
            Reading::Refused { answer, skip, .. } => (answer, skip),
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn each_command_is_read() {
        let put = |mode, version| Request::Put {
            key: b"k",
            value: b"va\r\nl",
            flags: 3,
            expiry_s: -1,
            mode,
            version,
            quiet: false,
        };
        for (text, request) in [
            ("get a  b \r\n", Request::Get { keys: b"a  b", versions: false }),
            ("gets a\n", Request::Get { keys: b"a", versions: true }),
            ("set k 3 -1 5\r\nva\r\nl\r\n", put(Mode::Set, None)),
            ("cas k 3 -1 5 18446744073709551615\r\nva\r\nl\r\n", put(Mode::Set, Some(u64::MAX))),
            ("prepend k 3 -1 5\r\nva\r\nl\r\n", put(Mode::Prepend, None)),
            ("delete k\r\n", Request::Delete { key: b"k", quiet: false }),
            ("delete k 0 noreply\r\n", Request::Delete { key: b"k", quiet: true }),
            ("touch k 60 noreply\r\n", Request::Touch { key: b"k", expiry_s: 60, quiet: true }),
            ("decr k 2\r\n", Request::Count { key: b"k", by: 2, up: false, quiet: false }),
            ("flush_all noreply\r\n", Request::Flush { quiet: true }),
            ("mg k v c T60\r\n", Request::MetaGet { key: b"k", flags: b"v c T60" }),
            ("ms k 2 C7\r\nab\r\n", Request::MetaPut { key: b"k", value: b"ab", flags: b"C7" }),
            ("md k\r\n", Request::MetaDelete { key: b"k", flags: b"" }),
            ("mn\r\n", Request::MetaNoop),
            ("lru_crawler metadump all\r\n", Request::Keys),
            ("stats\r\n", Request::Statistics { whole: true }),
            ("stats slabs\r\n", Request::Statistics { whole: false }),
            ("version\r\n", Request::Version),
            ("quit\r\n", Request::Quit),
        ] {
            let octets = text.as_bytes();
            assert_eq!(read(octets), Reading::Whole(request, octets.len()), "{text:?}");
            for part in 0..octets.len() {
                assert!(matches!(read(&octets[..part]), Reading::Part { least } if least > part), "{text:?}");
            }
        }
    }

    #[test]
    fn what_is_none_is_refused_in_step() {
        let long = "k".repeat(251);
        for (text, answer, skip) in [
            ("\r\n", ERROR, 0),
            ("gat 1 k\r\n", ERROR, 0),
            ("lru_crawler enable\r\n", ERROR, 0),
            ("get\r\n", ERROR, 0),
            ("mg\r\n", ERROR, 0),
            ("get a\u{1} b\r\n", BAD_LINE, 0),
            (&format!("get a {long}\r\n"), BAD_LINE, 0),
            (&format!("mg {long} v\r\n"), BAD_LINE, 0),
            ("touch k x\r\n", BAD_LINE, 0),
            ("delete k 5\r\n", BAD_LINE, 0),
            ("incr k -1\r\n", BAD_LINE, 0),
            ("set k 0 0\r\n", ERROR, 0),
            ("set k 0 0 -1\r\n", BAD_VALUE, 0),
            ("set k x 0 5\r\n", BAD_LINE, 7),
            ("cas k 0 0 5 x\r\n", BAD_LINE, 7),
            ("set k 0 0 5 noreply x\r\n", BAD_LINE, 7),
            (&format!("set {long} 0 0 5\r\n"), BAD_LINE, 7),
            ("set k 0 0 1048577\r\n", TOO_LARGE, 1_048_579),
            ("ms k 4294967295\r\n", TOO_LARGE, 4_294_967_297),
            ("ms k x\r\n", BAD_VALUE, 0),
        ] {
            assert_eq!(refused(text), (answer, skip), "{text:?}");
        }
        assert_eq!(read(b"set k 0 0 1\r\nxyz"), Reading::Lost(BAD_VALUE));
        assert_eq!(read(b"\x80\x0b\0\0"), Reading::Binary);
        assert_eq!(read(&[b'x'; MAX_LINE]), Reading::Lost("CLIENT_ERROR line too long"));
    }
}
