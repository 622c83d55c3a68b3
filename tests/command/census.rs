//! `list` without a user: who is there at all.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ocbus::resolver::{Census, Config};
use ocbus::sandbox::{Child, Sandbox, free_port};
use ocbus::wire::native::{Lease, LeaseRecord};
use ocbus::wire::openchange::{DosCharset, ResolverRecord};
use serde_json::Value;
use uuid::Uuid;

use crate::support::{Bench, ocbus, run, until};

/// A record of leases that end in so many seconds.
fn leases(endpoints: &[(&str, i64)]) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() * 1000;
    let lease = |(endpoint, seconds): &(&str, i64)| Lease {
        endpoint: (*endpoint).to_owned(),
        subscriber: Uuid::from_u128(7),
        until_ms: now.saturating_add_signed(seconds * 1000),
        legacy: None,
        missed: 0,
    };
    LeaseRecord::new(endpoints.iter().map(lease).collect()).encode().unwrap()
}

fn hosts(endpoints: &[&str]) -> Vec<u8> {
    let hosts = endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect();
    ResolverRecord { hosts }.encode(DosCharset::default()).unwrap()
}

/// Stores many records without waiting for each.
fn store(mut stream: impl Read + Write, records: impl IntoIterator<Item = (String, Vec<u8>)>) {
    let mut octets = Vec::new();
    for (key, value) in records {
        write!(octets, "set {key} 0 0 {} noreply\r\n", value.len()).unwrap();
        octets.extend_from_slice(&value);
        octets.extend_from_slice(b"\r\n");
    }
    octets.extend_from_slice(b"version\r\n");
    stream.write_all(&octets).unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    assert!(answer.starts_with("VERSION"), "{answer}");
}

fn tcp(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).unwrap()
}

/// A memcached with options of its own. Ends when dropped.
fn memcached(sandbox: &Sandbox, options: &[&str]) -> (Child, u16) {
    let port = free_port().unwrap();
    let mut command = Command::new("memcached");
    command.args(["-l", "127.0.0.1", "-p", &port.to_string(), "-u", "nobody", "-U", "0"]).args(options);
    let child = sandbox.start("memcached", &command).unwrap();
    until("memcached's start", || TcpStream::connect(("127.0.0.1", port)).ok());
    (child, port)
}

/// ann with two native endpoints, one of which has ended; bob with both kinds; jürgen%20 as OpenChange has him; and
/// what is nobody.
fn people(bench: &Bench) {
    let set = |key: &str, value: &[u8]| bench.memcached.set(key, value).unwrap();
    set("ocbus:ann", &leases(&[("tcp://127.0.0.1:1", 1000), ("tcp://127.0.0.1:3", -5)]));
    set("ocbus:bob", &leases(&[("tcp://127.0.0.1:1", 1000)]));
    set("resolver:bob", &hosts(&["tcp://127.0.0.1:2", "tcp://127.0.0.1:4"]));
    set("resolver:jürgen%20", &hosts(&["tcp://127.0.0.1:2"]));
    for key in
        ["other", "ocbus:", "ocbus:BOB", "ocbus-canary:x", "resolverbob", "ns:ocbus:carol", "OCBUS:dan"]
    {
        set(key, &leases(&[("tcp://127.0.0.1:9", 1000)]));
    }
}

fn entries(objects: &[Value]) -> Vec<String> {
    let text = |object: &Value, name: &str| object[name].as_str().unwrap_or_default().to_owned();
    let entry = |object: &Value| {
        let url = text(object, "url");
        format!(
            "{} {} {}",
            text(object, "user"),
            text(object, "kind"),
            url.trim_start_matches("tcp://127.0.0.1:")
        )
    };
    let mut entries: Vec<String> = objects.iter().map(entry).collect();
    entries.sort_unstable();
    entries
}

