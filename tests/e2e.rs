//! A mail that Dovecot delivers reaches a subscriber: real dovecot-lda and LMTP, real memcached, our plugin, and
//! each of the four pairs {OpenChange's plugin, ours} x {OpenChange's receiver, ours}. OpenChange's side is played
//! by libnanomsg with the octets that its own code was observed to send and to expect.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::process::Command;

use ocbus::publisher::PublisherConfig;
use ocbus::resolver::Cn;
use ocbus::sandbox::mail;
use ocbus::subscriber::SubscriberConfig;
use ocbus::wire::{Endpoint, NewMessage};
use ocbus::{Event, EventKind, Mailbox, Publisher};
use support::{LIMIT, Nanocat, Site, legacy_only};

/// `1.eml` in a folder of Maildir, as OpenChange's plugin sends it (vectors.json, newmail_plugin_capture).
fn captured(uid: u32, folder: &str) -> String {
    let payload = [b"\x01\x02\x00sogo\0", format!("{uid}.eml\0{folder}\0.").as_bytes()].concat();
    payload.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[test]
fn our_plugin_sends_openchanges_receiver_the_octets_that_it_expects() {
    let site = Site::new();
    let pull = Nanocat::pull(&site.sandbox);
    site.register_legacy("bob", &[&pull.url]);
    site.deliver("bob", None, "one");
    site.deliver("bob", Some("Entwürfe"), "two");
    site.deliver("bob", Some("Входящие"), "three");
    site.deliver("bob", Some("Projects/2026"), "four");
    site.deliver("bob", None, "five");
    let expected = [
        captured(1, "INBOX"),
        captured(1, "Entw&APw-rfe"),
        captured(1, "&BBIERQQ+BDQETwRJBDgENQ-"),
        captured(1, "Projects.2026"),
        captured(2, "INBOX"),
    ];
    assert_eq!(pull.wait(5), expected);
    assert_eq!(expected[1], "010200736f676f00312e656d6c00456e7477264150772d726665002e", "the capture itself");
    assert_eq!(site.warnings(), Vec::<String>::new());
    site.assert_sound();
}

#[test]
fn our_plugin_reaches_openchanges_receiver_over_ipc_too() {
    let site = Site::new();
    let pull = Nanocat::pull_ipc(&site.sandbox);
    site.register_legacy("bob", &[&pull.url]);
    for n in 1..=20 {
        site.deliver("bob", None, &n.to_string());
    }
    let expected: Vec<String> = (1..=20).map(|uid| captured(uid, "INBOX")).collect();
    assert_eq!(pull.wait(20), expected);
    assert_eq!(site.warnings(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn our_plugin_tells_our_native_subscriber_all_it_knows() {
    let site = Site::new();
    let mut bob = site.native("bob").await;
    let sent = mail("=?utf-8?q?J=C3=BCrgen?= <j@example.org>", "Grüße\r\n folded", "Hi Bob");
    let before = ocbus::now_us();
    let delivery = site.dovecot.deliver_lda("bob", &sent, Some("Entwürfe/2026")).unwrap();
    assert_eq!(delivery.status, Some(0), "{delivery:?}");
    let (event, message) = bob.next_mail().await;
    assert_eq!(event.user, "bob");
    assert_eq!(
        event.mailbox.as_ref().unwrap(),
        &Mailbox {
            name: "Entwürfe/2026".into(),
            separator: '/',
            storage_name: "Entw&APw-rfe.2026".into(),
            list_separator: '.'
        }
    );
    assert!(event.time_us >= before && event.time_us <= ocbus::now_us());
    assert_eq!(event.id.get_version_num(), 7);
    assert!(event.uidvalidity.is_some_and(|uidvalidity| uidvalidity > 0));
    assert_eq!(message.uid, Some(1));
    assert_eq!(message.from.as_deref(), Some("=?utf-8?q?J=C3=BCrgen?= <j@example.org>"));
    assert!(message.subject.as_deref().is_some_and(|subject| subject.starts_with("Grüße")), "{message:?}");
    assert_eq!(message.message_id.as_deref(), Some(sent.message_id()));
    assert!(message.size.is_some_and(|size| size > 100), "{message:?}");
    bob.assert_quiet();
    assert_eq!(site.warnings(), Vec::<String>::new());
    site.assert_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn openchanges_plugin_reaches_our_legacy_endpoint() {
    let site = Site::new();
    let mut bob = site.legacy("bob").await;
    let url = bob.subscriber.legacy_endpoint(&Cn::new("bob").unwrap()).unwrap().to_string();
    let record = site.memcached.get("resolver:bob").unwrap().unwrap();
    let expected = [b"\x01\x01\0\0\0\x01\0\0\0", url.as_bytes(), b"\0"].concat();
    assert_eq!(record, expected, "as OpenChange's server writes it");
    // What its plugin was captured to send, pushed by its own library.
    let file = site.sandbox.path().join("payload");
    for (n, payload) in [
        &b"\x01\x02\0sogo\x00142.eml\0INBOX\0."[..],
        b"\x01\x02\0sogo\x001.eml\0Entw&APw-rfe\0.",
        b"\x01\x02\0sogo\x001.eml\0Entw\x81rfe\0/",
        b"\x01\x02\0sogo\x007.eml\0\0/",
    ]
    .iter()
    .enumerate()
    {
        std::fs::write(&file, payload).unwrap();
        let mut push = Command::new("nanocat");
        push.args(["--push", "--connect", &url, "--send-timeout", "5", "--file"]).arg(&file);
        assert!(push.status().unwrap().success());
        let (event, message) = bob.next_mail().await;
        let name = &event.mailbox.as_ref().unwrap().name;
        let expected = [(142, "INBOX"), (1, "Entwürfe"), (1, "Entwürfe"), (7, "INBOX")][n];
        assert_eq!((message.uid.unwrap(), name.as_str()), expected);
        assert_eq!((event.user.as_str(), message.backend.as_deref()), ("bob", Some("sogo")));
    }
    bob.assert_quiet();
    bob.subscriber.stop(LIMIT).await;
    assert_eq!(site.memcached.get("resolver:bob").unwrap(), None, "left at the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn ours_reaches_ours_by_the_old_protocol() {
    let site = Site::new();
    let mut bob = site.legacy("bob").await;
    for uid in 1..=3 {
        site.deliver("bob", Some("Entwürfe"), "x");
        let (event, message) = bob.next_mail().await;
        assert_eq!((message.uid, event.mailbox.as_ref().unwrap().name.as_str()), (Some(uid), "Entwürfe"));
    }
    bob.assert_quiet();
    assert_eq!(site.warnings(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_endpoints_of_both_kinds_gets_each_event_once_on_each() {
    let site = Site::new();
    let (mut native, mut legacy) = (site.native("bob").await, site.legacy("bob").await);
    let pull = Nanocat::pull(&site.sandbox);
    let cn = Cn::new("bob").unwrap();
    site.resolver().await.register_legacy(&cn, &pull.url).await.unwrap();
    for uid in 1..=5 {
        site.deliver("bob", None, "x");
        assert_eq!(native.next_mail().await.1.uid, Some(uid));
        assert_eq!(legacy.next_mail().await.1.uid, Some(uid));
    }
    let expected: Vec<String> = (1..=5).map(|uid| captured(uid, "INBOX")).collect();
    assert_eq!(pull.wait(5), expected);
    native.assert_quiet();
    legacy.assert_quiet();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_lmtp_session_serves_many_mails_and_recipients() {
    let site = Site::new();
    let mut bob = site.native("bob").await;
    let mut carol = site.legacy("carol").await;
    let pull = Nanocat::pull(&site.sandbox);
    site.register_legacy("dave", &[&pull.url]);
    let mut lmtp = site.dovecot.lmtp().unwrap();
    for round in 1..=10 {
        let sent = mail("alice@example.org", "to all", "Hi");
        let replies =
            lmtp.deliver("alice@example.org", &["bob", "carol", "dave", "nobody-listens"], &sent).unwrap();
        assert!(replies.iter().all(|reply| reply.is_ok()) && replies.len() == 4, "{replies:?}");
        let (event, message) = bob.next_mail().await;
        assert_eq!((event.user.as_str(), message.uid), ("bob", Some(round)));
        assert_eq!(message.message_id.as_deref(), Some(sent.message_id()));
        let (event, message) = carol.next_mail().await;
        assert_eq!((event.user.as_str(), message.uid), ("carol", Some(round)));
    }
    lmtp.quit().unwrap();
    let expected: Vec<String> = (1..=10).map(|uid| captured(uid, "INBOX")).collect();
    assert_eq!(pull.wait(10), expected);
    bob.assert_quiet();
    carol.assert_quiet();
    for user in ["bob", "carol", "dave", "nobody-listens"] {
        assert_eq!(site.dovecot.maildir(user).total(), 10);
    }
    assert_eq!(site.warnings(), Vec::<String>::new());
    site.assert_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_deliveries_are_new_mail() {
    let site = Site::new();
    let pull = Nanocat::pull(&site.sandbox);
    site.register_legacy("bob", &[&pull.url]);
    let mut bob = site.native("bob").await;
    let mut imap = site.dovecot.imap("bob").unwrap();
    imap.append("INBOX", "\\Seen", mail("me@example.org", "draft", "x")).unwrap();
    imap.command("CREATE Other").unwrap();
    imap.command("SELECT INBOX").unwrap();
    imap.command("COPY 1 Other").unwrap();
    imap.logout().unwrap();
    for kind in ["MessageAppend", "MailboxCreate", "MessageCopy"] {
        assert_eq!(bob.next().await.kind.name(), kind);
    }
    site.deliver("bob", None, "real");
    assert_eq!(bob.next_mail().await.1.subject.as_deref(), Some("real"));
    bob.assert_quiet();
    // OpenChange has words for new mail alone.
    assert_eq!(pull.wait(1), [captured(2, "INBOX")]);
    assert_eq!(site.warnings(), Vec::<String>::new());
    site.assert_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_for_a_delivery_that_fails() {
    let site = Site::with(|options| {
        options
            .protocol_plugins("lda", &["notify", "openchange", "quota"])
            .protocol_plugins("lmtp", &["notify", "openchange", "quota"])
            .extra_by_version(
                "plugin {\n  quota = maildir:User quota\n  quota_rule = *:storage=20K\n}",
                "quota \"User quota\" {\n  driver = maildir\n  storage_size = 20K\n  storage_grace = 0\n}",
            )
    });
    let mut bob = site.native("bob").await;
    site.deliver("bob", None, "fits");
    assert_eq!(bob.next_mail().await.1.uid, Some(1));
    let huge = mail("alice@example.org", "too large", &"x".repeat(100_000));
    let mut lmtp = site.dovecot.lmtp().unwrap();
    let replies = lmtp.deliver("alice@example.org", &["bob"], &huge).unwrap();
    assert!(!replies[0].is_ok(), "{replies:?}");
    site.deliver("bob", None, "fits too");
    assert_eq!(bob.next_mail().await.1.subject.as_deref(), Some("fits too"));
    bob.assert_quiet();
    assert_eq!(site.dovecot.maildir("bob").total(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cn_is_the_username_or_the_address_in_lower_case() {
    let site = Site::new();
    let mut john = site.native("john").await;
    site.deliver("John@Example.com", None, "x");
    assert_eq!(john.next_mail().await.0.user, "john");
    drop(site);

    let site = Site::with(|options| options.setting("openchange_cn", "email"));
    let mut john = site.native("john@example.com").await;
    let mut other = site.native("john").await;
    site.deliver("John@Example.com", None, "x");
    assert_eq!(john.next_mail().await.0.user, "john@example.com");
    other.assert_quiet();
}

#[test]
fn backend_and_charset_are_the_settings() {
    let site = Site::with(|options| {
        options
            .setting("openchange_backend", "exchange")
            .setting("openchange_charset", "CP1252")
            // Names in UTF-8 on disk: the storage name itself needs the charset.
            .utf8_names()
    });
    let pull = Nanocat::pull(&site.sandbox);
    site.register_legacy("bob", &[&pull.url]);
    let deliver = |mailbox| {
        let delivery = site.dovecot.deliver_lda("bob", mail("a@b", "x", "y"), Some(mailbox)).unwrap();
        assert_eq!(delivery.status, Some(0), "{delivery:?}\n{}", site.dovecot.log());
    };
    deliver("5€");
    let expected: String =
        b"\x01\x02\0exchange\x001.eml\x005\x80\0.".iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!(pull.wait(1), [expected]);
    // What the charset lacks cannot be said to OpenChange; the log says so, and the mail is there.
    deliver("受信");
    let warnings = site.warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("CP1252") && warnings[0].contains('受'),
        "{warnings:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn our_publisher_reaches_openchanges_receiver() {
    let site = Site::new();
    let (tcp, ipc) = (Nanocat::pull(&site.sandbox), Nanocat::pull_ipc(&site.sandbox));
    site.register_legacy("bob", &[&tcp.url, &ipc.url]);
    let publisher = Publisher::new(site.resolver().await, PublisherConfig::default()).unwrap();
    for uid in 1..=50 {
        let message = NewMessage { uid: Some(uid), ..NewMessage::default() };
        let mailbox = Mailbox::new("INBOX", '.');
        let event =
            Event::new(uuid::Uuid::now_v7(), ocbus::now_us(), "bob", mailbox, EventKind::MessageNew(message));
        let report = publisher.publish(&Cn::new("bob").unwrap(), &[event]).await.unwrap();
        assert_eq!(report.taken(), 2, "{report:?}");
    }
    let expected: Vec<String> = (1..=50).map(|uid| captured(uid, "INBOX")).collect();
    assert_eq!(tcp.wait(50), expected);
    assert_eq!(ipc.wait(50), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plugin_reaches_subscribers_over_ipc() {
    let site = Site::new();
    let path =
        |name: &str| Endpoint::Ipc { path: site.sandbox.path().join(name).to_str().unwrap().to_owned() };
    let native =
        SubscriberConfig { bind: Some(path("n.sock")), ipc_mode: Some(0o666), ..SubscriberConfig::default() };
    let legacy = SubscriberConfig { legacy_bind: Some(path("l-")), ipc_mode: Some(0o666), ..legacy_only() };
    let (mut native, mut legacy) =
        (site.subscriber(native, "bob").await, site.subscriber(legacy, "bob").await);
    for uid in 1..=10 {
        site.deliver("bob", None, "x");
        assert_eq!(native.next_mail().await.1.uid, Some(uid));
        assert_eq!(legacy.next_mail().await.1.uid, Some(uid));
    }
    assert_eq!(site.warnings(), Vec::<String>::new());
}
