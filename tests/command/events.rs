//! `watch` and `send`: events from one process to the other.

use std::time::{Duration, Instant};

use ocbus::sandbox::faults::Silent;

use crate::support::{Bench, ended, json, lines, until, urls};

#[test]
fn a_native_watcher_gets_what_is_sent() {
    let bench = Bench::new();
    let mut watcher = bench.watch(&["--json", "--count", "2", "Bob"]);
    let url = urls(&watcher).remove(0);
    let sent = bench.run(&[
        "send",
        "bob",
        "--folder",
        "Entwürfe/2026",
        "--uid",
        "7",
        "--from",
        "Alice <alice@example.org>",
        "--subject",
        "Hi\u{1b}[31m",
        "--backend",
        "other",
    ]);
    assert_eq!(sent.ok(), format!("{url}  native  acknowledged\n"));
    let report = &bench.run(&["send", "BOB", "--message", "letter", "--json"]).json()[0];
    assert_eq!(report["endpoints"][0]["outcome"], "acknowledged");
    assert_eq!((&report["taken"], &report["user"]), (&1.into(), &"bob".into()));

    assert_eq!(ended(&mut watcher), Some(0));
    let mut events = json(&watcher.stdout());
    // A Resync is printed and not counted: on a busy machine memcached takes longer for a heartbeat than a publisher may
    // have waited for it, and then there is one.
    events.retain(|event| event["kind"] != "Resync");
    let [first, second] = events.as_slice() else { panic!("{events:?}") };
    for (name, value) in [
        ("user", "bob"),
        ("kind", "MessageNew"),
        ("mailbox", "Entwürfe/2026"),
        ("separator", "/"),
        ("storage_name", "Entw&APw-rfe/2026"),
        ("list_separator", "/"),
        ("uids", "7"),
        ("from", "Alice <alice@example.org>"),
        ("subject", "Hi\u{1b}[31m"),
        ("backend", "other"),
    ] {
        assert_eq!(first[name], value, "{name}");
    }
    assert_eq!(first["uid"], 7);
    let (time_us, received_us) = (first["time_us"].as_u64().unwrap(), first["received_us"].as_u64().unwrap());
    assert!((time_us..time_us + 10_000_000).contains(&received_us), "{first}");
    let time = first["time"].as_str().unwrap();
    assert!(time.len() == "2026-01-05T10:00:00.000000Z".len() && time.ends_with('Z'), "{time}");
    assert!(time.ends_with(&format!("{:06}Z", time_us % 1_000_000)), "{time}");
    assert_eq!(second["id"], report["id"]);
    assert_eq!((&second["name"], second.get("uid")), (&"letter".into(), None));
    assert_eq!(bench.record("ocbus:bob"), None, "it has left");
}

#[test]
fn a_legacy_watcher_gets_what_openchange_can_say() {
    let bench = Bench::new();
    let mut watcher = bench.watch(&["--legacy", "--json", "--count", "1", "bob"]);
    let url = urls(&watcher).remove(0);
    let record = bench.record("resolver:bob").unwrap();
    assert_eq!(record, [b"\x01\x01\0\0\0\x01\0\0\0".as_slice(), url.as_bytes(), b"\0"].concat());
    // Neither UID nor name: OpenChange has no way to say that.
    let unsaid = bench.run(&["send", "bob"]);
    unsaid.fails_after_output(1, &["bob", "uid"]);
    let sent =
        bench.run(&["send", "bob", "--folder", "Projects.2026", "--separator", ".", "--message", "7.eml"]);
    assert_eq!(sent.ok(), format!("{url}  legacy  delivered\n"));
    assert_eq!(ended(&mut watcher), Some(0));
    let event = &json(&watcher.stdout())[0];
    for (name, value) in [
        ("mailbox", "Projects.2026"),
        ("separator", "."),
        ("uids", "7"),
        ("backend", "sogo"),
        ("kind", "MessageNew"),
    ] {
        assert_eq!(event[name], value, "{name}");
    }
    assert_eq!(bench.record("resolver:bob"), None, "it has left");
}

#[test]
fn people_get_one_line_that_cannot_act_on_their_terminal() {
    let bench = Bench::new();
    let watcher = bench.watch(&["bob", "alice@example.org"]);
    assert!(watcher.stderr().ends_with("for bob, alice@example.org\n"), "{}", watcher.stderr());
    bench.run(&["send", "bob", "--uid", "7", "--from", "A", "--subject", "x\u{1b}]0;y\u{7}\nz"]).ok();
    bench.run(&["send", "alice@example.org", "--folder", "Lists"]).ok();
    let lines = lines(&watcher, 2);
    assert!(
        lines[0].contains("  bob  MessageNew  INBOX  uid 7  from A  \"x\\u{1b}]0;y\\u{7}\\nz\"  +"),
        "{lines:?}"
    );
    assert!(
        lines[1].contains("  alice@example.org  MessageNew  Lists  +") && lines[1].ends_with(" ms"),
        "{lines:?}"
    );
}

