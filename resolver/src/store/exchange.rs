//! Requests and answers of memcached's meta protocol, as much of it as the stores say. Without I/O: what is to be
//! written goes out as octets, what was read is fed in as it comes.
//!
//! Not the crate's: its reader takes memory for whatever length a server claims, up to 1 GiB, and makes a dozen
//! allocations for each answer. See ARCHITECTURE.md.

use std::io::Write as _;
use std::time::Duration;

use memcache::exp::Error;

use crate::update::{Expect, Item, Request, Response, Version};

/// The longest first line of an answer.
pub(super) const MAX_LINE: usize = 2048;

/// The largest value: memcached's own default limit.
pub(super) const MAX_VALUE: usize = 1024 * 1024;

/// memcached reads an expiry above 30 days as a point in time. No lease is that long.
const MAX_EXPIRY_S: u64 = 30 * 24 * 60 * 60;

/// Some requests that are written at once, and their answers.
#[derive(Debug)]
pub(super) struct Exchange<'r> {
    requests: &'r [Request],
    /// The index of the server that is asked, for the versions of what is read there.
    server: usize,
    /// What a `Get` that is not whole has got so far.
    items: Vec<Option<Item>>,
    responses: Vec<Result<Response, Error>>,
}

impl<'r> Exchange<'r> {
    pub(super) fn new(requests: &'r [Request], server: usize) -> Exchange<'r> {
        let responses = Vec::with_capacity(requests.len());
        let mut exchange = Exchange { requests, server, items: Vec::new(), responses };
        exchange.skip_empty();
        exchange
    }

    /// What is to be written.
    pub(super) fn octets(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(self.requests.iter().map(length).sum());
        for request in self.requests {
            write(request, &mut octets);
        }
        octets
    }

    /// Whether every request has its answer.
    pub(super) fn is_over(&self) -> bool {
        self.responses.len() >= self.requests.len()
    }

    /// Takes the answers that are whole from what was read, and says how many octets these were. An error is the
    /// end of the connection: what follows could not be told apart.
    pub(super) fn feed(&mut self, octets: &[u8]) -> Result<usize, Error> {
        let mut used = 0;
        while let Some(request) = self.requests.get(self.responses.len()) {
            let Some((answer, length)) = answer(octets.get(used..).unwrap_or_default())? else { break };
            used += length;
            self.take(request, answer)?;
        }
        Ok(used)
    }

    /// The answers so far, in the order of the requests.
    pub(super) fn into_responses(self) -> Vec<Result<Response, Error>> {
        self.responses
    }

    /// Forgets the answers, to begin again on another connection.
    pub(super) fn restart(&mut self) {
        self.items.clear();
        self.responses.clear();
        self.skip_empty();
    }

    fn take(&mut self, request: &Request, answer: Answer<'_>) -> Result<(), Error> {
        let response = match (request, answer) {
            // Of one request only: the answers behind it come all the same.
            (_, Answer::Failed(why)) => Err(Error::Server(why)),
            (Request::Get { keys, .. }, Answer::Value { octets, cas }) => {
                let version = Version { cas, server: self.server };
                return self.item(keys.len(), Some(Item { value: octets.to_vec(), version }));
            }
            (Request::Get { keys, .. }, Answer::No) => return self.item(keys.len(), None),
            (Request::Get { .. }, Answer::Yes) | (_, Answer::Value { .. }) => {
                return Err(Error::Protocol("an answer of another kind".to_owned()));
            }
            (_, Answer::Yes) => Ok(Response::Done),
            (_, Answer::No) => Ok(Response::NotDone),
        };
        if let (Request::Get { keys, .. }, Err(_)) = (request, &response)
            && keys.len() > 1
        {
            // A failure in the middle of several keys: which answers are still to come is not worth counting.
            return response.map(|_| ());
        }
        self.end(response);
        Ok(())
    }

    fn item(&mut self, keys: usize, item: Option<Item>) -> Result<(), Error> {
        if self.items.is_empty() {
            self.items.reserve_exact(keys);
        }
        self.items.push(item);
        if self.items.len() >= keys {
            let items = std::mem::take(&mut self.items);
            self.end(Ok(Response::Items(items)));
        }
        Ok(())
    }

    fn end(&mut self, response: Result<Response, Error>) {
        self.responses.push(response);
        self.skip_empty();
    }

    /// A look-up of no keys has no answer.
    fn skip_empty(&mut self) {
        while let Some(Request::Get { keys, .. }) = self.requests.get(self.responses.len())
            && keys.is_empty()
        {
            self.responses.push(Ok(Response::Items(Vec::new())));
        }
    }
}

/// About as many octets as a request has.
fn length(request: &Request) -> usize {
    const WORDS: usize = 64;
    match request {
        Request::Get { keys, .. } => keys.iter().map(|key| key.len() + 9).sum(),
        Request::Put { key, value, .. } => key.len() + value.len() + WORDS,
        Request::Delete { key, .. } | Request::Touch { key, .. } => key.len() + WORDS,
    }
}

/// Keys have no spaces and no control characters: [`Cn`](crate::Cn) and the configuration's namespace see to it.
fn write(request: &Request, octets: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = match request {
        Request::Get { keys, .. } => keys.iter().try_for_each(|key| {
            octets.extend_from_slice(b"mg ");
            octets.extend_from_slice(key.as_bytes());
            octets.extend_from_slice(b" v c\r\n");
            Ok(())
        }),
        Request::Put { key, value, expiry, expect } => {
            let _ = write!(octets, "ms {key} {} T{}", value.len(), expiry_s(*expiry));
            let _ = match expect {
                Expect::Any => Ok(()),
                Expect::Absent => write!(octets, " ME"),
                Expect::Version(version) => write!(octets, " C{}", version.cas),
            };
            octets.extend_from_slice(b"\r\n");
            octets.extend_from_slice(value);
            write!(octets, "\r\n")
        }
        Request::Delete { key, version: None } => write!(octets, "md {key}\r\n"),
        Request::Delete { key, version: Some(version) } => write!(octets, "md {key} C{}\r\n", version.cas),
        Request::Touch { key, expiry } => write!(octets, "mg {key} T{}\r\n", expiry_s(Some(*expiry))),
    };
}

/// Whole seconds for memcached, so that a record never goes before its last lease: rounded up, and one more, as
/// memcached's clock ticks in seconds and the first one may be short. `None` is never.
fn expiry_s(expiry: Option<Duration>) -> u32 {
    let Some(expiry) = expiry else { return 0 };
    let seconds = expiry.as_secs().saturating_add(u64::from(expiry.subsec_nanos() > 0)).saturating_add(1);
    u32::try_from(seconds.clamp(1, MAX_EXPIRY_S)).unwrap_or(u32::MAX)
}

/// One answer.
#[derive(Debug, PartialEq, Eq)]
enum Answer<'o> {
    /// `HD`.
    Yes,
    /// `EN`, `NF`, `NS`, `EX`.
    No,
    /// `VA`, with the number for compare-and-swap.
    Value { octets: &'o [u8], cas: u64 },
    /// `SERVER_ERROR`: this one request was not carried out.
    Failed(String),
}

/// The first answer and its length; `None` while it is not whole. A length that is only claimed takes no memory.
fn answer(octets: &[u8]) -> Result<Option<(Answer<'_>, usize)>, Error> {
    let Some(end) = octets.iter().take(MAX_LINE).position(|octet| *octet == b'\n') else {
        return match octets.len() < MAX_LINE {
            true => Ok(None),
            false => Err(Error::Protocol(format!("an answer of more than {MAX_LINE} octets without an end"))),
        };
    };
    let line = octets.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.split(|octet| *octet == b' ');
    let answer = match words.next().unwrap_or_default() {
        b"HD" => Answer::Yes,
        b"EN" | b"NF" | b"NS" | b"EX" => Answer::No,
        b"VA" => return value(octets, end + 1, words),
        b"SERVER_ERROR" => Answer::Failed(text(line)),
        b"ERROR" | b"CLIENT_ERROR" => return Err(Error::Rejected(text(line))),
        _ => return Err(Error::Protocol(format!("unexpected answer '{}'", text(line)))),
    };
    Ok(Some((answer, end + 1)))
}

fn value<'o>(
    octets: &'o [u8],
    begin: usize,
    mut words: impl Iterator<Item = &'o [u8]>,
) -> Result<Option<(Answer<'o>, usize)>, Error> {
    let claimed = words.next().unwrap_or_default();
    let length = number(claimed).and_then(|length| usize::try_from(length).ok());
    let Some(length) = length.filter(|length| *length <= MAX_VALUE) else {
        let why = format!("a value of '{}': expected at most {MAX_VALUE} octets", text(claimed));
        return Err(Error::Protocol(why));
    };
    let cas = words.find_map(|word| word.strip_prefix(b"c")).and_then(number);
    let Some(cas) = cas else { return Err(Error::Protocol("a value without its version".to_owned())) };
    let end = begin + length;
    match octets.get(end..end + 2) {
        None => Ok(None),
        Some(b"\r\n") => {
            let octets = octets.get(begin..end).unwrap_or_default();
            Ok(Some((Answer::Value { octets, cas }, end + 2)))
        }
        Some(_) => Err(Error::Protocol("a value without its end".to_owned())),
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

/// The beginning of what a server said, for an error.
fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets.get(..80).unwrap_or(octets)).escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(keys: &[&str]) -> Request {
        Request::Get { keys: keys.iter().map(|key| (*key).to_owned()).collect(), any_copy: false }
    }

    fn put(expect: Expect) -> Request {
        let expiry = Some(Duration::from_secs(60));
        Request::Put { key: "k".to_owned(), value: b"va\r\nl".to_vec(), expiry, expect }
    }

    fn item(value: &[u8], cas: u64) -> Option<Item> {
        Some(Item { value: value.to_vec(), version: Version { cas, server: 3 } })
    }

    #[test]
    fn requests_are_commands() {
        let version = Version { cas: 7, server: 3 };
        let requests = [
            get(&["a", "b"]),
            put(Expect::Any),
            put(Expect::Absent),
            put(Expect::Version(version)),
            Request::Delete { key: "k".to_owned(), version: None },
            Request::Delete { key: "k".to_owned(), version: Some(version) },
            Request::Touch { key: "k".to_owned(), expiry: Duration::from_secs(600) },
        ];
        let octets = Exchange::new(&requests, 3).octets();
        let expected = "mg a v c\r\nmg b v c\r\nms k 5 T61\r\nva\r\nl\r\nms k 5 T61 ME\r\nva\r\nl\r\n\
                        ms k 5 T61 C7\r\nva\r\nl\r\nmd k\r\nmd k C7\r\nmg k T601\r\n";
        assert_eq!(String::from_utf8(octets).unwrap(), expected);
    }

    #[test]
    fn answers_may_come_in_any_pieces() {
        let requests = [get(&["a", "b"]), get(&[]), put(Expect::Absent), put(Expect::Any), get(&["c"])];
        let read = b"VA 5 c12\r\nva\r\nl\r\nEN\r\nNS\r\nHD\r\nVA 0 c18446744073709551615\r\n\r\n";
        let expected = [
            Response::Items(vec![item(b"va\r\nl", 12), None]),
            Response::Items(Vec::new()),
            Response::NotDone,
            Response::Done,
            Response::Items(vec![item(b"", u64::MAX)]),
        ];
        for piece in 1..=read.len() {
            let mut exchange = Exchange::new(&requests, 3);
            let mut kept = Vec::new();
            for part in read.chunks(piece) {
                assert!(!exchange.is_over());
                kept.extend_from_slice(part);
                let used = exchange.feed(&kept).unwrap();
                kept.drain(..used);
            }
            assert!(exchange.is_over() && kept.is_empty(), "in pieces of {piece}");
            let responses: Vec<Response> =
                exchange.into_responses().into_iter().map(Result::unwrap).collect();
            assert_eq!(responses, expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_behind_the_last_answer_stays() {
        let requests = [get(&["a"])];
        let mut exchange = Exchange::new(&requests, 0);
        assert_eq!(exchange.feed(b"EN\r\nEN\r\n").unwrap(), 4);
        exchange.restart();
        assert!(!exchange.is_over());
        assert_eq!(exchange.feed(b"EN\r\n").unwrap(), 4);
    }

    #[test]
    fn a_failed_request_fails_by_itself() {
        let requests = [put(Expect::Any), put(Expect::Any)];
        let mut exchange = Exchange::new(&requests, 0);
        let read = b"SERVER_ERROR out of memory storing object\r\nHD\r\n";
        assert_eq!(exchange.feed(read).unwrap(), read.len());
        let responses = exchange.into_responses();
        assert!(matches!(&responses[0], Err(Error::Server(why)) if why.contains("out of memory")));
        assert!(matches!(&responses[1], Ok(Response::Done)));
    }

    #[test]
    fn nonsense_ends_the_connection() {
        let long = "x".repeat(MAX_LINE);
        for (read, part) in [
            ("VA 1048577 c1\r\n", "at most 1048576"),
            ("VA -1 c1\r\n", "'-1'"),
            ("VA +1 c1\r\n", "'+1'"),
            ("VA\r\n", "''"),
            ("VA 1\r\n", "without its version"),
            ("VA 1 c1\r\nxyz", "without its end"),
            ("HD\r\n", "of another kind"),
            ("ERROR\r\n", "ERROR"),
            ("STORED\r\n", "STORED"),
            ("SERVER_ERROR no\r\n", "no"),
            (&long, "without an end"),
        ] {
            let requests = [get(&["a", "b"])];
            let error = Exchange::new(&requests, 0).feed(read.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(part), "{read}: {error}");
        }
        let requests = [put(Expect::Any)];
        assert!(Exchange::new(&requests, 0).feed(b"VA 1 c1\r\nx\r\n").is_err());
    }

    #[test]
    fn an_expiry_is_never_short_and_never_zero() {
        assert_eq!(expiry_s(None), 0);
        assert_eq!(expiry_s(Some(Duration::ZERO)), 1);
        assert_eq!(expiry_s(Some(Duration::from_secs(1))), 2);
        assert_eq!(expiry_s(Some(Duration::from_millis(1001))), 3);
        assert_eq!(expiry_s(Some(Duration::from_secs(u64::MAX))), 2_592_000);
    }
}
