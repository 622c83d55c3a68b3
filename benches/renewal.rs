//! What many users cost a subscriber: registration, memory, and renewal over a whole period, against a private
//! memcached. `OCBUS_BENCH_USERS=1,10000` are other numbers of users than 1, 10,000 and 100,000. Each number has a process of
//! its own: what the allocator has left from one would be used by the next, and seem to cost nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::cast_precision_loss)]

use std::time::{Duration, Instant};

use ocbus::resolver::{Cn, Config, Resolver};
use ocbus::sandbox::Sandbox;
use ocbus::subscriber::SubscriberConfig;
use ocbus::wire::openchange::DosCharset;
use ocbus::{Bus, Subscriber};
use tokio::task::JoinSet;

/// Numbers of users; of one of these processes, its own.
const USERS: &str = "OCBUS_BENCH_USERS";

/// Set in a process that measures one number.
const OWN_PROCESS: &str = "OCBUS_BENCH_OWN_PROCESS";

/// Registrations under way at once.
const AT_ONCE: usize = 512;

/// CPU time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = [11, 12].iter().map(|&at| fields[at].parse::<u64>().unwrap()).sum();
    // Linux counts in hundredths of a second for user space.
    Duration::from_millis(ticks * 10)
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<usize>().unwrap() * 1024
}

fn main() {
    let users = std::env::var(USERS).unwrap_or_else(|_| "1,10000,100000".to_owned());
    if std::env::var_os(OWN_PROCESS).is_none() {
        println!(
            "users      registered in   CPU for it   a user    renewal: CPU of one core, over one period"
        );
        for users in users.split(',') {
            let mut own = std::process::Command::new(std::env::current_exe().unwrap());
            let status = own.env(USERS, users).env(OWN_PROCESS, "1").status().unwrap();
            assert!(status.success(), "{users} users: {status}");
        }
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(users.trim().parse().unwrap()));
}

async fn measure(users: usize) {
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached().unwrap();
    let config = Config::parse(&memcached.configuration()).unwrap();
    let resolver = Resolver::new(&config, DosCharset::default(), Duration::from_secs(5)).await.unwrap();
    let own = SubscriberConfig::default();
    let period = own.lease / 3;
    let subscriber = Subscriber::start(own, resolver.clone(), Bus::new()).await.unwrap();
    let subscriber = std::sync::Arc::new(subscriber);
    let cn = |user: usize| Cn::new(&format!("user{user}@example.org")).unwrap();
    let (before, begun, cpu_before) = (resident(), Instant::now(), cpu());
    for first in (0..users).step_by(AT_ONCE) {
        let mut adding = JoinSet::new();
        for user in first..users.min(first + AT_ONCE) {
            let subscriber = std::sync::Arc::clone(&subscriber);
            adding.spawn(async move { subscriber.add(&cn(user)).await.unwrap() });
        }
        while let Some(added) = adding.join_next().await {
            added.unwrap();
        }
    }
    let (took, cpu_took) = (begun.elapsed(), cpu() - cpu_before);
    let memory = resident().saturating_sub(before) / users.max(1);
    let sample: Vec<Cn> = (0..users).step_by((users / 500).max(1)).map(cn).collect();
    let mut ends = Vec::new();
    for cn in &sample {
        ends.push(resolver.lookup(cn).await.unwrap().native[0].until_ms);
    }
    let cpu_before = cpu();
    // And a second, as the last one is due at the end of its period.
    let whole = period + Duration::from_secs(1);
    tokio::time::sleep(whole).await;
    let share = (cpu() - cpu_before).as_secs_f64() / whole.as_secs_f64();
    for (cn, end) in sample.iter().zip(ends) {
        let native = resolver.lookup(cn).await.unwrap().native;
        assert!(native.len() == 1 && native[0].until_ms > end, "{cn} was not renewed within its period");
    }
    println!(
        "{users:<10} {:>9.3} s {:>12.3} s {:>6} B {:>12.1} %",
        took.as_secs_f64(),
        cpu_took.as_secs_f64(),
        memory,
        share * 100.0
    );
}
