//! Nothing is missed: many IMAP sessions do random things to the same mailboxes at once, and a replica that is kept from
//! the events alone has in the end what IMAP says.
//!
//! `OCBUS_SEED` repeats a run as far as the kernel's scheduling lets it, `OCBUS_REPLICA_SECONDS` makes it longer or shorter
//! than a minute.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(unreachable_pub, reason = "modules of one test")]

#[path = "replica/model.rs"]
mod model;
#[path = "replica/sessions.rs"]
mod sessions;
mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use model::{Looker, Replica};
use ocbus::bus::{Filter, Subscription};
use ocbus::resolver::Cn;
use ocbus::sandbox::{DovecotOptions, ImapClient, Memcached};
use ocbus::subscriber::SubscriberConfig;
use ocbus::wire::ResyncReason;
use ocbus::{Bus, Event, EventKind, Subscriber};
use sessions::Session;
use support::Site;

const USERS: [&str; 3] = ["ann", "bob", "cat"];
const SESSIONS: usize = 20;

/// Renewed at a third of it.
const LEASE: Duration = Duration::from_secs(6);

/// Where there are faults.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// No event for this long, with all sessions ended: there is none any more.
const QUIET: Duration = Duration::from_millis(1500);

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |value| value.parse().expect("a number"))
}

struct Scene {
    site: Site,
    subscriber: Subscriber,
    events: Vec<Subscription>,
}

impl Scene {
    async fn new(heartbeat: Duration, more: impl FnOnce(DovecotOptions) -> DovecotOptions) -> Scene {
        let site = Site::with(|options| {
            // Of several processes with an index of the list of mailboxes one may find a mailbox that another is just making,
            // and put it there: CREATE then makes it, says NO [ALREADYEXISTS], and Dovecot tells its plugins nothing.
            let options = options.extra("mailbox_list_index = no");
            more(options.extra("mail_max_userip_connections = 100"))
        });
        let bus = Bus::new();
        let config = SubscriberConfig { lease: LEASE, heartbeat, ..SubscriberConfig::default() };
        let subscriber = Subscriber::start(config, site.resolver().await, bus.clone()).await.unwrap();
        let mut events = Vec::new();
        for user in USERS {
            subscriber.add(&Cn::new(user).unwrap()).await.unwrap();
            events.push(bus.subscribe_with_queue(Filter::user(user), 65_536));
        }
        Scene { site, subscriber, events }
    }

    /// Runs the sessions for so long; `meanwhile` may disturb them. Gives what the slowest command took.
    fn run(&mut self, seed: u64, how_long: Duration, meanwhile: impl FnOnce(&mut Memcached)) -> Duration {
        println!("OCBUS_SEED={seed} OCBUS_REPLICA_SECONDS={}", how_long.as_secs());
        for user in USERS {
            Session::prepare(&self.site.dovecot, user);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let Site { dovecot, memcached, .. } = &mut self.site;
        let dovecot = &*dovecot;
        std::thread::scope(|scope| {
            let sessions: Vec<_> = (0..SESSIONS)
                .map(|at| {
                    let stop = Arc::clone(&stop);
                    let user = USERS[at % USERS.len()];
                    scope.spawn(move || Session::new(dovecot, user, at, seed).run(&stop))
                })
                .collect();
            let begun = Instant::now();
            meanwhile(memcached);
            std::thread::sleep(how_long.saturating_sub(begun.elapsed()));
            stop.store(true, Ordering::Relaxed);
            let ended =
                sessions.into_iter().map(|one| one.join().ok()).collect::<Option<Vec<(u64, Duration)>>>();
            // A session that failed has said why; perhaps its process died.
            let log = || -> String {
                dovecot.log().lines().filter(|line| is_bad(line)).map(|line| format!("{line}\n")).collect()
            };
            let ended = ended.unwrap_or_else(|| panic!("a session failed\n{}", log()));
            println!("{} commands", ended.iter().map(|(commands, _)| commands).sum::<u64>());
            ended.into_iter().map(|(_, slowest)| slowest).max().unwrap()
        })
    }

    /// Compares; gives the differences.
    fn compare(&self, replicas: &[Replica]) -> Vec<String> {
        USERS
            .iter()
            .zip(replicas)
            .flat_map(|(user, replica)| {
                let mut imap = self.site.dovecot.imap(user).unwrap();
                let differences = replica.differences(&model::look(&mut imap));
                differences.into_iter().map(move |difference| format!("{user}: {difference}"))
            })
            .collect()
    }
}

fn is_bad(line: &str) -> bool {
    ["Panic", "Fatal", "killed with signal", "Error:"].iter().any(|bad| line.contains(bad))
}

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    number("OCBUS_SEED", u64::from(now.subsec_nanos()) | 1)
}

