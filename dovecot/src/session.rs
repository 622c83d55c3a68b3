//! A user of this process: collects what happens to their mailboxes, and decides when it is told.
//!
//! New mail is told when it is committed: dovecot-lda and LMTP are about to be done with the user. Everything else
//! waits until Dovecot has answered its client and has nothing to do ([`Session::tick`]), so that a command does not
//! wait for us; where there is no such moment (doveadm), it is told when it has waited for [`LATEST`], or at the end.

use std::time::{Duration, Instant};

use ocbus_wire::{EventKind, Mailbox, ResyncReason};

use crate::filter::{Allowed, Folders, Kinds};
use crate::log::Line;
use crate::outbox::Outbox;
use crate::publish::{Publishers, User, now_us};
use crate::settings::{RawSettings, SettingsError};
use crate::transaction::{Change, Commit, Delivery, Transaction};

/// How long something may wait where Dovecot gives us no moment of rest.
pub const LATEST: Duration = Duration::from_secs(1);

/// How long connections stay open behind the last event.
const IDLE: Duration = Duration::from_secs(5);

/// How often it is tried to tell that something was missed, after memcached failed.
const RETRY: Duration = Duration::from_millis(1100);

/// When it is looked for answers to what was told without waiting for them. Not at once: LMTP is done with the user in a
/// moment, behind its reply.
const SOON: Duration = Duration::from_millis(5);

/// The most commits that are put off: a transaction takes half a MiB at worst.
const MAX_COMMITTED: usize = 16;

/// Other users whose shared mailboxes one session changes.
const MAX_OWNERS: usize = 16;

/// A user of this process.
#[derive(Debug)]
pub struct Session {
    accounts: Vec<Account>,
    kinds: Kinds,
    folders: Folders,
    debug: bool,
    raw: RawSettings,
    /// Commits that nobody has looked at yet: a command is not to wait for that either.
    committed: Vec<Committed>,
    /// Dovecot had nothing to do before, and will again.
    rests: bool,
    /// When the connections are closed.
    rest_at: Option<Instant>,
    /// When to tell again what was missed.
    retry_at: Option<Instant>,
}

/// Whose mailboxes change: the first is the session's own user, others own mailboxes that are shared with them.
#[derive(Debug)]
struct Account {
    login: String,
    user: User,
    outbox: Outbox,
}

/// A transaction that was committed.
#[derive(Debug)]
struct Committed {
    open: Open,
    commit: Commit,
    waited: Duration,
    at: Instant,
}

/// A mailbox as the shim describes it.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its names.
    pub mailbox: Mailbox,
    /// Special uses, separated by spaces.
    pub special_use: Option<String>,
    /// Who owns it, when it is somebody else's.
    pub owner: Option<String>,
    /// Its UIDVALIDITY, where known.
    pub uid_validity: Option<u32>,
}

/// A transaction on one mailbox of the session.
#[derive(Debug)]
pub struct Open {
    /// What happens in it.
    pub transaction: Transaction,
    owner: Option<String>,
    allowed: Allowed,
    /// A source of its copies is told of.
    source_allowed: bool,
    delivery: bool,
}

/// What happened to a mailbox as a whole; the numbers are the shim's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "as the events are named")]
pub enum MailboxChange {
    Create,
    Delete,
    Rename,
    Subscribe,
    Unsubscribe,
}

impl Session {
    /// A user with these settings, of these publishers.
    pub fn new(
        publishers: &mut Publishers,
        login: &str,
        debug: bool,
        raw: RawSettings,
    ) -> Result<Session, SettingsError> {
        let user = publishers.user(login, debug, raw.clone())?;
        let (kinds, folders) = user.filter();
        let accounts = vec![Account::new(login, user, &kinds)];
        let committed = Vec::new();
        let (rests, rest_at, retry_at) = (false, None, None);
        Ok(Session { accounts, kinds, folders, debug, raw, committed, rests, rest_at, retry_at })
    }

