//! Whose mailbox it is, and under which name: dsync's second location, shared, public and virtual mailboxes, deliveries and
//! what only looks like one.

use super::{Table, deliver, site};
use crate::support::{Site, shown};
use ocbus::EventKind;
use ocbus::sandbox::{DovecotOptions, mail};

/// `doveadm backup` and `doveadm sync` make a second user of the same login, whose mailboxes are elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn another_location_is_not_the_users_mailbox() {
    for format in ["maildir", "sdbox"] {
        let site = site(|options| options.mail_location(format, &format!("~/{format}")));
        let mut table = Table::new(&site).await;
        let t = &mut table;
        let location = |name: &str| format!("sdbox:{}/mail/bob/{name}", site.dovecot.path().display());
        let doveadm = |command: &[&str]| site.dovecot.doveadm(command).unwrap();
        // "You may want to run dsync again" (2) is usual where a name has a %.
        let backup = |more: &[&str]| match site.dovecot.doveadm(&[&["backup", "-u", "bob"], more].concat()) {
            Err(error) if !error.to_string().contains("run dsync again") => panic!("{error}"),
            _ => {}
        };
        deliver(&site, "bob");
        deliver(&site, "bob");
        doveadm(&["mailbox", "create", "-u", "bob", "Sale 50% off"]);
        doveadm(&["copy", "-u", "bob", "Sale 50% off", "mailbox", "INBOX", "uid", "1"]);
        t.expect(
            "before",
            &[
                "MessageNew INBOX 1",
                "MessageNew INBOX 2",
                "MailboxCreate Sale 50% off",
                "MessageCopy Sale 50% off 1 < INBOX 1",
            ],
        )
        .await;
        backup(&[&location("backup")]);
        t.expect("backup", &[]).await;
        doveadm(&["flags", "add", "-u", "bob", "\\Seen", "mailbox", "INBOX", "uid", "2"]);
        doveadm(&["expunge", "-u", "bob", "mailbox", "INBOX", "uid", "1"]);
        t.expect("flags, expunge", &["MessageRead INBOX 2", "MessageExpunge INBOX 1"]).await;
        backup(&[&location("backup")]);
        t.expect("incremental backup", &[]).await;
        // The other way round it is the user's own: what was restored is told.
        doveadm(&["expunge", "-u", "bob", "mailbox", "Sale 50% off", "all"]);
        t.expect("expunge", &["MessageExpunge Sale 50% off 1"]).await;
        doveadm(&["mailbox", "delete", "-u", "bob", "Sale 50% off"]);
        t.expect("delete", &["MailboxDelete Sale 50% off"]).await;
        backup(&["-R", &location("backup")]);
        t.expect("restore", &["MailboxCreate Sale 50% off", "MessageAppend Sale 50% off 1"]).await;
        doveadm(&["import", "-u", "bob", &location("backup"), "Old", "mailbox", "INBOX"]);
        t.expect("import", &["MailboxCreate Old/INBOX", "MessageAppend Old/INBOX 1 \\Seen"]).await;
        table.assert_right(&site);
    }
}

/// Two addresses of one user in one LMTP transaction: two users at once in one process, and both are real.
#[tokio::test(flavor = "multi_thread")]
async fn both_addresses_of_a_user_are_told() {
    let site = site(|options| options.mail_location("sdbox", "~/sdbox"));
    let mut table = Table::new(&site).await;
    let mut lmtp = site.dovecot.lmtp().unwrap();
    for expected in
        [["MessageNew INBOX 1", "MessageNew INBOX 2"], ["MessageNew INBOX 3", "MessageNew INBOX 4"]]
    {
        lmtp.deliver("a@example.org", &["bob", "bob+x"], mail("a@example.org", "x", "x")).unwrap();
        table.expect("delivery", &expected).await;
    }
    lmtp.quit().unwrap();
    table.assert_right(&site);
}

fn shared(more: impl FnOnce(DovecotOptions) -> DovecotOptions) -> Site {
    site(|options| {
        const NAMESPACE: &str = "namespace shared {\n  type = shared\n  separator = /\n  list = children\n  \
             subscriptions = no\n  ";
        more(options).extra_by_version(
            &format!("mail_shared_explicit_inbox = yes\n{NAMESPACE}prefix = shared/%%u/\n  location = maildir:%%h/Maildir\n}}\n"),
            &format!(
                "mail_shared_explicit_inbox = yes\n{NAMESPACE}prefix = shared/$user/\n  mail_driver = maildir\n  \
                 mail_path = %{{owner_home}}/Maildir\n}}\n"
            ),
        )
    })
}

