//! A stock Dovecot, without our plugin: its OX push driver, and the Lua script, against an HTTP server that keeps
//! what it is sent. What was sent is read by the readers that `ocbus serve` uses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "stock/daemon.rs"]
mod daemon;
#[path = "stock/outage.rs"]
mod outage;
#[path = "stock/ox.rs"]
mod ox;
#[path = "stock/script.rs"]
mod script;
mod support;

use ocbus::sandbox::{Dovecot, DovecotOptions, ImapClient, Sandbox, mail};
use ocbus::wire::json::{Limits, decode_events};
use ocbus::{Event, EventKind, now_us};
use support::http::{HttpServer, Request};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/dovecot/openchange.lua");

/// The events of a POST to `/v1/events`; each must make sense.
fn posted(request: &Request) -> Vec<Event> {
    assert_eq!(request.line, "POST /v1/events HTTP/1.1");
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("authorization"), Some("Bearer secret"));
    let decoded =
        decode_events(&request.body, &Limits::default(), now_us(), &mut || panic!("no id")).unwrap();
    assert_eq!(decoded.skipped, [], "{}", String::from_utf8_lossy(&request.body));
    for event in &decoded.events {
        assert_eq!((event.id.get_version_num(), event.user.as_str()), (7, "bob"));
    }
    decoded.events
}

/// What an event tells, in one line.
fn told(event: &Event) -> String {
    let name = event.mailbox.as_ref().map_or("-", |mailbox| mailbox.name.as_str());
    let kind = format!("{} {name}", event.kind.name());
    let list = |items: &[String]| items.join(" ");
    match &event.kind {
        EventKind::MessageNew(message) | EventKind::MessageAppend(message) => {
            let flags = list(&[message.flags.clone(), message.keywords.clone()].concat());
            format!("{kind} {} {:?} ({flags})", message.uid.unwrap(), message.subject.as_deref().unwrap())
        }
        EventKind::MessageRead { uids }
        | EventKind::MessageTrash { uids }
        | EventKind::MessageExpunge { uids } => format!("{kind} {uids}"),
        EventKind::FlagsSet { uids, flags, keywords } | EventKind::FlagsClear { uids, flags, keywords } => {
            format!("{kind} {uids} ({})", list(&[flags.clone(), keywords.clone()].concat()))
        }
        EventKind::MailboxRename { old } => format!("{kind} from {}", old.name),
        EventKind::Resync { reason, missed } => format!("{kind} {} {missed}", reason.name()),
        _ => kind,
    }
}

/// The POSTs of a server from the `from`-th on, each as its events' lines.
fn posts(server: &HttpServer, from: usize) -> Vec<Vec<String>> {
    server.requests()[from..].iter().map(|request| posted(request).iter().map(told).collect()).collect()
}

fn lua_options(url: &str) -> DovecotOptions {
    DovecotOptions::stock_lua(SCRIPT)
        .setting("openchange_push_url", url)
        .setting("openchange_push_token", "secret")
}

/// A Dovecot with the script, telling a server.
fn lua() -> (Sandbox, HttpServer, Dovecot) {
    let sandbox = Sandbox::new().unwrap();
    let server = HttpServer::new();
    let dovecot = sandbox.dovecot(lua_options(&server.url("/v1/events"))).unwrap();
    (sandbox, server, dovecot)
}

/// Nothing of ours or of Lua's is in the log, and no process died.
fn assert_sound(dovecot: &Dovecot) {
    let log = dovecot.log();
    for bad in ["Panic", "Fatal", "Error", "killed with signal", "openchange"] {
        assert!(!log.contains(bad), "{bad} in dovecot's log:\n{log}");
    }
}

/// Three messages in INBOX.
fn append_three(imap: &mut ImapClient) {
    imap.append("INBOX", "\\Seen", mail("a@b", "one", "x")).unwrap();
    imap.append("INBOX", "", mail("a@b", "two", "x")).unwrap();
    imap.append("INBOX", "\\Flagged $Label1", mail("a@b", "three", "x")).unwrap();
}

/// The events that they make.
const APPENDED: [&str; 3] = [
    r#"MessageAppend INBOX 1 "one" (\Seen)"#,
    r#"MessageAppend INBOX 2 "two" ()"#,
    r#"MessageAppend INBOX 3 "three" (\Flagged $Label1)"#,
];

/// What IMAP does with them, and the events that it makes: one array for each transaction.
const IMAP: &[(&str, &[&[&str]])] = &[
    ("SELECT INBOX", &[]),
    ("CREATE Work", &[&["MailboxCreate Work"]]),
    ("CREATE Work/Sub", &[&["MailboxCreate Work/Sub"]]),
    ("SUBSCRIBE Work", &[&["MailboxSubscribe Work"]]),
    // One event for all messages with the same change.
    ("STORE 1:3 +FLAGS (\\Flagged)", &[&[r"FlagsSet INBOX 1:2 (\Flagged)"]]),
    ("STORE 1:3 +FLAGS (\\Flagged)", &[]),
    ("STORE 1:3 -FLAGS (\\Answered nokeyword)", &[]),
    ("STORE 1:2 +FLAGS (\\Seen)", &[&["MessageRead INBOX 2"]]),
    ("STORE 3 +FLAGS (\\Seen \\Draft)", &[&[r"FlagsSet INBOX 3 (\Draft)", "MessageRead INBOX 3"]]),
    ("STORE 1:2 -FLAGS (\\Seen)", &[&[r"FlagsClear INBOX 1:2 (\Seen)"]]),
    ("STORE 1:2 +FLAGS (\\Answered kw1)", &[&[r"FlagsSet INBOX 1:2 (\Answered kw1)"]]),
    (
        "STORE 1:3 FLAGS (\\Draft kw2)",
        &[&[
            r"FlagsClear INBOX 1:2 (\Answered \Flagged kw1)",
            r"FlagsSet INBOX 1:2 (\Draft kw2)",
            r"FlagsClear INBOX 3 (\Flagged \Seen $Label1)",
            "FlagsSet INBOX 3 (kw2)",
        ]],
    ),
    // Dovecot does not tell that it is a copy, nor from where.
    (
        "COPY 1,3 Work",
        &[&[r#"MessageAppend Work 1 "one" (\Draft kw2)"#, r#"MessageAppend Work 2 "three" (\Draft kw2)"#]],
    ),
    // Likewise.
    ("MOVE 2 Work", &[&[r#"MessageAppend Work 3 "two" (\Draft kw2)"#], &["MessageExpunge INBOX 2"]]),
    ("STORE 1:2 +FLAGS (\\Deleted)", &[&["MessageTrash INBOX 1,3"]]),
    ("STORE 2 -FLAGS (\\Deleted)", &[&[r"FlagsClear INBOX 3 (\Deleted)"]]),
    ("EXPUNGE", &[&["MessageExpunge INBOX 1"]]),
    ("FETCH 1 BODY[]", &[&["MessageRead INBOX 3"]]),
    ("RENAME Work/Sub Sub2", &[&["MailboxRename Sub2 from Work/Sub"]]),
    ("UNSUBSCRIBE Work", &[&["MailboxUnsubscribe Work"]]),
    ("DELETE Sub2", &[&["MailboxDelete Sub2"]]),
    ("DELETE Work", &[&["MessageExpunge Work 1:3"], &["MailboxDelete Work"]]),
    ("NOOP", &[]),
];
