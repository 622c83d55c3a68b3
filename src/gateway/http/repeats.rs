//! Requests that come again. Dovecot sends a request a second time when its connection broke before the answer: it
//! must make one event. No I/O, no clock: the time is an argument.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, Hash, Hasher as _};
use std::time::{Duration, Instant};

use ocbus_wire::{Event, EventKind, NewMessage, UidSet};

/// What makes a request the same as an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// What it is about. An earlier request about the same is replaced.
    subject: u64,
    /// What it says.
    content: u64,
}

/// Makes fingerprints: by hashes that nobody outside can foresee.
#[derive(Debug, Default)]
pub(super) struct Fingerprints {
    subjects: RandomState,
    contents: RandomState,
}

/// The requests of late.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    known: HashMap<u64, (u64, Instant)>,
    /// Oldest first; an entry whose time is not that of `known` was replaced.
    order: VecDeque<(u64, Instant)>,
}

impl Fingerprints {
    /// The fingerprint of a request that says these events; nothing where the same again would be another request.
    ///
    /// A UID comes and goes once: such requests are the same whatever else they say (`unseen` may have
    /// changed), and whatever came in between. So are those whose events have the same ids.
    pub(super) fn of(&self, events: &[Event], named: Named<'_>) -> Option<Fingerprint> {
        let Fingerprints { subjects, contents } = self;
        let whole = |what: &dyn Fn(&RandomState) -> u64| {
            Some(Fingerprint { subject: what(subjects), content: what(contents) })
        };
        match (once(events), named) {
            (Some(once), _) => whole(&|state| state.hash_one(&once)),
            (None, Named::ByIds) => {
                let ids: Vec<_> = events.iter().map(|event| event.id).collect();
                whole(&|state| state.hash_one(&ids))
            }
            (None, Named::ByBody(body)) => {
                let mut subject = subjects.build_hasher();
                for event in events.iter().take(1) {
                    (&event.user, &event.mailbox).hash(&mut subject);
                }
                Some(Fingerprint { subject: subject.finish(), content: contents.hash_one(body) })
            }
            (None, Named::Not) => None,
        }
    }
}

/// What tells a request that comes again from another that says the same.
#[derive(Debug, Clone, Copy)]
pub(super) enum Named<'a> {
    /// Its events brought their ids along.
    ByIds,
    /// Dovecot's OX driver, which sends again when a connection breaks, and gives nothing an id: the same octets. Flags
    /// may be set, cleared and set again: only as the request before it about the same mailbox.
    ByBody(&'a [u8]),
    /// Nothing: what is said twice (a mailbox renamed there and back, a Resync) has happened twice.
    Not,
}

impl Repeats {
    /// Whether it came within `window` already.
    pub(super) fn has(&self, fingerprint: Fingerprint, now: Instant, window: Duration) -> bool {
        self.known.get(&fingerprint.subject).is_some_and(|(content, at)| {
            *content == fingerprint.content && now.saturating_duration_since(*at) < window
        })
    }

    /// Remembers it, and forgets what is older than `window` or more than `most` requests ago.
    pub(super) fn remember(&mut self, fingerprint: Fingerprint, now: Instant, window: Duration, most: usize) {
        if window.is_zero() {
            self.known.clear();
            self.order.clear();
            return;
        }
        self.known.insert(fingerprint.subject, (fingerprint.content, now));
        self.order.push_back((fingerprint.subject, now));
        while let Some(&(subject, at)) = self.order.front() {
            if self.order.len() <= most && now.saturating_duration_since(at) < window {
                break;
            }
            self.order.pop_front();
            if self.known.get(&subject).is_some_and(|(_, known)| *known == at) {
                self.known.remove(&subject);
            }
        }
    }
}

/// What happens once: kind, user, mailbox, UIDVALIDITY and UIDs of each event, if all are messages that came or went.
type Once<'a> = Vec<(&'a str, &'a str, &'a str, u32, UidSet)>;

fn once(events: &[Event]) -> Option<Once<'_>> {
    if events.is_empty() {
        return None;
    }
    events.iter().map(happens_once).collect()
}