#[test]
fn everybody_is_listed_once_and_nobody_else() {
    let bench = Bench::new();
    assert_eq!(bench.run(&["list"]).ok(), "nobody is registered\n");
    assert_eq!(bench.run(&["list", "--json"]).ok(), "");
    people(&bench);
    let all = bench.run(&["list", "--json"]).json();
    assert_eq!(
        entries(&all),
        [
            "ann native 1",
            "ann native 3",
            "bob legacy 2",
            "bob legacy 4",
            "bob native 1",
            "jürgen%20 legacy 2"
        ]
    );
    // The same objects as when they are named, but for a second that may have passed.
    let fields = |mut objects: Vec<Value>, user: &str| {
        objects.retain(|object| object["user"] == user);
        objects.iter_mut().for_each(|object| drop(object.as_object_mut().unwrap().remove("lease_s")));
        objects
    };
    for user in ["ann", "bob", "jürgen%20"] {
        let named = bench.run(&["list", "--json", user]).json();
        assert_eq!(fields(all.clone(), user), fields(named, user));
    }
    let run = bench.run(&["list"]);
    let lines: Vec<Vec<&str>> = run.ok().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["USER", "KIND", "URL", "LEASE", "MISSED"]);
    assert_eq!(lines.len(), 7, "{run:?}");
    assert!(lines.contains(&vec!["ann", "native", "tcp://127.0.0.1:3", "expired", "0"]), "{run:?}");
    bench.memcached.set("ocbus:eve", b"\xc1").unwrap();
    bench.memcached.set("resolver:eve", &hosts(&["tcp://127.0.0.1:2"])).unwrap();
    assert_eq!(bench.run(&["list"]).ok().matches("ocbus:eve: malformed").count(), 1);
    assert_eq!(entries(&bench.run(&["list", "--json", "--legacy"]).json())[2], "eve legacy 2");
}

#[test]
fn filters_choose_and_a_summary_counts() {
    let bench = Bench::new();
    people(&bench);
    for (filter, expected) in [
        (&["--native"][..], &["ann native 1", "ann native 3", "bob native 1"][..]),
        (&["--legacy"], &["bob legacy 2", "bob legacy 4", "jürgen%20 legacy 2"]),
        (&["--endpoint", "tcp://127.0.0.1:2"], &["bob legacy 2", "jürgen%20 legacy 2"]),
        (&["--endpoint", "tcp://127.0.0.1"], &[]),
        (&["--stale"], &["ann native 3"]),
        (&["--stale", "--check", "--native"], &["ann native 1", "ann native 3", "bob native 1"]),
        (&["--native", "bob"], &["bob native 1"]),
    ] {
        let run = bench.run(&[&["list", "--json"], filter].concat());
        assert_eq!(entries(&run.json()), expected, "{filter:?}");
    }
    assert_eq!(bench.run(&["list", "--endpoint", "tcp://nowhere"]).ok(), "none that matches\n");
    assert_eq!(bench.run(&["list", "--stale", "bob", "carol"]).ok().lines().count(), 3);
    let numbers = |arguments: &[&str]| {
        let object = bench.run(arguments).json().remove(0);
        ["users", "native", "legacy", "endpoints", "stale", "malformed"]
            .map(|name| object[name].as_u64().unwrap())
    };
    assert_eq!(numbers(&["list", "--summary", "--json"]), [3, 3, 3, 4, 1, 0]);
    assert_eq!(numbers(&["list", "--summary", "--json", "--check"]), [3, 3, 3, 4, 6, 0]);
    assert_eq!(numbers(&["list", "--summary", "--json", "--legacy"]), [2, 0, 3, 2, 0, 0]);
    assert_eq!(numbers(&["list", "--summary", "--json", "ann", "carol"]), [1, 2, 0, 2, 1, 0]);
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(
        words(bench.run(&["list", "--summary"]).ok()),
        "users 3 native 3 legacy 3 endpoints 4 stale 1 malformed 0"
    );
    bench.run(&["list", "--native", "--legacy"]).fails(2, &["--native", "--legacy"]);
}

/// Its standard output and the largest resident size, in KiB, that it had while it ran.
fn measured(mut command: Command) -> (String, u64, Duration) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::from(file.reopen().unwrap())).stderr(Stdio::piped());
    let started = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut highest = 0;
    let status = loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let size = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
        highest = highest.max(size.unwrap_or_default());
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(started.elapsed() < Duration::from_secs(50), "still runs");
        std::thread::sleep(Duration::from_millis(5));
    };
    let took = started.elapsed();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    (text, highest, took)
}

