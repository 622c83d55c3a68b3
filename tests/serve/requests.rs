//! Right and wrong requests.

use ocbus::EventKind;
use ocbus::subscriber::SubscriberConfig;

use super::client::{Client, NOTIFY, ask, notify, request};
use super::support::listen;
use super::{BASIC, House};

#[test]
fn only_right_credentials_are_taken() {
    let house = House::new();
    let port = house.daemon.port();
    let body = br#"{"user":"bob","event":"MessageNew"}"#;
    let with = |authorization: &str, path: &str, method: &str| {
        ask(port, &request(method, path, authorization, body))
    };
    for path in [NOTIFY, "/v1/events"] {
        // Neither a wrong password nor a beginning of the right one, nor the other scheme's.
        for wrong in [
            "",
            "Basic",
            "Basic bG9naW46cGFz",
            "Basic bG9naW46cGFzc3g=",
            "Bearer pass",
            "Bearer toke",
            "Digest x",
        ] {
            let answer = with(wrong, path, "POST");
            assert_eq!(answer.status, 401, "{wrong}: {answer:?}");
            assert!(answer.head.contains("www-authenticate: Basic realm=\"ocbus\""), "{answer:?}");
            answer.error();
        }
    }
    assert_eq!(with(BASIC, NOTIFY, "PUT").status, 200);
    assert_eq!(with("bearer token", NOTIFY, "POST").status, 200);
    assert_eq!(with(BASIC, NOTIFY, "GET").status, 405);
    assert_eq!(with(BASIC, "/other", "PUT").status, 404);
    let log = house.daemon.log();
    assert!(log.contains("event=\"unauthorized\"") && log.contains("127.0.0.1:"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn spellings_and_missing_fields() {
    let house = House::new();
    let mut native = listen(&house.memcached, SubscriberConfig::default(), "bob").await;
    let mut client = Client::connect(house.daemon.port());
    for (n, body) in [
        r#"{"user":"bob","event":"MessageNew","folder":"INBOX","imap-uidvalidity":7,"imap-uid":1}"#,
        r#"{"user":"BOB@example.org","event":"messageNew","imap-uidvalidity":7,"imap-uid":2}"#,
        r#"{"user":"bob","imap-uidvalidity":7,"imap-uid":3,"imap-x":{"more":[1]}}"#,
        r#"{"user":"bob"}"#,
    ]
    .iter()
    .enumerate()
    {
        let answer = client.ask(&request("PUT", NOTIFY, BASIC, body.as_bytes()));
        assert_eq!((answer.status, &answer.json()["accepted"]), (200, &1.into()), "{body}: {answer:?}");
        let (event, mail) = native.next_mail().await;
        let uid = u32::try_from(n).unwrap() + 1;
        assert_eq!(mail.uid, (uid < 4).then_some(uid), "{body}");
        assert!(event.mailbox.as_ref().unwrap().is_inbox(), "{body}");
    }
    // EGroupware's: several messages at once.
    let body = r#"{"user":"bob","event":"FlagsSet","folder":"Work","imap-uidvalidity":7,"imap-uid":[4,5],"flags":["\\Flagged"]}"#;
    assert_eq!(client.ask(&request("PUT", NOTIFY, "Bearer token", body.as_bytes())).status, 200);
    let event = native.next().await;
    match &event.kind {
        EventKind::FlagsSet { uids, flags, .. } => {
            assert_eq!(
                (uids.to_string().as_str(), flags.as_slice()),
                ("4:5", ["\\Flagged".to_owned()].as_slice())
            );
        }
        other => panic!("{other:?}"),
    }
    native.assert_quiet();
}

#[test]
fn nonsense_is_a_400_that_says_why() {
    let house = House::new();
    let mut client = Client::connect(house.daemon.port());
    let deep = format!("{{\"user\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let events = "/v1/events";
    // Before 2.2.33 a missing From made Dovecot write this.
    let old = br#"{"user":"bob","event":"messageNew","folder":"INBOX","imap-uid":1,"from":,"subject":"x"}"#;
    for (path, body, why) in [
        (NOTIFY, &b""[..], "at octet 0"),
        (NOTIFY, b"{}", "user: missing"),
        (NOTIFY, b"[]", "expected an object"),
        (NOTIFY, old, "at octet"),
        (NOTIFY, b"{\"user\":\"\xff\"}", "no UTF-8"),
        (NOTIFY, b"{\"user\":7}", "user: "),
        (NOTIFY, b"{\"user\":\"bob\",\"event\":\"Mess\"}", "event: "),
        (NOTIFY, b"{\"user\":\"bob\",\"imap-uid\":-1}", "imap-uid"),
        (NOTIFY, deep.as_bytes(), "at octet"),
        (events, b"", "at octet 0"),
        (events, b"{}", "events"),
        (events, b"{\"v\":2,\"events\":[]}", "v: 2"),
        (events, deep.as_bytes(), "at octet"),
        (events, b"\xff\xfe", "no UTF-8"),
    ] {
        let answer = client.ask(&request("POST", path, BASIC, body));
        let body = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!(answer.status, 400, "{path} {body}: {answer:?}");
        assert!(answer.error().contains(why), "{path} {body}: {answer:?}");
    }
    // The connection is as good as before.
    assert_eq!(client.ask(&notify("bob", 1)).status, 200);
    house.assert_sound();
}

#[test]
fn whoever_nobody_can_be_registered_for_is_no_error() {
    // Dovecot would log an error for each mail.
    let house = House::new();
    let mut client = Client::connect(house.daemon.port());
    let answer = client.ask(&notify("nobody-is-called-so", 1));
    assert_eq!((answer.status, &answer.json()["accepted"]), (200, &1.into()), "{answer:?}");
    let answer = client.ask(&notify("two words", 1));
    assert_eq!((answer.status, &answer.json()["accepted"]), (200, &0.into()), "{answer:?}");
    assert!(answer.body.contains("two words"), "{answer:?}");
    assert!(house.daemon.log().contains("event=\"no_user\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn users_become_cns_by_table_pattern_and_rule() {
    let house = House::with(
        "users.table = { '12@3' = 'carol' }\nusers.cn = 'email'\n\
         users.patterns = [{ user = '{id:digits}@{context:digits}', cn = 'u{id}.{context}' }]",
    );
    for (uid, user, cn) in
        [(1, "12@3", "carol"), (2, "13@3", "u13.3"), (3, "Dave@Example.org", "dave@example.org")]
    {
        let mut listening = listen(&house.memcached, SubscriberConfig::default(), cn).await;
        assert_eq!(ask(house.daemon.port(), &notify(user, uid)).status, 200);
        assert_eq!(listening.next_mail().await.1.uid, Some(uid), "{user}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn anybody_may_publish_documented_events() {
    let house = House::new();
    let mut native = listen(&house.memcached, SubscriberConfig::default(), "bob").await;
    let body = br#"{"v":1,"events":[
        {"kind":"MessageAppend","user":"bob","mailbox":"Work/Sub","separator":"/","uidvalidity":7,"uid":3,"subject":"x"},
        {"kind":"NoSuchField","uids":7},
        {"kind":"MessageExpunge","user":"bob","mailbox":"Work","separator":"/","uidvalidity":7,"uids":"1:3,9"}]}"#;
    let mut client = Client::connect(house.daemon.port());
    let answer = client.ask(&request("POST", "/v1/events", "Bearer token", body));
    assert_eq!((answer.status, &answer.json()["accepted"]), (200, &2.into()), "{answer:?}");
    assert!(answer.json()["skipped"][0].as_str().unwrap().contains("events[1]"), "{answer:?}");
    let event = native.next().await;
    assert!(matches!(&event.kind, EventKind::MessageAppend(mail) if mail.uid == Some(3)), "{event:?}");
    let event = native.next().await;
    assert!(
        matches!(&event.kind, EventKind::MessageExpunge { uids } if uids.to_string() == "1:3,9"),
        "{event:?}"
    );
    let again = client.ask(&request("POST", "/v1/events", "Bearer token", body));
    assert_eq!(again.json()["repeated"], true, "{again:?}");
}

#[test]
fn expect_100_continue_is_answered_before_the_body_comes() {
    let house = House::new();
    let mut client = Client::connect(house.daemon.port());
    for uid in 1..=2 {
        let request = String::from_utf8(notify("bob", uid)).unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let answer = client.ask(format!("{head}\r\nExpect: 100-continue\r\n\r\n").as_bytes());
        assert_eq!(answer.status, 100, "{answer:?}");
        let answer = client.ask(body.as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    // Whoever is refused need not send it at all.
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: {BASIC}\r\nContent-Length: 99999999\r\n"
    );
    let answer = client.ask(format!("{head}Expect: 100-continue\r\n\r\n").as_bytes());
    assert_eq!(answer.status, 413, "{answer:?}");
}

#[test]
fn requests_that_come_in_one_piece_are_answered_in_order() {
    let house = House::new();
    let mut client = Client::connect(house.daemon.port());
    let bad = request("PUT", NOTIFY, BASIC, b"{}");
    client.send(&[notify("bob", 1), bad, notify("bob", 2)].concat());
    let statuses = [(); 3].map(|()| client.answer().status);
    assert_eq!(statuses, [200, 400, 200]);
}

#[test]
fn health_says_what_fails_without_credentials() {
    let mut house = House::new();
    let health = |house: &House| ask(house.daemon.port(), b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = health(&house);
    assert_eq!((answer.status, &answer.json()["status"]), (200, &"ok".into()), "{answer:?}");
    house.memcached.kill();
    super::support::until("the resolver is told to be unreachable", || {
        let answer = health(&house);
        answer.status == 503 && answer.json()["resolver"] == "unreachable"
    });
    house.memcached.restart().unwrap();
    super::support::until("the resolver is back", || health(&house).status == 200);
}

#[test]
fn another_sites_page_cannot_send_with_the_login_that_a_browser_keeps() {
    let house = House::new();
    let body = br#"{"user":"bob","event":"MessageNew","folder":"INBOX","imap-uidvalidity":7,"imap-uid":1}"#;
    for (headers, status) in [
        ("Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nContent-Type: text/plain\r\n", 403),
        ("Origin: http://evil.example\r\n", 403),
        ("Origin: http://x\r\n", 200),
        ("", 200),
    ] {
        for path in [NOTIFY, "/v1/events"] {
            let request = String::from_utf8(request("POST", path, BASIC, body)).unwrap();
            let answer = ask(
                house.daemon.port(),
                request.replacen("Host: x\r\n", &format!("Host: x\r\n{headers}"), 1).as_bytes(),
            );
            // /v1/events does not know this JSON: it has been let in.
            let wanted = if status == 200 && path != NOTIFY { 400 } else { status };
            assert_eq!(answer.status, wanted, "{path} {headers}: {answer:?}");
        }
    }
    assert!(house.daemon.log().contains("event=\"forbidden\""));
}

#[test]
fn a_credential_is_good_for_what_its_settings_say() {
    let sandbox = ocbus::sandbox::Sandbox::new().unwrap();
    let daemon = sandbox
        .daemon(
            "resolver = 'memory'\nembedded.listen = '127.0.0.1:0'\nhttp.listen = '127.0.0.1:0'\n\
             http.credentials = [{ name = 'lua', bearer = 'send', may = ['send'] }, \
             { name = 'prometheus', bearer = 'look', may = ['look'] }]",
        )
        .unwrap();
    let body = br#"{"user":"bob","event":"MessageNew"}"#;
    let ask = |token: &str, method: &str, path: &str| {
        let body = if method == "GET" { &b""[..] } else { body };
        ask(daemon.port(), &request(method, path, &format!("Bearer {token}"), body))
    };
    assert_eq!(ask("send", "PUT", NOTIFY).status, 200);
    assert_eq!(ask("look", "GET", "/metrics").status, 200);
    for (token, method, path) in [
        ("send", "GET", "/metrics"),
        ("send", "GET", "/"),
        ("send", "GET", "/events"),
        ("send", "GET", "/v1/traces?user=bob"),
        ("look", "PUT", NOTIFY),
        ("look", "POST", "/v1/events"),
    ] {
        let answer = ask(token, method, path);
        assert_eq!(answer.status, 403, "{token} {path}: {answer:?}");
        assert!(answer.error().contains("may"), "{answer:?}");
    }
}

#[test]
fn what_is_said_twice_without_ids_has_happened_twice() {
    let house = House::new();
    let mut client = Client::connect(house.daemon.port());
    let mut post = |body: String| {
        let answer = client.ask(&request("POST", "/v1/events", BASIC, body.as_bytes()));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["repeated"] == true
    };
    let rename = |from: &str, to: &str, more: &str| {
        format!(
            r#"{{"v":1,"events":[{{{more}"kind":"MailboxRename","user":"bob","mailbox":"{to}","old_mailbox":"{from}","separator":"/"}}]}}"#
        )
    };
    for (from, to) in [("A", "B"), ("B", "A"), ("A", "B")] {
        assert!(!post(rename(from, to, "")), "{from} to {to}");
    }
    let resync = r#"{"v":1,"events":[{"kind":"Resync","user":"bob"}]}"#;
    assert!(!post(resync.to_owned()) && !post(resync.to_owned()));
    // The Lua script's have ids: the connection broke before the answer.
    let id = r#""id":"0190c5f0-5f5e-7000-8000-000000000001","#;
    assert!(!post(rename("A", "B", id)));
    assert!(post(rename("A", "B", id)));
}

#[test]
fn events_that_make_no_sense_are_counted_and_told() {
    let house = House::new();
    let body = br#"{"v":1,"events":[{"kind":"MessageNew","uid":"x"},{"kind":"MessageNew","user":7}]}"#;
    let answer = ask(house.daemon.port(), &request("POST", "/v1/events", BASIC, body));
    assert_eq!((answer.status, &answer.json()["accepted"]), (200, &0.into()), "{answer:?}");
    let log = house.daemon.log();
    assert!(log.contains("event=\"skipped\"") && log.contains("count=2"), "{log}");
    let metrics = ask(house.daemon.port(), &request("GET", "/metrics", BASIC, b""));
    assert!(metrics.body.contains("ocbus_events_skipped_total{source=\"http\"} 2\n"), "{}", metrics.body);
}

#[test]
fn health_knows_of_every_server() {
    let sandbox = ocbus::sandbox::Sandbox::new().unwrap();
    let mut servers = [sandbox.memcached().unwrap(), sandbox.memcached().unwrap()];
    let strings: Vec<String> = servers.iter().map(ocbus::sandbox::Memcached::configuration).collect();
    let daemon = sandbox.daemon(&format!("resolver = '{}'", strings.join(" "))).unwrap();
    let health = || {
        let answer = ask(daemon.port(), b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        (answer.status, answer.json()["status"].clone(), answer.json()["resolver"].clone())
    };
    let is = |status: u16, word: &str, resolver: &str| health() == (status, word.into(), resolver.into());
    assert!(is(200, "ok", "ok"), "{:?}", health());
    for down in [0, 1] {
        servers[down].kill();
        super::support::until("one is missed", || is(200, "degraded", "partly-unreachable"));
        let metrics = ask(daemon.port(), &request("GET", "/metrics", "", b""));
        super::support::until("the metric says so", || {
            let metrics = ask(daemon.port(), &request("GET", "/metrics", "", b""));
            metrics.body.contains("ocbus_healthy{part=\"resolver\"} 0")
        });
        assert_eq!(metrics.status, 200);
        servers[down].restart().unwrap();
        super::support::until("it is back", || is(200, "ok", "ok"));
    }
    servers.iter_mut().for_each(ocbus::sandbox::Memcached::kill);
    super::support::until("all are missed", || is(503, "failing", "unreachable"));
}
