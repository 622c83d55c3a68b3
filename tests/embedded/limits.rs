//! Clients that are slow, silent, too many, from elsewhere, or want too much.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

async fn dial(embedded: &Embedded) -> TcpStream {
    TcpStream::connect(embedded.config_string().replace("--SERVER=", "")).await.unwrap()
}

/// What comes until it closes, and when that is.
async fn rest(stream: &mut TcpStream) -> (String, Duration) {
    let (begun, mut said) = (Instant::now(), Vec::new());
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut said)).await.expect("it closes").unwrap_or_default();
    (String::from_utf8(said).unwrap(), begun.elapsed())
}

async fn line(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    while !said.ends_with(b"\n") {
        said.push(tokio::time::timeout(LIMIT, stream.read_u8()).await.expect("an answer").unwrap());
    }
    String::from_utf8(said).unwrap()
}

#[tokio::test]
async fn only_trusted_networks_are_let_in() {
    let trusted = "10.0.0.0/8".parse().unwrap();
    let embedded = Embedded::listen(EmbeddedConfig { trusted, ..anywhere() }).unwrap();
    let mut stream = dial(&embedded).await;
    let _ = stream.write_all(b"mn\r\n").await;
    assert_eq!(rest(&mut stream).await.0, "");
    assert_eq!((embedded.statistics().rejected_peers, embedded.statistics().accepted), (1, 0));
}

