//! The compare-and-swap loop, without I/O: it says what to ask of the store, is told the answer, and ends.

use std::time::Duration;

use crate::edit::{Change, Edit};
use crate::error::ResolverError;

/// Attempts without a pause in between.
const EAGER_ATTEMPTS: u32 = 4;

/// How much longer the pause may be after each further attempt.
const PAUSE_US: u64 = 100;

/// Attempts after which it grows no more.
const LATEST: u32 = 64;

/// What to ask of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// The values of keys, in one round trip. `any_copy`: they are only looked at, and a copy will do where the
    /// server itself is out of reach. (What is to be written back must not come from one: its version is another's.)
    Get { keys: Vec<String>, any_copy: bool },
    /// How many octets a value has, without the value.
    Size { key: String },
    /// A value, if the record is as expected.
    Put { key: String, value: Vec<u8>, expiry: Option<Duration>, expect: Expect },
    /// More octets behind a value, if the record is as it was read, or whatever it is. Its expiry stays.
    Append { key: String, value: Vec<u8>, version: Option<Version> },
    /// No value any more, if the record is as it was read, or whatever it is.
    Delete { key: String, version: Option<Version> },
    /// Whether a key is there; extends its life.
    Touch { key: String, expiry: Duration },
    /// The copies of a record, and not the record itself, are to have this value for ever, or none: as well as it can be
    /// done. The answer is always that it is.
    Copy { key: String, value: Option<Vec<u8>> },
}

impl Request {
    /// The key that decides on the server: the first. Those of one `Get` are of one user, and in one place.
    pub(crate) fn key(&self) -> &str {
        self.keys().first().map_or("", String::as_str)
    }

    /// All of its keys.
    pub(crate) fn keys(&self) -> &[String] {
        match self {
            Request::Get { keys, .. } => keys,
            Request::Size { key }
            | Request::Put { key, .. }
            | Request::Append { key, .. }
            | Request::Delete { key, .. }
            | Request::Touch { key, .. }
            | Request::Copy { key, .. } => std::slice::from_ref(key),
        }
    }

    pub(crate) fn keys_mut(&mut self) -> &mut [String] {
        match self {
            Request::Get { keys, .. } => keys,
            Request::Size { key }
            | Request::Put { key, .. }
            | Request::Append { key, .. }
            | Request::Delete { key, .. }
            | Request::Touch { key, .. }
            | Request::Copy { key, .. } => std::slice::from_mut(key),
        }
    }

    /// The version that a write expects.
    pub(crate) fn version(&self) -> Option<Version> {
        match self {
            Request::Put { expect: Expect::Version(version), .. }
            | Request::Append { version: Some(version), .. }
            | Request::Delete { version: Some(version), .. } => Some(*version),
            _ => None,
        }
    }

    /// The server that a write is bound to, by the version that it expects.
    pub(crate) fn bound_to(&self) -> Option<usize> {
        self.version().map(|version| version.server)
    }
}

/// The state in which a record was read. A number of memcached's is one process's own: another server's record may
/// have the same, and so may a record that was written after a restart. A version is nothing without its server, nor
/// over a connection that was not there when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    /// memcached's number for compare-and-swap.
    pub(crate) cas: u64,
    /// The index of the server that it was read from.
    pub(crate) server: usize,
    /// How many connections to that server there had been when it was read: of these, one that still answers leads to
    /// the same process. (A connection ends with the process behind it.)
    pub(crate) dialled: u64,
}

/// What a record must be for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Anything.
    Any,
    /// Not there.
    Absent,
    /// Unchanged since this was read, and on the server it was read from.
    Version(Version),
}

/// What a store answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Response {
    /// To `Get`: one entry for each key.
    Items(Vec<Option<Item>>),
    /// To `Size`: the octets, and in which state the record was.
    Size(Option<(usize, Version)>),
    /// The write or the touch happened.
    Done,
    /// The record was not as expected, or, to `Touch`, not there.
    NotDone,
}

