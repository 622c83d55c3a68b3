//! The file of users loses nobody: not for an octet, not for a disk that fails for a while.

use std::fs;

use ocbus::registration::Registrar;
use ocbus::sandbox::Sandbox;
use ocbus::sandbox::faults::refused_port;

use super::{LIMIT, alone, entry, ocbus, until};

/// Dovecot is not needed for this.
async fn nowhere(path: &std::path::Path) -> Registrar {
    let port = refused_port().unwrap();
    alone(&format!(
        "by = 'doveadm'\nendpoints = ['http://127.0.0.1:{port}']\napi_key = 'x'\nstate_file = '{}'\n",
        path.display()
    ))
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_octet_that_is_wrong_costs_its_line_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users");
    fs::write(&path, b"permanent bob\npermanent e\xffe\npermanent ann\n").unwrap();
    let registrar = nowhere(&path).await;
    assert!(["ann", "bob"].iter().all(|user| entry(&registrar, user).is_some_and(|entry| entry.permanent)));
    registrar.stop().await;
    let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
    assert!(text.contains("permanent bob\n") && text.contains("permanent ann\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_be_read_is_not_written_and_is_read_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users");
    // Root may read any file, but no folder; and a link is replaced at once.
    std::os::unix::fs::symlink(folder.path(), &path).unwrap();
    let registrar = nowhere(&path).await;
    registrar.register(&super::cn("eve"), LIMIT).await.unwrap();
    assert!(entry(&registrar, "bob").is_none());
    fs::write(folder.path().join("new"), "permanent bob\n").unwrap();
    fs::rename(folder.path().join("new"), &path).unwrap();
    until("bob is recalled", LIMIT, || entry(&registrar, "bob").is_some());
    registrar.stop().await;
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("permanent bob\n") && text.contains("permanent eve\n"), "{text}");
}

#[test]
fn what_could_not_be_written_is_written_later() {
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached().unwrap();
    let path = sandbox.path().join("users");
    let mut daemon = sandbox
        .daemon(&format!(
            "resolver = '{}'\n[registration]\nby = 'doveadm'\nendpoints = ['http://127.0.0.1:{}']\napi_key = 'x'\n\
             state_file = '{}'\n",
            memcached.configuration(),
            refused_port().unwrap(),
            path.display()
        ))
        .unwrap();
    fs::create_dir(&path).unwrap();
    // Nobody answers for Dovecot: 1, but she is to be registered from now on.
    assert_eq!(ocbus(daemon.port(), &["register", "eve"]).0, 1);
    daemon.wait_log("event=\"users_unwritable\"", LIMIT).unwrap();
    fs::remove_dir(&path).unwrap();
    until("it is written", LIMIT, || {
        fs::read_to_string(&path).is_ok_and(|text| text.contains("permanent eve\n"))
    });
}
