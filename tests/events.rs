//! Every event from every process of Dovecot: what is done by IMAP, LDA with Sieve, LMTP and doveadm against a table of
//! the exact events that it makes, in order, no more and no fewer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "events/storage.rs"]
mod storage;
mod support;
#[path = "events/users.rs"]
mod users;

use std::time::Duration;

use ocbus::sandbox::{DovecotOptions, ImapClient, mail, mailbox_name};
use support::{Listening, Site, shown};

fn site(more: impl FnOnce(DovecotOptions) -> DovecotOptions) -> Site {
    Site::with(more)
}

/// By dovecot-lda, in any format: `Site::deliver` counts the files of a Maildir.
fn deliver(site: &Site, user: &str) {
    let delivery = site.dovecot.deliver_lda(user, mail("a@example.org", "x", "x"), None).unwrap();
    assert_eq!(delivery.status, Some(0), "{delivery:?}\n{}", site.dovecot.log());
}

/// Does things and compares.
struct Table {
    bob: Listening,
    wrong: Vec<String>,
}

impl Table {
    async fn new(site: &Site) -> Table {
        Table { bob: site.calm("bob").await, wrong: Vec::new() }
    }

    /// Waits for as many events as are expected, and a little longer for what is too much.
    async fn expect(&mut self, action: &str, expected: &[&str]) {
        let mut seen = Vec::new();
        while let Ok(event) = tokio::time::timeout(
            if seen.len() < expected.len() { Duration::from_secs(3) } else { Duration::from_millis(400) },
            self.bob.events.recv(),
        )
        .await
        {
            let event = event.unwrap();
            assert_eq!(event.user, "bob");
            seen.push(shown(&event));
        }
        if seen != expected {
            self.wrong.push(format!("{action}\n  expected {expected:#?}\n  seen {seen:#?}"));
        }
    }

    async fn imap(&mut self, imap: &mut ImapClient, command: &str, expected: &[&str]) {
        imap.command(command).unwrap_or_else(|error| panic!("{command}: {error}"));
        self.expect(command, expected).await;
    }

    fn assert_right(self, site: &Site) {
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
        assert_eq!(site.warnings(), Vec::<String>::new());
        site.assert_sound();
    }
}

