//! Secrets come from files and the environment, and are never told.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use ocbus::sandbox::{Sandbox, built_command};

use super::client::{ask, notify, request};

const SECRETS: [&str; 3] = ["geheim-in-settings", "geheim-in-file", "geheim-in-environment"];

fn settings() -> String {
    format!(
        "drain_s = 1\n[[http.credentials]]\nname = 'plain'\nlogin = 'login'\npassword = '{}'\n\
         [[http.credentials]]\nname = 'file'\nbearer_file = 'token'\n\
         [[http.credentials]]\nname = 'environment'\nbearer_env = 'OCBUS_TEST_TOKEN'\n",
        SECRETS[0]
    )
}

#[test]
fn no_secret_is_ever_logged_or_printed() {
    let sandbox = Sandbox::new().unwrap();
    let token = sandbox.path().join("token");
    std::fs::write(&token, format!("{}\n", SECRETS[1])).unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o604)).unwrap();
    let environment = [("OCBUS_TEST_TOKEN", SECRETS[2]), ("OCBUS_LOG", "trace"), ("RUST_LOG", "trace")];
    let mut daemon = sandbox.daemon_with(&settings(), &environment).unwrap();
    let port = daemon.port();
    let body = br#"{"user":"bob","imap-uid":1}"#;
    let path = super::client::NOTIFY;
    for secret in &SECRETS[1..] {
        assert_eq!(
            ask(port, &request("PUT", path, &format!("Bearer {secret}"), body)).status,
            200,
            "{secret}"
        );
    }
    // printf 'login:geheim-in-settings' | base64
    let basic = "bG9naW46Z2VoZWltLWluLXNldHRpbmdz";
    assert_eq!(ask(port, &request("PUT", path, &format!("Basic {basic}"), body)).status, 200);
    assert_eq!(ask(port, &request("PUT", path, &format!("Bearer {}", SECRETS[0]), body)).status, 401);
    assert_eq!(ask(port, &notify("bob", 1)).status, 401);
    daemon.reload(&settings().replace("'login'", "1")).unwrap();
    daemon.wait_log("event=\"reload_failed\"", Duration::from_secs(10)).unwrap();
    daemon.reload(&settings().replace(&format!("'{}'", SECRETS[0]), SECRETS[0])).unwrap();
    daemon.reload(&settings()).unwrap();
    daemon.wait_log("event=\"reloaded\"", Duration::from_secs(10)).unwrap();
    daemon.signal("TERM").unwrap();
    assert!(daemon.wait(Duration::from_secs(10)).unwrap().is_some_and(|status| status.success()));
    let log = daemon.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "more than usual is told: {log}");
    assert!(log.contains("token: mode 0604"), "a file that everybody may read: {log}");
    let check = Command::new(built_command().unwrap())
        .args(["serve", "--check", "--config"])
        .arg(daemon.settings())
        .env("OCBUS_TEST_TOKEN", SECRETS[2])
        .output()
        .unwrap();
    assert!(check.status.success(), "{check:?}");
    let printed = String::from_utf8(check.stdout).unwrap() + std::str::from_utf8(&check.stderr).unwrap();
    assert!(printed.contains("OCBUS_TEST_TOKEN") && printed.contains("token"), "{printed}");
    for secret in SECRETS.iter().chain([&basic]) {
        assert!(!log.contains(secret), "{secret} is in the log");
        assert!(!printed.contains(secret), "{secret} is in what --check prints");
    }
}
