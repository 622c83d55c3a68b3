//! Ends in the middle of what nng does: none of its few threads may be lost by one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nng::options::{Options, ReconnectMinTime};
use nng::{Protocol, Socket};
use ocbus_wire::Endpoint;

use super::{Call, ListenOptions, Role, Server, TrustedNetworks};

/// So many that nng has no thread left when one of them costs it one now and then.
const ENDS: usize = 2_000;
const LIMIT: Duration = Duration::from_secs(30);

fn listen(role: Role) -> Server {
    listen_for(role, TrustedNetworks::default(), Arc::default())
}

fn listen_for(role: Role, trusted: TrustedNetworks, rejected: Arc<AtomicU64>) -> Server {
    let options = ListenOptions { advertise: None, ipc_mode: None, trusted, rejected };
    let bind = Endpoint::parse("tcp://127.0.0.1:0").unwrap();
    Server::listen(role, &bind, &options, Arc::new(<[u8]>::to_vec)).unwrap()
}

fn dialled(server: &Server) -> Socket {
    let socket = Socket::new(Protocol::Req0).unwrap();
    socket.set_opt::<ReconnectMinTime>(Some(Duration::from_millis(1))).unwrap();
    socket.dial(&server.endpoint.to_string()).unwrap();
    socket
}

/// Whether nng still does what it is asked to.
async fn assert_answers() {
    let server = listen(Role::Reply);
    let socket = dialled(&server);
    let mut call = Call::requesting(&socket).unwrap();
    assert_eq!(call.request(&b"still there?"[..], LIMIT).await.unwrap().as_slice(), b"still there?");
}

/// `work` blocks while nng does: the deadline is another thread's.
async fn within_the_limit(work: impl FnOnce() + Send + 'static) {
    tokio::time::timeout(LIMIT, tokio::task::spawn_blocking(work)).await.expect("nng is stuck").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_end_leave_nng_its_threads() {
    within_the_limit(|| {
        for _ in 0..ENDS / 20 {
            let servers: Vec<Server> =
                (0..20).map(|at| listen(if at % 2 == 0 { Role::Pull } else { Role::Reply })).collect();
            drop(servers);
        }
    })
    .await;
    assert_answers().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_given_up_leave_nng_its_threads() {
    let server = listen(Role::Reply);
    let socket = dialled(&server);
    for turn in 0..ENDS {
        let mut call = Call::requesting(&socket).unwrap();
        // Given up before it is sent, while it is, while the reply comes, after that.
        let patience = Duration::from_micros(turn as u64 % 200);
        let reply = tokio::time::timeout(patience, call.request(&b"?"[..], LIMIT)).await;
        if let Ok(reply) = reply {
            assert_eq!(reply.unwrap().as_slice(), b"?");
        }
        drop(call);
    }
    assert_answers().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_can_be_used_again_after_one_that_was_given_up() {
    let server = listen(Role::Reply);
    let socket = dialled(&server);
    let mut call = Call::requesting(&socket).unwrap();
    for turn in 0..ENDS {
        let patience = Duration::from_micros(turn as u64 % 200);
        drop(tokio::time::timeout(patience, call.request(&b"old"[..], LIMIT)).await);
        let octets = turn.to_be_bytes();
        assert_eq!(call.request(octets, LIMIT).await.unwrap().as_slice(), octets);
    }
}

/// What a peer says first: a REQ of SP.
const GREETING: &[u8] = b"\0SP\0\0\x30\0\0";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_hung_up_before_it_was_looked_at_is_no_intruder() {
    let rejected = Arc::new(AtomicU64::new(0));
    let server = listen_for(Role::Reply, TrustedNetworks::default(), Arc::clone(&rejected));
    let Endpoint::Tcp { host, port } = &server.endpoint else { panic!("{:?}", server.endpoint) };
    for _ in 0..ENDS / 10 {
        let mut stream = TcpStream::connect((host.as_str(), *port)).unwrap();
        stream.write_all(GREETING).unwrap();
        // Reset, not closed: nobody can say any more whose it was.
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    }
    // nng looks at connections in their order.
    let socket = dialled(&server);
    let mut call = Call::requesting(&socket).unwrap();
    call.request(&b"?"[..], LIMIT).await.unwrap();
    assert_eq!(rejected.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_outside_the_networks_is_counted_and_gets_nothing() {
    let (rejected, elsewhere) = (Arc::new(AtomicU64::new(0)), "10.0.0.0/8".parse().unwrap());
    let server = listen_for(Role::Reply, elsewhere, Arc::clone(&rejected));
    let socket = dialled(&server);
    let mut call = Call::requesting(&socket).unwrap();
    let unanswered = async {
        // It dials again and again.
        while rejected.load(Ordering::Relaxed) < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        answer = call.request(&b"?"[..], LIMIT) => panic!("{:?}", answer.map(|answer| answer.len())),
        in_time = tokio::time::timeout(LIMIT, unanswered) => in_time.expect("it is turned away"),
    }
}
