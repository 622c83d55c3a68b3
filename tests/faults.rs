//! Whatever is wrong with the bus, the mail is stored once, in time, and the log says once what happened.
//!
//! A delivery may take its budget longer than one without our plugin. The tests set a budget that is long beside
//! the noise of a test machine, and allow that noise on top; what they tell apart is one budget from several,
//! from a time-out of somebody else's, and from none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "faults/memcached.rs"]
mod memcached;
mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ocbus::EventKind;
use ocbus::resolver::{Cn, Registration};
use ocbus::sandbox::faults::{Blackhole, Closer, Garbage, IpcBlackhole, Refused, Silent};
use ocbus::sandbox::{DovecotOptions, Sandbox, free_port, mail};
use ocbus::wire::ResyncReason;
use support::{LIMIT, Nanocat, Site, until};
use uuid::Uuid;

const BUDGET: Duration = Duration::from_millis(400);

/// What a test machine that builds and runs other tests may add to a delivery.
const NOISE: Duration = Duration::from_millis(350);

fn site() -> Site {
    Site::with(|options| options.setting("openchange_budget", &BUDGET.as_millis().to_string()))
}

fn url(port: u16) -> String {
    format!("tcp://127.0.0.1:{port}")
}

/// Delivers by LDA and by LMTP, twice each; every one must succeed, store the mail once, and take at most a budget
/// more than a delivery to somebody whom no fault concerns.
fn assert_unharmed(site: &Site, user: &str) {
    let lda = site.deliver("unconcerned", None, "baseline");
    for _ in 0..2 {
        let took = site.deliver(user, None, "lda");
        assert!(took <= lda + BUDGET + NOISE, "lda: {took:?}, without a fault {lda:?}");
    }
    let mut lmtp = site.dovecot.lmtp().unwrap();
    let mut deliver = |user: &str| {
        let begun = Instant::now();
        let replies = lmtp.deliver("a@example.org", &[user], mail("a@example.org", "lmtp", "x")).unwrap();
        assert_eq!(replies[0].code, 250, "{replies:?}");
        begun.elapsed()
    };
    let baseline = deliver("unconcerned");
    for _ in 0..2 {
        let took = deliver(user);
        assert!(took <= baseline + BUDGET + NOISE, "lmtp: {took:?}, without a fault {baseline:?}");
    }
    assert_eq!(site.dovecot.maildir(user).total(), 4, "stored once each");
    let log = site.dovecot.log();
    for bad in ["Panic", "Fatal", "killed with signal", "Error:"] {
        assert!(!log.contains(bad), "{bad} in dovecot's log:\n{log}");
    }
}

/// The warnings that contain `text`; each delivery gives at most one.
fn warnings(site: &Site, text: &str) -> Vec<String> {
    site.warnings().into_iter().filter(|line| line.contains(text)).collect()
}

/// Waits for that many of them: LMTP writes its line when it is done with the user, after its reply.
fn wait_warnings(site: &Site, text: &str, count: usize) -> Vec<String> {
    until(&format!("{count} warnings with '{text}'"), || warnings(site, text).len() >= count);
    let said = warnings(site, text);
    assert_eq!(said.len(), count, "{said:?}");
    said
}

/// How the line begins that says what endpoints missed that had been silent.
const LEFT_ALONE: &str = "left alone after no answer: ";

/// How many events the log says that a silent endpoint has missed.
fn said_missed(site: &Site, url: &str) -> u64 {
    let missed = |line: &String| match line.split_once(LEFT_ALONE) {
        // `openchange: bob: 2 events: `
        // Or, for `a_mail_to_many_recipients_waits_in_haste_for_their_endpoints`, within a part of it.
        None if line.contains(&format!("{url} no answer within ")) => {
            let head = line.split_once(" event").unwrap().0;
            head.rsplit_once(' ').unwrap().1.parse().unwrap()
        }
        None => 0,
        Some((_, accounts)) => {
            let of = accounts.split(", ").find_map(|one| one.strip_prefix(&format!("{url} missed ")));
            of.map_or(0, |of| of.split(' ').next().unwrap().parse().unwrap())
        }
    };
    site.warnings().iter().map(missed).sum()
}

async fn register_native(site: &Site, url: &str) {
    register_native_of(site, "bob", url).await;
}

