//! Two servers in C that share a session through memcached alone, as OpenChange's emsmdb and asyncemsmdb do: a mail that
//! dovecot-lda delivers ends the wait in one process, and is fetched in the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ocbus::sandbox::{Dovecot, DovecotOptions, Memcached, Sandbox, mail};
use ocbus_wire::ropnotify::{Notification, RopNotify, split};
use support::Program;

/// How long anything may take; under valgrind on a busy machine too.
const LIMIT: Duration = Duration::from_secs(30);

/// As `Uuid::from_bytes_le` reads the C program's GUIDs, whose first octets are 1 and 2.
const SESSION: &str = "00000001-0000-0000-0000-000000000000";
const ASYNC: &str = "00000002-0000-0000-0000-000000000000";

/// One of both; ended with the test, however that ends.
struct Server {
    child: Child,
    lines: Receiver<String>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has usually ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(mut command: Command, part: &str, memcached: &Memcached) -> Server {
        let configuration = format!("resolver = {}", memcached.configuration());
        command.args([part, &configuration]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || output.lines().try_for_each(|line| sender.send(line.unwrap())));
        let mut server = Server { child, lines };
        assert_eq!(server.line(), "ready");
        server
    }

    fn line(&mut self) -> String {
        self.lines.recv_timeout(LIMIT).expect("a line before the deadline")
    }

    fn fetch(&mut self) -> Vec<RopNotify> {
        writeln!(self.child.stdin.as_mut().unwrap(), "fetch").unwrap();
        let line = self.line();
        let hex = line.strip_prefix("replies ").expect("replies").as_bytes();
        let octets: Vec<u8> =
            hex.chunks(2).map(|two| u8::from_str_radix(support::text(two), 16).unwrap()).collect();
        split(&octets).map(Result::unwrap).collect()
    }

    /// Gives what it said before its end.
    fn end(mut self) -> Vec<String> {
        drop(self.child.stdin.take());
        let mut lines: Vec<String> = self.lines.iter().collect();
        assert!(self.child.wait().unwrap().success(), "no error of valgrind, no leak: {lines:?}");
        assert_eq!(lines.pop().as_deref(), Some("ended"));
        lines
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn a_mail_goes_through_both(valgrind: bool) {
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached().unwrap();
    let options = DovecotOptions::new(&["notify", "openchange"])
        .setting("openchange_resolver", &memcached.configuration())
        .setting("openchange_budget", "2000");
    let dovecot: Dovecot = sandbox.dovecot(options).unwrap();
    let program = Program::build("tests/sharing.c", &["-D_POSIX_C_SOURCE=200809L"]);
    let command = || if valgrind { program.valgrind() } else { program.command() };
    let record = |name: &str, guid: &str| memcached.get(&format!("{name}:{guid}")).unwrap();

    let mut emsmdb = Server::start(command(), "emsmdb", &memcached);
    assert_eq!(record("session", ASYNC).unwrap()[17..], *b"bob\0");
    until("subscription:", || record("subscription", SESSION).is_some());
    let mut asyncemsmdb = Server::start(command(), "asyncemsmdb", &memcached);
    until("bob is registered", || memcached.get("ocbus:bob").unwrap().is_some());
    // It has joined a session that nobody had listened for: the client is told to look.
    assert_eq!(asyncemsmdb.line(), "wait 0 1 2");
    let is_look = |reply: &RopNotify| reply.flags() == 0x0010;
    until("told to look", || emsmdb.fetch().iter().any(is_look));
    for number in 1..=2 {
        let delivery = dovecot.deliver_lda("bob", mail("alice@example.org", "Hello", "Hi"), None).unwrap();
        assert_eq!(delivery.status, Some(0), "{delivery:?}\n{}", dovecot.log());
        assert_eq!(asyncemsmdb.line(), "wait 0 1 2", "answered by the asynchronous session");
        let mut replies = Vec::new();
        until("the mail", || {
            replies.extend(emsmdb.fetch());
            let has = |flags| replies.iter().any(|reply: &RopNotify| reply.flags() == flags);
            has(0x8002) && (has(0x3010) || has(0x0010))
        });
        assert!(replies.iter().all(|reply| (reply.handle, reply.logon_id) == (0x29, 5)), "{replies:?}");
        let new_mails: Vec<u64> = replies
            .iter()
            .filter_map(|reply| match &reply.notification {
                Notification::NewMail { message, .. } => Some(message.as_u64()),
                _ => None,
            })
            .collect();
        assert_eq!(new_mails, [1 + (number << 32)], "{replies:?}");
        while asyncemsmdb.lines.try_recv().is_ok() {}
    }

    // This one first: a wait that is parked behind the session's end is answered by that.
    let mut lines = asyncemsmdb.end();
    assert_eq!(lines.pop().as_deref(), Some("wait 3ed 0 2"), "the parked wait was answered");
    // What a mail does to its folder's table may come behind the mail, and end a wait by itself.
    assert!(lines.iter().all(|line| line == "wait 0 1 2"), "{lines:?}");

    emsmdb.end();
    for (name, guid) in [("session", ASYNC), ("subscription", SESSION), ("deliver", SESSION)] {
        assert_eq!(record(name, guid), None, "{name} is left behind");
    }
}

#[test]
fn a_wait_ends_in_one_process_and_its_replies_are_fetched_in_the_other() {
    a_mail_goes_through_both(false);
}

#[test]
fn the_same_under_valgrind() {
    a_mail_goes_through_both(true);
}