#[test]
fn a_signal_ends_it_and_takes_the_registration_back() {
    for (signal, kind, key) in
        [("TERM", "native", "ocbus:bob"), ("INT", "legacy", "resolver:bob"), ("HUP", "native", "ocbus:bob")]
    {
        let bench = Bench::new();
        let arguments: &[&str] = if kind == "legacy" { &["--legacy", "bob"] } else { &["bob"] };
        let mut watcher = bench.watch(arguments);
        assert!(bench.record(key).is_some());
        let started = Instant::now();
        watcher.signal(signal).unwrap();
        assert_eq!(ended(&mut watcher), Some(0), "{signal}");
        assert!(started.elapsed() < Duration::from_secs(3));
        assert_eq!(bench.record(key), None, "{signal}");
    }
}

#[test]
fn leaving_is_bounded_when_memcached_hangs() {
    let bench = Bench::new();
    let mut watcher = bench.watch(&["bob"]);
    bench.memcached.stop().unwrap();
    let started = Instant::now();
    watcher.signal("TERM").unwrap();
    assert_eq!(ended(&mut watcher), Some(0));
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[test]
fn memcached_may_come_later() {
    let mut bench = Bench::new();
    bench.memcached.kill();
    let mut watcher = bench.start(&["watch", "--json", "bob"]);
    watcher.wait_output("warning", crate::support::LIMIT).unwrap();
    bench.memcached.restart().unwrap();
    watcher.wait_output("listening at ", crate::support::LIMIT).unwrap();
    let warnings = watcher.stderr();
    let absent = warnings.lines().filter(|line| line.contains(&bench.memcached.address())).count();
    assert_eq!(absent, 1, "{warnings}");
    assert!(
        warnings
            .lines()
            .all(|line| line.starts_with("ocbus: warning: ") || line.starts_with("listening at "))
    );
    bench.run(&["send", "bob", "--uid", "1"]).ok();
    until("the event", || watcher.stdout().contains("MessageNew").then_some(()));
}

#[test]
fn a_count_and_a_time_end_it() {
    let bench = Bench::new();
    assert_eq!(ended(&mut bench.watch(&["--for", "300ms", "bob"])), Some(0));
    let mut waiter = bench.watch(&["--for", "300ms", "--count", "1", "bob"]);
    assert_eq!(ended(&mut waiter), Some(1));
    assert!(waiter.stderr().ends_with("\nocbus: 0 of 1 events within 300ms\n"), "{}", waiter.stderr());
    assert_eq!(bench.record("ocbus:bob"), None);
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let bench = Bench::new();
    let script = format!("'{}' watch bob | head -n 1; exit ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_ocbus"));
    let mut command = std::process::Command::new("bash");
    command
        .args(["-c", &script])
        .env("OCBUS_RESOLVER", bench.memcached.configuration())
        .env_remove("OCBUS_LOG");
    let mut pipe = bench.sandbox.start("pipe", &command).unwrap();
    pipe.wait_output("listening at ", crate::support::LIMIT).unwrap();
    until("the end of the watcher", || {
        bench.run(&["send", "bob", "--uid", "1"]);
        bench.record("ocbus:bob").is_none().then_some(())
    });
    assert_eq!(ended(&mut pipe), Some(0));
    assert_eq!(pipe.stderr().lines().count(), 1, "{}", pipe.stderr());
}

#[test]
fn sending_says_what_happened_at_each_endpoint() {
    let bench = Bench::new();
    bench.run(&["send", "bob", "--uid", "1"]).fails(1, &["bob", "nobody is registered"]);

    // A subscriber that was killed: its endpoint refuses.
    let mut dead = bench.watch(&["bob"]);
    let url = urls(&dead).remove(0);
    dead.signal("KILL").unwrap();
    ended(&mut dead);
    let alone = bench.run(&["send", "bob", "--uid", "1"]);
    alone.fails_after_output(1, &["bob", "did not take"]);
    assert_eq!(alone.stdout, format!("{url}  native  refused (removed)\n"));
    assert_eq!(bench.record("ocbus:bob"), None);

    // One that accepts and says nothing, beside a live one.
    let silent = Silent::new().unwrap();
    let silent_url = format!("tcp://127.0.0.1:{}", silent.port());
    let record = [b"\x01\x01\0\0\0\x01\0\0\0".as_slice(), silent_url.as_bytes(), b"\0"].concat();
    bench.memcached.set("resolver:bob", &record).unwrap();
    let _live = bench.watch(&["bob"]);
    let started = Instant::now();
    let report = &bench.run(&["send", "bob", "--uid", "1", "--budget", "500", "--json"]).json()[0];
    assert!(started.elapsed() < Duration::from_secs(3));
    assert_eq!(report["taken"], 1, "{report}");
    let outcomes: Vec<&str> =
        report["endpoints"].as_array().unwrap().iter().map(|one| one["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["acknowledged", "dropped"], "{report}");
}
