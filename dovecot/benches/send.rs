//! What one transaction's sends cost the calling thread: PUSH and REQ of one small message to a local peer by
//! `sender::run`, beside the floor: the same octets over a plain socket of the standard library.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ocbus_wire::Endpoint;
use ocbus_wire::sp::{Handshake, Protocol};
use openchange_plugin::sender::{Job, Kept, Outcome, Run, run};

const MESSAGE: [u8; 80] = [b'x'; 80];
const BUDGET: Duration = Duration::from_secs(5);

/// A peer in a thread of its own: it says its header, and answers each request when it is a REP.
fn peer(protocol: Protocol) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Ends with the process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            // An end of the connection, however it comes, is the end of the exchange.
            let _ = converse(stream.unwrap(), protocol);
        }
    });
    address
}

fn converse(mut stream: TcpStream, protocol: Protocol) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(&Handshake::new(protocol).to_octets())?;
    stream.read_exact(&mut [0; 8])?;
    let mut message = Vec::new();
    loop {
        let mut head = [0; 8];
        stream.read_exact(&mut head)?;
        message.resize(usize::try_from(u64::from_be_bytes(head)).unwrap(), 0);
        stream.read_exact(&mut message)?;
        if protocol == Protocol::Rep {
            // A reply of four octets, behind the request's id.
            let mut reply = 8u64.to_be_bytes().to_vec();
            reply.extend_from_slice(&message[..4]);
            reply.extend_from_slice(b"done");
            stream.write_all(&reply)?;
        }
    }
}

fn endpoints(protocol: Protocol, count: usize) -> Vec<(Endpoint, SocketAddr)> {
    (0..count)
        .map(|_| {
            let address = peer(protocol);
            (Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: address.port() }, address)
        })
        .collect()
}

fn jobs(protocol: Protocol, endpoints: &[(Endpoint, SocketAddr)]) -> Vec<Job> {
    let job = |(endpoint, _): &(Endpoint, SocketAddr)| match protocol {
        Protocol::Pull => Job::push(endpoint.clone(), [&MESSAGE[..]]),
        _ => Job::request(endpoint.clone(), 1, [&MESSAGE[..]]),
    };
    endpoints.iter().map(job).collect()
}

fn check(outcomes: &[Outcome]) {
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Delivered { .. })), "{outcomes:?}");
}

/// Connect, write, read and close, one endpoint after the other.
fn by_hand(protocol: Protocol, endpoints: &[(Endpoint, SocketAddr)]) {
    let (ours, body) = match protocol {
        Protocol::Pull => (Protocol::Push, MESSAGE.to_vec()),
        _ => (Protocol::Req, [&[0x80, 0, 0, 1], &MESSAGE[..]].concat()),
    };
    let mut octets = Handshake::new(ours).to_octets().to_vec();
    octets.extend_from_slice(&(body.len() as u64).to_be_bytes());
    octets.extend_from_slice(&body);
    for (_, address) in endpoints {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&octets).unwrap();
        stream.read_exact(&mut [0; 8]).unwrap();
        if protocol == Protocol::Rep {
            stream.read_exact(&mut [0; 16]).unwrap();
        }
    }
}

fn send(criterion: &mut Criterion) {
    for (name, protocol) in [("push", Protocol::Pull), ("request", Protocol::Rep)] {
        let mut group = criterion.benchmark_group(name);
        group.measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
        for count in [1, 5, 20] {
            let endpoints = endpoints(protocol, count);
            group.bench_function(BenchmarkId::new("by hand over std", count), |bencher| {
                bencher.iter(|| by_hand(protocol, black_box(&endpoints)));
            });
            group.bench_function(BenchmarkId::new("sender::run", count), |bencher| {
                bencher.iter(|| check(&run(jobs(protocol, black_box(&endpoints)), Instant::now() + BUDGET)));
            });
            // As a long-lived process (LMTP) sends: over the connections of the transaction before.
            let mut kept = Kept::new();
            group.bench_function(BenchmarkId::new("over kept connections", count), |bencher| {
                bencher.iter(|| {
                    let jobs = jobs(protocol, black_box(&endpoints));
                    check(&Run::start(jobs, Instant::now() + BUDGET, &mut kept).finish(&mut kept));
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, send);
criterion_main!(benches);
