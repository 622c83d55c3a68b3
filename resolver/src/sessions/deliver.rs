//! What the calls on `deliver:`, the replies that wait for a session, do to it.
//!
//! OpenChange appends with memcached's own `append`, which needs no compare-and-swap and needs the key to be there.
//! We append with it too, but only to the value whose size we have just asked for, so that no more waits than may:
//! whatever happens between the two makes our append fail, and we ask again. It takes by reading and
//! then deleting, and loses what is appended in between. Here the value that was read is replaced by an empty one
//! if it is still the same. Not deleted: an append of OpenChange's, which has seen the key, would fail for good.

use ocbus_wire::openchange::{EncodeError, deliver, deliver_key};
use uuid::Uuid;

use super::SessionsError;
use crate::edit::{Change, Edit};
use crate::error::ResolverError;

/// How much may wait for a session at most, in octets: memcached's usual limit for an item less what it needs for
/// itself beside the value.
pub const MAX_DELIVER_OCTETS: usize = deliver::MAX_OCTETS - 1024;

/// Attempts until the call's deadline ends them: OpenChange's append heeds nobody, and where it comes without a pause
/// most attempts of ours are lost.
const MANY_ATTEMPTS: u32 = 100_000;

/// What became of replies that were to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Appended {
    /// They wait, behind those that did.
    Waiting {
        /// Octets that wait now.
        octets: usize,
    },
    /// They did not fit. What waited is gone, the resync stands in its place, and they stand behind it if they
    /// fit there.
    Resynced {
        /// Replies that are gone, and of which the resync must make up for.
        dropped: usize,
        /// Their octets.
        dropped_octets: usize,
    },
}

/// What waited for a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Replies end to end, in order; [`deliver::split`] takes them apart. Empty if nothing waited.
    pub replies: Vec<u8>,
    /// The record was there, were it empty. Once it was written to, one that is not has been forgotten, or deleted as
    /// OpenChange does.
    pub found: bool,
    /// memcached did not say whether they were taken out: they may come once more, and are not lost in any case.
    pub may_come_again: bool,
}

/// Appends replies.
pub(super) struct Append<'a> {
    pub(super) session: Uuid,
    pub(super) replies: &'a [u8],
    /// Makes what stands in for what does not fit. Only called then: it may cost far more than the append.
    pub(super) resync: &'a mut (dyn FnMut() -> Vec<u8> + Send),
    /// At most so many octets wait.
    pub(super) limit: usize,
}

impl Append<'_> {
    fn too_large(&self, octets: usize) -> SessionsError {
        let source = EncodeError::TooLarge { octets, max: self.limit };
        SessionsError::Invalid { key: self.key(), source }
    }
}

impl Edit for Append<'_> {
    type Outcome = Result<Appended, SessionsError>;

    const MAX_ATTEMPTS: u32 = MANY_ATTEMPTS;

    fn key(&self) -> String {
        deliver_key(&self.session)
    }

    fn appends(&self) -> bool {
        true
    }

    /// The value is one reply behind the other: what waits is not read, and costs nothing.
    fn append(&mut self, octets: usize) -> Option<(Vec<u8>, Self::Outcome)> {
        let octets = octets.saturating_add(self.replies.len());
        (octets <= self.limit).then(|| (self.replies.to_vec(), Ok(Appended::Waiting { octets })))
    }

    fn apply(&mut self, current: Option<&[u8]>) -> Result<(Change, Self::Outcome), ResolverError> {
        let current = current.unwrap_or_default();
        let fits = |before: &[u8]| before.len().saturating_add(self.replies.len()) <= self.limit;
        let put = |value, appended| Ok((Change::Put { value, expiry: None }, Ok(appended)));
        if fits(current) {
            let value = [current, self.replies].concat();
            let octets = value.len();
            return put(value, Appended::Waiting { octets });
        }
        let resync = (self.resync)();
        let value = match fits(&resync) {
            true => [&resync, self.replies].concat(),
            false if resync.len() <= self.limit => resync,
            false => return Ok((Change::Keep, Err(self.too_large(resync.len())))),
        };
        let dropped = deliver::split(current).count();
        put(value, Appended::Resynced { dropped, dropped_octets: current.len() })
    }
}

