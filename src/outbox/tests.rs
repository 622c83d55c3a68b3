use ocbus_resolver::Config;
use ocbus_wire::openchange::DosCharset;
use ocbus_wire::{EventKind, Mailbox};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::publisher::PublisherConfig;

const USERS: usize = 100;

/// Says that nobody is registered, but not before all users have been asked for on this one connection.
async fn answer_all_or_none(stream: TcpStream) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut asked = 0;
    while let Ok(Some(line)) = lines.next_line().await {
        assert!(line.starts_with("mg "), "{line}");
        asked += 1;
        if asked == 2 * USERS {
            asked = 0;
            write.write_all("EN\r\n".repeat(2 * USERS).as_bytes()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn users_who_are_due_together_are_looked_up_together() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = Config::parse(&format!("--SERVER={}", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_all_or_none(stream));
        }
    });
    let limit = Duration::from_secs(5);
    let resolver = Resolver::new(&config, DosCharset::default(), limit).await.unwrap();
    let publisher = Publisher::new(resolver.clone(), PublisherConfig::default()).unwrap();
    let outbox = Outbox::start(publisher, resolver, OutboxConfig::default()).unwrap();
    let event = |n| {
        let mailbox = Mailbox::new("INBOX", '/');
        Event::new(Uuid::now_v7(), 0, format!("user{n}"), mailbox, EventKind::MailboxCreate)
    };
    outbox.accept(Source::Http, (0..USERS).map(event).collect()).unwrap();
    let all = async {
        while outbox.statistics().lookups < USERS as u64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(limit, all).await;
    assert!(in_time.is_ok(), "{:?}", outbox.statistics());
    assert_eq!(outbox.statistics().lookup_failures, 0);
}

#[tokio::test]
async fn another_bound_holds_at_once() {
    let resolver = Resolver::in_memory(ocbus_resolver::MemoryStore::new());
    let publisher = Publisher::new(resolver.clone(), PublisherConfig::default()).unwrap();
    let outbox = Outbox::start(publisher.clone(), resolver, OutboxConfig::default()).unwrap();
    let small = OutboxConfig { max_octets: 1 << 20, ..OutboxConfig::default() };
    let hasty = PublisherConfig { budget: Duration::from_millis(5), ..PublisherConfig::default() };
    outbox.renew(small.clone(), hasty.clone()).unwrap();
    assert_eq!(publisher.config().budget, hasty.budget, "of every clone");
    let event = |n| {
        let mailbox = Mailbox::new("x".repeat(1000), '/');
        Event::new(Uuid::now_v7(), 0, format!("user{n}"), mailbox, EventKind::MailboxCreate)
    };
    let full = outbox.accept(Source::Http, (0..1000).map(event).collect()).unwrap_err();
    assert!(matches!(full, Full::Octets { max_octets, .. } if max_octets == 1 << 20), "{full}");
    // All or nothing.
    let wrong = OutboxConfig { lookups: 0, ..small };
    assert!(outbox.renew(wrong, PublisherConfig::default()).is_err());
    assert_eq!(publisher.config().budget, hasty.budget);
}