fn seconds(otherwise: u64) -> Duration {
    Duration::from_secs(number("OCBUS_REPLICA_SECONDS", otherwise))
}

/// A replica that is kept while things happen, and looks at a mailbox again when it is told to.
struct Kept {
    replica: Replica,
    events: Vec<Arc<Event>>,
}

/// Likewise through faults: it looks at what each Resync names when that comes, and takes the rest from the events.
async fn keep_through(
    mut subscription: Subscription,
    mut looker: Looker,
    mdbox: PathBuf,
    ended: Arc<AtomicBool>,
) -> Kept {
    let mut kept = Kept { replica: Replica::through_faults(), events: Vec::new() };
    loop {
        let mut next = match tokio::time::timeout(QUIET, subscription.recv()).await {
            Ok(event) => Some(event.unwrap()),
            Err(_) if ended.load(Ordering::Relaxed) => {
                kept.replica.settle_tree();
                return kept;
            }
            Err(_) => None,
        };
        // Of all that is there by now, to look once.
        let mut resyncs = Vec::new();
        while let Some(event) = next {
            match event.kind {
                EventKind::Resync { .. } => resyncs.push(Arc::clone(&event)),
                _ => kept.replica.apply(&event),
            }
            kept.events.push(event);
            next = subscription.try_recv();
        }
        if let Some(all) = resyncs.iter().find(|resync| resync.mailbox.is_none()) {
            resyncs = vec![Arc::clone(all)];
        }
        for resync in resyncs {
            tokio::task::block_in_place(|| kept.replica.look_through(&mut looker, &mdbox, &resync));
        }
    }
}

/// Until there are no more events behind the end.
async fn keep(mut subscription: Subscription, mut imap: ImapClient, ended: Arc<AtomicBool>) -> Kept {
    let mut kept = Kept { replica: Replica::default(), events: Vec::new() };
    loop {
        match tokio::time::timeout(QUIET, subscription.recv()).await {
            Ok(event) => {
                let event = event.unwrap();
                match event.kind {
                    EventKind::Resync { .. } => {
                        tokio::task::block_in_place(|| kept.replica.look_again(&mut imap, &event));
                    }
                    _ => kept.replica.apply(&event),
                }
                kept.events.push(event);
            }
            Err(_) if ended.load(Ordering::Relaxed) => return kept,
            Err(_) => {}
        }
    }
}

