//! Server-sent events as they are on the wire.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ocbus::subscriber::SubscriberConfig;
use serde_json::Value;

use super::client::{Answer, ask, request};
use super::support::{LIMIT, listen, until};
use super::{BASIC, House};

/// Somebody who follows. HTTP/1.0, so that the body is not in chunks.
struct Follower(BufReader<TcpStream>);

impl Follower {
    fn new(house: &House, path: &str) -> Follower {
        let mut stream = TcpStream::connect(("127.0.0.1", house.daemon.port())).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nAuthorization: {BASIC}\r\n\r\n").unwrap();
        let mut follower = Follower(BufReader::new(stream));
        assert_eq!(follower.line().unwrap(), "HTTP/1.0 200 OK");
        while !follower.line().unwrap().is_empty() {}
        follower
    }

    /// `None` at the end.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).unwrap();
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// The next event: its name and its data, or a comment as `:`.
    fn event(&mut self) -> Option<(String, String)> {
        let (mut name, mut data) = (String::new(), String::new());
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                None if line.is_empty() => return Some((name, data)),
                Some(("event", text)) => name = text.to_owned(),
                Some(("data", text)) => data = text.to_owned(),
                Some(("", text)) => (name, data) = (":".to_owned(), text.to_owned()),
                _ => panic!("{line}"),
            }
        }
    }

    fn json(&mut self, wanted: &str) -> Value {
        let (name, data) = self.event().unwrap();
        assert_eq!(name, wanted, "{data}");
        serde_json::from_str(&data).unwrap()
    }
}

fn refused(house: &House, path: &str) -> Answer {
    ask(house.daemon.port(), &request("GET", path, "", b""))
}

#[test]
fn nothing_is_shown_without_credentials() {
    let house = House::new();
    house.notify("bob", 1);
    for path in ["/", "/events", "/v1/traces", "/v1/traces?user=bob", "/metrics"] {
        let answer = refused(&house, path);
        assert_eq!(answer.status, 401, "{path}: {answer:?}");
        assert!(answer.head.contains("Basic realm=\"ocbus\""), "{path}: a browser asks: {answer:?}");
        assert!(!answer.body.contains("bob"), "{path}");
    }
    assert_eq!(refused(&house, "/healthz").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_are_of_one_user_and_have_no_content() {
    let house = House::new();
    let _bob = listen(&house.memcached, SubscriberConfig::default(), "bob").await;
    let mut follower = Follower::new(&house, "/v1/traces?user=BOB");
    assert_eq!(follower.json("ready"), Value::Null);
    house.notify("alice", 1);
    house.notify("bob", 7);
    let mut steps = Vec::new();
    while steps.last().is_none_or(|step| step != "sent") {
        let trace = follower.json("trace");
        let text = trace.to_string();
        assert_eq!(trace["user"], "bob", "{text}");
        assert!(!text.contains("hello") && !text.contains("alice@"), "no subject, no sender: {text}");
        assert_eq!(trace["events"][0]["kind"], "MessageNew", "{text}");
        steps.push(trace["step"].as_str().unwrap().to_owned());
    }
    assert_eq!(steps, ["accepted", "looked-up", "sent"]);
    for wrong in ["/v1/traces?user=", "/v1/traces?user=a%20b", "/v1/traces?x=1"] {
        let answer = house.get(wrong);
        assert_eq!(answer.status, 400, "{wrong}: {answer:?}");
        answer.error();
    }
}

#[test]
fn there_are_so_many_and_no_more() {
    let house = House::with("http.max_streams = 2");
    let page = Follower::new(&house, "/events");
    let traces = Follower::new(&house, "/v1/traces");
    for path in ["/events", "/v1/traces"] {
        let answer = house.get(path);
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.error().contains("http.max_streams"), "{answer:?}");
    }
    drop((page, traces));
    // It is noticed with the next words.
    let mut uid = 0;
    until("their places are free", || {
        uid += 1;
        house.notify("bob", uid);
        std::thread::sleep(Duration::from_millis(50));
        house.get("/metrics").body.contains("\nocbus_streams 0")
    });
    Follower::new(&house, "/events");
}

#[test]
fn who_is_too_slow_is_told_and_let_go() {
    let house = House::with("outbox.grace_s = 0\nhttp.body_timeout_ms = 60000");
    let mut slow = Follower::new(&house, "/v1/traces");
    slow.json("ready");
    let mailbox = "x".repeat(200);
    for post in 0..80 {
        let event = |uid: usize| {
            format!(r#"{{"user":"u{uid}","kind":"MessageNew","mailbox":"{mailbox}","uid":{}}}"#, post + 1)
        };
        let events: Vec<String> = (1..=500).map(event).collect();
        let answer = house.post(&format!(r#"{{"events":[{}]}}"#, events.join(",")));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let mut last = None;
    while let Some(event) = slow.event() {
        last = Some(event);
    }
    let (name, data) = last.unwrap();
    assert_eq!(name, "missed", "{data}");
    assert!(serde_json::from_str::<Value>(&data).unwrap()["missed"].as_u64().unwrap() > 0);
    // The daemon itself has not waited.
    house.notify("bob", 1);
}

#[test]
fn a_silent_stream_stays_and_ends_with_the_daemon() {
    let mut house = House::with("http.idle_timeout_s = 1");
    let mut page = Follower::new(&house, "/events");
    let mut traces = Follower::new(&house, "/v1/traces");
    assert!(page.json("page")["events"].as_str().unwrap().contains("none since the start"));
    traces.json("ready");
    for _ in 0..4 {
        assert_eq!(traces.event().unwrap().0, ":", "longer than the idle time limit");
    }
    let begun = Instant::now();
    house.daemon.signal("TERM").unwrap();
    while page.event().is_some() {}
    while traces.event().is_some() {}
    assert_eq!(house.daemon.wait(LIMIT).unwrap().unwrap().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(!house.daemon.log().contains("connections_cut"), "{}", house.daemon.log());
}
