//! SIGHUP: all or nothing, and what needs a restart is named.

use std::time::Duration;

use super::client::{Client, ask, notify};
use super::{CREDENTIALS, House};

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn a_broken_file_changes_nothing_and_says_why() {
    let mut house = House::new();
    let text = house.text("http.max_body_octets = 1024\nhttp.lisen = 'x'");
    house.daemon.reload(&text).unwrap();
    let log = house.daemon.wait_log("event=\"reload_failed\"", LIMIT).unwrap();
    assert!(log.contains("http.lisen") && log.contains(".toml:4: "), "the key and its line: {log}");
    assert_eq!(ask(house.daemon.port(), &notify("bob", 1)).status, 200);
    // A secret that cannot be read is as bad.
    house.daemon.reload(&house.text("").replace("password = 'pass'", "password_file = 'nowhere'")).unwrap();
    let log = house.daemon.wait_log("http.credentials[0]", LIMIT).unwrap();
    assert!(log.contains("nowhere"), "{log}");
    assert_eq!(ask(house.daemon.port(), &notify("bob", 2)).status, 200);
}

#[test]
fn credentials_change_and_connections_stay() {
    let mut house = House::new();
    let mut client = Client::connect(house.daemon.port());
    assert_eq!(client.ask(&notify("bob", 1)).status, 200);
    house.daemon.reload(&house.text("http.max_body_octets = 1024").replace("'pass'", "'other'")).unwrap();
    let log = house.daemon.wait_log("event=\"reloaded\"", LIMIT).unwrap();
    assert!(log.contains("http.credentials") && log.contains("http.max_body_octets"), "{log}");
    assert!(!log.contains("restart_needed"), "{log}");
    let answer = client.ask(&notify("bob", 2));
    assert_eq!(answer.status, 401, "the old password: {answer:?}");
    assert_eq!(client.ask(&super::client::request("POST", "/v1/events", "", b"")).status, 401);
}

#[test]
fn limits_and_times_of_the_outbox_hold_at_once() {
    let mut house = House::new();
    let text = house.text("");
    house
        .daemon
        .reload(&format!("{text}\n[outbox]\ntime_to_live_s = 1\n[publisher]\nbudget_ms = 300\n"))
        .unwrap();
    let log = house.daemon.wait_log("event=\"reloaded\"", LIMIT).unwrap();
    assert!(log.contains("outbox.time_to_live_s") && log.contains("publisher.budget_ms"), "{log}");
    assert!(!log.contains("restart_needed"), "{log}");
}

#[test]
fn what_needs_a_restart_is_named_and_keeps_its_value() {
    let mut house = House::new();
    let other =
        format!("resolver = '--SERVER=127.0.0.1:1'\nhttp.listen = '127.0.0.1:1'\ndrain_s = 3\n{CREDENTIALS}");
    house.daemon.reload(&other).unwrap();
    let log = house.daemon.wait_log("event=\"restart_needed\"", LIMIT).unwrap();
    assert!(log.contains("keys=\"resolver, http.listen\"") && log.contains("applied=\"drain_s\""), "{log}");
    let health = ask(house.daemon.port(), b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(health.status, 200, "the old resolver is asked: {health:?}");
}

#[test]
fn whoever_follows_is_let_go_with_the_credential() {
    let mut house = House::new();
    let follow = |token: &str| {
        let mut client = Client::connect(house.daemon.port());
        let request = String::from_utf8(super::client::request("GET", "/v1/traces", token, b"")).unwrap();
        client.send(request.replacen("Host: x", "Connection: close\r\nHost: x", 1).as_bytes());
        client
    };
    let (mut former, mut other) = (follow("Bearer token"), follow(super::BASIC));
    for client in [&mut former, &mut other] {
        client.read_until("event: ready");
    }
    house.daemon.reload(&house.text("").replace("'token'", "'another'")).unwrap();
    house.daemon.wait_log("event=\"reloaded\"", LIMIT).unwrap();
    assert!(former.try_answer_raw().is_some(), "it ends in order");
    // The other stays: it hears of what comes.
    assert_eq!(ask(house.daemon.port(), &notify("bob", 1)).status, 200);
    other.read_until("event: trace");
}