async fn register_native_of(site: &Site, user: &str, url: &str) {
    let registration = Registration {
        endpoint: url,
        legacy: None,
        subscriber: Uuid::now_v7(),
        lease: Duration::from_secs(60),
    };
    site.resolver().await.register(&Cn::new(user).unwrap(), registration).await.unwrap();
}

/// One mail by LMTP to all of them; each must get it.
fn deliver_to_all(site: &Site, users: &[String]) -> Duration {
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let mut lmtp = site.dovecot.lmtp().unwrap();
    let begun = Instant::now();
    let replies = lmtp.deliver("a@b", &users, mail("a@b", "to all", "x")).unwrap();
    let took = begun.elapsed();
    assert!(replies.len() == users.len() && replies.iter().all(|reply| reply.code == 250), "{replies:?}");
    for user in users {
        assert_eq!(site.dovecot.maildir(user).total(), 1, "{user}");
    }
    took
}

#[test]
fn nobody_registered_is_no_fault() {
    let site = site();
    assert_unharmed(&site, "bob");
    assert_eq!(site.warnings(), Vec::<String>::new());
}

#[test]
fn refused_legacy_endpoints_are_removed_and_said_once() {
    for count in [1, 3, 20] {
        let site = site();
        let refused: Vec<Refused> = (0..count).map(|_| Refused::new().unwrap()).collect();
        let urls: Vec<String> = refused.iter().map(|refused| url(refused.port())).collect();
        site.register_legacy("bob", &urls.iter().map(String::as_str).collect::<Vec<_>>());
        assert_unharmed(&site, "bob");
        // At the first delivery; none is left at the second.
        let said = wait_warnings(&site, "", 1);
        assert!(urls.iter().all(|url| said[0].contains(&format!("{url} refused (removed)"))), "{said:?}");
        assert_eq!(site.memcached.get("resolver:bob").unwrap(), None);
    }
}

