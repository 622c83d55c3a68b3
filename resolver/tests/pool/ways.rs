//! Ways to reach servers, and what stands in front of keys: unix sockets, namespaces, connections.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::*;

/// A memcached at a unix socket.
struct AtSocket {
    child: Child,
    path: PathBuf,
}

impl AtSocket {
    fn start(folder: &Path) -> AtSocket {
        let path = folder.join("memcached.sock");
        let path_text = path.to_str().unwrap();
        let user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
        let child = Command::new("memcached")
            .args(["-s", path_text, "-a", "0777", "-u", &user, "-m", "16"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = AtSocket { child, path };
        poll_until("memcached answers at its socket", || UnixStream::connect(&started.path).is_ok());
        started
    }
}

impl Drop for AtSocket {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_unix_socket_is_really_used() {
    let folder = TempDir::new().unwrap();
    let at_socket = AtSocket::start(folder.path());
    let config: Config = format!("--SOCKET=\"{}\"", at_socket.path.display()).parse().unwrap();
    let resolver = connect(&config, LIMIT).await;
    let mut plugin = blocking(&config);
    let bob = cn("bob");
    let mut tasks = Vec::new();
    for n in 0..20 {
        let (resolver, bob) = (resolver.clone(), bob.clone());
        tasks.push(tokio::spawn(async move {
            resolver.register(&bob, registration(&format!("tcp://h:{n}"))).await
        }));
    }
    let mut acknowledged = 0;
    for task in tasks {
        acknowledged += usize::from(task.await.unwrap().is_ok());
    }
    assert!(acknowledged > 0);
    assert!(lookup(&mut plugin, &bob).native.len() >= acknowledged);
    assert_eq!(lookup(&mut plugin, &bob), resolver.lookup(&bob).await.unwrap());
    let mut me = Canary::new(Uuid::from_u128(3));
    resolver.plant(&mut me).await.unwrap();
    assert!(resolver.remembers(&mut me).await.unwrap());

    server::stop(&at_socket.child);
    let begun = Instant::now();
    assert!(plugin.lookup(&bob, begun + LIMIT).unwrap_err().is_timeout());
    assert!(resolver.lookup(&bob).await.unwrap_err().is_timeout());
    assert!(begun.elapsed() < 2 * LIMIT + Duration::from_millis(100));
    server::go_on(&at_socket.child);
    assert!(!lookup(&mut plugin, &bob).is_empty());
    drop(at_socket);
    let begun = Instant::now();
    assert!(plugin.lookup(&bob, begun + LIMIT).unwrap_err().is_outage());
    assert!(resolver.lookup(&bob).await.unwrap_err().is_outage());
    assert!(begun.elapsed() < LIMIT);
}

#[tokio::test]
async fn a_socket_beside_a_port_holds_its_share() {
    let folder = TempDir::new().unwrap();
    let (at_socket, memcached) = (AtSocket::start(folder.path()), Memcached::start());
    let config = format!("--SERVER=127.0.0.1:{} --SOCKET=\"{}\"", memcached.port, at_socket.path.display());
    let config: Config = config.parse().unwrap();
    let selection = Selection::new(&config).unwrap();
    let resolver = connect(&config, 5 * SECOND).await;
    let mut plugin = blocking(&config);
    for n in 0..20 {
        let name = cn(&format!("name{n}"));
        resolver.register_legacy(&name, "tcp://h:1").await.unwrap();
        assert_eq!(lookup(&mut plugin, &name).legacy, ["tcp://h:1"]);
        let by_port = selection.index(name.resolver_key().as_bytes()) == 0;
        assert_eq!(memcached.get(&name.resolver_key()).is_some(), by_port);
    }
}

#[tokio::test]
async fn a_namespace_stands_in_front_of_every_key() {
    let memcached = Memcached::start();
    let config = |namespace: &str| -> Config {
        format!("--SERVER=127.0.0.1:{} --NAMESPACE=\"{namespace}\"", memcached.port).parse().unwrap()
    };
    let (one, two) = (connect(&config("one."), 5 * SECOND).await, connect(&config("two."), 5 * SECOND).await);
    let bob = cn("bob");
    one.register(&bob, registration("tcp://h:1")).await.unwrap();
    one.register_legacy(&bob, "tcp://h:1").await.unwrap();
    let mut me = Canary::new(Uuid::from_u128(4));
    one.plant(&mut me).await.unwrap();
    for key in ["one.ocbus:bob", "one.resolver:bob", &format!("one.ocbus-canary:{}", Uuid::from_u128(4))] {
        assert!(memcached.get(key).is_some(), "{key}");
    }
    assert!(memcached.get("resolver:bob").is_none());
    assert!(two.lookup(&bob).await.unwrap().is_empty());
    assert!(!two.remembers(&mut me).await.unwrap());
    let mut plugin = blocking(&config("one."));
    assert_eq!(lookup(&mut plugin, &bob).native.len(), 1);
    // Refused, not cut off; and it says nothing about the server.
    let long = cn(&"c".repeat(240));
    let error = plugin.lookup(&long, Instant::now() + 5 * SECOND).unwrap_err();
    assert!(!error.is_outage() && error.to_string().contains("at most 250"), "{error}");
    assert!(one.lookup(&long).await.is_err());
    assert!(one.leave(&bob, "tcp://h:1", Uuid::from_u128(1)).await.unwrap());
    assert!(memcached.get("one.ocbus:bob").is_none());
}

/// Connections that a memcached has; that of the question not counted.
fn connections(memcached: &Memcached) -> u64 {
    memcached.stats()["curr_connections"] - 1
}

#[tokio::test]
async fn so_many_connections_are_opened_and_kept() {
    let limited = (" --POOL-MIN=5 --POOL-MAX=2", 2);
    // The last again and again: what dials ahead and the first look-ups may meet.
    for (options, least) in [("", 0), (" --POOL-MIN=5", 5)].into_iter().chain([limited; 15]) {
        let mut memcached = Memcached::start();
        let config: Config = format!("--SERVER=127.0.0.1:{}{options}", memcached.port).parse().unwrap();
        let resolver = connect(&config, 5 * SECOND).await;
        let all_there = async |memcached: &Memcached, count: u64| {
            let begun = Instant::now();
            while connections(memcached) != count {
                assert!(begun.elapsed() < 5 * SECOND, "{options}: {}", connections(memcached));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        all_there(&memcached, least).await;
        for _ in 0..20 {
            resolver.lookup(&cn("bob")).await.unwrap();
        }
        all_there(&memcached, least.max(1)).await;
        // They are dead now; the next look-up finds out.
        memcached.restart();
        resolver.lookup(&cn("bob")).await.unwrap();
        all_there(&memcached, least.max(1)).await;
    }
}

/// The established connections to a port from here, and how many of them have the timer of keepalive.
fn keepalive(port: u16) -> (usize, usize) {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let to = format!(":{port:04X}");
    let mine: Vec<&str> = table
        .lines()
        .filter(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words[2].ends_with(&to) && words[3] == "01"
        })
        .collect();
    (
        mine.len(),
        mine.iter().filter(|line| line.split_whitespace().nth(5).unwrap().starts_with("02:")).count(),
    )
}

#[tokio::test]
async fn idle_connections_are_probed_where_it_is_asked_for() {
    for (options, probed) in [("", false), (" --TCP-KEEPALIVE", true)] {
        let memcached = Memcached::start();
        let config: Config = format!("--SERVER=127.0.0.1:{}{options}", memcached.port).parse().unwrap();
        let resolver = connect(&config, 5 * SECOND).await;
        resolver.lookup(&cn("bob")).await.unwrap();
        let mut plugin = blocking(&config);
        lookup(&mut plugin, &cn("bob"));
        // Until the last octets are acknowledged there is another timer.
        let expected = (2, if probed { 2 } else { 0 });
        poll_until("the timers are those", || keepalive(memcached.port) == expected);
    }
}
