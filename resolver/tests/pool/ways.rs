//! Ways to reach servers, and what stands in front of keys: unix sockets, namespaces, copies.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ocbus_resolver::Settlement;
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

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
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
    let me = Uuid::from_u128(3);
    resolver.plant(me).await.unwrap();
    assert!(resolver.remembers(me).await.unwrap());

    at_socket.signal("-STOP");
    let begun = Instant::now();
    assert!(plugin.lookup(&bob, begun + LIMIT).unwrap_err().is_timeout());
    assert!(resolver.lookup(&bob).await.unwrap_err().is_timeout());
    assert!(begun.elapsed() < 2 * LIMIT + Duration::from_millis(100));
    at_socket.signal("-CONT");
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
    let me = Uuid::from_u128(4);
    one.plant(me).await.unwrap();
    for key in ["one.ocbus:bob", "one.resolver:bob", &format!("one.ocbus-canary:{me}")] {
        assert!(memcached.get(key).is_some(), "{key}");
    }
    assert!(memcached.get("resolver:bob").is_none());
    assert!(two.lookup(&bob).await.unwrap().is_empty());
    assert!(!two.remembers(me).await.unwrap());
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

#[tokio::test]
async fn copies_are_written_and_read_when_their_server_is_gone() {
    let mut three = Three::start(" --BINARY-PROTOCOL --NUMBER-OF-REPLICAS=1");
    let resolver = connect(&three.config, LIMIT).await;
    let mut plugin = blocking(&three.config);
    let user = three.users[1][0].clone();
    resolver.register(&user, registration("tcp://h:1")).await.unwrap();
    resolver.register_legacy(&user, "tcp://h:2").await.unwrap();
    let held = |three: &Three| -> Vec<bool> {
        three.servers.iter().map(|server| server.get(&user.lease_key()).is_some()).collect()
    };
    assert_eq!(held(&three), [false, true, true], "the copy is on the server behind");
    assert!(resolver.leave(&user, "tcp://h:1", Uuid::from_u128(1)).await.unwrap());
    assert_eq!(held(&three), [false, false, false]);
    resolver.register(&user, registration("tcp://h:1")).await.unwrap();
    // The plugin's writes go there, too.
    let settlement = Settlement { gone_legacy: vec!["tcp://h:2".to_owned()], ..Settlement::default() };
    plugin.settle(&user, &settlement, Instant::now() + 5 * SECOND).unwrap();
    assert!(three.servers[2].get(&user.resolver_key()).is_none());

    three.servers[1].kill();
    assert_eq!(lookup(&mut plugin, &user).native.len(), 1, "from the copy");
    assert_eq!(resolver.lookup(&user).await.unwrap().native.len(), 1);
    let error = resolver.register(&user, registration("tcp://h:3")).await.unwrap_err();
    assert!(error.is_one_server(), "what is written is never made of a copy: {error}");
}