    /// Whether transactions are to be looked at.
    pub fn wants_transactions(&self, delivery: bool) -> bool {
        self.kinds.wants_transactions(delivery)
    }

    /// How long a transaction may take.
    pub fn budget(&self) -> Duration {
        self.accounts.first().map_or(Duration::ZERO, |own| own.user.budget())
    }

    /// A transaction begins. `delivery`: what is saved in it is new mail.
    pub fn begin(&self, place: Place, delivery: bool) -> Open {
        let allowed = self.folders.allow(&place.mailbox, place.special_use.as_deref());
        let transaction = Transaction::new(place.mailbox, delivery);
        Open { transaction, owner: place.owner, allowed, source_allowed: false, delivery }
    }

    /// A transaction has a copy from there.
    pub fn copies_from(&self, open: &mut Open, source: &Place) {
        if !open.source_allowed && !open.allowed.rest {
            open.source_allowed = self.folders.allow(&source.mailbox, source.special_use.as_deref()).rest;
        }
    }

    /// A transaction was committed. Gives lines for the log.
    pub fn commit(
        &mut self,
        publishers: &mut Publishers,
        open: Open,
        mut commit: Commit,
        waited: Duration,
    ) -> Vec<Line> {
        commit.time_us = now_us();
        let delivery = open.delivery;
        self.committed.push(Committed { open, commit, waited, at: Instant::now() });
        if self.rests && !delivery && self.committed.len() < MAX_COMMITTED {
            return Vec::new();
        }
        self.absorb(publishers)
    }

    /// Looks at what was committed.
    fn absorb(&mut self, publishers: &mut Publishers) -> Vec<Line> {
        let mut lines = Vec::new();
        for committed in std::mem::take(&mut self.committed) {
            lines.extend(self.absorb_one(publishers, committed));
        }
        lines
    }

    fn absorb_one(&mut self, publishers: &mut Publishers, committed: Committed) -> Vec<Line> {
        let Committed { open, commit, waited, at: now } = committed;
        let Open { transaction, owner, allowed, source_allowed, delivery } = open;
        let mut changes = transaction.committed(commit);
        changes.retain(|change| match change.kind {
            EventKind::MessageNew(_) => allowed.new_mail,
            EventKind::MessageCopy(_) => allowed.rest || source_allowed,
            EventKind::Resync { .. } => allowed.anything(),
            _ => allowed.rest,
        });
        let mut lines = Vec::new();
        let Some(at) = self.account(publishers, owner, &mut lines) else { return lines };
        let Some(account) = self.accounts.get_mut(at) else { return lines };
        if !delivery && !account.outbox.is_empty() && !account.outbox.has_room(&changes) {
            // A client that is quicker than we are told: better now, while all of it can be said.
            lines.extend(account.publish(&self.kinds, now, true, waited));
            lines.extend(account.user.finish());
        }
        account.outbox.push(changes, now);
        // Answers are awaited at the end, behind what Dovecot still does, or when it has nothing to do ([`Session::wake`]).
        if delivery {
            lines.extend(account.publish(&self.kinds, now, true, waited));
        } else if !self.rests && account.outbox.age(now) >= LATEST {
            lines.extend(account.publish(&self.kinds, now, false, waited));
        } else {
            return lines;
        }
        if account.user.owes() {
            self.retry_at.get_or_insert(now + RETRY);
        }
        lines
    }

