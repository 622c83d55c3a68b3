//! `ocbus trace`.

use std::process::{Command, Stdio};
use std::time::Duration;

use ocbus::sandbox::{Child, built_command};
use ocbus::subscriber::SubscriberConfig;
use serde_json::Value;

use super::House;
use super::support::http::HttpServer;
use super::support::{LIMIT, listen, until};

fn command(house: &House, arguments: &[&str], credentials: &str) -> Command {
    at(&house.daemon.url(""), arguments, credentials)
}

fn at(url: &str, arguments: &[&str], credentials: &str) -> Command {
    let mut command = Command::new(built_command().unwrap());
    command.args(["--color", "never", "trace", "--daemon", url]).args(arguments);
    command.env("OCBUS_CREDENTIALS", credentials).stdin(Stdio::null());
    command
}

/// Follows, once nothing is missed any more.
fn follow(house: &House, arguments: &[&str]) -> Child {
    let mut child = house.sandbox.start("trace", &command(house, arguments, "login:pass")).unwrap();
    child.wait_output("following bob", LIMIT).unwrap();
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_followed_from_its_source_to_its_acknowledgement() {
    let house = House::new();
    let _bob = listen(&house.memcached, SubscriberConfig::default(), "bob").await;
    let mut people = follow(&house, &["bob", "--count", "2", "--for", "20"]);
    let mut scripts = follow(&house, &["bob", "--json", "--count", "2", "--for", "20"]);
    house.notify("alice", 1);
    house.notify("bob", 1);
    until("the first is acknowledged", || people.stdout().contains("acknowledged by tcp://"));
    let flags =
        r#"{"events":[{"user":"bob","kind":"FlagsSet","mailbox":"Sent","uids":"1","flags":["\\Seen"]}]}"#;
    assert_eq!(house.post(flags).status, 200);
    assert_eq!(people.wait(LIMIT).unwrap().unwrap().code(), Some(0));
    assert_eq!(scripts.wait(LIMIT).unwrap().unwrap().code(), Some(0));
    let shown = people.stdout();
    let lines: Vec<&str> = shown.lines().collect();
    let wanted = [
        ["MessageNew  INBOX", "accepted from ox"],
        ["MessageNew  INBOX", "looked up: 1 native, 0 legacy, in "],
        ["MessageNew  INBOX", "acknowledged by tcp://127.0.0.1:"],
        ["FlagsSet  Sent", "accepted from http"],
        ["FlagsSet  Sent", "looked up: 1 native, 0 legacy, in "],
        ["FlagsSet  Sent", "acknowledged by tcp://127.0.0.1:"],
    ];
    assert_eq!(lines.len(), wanted.len(), "nothing of alice's: {shown}");
    for (line, wanted) in lines.iter().zip(wanted) {
        assert!(wanted.iter().all(|text| line.contains(text)), "{line}: {wanted:?}");
        assert!(line.contains("  +") && !line.contains("hello"), "{line}");
    }
    let steps = scripts.stdout();
    let steps: Vec<Value> = steps.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(names, ["accepted", "looked-up", "sent", "accepted", "looked-up", "sent"]);
    assert_eq!(steps[2]["outcome"], "taken");
    assert_eq!(steps[0]["events"][0]["id"], steps[2]["events"][0]["id"]);
}

#[test]
fn what_goes_wrong_is_one_line_and_a_status() {
    let mut house = House::new();
    let run = |house: &House, arguments: &[&str], credentials: &str| {
        let output = command(house, arguments, credentials).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, told) = run(&house, &["bob"], "login:wrong");
    assert_eq!((status, told.lines().count()), (1, 1), "{told}");
    assert!(
        told.contains("401") && told.contains("http.credentials") && !told.contains("login:wrong"),
        "{told}"
    );
    let (status, told) = run(&house, &["bob", "--count", "1", "--for", "200ms"], "login:pass");
    assert!(status == 1 && told.contains("0 of 1 events were over within 200ms"), "{status}: {told}");
    let (status, told) = run(&house, &["bob", "--for", "200ms"], "login:pass");
    assert_eq!((status, told.as_str()), (0, "following bob\n"));
    assert_eq!(run(&house, &["bob", "--count", "0"], "login:pass").0, 2);
    assert_eq!(run(&house, &[], "login:pass").0, 2);
    let mut trace = follow(&house, &["bob"]);
    house.daemon.signal("TERM").unwrap();
    assert_eq!(trace.wait(LIMIT).unwrap().unwrap().code(), Some(1));
    assert!(trace.stderr().contains("the daemon has stopped"), "{}", trace.stderr());
    house.daemon.wait(Duration::from_secs(10)).unwrap();
    let (status, told) = run(&house, &["bob"], "login:pass");
    assert_eq!((status, told.lines().count()), (1, 1), "{told}");
}

#[test]
fn a_daemon_without_traces_is_said_to_be_one() {
    let older = HttpServer::new();
    older.answer(404);
    let output = at(&older.url(""), &["bob"], "login:pass").output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
    assert!(told.contains("it has no traces: expected an `ocbus serve` of this version"), "{told}");
    assert!(!told.contains("[registration]"), "{told}");
}
