//! trial
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use ocbus::sandbox::{DovecotOptions, Sandbox, mail};
use support::http::HttpServer;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/dovecot/openchange.lua");

#[test]
fn trial() {
    let sandbox = Sandbox::new().unwrap();
    let server = HttpServer::new();
    let dovecot = sandbox
        .dovecot(
            DovecotOptions::new(&["notify", "push_notification", "mail_lua", "push_notification_lua"])
                .setting("push_notification_driver", &format!("lua:file={SCRIPT}"))
                .setting("openchange_push_url", &server.url("/v1/events"))
                .setting("openchange_push_token", "secret"),
        )
        .unwrap();
    let mut imap = dovecot.imap("bob").unwrap();
    let mut run = |command: &str| {
        let begun = std::time::Instant::now();
        let answer = imap.command(command);
        println!("--- {command}: {:?} {:?}", answer.map(|a| a.last().cloned()), begun.elapsed());
        for request in server.requests().into_iter().skip(DONE.fetch_max(server.requests().len(), std::sync::atomic::Ordering::SeqCst)) {
            println!("{} {:?}\n{}", request.line, request.headers, String::from_utf8_lossy(&request.body));
        }
    };
    static DONE: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let d = dovecot.deliver_lda("bob", mail("=?utf-8?q?J=C3=BCrgen?= <j@example.org>", "Gr\u{fc}\u{df}e \"x\"\\ \r\n folded", "Hi Bob"), Some("Entwürfe/2026")).unwrap();
    println!("lda {d:?}");
    run("SELECT INBOX");
    let mut imap2 = dovecot.imap("bob").unwrap();
    imap2.append("INBOX", "\\Seen", mail("a@b", "app1", "x")).unwrap();
    imap2.append("INBOX", "", mail("a@b", "app2", "x")).unwrap();
    imap2.append("INBOX", "\\Flagged $Label1", mail("a@b", "app3", "x")).unwrap();
    for c in ["NOOP", "CREATE Work", "CREATE Work/Sub", "SUBSCRIBE Work", "STORE 1:3 +FLAGS (\\Flagged)", "STORE 1 +FLAGS (\\Flagged)", "STORE 1:2 +FLAGS (\\Seen)",
        "STORE 1:2 +FLAGS (\\Answered kw1)", "STORE 1:3 FLAGS (\\Draft kw2)", "COPY 1:3 Work", "MOVE 2 Work", "STORE 1:2 +FLAGS (\\Deleted)", "EXPUNGE", "RENAME Work/Sub Sub2", "UNSUBSCRIBE Work", "DELETE Sub2", "DELETE Work"] {
        run(c);
    }
    println!("{}", dovecot.log());
}
