//! What the plugin costs an IMAP command that changes messages: STORE, COPY, MOVE and EXPUNGE of 1, 1,000 and 100,000 of
//! them, beside `notify` alone.
//!
//!     cargo build --release -p dovecot-openchange-plugin && cargo bench --bench imap
//!
//! Each variant has a private Dovecot of its own, with mdbox in memory: a copy there is a line in an index, and nothing is
//! cheaper. All are ready at the same time and take turns, command by command; the one that begins changes from round to
//! round. A command's time is the client's, from its first octet to the tagged answer. A NOOP follows on each at once, and
//! waits for what the plugin does behind an answer, most of the time: the NOOPs have a row of their own. The table has
//! medians over the rounds, and ratios and differences to `notify` alone with bootstrapped 95 % intervals. At the end the
//! bench checks that the subscriber was told of every message of every command.
//!
//! The octets are those of the SP messages to the subscriber, measured in a round of its own in which each command waits
//! for its events. `OCBUS_BENCH_ROUNDS` is the number of rounds of 1,000 messages (three times that with one, a seventh with
//! 100,000); `cargo bench --bench imap -- 1000` runs that size only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ocbus::bus::{Filter, Subscription};
use ocbus::resolver::{Cn, Config, Resolver};
use ocbus::sandbox::{Dovecot, DovecotOptions, ImapClient, Sandbox, mail};
use ocbus::subscriber::{Subscriber, SubscriberConfig};
use ocbus::wire::Endpoint;
use ocbus::wire::native::Batch;
use ocbus::wire::openchange::DosCharset;
use ocbus::{Bus, Event, EventKind};
use tokio::runtime::Runtime;

use common::{interval, interval_of, median};

const ROUNDS: usize = 60;
const SIZES: [usize; 3] = [1, 1000, 100_000];
const LIMIT: Duration = Duration::from_secs(60);
/// Longer than a copy waits for the expunge that makes a move of it.
const QUIET: Duration = Duration::from_millis(600);
/// In front of each SP message over tcp: its length, and the request's id.
const SP_HEADER: usize = 8 + 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Notify,
    Native,
    Nobody,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Notify, Kind::Native, Kind::Nobody];

    fn name(self) -> &'static str {
        match self {
            Kind::Notify => "notify alone",
            Kind::Native => "ours, native subscriber",
            Kind::Nobody => "ours, nobody registered",
        }
    }

    fn options(self, memcached: &str) -> DovecotOptions {
        let options = match self {
            Kind::Notify => DovecotOptions::new(&["notify"]),
            _ => DovecotOptions::new(&["notify", "openchange"]).setting("openchange_resolver", memcached),
        };
        options.mail_location("mdbox", "~/mdbox")
    }
}

/// What a round does, in this order. The messages move between two mailboxes; the copies are expunged.
const COMMANDS: [&str; 6] = [
    "STORE +FLAGS (\\Flagged)",
    "STORE -FLAGS (\\Flagged)",
    "COPY",
    "MOVE",
    "STORE +FLAGS (\\Deleted)",
    "EXPUNGE",
];

/// How commands follow on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Paused,
    AtOnce,
}

impl Pace {
    const ALL: [Pace; 2] = [Pace::Paused, Pace::AtOnce];
    /// Far more than the plugin does behind an answer, and far less than a copy waits for its expunge.
    const PAUSE: Duration = Duration::from_millis(10);

    fn name(self) -> &'static str {
        match self {
            Pace::Paused => "10 ms between commands",
            Pace::AtOnce => "commands and NOOPs at once",
        }
    }
}

/// One user of one variant, with so many messages.
struct Client {
    kind: Kind,
    imap: ImapClient,
    size: usize,
    /// Where the messages are.
    home: usize,
    events: Option<Subscription>,
    /// Messages told of, by kind.
    told: BTreeMap<String, u64>,
    rounds: u64,
    /// Milliseconds, for each pace: of each command, of a round's NOOPs, of all of a round.
    times: [Vec<Vec<f64>>; 2],
}

