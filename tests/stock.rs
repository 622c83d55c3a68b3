//! A stock Dovecot, without our plugin: its OX push driver, and the Lua script, against an HTTP server that keeps
//! what it is sent. What was sent is read by the readers that `ocbus serve` uses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::time::{Duration, Instant};

use ocbus::sandbox::faults::{Blackhole, Closer, Garbage, Refused, Silent};
use ocbus::sandbox::{Dovecot, DovecotOptions, ImapClient, MAIL_UID, Sandbox, mail};
use ocbus::wire::json::{Limits, decode_events};
use ocbus::wire::ox::OxNotification;
use ocbus::{Event, EventKind, now_us};
use support::http::{HttpServer, Request};
use support::until;
use uuid::Uuid;

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
    DovecotOptions::stock_lua(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/dovecot/openchange.lua"))
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

#[test]
fn the_script_tells_deliveries_by_lda_and_lmtp() {
    let (_sandbox, server, dovecot) = lua();
    let sent = mail("=?utf-8?q?J=C3=BCrgen?= <j@example.org>", "Grüße \"x\"\\\r\n folded", "Hi Bob");
    assert!(dovecot.deliver_lda("bob", &sent, Some("Entwürfe/2026")).unwrap().is_ok());
    let expected: [&[&str]; 2] =
        [&["MailboxCreate Entwürfe/2026"], &[r#"MessageNew Entwürfe/2026 1 "Grüße \"x\"\\ folded" ()"#]];
    assert_eq!(posts(&server, 0), expected);
    let event = posted(&server.requests()[1]).remove(0);
    let mailbox = event.mailbox.as_ref().unwrap();
    assert_eq!((mailbox.storage_name.as_str(), mailbox.list_separator), ("Entw&APw-rfe.2026", '.'));
    assert!(event.uidvalidity.is_some_and(|uidvalidity| uidvalidity > 0));
    let EventKind::MessageNew(message) = &event.kind else { panic!("{event:?}") };
    assert_eq!(message.from.as_deref(), Some("Jürgen <j@example.org>"));
    assert_eq!(message.message_id.as_deref(), Some(sent.message_id()));

    let mut lmtp = dovecot.lmtp().unwrap();
    for (uid, subject) in [(1, "one"), (2, "two")] {
        let before = server.requests().len();
        let replies = lmtp.deliver("a@example.org", &["bob"], mail("a@example.org", subject, "x")).unwrap();
        assert!(replies[0].is_ok(), "{replies:?}");
        assert_eq!(posts(&server, before), [[format!("MessageNew INBOX {uid} {subject:?} ()")]]);
    }
    lmtp.quit().unwrap();
    assert_sound(&dovecot);
}

#[test]
fn the_script_tells_headers_of_any_octets() {
    let (_sandbox, server, dovecot) = lua();
    let subjects = ["\u{1}\u{7f}tab\there", "</script>\\u0000", "😀 é", "=?utf-8?q?a=0Ab?=", ""];
    for subject in subjects {
        assert!(dovecot.deliver_lda("bob", mail("a@b", subject, "x"), None).unwrap().is_ok());
    }
    let raw = [
        b"From: Z\xeb <z@example.org>\nSubject: \xff\xc3( \xed\xa0\x80 ".as_slice(),
        &b"\xc3\xa9".repeat(5000),
        b"\n\nx\n",
    ];
    assert!(dovecot.deliver_lda("bob", raw.concat(), None).unwrap().is_ok());
    assert!(dovecot.deliver_lda("bob", "\nno header at all\n", None).unwrap().is_ok());
    let messages: Vec<_> = server.requests()[1..]
        .iter()
        .map(|request| match posted(request).remove(0).kind {
            EventKind::MessageNew(message) => (message.uid, message.from, message.subject),
            other => panic!("{other:?}"),
        })
        .collect();
    let from = || Some("a@b".to_owned());
    let subject = |text: &str| Some(text.to_owned());
    assert_eq!(messages[0], (Some(1), from(), subject(" tab here")));
    assert_eq!(messages[1], (Some(2), from(), subject("</script>\\u0000")));
    assert_eq!(messages[2], (Some(3), from(), subject("😀 é")));
    assert_eq!(messages[3], (Some(4), from(), subject("a b")));
    assert_eq!(messages[4], (Some(5), from(), None));
    assert_eq!((messages[5].0, messages[5].1.as_deref()), (Some(6), Some("Z\u{fffd} <z@example.org>")));
    let long = messages[5].2.as_deref().unwrap();
    assert!(long.contains("\u{fffd}") && long.ends_with("éé") && (900..1100).contains(&long.len()), "{long}");
    assert_eq!(messages[6], (Some(7), None, None));
    assert_sound(&dovecot);
}

#[test]
fn the_script_tells_what_imap_does_as_its_right_kinds() {
    let (_sandbox, server, dovecot) = lua();
    let mut imap = dovecot.imap("bob").unwrap();
    imap.append("INBOX", "\\Seen", mail("a@b", "one", "x")).unwrap();
    imap.append("INBOX", "", mail("a@b", "two", "x")).unwrap();
    imap.append("INBOX", "\\Flagged $Label1", mail("a@b", "three", "x")).unwrap();
    let appended: [&[&str]; 3] = [
        &[r#"MessageAppend INBOX 1 "one" (\Seen)"#],
        &[r#"MessageAppend INBOX 2 "two" ()"#],
        &[r#"MessageAppend INBOX 3 "three" (\Flagged $Label1)"#],
    ];
    // INBOX is made at the first look at it.
    let made =
        posts(&server, 0).into_iter().filter(|post| post != &["MailboxCreate INBOX"]).collect::<Vec<_>>();
    assert_eq!(made, appended);
    let commands: &[(&str, &[&[&str]])] = &[
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
            &[&[
                r#"MessageAppend Work 1 "one" (\Draft kw2)"#,
                r#"MessageAppend Work 2 "three" (\Draft kw2)"#,
            ]],
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
    for (command, expected) in commands {
        let before = server.requests().len();
        imap.command(command).unwrap();
        assert_eq!(&posts(&server, before), expected, "{command}");
    }
    imap.logout().unwrap();
    assert_sound(&dovecot);
}

#[test]
fn a_transaction_too_large_to_tell_is_told_as_a_resync() {
    let (_sandbox, server, dovecot) = lua();
    let mut imap = dovecot.imap("bob").unwrap();
    imap.command("CREATE Work").unwrap();
    for _ in 0..4 {
        imap.append("INBOX", "", mail("a@b", "x", "x")).unwrap();
    }
    imap.command("SELECT INBOX").unwrap();
    // 4, 8, ... 1024.
    for _ in 0..8 {
        imap.command("COPY 1:* INBOX").unwrap();
    }
    let all = posts(&server, 0);
    let last = all.last().unwrap();
    assert_eq!(last.len(), 501, "500 messages and");
    assert_eq!(last[500], "Resync INBOX overflow 12");
    let before = server.requests().len();
    imap.command("STORE 1:* +FLAGS (\\Flagged)").unwrap();
    imap.command("EXPUNGE").unwrap();
    assert_eq!(posts(&server, before), [[r"FlagsSet INBOX 1:1024 (\Flagged)"]]);
    assert_sound(&dovecot);
}

/// How long a command, and a delivery, takes with a daemon that does not work, and what is in the log then.
fn costs(name: &str, port: u16, timeout_ms: u64) -> ([Duration; 4], String) {
    let sandbox = Sandbox::new().unwrap();
    let options = lua_options(&format!("http://127.0.0.1:{port}/v1/events"))
        .setting("openchange_push_timeout", &timeout_ms.to_string());
    let dovecot = sandbox.dovecot(options).unwrap();
    // Everything is there, and told about, but for what is measured.
    let mut imap = dovecot.imap("bob").unwrap();
    imap.append("INBOX", "", mail("a@b", "x", "x")).unwrap();
    imap.logout().unwrap();
    let mut imap = dovecot.imap("bob").unwrap();
    imap.command("SELECT INBOX").unwrap();
    let begun = Instant::now();
    imap.command("STORE 1 +FLAGS (\\Flagged)").unwrap();
    let first = begun.elapsed();
    let begun = Instant::now();
    for n in 0..20 {
        imap.command(&format!("STORE 1 +FLAGS (kw{n})")).unwrap();
    }
    let further = begun.elapsed() / 20;
    imap.logout().unwrap();
    let delivery = dovecot.deliver_lda("bob", mail("a@b", "x", "x"), None).unwrap();
    assert!(delivery.is_ok(), "{name}: {delivery:?}");
    let mut lmtp = dovecot.lmtp().unwrap();
    let begun = Instant::now();
    let replies = lmtp.deliver("a@b", &["bob"], mail("a@b", "x", "x")).unwrap();
    let by_lmtp = begun.elapsed();
    assert!(replies[0].is_ok(), "{name}: {replies:?}");
    lmtp.quit().unwrap();
    assert_eq!(dovecot.maildir("bob").total(), 3, "{name}");
    let took = [first, further, delivery.took, by_lmtp];
    println!("{name}: first command, further ones, dovecot-lda, LMTP: {took:?}");
    // One line for each process: two of IMAP, one of dovecot-lda and one of LMTP. Servers log by another one.
    until("everybody has complained", || dovecot.plugin_log_lines().len() >= 4);
    (took, dovecot.log())
}

#[test]
fn a_daemon_that_does_not_work_costs_at_most_the_deadline() {
    const TIMEOUT_MS: u64 = 300;
    /// What a command or dovecot-lda takes of itself on a busy machine.
    const OWN: Duration = Duration::from_millis(150);
    let deadline = Duration::from_millis(TIMEOUT_MS);
    let refused = Refused::new().unwrap();
    let silent = Silent::new().unwrap();
    let blackhole = Blackhole::new().unwrap();
    let closer = Closer::new().unwrap();
    let garbage = Garbage::new().unwrap();
    for (name, port) in [
        ("refused", refused.port()),
        ("silent", silent.port()),
        ("blackhole", blackhole.port()),
        ("closing", closer.port()),
        ("400", garbage.port()),
    ] {
        let ([first, further, lda, lmtp], log) = costs(name, port, TIMEOUT_MS);
        assert!(first < deadline + OWN, "{name}: {first:?}");
        assert!(further < OWN / 3, "{name}: the outage is forgotten: {further:?}");
        assert!(lda < deadline + OWN && lmtp < deadline + OWN, "{name}: {lda:?}, {lmtp:?}");
        let ours: Vec<&str> = log.lines().filter(|line| line.contains("openchange")).collect();
        assert_eq!(ours.len(), 4, "{name}: {ours:#?}");
        assert!(ours.iter().all(|line| line.contains("Warning: openchange: http://")), "{ours:#?}");
        assert!(!log.contains("Error") && !log.contains("Panic"), "{name}: {log}");
    }
}

#[test]
fn processes_tell_each_other_of_an_outage_by_a_file() {
    const TIMEOUT: Duration = Duration::from_millis(400);
    let (sandbox, silent) = (Sandbox::new().unwrap(), Silent::new().unwrap());
    let state = sandbox.path().join("outage");
    std::fs::write(&state, "").unwrap();
    std::os::unix::fs::chown(&state, Some(MAIL_UID), None).unwrap();
    let options = lua_options(&format!("http://127.0.0.1:{}/v1/events", silent.port()))
        .setting("openchange_push_timeout", "400")
        .setting("openchange_push_state", state.to_str().unwrap());
    let dovecot = sandbox.dovecot(options).unwrap();
    // INBOX is made.
    dovecot.doveadm(&["mailbox", "status", "-u", "bob", "messages", "INBOX"]).unwrap();
    std::fs::write(&state, "").unwrap();
    let lda = || {
        let delivery = dovecot.deliver_lda("bob", mail("a@b", "x", "x"), None).unwrap();
        assert!(delivery.is_ok(), "{delivery:?}");
        delivery.took
    };
    let first = lda();
    assert!(first >= TIMEOUT, "{first:?}");
    let asked = silent.accepted();
    let second = lda();
    assert!(second < TIMEOUT / 2, "{second:?}");
    let mut lmtp = dovecot.lmtp().unwrap();
    for _ in 0..3 {
        let begun = Instant::now();
        assert!(lmtp.deliver("a@b", &["bob"], mail("a@b", "x", "x")).unwrap()[0].is_ok());
        assert!(begun.elapsed() < TIMEOUT / 2, "{:?}", begun.elapsed());
    }
    lmtp.quit().unwrap();
    assert_eq!(silent.accepted(), asked);
    // Each has said what it did not tell.
    until("everybody has complained", || {
        dovecot.log().matches("1 events of bob could not be told: out of reach a moment ago").count() == 4
    });
    // Nonsense, or a clock that went back, closes nobody's mouth.
    for nonsense in ["soon", "99999999999"] {
        std::fs::write(&state, nonsense).unwrap();
        assert!(lda() >= TIMEOUT, "{nonsense}");
    }
}

/// Flips a flag, which is one event.
fn flip(imap: &mut ImapClient, count: &mut u64) {
    *count += 1;
    let sign = if count.is_multiple_of(2) { '-' } else { '+' };
    imap.command(&format!("STORE 1 {sign}FLAGS (\\Answered)")).unwrap();
}

#[test]
fn what_was_missed_is_told_when_the_daemon_is_back() {
    let sandbox = Sandbox::new().unwrap();
    let refused = Refused::new().unwrap();
    let port = refused.port();
    let options =
        lua_options(&format!("http://127.0.0.1:{port}/v1/events")).setting("openchange_push_pause", "1");
    let dovecot = sandbox.dovecot(options).unwrap();
    dovecot.doveadm(&["mailbox", "create", "-u", "bob", "Work"]).unwrap();
    let mut imap = dovecot.imap("bob").unwrap();
    imap.append("INBOX", "", mail("a@b", "x", "x")).unwrap();
    imap.command("SELECT INBOX").unwrap();
    let mut flips = 0;
    flip(&mut imap, &mut flips);
    drop(refused);
    let server = HttpServer::at(port);
    until("the daemon is asked again", || {
        flip(&mut imap, &mut flips);
        !server.requests().is_empty()
    });
    flip(&mut imap, &mut flips);
    let told = posts(&server, 0);
    let (missed, sign) = (flips - 2, if (flips - 1).is_multiple_of(2) { "Clear" } else { "Set" });
    // The APPEND was missed too, and INBOX may have been made.
    let resync = &told[0][0];
    let with = [1, 2].map(|more| format!("Resync - unreachable {}", missed + more));
    assert!(with.contains(resync), "{resync} after {flips} flips");
    assert_eq!(told[0][1..], [format!("Flags{sign} INBOX 1 (\\Answered)")]);
    assert_eq!(told[1].len(), 1, "the resync comes once: {told:?}");
    dovecot.wait_log("answers again", Duration::from_secs(5)).unwrap();

    // Refused is told as missed too, but nothing is waited for: whoever answers does so at once.
    server.answer(503);
    flip(&mut imap, &mut flips);
    flip(&mut imap, &mut flips);
    server.answer(200);
    flip(&mut imap, &mut flips);
    assert_eq!(posts(&server, 4)[0][0], "Resync - unreachable 2");
}

#[test]
fn a_daemon_that_was_restarted_is_told_at_once() {
    let (_sandbox, server, dovecot) = lua();
    let mut imap = dovecot.imap("bob").unwrap();
    imap.append("INBOX", "", mail("a@b", "x", "x")).unwrap();
    imap.command("SELECT INBOX").unwrap();
    let mut flips = 0;
    flip(&mut imap, &mut flips);
    // The session's connection to it is open, and breaks.
    let port = server.port();
    drop(server);
    let server = HttpServer::at(port);
    for n in 1..=3 {
        flip(&mut imap, &mut flips);
        assert_eq!(posts(&server, 0).len(), n);
    }
    assert_sound(&dovecot);
}

#[test]
fn without_settings_or_with_wrong_ones_nothing_breaks() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/dovecot/openchange.lua");
    let server = HttpServer::new();
    for (settings, warning) in [
        (vec![], "openchange_push_url is not set: nothing is told"),
        (vec![("openchange_push_url", "nonsense")], "Failed to parse url nonsense"),
        (
            vec![
                ("openchange_push_url", server.url("/v1/events").as_str()),
                ("openchange_push_timeout", "soon"),
            ],
            "openchange_push_timeout = soon: expected 1 to 60000; 500 is used",
        ),
    ] {
        let sandbox = Sandbox::new().unwrap();
        let options = settings
            .iter()
            .fold(DovecotOptions::stock_lua(script), |options, (name, value)| options.setting(name, value));
        let dovecot = sandbox.dovecot(options).unwrap();
        let mut imap = dovecot.imap("bob").unwrap();
        imap.append("INBOX", "", mail("a@b", "x", "x")).unwrap();
        imap.logout().unwrap();
        assert!(dovecot.deliver_lda("bob", mail("a@b", "x", "x"), None).unwrap().is_ok());
        let line = dovecot.wait_log(warning, Duration::from_secs(5)).unwrap();
        assert!(line.contains("Warning: openchange: "), "{line}");
        assert!(!dovecot.log().contains("Error"), "{}", dovecot.log());
    }
    assert!(server.requests().len() >= 2);
}

/// A Dovecot with its own OX driver, telling a server; bob is registered.
fn ox() -> (Sandbox, HttpServer, Dovecot) {
    let sandbox = Sandbox::new().unwrap();
    let server = HttpServer::new();
    let url = server.url("/preliminary/http-notify/v1/notify").replace("://", "://login:pass@");
    let dovecot = sandbox.dovecot(DovecotOptions::stock_ox(&url)).unwrap();
    for user in ["bob", "carol"] {
        dovecot.register_ox(user, &format!("user={user}")).unwrap();
    }
    (sandbox, server, dovecot)
}

#[test]
fn the_ox_driver_tells_deliveries_by_lda_and_lmtp() {
    let (_sandbox, server, dovecot) = ox();
    let sent =
        mail("=?utf-8?q?J=C3=BCrgen?= <j@example.org>", "=?utf-8?b?R3LDvMOfZQ==?=\r\n folded", "Hi Bob");
    assert!(dovecot.deliver_lda("bob", &sent, None).unwrap().is_ok());
    let mut lmtp = dovecot.lmtp().unwrap();
    for reply in lmtp.deliver("a@b", &["bob", "carol"], &sent).unwrap() {
        assert!(reply.is_ok(), "{reply:?}");
    }
    lmtp.quit().unwrap();
    // Not told: other folders, what clients do, users that are not registered.
    assert!(dovecot.deliver_lda("bob", &sent, Some("Work")).unwrap().is_ok());
    assert!(dovecot.deliver_lda("dave", &sent, None).unwrap().is_ok());
    let mut imap = dovecot.imap("bob").unwrap();
    imap.append("INBOX", "", &sent).unwrap();
    imap.logout().unwrap();
    let requests = server.requests();
    for (request, (user, uid, unseen)) in requests.iter().zip([("bob", 1, 1), ("bob", 2, 2), ("carol", 1, 1)])
    {
        assert_eq!(request.line, "PUT /preliminary/http-notify/v1/notify HTTP/1.1");
        assert_eq!(request.header("authorization"), Some("Basic bG9naW46cGFzcw=="));
        let events =
            OxNotification::decode(&request.body).unwrap().into_events(user, 7, &mut Uuid::now_v7).unwrap();
        assert_eq!(events.len(), 1);
        let event = &events[0];
        assert_eq!((event.user.as_str(), event.time_us, event.unseen), (user, 7, Some(unseen)));
        assert_eq!(told(event), format!("MessageNew INBOX {uid} \"Grüße folded\" ()"));
        assert!(event.uidvalidity.is_some_and(|uidvalidity| uidvalidity > 0));
    }
    assert_eq!(requests.len(), 3, "{requests:?}");
    assert_sound(&dovecot);
}
