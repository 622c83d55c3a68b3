//! `list` and `flush`: what stands in the records.

use std::time::{Duration, Instant};

use crate::support::{Bench, ended, urls};

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
