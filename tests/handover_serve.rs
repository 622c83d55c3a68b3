//! Our plugin hands its events over to a real `ocbus serve`, a process of its own: by LDA, LMTP and IMAP, and whatever
//! happens to the daemon, to memcached or to a subscriber.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

#[path = "serve/client.rs"]
#[allow(dead_code, reason = "the tests of the end-points use all of it")]
mod client;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use ocbus::bus::{Bus, Filter};
use ocbus::resolver::Cn;
use ocbus::sandbox::faults::Silent;
use ocbus::sandbox::{Daemon, free_port, mail};
use ocbus::subscriber::SubscriberConfig;
use ocbus::wire::ResyncReason;
use ocbus::{Event, EventKind, Subscriber};
use support::{LIMIT, Listening, Nanocat, Site, resolver, shown, until};

/// A budget that a busy machine does not use up, and that a test can wait for.
const BUDGET: Duration = Duration::from_millis(1000);

/// The daemon's HTTP asks nobody who he is.
const BASIC: &str = "";

/// Where nothing listens: a plugin that asked memcached there would complain.
const NO_MEMCACHED: &str = "--SERVER=127.0.0.1:1";

/// A Dovecot with our plugin, a memcached, and the daemon that the plugin hands over to.
struct House {
    site: Site,
    /// Its socket, which mail users may reach, and its ledger.
    folder: tempfile::TempDir,
    daemon: Daemon,
}

impl House {
    /// `settings`: more lines of the daemon's. `alone`: the plugin has no memcached of its own.
    fn new(settings: &str, alone: bool) -> House {
        let folder = tempfile::Builder::new().prefix("ocbus-bus-").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let bus = format!("ipc://{}/bus.sock", folder.path().display());
        let budget = BUDGET.as_millis().to_string();
        let site = Site::with(|options| {
            let options = options.setting("openchange_bus", &bus).setting("openchange_budget", &budget);
            if alone { options.setting("openchange_resolver", NO_MEMCACHED) } else { options }
        });
        let daemon = site.sandbox.daemon(&format!(
            "resolver = '{}'\nresolver_timeout_ms = 500\nhandover.listen = '{bus}'\nhandover.mode = '0666'\n\
             outbox.state_dir = '{}'\noutbox.retry_max_ms = 200\n{settings}",
            site.memcached.configuration(),
            folder.path().display()
        ));
        House { daemon: daemon.unwrap(), site, folder }
    }

    fn restart_daemon(&mut self) {
        self.daemon.kill();
        assert!(self.folder.path().join("bus.sock").exists(), "a killed daemon leaves its socket");
        self.daemon.restart().unwrap();
    }

    /// One of its counters or gauges.
    fn metric(&self, name: &str) -> u64 {
        let answer = client::ask(self.daemon.port(), &client::request("GET", "/metrics", "", b""));
        let line = answer.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name}: {}", answer.body)).parse::<f64>().unwrap() as u64
    }

    /// Waits until so many events are held.
    fn wait_held(&self, count: u64) {
        until(&format!("{count} events are held"), || self.metric("ocbus_outbox_events") == count);
    }

    /// What the daemon found in its ledger when it started.
    fn left_behind(&self) -> u64 {
        let log = self.daemon.log();
        let lines = log.lines().filter(|line| line.contains("event=\"left_behind\""));
        let number = |line: &str| line.split("events=").nth(1)?.split(' ').next()?.parse::<u64>().ok();
        lines.map(|line| number(line).unwrap()).sum()
    }
}

fn uid_of(event: &Event) -> Option<u32> {
    match &event.kind {
        EventKind::MessageNew(message) => message.uid,
        _ => None,
    }
}

fn is_unreachable(event: &Event) -> bool {
    matches!(&event.kind, EventKind::Resync { reason: ResyncReason::Unreachable, .. })
}