    /// Something happened to a mailbox as a whole; `old` is its former name.
    pub fn mailbox_changed(
        &mut self,
        publishers: &mut Publishers,
        what: MailboxChange,
        place: Place,
        old: Option<Place>,
    ) -> Vec<Line> {
        let mut lines = self.absorb(publishers);
        let rest = |place: &Place| self.folders.allow(&place.mailbox, place.special_use.as_deref()).rest;
        if !rest(&place) && !old.as_ref().is_some_and(rest) {
            return lines;
        }
        // Everybody has an INBOX; Dovecot makes it when it is touched for the first time.
        if what == MailboxChange::Create && place.mailbox.name.eq_ignore_ascii_case("INBOX") {
            return lines;
        }
        let kind = match (what, old) {
            (MailboxChange::Create, _) => EventKind::MailboxCreate,
            (MailboxChange::Delete, _) => EventKind::MailboxDelete,
            (MailboxChange::Subscribe, _) => EventKind::MailboxSubscribe,
            (MailboxChange::Unsubscribe, _) => EventKind::MailboxUnsubscribe,
            (MailboxChange::Rename, Some(old)) => EventKind::MailboxRename { old: old.mailbox },
            (MailboxChange::Rename, None) => return lines,
        };
        if !self.kinds.has(&kind) {
            return lines;
        }
        let change = Change {
            mailbox: place.mailbox.into(),
            uid_validity: place.uid_validity,
            order: None,
            time_us: now_us(),
            counts: None,
            kind,
        };
        let Some(at) = self.account(publishers, place.owner, &mut lines) else { return lines };
        if let Some(account) = self.accounts.get_mut(at) {
            account.outbox.push(vec![change], Instant::now());
        }
        lines
    }

    /// Dovecot gave UIDs to messages that no transaction added: whoever keeps a copy of the mailbox is to look again.
    pub fn found(&mut self, publishers: &mut Publishers, place: Place, count: u64) -> Vec<Line> {
        let mut lines = self.absorb(publishers);
        if !self.folders.allow(&place.mailbox, place.special_use.as_deref()).anything() {
            return lines;
        }
        let change = Change {
            mailbox: place.mailbox.into(),
            uid_validity: place.uid_validity,
            order: None,
            time_us: now_us(),
            counts: None,
            kind: EventKind::Resync { reason: ResyncReason::Other, missed: count },
        };
        let Some(at) = self.account(publishers, place.owner, &mut lines) else { return lines };
        if let Some(account) = self.accounts.get_mut(at) {
            account.outbox.push(vec![change], Instant::now());
        }
        lines
    }

    /// Dovecot has nothing to do: tells what is due, answers included.
    pub fn tick(&mut self, publishers: &mut Publishers) -> Vec<Line> {
        self.rests = true;
        let now = Instant::now();
        let mut lines = self.absorb(publishers);
        let mut told = false;
        let again = self.retry_at.is_some_and(|at| at <= now);
        if again {
            // Another session of the same user may have paid by now; whoever still owes sets it anew below.
            self.retry_at = None;
        }
        for account in &mut self.accounts {
            let due = account.outbox.wake(now) == Some(Duration::ZERO);
            if due || (again && account.user.owes()) {
                lines.extend(account.publish(&self.kinds, now, false, Duration::ZERO));
            } else if account.user.underway_since().is_none() {
                continue;
            }
            lines.extend(account.user.finish());
            told = true;
        }
        lines.extend(self.accounts.iter().filter_map(|account| account.user.account(now)));
        let now = Instant::now();
        if told {
            self.rest_at = Some(now + IDLE);
            let owes = self.accounts.iter().any(|account| account.user.owes());
            self.retry_at = owes.then(|| now + RETRY);
        } else if self.rest_at.is_some_and(|at| at <= now) {
            self.rest_at = None;
            self.accounts.iter().for_each(|account| account.user.rest());
        }
        lines
    }

    /// How long until [`Session::tick`] has something to do.
    pub fn wake(&self) -> Option<Duration> {
        if !self.committed.is_empty() {
            return Some(Duration::ZERO);
        }
        let now = Instant::now();
        let events = self.accounts.iter().filter_map(|account| account.outbox.wake(now));
        let users = || self.accounts.iter().map(|account| &account.user);
        let answers = users().filter_map(User::underway_since).map(|since| since + SOON);
        let silent = users().filter_map(User::account_at);
        let later = [self.rest_at, self.retry_at].into_iter().flatten().chain(answers).chain(silent);
        events.chain(later.map(|at| at.saturating_duration_since(now))).min()
    }

