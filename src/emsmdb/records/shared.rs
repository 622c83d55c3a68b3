//! What is still to be done for the records of one session. No I/O, no clock.

use std::sync::Arc;
use std::time::Duration;

use ocbus_resolver::Cn;
use tokio::sync::{Mutex, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use super::front::Front;
use super::rows::Rows;
use crate::emsmdb::engine::OpenHandle;

/// Asynchronous sessions of one session. A client has one, and another when it connects anew; beyond this the oldest go.
const MAX_ASYNCS: usize = 16;

/// How long the process that opened a session has to write its records again that memcached may have forgotten: it sees
/// that at its next heartbeat.
const FORGETS: Duration = Duration::from_secs(10);

/// How often it is looked whether what others need to know is there still, when a client calls: one record may be
/// evicted, and then its wait is answered that it is unknown, again and again.
const CHECK: Duration = Duration::from_secs(2);

/// How far apart resyncs are for what memcached forgets again and again: at first, and at most. Each makes replies, calls
/// of the client and writes, so that a memcached that is too small would forget the more.
const MEND: Duration = Duration::from_secs(2);
const MEND_MOST: Duration = Duration::from_secs(60);

/// One session that is shared.
#[derive(Debug)]
pub(super) struct Shared {
    /// Another for each: one that is opened again has the GUID of the former one.
    pub(super) number: u64,
    pub(super) cn: Cn,
    /// Opened here (emsmdb), and not found in the records (asyncemsmdb): the records are ours to write and to remove.
    pub(super) owner: bool,
    /// The asynchronous sessions that belong to it.
    pub(super) asyncs: Vec<Uuid>,
    /// Former ones, of which `session:` is to be removed.
    pub(super) dropped: Vec<Uuid>,
    /// Of those that belong to it, those of which `session:` is to be written.
    pub(super) register: Vec<Uuid>,
    /// `subscription:` is to be written.
    pub(super) handles: bool,
    /// Its queue is to be handed on.
    pub(super) relay: bool,
    /// What was written there last, in a number.
    pub(super) written: Option<u64>,
    /// The user's name cannot be written into `session:`.
    pub(super) unwritable: bool,
    /// That was more than nothing: the record is there.
    pub(super) recorded: bool,
    /// What others know of its tables.
    pub(super) rows: Rows,
    /// `deliver:` has replies of a former session with this GUID.
    pub(super) clear: bool,
    /// `deliver:` is to be looked at: something that can be fetched may be there, and its wait is parked.
    pub(super) look: bool,
    /// It is to be looked whether its records are there.
    pub(super) check: bool,
    /// When it was last, or will be next.
    checked: Option<Instant>,
    /// When what memcached had forgotten was made good last, or will be next; and how long it is waited behind that.
    mended: Option<(Instant, Duration)>,
    /// Of one that is not ours: until when absent records need not mean that it is closed.
    perhaps_forgotten: Option<Instant>,
    /// It is looked at when that is over.
    pub(super) looks_once_more: bool,
    /// Of one that is not ours: nobody has listened for it until now, and its client is to be told so.
    pub(super) unheard: bool,
    /// Of one that is not ours: events came while `subscription:` could not be read.
    pub(super) unread: bool,
    /// Of one that is not ours: how many times in a row `subscription:` was not there.
    pub(super) absent: u32,
    /// It is over: the records are to be removed.
    pub(super) ended: bool,
    /// Somebody works for it, or will.
    pub(super) busy: bool,
    /// The last call on memcached failed.
    pub(super) failing: bool,
    /// And nobody works for it until it is tried again.
    pub(super) stalled: bool,
    /// Taken out of the queue, and perhaps not in `deliver:` yet.
    pub(super) unsent: Vec<u8>,
    /// How often was appended.
    pub(super) appended: u64,
    /// How often had been when `deliver:` was taken last.
    pub(super) fetched: u64,
    /// It was there then.
    pub(super) found: bool,
    /// Who waits until all is written, or was tried to be.
    pub(super) waiting: Vec<oneshot::Sender<()>>,
    pub(super) front: Arc<Mutex<Front>>,
}

/// One step for one session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Remove its records.
    Remove { asyncs: Vec<Uuid> },
    /// Nothing of it is ours: it is only to be forgotten.
    Forget,
    /// Remove `deliver:`, which a former session has left.
    Clear,
    /// Remove one `session:`.
    Unregister { async_session: Uuid },
    /// Write `session:`.
    Register { async_session: Uuid, cn: Cn },
    /// Write `subscription:`.
    Handles,
    /// Append to `deliver:`, these octets first.
    Relay { unsent: Vec<u8> },
    /// Read `subscription:`, and tell a resync: events came while it could not be read.
    Read,
    /// Look at `deliver:`, and, for one that is not ours, whether `session:` is there still.
    Look { joined: Option<Uuid> },
    /// Look whether this `session:` is there, and whether `subscription:` is, if it should be.
    Check { async_session: Option<Uuid>, subscriptions: bool },
}

