//! What the plugin costs a delivery: LDA and LMTP beside Dovecot alone, beside `notify` alone and beside stock
//! Dovecot's own push driver. The daemon, for hand-over and for that driver, is an `ocbus serve` of its own; the driver also
//! has a server that does nothing but answer.
//!
//! Each variant has a private Dovecot of its own; all are ready at the same time, share one memcached and get the
//! same mails. They take turns, one mail each by LDA and a few each by LMTP, and the one that begins changes from
//! round to round: what disturbs the machine disturbs all alike. The table has medians, quartiles, and the ratio
//! to `notify` alone with a bootstrapped 95 % interval.
//!
//! `OCBUS_BENCH_ROUNDS` is the number of rounds; `cargo bench --bench delivery -- native legacy` runs only the
//! variants with such a word in their name, beside the two baselines. `OCBUS_BENCH_GATHER_MS` is the outbox's `gather`;
//! with `OCBUS_BENCH_BATCH` the daemon is scheduled as batch, as the unit does it, and so are the subscribers, which are
//! threads of this process. `docs/performance.md` has figures.
//!
//! The mails go to /dev/shm where that is possible and OCBUS_SANDBOX_DIR does not say otherwise: ext4 takes up to
//! a millisecond to find an inode where many were deleted in the last minutes, and a delivery makes two.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ocbus::resolver::{Cn, Config, Registration, Resolver};
use ocbus::sandbox::faults::{Blackhole, Refused};
use ocbus::sandbox::{Daemon, Dovecot, DovecotOptions, LmtpClient, Mail, Sandbox, mail};
use ocbus::subscriber::SubscriberConfig;
use ocbus::wire::Endpoint;
use ocbus::wire::openchange::DosCharset;
use ocbus::{Bus, Subscriber};
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
    /// To the daemon, with so many native subscribers.
    HandedOver(usize),
    /// Likewise, with so many endpoints that never answer.
    HandedOverDead(usize),
    /// To a server that answers at once and does nothing.
    OxDriver,
    /// To the daemon, with a native subscriber.
    OxDaemon,
}

impl Kind {
    const ALL: [Kind; 14] = [
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
        Kind::OxDaemon,
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
            Kind::OxDriver => "OX driver, a server that only answers".to_owned(),
            Kind::OxDaemon => "OX driver, ocbus serve".to_owned(),
        }
    }

    fn options(self, memcached: &str, shared: &Shared) -> DovecotOptions {
        match self {
            Kind::Bare => DovecotOptions::new(&[]),
            Kind::Notify => DovecotOptions::new(&["notify"]),
            Kind::OxDriver => DovecotOptions::stock_ox(&url(shared.http.port)),
            Kind::OxDaemon => DovecotOptions::stock_ox(&url(shared.daemon.port())),
            Kind::HandedOver(_) | Kind::HandedOverDead(_) => DovecotOptions::new(&["notify", "openchange"])
                .setting("openchange_resolver", memcached)
                .setting("openchange_bus", &shared.bus),
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
    daemon: Daemon,
    /// Where it takes what is handed over.
    bus: String,
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
    let shared = Shared::new(&memcached.configuration(), &sandbox);
    if std::env::var_os("OCBUS_BENCH_BATCH").is_some() {
        yield_to_deliveries(&shared.daemon);
    }
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
    check_daemon(&variants, &shared);
    print(&variants, rounds, begin.elapsed());
}

/// The daemon, and the subscribers, which are threads of ours, do not interrupt a delivery: `CPUSchedulingPolicy=batch`.
fn yield_to_deliveries(daemon: &Daemon) {
    let own = std::process::id().to_string();
    for process in [&own, &daemon.pid().to_string()] {
        for thread in std::fs::read_dir(format!("/proc/{process}/task")).unwrap() {
            let thread = thread.unwrap().file_name().into_string().unwrap();
            // Our first one is the client of LMTP.
            if thread != own {
                let done = Command::new("chrt").args(["--batch", "--pid", "0", &thread]).status();
                assert!(done.unwrap().success(), "chrt, of util-linux");
            }
        }
    }
}

/// 20 KB, as a letter with HTML and the headers of a few relays has.
fn letter(round: usize) -> Mail {
    let body = "A line of an ordinary letter, seventy characters long, as people do.\n".repeat(290);
    mail("Alice Example <alice@example.org>", &format!("Letter number {round}"), &body)
}

impl Shared {
    fn new(memcached: &str, sandbox: &Sandbox) -> Shared {
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
        // The ledger is on a disk, as it would be.
        let state = tempfile::tempdir_in(std::env::temp_dir()).unwrap();
        let gather = std::env::var("OCBUS_BENCH_GATHER_MS").unwrap_or_else(|_| "20".to_owned());
        let bus = format!("ipc://{}/bus.sock", sandbox.path().display());
        let daemon = sandbox
            .daemon(&format!(
                "resolver = '{memcached}'\noutbox = {{ gather_ms = {gather}, state_dir = '{}' }}\n\
                 handover = {{ listen = '{bus}', mode = '0666' }}\n\
                 http.credentials = [{{ name = 'dovecot', login = 'login', password = 'pass' }}]\n",
                state.path().display()
            ))
            .unwrap();
        Shared {
            resolver,
            handed_over,
            daemon,
            bus,
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
        let dovecot = sandbox.dovecot(kind.options(memcached, shared)).unwrap();
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
                Kind::OxDriver | Kind::OxDaemon => {
                    if kind == Kind::OxDaemon {
                        shared.runtime.block_on(shared.handed_over[0].add(cn)).unwrap();
                    }
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
            // Of all variants together: see `check_daemon`.
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

/// Everything that the daemon was told it has accepted, and it is at each of its subscribers, or held for those that are
/// dead.
fn check_daemon(variants: &[Variant], shared: &Shared) {
    let (mut handed, mut pushed, mut wanted) = (0, 0, 0);
    for variant in variants {
        let delivered = variant.delivered;
        match variant.kind {
            Kind::HandedOver(count) => (handed, wanted) = (handed + delivered, wanted + delivered * count),
            Kind::HandedOverDead(_) => handed += delivered,
            Kind::OxDaemon => (pushed, wanted) = (pushed + delivered, wanted + delivered),
            _ => {}
        }
    }
    let heard = || shared.handed_over.iter().map(|one| one.statistics().events).sum::<u64>();
    let end = Instant::now() + LIMIT;
    while heard() < wanted as u64 && Instant::now() < end {
        std::thread::yield_now();
    }
    let metrics = metrics(&shared.daemon);
    let accepted = |source: &str| -> usize {
        let of = format!("ocbus_events_accepted_total{{source=\"{source}\",");
        let lines = metrics.lines().filter(|line| line.starts_with(&of));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
    };
    assert_eq!(heard(), wanted as u64, "{metrics}");
    assert_eq!((accepted("hand-over"), accepted("ox")), (handed, pushed), "{metrics}");
}

fn metrics(daemon: &Daemon) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, daemon.port())).unwrap();
    // login:pass
    let head = "Host: x\r\nAuthorization: Basic bG9naW46cGFzcw==\r\nConnection: close";
    stream.write_all(format!("GET /metrics HTTP/1.1\r\n{head}\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    answer
}

/// As Dovecot's driver has it.
fn url(port: u16) -> String {
    format!("http://login:pass@127.0.0.1:{port}/preliminary/http-notify/v1/notify")
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
