use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use ocbus_resolver::{MemoryStore, Resolver};
use ocbus_wire::{Event, EventKind, Mailbox};
use uuid::Uuid;

use super::*;
use crate::Publisher;
use crate::outbox::OutboxConfig;
use crate::publisher::PublisherConfig;

fn outbox() -> Outbox {
    let resolver = Resolver::in_memory(MemoryStore::default());
    let publisher = Publisher::new(resolver.clone(), PublisherConfig::default()).unwrap();
    Outbox::start(publisher, resolver, OutboxConfig::default()).unwrap()
}

fn config(folder: &Path) -> HandOverConfig {
    let path = folder.join("bus.sock").to_str().unwrap().to_owned();
    HandOverConfig { listen: Endpoint::Ipc { path }, ..HandOverConfig::default() }
}

fn receiver(outbox: Outbox) -> Receiver {
    Receiver { outbox, counters: Arc::default() }
}

fn batch() -> Vec<u8> {
    let mailbox = Mailbox::new("INBOX", '/');
    let event = Event::new(Uuid::now_v7(), 0, "bob", mailbox, EventKind::MailboxCreate);
    Batch::of(&event).unwrap().encode()
}

#[tokio::test]
async fn what_is_accepted_is_acknowledged_and_what_is_not_is_refused_with_a_reason() {
    let outbox = outbox();
    let receiver = receiver(outbox.clone());
    let ack = Ack::decode(&receiver.take(&batch())).unwrap();
    assert_eq!((ack.taken, ack.refused), (1, None));
    let ack = Ack::decode(&receiver.take(b"nonsense")).unwrap();
    assert!(ack.refused.is_some(), "{ack:?}");
    outbox.drain(Duration::from_millis(10)).await;
    let ack = Ack::decode(&receiver.take(&batch())).unwrap();
    assert_eq!(ack.refused.as_deref(), Some("the outbox is stopping"));
    assert_eq!(receiver.counters.malformed.load(Ordering::Relaxed), 1);
    let statistics = outbox.statistics();
    assert_eq!((statistics.accepted, statistics.refused), ([0, 0, 1], [0, 0, 1]));
}

#[tokio::test]
async fn wrong_settings_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let fails = |change: fn(&mut HandOverConfig)| {
        let mut config = config(folder.path());
        change(&mut config);
        HandOver::listen(&config, outbox()).unwrap_err().to_string()
    };
    let tcp = fails(|config| config.listen = Endpoint::parse("tcp://127.0.0.1:9000").unwrap());
    assert!(tcp.contains("tcp://127.0.0.1:9000") && tcp.contains("unix socket"), "{tcp}");
    assert!(fails(|config| config.mode = 0o1777).contains("0o1777"));
    assert!(fails(|config| config.group = Some("nobody-has-it".into())).contains("nobody-has-it"));
    let absent = fails(|config| config.listen = Endpoint::parse("ipc:///nonexistent/x").unwrap());
    assert!(absent.contains("/nonexistent/x"), "{absent}");
    let _listening = HandOver::listen(&config(folder.path()), outbox()).unwrap();
    assert!(fails(|_| ()).contains("no other process"), "one where somebody listens");
}

/// Runs as root, like all tests with servers: setpriv changes the user.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_write_hands_over_and_nobody_else_connects() {
    const GROUP: u32 = 54_321;
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let outbox = outbox();
    let config = HandOverConfig { group: Some(GROUP.to_string()), ..config(folder.path()) };
    let Endpoint::Ipc { path } = &config.listen else { panic!() };
    // What a killed daemon leaves behind.
    drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    let listening = HandOver::listen(&config, outbox.clone()).unwrap();
    let file = std::fs::metadata(path).unwrap();
    assert_eq!((file.mode() & 0o777, file.gid()), (0o660, GROUP));
    let request = folder.path().join("request");
    let mut octets = b"\0SP\0\0\x30\0\0\x01".to_vec();
    let batch = batch();
    octets.extend_from_slice(&(batch.len() as u64 + 4).to_be_bytes());
    octets.extend_from_slice(b"\x80\0\0\x01");
    octets.extend_from_slice(&batch);
    std::fs::write(&request, octets).unwrap();
    // As another user, with and without the group, by perl, which every Debian has.
    let connect = |group: u32| {
        let script = "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die \"no: $!\"; \
                      open(my $f, '<:raw', $ARGV[1]) or die; local $/; $s->syswrite(<$f>); \
                      alarm 5; my $d = ''; while (length($d) < 21) { $s->sysread($d, 100, length($d)) or die }";
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=65534",
            "--clear-groups",
            &format!("--regid={group}"),
            "/usr/bin/perl",
            "-e",
            script,
        ]);
        command.arg(path).arg(&request).output().unwrap()
    };
    let refused = connect(65_534);
    assert!(!refused.status.success(), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no: Permission denied"), "{refused:?}");
    assert_eq!(outbox.statistics().accepted, [0, 0, 0]);
    let taken = connect(GROUP);
    assert!(taken.status.success(), "{taken:?}");
    assert_eq!(outbox.statistics().accepted, [0, 0, 1]);
    drop(listening);
    assert!(!Path::new(path).exists());
}
