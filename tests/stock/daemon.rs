//! From a stock Dovecot through `ocbus serve` to native and legacy subscribers.

use ocbus::sandbox::{Daemon, Dovecot, DovecotOptions, Memcached, Sandbox, mail};
use ocbus::subscriber::SubscriberConfig;

use super::support::{Listening, Nanocat, legacy_only, listen, resolver};
use super::{APPENDED, IMAP, append_three, assert_sound, lua_options, told};

const CREDENTIALS: &str = "
[[http.credentials]]
name = 'dovecot'
login = 'login'
password = 'pass'
[[http.credentials]]
name = 'script'
bearer = 'secret'
";

/// A daemon, and a Dovecot that tells it.
struct House {
    dovecot: Dovecot,
    daemon: Daemon,
    memcached: Memcached,
    sandbox: Sandbox,
}

impl House {
    fn new(options: impl FnOnce(&Daemon) -> DovecotOptions) -> House {
        let sandbox = Sandbox::new().unwrap();
        let memcached = sandbox.memcached().unwrap();
        let daemon =
            sandbox.daemon(&format!("resolver = '{}'\n{CREDENTIALS}", memcached.configuration())).unwrap();
        let dovecot = sandbox.dovecot(options(&daemon)).unwrap();
        House { dovecot, daemon, memcached, sandbox }
    }

    fn lua() -> House {
        House::new(|daemon| lua_options(&daemon.url("/v1/events")))
    }

    async fn native(&self) -> Listening {
        listen(&self.memcached, SubscriberConfig::default(), "bob").await
    }

    async fn legacy(&self) -> Listening {
        listen(&self.memcached, legacy_only(), "bob").await
    }

    /// As OpenChange's server does it.
    async fn register_legacy(&self, pull: &Nanocat) {
        let resolver = resolver(&self.memcached).await;
        resolver.register_legacy(&"bob".parse().unwrap(), &pull.url).await.unwrap();
    }

    /// The next events of a subscriber, in a line each.
    async fn expect(&self, listening: &mut Listening, expected: &[&str], after: &str) {
        for line in expected {
            let event = listening.next().await;
            assert_eq!(told(&event), *line, "after {after}\n{}", self.daemon.log());
            assert_eq!(event.user, "bob");
        }
    }

    fn assert_sound(&self) {
        assert_sound(&self.dovecot);
        let log = self.daemon.log();
        assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_mail_by_the_ox_driver_reaches_native_and_legacy_subscribers() {
    let house = House::new(|daemon| {
        let url = daemon.url("/preliminary/http-notify/v1/notify").replace("://", "://login:pass@");
        DovecotOptions::stock_ox(&url)
    });
    house.dovecot.register_ox("bob", "user=bob").unwrap();
    let (mut native, mut legacy) = (house.native().await, house.legacy().await);
    let pull = Nanocat::pull(&house.sandbox);
    house.register_legacy(&pull).await;
    let sent = mail("=?utf-8?q?J=C3=BCrgen?= <j@example.org>", "=?utf-8?b?R3LDvMOfZQ==?=", "Hi Bob");
    let mut lmtp = house.dovecot.lmtp().unwrap();
    for uid in 1..=6 {
        match uid % 2 {
            0 => assert!(lmtp.deliver("a@b", &["bob"], &sent).unwrap()[0].is_ok()),
            _ => assert!(house.dovecot.deliver_lda("bob", &sent, None).unwrap().is_ok()),
        }
        let (event, message) = native.next_mail().await;
        assert_eq!((message.uid, event.unseen), (Some(uid), Some(uid)));
        assert_eq!(message.from.as_deref(), Some("Jürgen <j@example.org>"));
        assert_eq!(message.subject.as_deref(), Some("Grüße"));
        let (event, message) = legacy.next_mail().await;
        assert_eq!((message.uid, event.mailbox.as_ref().unwrap().name.as_str()), (Some(uid), "INBOX"));
    }
    lmtp.quit().unwrap();
    // What libnanomsg's PULL got, which stands for OpenChange's server.
    let payload = |uid: u32| [b"\x01\x02\0sogo\0", format!("{uid}.eml\0INBOX\0/").as_bytes()].concat();
    let hex = |octets: Vec<u8>| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    assert_eq!(pull.wait(6), (1..=6).map(|uid| hex(payload(uid))).collect::<Vec<_>>());
    native.assert_quiet();
    legacy.assert_quiet();
    house.assert_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_events_by_the_script_reach_a_subscriber_in_order() {
    let house = House::lua();
    let mut native = house.native().await;
    let mut imap = house.dovecot.imap("bob").unwrap();
    append_three(&mut imap);
    // INBOX is made by whoever looks at it first: APPEND, which is told, or the login, which is not always.
    let first = told(&*native.next().await);
    let appended = if first == "MailboxCreate INBOX" { &APPENDED[..] } else { &APPENDED[1..] };
    assert!(first == "MailboxCreate INBOX" || first == APPENDED[0], "{first}");
    house.expect(&mut native, appended, "APPEND").await;
    for (command, expected) in IMAP {
        imap.command(command).unwrap();
        house.expect(&mut native, &expected.concat(), command).await;
    }
    imap.logout().unwrap();
    assert!(house.dovecot.deliver_lda("bob", mail("a@b", "by LDA", "x"), None).unwrap().is_ok());
    house.expect(&mut native, &[r#"MessageNew INBOX 4 "by LDA" ()"#], "dovecot-lda").await;
    let mut lmtp = house.dovecot.lmtp().unwrap();
    for uid in 5..=8 {
        assert!(lmtp.deliver("a@b", &["bob"], mail("a@b", "by LMTP", "x")).unwrap()[0].is_ok());
        house.expect(&mut native, &[&format!("MessageNew INBOX {uid} \"by LMTP\" ()")], "LMTP").await;
    }
    lmtp.quit().unwrap();
    native.assert_quiet();
    house.assert_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn new_mail_by_the_script_reaches_openchanges_receiver_as_from_our_plugin() {
    let house = House::lua();
    let pull = Nanocat::pull(&house.sandbox);
    house.register_legacy(&pull).await;
    for mailbox in [None, Some("Entwürfe/2026")] {
        assert!(house.dovecot.deliver_lda("bob", mail("a@b", "x", "x"), mailbox).unwrap().is_ok());
    }
    let payload = |folder: &str| [b"\x01\x02\0sogo\x001.eml\0", folder.as_bytes(), b"\0."].concat();
    let hex = |octets: Vec<u8>| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    assert_eq!(pull.wait(2), ["INBOX", "Entw&APw-rfe.2026"].map(|folder| hex(payload(folder))));
    house.assert_sound();
}
