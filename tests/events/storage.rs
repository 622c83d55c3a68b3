//! What becomes of mailboxes below the sessions: a new UIDVALIDITY, rebuilt and lost index files, several sessions at once.

use std::path::{Path, PathBuf};

use super::{Table, deliver, site};
use crate::support::{LIMIT, Site, shown};
use ocbus::sandbox::mail;

/// All files of a folder and below it whose name begins so.
fn files(folder: &Path, beginning: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, beginning));
        } else if path.file_name().unwrap().to_str().unwrap().starts_with(beginning) {
            found.push(path);
        }
    }
    found
}

async fn three_mails(site: &Site) -> Table {
    let mut table = Table::new(site).await;
    for uid in 1..=3 {
        deliver(site, "bob");
        table.expect("delivery", &[&format!("MessageNew INBOX {uid}")]).await;
    }
    table
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_uidvalidity_is_told() {
    for format in ["maildir", "sdbox", "mdbox"] {
        let site = site(|options| options.mail_location(format, &format!("~/{format}")));
        let mut table = three_mails(&site).await;
        let update = |more: &[&str]| {
            let command = ["mailbox", "update", "-u", "bob"];
            site.dovecot.doveadm(&[&command, more, &["INBOX"]].concat()).unwrap();
        };
        update(&["--uid-validity", "1234567"]);
        let event = tokio::time::timeout(LIMIT, table.bob.events.recv()).await.expect(format).unwrap();
        assert!(shown(&event).starts_with("Resync INBOX other "), "{format}: {event:?}");
        assert_eq!(event.uidvalidity, Some(1_234_567), "{format}");
        update(&["--min-next-uid", "100"]);
        table.expect(&format!("{format}: what else is updated changes no message"), &[]).await;
        table.assert_right(&site);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_index_is_told() {
    for format in ["sdbox", "mdbox"] {
        let site = site(|options| options.mail_location(format, &format!("~/{format}")));
        let mut table = three_mails(&site).await;
        let home = site.dovecot.path().join("mail/bob");
        if format == "sdbox" {
            let first = files(&home, "u.1").pop().unwrap();
            std::fs::rename(&first, first.with_file_name("u.99")).unwrap();
        }
        site.dovecot.doveadm(&["force-resync", "-u", "bob", "INBOX"]).unwrap();
        table.expect(format, &["Resync INBOX other 3"]).await;
        if format == "sdbox" {
            // By itself, where a session finds a message's file gone.
            std::fs::remove_file(files(&home, "u.3").pop().unwrap()).unwrap();
            let mut imap = site.dovecot.imap("bob").unwrap();
            imap.command("SELECT INBOX").unwrap();
            drop(imap.command("UID FETCH 3 BODY.PEEK[]"));
            drop(imap.command("CLOSE"));
            table.expect("a lost file", &["Resync INBOX other 2"]).await;
        }
        assert!(table.wrong.is_empty(), "{}", table.wrong.join("\n"));
    }
}

/// Of a mailbox whose index files were removed (a usual repair) later changes are to count as later ones.
#[tokio::test(flavor = "multi_thread")]
async fn order_grows_though_the_index_is_made_anew() {
    let site = site(|options| options);
    let mut table = three_mails(&site).await;
    let mut imap = site.dovecot.imap("bob").unwrap();
    imap.command("SELECT INBOX").unwrap();
    let (mut last, mut uid_validity) = (0, None);
    for _ in 0..20 {
        for (sign, kind) in [('+', "FlagsSet"), ('-', "FlagsClear")] {
            imap.command(&format!("STORE 1 {sign}FLAGS (\\Flagged)")).unwrap();
            let event = table.bob.next().await;
            assert_eq!(event.kind.name(), kind);
            assert!(event.order.unwrap() > last, "{event:?} behind {last}");
            (last, uid_validity) = (event.order.unwrap(), event.uidvalidity);
        }
    }
    imap.logout().unwrap();
    for file in files(&site.dovecot.path().join("mail/bob/Maildir"), "dovecot.index") {
        std::fs::remove_file(file).unwrap();
    }
    let mut imap = site.dovecot.imap("bob").unwrap();
    imap.command("SELECT INBOX").unwrap();
    let event = table.bob.next().await;
    assert_eq!(shown(&event), "Resync INBOX other 3");
    assert_eq!(event.uidvalidity, uid_validity);
    imap.command("STORE 1 +FLAGS (\\Flagged)").unwrap();
    let event = table.bob.next().await;
    assert_eq!((shown(&event).as_str(), event.uidvalidity), ("FlagsSet INBOX 1 \\Flagged", uid_validity));
    assert!(event.order.unwrap() > last, "{event:?} behind {last}");
    table.assert_right(&site);
}

/// A session that does not know yet that a message is gone asks for it to be expunged once more.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_is_told_once() {
    for format in ["maildir", "sdbox", "mdbox"] {
        let site = site(|options| options.mail_location(format, &format!("~/{format}")));
        let mut table = three_mails(&site).await;
        let mut sessions = [site.dovecot.imap("bob").unwrap(), site.dovecot.imap("bob").unwrap()];
        for imap in &mut sessions {
            imap.command("SELECT INBOX").unwrap();
        }
        let t = &mut table;
        let [first, second] = &mut sessions;
        t.imap(first, "STORE 1:3 +FLAGS (\\Deleted)", &["MessageTrash INBOX 1:3"]).await;
        t.imap(second, "NOOP", &[]).await;
        t.imap(first, "UID EXPUNGE 2", &["MessageExpunge INBOX 2"]).await;
        t.imap(second, "UID EXPUNGE 2", &[]).await;
        t.imap(first, "UID EXPUNGE 3", &["MessageExpunge INBOX 3"]).await;
        t.imap(second, "UID EXPUNGE 1:3", &["MessageExpunge INBOX 1"]).await;
        table.assert_right(&site);
    }
}

/// By Dovecot itself, when the session ends.
#[tokio::test(flavor = "multi_thread")]
async fn autoexpunge_is_told() {
    let site = site(|options| {
        options.extra(
            "namespace inbox {\n  mailbox Old {\n    autoexpunge_max_mails = 2\n    auto = create\n  }\n}",
        )
    });
    let mut table = Table::new(&site).await;
    let t = &mut table;
    site.deliver("bob", None, "x");
    t.expect("delivery", &["MessageNew INBOX 1"]).await;
    let mut imap = site.dovecot.imap("bob").unwrap();
    for uid in 1..=4 {
        imap.append("Old", "", mail("me@example.org", "x", "x")).unwrap();
        let expected = [format!("MessageAppend Old {uid}")];
        // It is made when it is touched for the first time.
        let made = (uid == 1).then_some("MailboxCreate Old");
        t.expect("APPEND", &made.into_iter().chain([expected[0].as_str()]).collect::<Vec<_>>()).await;
    }
    imap.logout().unwrap();
    t.expect("LOGOUT", &["MessageExpunge Old 1:2"]).await;
    table.assert_right(&site);
}
