//! Who listens? Both records of a user from a private memcached: by the blocking resolver (the Dovecot plugin's), by
//! the tokio one, and by a bare socket that sends the same two `mg` in one write, which is the floor.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use ocbus::resolver::{BlockingResolver, Cn, Config, Registration, Resolver};
use ocbus::sandbox::Sandbox;
use ocbus::wire::openchange::DosCharset;
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(5);

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// One exchange; `answer` is as long as the answer.
fn ask(stream: &mut TcpStream, answer: &mut [u8]) {
    stream.write_all(b"mg ocbus:bob v c\r\nmg resolver:bob v c\r\n").unwrap();
    stream.read_exact(answer).unwrap();
}

fn lookup(criterion: &mut Criterion) {
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached().unwrap();
    let config: Config = memcached.configuration().parse().unwrap();
    let charset = DosCharset::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bob = Cn::new("bob").unwrap();
    let resolver = runtime.block_on(async {
        let resolver = Resolver::new(&config, charset, LIMIT).await.unwrap();
        let registration = Registration {
            endpoint: "tcp://127.0.0.1:9005",
            legacy: None,
            subscriber: Uuid::from_u128(1),
            lease: Duration::from_secs(3600),
        };
        assert!(resolver.register(&bob, registration).await.unwrap().new);
        assert!(resolver.register_legacy(&bob, "tcp://127.0.0.1:9006").await.unwrap());
        resolver
    });

    let mut group = criterion.benchmark_group("lookup");
    let mut stream = connect(memcached.port());
    // The answer has two values, each between CR LF, and is the same every time.
    stream.write_all(b"mg ocbus:bob v c\r\nmg resolver:bob v c\r\nmn\r\n").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"MN\r\n") {
        let mut piece = [0; 1024];
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0 && answer.len() < 4096, "{}", answer.escape_ascii());
        answer.extend_from_slice(&piece[..count]);
    }
    answer.truncate(answer.len() - b"MN\r\n".len());
    let read = answer.len();
    group.bench_function("bare_socket", |bencher| bencher.iter(|| ask(&mut stream, &mut answer[..read])));

    let mut blocking = BlockingResolver::new(&config, charset);
    let check = |listeners: &ocbus::resolver::Listeners| {
        assert_eq!((listeners.native.len(), listeners.legacy.len()), (1, 1));
    };
    group.bench_function("blocking", |bencher| {
        bencher.iter(|| check(&blocking.lookup(&bob, Instant::now() + LIMIT).unwrap()));
    });
    group.bench_function("tokio", |bencher| {
        bencher.iter_custom(|count| {
            runtime.block_on(async {
                let start = Instant::now();
                for _ in 0..count {
                    check(&resolver.lookup(&bob).await.unwrap());
                }
                start.elapsed()
            })
        });
    });
    // As the plugin's first mail of a process: with the connection.
    group.bench_function("bare_socket_connect", |bencher| {
        bencher.iter(|| ask(&mut connect(memcached.port()), &mut answer[..read]));
    });
    group.bench_function("blocking_connect", |bencher| {
        bencher.iter(|| {
            let mut blocking = BlockingResolver::new(&config, charset);
            check(&blocking.lookup(&bob, Instant::now() + LIMIT).unwrap());
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .sample_size(30)
        .without_plots();
    targets = lookup
}
criterion_main!(benches);