async fn imap_actions(site: &Site) -> Table {
    let mut table = Table::new(site).await;
    let mut imap = site.dovecot.imap("bob").unwrap();
    let t = &mut table;
    imap.append("INBOX", "\\Seen", mail("me@example.org", "draft", "x")).unwrap();
    t.expect("APPEND", &["MessageAppend INBOX 1 \\Seen"]).await;
    for subject in ["two", "three", "four", "five"] {
        imap.append("INBOX", "", mail("me@example.org", subject, "x")).unwrap();
    }
    t.expect(
        "APPEND",
        &["MessageAppend INBOX 2", "MessageAppend INBOX 3", "MessageAppend INBOX 4", "MessageAppend INBOX 5"],
    )
    .await;
    t.imap(&mut imap, "SELECT INBOX", &[]).await;
    t.imap(&mut imap, "STORE 2 +FLAGS (\\Seen)", &["MessageRead INBOX 2"]).await;
    t.imap(&mut imap, "STORE 1:2 +FLAGS (\\Seen)", &[]).await;
    t.imap(&mut imap, "STORE 1:3 +FLAGS (\\Flagged $Work)", &["FlagsSet INBOX 1:3 \\Flagged $Work"]).await;
    t.imap(
        &mut imap,
        "STORE 2:4 -FLAGS (\\Flagged \\Seen)",
        &["FlagsClear INBOX 2 \\Flagged \\Seen", "FlagsClear INBOX 3 \\Flagged"],
    )
    .await;
    t.imap(
        &mut imap,
        "STORE 1 FLAGS (\\Deleted \\Answered)",
        &["MessageTrash INBOX 1", "FlagsSet INBOX 1 \\Answered", "FlagsClear INBOX 1 \\Flagged \\Seen $Work"],
    )
    .await;
    t.imap(&mut imap, "STORE 1 -FLAGS (\\Deleted)", &["FlagsClear INBOX 1 \\Deleted"]).await;
    t.imap(&mut imap, "FETCH 5 BODY[]", &["MessageRead INBOX 5"]).await;
    t.imap(&mut imap, "FETCH 5 BODY.PEEK[]", &[]).await;
    t.imap(&mut imap, "CREATE A", &["MailboxCreate A"]).await;
    t.imap(&mut imap, "CREATE A/B", &["MailboxCreate A/B"]).await;
    t.imap(
        &mut imap,
        "COPY 1:2 A",
        &["MessageCopy A 1 < INBOX 1 \\Answered", "MessageCopy A 2 < INBOX 2 $Work"],
    )
    .await;
    t.imap(&mut imap, "MOVE 3:4 A", &["MessageMove A 3 < INBOX 3 $Work", "MessageMove A 4 < INBOX 4"]).await;
    t.imap(&mut imap, "STORE 1:2 +FLAGS.SILENT (\\Deleted)", &["MessageTrash INBOX 1:2"]).await;
    t.imap(&mut imap, "UID EXPUNGE 1", &["MessageExpunge INBOX 1"]).await;
    imap.command("COPY 1 A").unwrap();
    imap.command("STORE 2 +FLAGS (\\Deleted)").unwrap();
    imap.command("EXPUNGE").unwrap();
    t.expect(
        "COPY, STORE, EXPUNGE",
        &["MessageTrash INBOX 5", "MessageMove A 5 < INBOX 2 \\Deleted $Work", "MessageExpunge INBOX 5"],
    )
    .await;
    t.imap(&mut imap, "SUBSCRIBE A", &["MailboxSubscribe A"]).await;
    t.imap(&mut imap, "UNSUBSCRIBE A", &["MailboxUnsubscribe A"]).await;
    t.imap(&mut imap, "RENAME A Z", &["MailboxRename Z < A"]).await;
    t.imap(&mut imap, "SELECT Z", &[]).await;
    t.imap(&mut imap, "CLOSE", &["MessageExpunge Z 5"]).await;
    let umlaut = mailbox_name("Entwürfe");
    t.imap(&mut imap, &format!("CREATE {umlaut}"), &["MailboxCreate Entwürfe"]).await;
    t.imap(&mut imap, "DELETE Z/B", &["MailboxDelete Z/B"]).await;
    t.imap(&mut imap, "DELETE Z", &["MessageExpunge Z 1:4", "MailboxDelete Z"]).await;
    imap.append("INBOX", "", mail("me@example.org", "six", "x")).unwrap();
    t.expect("APPEND", &["MessageAppend INBOX 6"]).await;
    t.imap(&mut imap, "SELECT INBOX", &[]).await;
    t.imap(&mut imap, "MOVE 1 INBOX", &["MessageMove INBOX 7 < INBOX 6"]).await;
    imap.logout().unwrap();
    t.expect("LOGOUT", &[]).await;
    table
}

#[tokio::test(flavor = "multi_thread")]
async fn imap_on_maildir() {
    let site = site(|options| options);
    imap_actions(&site).await.assert_right(&site);
}

#[tokio::test(flavor = "multi_thread")]
async fn imap_on_mdbox() {
    let site = site(|options| options.mail_location("mdbox", "~/mdbox"));
    imap_actions(&site).await.assert_right(&site);
}

#[tokio::test(flavor = "multi_thread")]
async fn imap_on_sdbox() {
    let site = site(|options| options.mail_location("sdbox", "~/sdbox"));
    imap_actions(&site).await.assert_right(&site);
}

