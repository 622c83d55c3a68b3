//! Some requests that are written at once, and their answers. Without I/O: what is to be written goes out as octets,
//! what was read is fed in as it comes.

use memcache::exp::{Error, MetaCommandResult, ReturnCode};

use super::answer::Answer;
use super::commands;
use crate::update::{Item, Request, Response, Version};

/// Which answer is whose, and what it means.
#[derive(Debug)]
pub(super) struct Exchange<'r> {
    requests: &'r [Request],
    /// The index of the server that is asked, for the versions of what is read there.
    server: usize,
    /// The connection that is used, by its number among all to this server: 1 is the first.
    connection: u64,
    /// Connections to this server so far.
    dialled: u64,
    /// What a `Get` that is not whole has got so far.
    items: Vec<Option<Item>>,
    /// What it was refused with.
    refused: Option<Error>,
    responses: Vec<Result<Response, Error>>,
}

impl<'r> Exchange<'r> {
    pub(super) fn new(requests: &'r [Request], server: usize) -> Exchange<'r> {
        let responses = Vec::with_capacity(requests.len());
        let items = Vec::new();
        Exchange { requests, server, connection: 0, dialled: 0, items, refused: None, responses }
    }

    /// Begins, or begins again, on a connection: its number, and how many there have been to this server. Gives what
    /// is to be written.
    pub(super) fn begin(&mut self, connection: u64, dialled: u64) -> Result<Vec<u8>, Error> {
        (self.connection, self.dialled) = (connection, dialled);
        self.items.clear();
        self.refused = None;
        self.responses.clear();
        self.skip();
        let mut octets = Vec::with_capacity(self.requests.iter().map(commands::length).sum());
        for request in self.requests.iter().filter(|request| self.unasked(request).is_none()) {
            commands::write(request, &mut octets)?;
        }
        Ok(octets)
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
            let Some(answer) = Answer::first(octets.get(used..).unwrap_or_default())? else { break };
            used += answer.length;
            self.take(request, answer.read())?;
        }
        Ok(used)
    }

    /// The answers so far, in the order of the requests.
    pub(super) fn into_responses(self) -> Vec<Result<Response, Error>> {
        self.responses
    }

    fn take(&mut self, request: &Request, answer: Result<MetaCommandResult, Error>) -> Result<(), Error> {
        let response = match (request, answer) {
            // Of one request only: the answers behind it come all the same, those to its other keys as well.
            (Request::Get { keys, .. }, Err(error @ Error::Server(_))) => {
                self.refused = Some(error);
                return self.item(keys.len(), None);
            }
            (_, Err(error @ Error::Server(_))) => Err(error),
            (_, Err(error)) => return Err(error),
            (Request::Get { keys, .. }, Ok(answer)) => return self.item(keys.len(), self.found(answer)?),
            (Request::Size { .. }, Ok(answer)) => Ok(Response::Size(self.size(&answer)?)),
            (_, Ok(answer)) => match answer.rc {
                ReturnCode::Hd => Ok(Response::Done),
                ReturnCode::En | ReturnCode::Nf | ReturnCode::Ns | ReturnCode::Ex => Ok(Response::NotDone),
                _ => return Err(of_another_kind()),
            },
        };
        self.end(response);
        Ok(())
    }

    fn found(&self, answer: MetaCommandResult) -> Result<Option<Item>, Error> {
        match (answer.rc, answer.value, answer.cas) {
            (ReturnCode::Va, Some(value), Some(cas)) => {
                Ok(Some(Item { value, version: Version { cas, server: self.server, dialled: self.dialled } }))
            }
            (ReturnCode::Va, ..) => Err(Error::Protocol("a value without its version".to_owned())),
            (ReturnCode::En, ..) => Ok(None),
            _ => Err(of_another_kind()),
        }
    }

    fn size(&self, answer: &MetaCommandResult) -> Result<Option<(usize, Version)>, Error> {
        match (answer.rc, answer.size, answer.cas) {
            (ReturnCode::Hd, Some(octets), Some(cas)) => {
                let version = Version { cas, server: self.server, dialled: self.dialled };
                Ok(Some((usize::try_from(octets).unwrap_or(usize::MAX), version)))
            }
            (ReturnCode::Hd, ..) => Err(Error::Protocol("no size or no version".to_owned())),
            (ReturnCode::En, ..) => Ok(None),
            _ => Err(of_another_kind()),
        }
    }

    fn item(&mut self, keys: usize, item: Option<Item>) -> Result<(), Error> {
        if self.items.is_empty() {
            self.items.reserve_exact(keys);
        }
        self.items.push(item);
        if self.items.len() >= keys {
            let items = std::mem::take(&mut self.items);
            let refused = self.refused.take();
            self.end(refused.map_or(Ok(Response::Items(items)), Err));
        }
        Ok(())
    }

    fn end(&mut self, response: Result<Response, Error>) {
        self.responses.push(response);
        self.skip();
    }

    /// Answers those that are not asked.
    fn skip(&mut self) {
        while let Some(response) =
            self.requests.get(self.responses.len()).and_then(|request| self.unasked(request))
        {
            self.responses.push(Ok(response));
        }
    }