const HOMES: [&str; 2] = ["Here", "There"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` runs benches too.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    common::move_to_memory(&arguments);
    let wanted: Vec<usize> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let rounds = common::rounds().unwrap_or(ROUNDS);
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached().unwrap();
    let runtime = Runtime::new().unwrap();
    let config = Config::parse(&memcached.configuration()).unwrap();
    let resolver = runtime.block_on(Resolver::new(&config, DosCharset::default(), LIMIT)).unwrap();
    let bus = Bus::new();
    let config = SubscriberConfig {
        bind: Some(Endpoint::parse("tcp://127.0.0.1:0").unwrap()),
        ..SubscriberConfig::default()
    };
    let subscriber = runtime.block_on(Subscriber::start(config, resolver, bus.clone())).unwrap();
    let mut dovecots: Vec<(Kind, Dovecot)> = Kind::ALL
        .into_iter()
        .map(|kind| (kind, sandbox.dovecot(kind.options(&memcached.configuration())).unwrap()))
        .collect();
    dovecots.iter_mut().for_each(|(_, dovecot)| dovecot.set_deadline(LIMIT));

    println!(
        "mdbox on {}; medians, ratios and differences to `notify alone` [95 % interval]",
        sandbox.path().display()
    );
    for size in SIZES.into_iter().filter(|size| wanted.is_empty() || wanted.contains(size)) {
        let rounds = match size {
            1 => 3 * rounds,
            1000 => rounds,
            _ => (rounds / 7).max(3),
        };
        let begun = Instant::now();
        let mut clients: Vec<Client> = dovecots
            .iter()
            .enumerate()
            .map(|(at, (kind, dovecot))| {
                // All have one memcached.
                let user = Cn::new(&format!("v{at}n{size}")).unwrap();
                if *kind == Kind::Native {
                    runtime.block_on(subscriber.add(&user)).unwrap();
                }
                Client::new(*kind, dovecot, user.as_str(), size, &bus)
            })
            .collect();
        for client in &mut clients {
            client.settle(&runtime);
        }
        let filled = begun.elapsed();
        for (round, pace) in Pace::ALL.into_iter().flat_map(|pace| (0..rounds).map(move |at| (at, pace))) {
            let count = clients.len();
            for turn in 0..count {
                clients[(round + turn) % count].round(pace, None);
            }
            // A bus keeps only so many events, and what it must drop would not be told.
            for client in &mut clients {
                client.read();
            }
        }
        let took = begun.elapsed() - filled;
        clients.iter_mut().for_each(|client| client.settle(&runtime));
        let octets = clients.iter_mut().find(|client| client.kind == Kind::Native).unwrap().octets(&runtime);
        for (client, (_, dovecot)) in clients.iter_mut().zip(&dovecots) {
            client.settle(&runtime);
            client.check(dovecot);
        }
        println!("\n{size} messages, {rounds} rounds at each pace, {:.0} s", took.as_secs_f64());
        for pace in Pace::ALL {
            print(&clients, pace, &octets);
        }
    }
}

impl Client {
    fn new(kind: Kind, dovecot: &Dovecot, user: &str, size: usize, bus: &Bus) -> Client {
        let events = (kind == Kind::Native).then(|| bus.subscribe_with_queue(Filter::user(user), 65_536));
        let mut imap = dovecot.imap(user).unwrap();
        for mailbox in [HOMES[0], HOMES[1], "Copies", "Fill"] {
            imap.command(&format!("CREATE {mailbox}")).unwrap();
        }
        // Some, and copies of these; of one alone mdbox has at most 32,768.
        let mut filled = size.min(64);
        for _ in 0..filled {
            let letter = mail("Alice Example <alice@example.org>", "A letter", "Hello.\n");
            imap.append("Fill", "", letter).unwrap();
        }
        imap.command("SELECT Fill").unwrap();
        while filled < size {
            let more = filled.min(size - filled);
            imap.command(&format!("COPY 1:{more} Fill")).unwrap();
            filled += more;
        }
        imap.command(&format!("MOVE 1:* {}", HOMES[0])).unwrap();
        let times = [(); 2].map(|()| vec![Vec::new(); COMMANDS.len() + 2]);
        Client { kind, imap, size, home: 0, events, told: BTreeMap::new(), rounds: 0, times }
    }

    /// All commands once; after each, `then`.
    fn round(&mut self, pace: Pace, mut then: Option<&mut dyn FnMut(&mut Client)>) {
        let (here, there) = (HOMES[self.home], HOMES[1 - self.home]);
        self.home = 1 - self.home;
        self.rounds += 1;
        let (mut whole, mut behind) = (0.0, 0.0);
        for (at, command) in COMMANDS.iter().enumerate() {
            match at {
                0 => drop(self.imap.command(&format!("SELECT {here}")).unwrap()),
                4 => drop(self.imap.command("SELECT Copies").unwrap()),
                _ => {}
            }
            let text = match *command {
                "STORE +FLAGS (\\Flagged)" => "STORE 1:* +FLAGS.SILENT (\\Flagged)".to_owned(),
                "STORE -FLAGS (\\Flagged)" => "STORE 1:* -FLAGS.SILENT (\\Flagged)".to_owned(),
                "STORE +FLAGS (\\Deleted)" => "STORE 1:* +FLAGS.SILENT (\\Deleted)".to_owned(),
                "COPY" => "COPY 1:* Copies".to_owned(),
                "MOVE" => format!("MOVE 1:* {there}"),
                _ => "EXPUNGE".to_owned(),
            };
            if pace == Pace::Paused {
                std::thread::sleep(Pace::PAUSE);
            }
            let begun = Instant::now();
            self.imap.command(&text).unwrap();
            let took = begun.elapsed().as_secs_f64() * 1e3;
            whole += took;
            if pace == Pace::AtOnce {
                let begun = Instant::now();
                self.imap.command("NOOP").unwrap();
                behind += begun.elapsed().as_secs_f64() * 1e3;
            }
            match &mut then {
                None => self.times[pace as usize][at].push(took),
                Some(then) => then(self),
            }
        }
        if then.is_none() {
            self.times[pace as usize][COMMANDS.len()].push(behind);
            self.times[pace as usize][COMMANDS.len() + 1].push(whole + behind);
        }
    }

    /// The events that are there.
    fn read(&mut self) -> Vec<Event> {
        let Some(subscription) = &mut self.events else { return Vec::new() };
        let events: Vec<Event> =
            std::iter::from_fn(|| subscription.try_recv()).map(|event| (*event).clone()).collect();
        for event in &events {
            assert!(!matches!(event.kind, EventKind::Resync { .. }), "{event:?}");
            *self.told.entry(event.kind.name().to_owned()).or_default() += messages(&event.kind);
        }
        events
    }

    /// The events that are there, and those that come until there are none for a while.
    fn read_all(&mut self, runtime: &Runtime) -> Vec<Event> {
        let mut all = self.read();
        while let Some(subscription) = &mut self.events {
            let next = subscription.recv();
            let Ok(event) = runtime.block_on(async { tokio::time::timeout(QUIET, next).await }) else {
                break;
            };
            let event = (*event.unwrap()).clone();
            *self.told.entry(event.kind.name().to_owned()).or_default() += messages(&event.kind);
            all.push(event);
            all.extend(self.read());
        }
        all
    }

    /// Until everything was told; what was told before the first round does not count.
    fn settle(&mut self, runtime: &Runtime) {
        self.read_all(runtime);
        if self.rounds == 0 {
            self.told.clear();
        }
    }

    /// Octets of the SP message and events, for each command.
    fn octets(&mut self, runtime: &Runtime) -> Vec<(usize, usize)> {
        let mut octets = Vec::new();
        let mut measure = |client: &mut Client| {
            let mut batch = Batch::new();
            for event in client.read_all(runtime) {
                assert!(batch.push(&event).unwrap());
            }
            octets.push((SP_HEADER + batch.encode().len(), batch.len()));
        };
        self.round(Pace::AtOnce, Some(&mut measure));
        octets
    }

    fn check(&self, dovecot: &Dovecot) {
        assert!(
            dovecot.plugin_log_lines().is_empty(),
            "{}: {:?}",
            self.kind.name(),
            dovecot.plugin_log_lines()
        );
        if self.kind != Kind::Native {
            return;
        }
        let each = self.rounds * self.size as u64;
        for kind in ["FlagsSet", "FlagsClear", "MessageCopy", "MessageMove", "MessageTrash", "MessageExpunge"]
        {
            assert_eq!(self.told.get(kind), Some(&each), "{kind} of {each}: {:?}", self.told);
        }
    }
}

/// How many messages an event is about.
fn messages(kind: &EventKind) -> u64 {
    match kind {
        EventKind::MessageCopy(transfer) | EventKind::MessageMove(transfer) => transfer.uids.len(),
        EventKind::FlagsSet { uids, .. }
        | EventKind::FlagsClear { uids, .. }
        | EventKind::MessageTrash { uids }
        | EventKind::MessageExpunge { uids } => uids.len(),
        _ => 1,
    }
}

fn print(clients: &[Client], pace: Pace, octets: &[(usize, usize)]) {
    println!("\n{} messages, {}\n", clients[0].size, pace.name());
    print!("| command | {}, ms |", clients[0].kind.name());
    for client in &clients[1..] {
        print!(" {}: x notify | ms more |", client.kind.name());
    }
    println!(" octets | events |\n|---|---|{}---|---|", "---|---|".repeat(clients.len() - 1));
    for (at, name) in COMMANDS.iter().copied().chain(["a NOOP behind each", "all of them"]).enumerate() {
        if pace == Pace::Paused && at == COMMANDS.len() {
            continue;
        }
        let notify = &clients[0].times[pace as usize][at];
        print!("| {name} | {:.3} |", median(notify));
        for client in &clients[1..] {
            let own = &client.times[pace as usize][at];
            let (low, high) = interval(own, notify);
            let (least, most) = interval_of(own, notify, |own, notify| own - notify);
            let (ratio, more) = (median(own) / median(notify), median(own) - median(notify));
            print!(" {ratio:.3} [{low:.3}-{high:.3}] | {more:.3} [{least:.3}-{most:.3}] |");
        }
        let (size, count) = match octets.get(at) {
            Some(one) => *one,
            None if at == COMMANDS.len() => (0, 0),
            None => octets.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1)),
        };
        println!(" {size} | {count} |");
    }
}
