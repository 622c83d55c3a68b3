//! What the plugin costs a delivery: LDA and LMTP beside Dovecot alone, beside `notify` alone and beside stock
//! Dovecot's own push driver.
//!
//! Each variant has a private Dovecot of its own; all are ready at the same time, share one memcached and get the
//! same mails. They take turns, one mail each by LDA and a few each by LMTP, and the one that begins changes from
//! round to round: what disturbs the machine disturbs all alike. The table has medians, quartiles, and the ratio
//! to `notify` alone with a bootstrapped 95 % interval.
//!
//! `OCBUS_BENCH_ROUNDS` is the number of rounds; `cargo bench --bench delivery -- native legacy` runs only the
//! variants with such a word in their name, beside the two baselines. `OCBUS_BENCH_GATHER_MS` is the outbox's `gather`. `docs/performance.md` has figures.
//!
//! The mails go to /dev/shm where that is possible and OCBUS_SANDBOX_DIR does not say otherwise: ext4 takes up to
//! a millisecond to find an inode where many were deleted in the last minutes, and a delivery makes two.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ocbus::handover::{HandOver, HandOverConfig};
use ocbus::outbox::{Outbox, OutboxConfig};
use ocbus::publisher::PublisherConfig;
use ocbus::resolver::{Cn, Config, Registration, Resolver};
use ocbus::sandbox::faults::{Blackhole, Refused};
use ocbus::sandbox::{Dovecot, DovecotOptions, LmtpClient, Mail, Sandbox, mail};
use ocbus::subscriber::SubscriberConfig;
use ocbus::wire::Endpoint;
use ocbus::wire::openchange::DosCharset;
use ocbus::{Bus, Publisher, Subscriber};
use tokio::runtime::Runtime;
use uuid::Uuid;

use common::{interval, median, quantile};

const ROUNDS: usize = 250;
/// Mails of one turn by LMTP, each to another user: also how many users each variant has.
const BURST: usize = 10;
/// The same where each mail takes the whole budget.
const SLOW_BURST: usize = 2;
const LIMIT: Duration = Duration::from_secs(5);
/// Endpoints of one user, at most.
const MOST: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bare,
    Notify,
    Native,
    Legacy,
    Nobody,
    /// So many endpoints that refuse: removed by each mail, registered again before the next.
    Refused(usize),
    /// So many endpoints that never answer.
    Blackholed(usize),
    /// To the daemon's outbox, with so many native subscribers.
    HandedOver(usize),
    /// Likewise, with so many endpoints that never answer.
    HandedOverDead(usize),
    OxDriver,
}

impl Kind {
    const ALL: [Kind; 13] = [
        Kind::Bare,
        Kind::Notify,
        Kind::Native,
        Kind::Legacy,
        Kind::Nobody,
        Kind::Refused(1),
        Kind::Refused(3),
        Kind::Blackholed(1),
        Kind::Blackholed(3),
        Kind::HandedOver(1),
        Kind::HandedOver(5),
        Kind::HandedOverDead(5),
        Kind::OxDriver,
    ];

    fn name(self) -> String {
        match self {
            Kind::Bare => "no plugin".to_owned(),
            Kind::Notify => "notify alone".to_owned(),
            Kind::Native => "ours, native subscriber".to_owned(),
            Kind::Legacy => "ours, legacy subscriber".to_owned(),
            Kind::Nobody => "ours, nobody registered".to_owned(),
            Kind::Refused(count) => format!("ours, {count} dead: refused"),
            Kind::Blackholed(count) => format!("ours, {count} dead: blackholed"),
            Kind::HandedOver(count) => format!("hand-over, {count} native"),
            Kind::HandedOverDead(count) => format!("hand-over, {count} dead: blackholed"),
            Kind::OxDriver => "OX driver, live HTTP server".to_owned(),
        }
    }

    fn options(self, memcached: &str, http: &str, bus: &str) -> DovecotOptions {
        match self {
            Kind::Bare => DovecotOptions::new(&[]),
            Kind::Notify => DovecotOptions::new(&["notify"]),
            Kind::OxDriver => DovecotOptions::stock_ox(http),
            Kind::HandedOver(_) | Kind::HandedOverDead(_) => DovecotOptions::new(&["notify", "openchange"])
                .setting("openchange_resolver", memcached)
                .setting("openchange_bus", bus),
            _ => DovecotOptions::new(&["notify", "openchange"]).setting("openchange_resolver", memcached),
        }
    }

