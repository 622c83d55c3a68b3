//! TLS, with curl as the client.

use std::process::Command;
use std::time::Duration;

use ocbus::sandbox::Sandbox;

use super::CREDENTIALS;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls");

fn curl(port: u16, certificate: &str, more: &[&str]) -> (Option<i32>, String) {
    let output = Command::new("curl")
        .args([
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{ssl_verify_result} %{http_version}",
            "--max-time",
            "10",
        ])
        .args(["--cacert", &format!("{FOLDER}/{certificate}"), "-u", "login:pass", "-X", "PUT"])
        .args(["-d", r#"{"user":"bob","imap-uid":1}"#])
        .args(more)
        .arg(format!("https://localhost:{port}{}", super::client::NOTIFY))
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn settings(name: &str) -> String {
    format!(
        "http.tls = {{ certificate = '{FOLDER}/{name}.pem', key = '{FOLDER}/{name}.key' }}\n{CREDENTIALS}"
    )
}

#[test]
fn requests_are_taken_over_tls_and_a_reload_changes_the_certificate() {
    let sandbox = Sandbox::new().unwrap();
    let mut daemon = sandbox.daemon(&settings("one")).unwrap();
    for version in ["--tlsv1.2", "--tlsv1.3"] {
        let more = [version, "--tls-max", version.trim_start_matches("--tlsv")];
        assert_eq!(curl(daemon.port(), "one.pem", &more), (Some(0), "200 0 1.1".to_owned()));
    }
    assert_ne!(curl(daemon.port(), "two.pem", &[]).0, Some(0), "another's certificate");
    daemon.reload(&settings("two")).unwrap();
    daemon.wait_log("event=\"reloaded\"", Duration::from_secs(10)).unwrap();
    assert_eq!(curl(daemon.port(), "two.pem", &[]), (Some(0), "200 0 1.1".to_owned()));
    // Neither half of a pair is taken, and the old one holds.
    daemon.reload(&settings("two").replace("two.key", "one.key")).unwrap();
    let log = daemon.wait_log("event=\"reload_failed\"", Duration::from_secs(10)).unwrap();
    assert!(log.contains("http.tls"), "{log}");
    assert_eq!(curl(daemon.port(), "two.pem", &[]).0, Some(0));
}

#[test]
fn whoever_does_not_speak_tls_is_closed() {
    let sandbox = Sandbox::new().unwrap();
    let daemon = sandbox.daemon(&format!("http.head_timeout_ms = 300\n{}", settings("one"))).unwrap();
    let mut plain = super::client::Client::connect(daemon.port());
    plain.send(&super::client::notify("bob", 1));
    assert!(plain.try_answer_raw().is_none_or(|octets| !octets.starts_with(b"HTTP")));
    let mut silent = super::client::Client::connect(daemon.port());
    let begun = std::time::Instant::now();
    assert!(silent.try_answer().is_none());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}