impl Shared {
    pub(super) fn new(cn: Cn, owner: bool) -> Shared {
        Shared {
            number: 0,
            cn,
            owner,
            asyncs: Vec::new(),
            dropped: Vec::new(),
            register: Vec::new(),
            handles: false,
            written: None,
            unwritable: false,
            recorded: false,
            rows: Rows::default(),
            clear: false,
            relay: false,
            look: false,
            check: false,
            checked: None,
            mended: None,
            perhaps_forgotten: None,
            looks_once_more: false,
            unheard: !owner,
            unread: false,
            absent: 0,
            ended: false,
            busy: false,
            failing: false,
            stalled: false,
            unsent: Vec::new(),
            appended: 0,
            fetched: 0,
            found: false,
            waiting: Vec::new(),
            front: Arc::default(),
        }
    }

    /// Takes the place of a former session with its GUID, whose records may be there, or are just being removed: by
    /// whoever works for this one from now on.
    pub(super) fn inherit(&mut self, old: Shared) {
        (self.busy, self.stalled, self.failing) = (old.busy, old.stalled, old.failing);
        if old.owner {
            let asyncs = old.asyncs.into_iter().chain(old.dropped);
            self.dropped = asyncs.filter(|of| !self.asyncs.contains(of)).collect();
            (self.clear, self.handles) = (true, self.owner);
        }
    }

    /// `subscription:` says now what is open. `number`: what of.
    pub(super) fn handles_written(&mut self, number: u64, any: bool, open: &[OpenHandle], now: Instant) {
        self.rows.written(open, self.written.is_none(), now);
        (self.written, self.recorded) = (Some(number), any);
    }

    /// An asynchronous session belongs to it from here on.
    pub(super) fn connect(&mut self, async_session: Uuid) {
        if self.asyncs.contains(&async_session) {
            return;
        }
        if self.asyncs.len() >= MAX_ASYNCS {
            let oldest = self.asyncs.remove(0);
            self.register.retain(|registering| *registering != oldest);
            self.dropped.push(oldest);
            // While memcached is away. What is left behind there it evicts some day.
            if self.dropped.len() > MAX_ASYNCS {
                self.dropped.remove(0);
            }
        }
        self.dropped.retain(|dropped| *dropped != async_session);
        self.asyncs.push(async_session);
        self.register.push(async_session);
    }

    /// The next thing to do, which then counts as done: what fails is put back by [`Shared::again`].
    pub(super) fn next(&mut self) -> Option<Job> {
        if self.ended {
            return Some(match self.owner {
                true => Job::Remove { asyncs: self.asyncs.iter().chain(&self.dropped).copied().collect() },
                false => Job::Forget,
            });
        }
        if self.clear {
            return Some(Job::Clear);
        }
        if let Some(async_session) = self.register.pop() {
            return Some(Job::Register { async_session, cn: self.cn.clone() });
        }
        if let Some(async_session) = self.dropped.first().copied() {
            return Some(Job::Unregister { async_session });
        }
        if std::mem::take(&mut self.handles) {
            return Some(Job::Handles);
        }
        if self.relay || !self.unsent.is_empty() {
            return Some(Job::Relay { unsent: self.unsent.clone() });
        }
        if std::mem::take(&mut self.unread) {
            return Some(Job::Read);
        }
        if std::mem::take(&mut self.look) {
            return Some(Job::Look { joined: self.asyncs.last().copied().filter(|_| !self.owner) });
        }
        let async_session = self.asyncs.last().copied().filter(|_| !self.unwritable);
        let subscriptions = self.recorded;
        std::mem::take(&mut self.check).then_some(Job::Check { async_session, subscriptions })
    }