    fn burst(self) -> usize {
        if matches!(self, Kind::Blackholed(_)) { SLOW_BURST } else { BURST }
    }
}

/// What all variants share. Servers end when it is dropped.
struct Shared {
    runtime: Runtime,
    resolver: Resolver,
    http: HttpServer,
    native: (Subscriber, Bus),
    legacy: (Subscriber, Bus),
    refused: Vec<Refused>,
    blackholes: Vec<Blackhole>,
    /// As many as any variant has, for users of their own.
    handed_over: Vec<Subscriber>,
    outbox: Outbox,
    handover: HandOver,
    _state: tempfile::TempDir,
}

struct Variant {
    kind: Kind,
    dovecot: Dovecot,
    lmtp: LmtpClient,
    users: Vec<Cn>,
    /// Milliseconds a mail.
    by_lda: Vec<f64>,
    by_lmtp: Vec<f64>,
    delivered: usize,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` runs benches too.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    common::move_to_memory(&arguments);
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let rounds = common::rounds().unwrap_or(ROUNDS);
    let begin = Instant::now();
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached().unwrap();
    let shared = Shared::new(&memcached.configuration(), sandbox.path());
    let kinds = Kind::ALL.into_iter().filter(|kind| {
        let baseline = matches!(kind, Kind::Bare | Kind::Notify);
        baseline || wanted.is_empty() || wanted.iter().any(|wanted| kind.name().contains(*wanted))
    });
    let mut variants: Vec<Variant> = kinds
        .enumerate()
        .map(|(at, kind)| Variant::new(&sandbox, kind, at, &memcached.configuration(), &shared))
        .collect();
    for round in 0..rounds {
        let letter = letter(round);
        let count = variants.len();
        for turn in 0..count {
            variants[(round + turn) % count].lda(&shared, &letter, round);
        }
        for turn in 0..count {
            variants[(round + turn) % count].lmtp(&shared, &letter);
        }
    }
    for variant in &variants {
        variant.check(&shared);
    }
    check_handed_over(&variants, &shared);
    print(&variants, rounds, begin.elapsed());
}

/// 20 KB, as a letter with HTML and the headers of a few relays has.
fn letter(round: usize) -> Mail {
    let body = "A line of an ordinary letter, seventy characters long, as people do.\n".repeat(290);
    mail("Alice Example <alice@example.org>", &format!("Letter number {round}"), &body)
}

impl Shared {
    fn new(memcached: &str, folder: &Path) -> Shared {
        let runtime = Runtime::new().unwrap();
        let config = Config::parse(memcached).unwrap();
        let resolver = runtime.block_on(Resolver::new(&config, DosCharset::default(), LIMIT)).unwrap();
        let any_port = || Some(Endpoint::parse("tcp://127.0.0.1:0").unwrap());
        let subscriber = |config| {
            let bus = Bus::new();
            let starting = Subscriber::start(config, resolver.clone(), bus.clone());
            (runtime.block_on(starting).unwrap(), bus)
        };
        let native = subscriber(SubscriberConfig { bind: any_port(), ..SubscriberConfig::default() });
        let legacy = subscriber(SubscriberConfig {
            bind: None,
            legacy_bind: any_port(),
            ..SubscriberConfig::default()
        });
        let handed_over = (0..MOST)
            .map(|_| subscriber(SubscriberConfig { bind: any_port(), ..SubscriberConfig::default() }).0)
            .collect();
        let publisher = Publisher::new(resolver.clone(), PublisherConfig::default()).unwrap();
        // The ledger is on a disk, as it would be.
        let state = tempfile::tempdir_in(std::env::temp_dir()).unwrap();
        let mut config = OutboxConfig { state_dir: Some(state.path().to_owned()), ..OutboxConfig::default() };
        if let Ok(gather) = std::env::var("OCBUS_BENCH_GATHER_MS") {
            config.gather = Duration::from_millis(gather.parse().expect("OCBUS_BENCH_GATHER_MS: a number"));
        }
        let inside = runtime.enter();
        let outbox = Outbox::start(publisher, resolver.clone(), config).unwrap();
        let listen = Endpoint::Ipc { path: format!("{}/bus.sock", folder.display()) };
        let config = HandOverConfig { listen, mode: 0o666, group: None };
        let handover = HandOver::listen(&config, outbox.clone()).unwrap();
        drop(inside);
        Shared {
            resolver,
            handed_over,
            outbox,
            handover,
            _state: state,
            http: HttpServer::start(),
            native,
            legacy,
            refused: (0..3).map(|_| Refused::new().unwrap()).collect(),
            blackholes: (0..MOST).map(|_| Blackhole::new().unwrap()).collect(),
            runtime,
        }
    }

    /// Puts native endpoints into a user's record.
    fn register(&self, cn: &Cn, ports: impl Iterator<Item = u16>) {
        for port in ports {
            let registration = Registration {
                endpoint: &format!("tcp://127.0.0.1:{port}"),
                legacy: None,
                subscriber: Uuid::now_v7(),
                lease: Resolver::MAX_LEASE,
            };
            self.runtime.block_on(self.resolver.register(cn, registration)).unwrap();
        }
    }
}

impl Variant {
    fn new(sandbox: &Sandbox, kind: Kind, at: usize, memcached: &str, shared: &Shared) -> Variant {
        let bus = shared.handover.endpoint().to_string();
        let dovecot = sandbox.dovecot(kind.options(memcached, &shared.http.url(), &bus)).unwrap();
        let users: Vec<Cn> = (0..BURST).map(|user| Cn::new(&format!("v{at}u{user}")).unwrap()).collect();
        for cn in &users {
            match kind {
                Kind::Native => shared.runtime.block_on(shared.native.0.add(cn)).unwrap(),
                Kind::Legacy => shared.runtime.block_on(shared.legacy.0.add(cn)).unwrap(),
                Kind::HandedOver(count) => {
                    for subscriber in shared.handed_over.iter().take(count) {
                        shared.runtime.block_on(subscriber.add(cn)).unwrap();
                    }
                }
                Kind::Blackholed(count) | Kind::HandedOverDead(count) => {
                    shared.register(cn, shared.blackholes.iter().take(count).map(Blackhole::port));
                }
                Kind::OxDriver => {
                    let key = "/private/vendor/vendor.dovecot/http-notify";
                    let value = format!("user={cn}");
                    let user = cn.as_str();
                    dovecot
                        .doveadm(&["mailbox", "metadata", "set", "-u", user, "-s", "", key, &value])
                        .unwrap();
                }
                Kind::Bare | Kind::Notify | Kind::Nobody | Kind::Refused(_) => {}
            }
        }
        let lmtp = dovecot.lmtp().unwrap();
        let (by_lda, by_lmtp) = (Vec::new(), Vec::new());
        let mut variant = Variant { kind, dovecot, lmtp, users, by_lda, by_lmtp, delivered: 0 };
        // The first mail of a user makes the mailbox.
        for user in 0..BURST {
            variant.one_lmtp(shared, &letter(0), user);
        }
        variant
    }

    fn prepare(&mut self, shared: &Shared, user: usize) {
        self.delivered += 1;
        if let Kind::Refused(count) = self.kind {
            shared.register(&self.users[user], shared.refused.iter().take(count).map(Refused::port));
        }
    }

    fn lda(&mut self, shared: &Shared, letter: &Mail, round: usize) {
        let user = round % BURST;
        self.prepare(shared, user);
        let delivery = self.dovecot.deliver_lda(self.users[user].as_str(), letter, None).unwrap();
        assert!(delivery.is_ok(), "{}: {delivery:?}\n{}", self.kind.name(), self.dovecot.log());
        self.by_lda.push(delivery.took.as_secs_f64() * 1e3);
    }

    fn lmtp(&mut self, shared: &Shared, letter: &Mail) {
        let burst = self.kind.burst();
        let took: Duration = (0..burst).map(|user| self.one_lmtp(shared, letter, user)).sum();
        self.by_lmtp.push(took.as_secs_f64() * 1e3 / burst as f64);
    }

    fn one_lmtp(&mut self, shared: &Shared, letter: &Mail, user: usize) -> Duration {
        self.prepare(shared, user);
        let begin = Instant::now();
        let replies = self.lmtp.deliver("alice@example.org", &[self.users[user].as_str()], letter).unwrap();
        let took = begin.elapsed();
        assert!(replies[0].is_ok(), "{}: {replies:?}", self.kind.name());
        took
    }

    /// All mails are stored, and who should hear of them did.
    fn check(&self, shared: &Shared) {
        let name = self.kind.name();
        let stored: usize = self.users.iter().map(|cn| self.dovecot.maildir(cn.as_str()).total()).sum();
        assert_eq!(stored, self.delivered, "{name}");
        let count = |events: u64| usize::try_from(events).unwrap();
        let heard = || match self.kind {
            Kind::Native => count(shared.native.0.statistics().events),
            Kind::Legacy => count(shared.legacy.0.statistics().legacy_events),
            Kind::OxDriver => shared.http.requests.load(Ordering::Relaxed),
            // The users of other variants have some of the same subscribers.
            Kind::HandedOver(_) | Kind::HandedOverDead(_) => {
                let accepted: u64 = shared.outbox.statistics().accepted.iter().sum();
                count(accepted).min(self.delivered)
            }
            _ => self.delivered,
        };
        let end = Instant::now() + LIMIT;
        while heard() < self.delivered && Instant::now() < end {
            std::thread::yield_now();
        }
        assert_eq!(heard(), self.delivered, "{name}: events\n{}", self.dovecot.log());
        let quiet = !matches!(self.kind, Kind::Refused(_) | Kind::Blackholed(_));
        if quiet {
            let log = self.dovecot.plugin_log_lines();
            assert!(log.is_empty(), "{name}: {log:?}");
        }
    }
}

/// Everything that was handed over was accepted, and is at each of its subscribers, or held for those that are dead.
fn check_handed_over(variants: &[Variant], shared: &Shared) {
    let (mut handed, mut wanted) = (0, 0);
    for variant in variants {
        match variant.kind {
            Kind::HandedOver(count) => {
                (handed, wanted) = (handed + variant.delivered, wanted + variant.delivered * count)
            }
            Kind::HandedOverDead(_) => handed += variant.delivered,
            _ => {}
        }
    }
    let heard = || shared.handed_over.iter().map(|one| one.statistics().events).sum::<u64>();
    let end = Instant::now() + LIMIT;
    while heard() < wanted as u64 && Instant::now() < end {
        std::thread::yield_now();
    }
    let statistics = shared.outbox.statistics();
    assert_eq!(heard(), wanted as u64, "{statistics:?}");
    assert_eq!(statistics.accepted.iter().sum::<u64>(), handed as u64, "{statistics:?}");
    println!("outbox: {statistics:?}");
}

/// A small HTTP/1.1 server with connections that stay: 200 at once, whatever is asked.
struct HttpServer {
    port: u16,
    requests: Arc<AtomicUsize>,
}

impl HttpServer {
    fn start() -> HttpServer {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        // Both kinds of threads end with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counted = Arc::clone(&counted);
                std::thread::spawn(move || serve(stream, &counted));
            }
        });
        HttpServer { port, requests }
    }

    fn url(&self) -> String {
        format!("http://login:pass@127.0.0.1:{}/preliminary/http-notify/v1/notify", self.port)
    }
}

fn serve(stream: TcpStream, requests: &AtomicUsize) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        let mut line = String::new();
        while reader.read_line(&mut line).ok().filter(|&read| read > 0)? > 0 && line != "\r\n" {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            line.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        if body.windows(10).any(|part| part == b"messageNew") {
            requests.fetch_add(1, Ordering::Relaxed);
        }
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok()?;
    }
}

fn print(variants: &[Variant], rounds: usize, took: Duration) {
    println!();
    println!(
        "{rounds} rounds in {:.0} s; medians (quartiles); ratios to `notify alone` [95 % interval] and to no plugin.",
        took.as_secs_f64()
    );
    println!();
    println!(
        "| variant | LDA, ms a mail | x notify | x no plugin | LMTP, mails/s | x notify | x no plugin |"
    );
    println!("|---|---|---|---|---|---|---|");
    let (bare, notify) = (&variants[0], &variants[1]);
    for variant in variants {
        let rate = |milliseconds: &[f64]| milliseconds.iter().map(|one| 1e3 / one).collect::<Vec<f64>>();
        let cells: Vec<String> = [
            (variant.by_lda.clone(), notify.by_lda.clone(), bare.by_lda.clone(), 2),
            (rate(&variant.by_lmtp), rate(&notify.by_lmtp), rate(&bare.by_lmtp), 0),
        ]
        .into_iter()
        .flat_map(|(own, notify, bare, digits)| {
            let [low, middle, high] = [0.25, 0.5, 0.75].map(|part| quantile(&own, part));
            let (from, to) = interval(&own, &notify);
            [
                format!("{middle:.digits$} ({low:.digits$}-{high:.digits$})"),
                format!("{:.3} [{from:.3}-{to:.3}]", middle / median(&notify)),
                format!("{:.3}", middle / median(&bare)),
            ]
        })
        .collect();
        println!("| {} | {} |", variant.kind.name(), cells.join(" | "));
    }
    println!();
}