async fn uids(listening: &mut Listening, count: usize) -> Vec<u32> {
    let mut uids = Vec::new();
    for _ in 0..count {
        uids.push(listening.next_mail().await.1.uid.unwrap());
    }
    uids
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_from_lda_lmtp_and_imap_goes_over_the_daemon() {
    let house = House::new("", true);
    let site = &house.site;
    let (mut native, mut legacy) = (site.native("bob").await, site.legacy("bob").await);
    site.deliver("bob", None, "by LDA");
    let mut lmtp = site.dovecot.lmtp().unwrap();
    assert!(lmtp.deliver("a@b", &["bob"], mail("a@b", "by LMTP", "x")).unwrap()[0].is_ok());
    lmtp.quit().unwrap();
    assert_eq!((uids(&mut native, 2).await, uids(&mut legacy, 2).await), (vec![1, 2], vec![1, 2]));
    let mut imap = site.dovecot.imap("bob").unwrap();
    imap.append("INBOX", "\\Seen", mail("a@b", "by IMAP", "x")).unwrap();
    assert_eq!(shown(&*native.next().await), "MessageAppend INBOX 3 \\Seen");
    for (command, expected) in [
        ("SELECT INBOX", &[][..]),
        ("STORE 1 +FLAGS (\\Seen)", &["MessageRead INBOX 1"]),
        ("STORE 1:2 +FLAGS (\\Flagged $Work)", &["FlagsSet INBOX 1:2 \\Flagged $Work"]),
        ("STORE 1:2 -FLAGS (\\Flagged $Work)", &["FlagsClear INBOX 1:2 \\Flagged $Work"]),
        ("CREATE A", &["MailboxCreate A"]),
        ("SUBSCRIBE A", &["MailboxSubscribe A"]),
        ("COPY 2 A", &["MessageCopy A 1 < INBOX 2"]),
        ("MOVE 2 A", &["MessageMove A 2 < INBOX 2"]),
        ("STORE 1 +FLAGS (\\Deleted)", &["MessageTrash INBOX 1"]),
        ("EXPUNGE", &["MessageExpunge INBOX 1"]),
        ("UNSUBSCRIBE A", &["MailboxUnsubscribe A"]),
        ("RENAME A Z", &["MailboxRename Z < A"]),
        ("DELETE Z", &["MessageExpunge Z 1:2", "MailboxDelete Z"]),
    ] {
        imap.command(command).unwrap();
        for line in expected {
            assert_eq!(shown(&*native.next().await), *line, "{command}");
        }
    }
    imap.logout().unwrap();
    native.assert_quiet();
    assert_eq!(site.warnings(), Vec::<String>::new(), "the plugin asked nobody else");
    site.assert_sound();
    let log = house.daemon.log();
    let bad = |line: &&str| line.contains("WARN") || line.contains("ERROR");
    // That nobody has to say who he is, which is so by choice.
    let bad = log.lines().filter(bad).filter(|line| !line.contains("event=\"settings_warning\""));
    assert_eq!(bad.collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn over_an_open_connection_a_hand_over_is_one_write_and_one_read() {
    const MAILS: usize = 10;
    // The plugin has a memcached, and needs none.
    let house = House::new("", false);
    let mut lmtp = house.site.dovecot.lmtp().unwrap();
    let processes = house.site.dovecot.processes();
    let (pid, _) = processes.iter().find(|(_, name)| name == "lmtp").unwrap();
    let mut command = Command::new("strace");
    command.args([
        "-e",
        "signal=none",
        "-e",
        "trace=connect,socket,sendto,sendmsg,recvfrom,recvmsg,read,write",
    ]);
    command.args(["-p", &pid.to_string()]);
    let mut strace = house.site.sandbox.start("strace", &command).unwrap();
    strace.wait_output("attached", LIMIT).unwrap();
    let mut deliver = || assert!(lmtp.deliver("a@b", &["bob"], mail("a@b", "x", "x")).unwrap()[0].is_ok());
    deliver();
    let first = strace.wait_output("/bus.sock", LIMIT).unwrap();
    let connect = first.lines().find(|line| line.contains("/bus.sock")).unwrap();
    let descriptor = connect.split(['(', ',']).nth(1).unwrap();
    for _ in 0..MAILS {
        deliver();
    }
    lmtp.quit().unwrap();
    strace.signal("INT").unwrap();
    assert!(strace.wait(LIMIT).unwrap().is_some());
    let all = strace.stderr();
    let after = all.split_once(connect).unwrap().1;
    let calls = |names: [&str; 3]| {
        let names = names.map(|name| format!("{name}({descriptor}, "));
        let ours = after.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
        ours.filter(|line| !line.contains("MSG_PEEK")).count()
    };
    let (writes, reads) = (calls(["sendto", "sendmsg", "write"]), calls(["recvfrom", "recvmsg", "read"]));
    // The first one with SP's handshake, which may come in a read of its own.
    assert_eq!(writes, MAILS + 1, "{after}");
    assert!((MAILS + 1..=MAILS + 3).contains(&reads), "{reads}\n{after}");
    assert_eq!(all.matches("/bus.sock").count(), 1, "one connection");
    assert_eq!(all.lines().filter(|line| line.contains("AF_INET")).count(), 0, "no memcached");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_under_load_it_owes_nothing_in_silence() {
    const MAILS: usize = 120;
    let mut house = House::new("", false);
    let mut bob = house.site.native("bob").await;
    let mut lmtp = house.site.dovecot.lmtp().unwrap();
    let sending = tokio::task::spawn_blocking(move || {
        for _ in 0..MAILS {
            assert!(lmtp.deliver("a@b", &["bob"], mail("a@b", "x", "y")).unwrap()[0].is_ok());
        }
    });
    let (mut got, mut kills, mut counted, mut resyncs) = (BTreeSet::new(), 0, 0, 0);
    let end = Instant::now() + 3 * LIMIT;
    while !(sending.is_finished() && (got.len() == MAILS || resyncs >= kills)) && Instant::now() < end {
        match tokio::time::timeout(Duration::from_millis(500), bob.events.recv()).await {
            Ok(Some(event)) => match uid_of(&event) {
                Some(uid) => assert!(got.insert(uid), "{uid} twice"),
                None if is_unreachable(&event) => resyncs += 1,
                None => panic!("{event:?}"),
            },
            Ok(None) => panic!("the bus ended"),
            // All is told that there was to tell. (A census may find somebody at its third look, or the next one may.)
            Err(_) if sending.is_finished() && (got.len() == MAILS || resyncs > 0) => break,
            Err(_) => {}
        }
        if got.len() >= (kills + 1) * 20 && kills < 4 {
            kills += 1;
            house.restart_daemon();
            counted += house.left_behind();
        }
    }
    sending.await.unwrap();
    assert!(kills >= 2, "{kills}");
    let missing = MAILS - got.len();
    println!(
        "{missing} of {MAILS} missing after {kills} kills; the ledgers counted {counted}, resyncs: {resyncs}"
    );
    assert!(missing as u64 <= counted, "{missing} are missing, the ledgers knew of {counted}");
    assert!(missing == 0 || resyncs > 0, "{missing} are missing, and nobody was told");
    house.site.assert_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_daemon_held_is_counted_by_the_next_and_told_to_everybody() {
    let mut house = House::new("", true);
    let (mut bob, mut carol) = (house.site.native("bob").await, house.site.native("carol").await);
    house.site.deliver("bob", None, "x");
    assert_eq!(uids(&mut bob, 1).await, [1]);
    // Accepted and held: its resolver hangs.
    house.site.memcached.stop().unwrap();
    for _ in 0..5 {
        house.site.deliver("bob", None, "x");
    }
    house.daemon.kill();
    house.site.memcached.cont().unwrap();
    house.restart_daemon();
    until("the next one knows", || house.left_behind() == 5);
    for listening in [&mut bob, &mut carol] {
        loop {
            match &listening.next().await.kind {
                EventKind::Resync { reason: ResyncReason::Unreachable, missed: 5 } => break,
                // The subscribers' own, for memcached's silence.
                EventKind::Resync { reason: ResyncReason::ResolverLost, .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    house.daemon.wait_log("event=\"left_behind_told\"", LIMIT).unwrap();
    assert_eq!(house.site.warnings(), Vec::<String>::new());
    // In good order, so that the resyncs too are settled.
    house.daemon.signal("TERM").unwrap();
    assert!(house.daemon.wait(LIMIT).unwrap().is_some());
    house.daemon.restart().unwrap();
    assert_eq!(house.left_behind(), 0, "told once");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_it_costs_its_share_of_the_budget_and_doubles_nothing() {
    let house = House::new("", false);
    let site = &house.site;
    let (mut native, mut legacy) = (site.native("bob").await, site.legacy("bob").await);
    site.deliver("bob", None, "one");
    assert_eq!((uids(&mut native, 1).await, uids(&mut legacy, 1).await), (vec![1], vec![1]));
    house.wait_held(0);
    house.daemon.signal("STOP").unwrap();
    let took = site.deliver("bob", None, "two");
    assert!(took >= BUDGET / 2 && took < BUDGET + BUDGET / 2, "{took:?}");
    assert_eq!(uids(&mut native, 1).await, [2], "directly, under the same id");
    // By LMTP only the first of a process waits for it.
    let mut lmtp = site.dovecot.lmtp().unwrap();
    let begun = Instant::now();
    for _ in 0..5 {
        assert!(lmtp.deliver("a@b", &["bob"], mail("a@b", "x", "y")).unwrap()[0].is_ok());
    }
    assert!(begun.elapsed() < BUDGET + BUDGET / 2, "{:?}", begun.elapsed());
    assert_eq!(uids(&mut native, 5).await, [3, 4, 5, 6, 7]);
    // It may have the second and the third; the other four it was not given.
    assert_eq!(uids(&mut legacy, 4).await, [4, 5, 6, 7]);
    legacy.assert_quiet();
    house.daemon.signal("CONT").unwrap();
    let late: BTreeSet<u32> = uids(&mut legacy, 2).await.into_iter().collect();
    assert_eq!(late, BTreeSet::from([2, 3]), "once, by the daemon");
    // The next one goes over the daemon again, behind whatever it had.
    site.deliver("bob", None, "x");
    assert_eq!((uids(&mut native, 1).await, uids(&mut legacy, 1).await), (vec![8], vec![8]));
    native.assert_quiet();
    legacy.assert_quiet();
    site.assert_sound();
}

/// The uid of the next mail. In front of it may stand the resync for what a killed daemon had delivered without having
/// noted it: one too many is as it should be.
async fn mail_or_resync(listening: &mut Listening) -> u32 {
    loop {
        let event = listening.next().await;
        match uid_of(&event) {
            Some(uid) => return uid,
            None if is_unreachable(&event) => {}
            None => panic!("{event:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_started_again_it_loses_and_doubles_nothing() {
    let mut house = House::new("", false);
    let (mut native, mut legacy) = (house.site.native("bob").await, house.site.legacy("bob").await);
    let mut lmtp = house.site.dovecot.lmtp().unwrap();
    let mut uid = 0;
    for round in 0..3 {
        for killed in [false, true] {
            if killed {
                house.daemon.kill();
                assert!(house.folder.path().join("bus.sock").exists(), "a killed daemon leaves its socket");
            }
            for _ in 0..5 {
                uid += 1;
                let replies = lmtp.deliver("a@b", &["bob"], mail("a@b", "x", "y")).unwrap();
                assert!(replies[0].is_ok(), "{replies:?}");
                assert_eq!(mail_or_resync(&mut native).await, uid, "round {round}, killed: {killed}");
                assert_eq!(legacy.next_mail().await.1.uid, Some(uid), "round {round}, killed: {killed}");
            }
        }
        house.daemon.restart().unwrap();
    }
    legacy.assert_quiet();
    house.site.assert_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn full_it_says_so_and_the_plugin_goes_the_direct_way() {
    // Nobody is registered for the others, and somebody still may be: they are held.
    let room = "outbox.max_octets = 1048576\noutbox.max_user_octets = 1048576\noutbox.grace_s = 3600";
    let house = House::new(room, false);
    let site = &house.site;
    let mut bob = site.native("bob").await;
    let users: Vec<String> = (0..20).map(|n| format!("user{n}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let long = mail(&format!("{}@b", "a".repeat(480)), &"s".repeat(480), "x");
    let mut lmtp = site.dovecot.lmtp().unwrap();
    let mut delivered = 0;
    while site.warnings().is_empty() {
        delivered += 1;
        assert!(delivered < 100, "never full");
        let replies = lmtp.deliver("a@b", &users, &long).unwrap();
        assert!(replies.iter().all(|reply| reply.is_ok()), "{replies:?}");
    }
    site.deliver("bob", None, "full");
    assert_eq!(bob.next_mail().await.1.subject.as_deref(), Some("full"));
    bob.assert_quiet();
    let warnings = site.warnings();
    assert!(warnings.iter().all(|line| line.contains("the outbox is full: ")), "{warnings:?}");
    site.assert_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_memcached_is_outlived_and_a_longer_one_told() {
    let mut house = House::new("outbox.time_to_live_s = 3", true);
    let heartbeat = Duration::from_millis(100);
    let config = SubscriberConfig { heartbeat, ..SubscriberConfig::default() };
    let mut bob = house.site.subscriber(config, "bob").await;
    house.site.deliver("bob", None, "x");
    assert_eq!(uids(&mut bob, 1).await, [1]);
    house.site.memcached.kill();
    for _ in 0..3 {
        house.site.deliver("bob", None, "x");
    }
    house.daemon.wait_log("event=\"resolver_lost\"", LIMIT).unwrap();
    // It comes back with nothing in it.
    house.site.memcached.restart().unwrap();
    let (mut mails, mut lost) = (Vec::new(), 0);
    while mails.len() < 3 {
        let event = bob.next().await;
        match &event.kind {
            EventKind::MessageNew(message) => mails.push(message.uid.unwrap()),
            EventKind::Resync { reason: ResyncReason::ResolverLost, .. } => lost += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((mails, lost), (vec![2, 3, 4], 1), "each once, and the subscriber's own resync");
    // Longer than they live.
    house.site.memcached.kill();
    for _ in 0..3 {
        house.site.deliver("bob", None, "x");
    }
    tokio::time::sleep(Duration::from_millis(3500)).await;
    house.site.memcached.restart().unwrap();
    loop {
        match &bob.next().await.kind {
            EventKind::Resync { reason: ResyncReason::Unreachable, missed: 3 } => break,
            EventKind::Resync { reason: ResyncReason::ResolverLost, .. } => {}
            other => panic!("{other:?}"),
        }
    }
    house.site.deliver("bob", None, "x");
    assert_eq!(uids(&mut bob, 1).await, [8]);
    assert_eq!(house.site.warnings(), Vec::<String>::new());
}

/// Patient, so that a busy machine's memcached is no outage of its own.
fn patient() -> SubscriberConfig {
    SubscriberConfig { heartbeat: Duration::from_secs(60), ..SubscriberConfig::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_is_down_and_comes_back_gets_everything_once() {
    let house = House::new("", true);
    let mut bob = house.site.subscriber(patient(), "bob").await;
    for round in 0..3u32 {
        house.site.deliver("bob", None, "x");
        assert_eq!(uids(&mut bob, 1).await, [round * 5 + 1]);
        // Its acknowledgement is there: what it has will not come to its successor.
        house.wait_held(0);
        // Without a word: its lease stands, and its port refuses.
        drop(bob);
        for _ in 0..4 {
            house.site.deliver("bob", None, "x");
        }
        house.wait_held(4);
        bob = house.site.subscriber(patient(), "bob").await;
        assert_eq!(uids(&mut bob, 4).await, (round * 5 + 2..round * 5 + 6).collect::<Vec<u32>>());
        house.wait_held(0);
    }
    bob.assert_quiet();
    assert_eq!(house.site.warnings(), Vec::<String>::new());
    house.site.assert_sound();
}

/// It mostly waits: nextest runs it beside others (`.config/nextest.toml`).
#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_is_down_for_thirty_seconds_loses_nothing_and_gets_nothing_twice() {
    const DOWN: Duration = Duration::from_secs(30);
    const MAILS: u32 = 12;
    let house = House::new("", true);
    let mut bob = house.site.subscriber(patient(), "bob").await;
    let mut carol = house.site.subscriber(patient(), "carol").await;
    house.site.deliver("bob", None, "x");
    assert_eq!(uids(&mut bob, 1).await, [1]);
    house.wait_held(0);
    let begun = Instant::now();
    drop(bob);
    for mail in 0..MAILS {
        tokio::time::sleep_until((begun + DOWN * mail / MAILS).into()).await;
        house.site.deliver("bob", None, "x");
        // Nobody else is held up by it.
        house.site.deliver("carol", None, "x");
        assert_eq!(uids(&mut carol, 1).await, [mail + 1]);
    }
    tokio::time::sleep_until((begun + DOWN).into()).await;
    house.wait_held(u64::from(MAILS));
    let mut bob = house.site.subscriber(patient(), "bob").await;
    assert_eq!(uids(&mut bob, MAILS as usize).await, (2..MAILS + 2).collect::<Vec<u32>>());
    house.wait_held(0);
    house.site.deliver("bob", None, "x");
    assert_eq!(uids(&mut bob, 1).await, [MAILS + 2]);
    bob.assert_quiet();
    carol.assert_quiet();
    assert_eq!(house.metric("ocbus_events_dropped_total{reason=\"unheard\"}"), 0);
    assert_eq!(house.metric("ocbus_events_dropped_total{reason=\"expired\"}"), 0);
    assert_eq!(house.metric("ocbus_events_dropped_total{reason=\"abandoned\"}"), 0);
    assert_eq!(house.site.warnings(), Vec::<String>::new());
    house.site.assert_sound();
}

#[test]
fn a_legacy_endpoint_that_refuses_gets_its_mails_later_where_it_is_kept() {
    let mut house = House::new("publisher.keep_refused = true", true);
    let url = format!("tcp://127.0.0.1:{}", free_port().unwrap());
    house.site.register_legacy("bob", &[&url]);
    for _ in 0..3 {
        house.site.deliver("bob", None, "x");
    }
    let log = house.daemon.wait_log("event=\"endpoint_fault\"", LIMIT).unwrap();
    assert!(log.contains("refused (kept)"), "{log}");
    let pull = Nanocat::listen(&house.site.sandbox, url);
    let first = pull.wait(3);
    house.site.deliver("bob", None, "x");
    let all = pull.wait(4);
    assert_eq!(all[..3], first);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 4, "each once: {all:?}");
    assert_eq!(house.site.warnings(), Vec::<String>::new());
}

#[test]
fn a_legacy_endpoint_that_refuses_or_is_silent_gets_nothing_a_second_time() {
    let mut house = House::new("publisher.budget_ms = 200", true);
    let silent = Silent::new().unwrap();
    let url = format!("tcp://127.0.0.1:{}", silent.port());
    house.site.register_legacy("bob", &[&url]);
    for count in 1..=3 {
        house.site.deliver("bob", None, "x");
        until("it is tried", || silent.accepted() >= count);
        until("it is given up", || house.daemon.log().matches("event=\"endpoint_fault\"").count() == count);
    }
    // Its probe alone, or its dialling too: as often for the third mail as for the first.
    let each = silent.accepted() / 3;
    assert_eq!(silent.accepted(), 3 * each, "nothing is tried again");
    // One that refuses is removed.
    let gone = format!("tcp://127.0.0.1:{}", free_port().unwrap());
    house.site.register_legacy("carol", &[&gone]);
    house.site.deliver("carol", None, "x");
    until("it is removed", || {
        !house
            .site
            .memcached
            .get("resolver:carol")
            .unwrap()
            .is_some_and(|record| record.windows(gone.len()).any(|part| part == gone.as_bytes()))
    });
    house.daemon.wait_log("refused", LIMIT).unwrap();
    let pull = Nanocat::listen(&house.site.sandbox, gone.clone());
    house.site.register_legacy("carol", &[&gone]);
    house.site.deliver("carol", None, "y");
    pull.wait(1);
    house.site.deliver("carol", None, "z");
    assert_eq!(pull.wait(2).len(), 2, "the first is lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_a_thousand_users_reaches_each_of_them_once() {
    const USERS: usize = 1000;
    let house = House::new("", true);
    let site = &house.site;
    let bus = Bus::new();
    let resolver = resolver(&site.memcached).await;
    let subscriber = Subscriber::start(patient(), resolver, bus.clone()).await.unwrap();
    let users: Vec<String> = (0..USERS).map(|n| format!("user{n}")).collect();
    for user in &users {
        subscriber.add(&Cn::new(user).unwrap()).await.unwrap();
    }
    let mut events = bus.subscribe_with_queue(Filter::all().kind("MessageNew"), 4 * USERS);
    // All of them at once: they are accepted while nobody can be looked up.
    site.memcached.stop().unwrap();
    let mut lmtp = site.dovecot.lmtp().unwrap();
    for some in users.chunks(50) {
        let some: Vec<&str> = some.iter().map(String::as_str).collect();
        let replies = lmtp.deliver("a@b", &some, mail("a@b", "to all", "x")).unwrap();
        assert!(replies.iter().all(|reply| reply.is_ok()), "{replies:?}");
    }
    lmtp.quit().unwrap();
    assert!(events.try_recv().is_none());
    site.memcached.cont().unwrap();
    let begun = Instant::now();
    let mut heard: BTreeMap<String, usize> = BTreeMap::new();
    while heard.len() < USERS {
        let event = tokio::time::timeout(LIMIT, events.recv()).await.unwrap().unwrap();
        *heard.entry(event.user.clone()).or_default() += 1;
    }
    println!("{USERS} users' events told {:?} after memcached's return", begun.elapsed());
    assert!(events.try_recv().is_none());
    assert!(heard.values().all(|times| *times == 1));
    assert_eq!(site.warnings(), Vec::<String>::new());
    site.assert_sound();
}