#[tokio::test(flavor = "multi_thread")]
async fn doveadm_of_any_kind() {
    let site = site(|options| options);
    let mut table = Table::new(&site).await;
    let t = &mut table;
    for n in ["one", "two", "three"] {
        site.deliver("bob", None, n);
    }
    t.expect("delivery", &["MessageNew INBOX 1", "MessageNew INBOX 2", "MessageNew INBOX 3"]).await;
    let doveadm = |command: &[&str]| site.dovecot.doveadm(command).unwrap();
    doveadm(&["mailbox", "create", "-u", "bob", "-s", "Old"]);
    t.expect("mailbox create -s", &["MailboxCreate Old", "MailboxSubscribe Old"]).await;
    doveadm(&["flags", "add", "-u", "bob", "\\Flagged \\Seen", "mailbox", "INBOX", "uid", "1:2"]);
    t.expect("flags add", &["MessageRead INBOX 1:2", "FlagsSet INBOX 1:2 \\Flagged"]).await;
    doveadm(&["move", "-u", "bob", "Old", "mailbox", "INBOX", "uid", "1"]);
    t.expect("move", &["MessageMove Old 1 < INBOX 1 \\Flagged \\Seen"]).await;
    doveadm(&["copy", "-u", "bob", "Old", "mailbox", "INBOX", "uid", "2:3"]);
    t.expect("copy", &["MessageCopy Old 2 < INBOX 2 \\Flagged \\Seen", "MessageCopy Old 3 < INBOX 3"]).await;
    doveadm(&["expunge", "-u", "bob", "mailbox", "INBOX", "all"]);
    t.expect("expunge", &["MessageExpunge INBOX 2:3"]).await;
    doveadm(&["mailbox", "rename", "-u", "bob", "Old", "Older/Still"]);
    t.expect("mailbox rename", &["MailboxRename Older/Still < Old"]).await;
    doveadm(&["mailbox", "delete", "-u", "bob", "Older/Still"]);
    t.expect("mailbox delete", &["MessageExpunge Older/Still 1:3", "MailboxDelete Older/Still"]).await;
    table.assert_right(&site);
}

#[tokio::test(flavor = "multi_thread")]
async fn lda_with_sieve() {
    let script = r#"require ["fileinto", "imap4flags", "copy", "mailbox"];
if header :is "subject" "file" { fileinto :create "Lists/rust"; }
elsif header :is "subject" "both" { fileinto :copy :create "Copies"; }
elsif header :is "subject" "flag" { setflag ["\\Seen", "$Label"]; keep; }
elsif header :is "subject" "spam" { fileinto :create "Junk"; }
elsif header :is "subject" "drop" { discard; }
elsif header :is "subject" "away" { redirect "carol@example.org"; }
"#;
    let site = site(|options| {
        options
            .protocol_plugins("lda", &["notify", "openchange", "sieve"])
            .protocol_plugins("lmtp", &["notify", "openchange", "sieve"])
            .extra_by_version(
                "plugin {\n  sieve = file:~/script.sieve\n}\n",
                "sieve_script personal {\n  driver = file\n  path = ~/script.sieve\n}\n",
            )
            .extra("sendmail_path = /bin/true")
    });
    let mut table = Table::new(&site).await;
    let t = &mut table;
    let home = site.dovecot.path().join("mail/bob");
    std::fs::create_dir_all(&home).unwrap();
    std::fs::write(home.join("script.sieve"), script).unwrap();
    for path in [home.clone(), home.join("script.sieve")] {
        std::os::unix::fs::chown(path, Some(5000), Some(5000)).unwrap();
    }
    let rows: [(&str, &[&str]); 8] = [
        ("plain", &["MessageNew INBOX 1"]),
        ("file", &["MailboxCreate Lists/rust", "MessageNew Lists/rust 1"]),
        ("file", &["MessageNew Lists/rust 2"]),
        ("both", &["MailboxCreate Copies", "MessageNew Copies 1", "MessageNew INBOX 2"]),
        ("flag", &["MessageNew INBOX 3 \\Seen $Label"]),
        // New mail in Junk is not told.
        ("spam", &["MailboxCreate Junk"]),
        ("drop", &[]),
        ("away", &[]),
    ];
    for (subject, expected) in rows {
        let delivery = site.dovecot.deliver_lda("bob", mail("a@example.org", subject, "x"), None).unwrap();
        assert_eq!(delivery.status, Some(0), "{delivery:?}\n{}", site.dovecot.log());
        t.expect(subject, expected).await;
    }
    let mut lmtp = site.dovecot.lmtp().unwrap();
    lmtp.deliver("a@example.org", &["bob"], mail("a@example.org", "both", "x")).unwrap();
    t.expect("both by LMTP", &["MessageNew Copies 2", "MessageNew INBOX 4"]).await;
    table.assert_right(&site);
}

