//! Wrong usage, help, completions, pages, and the demonstration.

use ocbus::wire::json::EventJson;
use ocbus::wire::{NewMessage, ResyncReason, Transfer, UidSet};
use ocbus::{Event, EventKind, Mailbox};
use uuid::Uuid;

use crate::support::{Bench, ocbus, run};

fn plain(arguments: &[&str]) -> crate::support::Run {
    run(ocbus(arguments), b"")
}

#[test]
fn wrong_usage_ends_with_2_and_one_line_that_says_what_would_be_right() {
    for (arguments, parts) in [
        (vec!["nonsense"], vec!["nonsense"]),
        (vec!["watch"], vec!["<USER>"]),
        (vec!["flush"], vec!["<USER>"]),
        (vec!["trace"], vec!["<USER>"]),
        (vec!["watch", "--jsn", "bob"], vec!["--jsn", "--json"]),
        (vec!["watch", ""], vec!["<USER>", "expected"]),
        (vec!["watch", "a b"], vec!["'a b'", "octet 1", "expected"]),
        (vec!["send", "x\r\nflush_all"], vec!["x\\r\\nflush_all", "expected"]),
        (vec!["watch", "--lease", "0", "bob"], vec!["--lease", "0", "1..=86400"]),
        (vec!["watch", "--bind", "nowhere", "bob"], vec!["--bind", "nowhere", "expected"]),
        (vec!["watch", "--bind", "tcp://0.0.0.0:0", "bob"], vec!["tcp://0.0.0.0:0", "advertise"]),
        (vec!["watch", "--advertise", "a:1", "bob"], vec!["--advertise", "a:1", "expected"]),
        (vec!["watch", "--trusted-networks", "10.0.0.0/33", "bob"], vec!["10.0.0.0/33", "expected"]),
        (vec!["watch", "--for", "soon", "bob"], vec!["--for", "soon", "expected"]),
        (vec!["watch", "--charset", "UTF-8", "bob"], vec!["--charset", "CP850"]),
        (vec!["send", "bob", "--separator", "ab"], vec!["--separator", "ab", "expected"]),
        (vec!["send", "bob", "--uid", "0"], vec!["--uid", "0", "1..=4294967295"]),
        (vec!["send", "bob", "--uid", "1", "--message", "1.eml"], vec!["--uid", "--message"]),
        (vec!["send", "bob", "--budget", "0"], vec!["--budget", "0", "1..=60000"]),
        (vec!["--timeout", "x", "list", "bob"], vec!["--timeout", "x"]),
        (
            vec!["--resolver", "127.0.0.1:1", "list", "bob"],
            vec!["--resolver", "127.0.0.1:1", "--SERVER=host:port"],
        ),
        (vec!["inspect", "decode", "ticket", "00"], vec!["ticket", "session"]),
        (vec!["completions", "tcsh"], vec!["tcsh", "bash"]),
    ] {
        plain(&arguments).fails(2, &parts);
    }
    let mut command = ocbus(&["list", "bob"]);
    command.env("OCBUS_LOG", "=,=");
    run(command, b"").fails(2, &["OCBUS_LOG", "=,=", "expected"]);
}

#[test]
fn what_cannot_be_done_ends_with_1() {
    plain(&["watch", "--bind", "tcp://192.0.2.1:0", "bob"]).fails(1, &["tcp://192.0.2.1:0", "expected"]);
    plain(&["man", "--dir", "/no/such/folder"]).fails(1, &["--dir", "/no/such/folder", "expected"]);
    plain(&["demo", "--plugin", "/no/such/plugin.so"])
        .fails(1, &["/no/such/plugin.so", "cargo build --release"]);
}

