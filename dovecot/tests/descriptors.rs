//! The sender closes what it opens. A program of its own, because it counts the descriptors of the process.

// The helpers below are test code too, which clippy does not see.
#![allow(clippy::expect_used)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use ocbus_wire::Endpoint;
use ocbus_wire::sp::{Handshake, Protocol};
use openchange_plugin::sender::{Job, Outcome, run};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("a process has descriptors").count()
}

fn endpoint(listener: &TcpListener) -> Endpoint {
    let address = listener.local_addr().expect("a bound listener has an address");
    Endpoint::parse(&format!("tcp://{address}")).expect("an address is an endpoint")
}

#[test]
fn no_descriptor_is_left_open_whatever_the_outcome() {
    let live = TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = endpoint(&TcpListener::bind("127.0.0.1:0").unwrap());
    let missing = Endpoint::Ipc { path: "/nonexistent/socket".to_owned() };
    let there = endpoint(&live);
    let server = thread::spawn(move || {
        let mut received = 0;
        while received < 50 * 3 {
            let (mut stream, _) = live.accept().unwrap();
            stream.write_all(&Handshake::new(Protocol::Pull).to_octets()).unwrap();
            received += stream.read_to_end(&mut Vec::new()).map(|_| 1).unwrap();
        }
        received
    });
    let before = descriptors();
    for _ in 0..50 {
        let mut jobs: Vec<Job> = (0..3).map(|_| Job::push(there.clone(), [&b"x"[..]])).collect();
        for other in [&dead, &missing, &endpoint(&mute)] {
            jobs.push(Job::request(other.clone(), 1, [&b"x"[..]]));
        }
        let outcomes = run(jobs, Instant::now() + Duration::from_millis(20));
        assert!(matches!(outcomes[0], Outcome::Delivered { .. }), "{}", outcomes[0]);
        assert!(matches!(outcomes[3], Outcome::Refused), "{}", outcomes[3]);
        assert!(matches!(outcomes[5], Outcome::Silent | Outcome::NotReached), "{}", outcomes[5]);
    }
    assert_eq!(server.join().unwrap(), 150);
    // The server's thread has closed its own by now.
    assert!(descriptors() <= before, "{} before, {} after", before, descriptors());
}
