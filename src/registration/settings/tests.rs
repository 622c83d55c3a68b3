//! What is wrong is told by its key; secrets are not told.

use super::*;
use std::fs;

fn settings(toml: &str) -> RegistrationSettings {
    toml::from_str(toml).unwrap()
}

fn error(toml: &str) -> String {
    settings(toml).read(Path::new("/nonexistent"), &mut Vec::new()).unwrap_err().to_string()
}

const DOVEADM: &str = "by = 'doveadm'\nendpoints = ['http://127.0.0.1:8080']\n";
const IMAP: &str = "by = 'imap'\nendpoints = ['imap://127.0.0.1']\n";

#[test]
fn without_by_there_is_nothing_to_do() {
    assert!(settings("").read(Path::new("/"), &mut Vec::new()).unwrap().is_none());
    assert!(error("permanent = ['bob']").contains("registration.by: not given"));
    let defaults = settings("");
    assert_eq!((defaults.value.as_str(), defaults.login.as_str()), ("user={user}", "{user}"));
}

#[test]
fn what_is_wrong_is_told_by_its_key() {
    for (toml, wanted) in [
        ("by = 'doveadm'", "registration.endpoints: none"),
        (DOVEADM, "registration.api_key: expected one of api_key"),
        (&format!("{DOVEADM}api_key = 'k'\npassword = 'p'"), "registration.api_key: expected one of api_key"),
        (&format!("{DOVEADM}api_key = 'k'\napi_key_env = 'X'"), "expected one of api_key, api_key_file"),
        (&format!("{DOVEADM}api_key = 'k'\nmaster_user = 'm'"), "registration.by: \"doveadm\" has no use"),
        (&format!("{DOVEADM}api_key = 'k'\ngroup = 'a b'"), "registration.group: cn 'a b'"),
        (&format!("{DOVEADM}api_key = 'k'\ndaemon = 'a b'"), "registration.daemon: 'a b'"),
        (&format!("{DOVEADM}api_key = 'k'\npermanent = ['a b']"), "registration.permanent: cn 'a b'"),
        (&format!("{DOVEADM}api_key = 'k'\npermanent_file = '/x/y'"), "registration.permanent_file: /x/y"),
        ("by = 'doveadm'\napi_key = 'k'\nendpoints = ['127.0.0.1:8080']", "expected http://host:port"),
        ("by = 'doveadm'\napi_key = 'k'\nendpoints = ['http://a:b@h:1']", "expected http://host:port"),
        ("by = 'doveadm'\napi_key = 'k'\nendpoints = ['http://h/doveadm/v1']", "expected http://host:port"),
        ("by = 'imap'\nmaster_user = 'm'\npassword = 'p'\nendpoints = ['http://h']", "expected imap://host"),
        (IMAP, "registration.master_user: expected master_user with password"),
        (&format!("{IMAP}master_user = 'm'"), "registration.master_user: expected master_user with password"),
        (&format!("{IMAP}api_key = 'k'"), "registration.api_key: by = \"imap\" has no use"),
        (&format!("{DOVEADM}api_key_file = 'gone'"), "registration.api_key_file: /nonexistent/gone"),
    ] {
        let error = error(toml);
        assert!(error.contains(wanted), "{toml}: {error}");
    }
    for (toml, wanted) in [
        ("pool_size = 0", "0: expected a whole number from 1 to 256"),
        ("bye = 'imap'", "unknown field `bye`"),
        ("value = 'user=bob'", "expected {user}"),
        ("by = 'http'", "unknown variant"),
    ] {
        let error = toml::from_str::<RegistrationSettings>(toml).unwrap_err().to_string();
        assert!(error.contains(wanted), "{toml}: {error}");
    }
}

#[test]
fn files_and_secrets_are_read_and_secrets_are_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("users"), "# permanent\nBob\n\n eve@example.org \nbob\n").unwrap();
    fs::write(folder.path().join("words"), "bob:geheim:1\n").unwrap();
    let toml = format!("{DOVEADM}api_key = 'geheim'\npermanent = ['ann']\npermanent_file = 'users'");
    let mut warnings = Vec::new();
    let read = settings(&toml);
    let config = read.read(folder.path(), &mut warnings).unwrap().unwrap();
    let mut listed: Vec<String> = config.listed.iter().map(Cn::to_string).collect();
    listed.sort();
    assert_eq!(listed, ["ann", "bob", "eve@example.org"]);
    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(!format!("{config:?} {read:?}").contains("geheim"));

    let toml = "by = 'imap'\nendpoints = ['imap://mail.example.org', 'imaps://mail.example.org']\npasswords_file = 'words'";
    let config = settings(toml).read(folder.path(), &mut warnings).unwrap().unwrap();
    assert!(!format!("{config:?}").contains("geheim"));
    assert!(warnings.iter().any(|warning| warning.contains("in clear")), "{warnings:?}");
    assert!(warnings.iter().any(|warning| warning.contains("words")), "{warnings:?}");
}