#[test]
fn a_refused_legacy_endpoint_is_kept_where_the_setting_says_so() {
    let site = Site::with(|options| options.setting("openchange_keep_refused", "yes"));
    let refused = Refused::new().unwrap();
    site.register_legacy("bob", &[&url(refused.port())]);
    assert_unharmed(&site, "bob");
    // Each of the deliveries lost one.
    wait_warnings(&site, "refused (kept)", 4);
    assert!(site.memcached.get("resolver:bob").unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_native_endpoints_are_removed_and_the_live_one_stays() {
    let site = site();
    let refused: Vec<Refused> = (0..3).map(|_| Refused::new().unwrap()).collect();
    for refused in &refused {
        register_native(&site, &url(refused.port())).await;
    }
    let mut bob = site.native("bob").await;
    assert_unharmed(&site, "bob");
    for uid in 1..=4 {
        assert_eq!(bob.next_mail().await.1.uid, Some(uid));
    }
    assert_eq!(site.warnings().len(), 1, "{:?}", site.warnings());
    let left = site.resolver().await.lookup(&Cn::new("bob").unwrap()).await.unwrap();
    assert_eq!(left.native.len(), 1);
}

#[test]
fn blackholed_endpoints_cost_one_budget_whatever_their_number() {
    for count in [1, 3, 20] {
        let site = site();
        let holes: Vec<Blackhole> = (0..count).map(|_| Blackhole::new().unwrap()).collect();
        let urls: Vec<String> = holes.iter().map(|hole| url(hole.port())).collect();
        site.register_legacy("bob", &urls.iter().map(String::as_str).collect::<Vec<_>>());
        assert_unharmed(&site, "bob");
        // Each process of LDA has waited. That of LMTP has once, and says later what it kept back then.
        let mut lmtp = site.dovecot.lmtp().unwrap();
        until("each loss is said", || {
            if urls.iter().all(|url| said_missed(&site, url) == 4) {
                return true;
            }
            let replies = lmtp.deliver("a@b", &["unconcerned"], mail("a@b", "later", "x")).unwrap();
            assert_eq!(replies[0].code, 250);
            false
        });
        assert!(!warnings(&site, LEFT_ALONE).is_empty(), "{:?}", site.warnings());
        assert!(site.memcached.get("resolver:bob").unwrap().is_some(), "silence is no refusal");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_blackholes_do_not_delay_the_live_one_and_are_told_what_they_missed() {
    let site = site();
    let holes: Vec<Blackhole> = (0..20).map(|_| Blackhole::new().unwrap()).collect();
    for hole in &holes {
        register_native(&site, &url(hole.port())).await;
    }
    let mut bob = site.native("bob").await;
    let pull = Nanocat::pull(&site.sandbox);
    site.register_legacy("bob", &[&pull.url]);
    site.deliver("bob", None, "x");
    let (event, message) = bob.next_mail().await;
    assert_eq!(message.uid, Some(1));
    let late = Duration::from_micros(ocbus::now_us() - event.time_us);
    assert!(late < BUDGET + NOISE, "{late:?}");
    assert_eq!(pull.wait(1).len(), 1);
    let said = site.warnings();
    assert_eq!(said.len(), 1, "{said:?}");
    let leases = site.resolver().await.lookup(&Cn::new("bob").unwrap()).await.unwrap().native;
    let own = bob.subscriber.endpoint().unwrap().to_string();
    assert_eq!(leases.len(), 21, "silent ones are left to their leases");
    assert!(leases.iter().all(|lease| lease.missed == u64::from(lease.endpoint != own)), "{leases:?}");
}

/// The program that serves all users hangs: its kernel takes connections, and nobody answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_to_many_recipients_waits_once_for_whoever_serves_them_all() {
    let site = site();
    let users = |name: &str| -> Vec<String> { (0..20).map(|at| format!("{name}{at}")).collect() };
    let silent = Silent::new().unwrap();
    for user in users("u") {
        register_native_of(&site, &user, &url(silent.port())).await;
    }
    let baseline = deliver_to_all(&site, &users("unconcerned"));
    let took = deliver_to_all(&site, &users("u"));
    // One more where a busy machine needs longer than the second for which it is left alone, and then only.
    let waits = site.warnings().iter().filter(|line| line.contains("no answer within")).count();
    assert!(waits == 1 || waits == 2 && took > Duration::from_secs(1), "{waits} waits in {took:?}");
    assert!(
        took <= baseline + u32::try_from(waits).unwrap() * BUDGET + NOISE,
        "{took:?}, without a fault {baseline:?}"
    );
    let resolver = site.resolver().await;
    for user in users("u") {
        let native = resolver.lookup(&Cn::new(&user).unwrap()).await.unwrap().native;
        assert_eq!((native.len(), native[0].missed), (1, 1), "{user} is told to look again");
    }
    site.assert_sound();
}

/// OpenChange's server has an endpoint for each user, so that none is silent twice.
#[test]
fn a_mail_to_many_recipients_waits_in_haste_for_their_endpoints() {
    let site = site();
    let users = |name: &str| -> Vec<String> { (0..20).map(|at| format!("{name}{at}")).collect() };
    let silent: Vec<Silent> = (0..20).map(|_| Silent::new().unwrap()).collect();
    let urls: Vec<String> = silent.iter().map(|silent| url(silent.port())).collect();
    for (user, url) in users("u").iter().zip(&urls) {
        site.register_legacy(user, &[url]);
    }
    let baseline = deliver_to_all(&site, &users("unconcerned"));
    let took = deliver_to_all(&site, &users("u"));
    // Two in a second, and a tenth of that for the others; not twenty.
    assert!(took <= baseline + 10 * BUDGET, "{took:?}, without a fault {baseline:?}");
    until("each loss is said", || urls.iter().all(|url| said_missed(&site, url) == 1));
}

/// Each folder is a transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_into_many_folders_waits_once() {
    let site = Site::with(|options| {
        options
            .setting("openchange_budget", &BUDGET.as_millis().to_string())
            .protocol_plugins("lda", &["notify", "openchange", "sieve"])
            .extra_by_version(
                "plugin {\n  sieve = file:~/script.sieve\n}\n",
                "sieve_script personal {\n  driver = file\n  path = ~/script.sieve\n}\n",
            )
    });
    let folders: Vec<String> = (0..5).map(|at| format!("F{at}")).collect();
    let copies: String = folders.iter().map(|name| format!("fileinto :create :copy \"{name}\";\n")).collect();
    let script = format!("require [\"fileinto\", \"copy\", \"mailbox\"];\n{copies}");
    let deliver = |user: &str| {
        let home = site.dovecot.maildir(user).path().parent().unwrap().to_owned();
        std::fs::create_dir_all(&home).unwrap();
        std::fs::write(home.join("script.sieve"), &script).unwrap();
        for path in [home.clone(), home.join("script.sieve")] {
            std::os::unix::fs::chown(path, Some(ocbus::sandbox::MAIL_UID), None).unwrap();
        }
        let delivery = site.dovecot.deliver_lda(user, mail("a@b", "to all folders", "x"), None).unwrap();
        assert_eq!(delivery.status, Some(0), "{delivery:?}\n{}", site.dovecot.log());
        assert_eq!(site.dovecot.maildir(user).total(), folders.len() + 1, "stored once each");
        delivery.took
    };
    let silent = Silent::new().unwrap();
    let url = url(silent.port());
    register_native(&site, &url).await;
    let baseline = deliver("unconcerned");
    let took = deliver("bob");
    // One more where a busy machine needs longer than the second for which it is left alone, and then only.
    let waits = site.warnings().iter().filter(|line| line.contains("no answer within")).count();
    assert!(waits == 1 || waits == 2 && took > Duration::from_secs(1), "{waits} waits in {took:?}");
    assert!(
        took <= baseline + u32::try_from(waits).unwrap() * BUDGET + NOISE,
        "{took:?}, without a fault {baseline:?}"
    );
    let told = 2 * folders.len() as u64 + 1;
    assert_eq!(said_missed(&site, &url), told, "five folders made, six mails: {:?}", site.warnings());
    let lines = site.warnings();
    assert!((waits + 1..=2 * waits).contains(&lines.len()), "each wait, and the accounts: {lines:?}");
    let native = site.resolver().await.lookup(&Cn::new("bob").unwrap()).await.unwrap().native;
    assert_eq!(native[0].missed, told);
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_misbehave_cost_a_budget_at_most() {
    for native in [true, false] {
        let site = site();
        let (silent, closer, garbage) =
            (Silent::new().unwrap(), Closer::new().unwrap(), Garbage::new().unwrap());
        let hole = IpcBlackhole::new(&site.sandbox.path().join("hole")).unwrap();
        let urls = [
            url(silent.port()),
            url(closer.port()),
            url(garbage.port()),
            format!("ipc://{}", site.sandbox.path().join("hole").display()),
            "ipc:///nonexistent".into(),
            "tcp://no-such-host.invalid:1".into(),
            "nonsense".into(),
        ];
        if native {
            for url in &urls {
                register_native(&site, url).await;
            }
        } else {
            site.register_legacy("bob", &urls.iter().map(String::as_str).collect::<Vec<_>>());
        }
        let mut live = if native { site.native("bob").await } else { site.legacy("bob").await };
        assert_unharmed(&site, "bob");
        for uid in 1..=4 {
            assert_eq!(live.next_mail().await.1.uid, Some(uid));
        }
        let said = wait_warnings(&site, "bob: 1 event: ", 4);
        assert!(urls.iter().all(|url| said[0].contains(url.as_str())), "{said:?}");
        drop(hole);
    }
}

/// One that says where to, or under which name, switches the plugin off; one that says how much has its default.
#[test]
fn every_wrong_setting_is_named_once() {
    for (name, value, right, mails) in [
        ("openchange_resolver", "127.0.0.1:11211", "as --SERVER=host:port", 0),
        ("openchange_resolver", "--SERVER=cache:123456", "expected exactly one space", 0),
        ("openchange_cn", "mailaddress", "expected username or email", 0),
        ("openchange_backend", "so\u{431}o", "expected a name as sogo", 0),
        ("openchange_budget", "0", "expected milliseconds, 1 to 10000", 2),
        ("openchange_budget", "50ms", "expected milliseconds, 1 to 10000", 2),
        ("openchange_keep_refused", "maybe", "expected yes or no", 2),
        ("openchange_charset", "UTF-8", "CP850", 0),
    ] {
        let site = Site::with(|options| options.setting(name, value));
        let pull = Nanocat::pull(&site.sandbox);
        site.register_legacy("bob", &[&pull.url]);
        site.deliver("bob", None, "lda");
        let mut lmtp = site.dovecot.lmtp().unwrap();
        let replies = lmtp.deliver("a@b", &["bob"], mail("a@b", "x", "y")).unwrap();
        assert_eq!(replies[0].code, 250, "{replies:?}");
        // One for each process; LMTP's comes through Dovecot's log process.
        let said = wait_warnings(&site, "", 2);
        assert!(
            said.iter().all(|line| line.contains(name) && line.contains(value) && line.contains(right)),
            "{said:?}"
        );
        assert_eq!(pull.wait(mails).len(), mails);
        site.assert_sound();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_is_killed_is_found_out_and_its_successor_found() {
    let site = site();
    let first = site.native("bob").await;
    let url = first.subscriber.endpoint().unwrap().to_string();
    // As if killed: it leaves nothing back.
    drop(first);
    site.deliver("bob", None, "to nobody");
    assert_eq!(warnings(&site, &format!("{url} refused (removed)")).len(), 1, "{:?}", site.warnings());
    let mut second = site.native("bob").await;
    site.deliver("bob", None, "to the second");
    assert_eq!(second.next_mail().await.1.subject.as_deref(), Some("to the second"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_list_of_uids_costs_a_budget_and_a_uid_but_never_the_delivery() {
    let site = site();
    let (mut native, mut legacy) = (site.native("bob").await, site.legacy("bob").await);
    site.deliver("bob", None, "before");
    assert_eq!(native.next_mail().await.1.uid, Some(1));
    legacy.next_mail().await;
    let baseline = site.deliver("unconcerned", None, "baseline");
    // As a backup or another delivery holds it. Dovecot waits for it for two minutes when it is asked for UIDs.
    let lock = site.dovecot.maildir("bob").path().join("dovecot-uidlist.lock");
    std::fs::write(&lock, "").unwrap();
    let took = site.deliver("bob", None, "during");
    assert!(took <= baseline + BUDGET + NOISE, "{took:?}");
    let (_, message) = native.next_mail().await;
    assert_eq!((message.uid, message.subject.as_deref()), (None, Some("during")));
    let said = warnings(&site, "OpenChange payload skipped: neither uid nor message name");
    assert_eq!(said.len(), 1, "what the old protocol cannot say is in the log: {:?}", site.warnings());
    std::fs::remove_file(&lock).unwrap();
    site.deliver("bob", None, "after");
    // Maildir gives the mail before its UID when it comes to it.
    assert!(native.next_mail().await.1.uid.is_some());
    assert!(legacy.next_mail().await.1.uid.is_some());
    native.assert_quiet();
    legacy.assert_quiet();
}

/// The first commands of a session take over a second, so that what they do is told before Dovecot has answered them. The
/// session stays, and has nothing more to tell.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_within_a_long_imap_command_is_settled_when_it_is_over() {
    let site = site();
    let mut imap = site.dovecot.imap("bob").unwrap();
    imap.command("CREATE Target").unwrap();
    for folder in ["INBOX", "Target"] {
        imap.append(folder, "", "Subject: x\r\n\r\nx\r\n").unwrap();
    }
    imap.logout().unwrap();
    let refused = Refused::new().unwrap();
    register_native(&site, &url(refused.port())).await;
    let lock = site.dovecot.maildir("bob").path().join(".Target/dovecot-uidlist.lock");
    std::fs::write(&lock, "").unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", site.dovecot.imap_port())).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    // One packet, so that Dovecot has no moment of rest in between.
    let commands = "a LOGIN bob x\r\nb SELECT INBOX\r\nc STORE 1 +FLAGS (\\Flagged)\r\nd APPEND Target {5+}\r\nx\r\n\r\n\r\n";
    stream.write_all(commands.as_bytes()).unwrap();
    let mut answers = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(answers.any(|line| line.starts_with("c OK")));
    // Not a wait for something: how long the APPEND is to take, so that the STORE has waited for over a second.
    std::thread::sleep(Duration::from_millis(1300));
    std::fs::remove_file(&lock).unwrap();
    assert!(answers.any(|line| line.starts_with("d OK")));
    wait_warnings(&site, "bob: 2 events: ", 1);
    assert_eq!(site.resolver().await.lookup(&Cn::new("bob").unwrap()).await.unwrap().native, []);
    drop(answers);
}

#[test]
fn records_full_of_the_dead_cost_one_budget() {
    let site = site();
    let urls: Vec<String> =
        (0..20_000).map(|n| format!("tcp://127.77.{}.{}:1", n / 250, 1 + n % 250)).collect();
    site.register_legacy("bob", &urls.iter().map(String::as_str).collect::<Vec<_>>());
    assert_unharmed(&site, "bob");
    let said = wait_warnings(&site, "", 4);
    assert!(
        said.iter()
            .all(|line| line.contains("legacy endpoints skipped: ") && line.contains("more endpoints"))
    );
}
