//! What the OX end-point of `ocbus serve` does: requests a second and latency over connections that stay (by Debian's
//! `wrk`), events a second from HTTP to a native subscriber's acknowledgement, and memory at 1,000 connections.
//!
//! wrk, the daemon, memcached and the subscriber share the machine. `OCBUS_BENCH_SECONDS` is the time for each row, 5
//! unless told. The daemon is the one that Cargo has built for the profile of the bench. `docs/performance.md` has figures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::cast_precision_loss)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ocbus::resolver::{Cn, Config, Resolver};
use ocbus::sandbox::{Daemon, Memcached, Sandbox};
use ocbus::subscriber::SubscriberConfig;
use ocbus::wire::openchange::DosCharset;
use ocbus::{Bus, Subscriber};
use tokio::runtime::Runtime;

/// Each request has a UID of its own, so that none is a repetition of another.
const SCRIPT: &str = r#"
local threads = 0
function setup(thread) thread:set("id", threads); threads = threads + 1 end
function init(args)
  user, uid, headers = args[1], id * 100000000 + tonumber(args[2]), {}
  headers["Authorization"] = "Basic bG9naW46cGFzcw=="
  headers["Content-Type"] = "application/json; charset=utf-8"
end
function request()
  uid = uid + 1
  local who = user == "many" and "user" .. (uid % 1000) or user
  local body = '{"user":"' .. who .. '","event":"messageNew","folder":"INBOX","imap-uidvalidity":1795306221,"imap-uid":'
    .. uid .. ',"from":"Alice <alice@example.org>","subject":"hello","snippet":"Hi Bob","unseen":6}'
  return wrk.format("PUT", "/preliminary/http-notify/v1/notify", headers, body)
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), latency.max, e.connect + e.read + e.write + e.status + e.timeout))
end
"#;

struct Run {
    requests: f64,
    seconds: f64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
    errors: f64,
}

fn wrk(script: &Path, daemon: &Daemon, connections: usize, seconds: u64, user: &str, first: usize) -> Run {
    let output = Command::new("wrk")
        .args(["-t", "1", "-c", &connections.to_string(), "-d", &format!("{seconds}s"), "-s"])
        .arg(script)
        .args([&daemon.url("/"), "--", user, &first.to_string()])
        .output()
        .expect("wrk (apt-get install wrk)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let result =
        text.lines().find_map(|line| line.strip_prefix("RESULT ")).unwrap_or_else(|| panic!("{output:?}"));
    let numbers: Vec<f64> = result.split(' ').map(|number| number.parse().unwrap()).collect();
    Run {
        requests: numbers[0],
        seconds: numbers[1] / 1e6,
        p50_us: numbers[2],
        p99_us: numbers[3],
        max_us: numbers[4],
        errors: numbers[5],
    }
}

fn rss_kib(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn daemon(sandbox: &Sandbox, memcached: &Memcached) -> Daemon {
    let state = sandbox.path().join("state");
    std::fs::create_dir_all(&state).unwrap();
    sandbox
        .daemon(&format!(
            "resolver = '{}'\nhttp.repeat_requests = 10000000\noutbox.grace_s = 0\noutbox.state_dir = '{}'\n\
             outbox.max_octets = 1073741824\noutbox.max_user_octets = 1073741824\n\
             [[http.credentials]]\nname = 'dovecot'\nlogin = 'login'\npassword = 'pass'\n",
            memcached.configuration(),
            state.display()
        ))
        .unwrap()
}

fn main() {
    let seconds = std::env::var("OCBUS_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached().unwrap();
    let script = sandbox.path().join("notify.lua");
    std::fs::write(&script, SCRIPT).unwrap();
    let runtime = Runtime::new().unwrap();
    let subscriber = runtime.block_on(async {
        let config = Config::parse(&memcached.configuration()).unwrap();
        let resolver = Resolver::new(&config, DosCharset::default(), Duration::from_secs(1)).await.unwrap();
        let subscriber = Subscriber::start(SubscriberConfig::default(), resolver, Bus::new()).await.unwrap();
        subscriber.add(&Cn::new("bob").unwrap()).await.unwrap();
        subscriber
    });
    println!(
        "| users | connections | requests/s | p50, us | p99, us | max, us | errors | events/s to the acknowledgement |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut first = 0;
    for user in ["many", "bob"] {
        for connections in [1, 16, 64, 1000] {
            let daemon = daemon(&sandbox, &memcached);
            wrk(&script, &daemon, connections, 1, "warm", first);
            let before = subscriber.statistics().events;
            let begun = Instant::now();
            let run = wrk(&script, &daemon, connections, seconds, user, first + 50_000_000);
            let arrived = || (subscriber.statistics().events - before) as f64;
            let mut last = (arrived(), begun.elapsed());
            // wrk cuts off what is under way at its end: a few more may have been taken than it counts.
            let deadline = Instant::now() + Duration::from_secs(60);
            while user == "bob" && last.0 < run.requests && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
                last = (arrived(), begun.elapsed());
            }
            let events = match user {
                "bob" => {
                    format!("{:.0} ({:.0} of {:.0})", last.0 / last.1.as_secs_f64(), last.0, run.requests)
                }
                _ => "-".to_owned(),
            };
            let who = if user == "bob" { "1, native subscriber" } else { "1,000, nobody registered" };
            println!(
                "| {who} | {connections} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {events} |",
                run.requests / run.seconds,
                run.p50_us,
                run.p99_us,
                run.max_us,
                run.errors
            );
            first += 1;
        }
    }
    memory(&daemon(&sandbox, &memcached));
    runtime.block_on(subscriber.stop(Duration::from_secs(2)));
}

/// Connections that have sent a request and wait for their next one.
fn memory(daemon: &Daemon) {
    let open = |count: usize| -> Vec<BufReader<TcpStream>> {
        let connect = |_| {
            let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", daemon.port())).unwrap());
            stream.get_mut().write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            assert!(line.contains("200"), "{line}");
            stream
        };
        (0..count).map(connect).collect()
    };
    let idle = rss_kib(daemon);
    let few = open(10);
    let warm = rss_kib(daemon);
    let many = open(990);
    let full = rss_kib(daemon);
    println!(
        "\nmemory (VmRSS): {idle} KiB at the start, {warm} KiB with {} connections, {full} KiB with {}: {:.1} KiB each",
        few.len(),
        few.len() + many.len(),
        (full - warm) as f64 / many.len() as f64
    );
}