/// `finds`: Dovecot gives UIDs to what it finds, and tells who keeps a replica to look again.
async fn replicate(finds: bool, more: impl FnOnce(DovecotOptions) -> DovecotOptions) {
    // A memcached that answers late is no fault here.
    let mut scene = Scene::new(LEASE, more).await;
    let seed = seed();
    let ended = Arc::new(AtomicBool::new(false));
    let keepers: Vec<_> = USERS
        .iter()
        .zip(std::mem::take(&mut scene.events))
        .map(|(user, events)| {
            tokio::spawn(keep(events, scene.site.dovecot.imap(user).unwrap(), Arc::clone(&ended)))
        })
        .collect();
    scene.run(seed, seconds(60), |_| ());
    // What nobody has found yet is found now.
    let look = |user: &str| model::look(&mut scene.site.dovecot.imap(user).unwrap());
    for user in USERS {
        look(user);
    }
    ended.store(true, Ordering::Relaxed);
    let (mut replicas, mut count, mut resyncs, mut unseen) = (Vec::new(), 0, Vec::new(), 0);
    for (user, keeper) in USERS.iter().zip(keepers) {
        let Kept { mut replica, events } = keeper.await.unwrap();
        assert!(events.len() > 100, "{} events", events.len());
        count += events.len();
        unseen += replica.look_at_the_rest(&look(user));
        replicas.push(replica);
        resyncs.extend(events.into_iter().filter(|event| matches!(event.kind, EventKind::Resync { .. })));
    }
    let reappeared = scene.site.dovecot.log().matches("reappeared, giving a new UID").count();
    println!("{count} events, {} of them resyncs; {reappeared} messages reappeared", resyncs.len());
    assert!(unseen <= 1, "{unseen} mailboxes were only looked at when all was over");
    if finds {
        let why = |event: &Arc<Event>| {
            matches!(event.kind, EventKind::Resync { reason: ResyncReason::Other, .. })
                && event.mailbox.is_some()
        };
        assert!(resyncs.iter().all(why), "{resyncs:?}");
        assert!(resyncs.len() * 20 < count, "hardly a replica of the events: {} resyncs", resyncs.len());
    } else {
        assert!(resyncs.is_empty(), "nothing was wrong, so none is needed: {resyncs:?}");
    }
    let differences = scene.compare(&replicas);
    assert!(differences.is_empty(), "OCBUS_SEED={seed}\n{}", differences.join("\n"));
    assert_eq!(scene.site.warnings(), Vec::<String>::new());
    scene.site.assert_sound();
    drop(scene.subscriber);
}