/// A stored value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) value: Vec<u8>,
    pub(crate) version: Version,
}

/// The next step of an update.
pub(crate) enum Step<T> {
    /// Ask this.
    Ask(Request),
    /// It is over.
    Over(T),
}

/// One read-modify-write in progress.
pub(crate) struct Update<E: Edit> {
    edit: E,
    key: String,
    attempts: u32,
    /// The outcome, once the write that it belongs to is on its way.
    outcome: Option<E::Outcome>,
}

impl<E: Edit> Update<E> {
    pub(crate) fn new(edit: E) -> Update<E> {
        let key = edit.key();
        Update { edit, key, attempts: 0, outcome: None }
    }

    /// The first thing to ask.
    pub(crate) fn begin(&self) -> Request {
        match self.edit.appends() {
            true => Request::Size { key: self.key.clone() },
            false => self.read(),
        }
    }

    fn read(&self) -> Request {
        Request::Get { keys: vec![self.key.clone()], any_copy: false }
    }

    /// What follows from an answer.
    pub(crate) fn step(&mut self, response: Response) -> Result<Step<E::Outcome>, ResolverError> {
        match (response, self.outcome.take()) {
            (Response::Items(items), _) => self.edit_item(items.into_iter().next().flatten()),
            (Response::Size(found), _) => Ok(Step::Ask(self.append(found))),
            (Response::Done, Some(outcome)) => Ok(Step::Over(outcome)),
            (Response::Done | Response::NotDone, _) if self.attempts < E::MAX_ATTEMPTS => {
                Ok(Step::Ask(self.begin()))
            }
            (Response::Done | Response::NotDone, _) => {
                Err(ResolverError::Contended { key: self.key.clone(), attempts: self.attempts })
            }
        }
    }

    /// What the caller learns when the store, or this, fails in the middle.
    pub(crate) fn failed(self, error: ResolverError) -> Result<E::Outcome, ResolverError> {
        let timed_out = match &error {
            ResolverError::OneServer { source } => source.is_timeout(),
            error => error.is_timeout(),
        };
        // The server has answered all along: it is the others who left no time.
        let contended = timed_out && self.attempts > 1;
        self.edit.failed(match contended {
            true => ResolverError::Contended { key: self.key, attempts: self.attempts },
            false => error,
        })
    }

    /// How long to wait before what is asked next: where many write one record, whoever is a little slower than the
    /// others would lose each time. Any number up to a limit that grows with the attempts.
    pub(crate) fn pause(&self, random: u64) -> Duration {
        let late = self.attempts.min(LATEST).saturating_sub(EAGER_ATTEMPTS);
        match self.outcome {
            None if late > 0 => Duration::from_micros(random % (PAUSE_US * u64::from(late))),
            _ => Duration::ZERO,
        }
    }

    /// Only what is new is written; where that cannot be, the record is read whole.
    fn append(&mut self, found: Option<(usize, Version)>) -> Request {
        let octets = found.map_or(0, |(octets, _)| octets);
        let Some((value, outcome)) = self.edit.append(octets) else { return self.read() };
        self.attempts += 1;
        self.outcome = Some(outcome);
        let key = self.key.clone();
        match found {
            Some((_, version)) => Request::Append { key, value, version: Some(version) },
            None => Request::Put { key, value, expiry: None, expect: Expect::Absent },
        }
    }