#[tokio::test]
async fn who_is_slow_or_silent_is_let_go() {
    let (patience, idle) = (Duration::from_millis(200), Duration::from_millis(500));
    let embedded = Embedded::listen(EmbeddedConfig { patience, idle, ..anywhere() }).unwrap();
    let mut silent = dial(&embedded).await;
    silent.write_all(b"mn\r\n").await.unwrap();
    let (said, after) = rest(&mut silent).await;
    assert_eq!(said, "MN\r\n");
    assert!(after >= idle && after < idle + SECOND, "{after:?}");
    // An octet now and then does not help.
    let mut slow = dial(&embedded).await;
    slow.write_all(b"set a 0 0 100\r\n").await.unwrap();
    let begun = Instant::now();
    while slow.write_all(b"x").await.is_ok() {
        assert!(begun.elapsed() < patience + SECOND);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(begun.elapsed() >= patience / 2);
    // Who takes no answers is not waited for either: 64 MiB of them are more than sockets hold.
    let mut deaf = dial(&embedded).await;
    deaf.write_all(b"set a 0 0 1000000\r\n").await.unwrap();
    deaf.write_all(&vec![b'v'; 1_000_000]).await.unwrap();
    deaf.write_all(b"\r\n").await.unwrap();
    assert_eq!(line(&mut deaf).await, "STORED\r\n");
    deaf.write_all("get a a a a a a a a a a a a a a a a\r\n".repeat(4).as_bytes()).await.unwrap();
    let begun = Instant::now();
    while embedded.statistics().connections > 0 {
        assert!(begun.elapsed() < patience + 2 * SECOND);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn more_clients_than_places_wait() {
    let embedded = Embedded::listen(EmbeddedConfig { max_connections: 2, ..anywhere() }).unwrap();
    let (mut one, mut two) = (dial(&embedded).await, dial(&embedded).await);
    for stream in [&mut one, &mut two] {
        stream.write_all(b"mn\r\n").await.unwrap();
        assert_eq!(line(stream).await, "MN\r\n");
    }
    let mut three = dial(&embedded).await;
    three.write_all(b"mn\r\n").await.unwrap();
    let waits = tokio::time::timeout(Duration::from_millis(200), three.read_u8()).await;
    assert!(waits.is_err(), "{waits:?}");
    assert_eq!(embedded.statistics().connections, 2);
    drop(one);
    assert_eq!(line(&mut three).await, "MN\r\n");
}

#[tokio::test]
async fn memory_is_bounded_and_a_refused_registration_is_an_error() {
    let (embedded, config) = listen(EmbeddedConfig { max_octets: 20_000, ..anywhere() });
    let resolver = connect(&config).await;
    let mut registered = Vec::new();
    let error = loop {
        let user = cn(&format!("user{}", registered.len()));
        match resolver.register(&user, registration("tcp://h:1", 60 * SECOND)).await {
            Ok(_) => registered.push(user),
            Err(error) => break error,
        }
        assert!(registered.len() < 100);
    };
    assert!(error.to_string().contains("out of memory"), "{error}");
    let statistics = embedded.statistics();
    assert_eq!((statistics.refused, statistics.records), (1, registered.len()));
    assert!(statistics.octets <= 20_000 && statistics.octets > 19_000, "{statistics:?}");
    // Nobody is evicted, and who is there can renew.
    for user in &registered {
        let again = resolver.register(user, registration("tcp://h:1", 60 * SECOND)).await.unwrap();
        assert!(!again.new);
    }
    resolver.leave(&registered[0], "tcp://h:1", Uuid::from_u128(1)).await.unwrap();
    assert!(resolver.register(&cn("userx"), registration("tcp://h:1", 60 * SECOND)).await.unwrap().new);
}

/// Nothing of a full store's is worth a storm: who has a place renews in time, who has none asks in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_is_not_written_to_at_each_heartbeat() {
    let (embedded, config) = listen(EmbeddedConfig { max_octets: 65_536, ..anywhere() });
    let resolver = connect(&config).await;
    let mut fillers = Vec::new();
    loop {
        let filler = cn(&format!("filler{}", fillers.len()));
        if resolver.register(&filler, registration("tcp://h:1", 600 * SECOND)).await.is_err() {
            break;
        }
        fillers.push(filler);
    }
    // Without room for as little as a canary.
    let mut canary = 0;
    while resolver.plant(&mut Canary::new(Uuid::from_u128(canary))).await.is_ok() {
        canary += 1;
    }
    let config = SubscriberConfig { lease: 6 * SECOND, ..SubscriberConfig::default() };
    let refused = embedded.statistics().refused;
    let subscriber = Subscriber::start(config, resolver.clone(), Bus::new()).await.unwrap();
    let begun = Instant::now();
    while embedded.statistics().refused == refused {
        assert!(begun.elapsed() < LIMIT, "the canary is refused");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for filler in fillers.drain(..15) {
        resolver.leave(&filler, "tcp://h:1", Uuid::from_u128(1)).await.unwrap();
    }
    let users: Vec<Cn> = (0..50).map(|n| cn(&format!("user{n}"))).collect();
    for user in &users {
        let _ = subscriber.add(user).await;
    }
    let registered = |found: Vec<Result<Listeners, _>>| {
        found.into_iter().filter(|found| !found.as_ref().unwrap().is_empty()).count()
    };
    let some = registered(resolver.lookup_many(&users).await);
    assert!((5..40).contains(&some), "{some} of them have a place");
    let before = embedded.statistics();
    // The load itself: six heartbeats of half a second.
    tokio::time::sleep(3 * SECOND).await;
    let puts = embedded.statistics().puts - before.puts;
    // Each once or twice in 3 s with this lease. At each heartbeat it would be 300 and more.
    assert!(puts <= 150, "{puts} writes in 3 s");
    for filler in fillers {
        resolver.leave(&filler, "tcp://h:1", Uuid::from_u128(1)).await.unwrap();
    }
    let begun = Instant::now();
    let mut canary = Canary::new(subscriber.id());
    loop {
        let all = registered(resolver.lookup_many(&users).await) == users.len();
        if all && resolver.remembers(&mut canary).await.unwrap() {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "everybody has a place, and the canary is planted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_claimed_length_takes_no_memory() {
    let embedded = Embedded::listen(anywhere()).unwrap();
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
    };
    let before = resident();
    let mut streams = Vec::new();
    for _ in 0..200 {
        let mut stream = dial(&embedded).await;
        stream.write_all(b"set a 0 0 1048576\r\nx").await.unwrap();
        streams.push(stream);
    }
    let begun = Instant::now();
    while embedded.statistics().connections < 200 {
        assert!(begun.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(resident() - before < 32 * 1024, "{} kB", resident() - before);
}