#[tokio::test(flavor = "multi_thread")]
async fn lmtp_to_three_recipients() {
    let site = site(|options| options);
    let mut all = [site.calm("bob").await, site.calm("carol").await, site.calm("dave").await];
    let mut lmtp = site.dovecot.lmtp().unwrap();
    for uid in 1..=3 {
        lmtp.deliver("a@example.org", &["bob", "carol", "dave"], mail("a@example.org", "x", "x")).unwrap();
        for one in &mut all {
            let event = one.next().await;
            assert_eq!(shown(&event), format!("MessageNew INBOX {uid}"));
            assert!(event.order.is_some());
        }
    }
    lmtp.quit().unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    all.iter_mut().for_each(Listening::assert_quiet);
    assert_eq!(site.warnings(), Vec::<String>::new());
    site.assert_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_choose_kinds_and_folders() {
    let site = site(|options| {
        options
            .setting("openchange_events", "messages, mailboxes, !MessageCopy")
            .setting("openchange_folders", "*, !Private/*, !\\Archive, new:!Lists/*")
            .extra("namespace inbox {\n  mailbox Stash {\n    special_use = \\Archive\n  }\n}")
    });
    let mut table = Table::new(&site).await;
    let t = &mut table;
    for folder in [None, Some("Private/a"), Some("Lists/b"), Some("Stash")] {
        site.deliver("bob", folder, "x");
    }
    t.expect("deliveries", &["MessageNew INBOX 1", "MailboxCreate Lists/b"]).await;
    let mut imap = site.dovecot.imap("bob").unwrap();
    t.imap(&mut imap, "SELECT INBOX", &[]).await;
    t.imap(&mut imap, "STORE 1 +FLAGS (\\Seen)", &[]).await;
    t.imap(&mut imap, "COPY 1 Stash", &[]).await;
    t.imap(&mut imap, "MOVE 1 Stash", &["MessageMove Stash 3 < INBOX 1 \\Seen"]).await;
    t.imap(&mut imap, "SELECT Stash", &[]).await;
    t.imap(&mut imap, "STORE 1 +FLAGS (\\Deleted)", &[]).await;
    t.imap(&mut imap, "EXPUNGE", &[]).await;
    table.assert_right(&site);
}

/// A word that is misspelt takes no event away: it is named in the log, once for each process.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_word_in_a_setting_is_named_and_nothing_is_lost() {
    let site = site(|options| {
        options
            .setting("openchange_events", "MesageNew, flags")
            .setting("openchange_folders", "!Private/*, !\\Tarsh")
            .setting("openchange_budget", "1 s")
    });
    let mut table = Table::new(&site).await;
    let t = &mut table;
    let mut lmtp = site.dovecot.lmtp().unwrap();
    for uid in 1..=2 {
        lmtp.deliver("a@example.org", &["bob"], mail("a@example.org", "x", "x")).unwrap();
        t.expect("delivery", &[&format!("MessageNew INBOX {uid}")]).await;
    }
    lmtp.quit().unwrap();
    let mut imap = site.dovecot.imap("bob").unwrap();
    t.imap(&mut imap, "CREATE Private/a", &[]).await;
    t.imap(&mut imap, "SELECT INBOX", &[]).await;
    t.imap(&mut imap, "COPY 1 INBOX", &["MessageCopy INBOX 3 < INBOX 1"]).await;
    imap.logout().unwrap();
    let warnings = site.warnings();
    for process in ["lmtp(bob)", "imap(bob)"] {
        for said in [
            "setting openchange_events 'MesageNew, flags': 'MesageNew': expected kinds as MessageNew",
            "setting openchange_folders '!Private/*, !\\\\Tarsh': '!\\\\Tarsh': expected names",
            "setting openchange_budget '1 s': expected milliseconds, 1 to 10000; the default counts",
        ] {
            let lines = warnings.iter().filter(|line| line.contains(process) && line.contains(said));
            assert_eq!(lines.count(), 1, "{process} {said}: {warnings:#?}");
        }
    }
    assert_eq!((table.wrong, warnings.len()), (Vec::new(), 6), "{warnings:#?}");
    site.assert_sound();
}

