//! What a daemon that is absent, hangs or refuses costs, and what is told when it is back.

use std::time::{Duration, Instant, SystemTime};

use ocbus::sandbox::faults::{Blackhole, Closer, Garbage, Refused, Silent};
use ocbus::sandbox::{DovecotOptions, ImapClient, MAIL_UID, Sandbox, mail};

use super::support::http::HttpServer;
use super::support::until;
use super::{SCRIPT, assert_sound, lua, lua_options, posts};

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

#[test]
fn a_process_that_has_had_an_outage_still_hears_of_others() {
    const TIMEOUT: Duration = Duration::from_millis(400);
    let (sandbox, silent) = (Sandbox::new().unwrap(), Silent::new().unwrap());
    let state = sandbox.path().join("outage");
    std::fs::write(&state, "").unwrap();
    std::os::unix::fs::chown(&state, Some(MAIL_UID), None).unwrap();
    let options = lua_options(&format!("http://127.0.0.1:{}/v1/events", silent.port()))
        .setting("openchange_push_timeout", "400")
        .setting("openchange_push_pause", "2")
        .setting("openchange_push_state", state.to_str().unwrap());
    let dovecot = sandbox.dovecot(options).unwrap();
    let mut imap = dovecot.imap("bob").unwrap();
    imap.append("INBOX", "", mail("a@b", "x", "x")).unwrap();
    imap.command("SELECT INBOX").unwrap();
    let mut flips = 0;
    flip(&mut imap, &mut flips);
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let found: u64 = std::fs::read_to_string(&state).unwrap().trim().parse().unwrap();
    until("its own outage is over", || now() >= found);
    // Another process has found one.
    std::fs::write(&state, format!("{}\n", now() + 2)).unwrap();
    let asked = silent.accepted();
    let begun = Instant::now();
    flip(&mut imap, &mut flips);
    assert!(begun.elapsed() < TIMEOUT / 2, "{:?}", begun.elapsed());
    assert_eq!(silent.accepted(), asked);
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
            .fold(DovecotOptions::stock_lua(SCRIPT), |options, (name, value)| options.setting(name, value));
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
