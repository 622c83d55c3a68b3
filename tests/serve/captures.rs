//! What Dovecot 2.3 and 2.4 were seen to send, octet by octet.

use std::collections::BTreeMap;

use ocbus::EventKind;
use ocbus::subscriber::SubscriberConfig;

use super::House;
use super::client::Client;
use super::support::{Nanocat, legacy_only, listen};

/// Name and octets.
fn captures() -> BTreeMap<String, Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ox");
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
    };
    std::fs::read_dir(folder).unwrap().map(read).collect()
}

/// The driver's URL named another path in two of them, and another password in one.
const MORE: &str = "
http.notify_paths = ['/preliminary/http-notify/v1/notify', '/second', '/third']
users.table = { '12@3' = 'carol' }
[[http.credentials]]
name = 'second'
login = 'login'
password = 'p@ss'
";

#[tokio::test(flavor = "multi_thread")]
async fn each_reaches_a_native_and_a_legacy_subscriber() {
    let house = House::with(MORE);
    let mut native = listen(&house.memcached, SubscriberConfig::default(), "bob").await;
    let mut legacy = listen(&house.memcached, legacy_only(), "bob").await;
    let mut carol = listen(&house.memcached, SubscriberConfig::default(), "carol").await;
    let captures = captures();
    assert_eq!(captures.len(), 12);
    // All of bob's on one connection, as dovecot-lmtp does.
    let mut client = Client::connect(house.daemon.port());
    for (name, octets) in &captures {
        let answer = client.ask(octets);
        let body: &str = std::str::from_utf8(octets).unwrap().split_once("\r\n\r\n").unwrap().1;
        let sent: serde_json::Value = serde_json::from_str(body).unwrap();
        if name == "multi-driver3-noauth.http" {
            assert_eq!(answer.status, 401, "{name}: {answer:?}");
            continue;
        }
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        if name == "multi-driver2-user_from_metadata.http" {
            // 12@3 is carol, and this the mail of which the first driver has told.
            assert_eq!(answer.json()["repeated"], true, "{answer:?}");
            continue;
        }
        assert_eq!(answer.json()["accepted"], 1, "{name}: {answer:?}");
        let listening = if sent["user"] == "carol" { &mut carol } else { &mut native };
        let (event, message) = listening.next_mail().await;
        assert_eq!(message.uid.map(u64::from), sent["imap-uid"].as_u64(), "{name}");
        assert_eq!(event.uidvalidity.map(u64::from), sent["imap-uidvalidity"].as_u64(), "{name}");
        assert_eq!(event.unseen.map(u64::from), sent["unseen"].as_u64(), "{name}");
        assert_eq!(event.mailbox.as_ref().unwrap().name, "INBOX", "{name}");
        assert_eq!(message.subject.is_some(), sent.get("subject").is_some(), "{name}: {message:?}");
        assert_eq!(message.from.is_some(), sent.get("from").is_some(), "{name}: {message:?}");
        if sent["user"] == "bob" {
            let (_, pushed) = legacy.next_mail().await;
            assert_eq!(pushed.uid, message.uid, "{name}");
        }
        match name.as_str() {
            "d24-lda.http" | "lda-mail-utf8.http" => {
                assert_eq!(message.subject.as_deref(), Some("Grüße € 😀 \"quoted\" back\\slash"), "{name}");
                assert_eq!(message.from.as_deref(), Some("Zoë Ünïcode <zoe@example.org>"), "{name}");
            }
            _ => {}
        }
    }
    for mut listening in [native, legacy, carol] {
        listening.assert_quiet();
        listening.subscriber.stop(std::time::Duration::from_secs(2)).await;
    }
    house.assert_sound();
}

#[test]
fn openchanges_receiver_gets_the_octets_that_it_expects() {
    let house = House::new();
    let pull = Nanocat::pull(&house.sandbox);
    let record = ocbus::wire::openchange::ResolverRecord { hosts: vec![pull.url.clone()] };
    let record = record.encode(ocbus::wire::openchange::DosCharset::default()).unwrap();
    house.memcached.set("resolver:bob", &record).unwrap();
    let answer = Client::connect(house.daemon.port()).ask(&captures()["lda-mail.http"]);
    assert_eq!(answer.status, 200, "{answer:?}");
    let expected: String =
        b"\x01\x02\x00sogo\x0038.eml\0INBOX\0.".iter().map(|octet| format!("{octet:02x}")).collect();
    let payload = pull.wait(1).remove(0);
    // The separator is the daemon's guess: Dovecot does not tell the storage's.
    assert_eq!(payload[..payload.len() - 2], expected[..expected.len() - 2], "{payload}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_event_is_told_once_when_dovecot_sends_it_again() {
    let house = House::new();
    let mut native = listen(&house.memcached, SubscriberConfig::default(), "bob").await;
    let capture = &captures()["lda-mail.http"];
    // Both at once: whoever comes second finds the first one's mark.
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (port, capture) = (house.daemon.port(), capture.clone());
            std::thread::spawn(move || Client::connect(port).ask(&capture).json())
        })
        .collect();
    let answers: Vec<serde_json::Value> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert_eq!(answers.iter().filter(|answer| answer["accepted"] == 1).count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer["repeated"] == true).count(), 7, "{answers:?}");
    let (_, mail) = native.next_mail().await;
    assert_eq!(mail.uid, Some(38));
    // Behind a mail that came later, nothing of the first can be on its way any more.
    Client::connect(house.daemon.port()).ask(&super::client::notify("bob", 39));
    let (event, mail) = native.next_mail().await;
    assert_eq!(mail.uid, Some(39), "{event:?}");
    assert!(matches!(event.kind, EventKind::MessageNew(_)));
    native.assert_quiet();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_memcached_subscribers_register_with_the_daemon() {
    use ocbus::resolver::{Cn, Config, Resolver};

    let sandbox = ocbus::sandbox::Sandbox::new().unwrap();
    let mut daemon = sandbox.daemon("resolver = 'memory'\nembedded.listen = '127.0.0.1:0'").unwrap();
    let log = daemon.wait_log("being the resolver", super::support::LIMIT).unwrap();
    let (_, rest) = log.split_once("resolver=\"").unwrap();
    let config = Config::parse(rest.split('"').next().unwrap()).unwrap();
    let resolver =
        Resolver::new(&config, Default::default(), std::time::Duration::from_secs(1)).await.unwrap();
    let bus = ocbus::Bus::new();
    let config = SubscriberConfig::default();
    let subscriber = ocbus::Subscriber::start(config, resolver, bus.clone()).await.unwrap();
    subscriber.add(&Cn::new("bob").unwrap()).await.unwrap();
    let events = bus.subscribe(ocbus::bus::Filter::user("bob"));
    let mut listening = super::support::Listening { subscriber, events };
    assert_eq!(super::client::ask(daemon.port(), &super::client::notify("bob", 1)).status, 200);
    assert_eq!(listening.next_mail().await.1.uid, Some(1));
    let health = super::client::ask(daemon.port(), b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(health.status, 200, "{health:?}");
}