    /// The answer to a request that is not asked: a look-up of no keys, what concerns copies only, and a write over a connection that is younger
    /// than what it was made of. The memcached that this one leads to may be another one, restarted, whose versions
    /// begin again.
    fn unasked(&self, request: &Request) -> Option<Response> {
        match request {
            Request::Get { keys, .. } if keys.is_empty() => Some(Response::Items(Vec::new())),
            Request::Copy { .. } => Some(Response::Done),
            request if request.version().is_some_and(|version| version.dialled < self.connection) => {
                Some(Response::NotDone)
            }
            _ => None,
        }
    }
}

fn of_another_kind() -> Error {
    Error::Protocol("an answer of another kind".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::Expect;

    fn get(keys: &[&str]) -> Request {
        Request::Get { keys: keys.iter().map(|key| (*key).to_owned()).collect(), any_copy: false }
    }

    fn put(expect: Expect) -> Request {
        Request::Put { key: "k".to_owned(), value: b"v".to_vec(), expiry: None, expect }
    }

    fn item(value: &[u8], cas: u64) -> Option<Item> {
        Some(Item { value: value.to_vec(), version: Version { cas, server: 3, dialled: 9 } })
    }

    fn begun(requests: &[Request]) -> Exchange<'_> {
        let mut exchange = Exchange::new(requests, 3);
        exchange.begin(8, 9).unwrap();
        exchange
    }

    fn responses(exchange: Exchange<'_>) -> Vec<Response> {
        assert!(exchange.is_over());
        exchange.into_responses().into_iter().map(Result::unwrap).collect()
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
            let mut exchange = begun(&requests);
            let mut kept = Vec::new();
            for part in read.chunks(piece) {
                assert!(!exchange.is_over());
                kept.extend_from_slice(part);
                let used = exchange.feed(&kept).unwrap();
                kept.drain(..used);
            }
            assert!(kept.is_empty());
            assert_eq!(responses(exchange), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_behind_the_last_answer_stays() {
        let requests = [get(&["a"])];
        let mut exchange = begun(&requests);
        assert_eq!(exchange.feed(b"EN\r\nEN\r\n").unwrap(), 4);
        exchange.begin(9, 9).unwrap();
        assert!(!exchange.is_over());
        assert_eq!(exchange.feed(b"EN\r\n").unwrap(), 4);
    }

    #[test]
    fn a_write_does_not_go_over_a_connection_younger_than_its_read() {
        let version = Version { cas: 7, server: 3, dialled: 4 };
        let bound = put(Expect::Version(version));
        let delete = Request::Delete { key: "k".to_owned(), version: Some(version) };
        let requests = [bound.clone(), get(&["a"]), delete, put(Expect::Absent), bound];
        let mut exchange = Exchange::new(&requests, 3);
        let asked =
            |octets: Vec<u8>| octets.split(|octet| *octet == b'\n').filter(|l| l.starts_with(b"m")).count();
        assert_eq!(asked(exchange.begin(4, 6).unwrap()), 5, "older than the read");
        assert_eq!(asked(exchange.begin(5, 6).unwrap()), 2, "younger");
        exchange.feed(b"EN\r\nHD\r\n").unwrap();
        let not_done = Response::NotDone;
        let expected =
            [not_done.clone(), Response::Items(vec![None]), not_done.clone(), Response::Done, not_done];
        assert_eq!(responses(exchange), expected);
    }

    #[test]
    fn a_failed_request_fails_by_itself() {
        let requests = [put(Expect::Any), put(Expect::Any)];
        let mut exchange = begun(&requests);
        let read = b"SERVER_ERROR out of memory storing object\r\nHD\r\n";
        assert_eq!(exchange.feed(read).unwrap(), read.len());
        let responses = exchange.into_responses();
        assert!(matches!(&responses[0], Err(Error::Server(why)) if why.contains("out of memory")));
        assert!(matches!(&responses[1], Ok(Response::Done)));
        // One key of two: the other's answer is not taken for the next request's.
        let requests = [get(&["a", "b"]), get(&["c", "d"])];
        let mut exchange = begun(&requests);
        let read = b"SERVER_ERROR out of memory\r\nVA 1 c1\r\nb\r\nEN\r\nEN\r\n";
        assert_eq!(exchange.feed(read).unwrap(), read.len());
        let responses = exchange.into_responses();
        assert!(matches!(&responses[0], Err(Error::Server(_))), "{responses:?}");
        assert_eq!(responses[1].as_ref().unwrap(), &Response::Items(vec![None, None]));
    }

    #[test]
    fn nonsense_ends_the_connection() {
        for (read, part) in [
            ("VA 1048577 c1\r\n", "at most 1048576"),
            ("VA 1\r\nx\r\n", "without its version"),
            ("VA 1 cx\r\nx\r\n", "invalid numeric flag"),
            ("HD\r\n", "of another kind"),
            ("NS\r\n", "of another kind"),
            ("ERROR\r\n", "ERROR"),
            ("STORED\r\n", "STORED"),
        ] {
            let error = begun(&[get(&["a", "b"])]).feed(read.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(part), "{read}: {error}");
        }
        assert!(begun(&[put(Expect::Any)]).feed(b"VA 1 c1\r\nx\r\n").is_err());
        assert!(begun(&[put(Expect::Any)]).feed(b"MN\r\n").is_err());
    }
}
