//! From Dovecot to Outlook: what is done by LDA with Sieve and by IMAP in a real Dovecot with our plugin reaches a
//! session of emsmdb as exactly the RopNotify replies of section 6 of the reference, and answers its parked wait.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use ocbus::bus::{Bus, Filter, Subscription as Events};
use ocbus::emsmdb::{
    Answer, Emsmdb, EmsmdbConfig, NewSession, Query, Reply, Session, Subscription, Table, TableKind,
    TableRow, WaitOutcome, What,
};
use ocbus::resolver::Cn;
use ocbus::sandbox::{ImapClient, mail};
use ocbus::wire::ropnotify::{
    self, FolderId, MessageId, MessageRow, Notification, NotificationTypes, RopNotify, Scope, TableEvent,
};
use ocbus::{EventKind, Mailbox, Subscriber};
use support::{LIMIT, Site, until};
use uuid::Uuid;

/// The folders that the server has ids of, by their place; the first is the one above all.
const FOLDERS: [&str; 7] = ["", "INBOX", "Archive", "Projects", "Projects/Old", "Plans", "Lists"];

/// Handles and what the tables below call them.
const HANDLES: [(u32, &str); 5] =
    [(0x29, "store"), (0x2a, "inbox"), (0x31, "folders"), (0x32, "INBOX's rows"), (0x33, "Archive's rows")];

const PR_SUBJECT: u32 = 0x0037_001f;

fn fid(name: &str) -> Option<FolderId> {
    let at = FOLDERS.iter().position(|known| *known == name)?;
    FolderId::from_parts(1, 0x1000 + u64::try_from(at).unwrap())
}

/// A message's id has its folder's place and its UID.
fn mid(folder: FolderId, uid: u32) -> MessageId {
    MessageId::from_parts(1, (folder.counter() << 20) | u64::from(uid)).unwrap()
}

fn folder(id: FolderId) -> &'static str {
    match FOLDERS[usize::try_from(id.counter()).unwrap() - 0x1000] {
        "" => "(top)",
        name => name,
    }
}

fn message(id: MessageId) -> String {
    let at = FolderId::from_parts(1, id.counter() >> 20).unwrap();
    format!("{}:{}", folder(at), id.counter() & 0xf_ffff)
}

/// A server's database: it answers from the table above, and nothing else.
fn ids(query: Query, reply: Reply) {
    reply.answer(match &query.what {
        What::Folder { mailbox, .. } => {
            let name = mailbox.as_ref().map_or("", |mailbox: &Mailbox| mailbox.name.as_str());
            fid(name).map_or(Answer::Unknown, Answer::Folder)
        }
        What::Messages { folder, messages, .. } => Answer::Messages(
            messages.iter().map(|message| message.uid.map(|uid| mid(*folder, uid))).collect(),
        ),
        What::Row { columns, .. } => {
            assert_eq!(columns[..], [PR_SUBJECT]);
            Answer::Row(TableRow { instance: 0, after: MessageRow::NONE, data: vec![0; 3] })
        }
        other => panic!("{other:?}"),
    });
}

fn row<R: std::fmt::Debug>(event: &TableEvent<R>, name: impl Fn(&R) -> String) -> String {
    match event {
        TableEvent::RowAdded { row, .. } => format!("added {}", name(row)),
        TableEvent::RowModified { row, .. } => format!("modified {}", name(row)),
        TableEvent::RowDeleted { row } => format!("deleted {}", name(row)),
        other => format!("{other:?}"),
    }
}

/// A reply as the tables have it: `store: moved Archive:1 < INBOX:2`.
fn shown(reply: &RopNotify) -> String {
    let handle = HANDLES.iter().find(|(handle, _)| *handle == reply.handle).unwrap().1;
    let what = match &reply.notification {
        Notification::NewMail { message: id, .. } => format!("new mail {}", message(*id)),
        Notification::MessageCreated { message: id, .. } => format!("created {}", message(*id)),
        Notification::MessageModified { message: id, .. } => format!("modified {}", message(*id)),
        Notification::MessageDeleted { message: id, .. } => format!("deleted {}", message(*id)),
        Notification::MessageMoved { message: id, old_message, .. } => {
            format!("moved {} < {}", message(*id), message(*old_message))
        }
        Notification::MessageCopied { message: id, old_message, .. } => {
            format!("copied {} < {}", message(*id), message(*old_message))
        }
        Notification::FolderModified { folder: id, total, unread, .. } => {
            let count = |count: &Option<u32>| count.map_or("-".to_owned(), |count| count.to_string());
            format!("modified {} {}/{}", folder(*id), count(total), count(unread))
        }
        Notification::FolderCreated { folder: id, parent, .. } => {
            format!("created {} in {}", folder(*id), folder(*parent))
        }
        Notification::FolderDeleted { folder: id, parent } => {
            format!("deleted {} in {}", folder(*id), folder(*parent))
        }
        Notification::FolderMoved { folder: id, parent, old_folder, old_parent } => {
            let (old, old_parent) = (folder(*old_folder), folder(*old_parent));
            format!("moved {} in {} < {old} in {old_parent}", folder(*id), folder(*parent))
        }
        Notification::ContentsTable(event) => row(event, |row| message(row.message)),
        Notification::HierarchyTable(event) => row(event, |row| folder(row.folder).to_owned()),
        other => format!("{other:?}"),
    };
    format!("{handle}: {what}")
}