    /// A step failed: it is to be done again, and so is what memcached may have forgotten by then.
    pub(super) fn again(&mut self, now: Instant) {
        self.failing = true;
        self.look = true;
        self.may_be_forgotten(now);
        self.rewrite();
        self.waiting.clear();
    }

    /// memcached may have forgotten what others have written.
    pub(super) fn may_be_forgotten(&mut self, now: Instant) {
        if !self.owner {
            self.perhaps_forgotten = Some(now + FORGETS);
        }
    }

    /// Whether absent records may be written again soon.
    pub(super) fn is_perhaps_forgotten(&self, now: Instant) -> bool {
        self.perhaps_forgotten.is_some_and(|until| now < until)
    }

    /// When to look whether absent records have been written again, unless somebody does so already.
    pub(super) fn look_once_more(&mut self, now: Instant) -> Option<Instant> {
        let until = self.perhaps_forgotten.filter(|until| now < *until)?;
        (!std::mem::replace(&mut self.looks_once_more, true)).then_some(until)
    }

    /// When to look whether its records are there, as its client has called; `None`: that is planned already. It is put
    /// off, and never left out: a client that is not woken any more does not call again.
    pub(super) fn next_check(&mut self, now: Instant) -> Option<Instant> {
        let at = self.checked.map_or(now, |checked| (checked + CHECK).max(now));
        if self.checked.is_some_and(|planned| now < planned) {
            return None;
        }
        self.checked = Some(at);
        Some(at)
    }

    /// When to make good what memcached has just forgotten; `None`: that is planned already. Twice as long behind the last
    /// time each time, until it has remembered for a while.
    pub(super) fn next_mend(&mut self, now: Instant) -> Option<Instant> {
        let (at, pause) = match self.mended {
            Some((planned, _)) if now < planned => return None,
            Some((last, pause)) if now < last + 2 * pause => {
                ((last + pause).max(now), (2 * pause).min(MEND_MOST))
            }
            _ => (now, MEND),
        };
        self.mended = Some((at, pause));
        Some(at)
    }