fn happens_once(event: &Event) -> Option<(&str, &str, &str, u32, UidSet)> {
    let uids = match &event.kind {
        EventKind::MessageNew(NewMessage { uid: Some(uid), .. })
        | EventKind::MessageAppend(NewMessage { uid: Some(uid), .. }) => UidSet::from_iter([*uid]),
        EventKind::MessageExpunge { uids } => uids.clone(),
        _ => return None,
    };
    Some((event.kind.name(), &event.user, &event.mailbox.as_ref()?.name, event.uidvalidity?, uids))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocbus_wire::Mailbox;
    use uuid::Uuid;

    const WINDOW: Duration = Duration::from_secs(60);

    fn event(kind: EventKind) -> Vec<Event> {
        let mut event = Event::new(Uuid::nil(), 0, "bob", Mailbox::new("INBOX", '/'), kind);
        event.uidvalidity = Some(7);
        vec![event]
    }

    fn mail(uid: u32) -> Vec<Event> {
        event(EventKind::MessageNew(NewMessage { uid: Some(uid), ..NewMessage::default() }))
    }

    fn flags(uid: u32, set: bool) -> Vec<Event> {
        let (uids, flags) = (UidSet::from_iter([uid]), vec!["\\Flagged".to_owned()]);
        event(match set {
            true => EventKind::FlagsSet { uids, flags, keywords: vec![] },
            false => EventKind::FlagsClear { uids, flags, keywords: vec![] },
        })
    }

    struct Run(Repeats, Instant, Fingerprints);

    impl Run {
        fn new() -> Run {
            Run(Repeats::default(), Instant::now(), Fingerprints::default())
        }

        /// Whether a request after so many seconds is a repeated one.
        fn takes(&mut self, seconds: u64, events: &[Event], body: &str) -> bool {
            self.takes_named(seconds, events, Named::ByBody(body.as_bytes()))
        }

        fn takes_named(&mut self, seconds: u64, events: &[Event], named: Named<'_>) -> bool {
            let now = self.1 + Duration::from_secs(seconds);
            let Some(fingerprint) = self.2.of(events, named) else { return false };
            let repeated = self.0.has(fingerprint, now, WINDOW);
            if !repeated {
                self.0.remember(fingerprint, now, WINDOW, 3);
            }
            repeated
        }
    }

    #[test]
    fn a_mail_is_known_by_its_uid_for_the_window() {
        let mut run = Run::new();
        assert!(!run.takes(0, &mail(1), "a"));
        assert!(!run.takes(1, &mail(2), "b"));
        assert!(run.takes(2, &mail(1), "another count of unseen"));
        let mut other = mail(1);
        other[0].uidvalidity = Some(8);
        assert!(!run.takes(3, &other, "a"), "another mailbox of the same name");
        assert!(!run.takes(60, &mail(1), "a"), "its time is over");
    }

    #[test]
    fn flags_that_change_back_are_no_repetition() {
        let mut run = Run::new();
        assert!(!run.takes(0, &flags(1, true), "set"));
        assert!(run.takes(1, &flags(1, true), "set"));
        assert!(!run.takes(2, &flags(1, false), "clear"));
        assert!(!run.takes(3, &flags(1, true), "set"));
        let nameless = event(EventKind::MessageNew(NewMessage::default()));
        assert!(!run.takes(4, &nameless, "a mail"));
        assert!(run.takes(5, &nameless, "a mail"));
    }

    #[test]
    fn without_ids_the_same_again_has_happened_again() {
        let mut run = Run::new();
        let resync = event(EventKind::MailboxSubscribe);
        for second in 0..3 {
            assert!(!run.takes_named(second, &resync, Named::Not));
        }
        assert!(!run.takes_named(3, &mail(1), Named::Not));
        assert!(run.takes_named(4, &mail(1), Named::Not), "a mail comes once, whoever tells it");
        // With ids: the same, whatever came in between.
        let mut other = resync.clone();
        other[0].id = Uuid::from_u128(1);
        assert!(!run.takes_named(5, &resync, Named::ByIds));
        assert!(!run.takes_named(6, &other, Named::ByIds));
        assert!(run.takes_named(7, &resync, Named::ByIds));
    }

    #[test]
    fn memory_is_bounded() {
        let mut run = Run::new();
        for uid in 1..=100 {
            assert!(!run.takes(0, &mail(uid), ""));
        }
        assert_eq!((run.0.known.len(), run.0.order.len()), (3, 3));
        assert!(run.takes(0, &mail(98), "") && !run.takes(0, &mail(97), ""), "the oldest are forgotten");
        for n in 0..100 {
            run.takes(n, &flags(1, n % 2 == 0), &n.to_string());
        }
        assert!(run.0.order.len() <= 3 && run.0.known.len() <= 3, "{:?}", run.0);
        run.takes(1000, &mail(1), "");
        assert_eq!((run.0.known.len(), run.0.order.len()), (1, 1), "the old are forgotten");
    }
}
