//! systemd, signals, and what a kill leaves behind.

use std::collections::HashSet;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ocbus::subscriber::SubscriberConfig;
use ocbus::{Event, EventKind};

use super::client::{Client, ask, notify, request};
use super::support::{listen, until};
use super::{BASIC, House};

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn systemd_is_told_of_everything() {
    let house = House::new();
    let path = house.sandbox.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let next = || {
        let mut octets = [0; 4096];
        let length = socket.recv(&mut octets).unwrap();
        String::from_utf8(octets[..length].to_vec()).unwrap()
    };
    let until = |pattern: &str| loop {
        let message = next();
        if message.contains(pattern) {
            return message;
        }
        assert!(message.contains("WATCHDOG=1"), "{message} before {pattern}");
    };
    let file = house.sandbox.path().join("systemd.toml");
    std::fs::write(&file, house.text("http.listen = '127.0.0.1:0'")).unwrap();
    // WATCHDOG_PID is the daemon's, as systemd sets it.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "WATCHDOG_PID=$$ exec \"$0\" serve --config \"$1\""]);
    command.arg(ocbus::sandbox::built_command().unwrap()).arg(&file);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let mut daemon = house.sandbox.start("systemd", &command).unwrap();
    let ready = until("READY=1");
    assert!(ready.contains("STATUS=listening at 127.0.0.1:"), "{ready}");
    let begun = Instant::now();
    (0..5).for_each(|_| drop(until("WATCHDOG=1")));
    assert!(begun.elapsed() < Duration::from_millis(1000), "twice in each interval: {:?}", begun.elapsed());
    daemon.signal("HUP").unwrap();
    let reloading = until("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    until("READY=1");
    daemon.signal("TERM").unwrap();
    until("STOPPING=1");
    assert_eq!(daemon.wait(LIMIT).unwrap().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_answers_what_is_under_way_and_sends_what_was_accepted() {
    let mut house = House::new();
    let mut native = listen(&house.memcached, SubscriberConfig::default(), "bob").await;
    let port = house.daemon.port();
    let mut idle = Client::connect(port);
    assert_eq!(idle.ask(&notify("bob", 1)).status, 200);
    let mut under_way = Client::connect(port);
    let request = notify("bob", 2);
    under_way.send(&request[..request.len() - 5]);
    // Its head has been read when it is told to go on.
    std::thread::sleep(Duration::from_millis(100));
    for uid in 3..=200 {
        assert_eq!(idle.ask(&notify("bob", uid)).status, 200);
    }
    house.daemon.signal("TERM").unwrap();
    house.daemon.wait_log("event=\"stopping\"", LIMIT).unwrap();
    until("nothing listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(idle.try_answer().is_none(), "an idle connection is closed");
    let answer = under_way.ask(&request[request.len() - 5..]);
    assert_eq!(answer.status, 200, "{answer:?}");
    let status = house.daemon.wait(LIMIT).unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
    let mut uids = Vec::new();
    for _ in 1..=200 {
        uids.push(native.next_mail().await.1.uid.unwrap());
    }
    uids.sort_unstable();
    assert_eq!(uids, (1..=200).collect::<Vec<u32>>());
}

#[test]
fn the_drain_has_an_end_and_a_second_signal_is_one() {
    for second in [false, true] {
        let mut house = House::with(if second { "drain_s = 60" } else { "drain_s = 1" });
        let mut under_way = Client::connect(house.daemon.port());
        let request = notify("bob", 2);
        under_way.send(&request[..request.len() - 5]);
        assert_eq!(ask(house.daemon.port(), &notify("bob", 1)).status, 200);
        house.daemon.signal("TERM").unwrap();
        house.daemon.wait_log("event=\"stopping\"", LIMIT).unwrap();
        let begun = Instant::now();
        if second {
            house.daemon.signal("INT").unwrap();
        }
        let status = house.daemon.wait(LIMIT).unwrap().unwrap();
        assert_eq!(status.code(), Some(i32::from(second)), "{}", house.daemon.log());
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }
}

#[test]
fn a_resolver_that_hangs_does_not_outlast_the_drain() {
    let mut house = House::with(
        "resolver_timeout_ms = 20000\ndrain_s = 1\nregistration.by = 'doveadm'\n\
         registration.endpoints = ['http://127.0.0.1:1']\nregistration.api_key = 'x'",
    );
    house.memcached.stop().unwrap();
    assert_eq!(ask(house.daemon.port(), &notify("bob", 1)).status, 200);
    let begun = Instant::now();
    house.daemon.signal("TERM").unwrap();
    let status = house.daemon.wait(LIMIT).unwrap().unwrap();
    assert_eq!(status.code(), Some(0), "{}", house.daemon.log());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

/// What was answered with 2xx is delivered, or told by a resync: nothing is lost in silence.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_the_next_one_serves_the_same_subscribers_and_tells_what_is_missing() {
    let state = tempfile::tempdir().unwrap();
    // What comes is sent a while later, so that the kill comes between the answer and the send.
    let mut house =
        House::with(&format!("outbox.state_dir = '{}'\noutbox.gather_ms = 500", state.path().display()));
    let mut native = listen(&house.memcached, SubscriberConfig::default(), "bob").await;
    let port = house.daemon.port();
    for uid in 1..=50 {
        assert_eq!(ask(port, &notify("bob", uid)).status, 200);
    }
    let mut got = vec![native.next().await];
    for uid in 51..=100 {
        assert_eq!(ask(port, &notify("bob", uid)).status, 200);
    }
    house.daemon.kill();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    house.daemon.restart().unwrap();
    assert_eq!(ask(house.daemon.port(), &notify("bob", 101)).status, 200);
    let uid = |event: &Event| match &event.kind {
        EventKind::MessageNew(mail) => mail.uid,
        _ => None,
    };
    while got.last().and_then(|event| uid(event)) != Some(101) {
        got.push(native.next().await);
    }
    let metrics = ask(house.daemon.port(), &request("GET", "/metrics", BASIC, b"")).body;
    let left = metrics.lines().find_map(|line| line.strip_prefix("ocbus_events_left_behind_total "));
    let left: usize = left.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap();
    let is_resync = |event: &Arc<Event>| matches!(event.kind, EventKind::Resync { .. });
    while left > 0 && !got.iter().any(is_resync) {
        got.push(native.next().await);
    }
    let uids: Vec<u32> = got.iter().filter_map(|event| uid(event)).collect();
    let once: HashSet<u32> = uids.iter().copied().collect();
    assert_eq!(uids.len(), once.len(), "none twice: {uids:?}");
    let missing = (1..=101).filter(|uid| !once.contains(uid)).count();
    assert!(missing <= left, "{missing} are missing, and {left} were told of");
}

#[test]
fn a_port_that_is_taken_and_settings_that_are_wrong_are_one_line() {
    let house = House::new();
    let port = house.daemon.port();
    let run = |text: &str, more: &[&str]| {
        let file = house.sandbox.path().join("x.toml");
        std::fs::write(&file, text).unwrap();
        let command = ocbus::sandbox::built_command().unwrap();
        let output =
            std::process::Command::new(command).args(["serve", "--config"]).arg(file).args(more).output();
        let output = output.unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, told) = run(&format!("http.listen = '127.0.0.1:{port}'"), &[]);
    assert!(
        status == 1 && told.contains("http.listen: 127.0.0.1") && told.contains("in use"),
        "{status}: {told}"
    );
    let (status, told) = run("http.listen = '127.0.0.1'", &["--check"]);
    assert!(
        status == 1 && told.lines().count() == 1 && told.contains("x.toml:1: http.listen: "),
        "{status}: {told}"
    );
    let (status, told) = run("drain_s = 5", &["--check"]);
    assert!(status == 0 && told.contains("every process of this host"), "{status}: {told}");
    let (status, _) = run("", &["--nonsense"]);
    assert_eq!(status, 2);
}