    /// memcached may have forgotten what we have written.
    pub(super) fn rewrite(&mut self) {
        if self.owner && !self.ended {
            self.register.clone_from(&self.asyncs);
            self.handles = true;
            self.written = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(owner: bool) -> Shared {
        let mut shared = Shared::new("bob".parse().unwrap(), owner);
        shared.asyncs.push(Uuid::from_u128(1));
        shared
    }

    #[test]
    fn what_others_need_to_know_is_written_before_they_are_told_of_anything() {
        let mut shared = shared(true);
        shared.register.push(Uuid::from_u128(1));
        (shared.handles, shared.relay, shared.look) = (true, true, true);
        let cn = shared.cn.clone();
        assert_eq!(shared.next(), Some(Job::Register { async_session: Uuid::from_u128(1), cn }));
        assert_eq!(shared.next(), Some(Job::Handles));
        assert_eq!(shared.next(), Some(Job::Relay { unsent: Vec::new() }));
        shared.relay = false;
        assert_eq!(shared.next(), Some(Job::Look { joined: None }));
        assert_eq!(shared.next(), None);
    }

    #[test]
    fn behind_a_failure_all_of_ours_is_written_again() {
        let mut ours = shared(true);
        ours.unsent = vec![1];
        ours.again(Instant::now());
        assert!(matches!(ours.next(), Some(Job::Register { .. })));
        assert_eq!(ours.next(), Some(Job::Handles));
        assert_eq!(ours.next(), Some(Job::Relay { unsent: vec![1] }), "kept until it is there for certain");
        let mut joined = shared(false);
        joined.again(Instant::now());
        assert_eq!(joined.next(), Some(Job::Look { joined: Some(Uuid::from_u128(1)) }));
        assert_eq!(joined.next(), None);
    }

    #[test]
    fn only_who_has_opened_a_session_removes_its_records() {
        let (mut ours, mut joined) = (shared(true), shared(false));
        (ours.ended, joined.ended) = (true, true);
        assert_eq!(ours.next(), Some(Job::Remove { asyncs: vec![Uuid::from_u128(1)] }));
        assert_eq!(joined.next(), Some(Job::Forget));
    }

    /// However often a client connects anew.
    #[test]
    fn former_asynchronous_sessions_are_taken_back() {
        let mut shared = Shared::new("bob".parse().unwrap(), true);
        let last = MAX_ASYNCS as u128 + 2;
        (0..=last).for_each(|number| shared.connect(Uuid::from_u128(number)));
        assert_eq!((shared.asyncs.len(), shared.dropped.len()), (MAX_ASYNCS, 3));
        assert_eq!(shared.register.len(), MAX_ASYNCS, "what is gone again need not be written");
        shared.register.clear();
        assert_eq!(shared.next(), Some(Job::Unregister { async_session: Uuid::from_u128(0) }));
        assert_eq!(
            shared.next(),
            Some(Job::Unregister { async_session: Uuid::from_u128(0) }),
            "until it is done"
        );
        shared.ended = true;
        assert!(matches!(shared.next(), Some(Job::Remove { asyncs }) if asyncs.len() == MAX_ASYNCS + 3));
    }

    #[test]
    fn every_call_of_a_client_is_followed_by_a_check() {
        let (mut shared, begin) = (shared(true), Instant::now());
        let after = |millis| begin + Duration::from_millis(millis);
        assert_eq!(shared.next_check(begin), Some(begin));
        assert_eq!(shared.next_check(after(100)), Some(begin + CHECK), "put off");
        assert_eq!(shared.next_check(after(1_900)), None, "that one is behind this call as well");
        assert_eq!(shared.next_check(after(2_000)), Some(begin + 2 * CHECK));
        assert_eq!(shared.next_check(after(9_000)), Some(after(9_000)));
    }

    #[test]
    fn what_is_forgotten_again_and_again_is_made_good_less_and_less_often() {
        let (mut shared, begin) = (shared(true), Instant::now());
        let mut now = begin;
        let mut mended = Vec::new();
        // Forgotten each tenth of a second.
        while now < begin + Duration::from_secs(300) {
            mended.extend(shared.next_mend(now).map(|at| (at - begin).as_secs()));
            now += Duration::from_millis(100);
        }
        assert_eq!(mended, [0, 2, 6, 14, 30, 62, 122, 182, 242, 302], "the last behind the last loss");
        let later = now + 3 * MEND_MOST;
        assert_eq!(shared.next_mend(later), Some(later));
        assert_eq!(shared.next_mend(later), Some(later + MEND));
    }

    #[test]
    fn what_a_former_session_has_left_goes_first() {
        let (mut old, mut new) = (shared(true), Shared::new("bob".parse().unwrap(), true));
        (old.ended, old.busy) = (true, true);
        new.inherit(old);
        assert!(new.busy && !new.ended, "whoever removes the former one goes on with it");
        assert_eq!(new.next(), Some(Job::Clear));
        new.clear = false;
        assert_eq!(new.next(), Some(Job::Unregister { async_session: Uuid::from_u128(1) }));
        // Connected again: it is the new one's.
        new.connect(Uuid::from_u128(1));
        assert!(matches!(new.next(), Some(Job::Register { .. })));
        assert_eq!(new.next(), Some(Job::Handles));
        assert_eq!(new.next(), None);
    }
}
