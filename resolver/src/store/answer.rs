//! Where an answer of memcached's meta protocol ends; what it says the crate reads.
//!
//! The crate's own reader is not used: it takes memory for whatever length a server claims, up to 1 GiB, and for
//! lines of any length. Here both are checked before memory is taken.

use memcache::exp::{Error, MetaCommandResult, MetaResponse, parse_meta_result};

/// The longest first line of an answer.
pub(super) const MAX_LINE: usize = 2048;

/// The largest value: memcached's own default limit.
pub(super) const MAX_VALUE: usize = 1024 * 1024;

/// The first memcached that answers `HD` and takes the length of a value as we write it (its release notes).
const EXPECTED: &str = "expected memcached 1.6.10 or later";

/// What of a server's words is shown in an error.
const SHOWN: usize = 80;

/// One whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer<'o> {
    /// Without its end.
    line: &'o [u8],
    value: Option<&'o [u8]>,
    /// Octets of all of it.
    pub(super) length: usize,
}

impl<'o> Answer<'o> {
    /// The first answer; `None` while it is not whole. A length that is only claimed takes no memory.
    pub(super) fn first(octets: &'o [u8]) -> Result<Option<Answer<'o>>, Error> {
        let Some(end) = octets.iter().take(MAX_LINE).position(|octet| *octet == b'\n') else {
            return match octets.len() < MAX_LINE {
                true => Ok(None),
                false => {
                    Err(Error::Protocol(format!("an answer of more than {MAX_LINE} octets without an end")))
                }
            };
        };
        let line = octets.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let begin = end + 1;
        // As the crate takes a line apart.
        let mut words = line.split(|octet| *octet == b' ').filter(|word| !word.is_empty());
        if words.next() != Some(b"VA") {
            return Ok(Some(Answer { line, value: None, length: begin }));
        }
        let end = begin + claimed(words.next().unwrap_or_default())?;
        match octets.get(end..end + 2) {
            None => Ok(None),
            Some(b"\r\n") => Ok(Some(Answer { line, value: octets.get(begin..end), length: end + 2 })),
            Some(_) => Err(Error::Protocol("a value without its end".to_owned())),
        }
    }

    /// What the crate reads in it. [`Error::Server`] is of this one answer; after any other error the answers
    /// behind it could be anybody's.
    pub(super) fn read(&self) -> Result<MetaCommandResult, Error> {
        let mut result = MetaResponse::parse_header(self.line).and_then(parse_meta_result).map_err(shown)?;
        result.value = self.value.map(<[u8]>::to_vec);
        Ok(result)
    }
}

/// The length that a `VA` line claims.
fn claimed(word: &[u8]) -> Result<usize, Error> {
    let digits = Some(word).filter(|word| word.iter().all(u8::is_ascii_digit));
    let length = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    length.filter(|length| *length <= MAX_VALUE).ok_or_else(|| {
        let claimed = text(&String::from_utf8_lossy(word));
        Error::Protocol(format!("a value of '{claimed}': expected at most {MAX_VALUE} octets"))
    })
}

/// Without what a server should not be able to write into a log. Who does not understand us is told to be older than
/// what we need: our commands are right, and nothing else gets answers of this form.
fn shown(error: Error) -> Error {
    match error {
        Error::Server(why) => Error::Server(text(&why)),
        Error::Rejected(why) => Error::Rejected(format!("{}: {EXPECTED}", text(&why))),
        // The crate has escaped it.
        Error::Protocol(why) => {
            let why: String = why.chars().take(SHOWN).collect();
            Error::Protocol(format!("{why}: {EXPECTED}"))
        }
        other => other,
    }
}

fn text(said: &str) -> String {
    said.chars().take(SHOWN).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use memcache::exp::ReturnCode;

    use super::*;

    fn first(octets: &str) -> Answer<'_> {
        Answer::first(octets.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn an_answer_ends_behind_its_line_or_its_value() {
        for (octets, length, rc, value, cas) in [
            ("HD\r\nEN\r\n", 4, ReturnCode::Hd, None, None),
            ("NS\n", 3, ReturnCode::Ns, None, None),
            ("VA 5 c12\r\nva\r\nl\r\nEN", 17, ReturnCode::Va, Some(&b"va\r\nl"[..]), Some(12)),
            ("VA  0  c18446744073709551615 \r\n\r\n", 33, ReturnCode::Va, Some(&b""[..]), Some(u64::MAX)),
        ] {
            let answer = first(octets);
            assert_eq!(answer.length, length, "{octets:?}");
            let result = answer.read().unwrap();
            assert_eq!((result.rc, result.value.as_deref(), result.cas), (rc, value, cas), "{octets:?}");
            for part in 0..length {
                assert_eq!(Answer::first(&octets.as_bytes()[..part]).unwrap(), None, "{part} of {octets:?}");
            }
        }
    }

    #[test]
    fn nonsense_is_refused_before_it_is_whole() {
        let long = "x".repeat(MAX_LINE);
        for (octets, part) in [
            ("VA 1048577 c1\r\n", "'1048577': expected at most 1048576"),
            ("VA 99999999999999999999999 c1\r\n", "at most 1048576"),
            ("VA -1 c1\r\n", "'-1'"),
            ("VA +1 c1\r\n", "'+1'"),
            ("VA\r\n", "''"),
            ("VA 1 c1\r\nxyz", "without its end"),
            (&long, "without an end"),
        ] {
            let error = Answer::first(octets.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(part), "{octets}: {error}");
        }
    }

    #[test]
    fn what_a_server_says_is_shown_without_its_control_characters_and_not_for_long() {
        let long = format!("SERVER_ERROR {}\r\n", "x".repeat(1000));
        for (octets, part) in [
            ("ERROR\r\n", "rejected by server: ERROR: expected memcached 1.6.10 or later"),
            // As 1.6.9 answers a write that it has done.
            ("OK\r\n", "expected memcached 1.6.10 or later"),
            ("CLIENT_ERROR bad\x1b[31m\r\n", "bad\\u{1b}[31m: expected memcached 1.6.10"),
            ("SERVER_ERROR out of memory\r\n", "server error: out of memory"),
            ("STORED\r\n", "STORED"),
            ("\r\n", "empty"),
            (&long, "xxx"),
        ] {
            let error = first(octets).read().unwrap_err().to_string();
            assert!(error.contains(part) && error.len() < 200, "{octets}: {error}");
            assert!(!error.contains(char::is_control), "{error}");
        }
    }
}
