//! What the end-to-end tests share: a private memcached and Dovecot with our plugin, subscribers, libnanomsg peers.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

pub mod http;
pub mod proxy;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ocbus::bus::{Bus, Filter, Subscription};
use ocbus::resolver::{Cn, Config, Resolver};
use ocbus::sandbox::{Child, Dovecot, DovecotOptions, Memcached, Sandbox, free_port, mail};
use ocbus::subscriber::SubscriberConfig;
use ocbus::wire::openchange::{DosCharset, ResolverRecord};
use ocbus::wire::{Endpoint, NewMessage};
use ocbus::{Event, EventKind, Subscriber};

/// How long anything may take before a test gives it up.
pub const LIMIT: Duration = Duration::from_secs(10);

/// A private memcached, and a Dovecot whose plugin asks it.
pub struct Site {
    pub sandbox: Sandbox,
    pub memcached: Memcached,
    pub dovecot: Dovecot,
}

impl Site {
    pub fn new() -> Site {
        Site::with(|options| options)
    }

    /// With more settings than the resolver's.
    pub fn with(more: impl FnOnce(DovecotOptions) -> DovecotOptions) -> Site {
        let sandbox = Sandbox::new().unwrap();
        let memcached = sandbox.memcached().unwrap();
        // A budget that a busy test machine does not use up; tests of the budget set their own.
        let options = DovecotOptions::new(&["notify", "openchange"])
            .setting("openchange_resolver", &memcached.configuration())
            .setting("openchange_budget", "2000")
            .extra("lda_mailbox_autocreate = yes");
        let dovecot = sandbox.dovecot(more(options)).unwrap();
        Site { sandbox, memcached, dovecot }
    }

    pub async fn resolver(&self) -> Resolver {
        resolver(&self.memcached).await
    }

    pub async fn subscriber(&self, config: SubscriberConfig, user: &str) -> Listening {
        listen(&self.memcached, config, user).await
    }

    pub async fn native(&self, user: &str) -> Listening {
        self.subscriber(SubscriberConfig::default(), user).await
    }

    /// For who compares all that comes, on a machine that may be busy.
    pub async fn calm(&self, user: &str) -> Listening {
        self.subscriber(calm(), user).await
    }

    pub async fn legacy(&self, user: &str) -> Listening {
        self.subscriber(legacy_only(), user).await
    }

    /// Registers an endpoint as OpenChange does.
    pub fn register_legacy(&self, user: &str, urls: &[&str]) {
        let record = ResolverRecord { hosts: urls.iter().map(|&url| url.to_owned()).collect() };
        self.memcached
            .set(&format!("resolver:{user}"), &record.encode(DosCharset::default()).unwrap())
            .unwrap();
    }

    /// Delivers a mail by dovecot-lda, which must succeed and store it.
    pub fn deliver(&self, user: &str, mailbox: Option<&str>, subject: &str) -> Duration {
        // Dovecot brings names to lower case (auth_username_format).
        let mails = self.dovecot.maildir(&user.to_lowercase());
        let before = mails.total();
        let sent = mail("Alice <alice@example.org>", subject, "Hi");
        let delivery = self.dovecot.deliver_lda(user, sent, mailbox).unwrap();
        assert_eq!(delivery.status, Some(0), "{delivery:?}\n{}", self.dovecot.log());
        assert_eq!(mails.total(), before + 1, "stored once");
        delivery.took
    }

    /// The plugin's lines that are no debug.
    pub fn warnings(&self) -> Vec<String> {
        let lines = self.dovecot.plugin_log_lines();
        lines.into_iter().filter(|line| line.contains("Warning: openchange: ")).collect()
    }

    /// No process died, none complained.
    pub fn assert_sound(&self) {
        let log = self.dovecot.log();
        for bad in ["Panic", "Fatal", "killed with signal", "Error:", "core dumped"] {
            assert!(!log.contains(bad), "{bad} in dovecot's log:\n{log}");
        }
    }
}

pub async fn resolver(memcached: &Memcached) -> Resolver {
    let config = Config::parse(&memcached.configuration()).unwrap();
    Resolver::new(&config, DosCharset::default(), Duration::from_secs(1)).await.unwrap()
}

/// It takes a memcached that answers late for a busy machine's: no resync for that.
pub fn calm() -> SubscriberConfig {
    SubscriberConfig { heartbeat: Duration::from_secs(5), ..SubscriberConfig::default() }
}

/// A subscriber of one user, registered.
pub async fn listen(memcached: &Memcached, config: SubscriberConfig, user: &str) -> Listening {
    let bus = Bus::new();
    let subscriber = Subscriber::start(config, resolver(memcached).await, bus.clone()).await.unwrap();
    subscriber.add(&Cn::new(user).unwrap()).await.unwrap();
    let events = bus.subscribe_with_queue(Filter::user(user), 4096);
    Listening { subscriber, events }
}