#[test]
fn a_hundred_thousand_users_stream_through_little_memory() {
    let sandbox = Sandbox::new().unwrap();
    let (_child, port) = memcached(&sandbox, &["-m", "512"]);
    let native = leases(&[("tcp://127.0.0.1:1", 10_000)]);
    let name = |number: u32| format!("user.{number:06}@mail.example.org");
    // Half native, a quarter OpenChange's, a quarter both.
    store(tcp(port), (0..75_000).map(|number| (format!("ocbus:{}", name(number)), native.clone())));
    let legacy = |number: u32| hosts(&[&format!("tcp://10.0.0.1:{}", number % 60_000)]);
    store(tcp(port), (50_000..100_000).map(|number| (format!("resolver:{}", name(number)), legacy(number))));
    store(tcp(port), (0..1000).map(|number| (format!("other:{number}"), vec![0; 100])));
    let command = |arguments: &[&str]| {
        let mut command = ocbus(arguments);
        command.env("OCBUS_RESOLVER", format!("--SERVER=127.0.0.1:{port}"));
        command
    };
    let (text, highest, took) = measured(command(&["list", "--json"]));
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let object: Value = serde_json::from_str(line).unwrap();
        let field = |name: &str| object[name].as_str().unwrap().to_owned();
        found.entry(field("user")).or_default().push(field("kind"));
    }
    assert_eq!(found.len(), 100_000);
    for (number, (user, kinds)) in (0..).zip(&found) {
        let expected: &[&str] = match number {
            0..50_000 => &["native"],
            50_000..75_000 => &["native", "legacy"],
            _ => &["legacy"],
        };
        assert_eq!((user, kinds.as_slice() == expected), (&name(number), true), "{kinds:?}");
    }
    eprintln!("100,000 users: {took:?}, {highest} KiB");
    assert!(highest > 1000 && highest < 64 * 1024, "{highest} KiB");

    let (text, highest, took) = measured(command(&["list", "--summary", "--json"]));
    let object: Value = serde_json::from_str(&text).unwrap();
    let expected = [("users", 100_000), ("native", 75_000), ("legacy", 50_000), ("endpoints", 50_001)];
    assert!(expected.iter().all(|(name, number)| object[name] == *number), "{text}");
    eprintln!("their summary: {took:?}, {highest} KiB");
    assert!(highest < 64 * 1024, "{highest} KiB");

    // A reader that has seen enough, and another crawl that stands still because nobody reads it.
    let mut child = command(&["list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("USER"), "{line}");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    let mut other = tcp(port);
    until("the other's crawl", || {
        other.write_all(b"lru_crawler metadump all\r\n").unwrap();
        let mut start = [0; 4];
        other.read_exact(&mut start).unwrap();
        if start == *b"key=" {
            return Some(());
        }
        BufReader::new(&other).read_line(&mut String::new()).unwrap();
        None
    });
    // 1.6.18 has us wait; others say that they are busy.
    run(command(&["list", "--timeout", "300"]), b"").fails(1, &[&port.to_string(), "memcached"]);
}

#[test]
fn a_memcached_that_cannot_tell_is_one_line() {
    let mut bench = Bench::new();
    people(&bench);
    let address = bench.memcached.address();
    bench.memcached.stop().unwrap();
    let started = Instant::now();
    bench.run(&["list", "--timeout", "300"]).fails(1, &[&address, "deadline"]);
    bench.run(&["list", "--summary", "--timeout", "300"]).fails(1, &[&address, "deadline"]);
    assert!(started.elapsed() < Duration::from_secs(3));
    bench.memcached.kill();
    bench.run(&["list"]).fails(1, &[&address, "refused"]);

    let (_child, port) = memcached(&bench.sandbox, &["-o", "no_lru_crawler"]);
    let mut command = ocbus(&["list"]);
    command.env("OCBUS_RESOLVER", format!("--SERVER=127.0.0.1:{port}"));
    run(command, b"").fails(1, &[&port.to_string(), "lru crawler disabled", "expected memcached"]);
}

/// A process that ends with the test.
struct Ending(std::process::Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two by TCP and one by a unix socket, under a namespace, which is in the keys and does not choose the server.
#[test]
fn all_servers_of_a_configuration_are_asked() {
    let sandbox = Sandbox::new().unwrap();
    let (_first, first) = memcached(&sandbox, &[]);
    let (mut second, second_port) = memcached(&sandbox, &[]);
    let path = sandbox.path().join("memcached.sock");
    let path = path.to_str().unwrap();
    // As whoever the sandbox's folder belongs to.
    let third = Command::new("memcached").args(["-s", path, "-u", "root"]).spawn().unwrap();
    let _third = Ending(third);
    until("the start of the one with a socket", || UnixStream::connect(path).ok());
    let string = format!(
        "--SERVER=127.0.0.1:{first} --SERVER=127.0.0.1:{second_port} --SOCKET=\"{path}\" --NAMESPACE=\"ns:\""
    );
    let command = |arguments: &[&str]| {
        let mut command = ocbus(arguments);
        command.env("OCBUS_RESOLVER", &string);
        command
    };
    let store_at = |index: usize, records: Vec<(String, Vec<u8>)>| match index {
        0 => store(tcp(first), records),
        1 => store(tcp(second_port), records),
        _ => store(UnixStream::connect(path).unwrap(), records),
    };
    // Where libmemcached puts them, `inspect server` says; leases are beside OpenChange's record.
    let keys: Vec<String> = (0..40).map(|number| format!("resolver:user{number}")).collect();
    let mut arguments = vec!["inspect", "server", &string];
    arguments.extend(keys.iter().map(String::as_str));
    let mut chosen = BTreeSet::new();
    for place in run(ocbus(&arguments), b"").json() {
        let hosts_key = place["key"].as_str().unwrap();
        let lease_key = hosts_key.replace("resolver:", "ocbus:");
        let index = usize::try_from(place["index"].as_u64().unwrap()).unwrap();
        chosen.insert(index);
        let leases = leases(&[("tcp://127.0.0.1:1", 1000)]);
        let hosts = hosts(&["tcp://127.0.0.1:2"]);
        store_at(
            index,
            vec![(format!("ns:{hosts_key}"), hosts.clone()), (format!("ns:{lease_key}"), leases)],
        );
        // What an older configuration left elsewhere, and what others have there.
        let elsewhere =
            vec![(format!("ns:{hosts_key}"), hosts.clone()), ("resolver:other".to_owned(), hosts)];
        store_at((index + 1) % 3, elsewhere);
    }
    assert_eq!(chosen.len(), 3);
    let all = run(command(&["list", "--json"]), b"").json();
    let users: BTreeSet<&str> = all.iter().map(|object| object["user"].as_str().unwrap()).collect();
    assert_eq!((all.len(), users.len()), (80, 40));
    second.stop();
    let some = run(command(&["list", "--json", "--timeout", "500"]), b"");
    some.fails_after_output(1, &[&second_port.to_string(), "refused"]);
    let objects = crate::support::json(&some.stdout);
    assert!(!objects.is_empty() && objects.len() < 80 && objects.len().is_multiple_of(2), "{some:?}");
}

/// Users whom one look of memcached's own does not show, of so many.
fn hidden(stream: &mut TcpStream, users: usize) -> usize {
    stream.write_all(b"lru_crawler metadump all\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(|line| line.unwrap());
    users - lines.by_ref().take_while(|line| line != "END").filter(|line| line.contains("=ocbus%3A")).count()
}

#[test]
fn whom_a_subscriber_is_just_looking_up_is_among_them() {
    const USERS: usize = 200;
    let bench = Bench::new();
    let names: Vec<String> = (0..USERS).map(|number| format!("user{number}")).collect();
    let resolver = bench.memcached.configuration();
    let mut watch = Command::new(env!("CARGO_BIN_EXE_ocbus"));
    watch.arg("watch").args(&names).args(["--resolver", &resolver]);
    let _watch = bench.sandbox.start("watch", &watch).unwrap();
    let mut stream = tcp(bench.memcached.port());
    until("all are registered", || (hidden(&mut stream, USERS) == 0).then_some(()));
    let config: Config = resolver.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for round in 0..12 {
        // Two heartbeats a second hide them, each for some milliseconds.
        until("some are hidden", || (hidden(&mut stream, USERS) > 0).then_some(()));
        let found = runtime.block_on(async {
            let mut census = Census::new(&config, Duration::from_secs(5));
            let mut found = BTreeSet::new();
            while let Some(cn) = census.next().await.unwrap() {
                found.insert(cn);
            }
            found
        });
        assert_eq!(found.len(), USERS, "census {round}");
    }
}