/// UIDs say nothing without the right name of the mailbox that has them.
#[tokio::test(flavor = "multi_thread")]
async fn copies_between_users_name_no_other_message() {
    let site = shared(|options| options);
    let mut table = Table::new(&site).await;
    let t = &mut table;
    let mut alice = site.calm("alice").await;
    for _ in 0..2 {
        site.deliver("bob", None, "x");
        site.deliver("alice", None, "x");
    }
    t.expect("deliveries", &["MessageNew INBOX 1", "MessageNew INBOX 2"]).await;
    let mut imap = site.dovecot.imap("bob").unwrap();
    t.imap(&mut imap, "CREATE Projects", &["MailboxCreate Projects"]).await;
    let mut imap = site.dovecot.imap("alice").unwrap();
    imap.command("CREATE Arch").unwrap();
    for expected in ["MessageNew INBOX 1", "MessageNew INBOX 2", "MailboxCreate Arch"] {
        assert_eq!(shown(&*alice.next().await), expected);
    }
    t.imap(&mut imap, "SELECT shared/bob/INBOX", &[]).await;
    t.imap(&mut imap, "COPY 1 Arch", &[]).await;
    assert_eq!(shown(&*alice.next().await), "MessageCopy Arch 1 < shared/bob/INBOX 1");
    t.imap(&mut imap, "MOVE 2 Arch", &["MessageExpunge INBOX 2"]).await;
    assert_eq!(shown(&*alice.next().await), "MessageCopy Arch 2 < shared/bob/INBOX 2");
    // Within the other's mailboxes it is what it is at home.
    t.imap(&mut imap, "COPY 1 shared/bob/Projects", &["MessageCopy Projects 1 < INBOX 1"]).await;
    // Bob may not know alice's mailboxes, nor under which name.
    t.imap(&mut imap, "SELECT INBOX", &[]).await;
    t.imap(&mut imap, "MOVE 1 shared/bob/Projects", &["MessageAppend Projects 2"]).await;
    assert_eq!(shown(&*alice.next().await), "MessageExpunge INBOX 1");
    let copy = ["copy", "-u", "bob", "Projects", "user", "alice", "mailbox", "INBOX", "all"];
    site.dovecot.doveadm(&copy).unwrap();
    t.expect("doveadm copy", &["MessageAppend Projects 3"]).await;
    alice.assert_quiet();
    table.assert_right(&site);
}

/// Nobody's index has the headers of these mails, so that each must be read: that is not to take longer than a budget.
#[tokio::test(flavor = "multi_thread")]
async fn headers_of_a_bulk_copy_into_anothers_mailbox_are_told_while_there_is_time() {
    const MAILS: u32 = 80;
    let site = shared(|options| options.setting("openchange_budget", "200"));
    site.deliver("bob", None, "x");
    let mut bob = site.calm("bob").await;
    site.deliver("alice", None, "x");
    // 200,000 lines of header each.
    let filler = "X: y\r\n".repeat(200_000);
    for at in 1..MAILS {
        let path = site.dovecot.maildir("alice").path().join(format!("new/{at}.M1P1.host"));
        std::fs::write(&path, format!("From: a@example.org\r\nSubject: y\r\n{filler}\r\nx\r\n")).unwrap();
        std::os::unix::fs::chown(&path, Some(ocbus::sandbox::MAIL_UID), None).unwrap();
    }
    let mut imap = site.dovecot.imap("alice").unwrap();
    imap.command("SELECT INBOX").unwrap();
    imap.command(&format!("COPY 1:{MAILS} shared/bob/INBOX")).unwrap();
    let mut subjects = Vec::new();
    for uid in 2..2 + MAILS {
        let event = bob.next().await;
        let EventKind::MessageAppend(message) = &event.kind else { panic!("{event:?}") };
        assert_eq!((message.uid, message.size.is_some()), (Some(uid), message.subject.is_some()));
        subjects.push(message.subject.clone());
    }
    assert_eq!(subjects.first().unwrap().as_deref(), Some("x"));
    assert_eq!(subjects.last().unwrap(), &None, "{subjects:?}");
    bob.assert_quiet();
    site.assert_sound();
}