pub fn legacy_only() -> SubscriberConfig {
    SubscriberConfig {
        bind: None,
        legacy_bind: Some(Endpoint::parse("tcp://127.0.0.1:0").unwrap()),
        ..SubscriberConfig::default()
    }
}

/// A subscriber and what reaches its bus.
pub struct Listening {
    pub subscriber: Subscriber,
    pub events: Subscription,
}

impl Listening {
    pub async fn next(&mut self) -> Arc<Event> {
        match tokio::time::timeout(LIMIT, self.events.recv()).await {
            Ok(event) => event.unwrap(),
            Err(_) => panic!("no event within {LIMIT:?}; {:?}", self.subscriber.statistics()),
        }
    }

    /// The next event, which must be a new mail; the mailbox may have been made for it.
    pub async fn next_mail(&mut self) -> (Arc<Event>, NewMessage) {
        let mut event = self.next().await;
        if event.kind == EventKind::MailboxCreate {
            event = self.next().await;
        }
        match &event.kind {
            EventKind::MessageNew(message) => (event.clone(), message.clone()),
            other => panic!("expected MessageNew, got {other:?}"),
        }
    }

    pub fn assert_quiet(&mut self) {
        let event = self.events.try_recv();
        assert!(event.is_none(), "one event too many: {event:?}");
    }
}

/// libnanomsg's PULL, which prints each message in hex.
pub struct Nanocat {
    child: Child,
    pub url: String,
}

impl Nanocat {
    pub fn pull(sandbox: &Sandbox) -> Nanocat {
        Nanocat::listen(sandbox, format!("tcp://127.0.0.1:{}", free_port().unwrap()))
    }

    pub fn pull_ipc(sandbox: &Sandbox) -> Nanocat {
        // The mail's user has to open it.
        Nanocat::listen(sandbox, format!("ipc://{}/pull.sock", sandbox.path().display()))
    }

    pub fn listen(sandbox: &Sandbox, url: String) -> Nanocat {
        let mut command = Command::new("nanocat");
        command.args(["--pull", "--hex", "--bind", &url]);
        let child = sandbox.start("nanocat", &command).unwrap();
        let nanocat = Nanocat { child, url };
        until("nanocat listens", || match nanocat.url.strip_prefix("tcp://") {
            Some(address) => std::net::TcpStream::connect(address).is_ok(),
            None => {
                let path = nanocat.url.strip_prefix("ipc://").unwrap();
                let there = std::path::Path::new(path).exists();
                if there {
                    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
                    std::fs::set_permissions(path, mode).unwrap();
                }
                there
            }
        });
        nanocat
    }

    /// The messages so far, in hex.
    pub fn messages(&self) -> Vec<String> {
        let hex = |line: &str| line.trim().trim_matches('"').replace("\\x", "");
        self.child.stdout().lines().map(hex).collect()
    }

    /// Waits until there are `count` messages.
    pub fn wait(&self, count: usize) -> Vec<String> {
        until(&format!("{count} messages at nanocat"), || self.messages().len() >= count);
        self.messages()
    }
}

/// Polls until it is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An event as the tables have it: `MessageMove Trash 1:2 < INBOX 3:4 \Seen`.
pub fn shown(event: &Event) -> String {
    let name = |mailbox: &ocbus::Mailbox| mailbox.name.clone();
    let words = |all: &[String]| all.iter().map(|word| format!(" {word}")).collect::<String>();
    let mut line = format!("{} {}", event.kind.name(), event.mailbox.as_ref().map(name).unwrap_or_default());
    match &event.kind {
        EventKind::MessageNew(message) | EventKind::MessageAppend(message) => {
            let uid = message.uid.map_or("-".to_owned(), |uid| uid.to_string());
            line += &format!(" {uid}{}{}", words(&message.flags), words(&message.keywords));
        }
        EventKind::MessageCopy(transfer) | EventKind::MessageMove(transfer) => {
            line += &format!(
                " {} < {} {}{}{}",
                transfer.uids,
                name(&transfer.old),
                transfer.old_uids,
                words(&transfer.flags),
                words(&transfer.keywords)
            );
            assert!(transfer.old_uidvalidity.is_some(), "{event:?}");
        }
        EventKind::MessageRead { uids }
        | EventKind::MessageTrash { uids }
        | EventKind::MessageExpunge { uids } => line += &format!(" {uids}"),
        EventKind::FlagsSet { uids, flags, keywords } | EventKind::FlagsClear { uids, flags, keywords } => {
            line += &format!(" {uids}{}{}", words(flags), words(keywords));
        }
        EventKind::MailboxRename { old } => line += &format!(" < {}", name(old)),
        EventKind::Resync { reason, missed } => line += &format!(" {} {missed}", reason.name()),
        _ => {}
    }
    line
}
