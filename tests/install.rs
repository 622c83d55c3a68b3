//! What `make install` puts in place, below DESTDIR and nowhere else. (The C library: capi/tests/programs.rs.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use ocbus::sandbox::{built_command, built_plugin};

/// Files by their path below `root`, with their modes.
fn files(root: &Path) -> BTreeMap<String, u32> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            match metadata.is_dir() {
                true => folders.push(path),
                false => {
                    let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                    files.insert(name, metadata.permissions().mode() & 0o7777);
                }
            }
        }
    }
    files
}

/// `make TARGET` as root has it from sudo: no Rust, and a home that is not that of who has built.
fn make(target: &str, root: &Path, built: &Path) -> Command {
    let mut make = Command::new("make");
    make.arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(["--no-print-directory", target]);
    make.args(["PREFIX=/usr", "libdir=/usr/lib", "moduledir=/usr/lib/dovecot/modules"]);
    make.arg(format!("DESTDIR={}", root.display()));
    // As of Cargo, so that Make finds there what is built, or does not.
    make.env_clear().env("CARGO_TARGET_DIR", built).env("HOME", built);
    make.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    make
}

/// What is built here already, where Make looks for it; a release build would take minutes.
fn built() -> tempfile::TempDir {
    let target = tempfile::tempdir().unwrap();
    let release = target.path().join("release");
    std::fs::create_dir_all(release.join("capi")).unwrap();
    std::fs::copy(built_command().unwrap(), release.join("ocbus")).unwrap();
    std::fs::copy(built_plugin().unwrap(), release.join("libopenchange_plugin.so")).unwrap();
    let library = concat!("libocbus.so.", env!("CARGO_PKG_VERSION"));
    std::fs::write(release.join("capi").join(library), "").unwrap();
    target
}

#[test]
fn what_is_not_built_is_not_installed_and_nothing_of_the_rest() {
    let (root, built) = (tempfile::tempdir().unwrap(), built());
    let library = concat!("release/capi/libocbus.so.", env!("CARGO_PKG_VERSION"));
    for missing in [library, "release/libopenchange_plugin.so", "release/ocbus"] {
        std::fs::remove_file(built.path().join(missing)).unwrap();
        let before = files(built.path());
        let output = make("install", root.path(), built.path()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(missing), "{said}");
        assert!(said.contains("run 'make build' first"), "{said}");
        assert_eq!(files(root.path()), BTreeMap::new());
        assert_eq!(files(built.path()), before, "nothing is built");
    }
}

#[test]
fn the_loader_is_told_of_the_library() {
    let (root, built, tools) = (tempfile::tempdir().unwrap(), built(), tempfile::tempdir().unwrap());
    let ldconfig = tools.path().join("ldconfig");
    let calls = tools.path().join("calls");
    // Without DESTDIR, below a prefix that nobody else has; and with one.
    let run = |prefix: &Path, destdir: &str| {
        let script = format!(
            "#!/bin/sh\necho $* >> {}\n[ -z \"$1\" ] || echo ' libocbus.so.0 => {}/libocbus.so.0'\n",
            calls.display(),
            root.path().join("found/lib").display()
        );
        std::fs::write(&ldconfig, script).unwrap();
        std::fs::set_permissions(&ldconfig, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut make = make("install-capi", root.path(), built.path());
        make.arg(format!("PREFIX={}", prefix.display())).arg(format!("DESTDIR={destdir}"));
        make.arg(format!("libdir={}", prefix.join("lib").display()));
        make.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", tools.path().display()));
        let output = make.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let note = "run ldconfig as root";
    assert!(!run(Path::new("/usr"), root.path().to_str().unwrap()).contains(note));
    assert!(!calls.exists(), "below a DESTDIR nothing is to be found yet");
    assert!(!run(&root.path().join("found"), "").contains(note));
    assert_eq!(std::fs::read_to_string(&calls).unwrap(), "\n-p\n");
    // ldconfig does not look into every folder.
    assert!(run(&root.path().join("elsewhere"), "").contains(note));
}

#[test]
fn the_command_the_plugin_and_the_daemons_files_are_put_in_place() {
    let (root, built) = (tempfile::tempdir().unwrap(), built());
    let output = make("install-ocbus", root.path(), built.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let wanted = [
        ("usr/bin/ocbus", 0o755),
        ("usr/lib/dovecot/modules/lib90_openchange_plugin.so", 0o644),
        ("usr/share/bash-completion/completions/ocbus", 0o644),
        ("usr/share/fish/vendor_completions.d/ocbus.fish", 0o644),
        ("usr/share/zsh/site-functions/_ocbus", 0o644),
        ("usr/lib/systemd/system/ocbus.service", 0o644),
        ("usr/lib/sysusers.d/ocbus.conf", 0o644),
        ("usr/share/ocbus/ocbus.toml", 0o644),
        ("usr/share/ocbus/openchange.lua", 0o644),
    ];
    let mut there = files(root.path());
    let pages: Vec<String> =
        there.keys().filter(|name| name.starts_with("usr/share/man/")).cloned().collect();
    assert!(pages.contains(&"usr/share/man/man1/ocbus.1".to_owned()), "{pages:?}");
    assert!(pages.contains(&"usr/share/man/man1/ocbus-serve.1".to_owned()), "{pages:?}");
    assert!(pages.iter().all(|page| there.remove(page) == Some(0o644)));
    assert_eq!(there, wanted.map(|(name, mode)| (name.to_owned(), mode)).into());
    for (name, _) in &wanted[2..5] {
        let completions = std::fs::read_to_string(root.path().join(name)).unwrap();
        assert!(completions.contains("ocbus") && completions.contains("trace"), "{name}");
    }

    // They fit together: the unit starts the command that is there, which can read the settings that are there.
    let read = |name: &str| std::fs::read_to_string(root.path().join(name)).unwrap();
    let unit = read("usr/lib/systemd/system/ocbus.service");
    let commands: Vec<&str> = unit
        .lines()
        .filter_map(|line| line.strip_prefix("ExecStart=").or(line.strip_prefix("ExecReload=")))
        .filter(|command| command.contains("ocbus"))
        .collect();
    assert_eq!(commands.len(), 2, "{unit}");
    assert!(commands.iter().all(|command| command.starts_with("/usr/bin/ocbus serve ")), "{commands:?}");
    let mut check = Command::new(root.path().join("usr/bin/ocbus"));
    check.args(["serve", "--check", "--config"]).arg(root.path().join("usr/share/ocbus/ocbus.toml"));
    let output = check.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let script = read("usr/share/ocbus/openchange.lua");
    assert_eq!(script, include_str!("../packaging/dovecot/openchange.lua"));
}