/// Outlook: a session with subscriptions and open tables.
struct Outlook {
    emsmdb: Emsmdb,
    session: Session,
    events: Events,
    seen: u64,
    wrong: Vec<String>,
}

impl Outlook {
    async fn new(site: &Site) -> Outlook {
        let bus = Bus::new();
        let subscriber =
            Subscriber::start(support::calm(), site.resolver().await, bus.clone()).await.unwrap();
        let emsmdb = Emsmdb::attach(&bus, Some(Arc::new(subscriber)), ids, EmsmdbConfig::default()).unwrap();
        let new = NewSession { guid: Uuid::from_u128(1), cn: Cn::new("bob").unwrap(), index: 7 };
        let session = emsmdb.open_session(new).await.unwrap();
        let types = NotificationTypes::from_bits(0x017e);
        for (handle, scope) in [(0x29, Scope::Store), (0x2a, Scope::Folder(fid("INBOX").unwrap()))] {
            session.subscribe(Subscription { handle, logon_id: 0, types, scope }).unwrap();
        }
        let tables = [
            (0x31, TableKind::Hierarchy, "", true),
            (0x32, TableKind::Contents, "INBOX", false),
            (0x33, TableKind::Contents, "Archive", false),
        ];
        for (handle, kind, name, depth) in tables {
            let folder = fid(name).unwrap();
            session
                .add_table(Table { handle, logon_id: 0, kind, folder, depth, notifications: true })
                .unwrap();
            session.set_columns(handle, &[PR_SUBJECT]).unwrap();
            session.open_view(handle).unwrap();
        }
        let events = bus.subscribe_with_queue(Filter::user("bob"), 1024);
        Outlook { emsmdb, session, events, seen: 0, wrong: Vec::new() }
    }

    /// Does something while the session waits. It makes so many events, and is told by these replies.
    async fn told(&mut self, what: &str, events: usize, expected: &[&str], act: impl FnOnce()) {
        let mut waiting = tokio::spawn({
            let session = self.session.clone();
            async move { session.wait().await }
        });
        until("the wait is parked", || self.emsmdb.statistics().parked == 1);
        tokio::task::block_in_place(act);
        let mut kinds: Vec<EventKind> = Vec::new();
        // As many as expected, and what is too much.
        let patience = |had: usize| if had < events { LIMIT } else { Duration::from_millis(400) };
        while let Ok(event) = tokio::time::timeout(patience(kinds.len()), self.events.recv()).await {
            kinds.push(event.unwrap().kind.clone());
        }
        self.seen += u64::try_from(kinds.len()).unwrap();
        until("emsmdb has them", || self.emsmdb.statistics().events >= self.seen);
        until("its questions are answered", || self.emsmdb.statistics().pending == 0);
        let done = match tokio::time::timeout(Duration::from_millis(500), &mut waiting).await {
            Ok(outcome) => outcome.unwrap() == WaitOutcome::EventPending,
            Err(_) => {
                waiting.abort();
                until("the wait is given up", || self.emsmdb.statistics().parked == 0);
                false
            }
        };
        let mut out = Vec::new();
        self.session.take(1 << 20, &mut out).unwrap();
        let replies: Vec<String> = ropnotify::split(&out).map(|reply| shown(&reply.unwrap())).collect();
        let as_expected = replies == expected && kinds.len() == events && done != expected.is_empty();
        if !as_expected {
            self.wrong.push(format!(
                "{what}: the wait was {}answered\n  expected {expected:#?}\n  told {replies:#?}\n  events {kinds:#?}",
                if done { "" } else { "not " }
            ));
        }
    }
}

fn deliver(site: &Site, subject: &str) {
    let delivery = site.dovecot.deliver_lda("bob", mail("a@example.org", subject, "x"), None).unwrap();
    assert_eq!(delivery.status, Some(0), "{delivery:?}\n{}", site.dovecot.log());
}

