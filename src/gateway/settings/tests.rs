use super::*;

/// The settings of a text in a file of its own, with what they name.
fn load(text: &str) -> Result<Loaded, SettingsError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Loaded::read(file.path())
}

#[track_caller]
fn refused(text: &str, words: &[&str]) {
    let error = load(text).unwrap_err().to_string();
    assert!(words.iter().all(|word| error.contains(word)) && !error.contains('\n'), "{text}: {error}");
}

#[test]
fn a_reload_cannot_open_a_socket_that_is_open_to_others() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let credential = "[[http.credentials]]\nname = 'x'\nbearer = 'token'\n";
    let write = |text: &str| std::fs::write(file.path(), text).unwrap();
    write(&format!("http.listen = '0.0.0.0:8009'\nhttp.trusted_networks = '10.0.0.0/8'\n{credential}"));
    let running = Loaded::read(file.path()).unwrap();
    // Right by itself, and the socket stays where it is.
    write("http.listen = '127.0.0.1:8009'\nhttp.trusted_networks = '10.0.0.0/8'\n");
    Loaded::read(file.path()).unwrap();
    let error = running.reread(file.path()).unwrap_err().to_string();
    for words in ["http.credentials: none", "0.0.0.0:8009", "until a restart http.listen cannot change"] {
        assert!(error.contains(words), "{error}");
    }
    // With a credential it may change all the rest.
    write(&format!("http.listen = '127.0.0.1:8009'\ndrain_s = 3\n{credential}"));
    let (loaded, changes) = running.reread(file.path()).unwrap();
    assert_eq!(changes.restart, ["http.listen"]);
    assert_eq!((loaded.settings.drain_s.get(), loaded.settings.http.listen[0].port()), (3, 8009));
    assert!(loaded.settings.http.listen[0].ip().is_unspecified());
}

#[test]
fn a_reload_reads_the_secrets_of_registration_anew() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ocbus.toml");
    let text = "[registration]\nby = 'doveadm'\nendpoints = ['http://127.0.0.1:1']\napi_key_file = 'key'\n";
    let secret = |text: &str| std::fs::write(folder.path().join("key"), text).unwrap();
    std::fs::write(&file, text).unwrap();
    secret("one");
    let running = Loaded::read(&file).unwrap();
    secret("");
    assert!(running.reread(&file).unwrap_err().to_string().contains("registration.api_key_file"));
    std::fs::write(&file, format!("{text}pool_size = 7\nlease_s = 60\n")).unwrap();
    secret("two");
    let (loaded, changes) = running.reread(&file).unwrap();
    assert_eq!(
        (changes.applied, changes.restart),
        (vec!["registration.pool_size"], vec!["registration.lease_s"])
    );
    assert!(loaded.registration.is_some());
    // Nobody is registered from now on: that is for a start.
    std::fs::write(&file, "drain_s = 3").unwrap();
    let (loaded, changes) = running.reread(&file).unwrap();
    assert_eq!((changes.applied, changes.restart), (vec!["drain_s"], vec!["registration.by"]));
    assert!(loaded.registration.is_some());
}

