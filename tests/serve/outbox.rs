//! What the daemon cannot take or keep: subscribers are told, and so is the log.

use std::time::Duration;

use ocbus::EventKind;
use ocbus::subscriber::SubscriberConfig;

use super::client::{Client, ask, notify, request};
use super::support::{listen, until};
use super::{BASIC, House};

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_refused_for_want_of_room_is_told_to_look_again() {
    // What nobody listens for is held for the grace, so that others fill the outbox.
    let house = House::with("outbox.max_octets = 1048576\noutbox.grace_s = 3");
    let mut native = listen(&house.memcached, SubscriberConfig::default(), "bob").await;
    let mut client = Client::connect(house.daemon.port());
    let mut others = 0..;
    let mut fill = || loop {
        let user = format!("other{}", others.next().unwrap());
        if client.ask(&notify(&user, 1)).status == 503 {
            return;
        }
    };
    fill();
    let mut client = Client::connect(house.daemon.port());
    let mut refused = 0;
    for uid in 1..=2 {
        refused += u32::from(client.ask(&notify("bob", uid)).status == 503);
    }
    assert_eq!(refused, 2, "{}", house.daemon.log());
    native.assert_quiet();
    let event = native.next().await;
    assert!(matches!(event.kind, EventKind::Resync { .. }), "{event:?}");
    // Dovecot is taken seriously again.
    assert_eq!(client.ask(&notify("bob", 3)).status, 200);
    assert_eq!(native.next_mail().await.1.uid, Some(3));
    native.assert_quiet();
    house.assert_sound();
}

#[test]
fn an_outage_s_end_and_what_was_dropped_in_it_are_told() {
    let mut house = House::with("outbox.time_to_live_s = 1\nresolver_timeout_ms = 200");
    house.memcached.kill();
    for uid in 1..=3 {
        assert_eq!(ask(house.daemon.port(), &notify("bob", uid)).status, 200);
    }
    let log = house.daemon.wait_log("event=\"events_dropped\"", LIMIT).unwrap();
    assert!(log.contains("event=\"resolver_lost\""), "{log}");
    until("all three are accounted for", || {
        let metrics = ask(house.daemon.port(), &request("GET", "/metrics", BASIC, b"")).body;
        metrics.contains("ocbus_events_dropped_total{reason=\"expired\"} 3\n")
    });
    assert_eq!(ask(house.daemon.port(), &notify("bob", 4)).status, 200);
    house.memcached.restart().unwrap();
    let log = house.daemon.wait_log("event=\"resolver_back\"", LIMIT).unwrap();
    let back = log.lines().find(|line| line.contains("resolver_back")).unwrap();
    // The fourth may have expired too, on a slow machine.
    assert!(back.ends_with("dropped=3") || back.ends_with("dropped=4"), "{back}");
    assert!(back.contains("lasted_ms=") && back.contains("held="), "{back}");
    // A line for each second at most; they add up.
    let of = |line: &str| line.split("events=").nth(1)?.split(' ').next()?.parse::<u64>().ok();
    until("the lines have all three", || {
        let log = house.daemon.log();
        let lines = log.lines().filter(|line| line.contains("events_dropped"));
        lines.filter_map(of).sum::<u64>() >= 3
    });
}
