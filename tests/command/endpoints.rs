//! `list` and `flush`: what stands in the records.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use ocbus::resolver::{Cn, Config, Selection};
use ocbus::sandbox::{Memcached, Sandbox};
use ocbus::wire::openchange::{DosCharset, ResolverRecord};

use crate::support::{Bench, ended, json, ocbus, run, until, urls};

/// bob with a live native, a live legacy and a dead native endpoint. Gives the watchers and the dead URL.
fn bob(bench: &Bench) -> (Vec<ocbus::sandbox::Child>, String) {
    let live = vec![bench.watch(&["bob"]), bench.watch(&["--legacy", "bob"])];
    let mut dead = bench.watch(&["--lease", "1000", "bob"]);
    let url = urls(&dead).remove(0);
    dead.signal("KILL").unwrap();
    ended(&mut dead);
    (live, url)
}

#[test]
fn endpoints_are_listed_and_checked() {
    let bench = Bench::new();
    let (live, dead) = bob(&bench);
    let (native, legacy) = (urls(&live[0]).remove(0), urls(&live[1]).remove(0));
    let run = bench.run(&["list", "--check", "bob", "Bob", "carol"]);
    let lines: Vec<Vec<&str>> = run.ok().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["USER", "KIND", "URL", "LEASE", "MISSED", "CHECK"]);
    assert_eq!(lines[1][..3], ["bob", "native", native.as_str()]);
    assert_eq!(lines[1][4..], ["s", "0", "reachable"]);
    assert_eq!(lines[2][..3], ["bob", "native", dead.as_str()]);
    assert!((990..=1000).contains(&lines[2][3].parse::<u32>().unwrap()), "{lines:?}");
    assert_eq!(lines[2][6], "refused");
    assert_eq!(lines[3], ["bob", "legacy", legacy.as_str(), "never", "expires", "-", "reachable"]);
    assert_eq!(lines[4].join(" "), "carol nobody is registered");
    assert_eq!(lines.len(), 5);

    let entries = bench.run(&["list", "--json", "--check", "bob"]).json();
    let checks: Vec<&str> = entries.iter().map(|entry| entry["check"].as_str().unwrap()).collect();
    assert_eq!(checks, ["reachable", "refused", "reachable"]);
    assert_eq!(entries[0]["expired"], false);
    assert!(entries[0]["lease_s"].as_u64().unwrap() <= 60);
    assert_eq!(entries[0]["missed"], 0);
    assert_eq!((&entries[2]["kind"], entries[2].get("lease_s")), (&"legacy".into(), None));
    assert!(bench.run(&["list", "--json", "bob"]).json()[0].get("check").is_none());
}

#[test]
fn a_malformed_record_is_shown_as_such() {
    let bench = Bench::new();
    bench.memcached.set("resolver:bob", b"hello").unwrap();
    bench.memcached.set("ocbus:bob", b"\xc1").unwrap();
    let run = bench.run(&["list", "bob"]);
    let text = run.ok();
    assert!(text.contains("resolver:bob: malformed: at octet 0: version 104"), "{text}");
    assert!(text.contains("ocbus:bob: malformed: at octet"), "{text}");
    let entries = bench.run(&["list", "--json", "bob"]).json();
    assert_eq!(entries.iter().filter(|entry| entry["malformed"].is_string()).count(), 2);
    assert!(bench.run(&["flush", "bob"]).ok().contains("malformed"));
    bench.run(&["send", "bob", "--uid", "1"]).fails_after_output(1, &["ocbus:bob", "nothing could be sent"]);
}

#[test]
fn flush_removes_what_refuses_and_with_all_everything() {
    let bench = Bench::new();
    let (live, dead) = bob(&bench);
    let (native, legacy) = (urls(&live[0]).remove(0), urls(&live[1]).remove(0));
    let run = bench.run(&["flush", "bob"]);
    let lines: Vec<String> =
        run.ok().lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        lines,
        [
            format!("bob native {native} kept reachable"),
            format!("bob native {dead} removed refused"),
            format!("bob legacy {legacy} kept reachable"),
        ]
    );
    assert_eq!(bench.run(&["list", "--json", "bob"]).json().len(), 2);
    let removed = bench.run(&["flush", "--all", "--json", "bob"]).json();
    assert!(removed.len() == 2 && removed.iter().all(|one| one["removed"] == true), "{removed:?}");
    assert_eq!((bench.record("ocbus:bob"), bench.record("resolver:bob")), (None, None));
    assert_eq!(bench.run(&["flush", "bob"]).ok(), "bob  nobody is registered\n");
}

