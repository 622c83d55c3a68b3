//! Many deliveries, by real dovecot-lda, LMTP and IMAP: nothing lost, doubled, disordered, crashed or leaked.
//!
//! `make soak` runs it with 2,000 mails; without OCBUS_SOAK_MAILS it is short enough for `make test`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ocbus::bus::{Bus, Filter};
use ocbus::resolver::Cn;
use ocbus::sandbox::{mail, open_descriptors};
use ocbus::subscriber::SubscriberConfig;
use ocbus::wire::openchange::{DosCharset, Notification};
use ocbus::{EventKind, Subscriber, now_us};
use support::{LIMIT, Nanocat, Site, legacy_only, until};

const MAILS: usize = 100;
/// OpenChange's plugin fell silent after 512 mails of one process.
const COPIES: usize = 600;
/// Deliveries at a time.
const SENDERS: usize = 2;
const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];
/// This one's legacy endpoint is libnanomsg's; the others' is ours.
const NANOMSG: &str = "dave";
/// What memory may grow by in a whole run: ids that were seen, and the heap's slack.
const GROWTH: usize = 48 << 20;

/// A mail in its mailbox.
type Key = (String, u32);

/// What one process's bus has brought, with the time of arrival in microseconds.
struct Heard {
    subscriber: Subscriber,
    events: Arc<Mutex<Vec<Arrival>>>,
    _task: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Arrival {
    key: Key,
    subject: Option<String>,
    committed: u64,
    arrived: u64,
}

impl Heard {
    async fn start(site: &Site, config: SubscriberConfig, users: &[&str]) -> Heard {
        let bus = Bus::new();
        let subscriber = Subscriber::start(config, site.resolver().await, bus.clone()).await.unwrap();
        // New mail, and the resyncs that there must not be.
        let mut subscription = bus.subscribe_with_queue(Filter::all().kind("MessageNew"), 8192);
        for user in users {
            subscriber.add(&Cn::new(user).unwrap()).await.unwrap();
        }
        let events = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&events);
        let task = tokio::spawn(async move {
            while let Some(event) = subscription.recv().await {
                let arrived = now_us();
                let EventKind::MessageNew(message) = &event.kind else {
                    panic!("neither lost nor forgotten, but: {event:?}");
                };
                let key = (event.user.clone(), message.uid.expect("Dovecot assigns it"));
                let (subject, committed) = (message.subject.clone(), event.time_us);
                kept.lock().unwrap().push(Arrival { key, subject, committed, arrived });
            }
        });
        Heard { subscriber, events, _task: task }
    }

    fn count(&self) -> usize {
        self.events.lock().unwrap().len()
    }

    /// Waits until there are `count`, and forgets them.
    fn take(&self, count: usize) -> Vec<Arrival> {
        until(&format!("{count} events: {:?}", self.subscriber.statistics()), || self.count() >= count);
        std::mem::take(&mut *self.events.lock().unwrap())
    }
}