    /// Dovecot is done with the user: tells all that is left, and waits for the answers.
    pub fn end(mut self, publishers: &mut Publishers) -> Vec<Line> {
        let now = Instant::now();
        let mut lines = self.absorb(publishers);
        for account in &mut self.accounts {
            // A delivery that could not pay its debt a moment ago would only wait for the same once more.
            if !account.outbox.is_empty() || (self.rests && account.user.owes()) {
                lines.extend(account.publish(&self.kinds, now, true, Duration::ZERO));
            }
            lines.extend(account.user.finish());
        }
        lines
    }

    /// Whose events these are.
    fn account(
        &mut self,
        publishers: &mut Publishers,
        owner: Option<String>,
        lines: &mut Vec<Line>,
    ) -> Option<usize> {
        let Some(owner) = owner else { return Some(0) };
        if let Some(at) = self.accounts.iter().position(|account| account.login == owner) {
            return Some(at);
        }
        match publishers.user(&owner, self.debug, self.raw.clone()) {
            Ok(user) => {
                if self.accounts.len() > MAX_OWNERS {
                    let mut first = self.accounts.remove(1);
                    lines.extend(first.publish(&self.kinds, Instant::now(), true, Duration::ZERO));
                    lines.extend(first.user.finish());
                }
                self.accounts.push(Account::new(&owner, user, &self.kinds));
                Some(self.accounts.len() - 1)
            }
            Err(error) => {
                lines.push(Line::warning(format!("{error}; not told of a change to their mailbox")));
                None
            }
        }
    }
}

impl Account {
    fn new(login: &str, user: User, kinds: &Kinds) -> Account {
        // Who is not told of moves is told of copies and expunges.
        let outbox = Outbox::new(user.cn().as_str(), kinds.has_named("MessageMove"));
        Account { login: login.to_owned(), user, outbox }
    }

