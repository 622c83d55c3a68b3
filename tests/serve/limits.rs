//! Slow, large and many: each has a bound, and the others notice nothing.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use ocbus::EventKind;
use ocbus::subscriber::SubscriberConfig;
use tokio::io::AsyncReadExt as _;

use super::client::{Client, NOTIFY, ask, notify, request};
use super::support::listen;
use super::{BASIC, House};

#[test]
fn large_bodies_are_refused_and_the_answer_gets_through() {
    let house = House::with("http.max_body_octets = 65536");
    let port = house.daemon.port();
    let large = vec![b' '; 10 << 20];
    for path in [NOTIFY, "/v1/events"] {
        let answer = ask(port, &request("POST", path, BASIC, &large));
        assert_eq!(answer.status, 413, "{answer:?}");
        assert!(answer.error().contains("65536"), "{answer:?}");
    }
    // Without saying its length.
    let mut client = Client::connect(port);
    client.send(
        format!(
            "PUT {NOTIFY} HTTP/1.1\r\nHost: x\r\nAuthorization: {BASIC}\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        .as_bytes(),
    );
    let chunk = [b"1000\r\n".as_slice(), &[b' '; 4096], b"\r\n"].concat();
    let sent = (0..10_000).take_while(|_| client.try_send(&chunk).is_ok()).count();
    assert!(sent < 10_000, "it was read to the end");
    // A length that is a lie costs no memory.
    let head = format!(
        "PUT {NOTIFY} HTTP/1.1\r\nHost: x\r\nAuthorization: {BASIC}\r\nContent-Length: 18446744073709551615\r\n\r\n"
    );
    let mut client = Client::connect(port);
    client.send(head.as_bytes());
    client.finish();
    assert!(client.try_answer().is_none_or(|answer| [400, 413, 431].contains(&answer.status)));
    let largest = [br#"{"user":"bob","imap-uid":1}"#.as_slice(), &vec![b' '; 65_536 - 27]].concat();
    assert_eq!(ask(port, &request("PUT", NOTIFY, BASIC, &largest)).status, 200);
    assert_eq!(ask(port, &request("PUT", NOTIFY, BASIC, &[&largest[..], b" "].concat())).status, 413);
    house.assert_sound();
}

#[test]
fn large_heads_are_refused() {
    let house = House::with("http.max_head_octets = 8192\nhttp.max_headers = 20");
    let port = house.daemon.port();
    let long = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(9000));
    assert_eq!(ask(port, long.as_bytes()).status, 431);
    let many: String = (0..30).map(|n| format!("X-{n}: x\r\n")).collect();
    assert_eq!(ask(port, format!("GET /healthz HTTP/1.1\r\n{many}\r\n").as_bytes()).status, 431);
    assert_eq!(ask(port, b"nonsense\r\n\r\n").status, 400);
}

/// One octet, then a pause, until the connection is closed or answered.
fn drip(client: &mut Client, octets: &[u8], pause: Duration) -> usize {
    let sent = octets.iter().take_while(|octet| {
        thread::sleep(pause);
        client.try_send(&[**octet]).is_ok()
    });
    sent.count()
}

#[test]
fn slow_clients_are_cut_off_while_others_are_served() {
    let house =
        House::with("http.head_timeout_ms = 400\nhttp.body_timeout_ms = 400\nhttp.idle_timeout_s = 1");
    let port = house.daemon.port();
    let begun = Instant::now();
    let slow_head = thread::spawn(move || {
        let mut client = Client::connect(port);
        let sent = drip(&mut client, &notify("bob", 1), Duration::from_millis(50));
        (sent, client.try_answer().map(|answer| answer.status))
    });
    let slow_body = thread::spawn(move || {
        let mut client = Client::connect(port);
        let request = notify("bob", 2);
        let head = request.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        client.send(&request[..head + 10]);
        client.answer()
    });
    let idle = thread::spawn(move || {
        let mut client = Client::connect(port);
        assert_eq!(client.ask(&notify("bob", 3)).status, 200);
        let since = Instant::now();
        assert!(client.try_answer().is_none());
        since.elapsed()
    });
    for uid in 100..110 {
        let since = Instant::now();
        assert_eq!(ask(port, &notify("bob", uid)).status, 200);
        assert!(since.elapsed() < Duration::from_millis(300), "{:?}", since.elapsed());
    }
    let (sent, answer) = slow_head.join().unwrap();
    assert!(sent < 40 && answer.is_none(), "{sent} octets, {answer:?}");
    let answer = slow_body.join().unwrap();
    assert_eq!(answer.status, 408, "{answer:?}");
    assert!(answer.head.contains("connection: close"), "{answer:?}");
    let idle = idle.join().unwrap();
    assert!(idle > Duration::from_millis(900) && idle < Duration::from_secs(3), "{idle:?}");
    assert!(begun.elapsed() < Duration::from_secs(8));
}

#[test]
fn whoever_does_not_read_his_answers_is_cut_off() {
    let house = House::with("http.body_timeout_ms = 300\nhttp.idle_timeout_s = 60");
    let mut client = Client::connect(house.daemon.port());
    // As many as fit in all buffers between us, and none of their answers is read.
    let many = request("PUT", NOTIFY, BASIC, b"{}").repeat(1000);
    let begun = Instant::now();
    while client.try_send(&many).is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it takes requests without end");
    }
}

