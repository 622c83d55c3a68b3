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

#[test]
fn the_command_the_plugin_and_the_daemons_files_are_put_in_place() {
    let (root, built) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // What is built here already; a release build would take minutes.
    std::fs::copy(built_command().unwrap(), built.path().join("ocbus")).unwrap();
    std::fs::copy(built_plugin().unwrap(), built.path().join("libopenchange_plugin.so")).unwrap();
    let mut make = Command::new("make");
    make.arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(["--no-print-directory", "install-ocbus"]);
    make.args(["PREFIX=/usr", "moduledir=/usr/lib/dovecot/modules"]);
    make.arg(format!("DESTDIR={}", root.path().display()));
    make.arg(format!("OCBUS_BUILT={}", built.path().display()));
    // Run by a make, this one is not part of it.
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").env_remove("MFLAGS");
    let output = make.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let wanted = [
        ("usr/bin/ocbus", 0o755),
        ("usr/lib/dovecot/modules/lib90_openchange_plugin.so", 0o644),
        ("usr/lib/systemd/system/ocbus.service", 0o644),
        ("usr/lib/sysusers.d/ocbus.conf", 0o644),
        ("usr/share/ocbus/ocbus.toml", 0o644),
        ("usr/share/ocbus/openchange.lua", 0o644),
    ];
    assert_eq!(files(root.path()), wanted.map(|(name, mode)| (name.to_owned(), mode)).into());

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