#[test]
fn without_memcached_each_fails_in_one_line() {
    let mut bench = Bench::new();
    let address = bench.memcached.address();
    bench.memcached.stop().unwrap();
    for command in ["list", "flush", "send"] {
        let started = Instant::now();
        bench.run(&[command, "bob", "--timeout", "300"]).fails(1, &[&address, "deadline"]);
        assert!(started.elapsed() < Duration::from_secs(3));
    }
    bench.memcached.kill();
    for command in ["list", "flush", "send"] {
        bench.run(&[command, "bob"]).fails(1, &[&address, "refused"]);
    }
}

/// Two memcacheds, with a user on each.
struct Two {
    sandbox: Sandbox,
    servers: [Memcached; 2],
    string: String,
    users: [Cn; 2],
}

impl Two {
    fn new() -> Two {
        let sandbox = Sandbox::new().unwrap();
        let servers = [sandbox.memcached().unwrap(), sandbox.memcached().unwrap()];
        let string = servers.each_ref().map(Memcached::configuration).join(" ");
        let selection = Selection::new(&Config::parse(&string).unwrap()).unwrap();
        let of = |place: usize| {
            let mut names = (0..).map(|number| Cn::new(&format!("user{number}")).unwrap());
            names.find(|cn| selection.index(cn.resolver_key().as_bytes()) == place).unwrap()
        };
        Two { sandbox, servers, string, users: [of(0), of(1)] }
    }

    /// Registers an OpenChange v1 endpoint for each.
    fn register(&self, url: &str) {
        let record = ResolverRecord { hosts: vec![url.to_owned()] }.encode(DosCharset::default()).unwrap();
        for (server, user) in self.servers.iter().zip(&self.users) {
            server.set(&user.resolver_key(), &record).unwrap();
        }
    }

    /// A command of both, the second's user first.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = ocbus(arguments);
        command.args([self.users[1].as_str(), self.users[0].as_str()]).env("OCBUS_RESOLVER", &self.string);
        command
    }
}

#[test]
fn one_of_several_memcacheds_that_is_down_costs_its_own_users_only() {
    let mut two = Two::new();
    two.register("tcp://127.0.0.1:1");
    two.servers[1].kill();
    let (address, lost) = (two.servers[1].address(), two.users[1].as_str().to_owned());
    let parts = [address.as_str(), "refused", "not looked up", &lost];
    let listed = run(two.command(&["list", "--json"]), b"");
    listed.fails_after_output(1, &parts);
    let objects = json(&listed.stdout);
    assert_eq!(objects.len(), 1, "{listed:?}");
    assert_eq!(objects[0]["user"], two.users[0].as_str());
    let flushed = run(two.command(&["flush", "--json"]), b"");
    flushed.fails_after_output(1, &parts);
    let objects = json(&flushed.stdout);
    assert_eq!(objects.len(), 1, "{flushed:?}");
    assert_eq!((&objects[0]["user"], &objects[0]["removed"]), (&two.users[0].as_str().into(), &true.into()));
    assert_eq!(two.servers[0].get(&two.users[0].resolver_key()).unwrap(), None);
    // Of nothing but failures there is no "nobody is registered".
    two.servers[0].kill();
    run(two.command(&["list"]), b"").fails(1, &parts);
    run(two.command(&["flush"]), b"").fails(1, &parts);
}

#[test]
fn what_was_flushed_is_told_though_a_memcached_fails_in_the_middle() {
    let mut two = Two::new();
    // It takes connections and says nothing: the command waits there, between its look-ups and its removals.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    two.register(&format!("tcp://{}", silent.local_addr().unwrap()));
    let command = two.command(&["flush", "--all", "--json", "--timeout", "2000"]);
    let mut flush = two.sandbox.start("ocbus", &command).unwrap();
    let _connection = until("the look at the endpoint", || silent.accept().ok());
    two.servers[1].kill();
    assert_eq!(ended(&mut flush), Some(1), "{}", flush.stderr());
    let objects = json(&flush.stdout());
    let what = |at: usize| (objects[at]["user"].as_str().unwrap(), objects[at]["removed"].as_bool().unwrap());
    assert_eq!((objects.len(), what(0)), (2, (two.users[1].as_str(), false)), "{objects:?}");
    assert_eq!(what(1), (two.users[0].as_str(), true), "{objects:?}");
    assert!(objects[0]["reason"].as_str().unwrap().contains("not known to be removed"), "{objects:?}");
    let told = flush.stderr();
    assert!(told.contains("not flushed") && told.contains(two.users[1].as_str()), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}