#[test]
fn what_cannot_start_is_refused() {
    refused("http.notify_paths = ['/a', '/b', '/a']", &["http.notify_paths", "'/a' twice"]);
    for path in ["/", "/v1", "/v1/users", "/v1/users/bob", "/v1/events", "/metrics", "/healthz", "/events"] {
        refused(&format!("http.notify_paths = '{path}'"), &["http.notify_paths", path, "a path of its own"]);
    }
    for twice in ["'127.0.0.1:8009', '127.0.0.1:8009'", "'127.0.0.1:8009', '[::ffff:127.0.0.1]:8009'"] {
        refused(&format!("http.listen = [{twice}]"), &[":1: http.listen", "127.0.0.1:8009'", "expected"]);
    }
    refused(
        "http.listen = ['0.0.0.0:80', '127.0.0.1:80']",
        &["http.listen", "'127.0.0.1:80' and '0.0.0.0:80'"],
    );
    load("http.listen = ['127.0.0.1:0', '127.0.0.1:0', '127.0.0.1:80', '[::1]:80', '127.0.0.2:80']").unwrap();
    let basic = |name: &str, more: &str| format!("{{ name = '{name}', login = 'l', password = 'p'{more} }}");
    refused(
        &format!("http.credentials = [{}, {}]", basic("all", ""), basic("lua", ", may = ['send']")),
        &["http.credentials[1]", "'lua' has the login and password of 'all'"],
    );
    // A token and a password may be the same word: each has its own scheme.
    load(&format!("http.credentials = [{}, {{ name = 'b', bearer = 'l:p' }}]", basic("a", ""))).unwrap();
    for key in ["api_key_file = 'x'", "state_file = '/var/lib/x'", "permanent = ['bob']", "pool_size = 3"] {
        refused(&format!("registration.{key}"), &["registration.by", "not given", "\"doveadm\" or \"imap\""]);
    }
    let handover = "handover.listen = 'ipc:///run/ocbus/x.sock'\nhandover.group = 'no such group'";
    refused(handover, &["handover.group", "'no such group'", "/etc/group"]);
    for folder in ["/nonexistent/folder", "/etc/passwd"] {
        refused(
            &format!("outbox.state_dir = '{folder}'"),
            &["outbox.state_dir", folder, "expected a folder"],
        );
    }
}

#[test]
fn what_is_wrong_is_told_with_its_value_and_what_would_be_right() {
    refused("http.listen = '127.0.0.1'", &["http.listen", "'127.0.0.1'", "127.0.0.1:8009"]);
    refused("embedded.listen = 'localhost:1'", &["embedded.listen", "'localhost:1'", "no name"]);
    refused("handover.mode = 432", &["handover.mode", "432", "\"0660\""]);
    refused("handover.mode = '0999'", &["handover.mode", "'0999'", "octal"]);
    let registration = "[registration]\nby = 'doveadm'\nendpoints = ['http://127.0.0.1:1']\n";
    refused(
        &format!("{registration}api_key_file = '/nonexist'"),
        &["registration.api_key_file", "/nonexist"],
    );
    refused(
        &format!("{registration}password_env = 'OCBUS_NONE'"),
        &["registration.password_env", "OCBUS_NONE"],
    );
    let error = Loaded::read("/nonexist".as_ref()).unwrap_err().to_string();
    assert!(error.contains("settings /nonexist") && error.contains("--config"), "{error}");
}

#[test]
fn the_summary_says_what_is_held_where() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "outbox.state_dir = '{}'\nhandover = {{ listen = 'ipc:///run/x', mode = '0666', group = '7' }}\n\
         http.credentials = [{{ name = 'lua', bearer = 'x', may = ['send'] }}]",
        folder.path().display()
    );
    let summary = load(&text).unwrap().summary().join("\n");
    for words in [
        "ipc:///run/x, mode 0666, group 7",
        &folder.path().display().to_string(),
        "67108864 octets",
        "may send",
    ] {
        assert!(summary.contains(words), "{words}: {summary}");
    }
    assert!(load("").unwrap().summary().join("\n").contains("what a kill loses is silent"));
}

#[test]
fn a_credential_may_what_it_says() {
    let rights = |may: &str| {
        let text = format!("http.credentials = [{{ name = 'x', bearer = 'y'{may} }}]");
        Settings::parse(&text, Path::new("x")).map(|settings| {
            [May::Send, May::Look, May::Register].map(|may| settings.http.credentials[0].may.have(may))
        })
    };
    assert_eq!(rights("").unwrap(), [true, true, true]);
    assert_eq!(rights(", may = ['look', 'register']").unwrap(), [false, true, true]);
    assert!(rights(", may = []").unwrap_err().to_string().contains("expected some of send, look, register"));
    assert!(rights(", may = ['write']").unwrap_err().to_string().contains("write"));
}
