//! Every event from every process of Dovecot: what is done by IMAP, LDA with Sieve, LMTP and doveadm against a table of
//! the exact events that it makes, in order, no more and no fewer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use ocbus::sandbox::{DovecotOptions, ImapClient, mail, mailbox_name};
use ocbus::{Event, EventKind};
use support::{Listening, Site};

/// An event as the tables have it: `MessageMove Trash 1:2 < INBOX 3:4 \Seen`.
fn shown(event: &Event) -> String {
    let name = |mailbox: &ocbus::Mailbox| mailbox.name.clone();
    let words = |all: &[String]| all.iter().map(|word| format!(" {word}")).collect::<String>();
    let mut line = format!("{} {}", event.kind.name(), event.mailbox.as_ref().map(name).unwrap_or_default());
    match &event.kind {
        EventKind::MessageNew(message) | EventKind::MessageAppend(message) => {
            let uid = message.uid.map_or("-".to_owned(), |uid| uid.to_string());
            line += &format!(" {uid}{}{}", words(&message.flags), words(&message.keywords));
        }
        EventKind::MessageCopy(transfer) | EventKind::MessageMove(transfer) => {
            line += &format!(
                " {} < {} {}{}{}",
                transfer.uids,
                name(&transfer.old),
                transfer.old_uids,
                words(&transfer.flags),
                words(&transfer.keywords)
            );
            assert!(transfer.old_uidvalidity.is_some(), "{event:?}");
        }
        EventKind::MessageRead { uids }
        | EventKind::MessageTrash { uids }
        | EventKind::MessageExpunge { uids } => line += &format!(" {uids}"),
        EventKind::FlagsSet { uids, flags, keywords } | EventKind::FlagsClear { uids, flags, keywords } => {
            line += &format!(" {uids}{}{}", words(flags), words(keywords));
        }
        EventKind::MailboxRename { old } => line += &format!(" < {}", name(old)),
        EventKind::Resync { reason, missed } => line += &format!(" {} {missed}", reason.name()),
        _ => {}
    }
    line
}

fn site(more: impl FnOnce(DovecotOptions) -> DovecotOptions) -> Site {
    Site::with(|options| more(options))
}

/// Does things and compares.
struct Table {
    bob: Listening,
    wrong: Vec<String>,
}

impl Table {
    async fn new(site: &Site) -> Table {
        Table { bob: site.native("bob").await, wrong: Vec::new() }
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
    let site = site(|options| options.extra("mail_location = mdbox:~/mdbox"));
    imap_actions(&site).await.assert_right(&site);
}

#[tokio::test(flavor = "multi_thread")]
async fn imap_on_sdbox() {
    let site = site(|options| options.extra("mail_location = sdbox:~/sdbox"));
    imap_actions(&site).await.assert_right(&site);
}