/// Whoever keeps a replica needs `order` and `old_uidvalidity` as much as the rest.
#[test]
fn the_help_of_watch_names_each_field_of_its_json() {
    let uids = || UidSet::from_iter([7]);
    let words = || vec!["x".to_owned()];
    let text = || Some("x".to_owned());
    let message = NewMessage {
        uid: Some(7),
        flags: words(),
        keywords: words(),
        from: text(),
        subject: text(),
        message_id: text(),
        size: Some(1),
        backend: text(),
        name: text(),
    };
    let mailbox = || Mailbox::new("INBOX", '/');
    let transfer = Transfer { old_uidvalidity: Some(1), ..Transfer::new(uids(), mailbox(), uids()) };
    let help = plain(&["watch", "--help"]);
    for kind in [
        EventKind::MessageNew(message),
        EventKind::MessageMove(transfer),
        EventKind::Resync { reason: ResyncReason::Other, missed: 1 },
    ] {
        let mut event = Event::new(Uuid::now_v7(), 1, "bob", mailbox(), kind);
        event.uidvalidity = Some(1);
        event.order = Some(1);
        (event.messages, event.unseen) = (Some(1), Some(1));
        let json = serde_json::to_value(EventJson::new(&event, Some(1))).unwrap();
        for name in json.as_object().unwrap().keys() {
            let is_named = |line: &str| {
                let names = line.strip_prefix("  ").and_then(|line| line.split("   ").next());
                names.is_some_and(|names| names.split(", ").any(|one| one.trim() == name))
            };
            assert!(help.ok().lines().any(is_named), "{name}: {}", help.ok());
        }
    }
}

#[test]
fn help_teaches_by_example() {
    for command in ["watch", "send", "list", "flush", "trace", "inspect", "demo", "completions", "man"] {
        let help = plain(&[command, "--help"]);
        let text = help.ok();
        assert!(
            text.contains("Example") && text.contains(&format!("  ocbus {command}")),
            "{command}: {text}"
        );
    }
    assert!(plain(&["--help"]).ok().contains("ocbus demo"));
    assert_eq!(plain(&["--version"]).ok(), concat!("ocbus ", env!("CARGO_PKG_VERSION"), "\n"));
    let nothing = plain(&[]);
    assert_eq!((nothing.status, nothing.stdout.as_str()), (2, ""));
    assert!(nothing.stderr.contains("Usage: ocbus"), "{nothing:?}");
}

#[test]
fn completions_and_pages_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(plain(&["completions", shell]).ok().contains("trusted-networks"), "{shell}");
    }
    assert!(plain(&["man"]).ok().starts_with(".ie"), "roff");
    let folder = tempfile::tempdir().unwrap();
    plain(&["man", "--dir", folder.path().to_str().unwrap()]).ok();
    for page in [
        "ocbus",
        "ocbus-watch",
        "ocbus-send",
        "ocbus-list",
        "ocbus-flush",
        "ocbus-inspect-decode",
        "ocbus-demo",
    ] {
        assert!(folder.path().join(format!("{page}.1")).is_file(), "{page}");
    }
}

#[test]
fn colour_is_for_those_who_want_it() {
    let bench = Bench::new();
    let _watcher = bench.watch(&["bob"]);
    assert!(!bench.run(&["list", "bob"]).ok().contains('\u{1b}'));
    assert!(bench.run(&["list", "bob", "--color", "always"]).ok().contains('\u{1b}'));
    let mut quiet = bench.command(&["list", "bob", "--color", "never"]);
    quiet.env("CLICOLOR_FORCE", "1");
    assert!(!run(quiet, b"").ok().contains('\u{1b}'));
}

#[test]
fn more_is_said_on_standard_error_only() {
    let bench = Bench::new();
    let run = bench.run(&["-vv", "list", "--json", "bob"]);
    assert_eq!((run.status, run.stdout.as_str()), (0, ""), "{run:?}");
}

#[test]
fn the_demonstration_shows_both_mails_at_both_subscribers_and_leaves_nothing() {
    let plugin = ocbus::sandbox::built_plugin().unwrap();
    let folder = tempfile::Builder::new().prefix("oc").tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = ocbus(&["demo", "--plugin", plugin.to_str().unwrap()]);
    command.env("OCBUS_SANDBOX_DIR", folder.path());
    let shown = run(command, b"");
    let text = shown.ok();
    for way in ["Hello by LDA", "Hello by LMTP"] {
        assert!(text.contains(way), "{text}");
    }
    assert_eq!(text.matches("after the commit").count(), 4, "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    // A file that is no plugin: Dovecot says so, and nothing is left either.
    let mut command = ocbus(&["demo", "--plugin", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    command.env("OCBUS_SANDBOX_DIR", folder.path());
    run(command, b"").fails_after_output(1, &["dovecot-lda", "lib90_openchange_plugin.so"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