    /// Sends what is due, or all of it.
    fn publish(&mut self, kinds: &Kinds, now: Instant, all: bool, waited: Duration) -> Vec<Line> {
        let mut changes = if all { self.outbox.take_all() } else { self.outbox.take(now) };
        changes.retain(|change| kinds.has(&change.kind));
        if changes.is_empty() && !self.user.owes() {
            return Vec::new();
        }
        self.user.publish(Delivery { waited, changes })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::process::{Child, Command};

    use ocbus_wire::native::{Lease, LeaseRecord};
    use uuid::Uuid;

    use super::*;

    struct Memcached(Child);

    impl Memcached {
        fn start(port: u16) -> Memcached {
            let port = port.to_string();
            let arguments = ["-u", "nobody", "-l", "127.0.0.1", "-U", "0", "-p", &port];
            let memcached = Memcached(Command::new("memcached").args(arguments).spawn().unwrap());
            until("memcached listens", || TcpStream::connect(format!("127.0.0.1:{port}")).is_ok());
            memcached
        }
    }

    impl Drop for Memcached {
        fn drop(&mut self) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }

    /// Registers for bob.
    fn register(memcached: u16, native: &str) {
        let lease = Lease {
            endpoint: native.to_owned(),
            subscriber: Uuid::now_v7(),
            until_ms: now_us() / 1000 + 60_000,
            legacy: None,
            missed: 0,
        };
        let record = LeaseRecord::new(vec![lease]).encode().unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", memcached)).unwrap();
        write!(stream, "set ocbus:bob 0 0 {}\r\n", record.len()).unwrap();
        stream.write_all(&record).unwrap();
        stream.write_all(b"\r\n").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        assert_eq!(answer, "STORED\r\n");
    }

    fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    fn raw(memcached: u16) -> RawSettings {
        RawSettings { resolver: Some(format!("--SERVER=127.0.0.1:{memcached}")), ..RawSettings::default() }
    }

    /// A commit to INBOX at that time.
    fn flag(session: &mut Session, publishers: &mut Publishers, at: Instant) -> Vec<Line> {
        let place =
            Place { mailbox: Mailbox::new("INBOX", '/'), special_use: None, owner: None, uid_validity: None };
        let mut open = session.begin(place, false);
        open.transaction.flags((1, 1), 1, 0);
        let committed = Committed { open, commit: Commit::default(), waited: Duration::ZERO, at };
        session.absorb_one(publishers, committed)
    }

    /// A command that takes longer than [`LATEST`] before Dovecot has nothing to do for the first time.
    #[test]
    fn what_was_told_within_a_command_is_answered_when_it_is_over() {
        let (port, nobody) = (free_port(), free_port());
        let _memcached = Memcached::start(port);
        register(port, &format!("tcp://127.0.0.1:{nobody}"));
        let mut publishers = Publishers::new();
        let mut session = Session::new(&mut publishers, "bob", false, raw(port)).unwrap();
        let now = Instant::now();
        assert_eq!(flag(&mut session, &mut publishers, now.checked_sub(LATEST).unwrap()), []);
        assert_eq!(flag(&mut session, &mut publishers, now), []);
        assert!(session.accounts.iter().all(|account| account.outbox.is_empty()), "told");
        assert!(session.wake().is_some_and(|wake| wake <= SOON), "{:?}", session.wake());
        let lines = session.tick(&mut publishers);
        assert!(lines.len() == 1 && lines[0].text.contains("2 events: "), "{lines:?}");
        assert!(lines[0].text.ends_with("refused (removed)"), "{lines:?}");
        assert!(session.wake().is_some_and(|wake| wake > SOON), "nothing but the connections to close");
        assert_eq!(session.end(&mut publishers), []);
    }

    #[test]
    fn a_session_that_ends_pays_what_it_owes() {
        let port = free_port();
        let mut publishers = Publishers::new();
        let mut session = Session::new(&mut publishers, "bob", false, raw(port)).unwrap();
        make(&mut session, &mut publishers, "x");
        assert_eq!(session.tick(&mut publishers).len(), 1, "memcached is not there");
        let own = session.accounts.first().unwrap();
        assert!(own.user.owes() && own.outbox.is_empty());
        let _memcached = Memcached::start(port);
        let user = publishers.user("bob", false, raw(port)).unwrap();
        let lines = session.end(&mut publishers);
        assert!(lines.len() == 1 && lines[0].text.contains("answers again"), "{lines:?}");
        assert!(!user.owes());
        // One without a moment of rest is a delivery: what failed just now fails again.
        drop(_memcached);
        let mut session = Session::new(&mut publishers, "bob", false, raw(port)).unwrap();
        make(&mut session, &mut publishers, "y");
        assert_eq!(session.end(&mut publishers).len(), 1);
        assert!(user.owes());
        let session = Session::new(&mut publishers, "bob", false, raw(port)).unwrap();
        assert_eq!(session.end(&mut publishers), []);
    }

    fn until(what: &str, mut is: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !is() {
            assert!(Instant::now() < end, "{what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn make(session: &mut Session, publishers: &mut Publishers, name: &str) {
        let place =
            Place { mailbox: Mailbox::new(name, '/'), special_use: None, owner: None, uid_validity: None };
        assert!(session.mailbox_changed(publishers, MailboxChange::Create, place, None).is_empty());
    }

    #[test]
    fn a_debt_that_another_session_paid_does_not_keep_the_process_awake() {
        let port = free_port();
        let mut publishers = Publishers::new();
        let mut session = || Session::new(&mut publishers, "bob", false, raw(port)).unwrap();
        let (mut first, mut second) = (session(), session());
        make(&mut first, &mut publishers, "x");
        assert_eq!(first.tick(&mut publishers).len(), 1, "memcached is not there");
        assert!(
            first.wake().is_some_and(|wake| wake <= RETRY),
            "it is to be told later that this was missed"
        );
        let _memcached = Memcached::start(port);
        make(&mut second, &mut publishers, "y");
        until("memcached answers", || {
            second.tick(&mut publishers);
            !second.accounts.iter().any(|account| account.user.owes())
        });
        until("the first one's retry is due", || first.wake() == Some(Duration::ZERO));
        assert_eq!(first.tick(&mut publishers).len(), 0);
        assert_ne!(first.wake(), Some(Duration::ZERO));
    }
}