/// One without an owner is told to whoever changes it.
#[tokio::test(flavor = "multi_thread")]
async fn public_mailboxes_are_told_to_who_changes_them() {
    let site = site(|options| {
        const NAMESPACE: &str =
            "namespace pub {\n  type = public\n  separator = /\n  prefix = Public/\n  subscriptions = no\n  ";
        options.extra_by_version(
            &format!("{NAMESPACE}location = sdbox:%h/../public\n}}\n"),
            &format!("{NAMESPACE}mail_driver = sdbox\n  mail_path = %{{home}}/../public\n}}\n"),
        )
    });
    let mut table = Table::new(&site).await;
    let t = &mut table;
    let mut carol = site.calm("carol").await;
    let mut imap = site.dovecot.imap("bob").unwrap();
    t.imap(&mut imap, "CREATE Public/P", &["MailboxCreate Public/P"]).await;
    imap.append("Public/P", "", mail("me@example.org", "x", "x")).unwrap();
    t.expect("APPEND", &["MessageAppend Public/P 1"]).await;
    imap.append("INBOX", "", mail("me@example.org", "x", "x")).unwrap();
    t.expect("APPEND", &["MessageAppend INBOX 1"]).await;
    t.imap(&mut imap, "SELECT Public/P", &[]).await;
    t.imap(&mut imap, "COPY 1 INBOX", &["MessageCopy INBOX 2 < Public/P 1"]).await;
    t.imap(&mut imap, "MOVE 1 INBOX", &["MessageMove INBOX 3 < Public/P 1"]).await;
    carol.assert_quiet();
    // The path to the public ones goes through her home.
    deliver(&site, "carol");
    assert_eq!(shown(&*carol.next().await), "MessageNew INBOX 1");
    let mut imap = site.dovecot.imap("carol").unwrap();
    imap.append("Public/P", "\\Seen", mail("me@example.org", "x", "x")).unwrap();
    assert_eq!(shown(&*carol.next().await), "MessageAppend Public/P 2 \\Seen");
    t.expect("what carol does", &[]).await;
    table.assert_right(&site);
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_mailboxes_are_told_as_the_real_ones() {
    let site = site(|options| {
        const NAMESPACE: &str =
            "namespace virt {\n  separator = /\n  prefix = Virtual/\n  subscriptions = no\n  ";
        options.protocol_plugins("imap", &["notify", "openchange", "virtual"]).extra_by_version(
            &format!("protocol imap {{\n  {NAMESPACE}location = virtual:~/Virtual\n}}\n}}\n"),
            &format!(
                "protocol imap {{\n  {NAMESPACE}mail_driver = virtual\n  mail_path = ~/Virtual\n}}\n}}\n"
            ),
        )
    });
    let mut table = Table::new(&site).await;
    let t = &mut table;
    site.deliver("bob", None, "x");
    site.deliver("bob", Some("A"), "x");
    t.expect("deliveries", &["MessageNew INBOX 1", "MailboxCreate A", "MessageNew A 1"]).await;
    let folder = site.dovecot.path().join("mail/bob/Virtual/All");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("dovecot-virtual"), "INBOX\nA\n  all\n").unwrap();
    for path in [folder.parent().unwrap().to_owned(), folder.clone(), folder.join("dovecot-virtual")] {
        std::os::unix::fs::chown(path, Some(5000), Some(5000)).unwrap();
    }
    let mut imap = site.dovecot.imap("bob").unwrap();
    t.imap(&mut imap, "CREATE B", &["MailboxCreate B"]).await;
    t.imap(&mut imap, "SELECT Virtual/All", &[]).await;
    t.imap(&mut imap, "STORE 1 +FLAGS (\\Flagged)", &["FlagsSet INBOX 1 \\Flagged"]).await;
    t.imap(&mut imap, "COPY 2 B", &["MessageCopy B 1 < A 1"]).await;
    t.imap(&mut imap, "MOVE 1 B", &["MessageMove B 2 < INBOX 1 \\Flagged"]).await;
    table.assert_right(&site);
}

/// A script that runs when a user adds a message files it: that is no delivery, and nothing pops up.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_users_action_files_is_no_new_mail() {
    let site = site(|options| {
        options.protocol_plugins("imap", &["notify", "openchange", "imap_sieve"]).extra_by_version(
            "plugin {\n  sieve_plugins = sieve_imapsieve\n  imapsieve_mailbox1_name = Ham\n  \
                 imapsieve_mailbox1_causes = APPEND COPY\n  imapsieve_mailbox1_before = file:%h/ham.sieve\n}\n",
            "sieve_plugins = sieve_imapsieve\nmailbox Ham {\n  sieve_script ham {\n    type = before\n    \
                 cause = append copy\n    path = %{home}/ham.sieve\n  }\n}\n",
        )
    });
    let mut table = Table::new(&site).await;
    let t = &mut table;
    site.deliver("bob", None, "x");
    t.expect("delivery", &["MessageNew INBOX 1"]).await;
    let script = site.dovecot.path().join("mail/bob/ham.sieve");
    std::fs::write(&script, "require [\"fileinto\"];\nfileinto \"INBOX\";\n").unwrap();
    std::os::unix::fs::chown(&script, Some(5000), Some(5000)).unwrap();
    let mut imap = site.dovecot.imap("bob").unwrap();
    t.imap(&mut imap, "CREATE Ham", &["MailboxCreate Ham"]).await;
    for uid in 1..=2 {
        imap.append("Ham", "", mail("me@example.org", "x", "x")).unwrap();
        let filed = format!("MessageAppend INBOX {}", uid + 1);
        t.expect(
            "APPEND",
            &[&filed, &format!("MessageAppend Ham {uid}"), &format!("MessageTrash Ham {uid}")],
        )
        .await;
    }
    // What the script does is done within the copy's commit, and comes behind it all the same.
    t.imap(&mut imap, "SELECT INBOX", &[]).await;
    let copied = ["MessageAppend INBOX 4", "MessageCopy Ham 3 < INBOX 1", "MessageTrash Ham 3"];
    t.imap(&mut imap, "COPY 1 Ham", &copied).await;
    let moved = [
        "MessageAppend INBOX 5",
        "MessageCopy Ham 4 < INBOX 2",
        "MessageTrash Ham 4",
        "MessageExpunge INBOX 2",
    ];
    t.imap(&mut imap, "MOVE 2 Ham", &moved).await;
    table.assert_right(&site);
}
