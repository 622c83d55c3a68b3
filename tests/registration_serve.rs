//! Two `ocbus serve`, processes of their own, share the permanent users of one Dovecot; one is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use ocbus::registration::KEY;
use ocbus::sandbox::{Daemon, Dovecot, DovecotOptions, Sandbox, built_command};
use support::until;

const USERS: usize = 30;

/// What Dovecot itself says of a user's key.
fn value(dovecot: &Dovecot, user: &str) -> String {
    let value = dovecot.doveadm(&["mailbox", "metadata", "get", "-u", user, "-s", "", KEY]);
    value.unwrap().trim().to_owned()
}

/// The users that a daemon says it has registered.
fn registered(daemon: &Daemon, name: &str) -> BTreeSet<String> {
    let output = Command::new(built_command().unwrap())
        .args(["users", "--json", "--daemon", &daemon.url("")])
        .env("OCBUS_CREDENTIALS", "admin:word")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let entries = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mine = entries.filter(|entry| entry["state"] == "registered" && entry["daemon"] == name);
    mine.map(|entry| entry["user"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_permanent_users_of_a_daemon_that_is_killed_are_taken_over() {
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached().unwrap();
    let options = DovecotOptions::new(&["notify"]).doveadm_http("s3cr3t", "dovepass").metadata();
    let dovecot = sandbox.dovecot(options).unwrap();
    let names: Vec<String> = (0..USERS).map(|number| format!("user{number}")).collect();
    // Reconciled once a day: what happens sooner is a take-over.
    let daemon = |name: &str| {
        sandbox
            .daemon(&format!(
                "resolver = '{}'\n[[http.credentials]]\nname = 'admin'\nlogin = 'admin'\npassword = 'word'\n\
                 [registration]\nby = 'doveadm'\nendpoints = ['http://127.0.0.1:{}']\napi_key = 's3cr3t'\n\
                 retry_s = 1\npermanent = {names:?}\nlease_s = 2\nreconcile_s = 86400\ndaemon = '{name}'\n",
                memcached.configuration(),
                dovecot.doveadm_port()
            ))
            .unwrap()
    };
    let mut one = daemon("mail1");
    until("one has all", || registered(&one, "mail1").len() == USERS);
    let two = daemon("mail2");
    until("they share", || {
        let (ones, twos) = (registered(&one, "mail1"), registered(&two, "mail2"));
        ones.len() + twos.len() == USERS && !ones.is_empty() && !twos.is_empty()
    });
    let (ones, twos) = (registered(&one, "mail1"), registered(&two, "mail2"));
    assert!(ones.is_disjoint(&twos));

    one.kill();
    let killed = Instant::now();
    let lost = ones.first().unwrap();
    dovecot.doveadm(&["mailbox", "metadata", "unset", "-u", lost, "-s", "", KEY]).unwrap();
    until("its users are taken over", || registered(&two, "mail2").len() == USERS);
    println!("{} users taken over {:?} after SIGKILL, with lease_s = 2", ones.len(), killed.elapsed());
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    until("and looked at", || value(&dovecot, lost) == format!("user={lost}"));

    // Started again, it has the same users.
    one.restart().unwrap();
    until("they share again", || registered(&one, "mail1") == ones && registered(&two, "mail2") == twos);
}
