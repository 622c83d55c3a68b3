//! Look-ups against a raw socket that asks the same in the same run: one at a time (p50, p99), and many at once;
//! with one server and with five. Variants take turns, so that noise hits all alike.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::cast_precision_loss)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ocbus::resolver::{BlockingResolver, Cn, Config, Registration, Resolver};
use ocbus::sandbox::{Memcached, Sandbox};
use ocbus::wire::openchange::DosCharset;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use uuid::Uuid;

const ROUNDS: usize = 40;
/// Look-ups of one variant in a round.
const TURN: usize = 250;
const USERS: usize = 500;
/// Look-ups under way at once.
const AT_ONCE: usize = 256;

/// The same two `mg` in one write, and nothing done with the answers.
struct Raw {
    stream: BufReader<TcpStream>,
}

impl Raw {
    fn new(memcached: &Memcached) -> Raw {
        let stream = TcpStream::connect(memcached.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        Raw { stream: BufReader::new(stream) }
    }

    fn lookups(&mut self, users: &[Cn]) {
        let asked: String = users
            .iter()
            .map(|cn| format!("mg {} v c\r\nmg {} v c\r\n", cn.lease_key(), cn.resolver_key()))
            .collect();
        self.stream.get_mut().write_all(asked.as_bytes()).unwrap();
        for _ in 0..users.len() * 2 {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            if let Some(length) = line.strip_prefix("VA ").and_then(|rest| rest.split(' ').next()) {
                let mut value = vec![0; length.parse::<usize>().unwrap() + 2];
                std::io::Read::read_exact(&mut self.stream, &mut value).unwrap();
            }
        }
    }
}

fn percentiles(times: &mut [Duration]) -> (f64, f64) {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e6;
    (at(50), at(99))
}

fn main() {
    let runtime = Runtime::new().unwrap();
    let sandbox = Sandbox::new().unwrap();
    let servers: Vec<Memcached> = (0..5).map(|_| sandbox.memcached().unwrap()).collect();
    let cns: Vec<Cn> = (0..USERS).map(|user| Cn::new(&format!("user{user}")).unwrap()).collect();
    for count in [1, 5] {
        let text = servers[..count].iter().map(Memcached::configuration).collect::<Vec<_>>().join(" ");
        let config = Config::parse(&text).unwrap();
        let limit = Duration::from_secs(5);
        let tokio = runtime.block_on(Resolver::new(&config, DosCharset::default(), limit)).unwrap();
        runtime.block_on(async {
            for cn in &cns {
                let registration = Registration {
                    endpoint: "tcp://127.0.0.1:9005",
                    legacy: None,
                    subscriber: Uuid::now_v7(),
                    lease: Duration::from_secs(600),
                };
                tokio.register(cn, registration).await.unwrap();
            }
        });
        let mut blocking = BlockingResolver::new(&config, DosCharset::default());
        measure(count, &runtime, &mut Raw::new(&servers[0]), &mut blocking, &tokio, &cns);
    }
}

fn measure(
    count: usize,
    runtime: &Runtime,
    raw: &mut Raw,
    blocking: &mut BlockingResolver,
    tokio: &Resolver,
    cns: &[Cn],
) {
    let mut single: [Vec<Duration>; 3] = Default::default();
    let mut many: [Vec<f64>; 3] = Default::default();
    for round in 0..ROUNDS {
        for turn in 0..TURN {
            let cn = &cns[(round * TURN + turn) % cns.len()];
            let begun = Instant::now();
            raw.lookups(std::slice::from_ref(cn));
            single[0].push(begun.elapsed());
            let begun = Instant::now();
            let found = blocking.lookup(cn, begun + Duration::from_secs(5)).unwrap();
            single[1].push(begun.elapsed());
            assert_eq!(found.native.len(), 1);
        }
        runtime.block_on(async {
            for turn in 0..TURN {
                let cn = &cns[turn % cns.len()];
                let begun = Instant::now();
                tokio.lookup(cn).await.unwrap();
                single[2].push(begun.elapsed());
            }
        });
        let begun = Instant::now();
        for some in cns.chunks(AT_ONCE) {
            raw.lookups(some);
        }
        many[0].push(cns.len() as f64 / begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        runtime.block_on(async {
            for some in cns.chunks(AT_ONCE) {
                for found in tokio.lookup_many(some).await {
                    assert_eq!(found.unwrap().native.len(), 1);
                }
            }
        });
        many[1].push(cns.len() as f64 / begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        runtime.block_on(async {
            for some in cns.chunks(AT_ONCE) {
                let mut tasks = JoinSet::new();
                for cn in some {
                    let (tokio, cn) = (tokio.clone(), cn.clone());
                    tasks.spawn(async move { tokio.lookup(&cn).await.unwrap() });
                }
                while let Some(found) = tasks.join_next().await {
                    found.unwrap();
                }
            }
        });
        many[2].push(cns.len() as f64 / begun.elapsed().as_secs_f64());
    }
    println!("{count} server(s)          p50, us   p99, us   x raw (p50)");
    let (floor, _) = percentiles(&mut single[0]);
    for (name, times) in ["raw socket", "blocking", "tokio"].iter().zip(&mut single) {
        let (p50, p99) = percentiles(times);
        println!("  {name:<18} {p50:>9.1} {p99:>9.1} {:>9.2}", p50 / floor);
    }
    let median = |rates: &mut Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    let raw = median(&mut many[0]);
    println!("  {AT_ONCE} at once: raw socket {raw:.0}/s");
    for (name, rates) in ["lookup_many", "a task for each"].iter().zip(&mut many[1..]) {
        let rate = median(rates);
        println!("  {name:<18} {rate:>9.0}/s, {:.2} x raw", rate / raw);
    }
}
