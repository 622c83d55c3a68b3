//! A memcached that is restarted between a read and the write that follows from it, and counts versions as before.

use std::sync::{Mutex, PoisonError};

use ocbus_wire::openchange::ResolverRecord;

use super::*;

fn record(hosts: &[&str]) -> Vec<u8> {
    let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
    ResolverRecord { hosts }.encode(DosCharset::default()).unwrap()
}

/// A memcached behind a relay: when bob's record has been read for the first time, and before the reader has it,
/// memcached is restarted, and another record stored there under the same version. The connections end with it.
struct Restarted {
    memcached: Arc<Mutex<Memcached>>,
    relay: FakeServer,
}

impl Restarted {
    fn start() -> Restarted {
        let memcached = Memcached::start();
        let stored = |memcached: &Memcached, hosts: &[&str]| {
            memcached.set("resolver:bob", &record(hosts));
            assert_eq!(memcached.ask("mg resolver:bob c", "HD"), "HD c1", "else this shows nothing");
        };
        stored(&memcached, &["tcp://gone:1", "tcp://before:1"]);
        let memcached = Arc::new(Mutex::new(memcached));
        let (behind, connections) = (Arc::clone(&memcached), AtomicUsize::new(0));
        let relay = FakeServer::start(move |mut peer| {
            let mut memcached = behind.lock().unwrap();
            if connections.fetch_add(1, SeqCst) > 0 {
                let port = memcached.port;
                drop(memcached);
                return peer.relay(port);
            }
            assert_eq!(peer.line(), "mg resolver:bob v c");
            let read = memcached.get("resolver:bob").unwrap();
            memcached.restart();
            stored(&memcached, &["tcp://gone:1", "tcp://after:1"]);
            peer.send(&[format!("VA {} c1\r\n", read.len()).as_bytes(), &read, b"\r\n"].concat());
        });
        Restarted { memcached, relay }
    }

    fn hosts(&self) -> Vec<String> {
        let value = self.memcached.lock().unwrap().get("resolver:bob").unwrap();
        ResolverRecord::decode(&value, DosCharset::default()).unwrap().hosts
    }
}

impl Drop for Restarted {
    fn drop(&mut self) {
        // The relay's thread has it as well, and does not end.
        self.memcached.lock().unwrap_or_else(PoisonError::into_inner).kill();
    }
}

#[tokio::test]
async fn what_was_read_before_a_restart_is_not_written_behind_it() {
    let settlement = Settlement { gone_legacy: vec!["tcp://gone:1".to_owned()], ..Settlement::default() };
    let restarted = Restarted::start();
    let mut plugin = blocking(restarted.relay.port);
    plugin.settle(&cn("bob"), &settlement, Instant::now() + 5 * SECOND).unwrap();
    assert_eq!(restarted.hosts(), ["tcp://after:1"], "made of what stood there");

    let restarted = Restarted::start();
    let resolver = connect(restarted.relay.port, 5 * SECOND).await;
    resolver.settle(&cn("bob"), &settlement).await.unwrap();
    assert_eq!(restarted.hosts(), ["tcp://after:1"]);

    let restarted = Restarted::start();
    let resolver = connect(restarted.relay.port, 5 * SECOND).await;
    let many = [(&cn("bob"), "tcp://ours:1")];
    assert!(resolver.register_legacy_many(&many).await.remove(0).unwrap());
    assert_eq!(restarted.hosts(), ["tcp://gone:1", "tcp://after:1", "tcp://ours:1"]);
}