#[test]
fn a_thousand_connections_at_once_are_served() {
    let house = House::with("http.max_connections = 1100");
    let port = house.daemon.port();
    let mut clients: Vec<Client> = (0..1000).map(|_| Client::connect(port)).collect();
    for (uid, client) in (1..).zip(&mut clients) {
        client.send(&notify("bob", uid));
    }
    for client in &mut clients {
        let answer = client.answer();
        assert_eq!((answer.status, &answer.json()["accepted"]), (200, &1.into()), "{answer:?}");
    }
    assert_eq!(ask(port, &notify("bob", 5000)).status, 200, "one more finds room");
    house.assert_sound();
}

#[test]
fn answers_do_not_wait_for_the_resolver_and_a_full_outbox_is_a_503() {
    let house = House::with(
        "outbox.max_octets = 1048576\noutbox.max_user_octets = 65536\noutbox.grace_s = 0\ndrain_s = 0",
    );
    let mut client = Client::connect(house.daemon.port());
    assert_eq!(client.ask(&notify("bob", 1)).status, 200);
    house.memcached.stop().unwrap();
    let mut slowest = Duration::ZERO;
    let refused = (1..100_000).find_map(|n| {
        let begun = Instant::now();
        let answer = client.ask(&notify(&format!("user{n}"), 1));
        slowest = slowest.max(begun.elapsed());
        (answer.status != 200).then_some((n, answer))
    });
    let (accepted, answer) = refused.expect("1 MiB is enough for everybody");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.error().contains("outbox is full") && accepted > 500, "after {accepted}: {answer:?}");
    // memcached would be waited for a second.
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    let health = ask(house.daemon.port(), b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((health.status, &health.json()["outbox"]), (503, &"full".into()), "{health:?}");
    house.memcached.cont().unwrap();
    super::support::until("what was refused is taken when it comes again", || {
        client.ask(&notify(&format!("user{accepted}"), 1)).status == 200
    });
    assert!(house.daemon.log().contains("status=503"), "{}", house.daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_is_told_so_at_once_and_everybody_looks_again() {
    let house = House::with("http.max_connections = 10");
    let mut native = listen(&house.memcached, SubscriberConfig::default(), "bob").await;
    let port = house.daemon.port();
    let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(port)).collect();
    for client in &mut clients {
        assert_eq!(client.ask(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    }
    let begun = Instant::now();
    let answer = Client::connect(port).answer();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.error().contains("max_connections") && begun.elapsed() < Duration::from_secs(1));
    // It may have been bob's mail.
    let told = native.next().await;
    assert!(matches!(told.kind, EventKind::Resync { .. }), "{told:?}");
    clients.pop();
    super::support::until("room for one more", || {
        let mut client = Client::connect(port);
        client.try_send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").is_ok()
            && client.try_answer().is_some_and(|answer| answer.status == 200)
    });
    assert!(house.daemon.log().contains("event=\"turned_away\""));
}

#[tokio::test]
async fn peers_outside_the_networks_are_turned_away() {
    let house = House::with("http.trusted_networks = ['127.0.0.1/32']");
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 2], 0))).unwrap();
    let mut stream = socket.connect(SocketAddr::from(([127, 0, 0, 1], house.daemon.port()))).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("trusted_networks"), "{answer}");
    let log = house.daemon.log();
    assert!(log.contains("event=\"turned_away\"") && log.contains("127.0.0.2"), "{log}");
    assert_eq!(ask(house.daemon.port(), &notify("bob", 1)).status, 200, "others are let in");
}
