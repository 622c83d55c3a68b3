//! Many writers of the same records: processes of their own, and one that knows no compare-and-swap.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use ocbus_wire::openchange::ResolverRecord;

use super::*;

const WRITERS: usize = 8;
/// Of all writers together.
const ENDPOINTS: usize = 1000;

/// Not a test of its own: the process of one writer, started by the tests below.
#[tokio::test]
async fn writer_process() {
    let Ok(job) = std::env::var("OCBUS_TEST_WRITER") else { return };
    let words: Vec<&str> = job.splitn(4, ' ').collect();
    let (writer, users): (usize, usize) = (words[0].parse().unwrap(), words[1].parse().unwrap());
    let (native, config): (bool, Config) = (words[2] == "native", words[3].parse().unwrap());
    let resolver = connect(&config, 30 * SECOND).await;
    let mut said = String::from("\n");
    for n in 0..ENDPOINTS / WRITERS {
        let (user, endpoint) = (cn(&format!("bob{}", n % users)), format!("tcp://h{writer}:{n}"));
        // Every writer adds to every record, and takes out of it.
        let added = match native {
            true => resolver.register(&user, registration(&endpoint)).await.unwrap().new,
            false => resolver.register_legacy(&user, &endpoint).await.unwrap(),
        };
        assert!(added, "{user} {endpoint}");
        said.push_str(&format!("+ {user} {endpoint}\n"));
        if n % 3 == 1 {
            let removed = match native {
                true => resolver.leave(&user, &endpoint, Uuid::from_u128(1)).await.unwrap(),
                false => resolver.leave_legacy(&user, &endpoint).await.unwrap(),
            };
            assert!(removed, "{user} {endpoint}");
            said.push_str(&format!("- {user} {endpoint}\n"));
        }
    }
    println!("{said}");
}

/// What eight processes say they did is what the records hold.
fn contend(users: usize, native: bool) {
    let servers: Vec<Memcached> = (0..2).map(|_| Memcached::start()).collect();
    let config = format!("--SERVER=127.0.0.1:{} --SERVER=127.0.0.1:{}", servers[0].port, servers[1].port);
    let kind = if native { "native" } else { "legacy" };
    let children: Vec<_> = (0..WRITERS)
        .map(|writer| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "writers::writer_process", "--nocapture"])
                .env("OCBUS_TEST_WRITER", format!("{writer} {users} {kind} {config}"))
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let (mut acknowledged, mut additions) = (BTreeSet::new(), 0);
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            if let Some(added) = line.strip_prefix("+ ") {
                acknowledged.insert(added.to_owned());
                additions += 1;
            } else if let Some(removed) = line.strip_prefix("- ") {
                assert!(acknowledged.remove(removed));
            }
        }
    }
    assert_eq!(additions, ENDPOINTS);
    // Otherwise they were never in each other's way, and this shows nothing.
    let races: u64 = servers.iter().map(|server| server.stats()["cas_badval"]).sum();
    println!("{races} lost races");
    assert!(races > 0 || users > 1, "nobody was in anybody's way");
    let mut plugin = blocking(&config.parse().unwrap());
    let mut found = BTreeSet::new();
    for user in 0..users {
        let user = cn(&format!("bob{user}"));
        let listeners = lookup(&mut plugin, &user);
        let native = listeners.native.into_iter().map(|lease| lease.endpoint);
        for endpoint in native.chain(listeners.legacy) {
            assert!(found.insert(format!("{user} {endpoint}")), "twice: {user} {endpoint}");
        }
    }
    assert_eq!(found, acknowledged);
}

#[test]
fn eight_processes_lose_nothing_of_one_record_of_leases() {
    contend(1, true);
}

#[test]
fn eight_processes_lose_nothing_of_one_resolver_record() {
    contend(1, false);
}

#[test]
fn eight_processes_lose_nothing_of_a_hundred_records() {
    contend(100, true);
    contend(100, false);
}

/// OpenChange's own writer: reads, edits and sets without compare-and-swap. What it overwrites of ours our next
/// renewal puts back, and what it wrote stays.
#[tokio::test]
async fn what_openchange_overwrites_the_next_renewal_heals() {
    let memcached = Memcached::start();
    let config: Config = format!("--SERVER=127.0.0.1:{}", memcached.port).parse().unwrap();
    let resolver = connect(&config, 5 * SECOND).await;
    let bob = cn("bob");
    let key = bob.resolver_key();
    let charset = DosCharset::default();
    let hosts = || ResolverRecord::decode(&memcached.get(&key).unwrap_or_default(), charset).unwrap().hosts;
    let (mut healed, mut theirs) = (0, Vec::new());
    for round in 0..20 {
        // It has read what is there before we register, and writes afterwards.
        let mut read = hosts();
        resolver.register_legacy(&bob, &format!("tcp://ours:{round}")).await.unwrap();
        let their = format!("tcp://theirs:{round}");
        read.push(their.clone());
        theirs.push(their);
        memcached.set(&key, &ResolverRecord { hosts: read }.encode(charset).unwrap());
        assert!(!hosts().contains(&format!("tcp://ours:{round}")), "overwritten");
        // The renewal: each of ours stands there or is put back.
        for ours in 0..=round {
            healed +=
                usize::from(resolver.register_legacy(&bob, &format!("tcp://ours:{ours}")).await.unwrap());
        }
        let now = hosts();
        assert!((0..=round).all(|ours| now.contains(&format!("tcp://ours:{ours}"))));
        assert!(theirs.iter().all(|their| now.contains(their)), "nothing of theirs is lost");
    }
    assert_eq!(healed, 20);
}