/// Resident memory in octets.
fn resident(pid: i32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

fn mails() -> usize {
    match std::env::var("OCBUS_SOAK_MAILS") {
        Ok(mails) => mails.parse().expect("OCBUS_SOAK_MAILS: expected a number"),
        Err(_) => MAILS,
    }
}

/// The process that Dovecot runs under this name; there is one.
fn process(site: &Site, name: &str) -> i32 {
    let mut pid = None;
    until(name, || {
        pid = site.dovecot.processes().into_iter().find(|(_, known)| known == name).map(|(pid, _)| pid);
        pid.is_some()
    });
    pid.unwrap()
}

/// A pool may have one connection more, a Dovecot process one index; a leak has hundreds.
const SPARE_DESCRIPTORS: usize = 4;

fn settled(what: &str, pid: i32, before: usize) {
    let begun = Instant::now();
    while open_descriptors(pid) > before + SPARE_DESCRIPTORS {
        let now = open_descriptors(pid);
        assert!(begun.elapsed() < LIMIT, "{what}: {before} descriptors before, {now} after");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn percentiles(mut microseconds: Vec<u64>) -> String {
    microseconds.sort_unstable();
    let at = |part: f64| microseconds[((microseconds.len() - 1) as f64 * part) as usize] as f64 / 1000.0;
    format!("p50 {:.2} ms, p99 {:.2} ms", at(0.5), at(0.99))
}

/// Each mail once, and those of one sender, whose deliveries follow one another, in their order.
fn check(who: &str, heard: &[Arrival], sent: &HashMap<Key, String>) {
    let mut last = [0; SENDERS];
    let mut seen = HashMap::new();
    for arrival in heard {
        let subject =
            sent.get(&arrival.key).unwrap_or_else(|| panic!("{who}: nobody sent {:?}", arrival.key));
        let before = seen.insert(arrival.key.clone(), ());
        assert!(before.is_none(), "{who}: {:?} twice", arrival.key);
        let (sender, number) = subject.split_once('-').unwrap();
        let (sender, number): (usize, usize) = (sender.parse().unwrap(), number.parse().unwrap());
        assert!(last[sender] < number, "{who}: {subject} came after {sender}-{}", last[sender]);
        last[sender] = number;
    }
    assert_eq!(heard.len(), sent.len(), "{who}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_deliveries_by_lda() {
    let (site, mails) = (Site::new(), mails());
    let pull = Nanocat::pull(&site.sandbox);
    let ours: Vec<&str> = USERS.into_iter().filter(|&user| user != NANOMSG).collect();
    let native = Heard::start(&site, SubscriberConfig::default(), &USERS).await;
    let legacy = Heard::start(&site, legacy_only(), &ours).await;
    site.register_legacy(NANOMSG, &[&pull.url]);
    // Everything is connected, and every mailbox made, before anything is counted.
    for user in USERS {
        site.deliver(user, None, "0-0");
    }
    assert_eq!(native.take(USERS.len()).len(), USERS.len());
    assert_eq!(legacy.take(ours.len()).len(), ours.len());
    pull.wait(1);

    let me = i32::try_from(std::process::id()).unwrap();
    let before = [me, site.memcached.pid()].map(|pid| (pid, open_descriptors(pid), resident(pid)));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let site = &site;
            scope.spawn(move || {
                for number in (1..=mails).filter(|number| number % SENDERS == sender) {
                    // Both senders come to all users, now and then to the same at once.
                    let user = USERS[number / SENDERS % USERS.len()];
                    let letter = mail("Alice <a@example.org>", &format!("{sender}-{number}"), "Hello");
                    let delivery = site.dovecot.deliver_lda(user, letter, None).unwrap();
                    assert_eq!(delivery.status, Some(0), "{delivery:?}\n{}", site.dovecot.log());
                }
            });
        }
    });
    let took = begun.elapsed();

    let stored: usize = USERS.iter().map(|user| site.dovecot.maildir(user).total()).sum();
    assert_eq!(stored, mails + USERS.len(), "each mail is stored once");
    let by_native = native.take(mails);
    let sent: HashMap<Key, String> =
        by_native.iter().map(|arrival| (arrival.key.clone(), arrival.subject.clone().unwrap())).collect();
    check("native", &by_native, &sent);
    let (to_nanomsg, to_ours): (HashMap<Key, String>, HashMap<Key, String>) =
        sent.into_iter().partition(|((user, _), _)| user == NANOMSG);
    let by_legacy = legacy.take(to_ours.len());
    check("legacy", &by_legacy, &to_ours);
    let by_nanomsg: Vec<Arrival> = pull.wait(to_nanomsg.len() + 1)[1..]
        .iter()
        .map(|hex| {
            let octet = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            let payload: Vec<u8> = (0..hex.len()).step_by(2).map(octet).collect();
            let Notification::NewMail(mail) =
                Notification::decode(&payload, DosCharset::default()).expect("as OpenChange sends it")
            else {
                panic!("{hex}");
            };
            let key = (NANOMSG.to_owned(), mail.uid().unwrap());
            Arrival { key, subject: None, committed: 0, arrived: 0 }
        })
        .collect();
    check("libnanomsg", &by_nanomsg, &to_nanomsg);

    for (pid, descriptors, memory) in before {
        settled("after LDA", pid, descriptors);
        let grown = resident(pid).saturating_sub(memory);
        assert!(grown < GROWTH, "process {pid} has grown by {grown} octets");
    }
    assert_eq!(site.dovecot.plugin_log_lines(), Vec::<String>::new());
    site.assert_sound();
    let committed: HashMap<&Key, u64> =
        by_native.iter().map(|arrival| (&arrival.key, arrival.committed)).collect();
    let native: Vec<u64> =
        by_native.iter().map(|arrival| arrival.arrived.saturating_sub(arrival.committed)).collect();
    let legacy: Vec<u64> =
        by_legacy.iter().map(|arrival| arrival.arrived.saturating_sub(committed[&arrival.key])).collect();
    println!(
        "{mails} mails by LDA in {:.1} s: {:.0} a second",
        took.as_secs_f64(),
        mails as f64 / took.as_secs_f64()
    );
    println!("commit to arrival, native: {}; legacy: {}", percentiles(native), percentiles(legacy));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_mails_over_one_lmtp_connection() {
    let site = Site::new();
    let native = Heard::start(&site, SubscriberConfig::default(), &["bob", "erin"]).await;
    let legacy = Heard::start(&site, legacy_only(), &["bob", "erin"]).await;
    let mut lmtp = site.dovecot.lmtp().unwrap();
    let mut deliver = |number: usize, recipients: &[&str]| {
        let letter = mail("a@example.org", &format!("0-{number}"), "Hello");
        let replies = lmtp.deliver("a@example.org", recipients, letter).unwrap();
        assert!(
            replies.len() == recipients.len() && replies.iter().all(|reply| reply.code == 250),
            "{replies:?}"
        );
    };
    deliver(0, &["bob", "erin"]);
    let _ = (native.take(2), legacy.take(2));
    let pid = process(&site, "lmtp");
    let me = i32::try_from(std::process::id()).unwrap();
    let before = [me, site.memcached.pid(), pid].map(|pid| (pid, open_descriptors(pid), resident(pid)));

    let begun = Instant::now();
    let mut wanted = 0;
    for number in 1..=COPIES {
        // Every tenth has two recipients.
        let recipients = if number % 10 == 0 { &["bob", "erin"][..] } else { &["bob"] };
        deliver(number, recipients);
        wanted += recipients.len();
    }
    let took = begun.elapsed();
    let (by_native, by_legacy) = (native.take(wanted), legacy.take(wanted));
    let sent: HashMap<Key, String> =
        by_native.iter().map(|arrival| (arrival.key.clone(), arrival.subject.clone().unwrap())).collect();
    for user in ["bob", "erin"] {
        let of = |all: &[Arrival]| -> Vec<Arrival> {
            all.iter().filter(|arrival| arrival.key.0 == user).cloned().collect()
        };
        let sent = sent.clone().into_iter().filter(|((to, _), _)| to == user).collect();
        check("native", &of(&by_native), &sent);
        check("legacy", &of(&by_legacy), &sent);
        assert_eq!(site.dovecot.maildir(user).total(), sent.len() + 1, "each mail is stored once");
    }
    assert_eq!(process(&site, "lmtp"), pid, "the process that began has done it all");
    for (pid, descriptors, memory) in before {
        settled("after LMTP", pid, descriptors);
        let grown = resident(pid).saturating_sub(memory);
        assert!(grown < GROWTH, "process {pid} has grown by {grown} octets");
    }
    assert_eq!(site.dovecot.plugin_log_lines(), Vec::<String>::new());
    site.assert_sound();
    println!("{COPIES} mails over one LMTP connection: {:.0} a second", COPIES as f64 / took.as_secs_f64());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_copies_in_one_imap_session() {
    let site = Site::new();
    let native = Heard::start(&site, SubscriberConfig::default(), &["bob"]).await;
    let legacy = Heard::start(&site, legacy_only(), &["bob"]).await;
    site.deliver("bob", None, "0-0");
    let _ = (native.take(1), legacy.take(1));
    let mut imap = site.dovecot.imap("bob").unwrap();
    imap.command("CREATE Other").unwrap();
    imap.command("SELECT INBOX").unwrap();
    let append = |imap: &mut ocbus::sandbox::ImapClient, number: usize| {
        imap.append("INBOX", "", mail("a@example.org", &format!("0-{number}"), "Hello")).unwrap();
    };
    append(&mut imap, 1);
    imap.command("COPY 1 Other").unwrap();
    let pid = process(&site, "imap");
    let me = i32::try_from(std::process::id()).unwrap();
    let before = [me, site.memcached.pid(), pid].map(|pid| (pid, open_descriptors(pid), resident(pid)));

    for number in 2..COPIES {
        append(&mut imap, number);
    }
    imap.command("COPY 1:* Other").unwrap();
    imap.command("STORE 1:* +FLAGS (\\Seen)").unwrap();
    for _ in 0..COPIES {
        imap.command("COPY 1 Other").unwrap();
    }
    let maildir = site.dovecot.maildir("bob");
    assert_eq!((maildir.count("INBOX"), maildir.count("Other")), (COPIES, 2 * COPIES + 1));
    for (pid, descriptors, memory) in before {
        settled("after IMAP", pid, descriptors);
        let grown = resident(pid).saturating_sub(memory);
        assert!(grown < GROWTH, "process {pid} has grown by {grown} octets");
    }

    // Copies are no new mail; what is delivered while the session goes on is.
    site.deliver("bob", None, "0-1");
    let replies = site.dovecot.lmtp().unwrap().deliver("", &["bob"], mail("a@b.org", "0-2", "x")).unwrap();
    assert_eq!(replies[0].code, 250);
    let subjects = native.take(2).into_iter().map(|arrival| arrival.subject.unwrap()).collect::<Vec<_>>();
    assert_eq!(subjects, ["0-1", "0-2"]);
    assert_eq!(legacy.take(2).len(), 2);
    imap.command("NOOP").unwrap();
    imap.logout().unwrap();
    assert_eq!(site.dovecot.plugin_log_lines(), Vec::<String>::new());
    site.assert_sound();
}
