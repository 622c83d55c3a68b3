//! What the benches of Dovecot share: a sandbox in memory, medians and the intervals of their ratios.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Starts anew with the sandbox in memory, unless OCBUS_SANDBOX_DIR says where it is.
pub(crate) fn move_to_memory(arguments: &[String]) {
    const MEMORY: &str = "/dev/shm";
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    // Plugins are loaded from there.
    let usable = mounts.lines().any(|line| line.contains(" /dev/shm tmpfs ") && !line.contains("noexec"));
    if usable && std::env::var_os("OCBUS_SANDBOX_DIR").is_none() {
        let mut anew = Command::new(std::env::current_exe().unwrap());
        panic!("{}", anew.args(arguments).env("OCBUS_SANDBOX_DIR", MEMORY).exec());
    }
}

/// `OCBUS_BENCH_ROUNDS`, if it is set.
pub(crate) fn rounds() -> Option<usize> {
    let rounds = std::env::var("OCBUS_BENCH_ROUNDS").ok()?;
    Some(rounds.parse().expect("OCBUS_BENCH_ROUNDS: expected a number"))
}

pub(crate) fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// A 95 % interval of the ratio of two medians.
pub(crate) fn interval(own: &[f64], other: &[f64]) -> (f64, f64) {
    interval_of(own, other, |own, other| own / other)
}

/// A 95 % interval of what `compare` makes of two medians: both are drawn anew from the same rounds, many times.
pub(crate) fn interval_of(own: &[f64], other: &[f64], compare: impl Fn(f64, f64) -> f64) -> (f64, f64) {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % own.len() as u64) as usize
    };
    let compared: Vec<f64> = (0..1000)
        .map(|_| {
            let rounds: Vec<usize> = own.iter().map(|_| draw()).collect();
            let drawn = |all: &[f64]| median(&rounds.iter().map(|&round| all[round]).collect::<Vec<f64>>());
            compare(drawn(own), drawn(other))
        })
        .collect();
    (quantile(&compared, 0.025), quantile(&compared, 0.975))
}