/// Puts replies in front of those that wait: they were taken, and not given to the client.
pub(super) struct PutBack<'a> {
    pub(super) session: Uuid,
    pub(super) replies: &'a [u8],
    /// At most so many octets wait.
    pub(super) limit: usize,
}

impl Edit for PutBack<'_> {
    type Outcome = Result<(), SessionsError>;

    const MAX_ATTEMPTS: u32 = MANY_ATTEMPTS;

    fn key(&self) -> String {
        deliver_key(&self.session)
    }

    fn apply(&mut self, current: Option<&[u8]>) -> Result<(Change, Self::Outcome), ResolverError> {
        let value = [self.replies, current.unwrap_or_default()].concat();
        if value.len() > self.limit {
            let source = EncodeError::TooLarge { octets: value.len(), max: self.limit };
            return Ok((Change::Keep, Err(SessionsError::Invalid { key: self.key(), source })));
        }
        Ok((Change::Put { value, expiry: None }, Ok(())))
    }
}

/// Reads what waits and leaves it there.
pub(super) struct Peek {
    pub(super) session: Uuid,
}

impl Edit for Peek {
    type Outcome = Result<Vec<u8>, SessionsError>;

    fn key(&self) -> String {
        deliver_key(&self.session)
    }

    fn apply(&mut self, current: Option<&[u8]>) -> Result<(Change, Self::Outcome), ResolverError> {
        let not_found = || SessionsError::NotFound { key: self.key() };
        Ok((Change::Keep, current.map(<[u8]>::to_vec).ok_or_else(not_found)))
    }
}

/// Takes all that waits.
///
/// A write may have happened although it was answered with no: it was repeated on another connection, and found
/// its own work. So what was read once is given out, whatever the record says later, up to three times as much as may
/// wait.
pub(super) struct Take {
    session: Uuid,
    /// Read, and no longer there.
    gone: Vec<u8>,
    /// Read last.
    seen: Vec<u8>,
    found: bool,
}

impl Take {
    pub(super) fn new(session: Uuid) -> Take {
        Take { session, gone: Vec::new(), seen: Vec::new(), found: false }
    }

    fn taken(&self, may_come_again: bool) -> Taken {
        let replies = [self.gone.as_slice(), &self.seen].concat();
        Taken { replies, found: self.found, may_come_again }
    }
}

impl Edit for Take {
    type Outcome = Taken;

    const MAX_ATTEMPTS: u32 = MANY_ATTEMPTS;

    fn key(&self) -> String {
        deliver_key(&self.session)
    }

    fn apply(&mut self, current: Option<&[u8]>) -> Result<(Change, Taken), ResolverError> {
        self.found |= current.is_some();
        let current = current.unwrap_or_default();
        // Usually somebody has appended. If not, we have taken it ourselves, or a resync stands in its place.
        if !current.starts_with(&self.seen) {
            self.gone.append(&mut self.seen);
        }
        self.seen = current.to_vec();
        if self.gone.len().saturating_add(current.len()) > 2 * MAX_DELIVER_OCTETS {
            // One resync after the other: more than enough for this time.
            return Ok((Change::Keep, self.taken(true)));
        }
        let change = match current.is_empty() {
            true => Change::Keep,
            false => Change::Put { value: Vec::new(), expiry: None },
        };
        Ok((change, self.taken(false)))
    }