/// A Maildir that is read while somebody else renames files in it (a flag is changed) may look as if a message were gone; it
/// comes back under another UID ("Expunged message reappeared, giving a new UID"). Dovecot tells its plugins nothing; ours
/// sees the UID being given.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_maildirs_is_right() {
    let folder = tempfile::Builder::new().prefix("ocbus-preload-").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let library = folder.path().join("no_crash.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/replica/no_crash.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    assert!(built.unwrap().success());
    let preload = format!("LD_PRELOAD = {}", library.display());
    let v23 = format!("import_environment = {}\n", preload.replace(' ', ""));
    let v24 = format!("import_environment {{\n  {preload}\n}}\n");
    replicate(true, |options| options.extra_by_version(&v23, &v24)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_mdboxes_is_right() {
    replicate(false, |options| options.mail_location("mdbox", "~/mdbox")).await;
}

/// The budget of the faults: what a busy test machine adds to a command is well below it, so that one budget can be told from
/// two.
const BUDGET: Duration = Duration::from_millis(2500);

/// What a test machine with 20 busy sessions may add to a command.
const NOISE: Duration = Duration::from_millis(1250);

/// Runs the sessions for so long, with faults meanwhile: no command fails, or waits for longer than the budget; and replicas
/// that look again at what they are told to, when they are told, are right in the end. Gives the Resyncs.
async fn survive(
    mut scene: Scene,
    how_long: Duration,
    faults: impl FnOnce(&mut Memcached),
) -> (Scene, Vec<Arc<Event>>) {
    let seed = seed();
    let ended = Arc::new(AtomicBool::new(false));
    let dovecot = &scene.site.dovecot;
    let keepers: Vec<_> = USERS
        .iter()
        .zip(std::mem::take(&mut scene.events))
        .map(|(user, events)| {
            let mdbox = dovecot.maildir(user).path().with_file_name("mdbox");
            let looker = Looker::new(dovecot.imap_port(), user);
            tokio::spawn(keep_through(events, looker, mdbox, Arc::clone(&ended)))
        })
        .collect();
    let usual = scene.run(seed, Duration::from_secs(2), |_| ());
    let slowest = scene.run(seed ^ 2, how_long, faults);
    println!("slowest command: {slowest:?}, without a fault {usual:?}");
    assert!(slowest <= usual + BUDGET + NOISE, "{slowest:?}, without a fault {usual:?}");
    // Who is to be told learns it at the renewal of the lease, at the latest.
    tokio::time::sleep(LEASE / 2).await;
    ended.store(true, Ordering::Relaxed);
    let (mut replicas, mut resyncs) = (Vec::new(), Vec::new());
    for keeper in keepers {
        let Kept { replica, events } = keeper.await.unwrap();
        assert!(events.len() > 100, "{} events", events.len());
        replicas.push(replica);
        resyncs.extend(events.into_iter().filter(|event| matches!(event.kind, EventKind::Resync { .. })));
    }
    println!("{} resyncs", resyncs.len());
    let differences = scene.compare(&replicas);
    assert!(
        differences.is_empty(),
        "OCBUS_SEED={seed}\n{}\n{resyncs:?}\n{}",
        differences.join("\n"),
        scene.site.warnings().join("\n")
    );
    scene.site.assert_sound();
    (scene, resyncs)
}

/// memcached hangs, is killed and comes back empty, all during the load: whoever missed something is told to look again when
/// there is nothing more to be missed.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_right_again_after_the_resyncs_that_it_was_told() {
    let budget = BUDGET.as_millis().to_string();
    let scene = Scene::new(HEARTBEAT, |options| {
        options.setting("openchange_budget", &budget).mail_location("mdbox", "~/mdbox")
    });
    let faults = |memcached: &mut Memcached| {
        memcached.stop().unwrap();
        std::thread::sleep(Duration::from_millis(4500));
        memcached.cont().unwrap();
        std::thread::sleep(Duration::from_secs(1));
        memcached.kill();
        std::thread::sleep(Duration::from_secs(1));
        memcached.restart().unwrap();
    };
    let (scene, resyncs) = survive(scene.await, Duration::from_secs(9), faults).await;
    for user in USERS {
        assert!(resyncs.iter().any(|resync| resync.user == user || resync.user.is_empty()), "{user}");
    }
    assert!(scene.site.warnings().iter().any(|line| line.contains("not sent: memcached")));
}

/// The daemon that takes the events hangs, is killed and comes back: they go the direct way meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_right_whatever_happens_to_the_daemon() {
    let folder = tempfile::Builder::new().prefix("ocbus-bus-").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let bus = format!("ipc://{}/bus.sock", folder.path().display());
    let budget = BUDGET.as_millis().to_string();
    let scene = Scene::new(HEARTBEAT, |options| {
        let options = options.setting("openchange_bus", &bus).setting("openchange_budget", &budget);
        options.mail_location("mdbox", "~/mdbox")
    });
    let scene = scene.await;
    let daemon = scene.site.sandbox.daemon(&format!(
        "resolver = '{}'\nhandover.listen = '{bus}'\nhandover.mode = '0666'\noutbox.state_dir = '{}'",
        scene.site.memcached.configuration(),
        folder.path().display()
    ));
    let mut daemon = daemon.unwrap();
    let faults = |_: &mut Memcached| {
        daemon.signal("STOP").unwrap();
        std::thread::sleep(Duration::from_millis(2500));
        daemon.signal("CONT").unwrap();
        std::thread::sleep(Duration::from_secs(1));
        daemon.kill();
        std::thread::sleep(Duration::from_secs(1));
        daemon.restart().unwrap();
    };
    // A daemon that did not answer is left alone for 5 s.
    let (scene, _) = survive(scene, Duration::from_secs(9), faults).await;
    for line in ["no answer within its share of the budget: sent directly", "takes events again after"] {
        let said = scene.site.warnings();
        assert!(said.iter().any(|one| one.contains(line)), "{line}: {said:?}");
    }
}
