//! The unit for systemd lets the daemon do what it must.

const UNIT: &str = include_str!("../../packaging/systemd/ocbus.service");

/// The values of a setting, in their order.
fn values(name: &str) -> Vec<&'static str> {
    UNIT.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
}

/// Whether a call is allowed by the lines of `SystemCallFilter`: each adds to what is allowed, or with `~` takes away
/// from it. `sets` are those that have the call (`systemd-analyze syscall-filter`).
fn allowed(sets: &[&str]) -> bool {
    let mut allowed = false;
    for line in values("SystemCallFilter") {
        let (names, adds) = line.strip_prefix('~').map_or((line, true), |names| (names, false));
        if names.split_whitespace().any(|name| sets.contains(&name)) {
            allowed = adds;
        }
    }
    allowed
}

#[test]
fn the_socket_can_be_given_to_its_group() {
    // chown stands in @chown, which @privileged and @file-system have; @system-service has @chown itself.
    assert!(allowed(&["chown", "@chown", "@privileged", "@system-service"]));
    assert!(!allowed(&["mount", "@mount", "@privileged"]) && !allowed(&["setuid", "@setuid", "@privileged"]));
}

#[test]
fn a_start_that_fails_is_tried_again_for_as_long_as_it_takes() {
    assert_eq!(values("Restart"), ["always"]);
    let unit = UNIT.split("[Service]").next().unwrap();
    assert!(unit.contains("\nStartLimitIntervalSec=0\n"), "in [Unit], where systemd looks for it: {unit}");
    // Dovecot's start waits for ours.
    assert_eq!(values("TimeoutStartSec"), ["30"]);
}
