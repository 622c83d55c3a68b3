//! The page in a real browser.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ocbus::subscriber::SubscriberConfig;
use serde_json::json;

use super::House;
use super::browser::Browser;
use super::support::{legacy_only, listen, until};

const HOSTILE_USER: &str = "<script>window.caught=1</script>";
const HOSTILE_MAILBOX: &str = "\\\"><img src=x onerror=window.caught=1>";

#[test]
fn a_browser_is_asked_for_a_login() {
    let house = House::new();
    house.notify("bob", 1);
    let mut browser = Browser::start(&house.sandbox, None);
    browser.open(&house.daemon.url("/"));
    assert_eq!(browser.demands, [("basic".to_owned(), "ocbus".to_owned())]);
    let text = browser.evaluate("document.body.innerText");
    assert!(text.as_str().unwrap().contains("no credentials"), "{text}");
    assert_eq!(browser.evaluate("document.getElementById('events')"), json!(null));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_shown_live_and_hostile_names_are_only_shown() {
    let house = House::with("outbox.grace_s = 0");
    let _bob = listen(&house.memcached, SubscriberConfig::default(), "bob").await;
    let mut browser = Browser::start(&house.sandbox, Some(("login", "pass")));
    browser.open(&house.daemon.url("/"));
    browser.until("document.getElementById('live').textContent === 'live'");
    assert_eq!(browser.demands.len(), 1, "one login is enough: {:?}", browser.demands);
    let text = browser.evaluate("document.getElementById('events').innerText");
    assert!(text.as_str().unwrap().contains("none since the start"), "{text}");

    browser.evaluate("window.sameDocument = true");
    house.notify("bob", 7);
    browser.until("/bob\\s+MessageNew\\s+INBOX\\s+ox\\s+acknowledged\\s+[0-9.]+ ms/.test(document.getElementById('events').innerText)");
    browser.until("/native\\s+1\\s+taken/.test(document.getElementById('endpoints').innerText)");
    assert_eq!(browser.evaluate("window.sameDocument"), json!(true), "without a reload");
    let page = browser.evaluate("document.documentElement.outerHTML");
    assert!(!page.as_str().unwrap().contains("hello 7"), "no subject");

    let event =
        format!(r#"{{"user":"{HOSTILE_USER}","kind":"MessageNew","mailbox":"{HOSTILE_MAILBOX}","uid":1}}"#);
    assert_eq!(house.post(&format!(r#"{{"events":[{event}]}}"#)).status, 200);
    let shown = "document.getElementById('events').innerText.includes('<script>window.caught=1</script>') \
                 && document.getElementById('events').innerText.includes('\"><img src=x onerror=window.caught=1>')";
    browser.until(shown);
    let inert =
        "document.querySelectorAll('img, #events script').length === 0 && window.caught === undefined";
    assert_eq!(browser.evaluate(inert), json!(true));
    // The same as the server writes it at once.
    browser.call("Page.reload", json!({}));
    browser.until("window.sameDocument === undefined && document.readyState === 'complete'");
    browser.until(shown);
    assert_eq!(browser.evaluate(inert), json!(true));
    // And should the escaping ever fail: nothing but the page's own script runs, and nothing is fetched.
    let blocked = "new Promise(done => {
        const directives = [];
        document.addEventListener('securitypolicyviolation', event => {
            directives.push(event.effectiveDirective);
            if (directives.length === 3) done(directives.sort().join(' '));
        });
        document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.caught=1\"><b style=\"color:red\">x</b>');
    })";
    assert_eq!(browser.evaluate(blocked), json!("img-src script-src-attr style-src-attr"));
    assert_eq!(browser.evaluate("window.caught === undefined"), json!(true));
}

#[test]
fn without_scripts_the_page_has_everything_too() {
    let house = House::new();
    house.notify("bob", 7);
    // It is shown once its traces have been taken in.
    until("bob is shown", || house.get("/").body.contains(">bob</th>"));
    let answer = house.get("/");
    assert_eq!(answer.status, 200);
    for wanted in [">bob</th>", "<th scope=\"col\">Mailbox</th>", "http-equiv=\"refresh\""] {
        assert!(answer.body.contains(wanted), "{wanted}: {}", answer.body);
    }
    assert!(!answer.body.contains("Registered with Dovecot"), "without [registration] nobody is");
    assert!(!answer.body.contains("hello 7") && !answer.body.contains("alice@"), "no content");
    let head = answer.head.to_lowercase();
    for wanted in ["default-src 'none'", "frame-ancestors 'none'", "nosniff", "no-store", "no-referrer"] {
        assert!(head.contains(wanted), "{wanted}: {head}");
    }
    assert!(!head.contains("unsafe"), "{head}");
}

/// The picture in docs/: traffic, with somebody held, somebody gone and a user nobody listens for. `OCBUS_PICTURE=FILE`
/// takes it, with half a minute of traffic: `cargo nextest run --release --test status -E 'test(the_picture)'`.
#[tokio::test(flavor = "multi_thread")]
async fn the_picture_in_the_documentation() {
    let path = std::env::var_os("OCBUS_PICTURE");
    let (steps, pause_ms) = if path.is_some() { (30, 900) } else { (3, 50) };
    let house = House::new();
    let listen = |user, config| listen(&house.memcached, config, user);
    let _alice = listen("alice", SubscriberConfig::default()).await;
    let _carol = (listen("carol", SubscriberConfig::default()).await, listen("carol", legacy_only()).await);
    let mut bob = Some(listen("bob", SubscriberConfig::default()).await);
    let mut browser = Browser::start(&house.sandbox, Some(("login", "pass")));
    let size = json!({"width": 1280, "height": 1110, "deviceScaleFactor": 1, "mobile": false});
    browser.call("Emulation.setDeviceMetricsOverride", size);
    browser.call("Emulation.setScrollbarsHidden", json!({"hidden": true}));
    browser.open(&house.daemon.url("/"));
    for step in 0..steps {
        if step == steps - 2 {
            // As if killed: its lease stands.
            drop(bob.take());
        }
        for at in 0..2 + step * 7 % 5 {
            let uid = 1 + 10 * step + at;
            let user = ["alice", "bob", "carol"][uid as usize % 3];
            let more = match uid % 4 {
                0 => r#""kind":"FlagsSet","mailbox":"INBOX","flags":["\\Flagged"]"#,
                1 => r#""kind":"MessageMove","mailbox":"Archive/2026","old_mailbox":"INBOX","old_uids":"7""#,
                _ => {
                    house.notify(user, uid);
                    continue;
                }
            };
            let event = format!(r#"{{"events":[{{"user":"{user}",{more},"uids":"{uid}"}}]}}"#);
            let answer = house.post(&event);
            assert_eq!(answer.status, 200, "{event}: {answer:?}");
        }
        if step == steps - 2 {
            house.notify("erin", step);
        }
        tokio::time::sleep(std::time::Duration::from_millis(pause_ms)).await;
    }
    for shown in [
        "events').innerText.includes('held')",
        "events').innerText.includes('nobody listens')",
        "endpoints').innerText.includes('gone')",
    ] {
        browser.until(&format!("document.getElementById('{shown}"));
    }
    let picture = browser.call("Page.captureScreenshot", json!({"format": "png"}));
    let octets = STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
    assert!(octets.starts_with(b"\x89PNG"));
    if let Some(path) = path {
        std::fs::write(path, octets).unwrap();
    }
}