fn commands(imap: &mut ImapClient, commands: &[&str]) {
    for command in commands {
        imap.command(command).unwrap_or_else(|error| panic!("{command}: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_action_ends_as_the_replies_of_the_reference() {
    let site = Site::with(|options| {
        options.protocol_plugins("lda", &["notify", "openchange", "sieve"]).extra_by_version(
            "plugin {\n  sieve = file:~/script.sieve\n}\n",
            "sieve_script personal {\n  driver = file\n  path = ~/script.sieve\n}\n",
        )
    });
    let home = site.dovecot.path().join("mail/bob");
    std::fs::create_dir_all(&home).unwrap();
    let script = "require [\"fileinto\", \"mailbox\"];\n\
                  if header :is \"subject\" \"file\" { fileinto :create \"Lists\"; }\n";
    std::fs::write(home.join("script.sieve"), script).unwrap();
    for path in [home.clone(), home.join("script.sieve")] {
        std::os::unix::fs::chown(path, Some(5000), Some(5000)).unwrap();
    }
    let mut outlook = Outlook::new(&site).await;
    let o = &mut outlook;
    let mut client = site.dovecot.imap("bob").unwrap();
    let imap = &mut client;

    o.told(
        "new mail",
        1,
        &[
            "store: new mail INBOX:1",
            "inbox: new mail INBOX:1",
            "store: created INBOX:1",
            "inbox: created INBOX:1",
            "store: modified INBOX -/-",
            "inbox: modified INBOX -/-",
            "INBOX's rows: added INBOX:1",
            "folders: modified INBOX",
        ],
        || deliver(&site, "one"),
    )
    .await;
    o.told(
        "mail filed by Sieve into a new mailbox",
        2,
        &[
            "store: created Lists in (top)",
            "folders: added Lists",
            "store: created Lists:1",
            "store: modified Lists -/-",
            "folders: modified Lists",
        ],
        || deliver(&site, "file"),
    )
    .await;
    o.told(
        "mail filed by Sieve",
        1,
        &["store: created Lists:2", "store: modified Lists -/-", "folders: modified Lists"],
        || deliver(&site, "file"),
    )
    .await;
    o.told(
        "APPEND",
        1,
        &[
            "store: created INBOX:2",
            "inbox: created INBOX:2",
            "store: modified INBOX -/-",
            "inbox: modified INBOX -/-",
            "INBOX's rows: added INBOX:2",
            "folders: modified INBOX",
        ],
        || {
            imap.append("INBOX", "\\Seen", mail("a@example.org", "draft", "x")).unwrap();
        },
    )
    .await;
    o.told("CREATE", 1, &["store: created Archive in (top)", "folders: added Archive"], || {
        commands(imap, &["CREATE Archive"])
    })
    .await;
    o.told("SUBSCRIBE", 1, &[], || commands(imap, &["SUBSCRIBE Archive"])).await;
    o.told(
        "COPY",
        1,
        &[
            "store: copied Archive:1 < INBOX:1",
            "inbox: copied Archive:1 < INBOX:1",
            "store: modified Archive -/-",
            "Archive's rows: added Archive:1",
            "folders: modified Archive",
        ],
        || commands(imap, &["SELECT INBOX", "COPY 1 Archive"]),
    )
    .await;
    o.told(
        "MOVE",
        1,
        &[
            "store: moved Archive:2 < INBOX:2",
            "inbox: moved Archive:2 < INBOX:2",
            "store: modified Archive -/-",
            "store: modified INBOX -/-",
            "inbox: modified INBOX -/-",
            "INBOX's rows: deleted INBOX:2",
            "Archive's rows: added Archive:2",
            "folders: modified INBOX",
            "folders: modified Archive",
        ],
        || commands(imap, &["MOVE 2 Archive"]),
    )
    .await;
    o.told(
        "\\Seen",
        1,
        &[
            "store: modified INBOX:1",
            "inbox: modified INBOX:1",
            "store: modified INBOX -/-",
            "inbox: modified INBOX -/-",
            "INBOX's rows: modified INBOX:1",
            "folders: modified INBOX",
        ],
        || commands(imap, &["STORE 1 +FLAGS (\\Seen)"]),
    )
    .await;
    o.told(
        "\\Flagged and a keyword",
        1,
        &[
            "store: modified INBOX:1",
            "inbox: modified INBOX:1",
            "store: modified INBOX -/-",
            "inbox: modified INBOX -/-",
            "INBOX's rows: modified INBOX:1",
        ],
        || commands(imap, &["STORE 1 +FLAGS (\\Flagged $x)"]),
    )
    .await;
    o.told(
        "no \\Seen",
        1,
        &[
            "store: modified INBOX:1",
            "inbox: modified INBOX:1",
            "store: modified INBOX -/-",
            "inbox: modified INBOX -/-",
            "INBOX's rows: modified INBOX:1",
            "folders: modified INBOX",
        ],
        || commands(imap, &["STORE 1 -FLAGS (\\Seen)"]),
    )
    .await;
    o.told("nothing changed", 0, &[], || commands(imap, &["STORE 1 -FLAGS (\\Seen)"])).await;
    o.told("\\Deleted", 1, &["store: modified INBOX:1", "inbox: modified INBOX:1"], || {
        commands(imap, &["STORE 1 +FLAGS (\\Deleted)"])
    })
    .await;
    o.told(
        "EXPUNGE",
        1,
        &[
            "store: deleted INBOX:1",
            "inbox: deleted INBOX:1",
            "store: modified INBOX -/-",
            "inbox: modified INBOX -/-",
            "INBOX's rows: deleted INBOX:1",
            "folders: modified INBOX",
        ],
        || commands(imap, &["EXPUNGE"]),
    )
    .await;
    o.told(
        "CREATE of a tree",
        2,
        &[
            "store: created Projects in (top)",
            "folders: added Projects",
            "store: created Projects/Old in Projects",
            "folders: added Projects/Old",
        ],
        || commands(imap, &["CREATE Projects", "CREATE Projects/Old"]),
    )
    .await;
    o.told(
        "RENAME",
        1,
        &[
            "store: moved Plans in (top) < Projects/Old in Projects",
            "folders: deleted Projects/Old",
            "folders: added Plans",
        ],
        || commands(imap, &["RENAME Projects/Old Plans"]),
    )
    .await;
    o.told("DELETE", 1, &["store: deleted Plans in (top)", "folders: deleted Plans"], || {
        commands(imap, &["DELETE Plans"])
    })
    .await;
    o.told(
        "DELETE of one with messages",
        2,
        &[
            "store: deleted Archive:1",
            "store: deleted Archive:2",
            "store: modified Archive -/-",
            "Archive's rows: deleted Archive:1",
            "Archive's rows: deleted Archive:2",
            "folders: modified Archive",
            "store: deleted Archive in (top)",
            "folders: deleted Archive",
        ],
        || commands(imap, &["DELETE Archive"]),
    )
    .await;
    // It may learn of it when Outlook lists the folders, so that is what Outlook is told to do.
    o.told(
        "CREATE of a mailbox that the server does not have",
        1,
        &["store: modified (top) -/-", "folders: Changed"],
        || commands(imap, &["CREATE Unheard"]),
    )
    .await;
    assert!(outlook.wrong.is_empty(), "{}", outlook.wrong.join("\n"));
    assert_eq!(site.warnings(), Vec::<String>::new());
    site.assert_sound();
}

/// Of dbox the plugin knows the counts behind each commit.
#[tokio::test(flavor = "multi_thread")]
async fn folder_counts_are_told_where_dovecot_has_them() {
    let site = Site::with(|options| options.mail_location("mdbox", "~/mdbox"));
    let mut outlook = Outlook::new(&site).await;
    let o = &mut outlook;
    let mut client = site.dovecot.imap("bob").unwrap();
    let imap = &mut client;
    o.told("CREATE", 1, &["store: created Archive in (top)", "folders: added Archive"], || {
        commands(imap, &["CREATE Archive"])
    })
    .await;
    for (subject, count) in [("one", "1/1"), ("two", "2/2")] {
        let uid = &count[..1];
        let expected = [
            format!("store: new mail INBOX:{uid}"),
            format!("inbox: new mail INBOX:{uid}"),
            format!("store: created INBOX:{uid}"),
            format!("inbox: created INBOX:{uid}"),
            format!("store: modified INBOX {count}"),
            format!("inbox: modified INBOX {count}"),
            format!("INBOX's rows: added INBOX:{uid}"),
            "folders: modified INBOX".to_owned(),
        ];
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        o.told("new mail", 1, &expected, || deliver(&site, subject)).await;
    }
    o.told(
        "\\Seen",
        1,
        &[
            "store: modified INBOX:1",
            "inbox: modified INBOX:1",
            "store: modified INBOX -/1",
            "inbox: modified INBOX -/1",
            "INBOX's rows: modified INBOX:1",
            "folders: modified INBOX",
        ],
        || commands(imap, &["SELECT INBOX", "STORE 1 +FLAGS (\\Seen)"]),
    )
    .await;
    o.told(
        "MOVE",
        1,
        &[
            "store: moved Archive:1 < INBOX:2",
            "inbox: moved Archive:1 < INBOX:2",
            "store: modified Archive 1/1",
            "store: modified INBOX -/-",
            "inbox: modified INBOX -/-",
            "INBOX's rows: deleted INBOX:2",
            "Archive's rows: added Archive:1",
            "folders: modified INBOX",
            "folders: modified Archive",
        ],
        || commands(imap, &["MOVE 2 Archive"]),
    )
    .await;
    assert!(outlook.wrong.is_empty(), "{}", outlook.wrong.join("\n"));
    assert_eq!(site.warnings(), Vec::<String>::new());
    site.assert_sound();
}