    fn failed(self, error: ResolverError) -> Result<Taken, ResolverError> {
        match self.taken(true) {
            taken if taken.replies.is_empty() => Err(error),
            taken => Ok(taken),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::{Item, Request, Response, Step, Update, Version};

    const A: &[u8] = b"\x2a\x31\0\0\0\0\0\x01\x01\0";
    const B: &[u8] = b"\x2a\x32\0\0\0\0\0\x81\x01\0";
    const RESYNC: &[u8] = b"\x2a\x33\0\0\0\0\0\x81\x01\0";

    fn append(current: Option<&[u8]>, replies: &[u8], resync: &[u8], limit: usize) -> (Change, Appended) {
        let session = Uuid::nil();
        let resync = &mut || resync.to_vec();
        let (change, outcome) = Append { session, replies, resync, limit }.apply(current).unwrap();
        (change, outcome.unwrap())
    }

    fn put(value: &[&[u8]]) -> Change {
        Change::Put { value: value.concat(), expiry: None }
    }

    #[test]
    fn replies_stand_behind_those_that_wait() {
        assert_eq!(append(None, A, RESYNC, 30), (put(&[A]), Appended::Waiting { octets: 10 }));
        assert_eq!(append(Some(b""), A, RESYNC, 30), (put(&[A]), Appended::Waiting { octets: 10 }));
        let both = [A, B].concat();
        assert_eq!(append(Some(&both), A, RESYNC, 30), (put(&[A, B, A]), Appended::Waiting { octets: 30 }));
    }

    #[test]
    fn a_resync_takes_the_place_of_what_does_not_fit() {
        let both = [A, B].concat();
        let dropped = Appended::Resynced { dropped: 2, dropped_octets: 20 };
        assert_eq!(append(Some(&both), A, RESYNC, 29), (put(&[RESYNC, A]), dropped));
        // Not even the new ones fit behind it.
        assert_eq!(append(Some(&both), A, RESYNC, 19), (put(&[RESYNC]), dropped));
        let nothing = Appended::Resynced { dropped: 0, dropped_octets: 0 };
        assert_eq!(append(None, &both, RESYNC, 19), (put(&[RESYNC]), nothing));
    }

    #[test]
    fn what_waits_is_neither_read_nor_written_again() {
        // It costs a walk over everything that the session has open.
        let none = || -> Vec<u8> { panic!("a resync was made for what fits") };
        let (mut first, mut second) = (none, none);
        let session = Uuid::nil();
        let key = deliver_key(&Uuid::nil());
        let version = Version { cas: 1, server: 0, dialled: 1 };
        let mut update = Update::new(Append { session, replies: A, resync: &mut first, limit: 30 });
        assert_eq!(update.begin(), Request::Size { key: key.clone() });
        let Step::Ask(write) = update.step(Response::Size(Some((20, version)))).unwrap() else { panic!() };
        let append = Request::Append { key: key.clone(), value: A.to_vec(), version: Some(version) };
        assert_eq!(write, append);
        // Somebody came first, and it is full now: it must be read, to say what is dropped.
        let Step::Ask(again) = update.step(Response::NotDone).unwrap() else { panic!() };
        assert_eq!(again, Request::Size { key: key.clone() });
        let Step::Ask(read) = update.step(Response::Size(Some((21, version)))).unwrap() else { panic!() };
        assert!(matches!(read, Request::Get { any_copy: false, .. }));
        // Nobody has written yet.
        let mut update = Update::new(Append { session, replies: A, resync: &mut second, limit: 30 });
        let Step::Ask(write) = update.step(Response::Size(None)).unwrap() else { panic!() };
        let expect = crate::update::Expect::Absent;
        assert_eq!(write, Request::Put { key, value: A.to_vec(), expiry: None, expect });
        let Step::Over(outcome) = update.step(Response::Done).unwrap() else { panic!() };
        assert_eq!(outcome.unwrap(), Appended::Waiting { octets: 10 });
    }

    #[test]
    fn a_resync_that_does_not_fit_is_an_error_and_changes_nothing() {
        let resync = &mut || [A, B].concat();
        let mut edit = Append { session: Uuid::nil(), replies: A, resync, limit: 19 };
        let (change, outcome) = edit.apply(Some(A)).unwrap();
        assert_eq!(change, Change::Keep);
        let expected = format!("deliver:{}: 20 octets, at most 19 fit", Uuid::nil());
        assert_eq!(outcome.unwrap_err().to_string(), expected);
    }

    #[test]
    fn what_is_put_back_stands_in_front() {
        let put_back = |current, limit| {
            let mut edit = PutBack { session: Uuid::nil(), replies: A, limit };
            edit.apply(current).unwrap()
        };
        assert_eq!(put_back(Some(B), 20).0, put(&[A, B]));
        assert_eq!(put_back(None, 10).0, put(&[A]));
        let (change, outcome) = put_back(Some(B), 19);
        assert_eq!(change, Change::Keep);
        assert!(outcome.is_err(), "whoever has them keeps them");
    }

    /// A take that reads these values, one after the other, and is told each time that its write did not happen.
    fn take(values: &[&[u8]]) -> (Update<Take>, Request) {
        let mut update = Update::new(Take::new(Uuid::nil()));
        let mut last = update.begin();
        for value in values {
            assert!(matches!(last, Request::Get { any_copy: false, .. }), "its version decides");
            let version = Version { cas: 1, server: 0, dialled: 1 };
            let item = Item { value: value.to_vec(), version };
            let Step::Ask(write) = update.step(Response::Items(vec![Some(item)])).unwrap() else { panic!() };
            last = write;
            if value != values.last().unwrap() {
                let Step::Ask(read) = update.step(Response::NotDone).unwrap() else { panic!() };
                last = read;
            }
        }
        (update, last)
    }

    fn taken(replies: &[&[u8]], may_come_again: bool) -> Taken {
        Taken { replies: replies.concat(), found: true, may_come_again }
    }

    #[test]
    fn what_is_appended_meanwhile_comes_along_once() {
        let (mut update, write) = take(&[A, &[A, B].concat()]);
        let expected = crate::update::Expect::Version(Version { cas: 1, server: 0, dialled: 1 });
        assert!(
            matches!(write, Request::Put { value, expect, .. } if value.is_empty() && expect == expected)
        );
        let Step::Over(all) = update.step(Response::Done).unwrap() else { panic!() };
        assert_eq!(all, taken(&[A, B], false));
    }

    #[test]
    fn what_was_taken_without_our_knowing_is_given_out_once() {
        // The first write happened, was repeated and refused; then others appended, twice.
        let (mut update, _) = take(&[A, B, &[B, B].concat()]);
        let Step::Over(all) = update.step(Response::Done).unwrap() else { panic!() };
        assert_eq!(all, taken(&[A, B, B], false));
        // Or nobody did.
        let (mut update, _) = take(&[A]);
        assert!(matches!(update.step(Response::NotDone).unwrap(), Step::Ask(Request::Get { .. })));
        let empty = Item { value: Vec::new(), version: Version { cas: 2, server: 0, dialled: 1 } };
        let Step::Over(all) = update.step(Response::Items(vec![Some(empty)])).unwrap() else { panic!() };
        assert_eq!(all, taken(&[A], false));
    }

    #[test]
    fn one_resync_after_the_other_ends_before_it_takes_much_memory() {
        let values = [b'a', b'b', b'c'].map(|octet| vec![octet; MAX_DELIVER_OCTETS]);
        let mut edit = Take::new(Uuid::nil());
        for value in &values[..2] {
            assert!(matches!(edit.apply(Some(value)).unwrap(), (Change::Put { .. }, _)));
        }
        let (change, all) = edit.apply(Some(&values[2])).unwrap();
        assert_eq!(change, Change::Keep);
        assert!(all.may_come_again && all.replies == values.concat());
    }

    #[test]
    fn what_was_read_is_given_out_when_memcached_fails() {
        let down = || ResolverError::Deadline { server: "x".to_owned() };
        let (update, _) = take(&[A, B]);
        assert_eq!(update.failed(down()).unwrap(), taken(&[A, B], true));
        let update = Update::new(Take::new(Uuid::nil()));
        assert!(update.failed(down()).unwrap_err().is_timeout(), "nothing was read, and nothing is lost");
    }

    #[test]
    fn nothing_waits_and_nothing_is_written() {
        for value in [None, Some(b"".as_slice())] {
            let (change, all) = Take::new(Uuid::nil()).apply(value).unwrap();
            let found = value.is_some();
            assert_eq!((change, all), (Change::Keep, Taken { found, ..Taken::default() }));
        }
    }
}
