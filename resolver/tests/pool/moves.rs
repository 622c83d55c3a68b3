//! Records that move to another server between a read and the write that follows from it.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use ocbus_wire::openchange::ResolverRecord;

use super::server::FakeServer;
use super::*;

const VALUE: &[u8] = b"\x01\x01\0\0\0\x01\0\0\0tcp://elsewhere:1\0";

/// What was read from one server is never written to another, though the versions are the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_of_one_server_counts_for_nothing_on_another() {
    let mut home = Memcached::start();
    // The other server: says that bob has one endpoint, at version 1, but not before it is let.
    let (reading, go) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let written = Arc::new(Mutex::new(Vec::new()));
    let name: Arc<Mutex<String>> = Arc::default();
    let other = FakeServer::start({
        let (reading, go, written, name) = (reading.clone(), go.clone(), written.clone(), name.clone());
        move |mut peer| {
            loop {
                let line = peer.line();
                let words: Vec<&str> = line.split(' ').collect();
                match words[..] {
                    ["mg", key, ..] if *name.lock().unwrap() == key => {
                        reading.store(true, SeqCst);
                        poll_until("it is let", || go.load(SeqCst));
                        peer.send(
                            &[format!("VA {} c1\r\n", VALUE.len()).as_bytes(), VALUE, b"\r\n"].concat(),
                        );
                    }
                    ["mg", ..] => peer.send(b"EN\r\n"),
                    ["ms", key, ..] => {
                        written.lock().unwrap().push(key.to_owned());
                        peer.line();
                        peer.send(b"HD\r\n");
                    }
                    _ => return,
                }
            }
        }
    });
    let options = "--DISTRIBUTION=CONSISTENT --REMOVE-FAILED-SERVERS=1 --RETRY-TIMEOUT=1";
    let config = format!("--SERVER=127.0.0.1:{} --SERVER=127.0.0.1:{} {options}", home.port, other.port);
    let config: Config = config.parse().unwrap();
    let selection = Selection::new(&config).unwrap();
    let at_home = |user: &Cn| selection.index(user.resolver_key().as_bytes()) == 0;
    let mut users = (0..).map(|n| cn(&format!("user{n}"))).filter(at_home);
    let (bob, probe) = (users.next().unwrap(), users.next().unwrap());
    *name.lock().unwrap() = bob.resolver_key();
    let resolver = connect(&config, 5 * SECOND).await;

    home.kill();
    let begun = Instant::now();
    while resolver.register(&probe, registration("tcp://h:1")).await.is_err() {
        assert!(begun.elapsed() < 10 * SECOND, "the home is removed after five failures");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Read there...
    let task = tokio::spawn({
        let (resolver, bob) = (resolver.clone(), bob.clone());
        async move { resolver.register_legacy(&bob, "tcp://ours:1").await }
    });
    poll_until("it reads from the other", || reading.load(SeqCst));
    // ...and meanwhile the home is back, with another record of the same version.
    home.restart();
    let charset = DosCharset::default();
    let theirs = ResolverRecord { hosts: vec!["tcp://theirs:1".to_owned()] }.encode(charset).unwrap();
    home.set(&bob.resolver_key(), &theirs);
    let version = home.ask(&format!("mg {} c", bob.resolver_key()), "HD");
    assert_eq!(version, "HD c1", "else this shows nothing");
    home.set(&probe.resolver_key(), &theirs);
    let begun = Instant::now();
    while !resolver.lookup(&probe).await.is_ok_and(|found| found.legacy.len() == 1) {
        assert!(begun.elapsed() < 3 * SECOND, "the home is in use again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    go.store(true, SeqCst);
    assert!(task.await.unwrap().unwrap());
    let record = ResolverRecord::decode(&home.get(&bob.resolver_key()).unwrap(), charset).unwrap();
    assert_eq!(record.hosts, ["tcp://theirs:1", "tcp://ours:1"], "made of what stood there");
    assert!(!written.lock().unwrap().contains(&bob.resolver_key()), "and not written where it was read");
}