    fn edit_item(&mut self, item: Option<Item>) -> Result<Step<E::Outcome>, ResolverError> {
        self.attempts += 1;
        let (change, outcome) = self.edit.apply(item.as_ref().map(|item| item.value.as_slice()))?;
        let key = self.key.clone();
        let request = match (change, item) {
            (Change::Keep, _) | (Change::Delete, None) => return Ok(Step::Over(outcome)),
            (Change::Mend, item) => Request::Copy { key, value: item.map(|item| item.value) },
            (Change::Delete, Some(item)) => Request::Delete { key, version: Some(item.version) },
            (Change::Put { value, expiry }, item) => {
                let expect = item.map_or(Expect::Absent, |item| Expect::Version(item.version));
                Request::Put { key, value, expiry, expect }
            }
        };
        self.outcome = Some(outcome);
        Ok(Step::Ask(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Appends one octet.
    struct Append(u8);

    impl Edit for Append {
        type Outcome = usize;

        fn key(&self) -> String {
            "k".to_owned()
        }

        fn apply(&mut self, current: Option<&[u8]>) -> Result<(Change, usize), ResolverError> {
            let mut value = current.unwrap_or_default().to_vec();
            value.push(self.0);
            let len = value.len();
            Ok((Change::Put { value, expiry: None }, len))
        }
    }

    fn item(value: &[u8], cas: u64) -> Response {
        let version = Version { cas, server: 2, dialled: 1 };
        Response::Items(vec![Some(Item { value: value.to_vec(), version })])
    }

    #[test]
    fn a_lost_race_reads_again_and_edits_what_the_other_wrote() {
        let mut update = Update::new(Append(9));
        assert_eq!(update.begin(), Request::Get { keys: vec!["k".to_owned()], any_copy: false });
        let Step::Ask(request) = update.step(Response::Items(vec![None])).unwrap() else { panic!() };
        assert!(matches!(request, Request::Put { expect: Expect::Absent, .. }));
        let Step::Ask(request) = update.step(Response::NotDone).unwrap() else { panic!() };
        assert!(matches!(request, Request::Get { .. }));
        let Step::Ask(request) = update.step(item(&[1, 2], 7)).unwrap() else { panic!() };
        assert_eq!(request.bound_to(), Some(2));
        let expect = Expect::Version(Version { cas: 7, server: 2, dialled: 1 });
        assert_eq!(request, Request::Put { key: "k".to_owned(), value: vec![1, 2, 9], expiry: None, expect });
        assert!(matches!(update.step(Response::Done).unwrap(), Step::Over(3)));
    }

    #[test]
    fn a_race_that_lasts_until_the_deadline_is_no_silence_of_the_server() {
        let late = || ResolverError::Deadline { server: "x".to_owned() };
        let update = Update::new(Append(9));
        assert!(update.failed(late()).unwrap_err().is_timeout());
        let mut update = Update::new(Append(9));
        update.step(item(&[], 1)).unwrap();
        assert!(update.failed(late()).unwrap_err().is_timeout(), "of the first write");
        for error in [late(), ResolverError::OneServer { source: Box::new(late()) }] {
            let mut update = Update::new(Append(9));
            update.step(item(&[], 1)).unwrap();
            update.step(Response::NotDone).unwrap();
            update.step(item(&[], 2)).unwrap();
            let error = update.failed(error).unwrap_err();
            assert!(matches!(error, ResolverError::Contended { attempts: 2, .. }), "{error}");
            assert!(!error.is_outage() && error.to_string().contains("k: changed by others"), "{error}");
        }
    }

    #[test]
    fn an_endless_race_is_given_up() {
        let mut update = Update::new(Append(9));
        for attempt in 1..Append::MAX_ATTEMPTS {
            assert!(matches!(update.step(item(&[], 1)).unwrap(), Step::Ask(Request::Put { .. })));
            assert!(update.pause(u64::MAX).is_zero(), "a write follows its read at once");
            assert!(matches!(update.step(Response::NotDone).unwrap(), Step::Ask(Request::Get { .. })));
            let longest = Duration::from_micros(PAUSE_US * u64::from(attempt.saturating_sub(EAGER_ATTEMPTS)));
            assert!(update.pause(99).is_zero() == (attempt <= EAGER_ATTEMPTS));
            assert!((0..9).all(|random| update.pause(random * 1_000_003) <= longest));
        }
        assert!(matches!(update.step(item(&[], 1)).unwrap(), Step::Ask(_)));
        assert!(matches!(
            update.step(Response::NotDone),
            Err(ResolverError::Contended { attempts: Append::MAX_ATTEMPTS, .. })
        ));
    }
}