/// What STATUS says: messages and unseen.
fn counts(imap: &mut ImapClient, mailbox: &str) -> (Option<u32>, Option<u32>) {
    let said = imap.command(&format!("STATUS {mailbox} (MESSAGES UNSEEN)")).unwrap().join(" ");
    let number = |word: &str| {
        let rest = said.split_once(word).unwrap_or_else(|| panic!("{word}: {said:?}")).1;
        rest.trim_start().split([' ', ')']).next().unwrap().parse().unwrap()
    };
    (Some(number("MESSAGES")), Some(number("UNSEEN")))
}

/// Each event of these actions, with the counts that it has and those that another IMAP session is told.
async fn counted(site: &Site) -> Vec<(String, (Option<u32>, Option<u32>), (Option<u32>, Option<u32>))> {
    let mut bob = site.calm("bob").await;
    let mut other = site.dovecot.imap("bob").unwrap();
    let mut imap = site.dovecot.imap("bob").unwrap();
    imap.command("CREATE A").unwrap();
    assert_eq!(shown(&*bob.next().await), "MailboxCreate A");
    let mut seen = Vec::new();
    let mut lmtp = site.dovecot.lmtp().unwrap();
    let commands = [
        "LDA",
        "LDA",
        "LMTP",
        "APPEND",
        "SELECT INBOX",
        "STORE 1:2 +FLAGS (\\Seen)",
        "STORE 3 +FLAGS (\\Flagged)",
        "STORE 1 -FLAGS (\\Seen)",
        "COPY 2 A",
        "MOVE 3 A",
        "LDA",
        "STORE 1 +FLAGS (\\Deleted)",
        "EXPUNGE",
        "LDA",
        "STORE 1 +FLAGS ($x)",
    ];
    for command in commands {
        match command {
            "LDA" => {
                let delivery =
                    site.dovecot.deliver_lda("bob", mail("a@example.org", "x", "x"), None).unwrap();
                assert_eq!(delivery.status, Some(0), "{delivery:?}");
            }
            "LMTP" => {
                lmtp.deliver("a@example.org", &["bob"], mail("a@example.org", "x", "x")).unwrap();
            }
            "APPEND" => {
                imap.append("INBOX", "\\Seen", mail("me@example.org", "x", "x")).unwrap();
            }
            _ => drop(imap.command(command).unwrap()),
        }
        if !command.starts_with("SELECT") {
            let event = bob.next().await;
            let mailbox = event.mailbox.as_ref().unwrap().name.clone();
            let told = (event.messages, event.unseen);
            seen.push((format!("{command}: {}", shown(&event)), told, counts(&mut other, &mailbox)));
        }
    }
    bob.assert_quiet();
    assert_eq!(site.warnings(), Vec::<String>::new());
    site.assert_sound();
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_those_of_status_or_are_not_told() {
    for format in ["mdbox", "sdbox"] {
        let site = site(|options| options.mail_location(format, &format!("~/{format}")));
        for (what, told, right) in counted(&site).await {
            // What is expunged is only asked for at the commit.
            let expected = if what.starts_with("EXPUNGE") { (None, None) } else { right };
            assert_eq!(told, expected, "{format}: {what}");
        }
    }
    // A Maildir may have messages that no index knows.
    let site = site(|options| options);
    for (what, told, _) in counted(&site).await {
        assert_eq!(told, (None, None), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shared_is_told_to_its_owner() {
    let site = site(|options| {
        const NAMESPACE: &str = "namespace shared {\n  type = shared\n  separator = /\n  list = children\n  \
             subscriptions = no\n  ";
        options.extra_by_version(
            &format!(
                "{NAMESPACE}prefix = shared/%%u/\n  location = maildir:%%h/Maildir:INDEXPVT=~/shared/%%u\n}}\n"
            ),
            &format!(
                "{NAMESPACE}prefix = shared/$user/\n  mail_driver = maildir\n  \
                 mail_path = %{{owner_home}}/Maildir\n  mail_index_private_path = ~/shared/%{{owner_user}}\n}}\n"
            ),
        )
    });
    let mut table = Table::new(&site).await;
    let t = &mut table;
    site.deliver("bob", Some("Projects"), "x");
    t.expect("delivery", &["MailboxCreate Projects", "MessageNew Projects 1"]).await;
    let mut carol = site.calm("carol").await;
    let mut imap = site.dovecot.imap("carol").unwrap();
    t.imap(&mut imap, "SELECT shared/bob/Projects", &[]).await;
    t.imap(&mut imap, "STORE 1 +FLAGS (\\Flagged)", &["FlagsSet Projects 1 \\Flagged"]).await;
    // Who has read it is each user's own (INDEXPVT), and bob has not.
    t.imap(&mut imap, "STORE 1 +FLAGS (\\Seen)", &[]).await;
    // Its INBOX has the name that it has for him, whatever it is here.
    site.deliver("bob", None, "x");
    t.expect("delivery", &["MessageNew INBOX 1"]).await;
    t.imap(&mut imap, "SELECT shared/bob", &[]).await;
    t.imap(&mut imap, "STORE 1 +FLAGS (\\Flagged)", &["FlagsSet INBOX 1 \\Flagged"]).await;
    carol.assert_quiet();
    // Who subscribes has another folder in the list; the owner has not.
    t.imap(&mut imap, "SUBSCRIBE shared/bob/Projects", &[]).await;
    assert_eq!(shown(&carol.events.recv().await.unwrap()), "MailboxSubscribe shared/bob/Projects");
    table.assert_right(&site);
}

/// Then all that is there is found by each process anew: nothing of that has happened.
#[tokio::test(flavor = "multi_thread")]
async fn without_index_files_nothing_is_found() {
    let site = site(|options| {
        options.extra_by_version(
            "mail_location = maildir:~/Maildir:INDEX=MEMORY\n",
            "mail_index_path = MEMORY\n",
        )
    });
    let mut table = Table::new(&site).await;
    let t = &mut table;
    for uid in 1..=3 {
        site.deliver("bob", None, "x");
        t.expect("delivery", &[&format!("MessageNew INBOX {uid}")]).await;
    }
    let mut imap = site.dovecot.imap("bob").unwrap();
    t.imap(&mut imap, "SELECT INBOX", &[]).await;
    t.imap(&mut imap, "STORE 2 +FLAGS (\\Seen)", &["MessageRead INBOX 2"]).await;
    table.assert_right(&site);
}

/// Sites that came from another server keep its prefix for clients that know it.
#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_has_one_name_under_every_prefix() {
    let site = site(|options| {
        const NAMESPACE: &str = "namespace compat {\n  prefix = INBOX/\n  separator = /\n  hidden = yes\n  list = no\n  alias_for =";
        options.extra_by_version(&format!("{NAMESPACE}\n}}\n"), &format!("{NAMESPACE} inbox\n}}\n"))
    });
    let mut table = Table::new(&site).await;
    let t = &mut table;
    site.deliver("bob", Some("Projects"), "x");
    t.expect("delivery", &["MailboxCreate Projects", "MessageNew Projects 1"]).await;
    let mut imap = site.dovecot.imap("bob").unwrap();
    t.imap(&mut imap, "SELECT INBOX/Projects", &[]).await;
    t.imap(&mut imap, "STORE 1 +FLAGS (\\Flagged)", &["FlagsSet Projects 1 \\Flagged"]).await;
    t.imap(&mut imap, "CREATE INBOX/Old", &["MailboxCreate Old"]).await;
    table.assert_right(&site);
}

/// What Dovecot finds in a Maildir was done by no session: a message that another program put there has a UID from then on,
/// and files that it renamed have other flags.
#[tokio::test(flavor = "multi_thread")]
async fn what_dovecot_finds_in_a_maildir_is_told() {
    let site = site(|options| options);
    let mut table = Table::new(&site).await;
    let t = &mut table;
    site.deliver("bob", None, "one");
    t.expect("delivery", &["MessageNew INBOX 1"]).await;
    let maildir = site.dovecot.path().join("mail/bob/Maildir");
    let put = maildir.join("new/1234.M1.elsewhere");
    std::fs::write(&put, "Subject: two\n\nx\n").unwrap();
    std::os::unix::fs::chown(&put, Some(5000), Some(5000)).unwrap();
    let mut imap = site.dovecot.imap("bob").unwrap();
    t.imap(&mut imap, "SELECT INBOX", &["Resync INBOX other 1"]).await;
    for entry in std::fs::read_dir(maildir.join("cur")).unwrap() {
        let old = entry.unwrap().path();
        let name = old.to_str().unwrap();
        std::fs::rename(&old, format!("{}:2,FS", name.split_once(":2,").unwrap().0)).unwrap();
    }
    t.imap(&mut imap, "SELECT INBOX", &["MessageRead INBOX 1:2", "FlagsSet INBOX 1:2 \\Flagged"]).await;
    t.imap(&mut imap, "SELECT INBOX", &[]).await;
    t.imap(&mut imap, "STORE 1:2 -FLAGS (\\Seen)", &["FlagsClear INBOX 1:2 \\Seen"]).await;
    table.assert_right(&site);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_100_000_messages_is_a_few_events_or_a_resync() {
    const COUNT: usize = 100_000;
    let site = site(|options| options.mail_location("sdbox", "~/sdbox"));
    let mut table = Table::new(&site).await;
    let t = &mut table;
    let mut imap = site.dovecot.imap("bob").unwrap();
    imap.set_deadline(Duration::from_secs(40)).unwrap();
    imap.command("CREATE A").unwrap();
    imap.append("INBOX", "", "Subject: x\r\n\r\nx\r\n").unwrap();
    imap.command("SELECT INBOX").unwrap();
    let mut there = 1;
    while there < COUNT {
        imap.command(&format!("COPY 1:{} INBOX", there.min(COUNT - there))).unwrap();
        there += there.min(COUNT - there);
        imap.command("NOOP").unwrap();
    }
    while tokio::time::timeout(Duration::from_millis(800), t.bob.events.recv()).await.is_ok() {}
    t.imap(
        &mut imap,
        "STORE 1:* +FLAGS.SILENT (\\Seen $x)",
        &["MessageRead INBOX 1:100000", "FlagsSet INBOX 1:100000 $x"],
    )
    .await;
    let every_third: Vec<String> = (1..=COUNT).step_by(3).map(|uid| uid.to_string()).collect();
    for chunk in every_third.chunks(1500) {
        imap.command(&format!("STORE {} +FLAGS.SILENT (\\Flagged)", chunk.join(","))).unwrap();
    }
    while tokio::time::timeout(Duration::from_millis(800), t.bob.events.recv()).await.is_ok() {}
    // Too many ranges for a batch.
    t.imap(&mut imap, "STORE 1:* FLAGS.SILENT (\\Seen $x)", &["Resync INBOX overflow 33334"]).await;
    t.imap(&mut imap, "MOVE 1:* A", &["MessageMove A 1:100000 < INBOX 1:100000 \\Seen $x"]).await;
    table.assert_right(&site);
}
