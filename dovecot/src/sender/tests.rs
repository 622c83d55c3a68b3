use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use ocbus_wire::sp::{Handshake, Protocol};
use rustix::net::{AddressFamily, SocketType};

use super::*;

const BUDGET: Duration = Duration::from_millis(100);
/// What a busy machine may add; endpoints one after the other would cost a budget each.
const SLACK: Duration = Duration::from_millis(80);
/// Far more than any live peer needs.
const PATIENCE: Duration = Duration::from_secs(10);

fn header(protocol: Protocol) -> [u8; 8] {
    Handshake::new(protocol).to_octets()
}

fn endpoint(url: impl AsRef<str>) -> Endpoint {
    Endpoint::parse(url.as_ref()).unwrap()
}

fn one(job: Job, budget: Duration) -> Outcome {
    run(vec![job], Instant::now() + budget).pop().unwrap()
}

/// A listener of each kind, served by `peer` for one connection; gives what `peer` gives.
trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

fn serve<T: Send + 'static>(
    bind: &str,
    peer: impl FnOnce(&mut dyn Stream) -> T + Send + 'static,
) -> (Endpoint, mpsc::Receiver<T>) {
    let listener = TcpListener::bind(bind).unwrap();
    let endpoint = endpoint(format!("tcp://{}", listener.local_addr().unwrap()));
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        sender.send(peer(&mut stream)).ok();
    });
    (endpoint, receiver)
}

fn serve_unix<T: Send + 'static>(
    path: &std::path::Path,
    peer: impl FnOnce(&mut dyn Stream) -> T + Send + 'static,
) -> (Endpoint, mpsc::Receiver<T>) {
    let listener = UnixListener::bind(path).unwrap();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        sender.send(peer(&mut stream)).ok();
    });
    (Endpoint::Ipc { path: path.to_str().unwrap().to_owned() }, receiver)
}

fn pull(stream: &mut dyn Stream) -> Vec<u8> {
    stream.write_all(&header(Protocol::Pull)).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

/// Answers `ok` to the one request, in two pieces.
fn rep(stream: &mut dyn Stream) -> Vec<u8> {
    let mut request = [0; 8 + 8 + 4 + 5];
    stream.read_exact(&mut request).unwrap();
    stream.write_all(&header(Protocol::Rep)).unwrap();
    stream.write_all(&[0, 0, 0, 0, 0, 0, 0, 6]).unwrap();
    stream.write_all(&request[16..20]).unwrap();
    stream.write_all(b"ok").unwrap();
    request.to_vec()
}

/// A TCP port whose listener takes no connection any more: its backlog is full.
struct Blackhole {
    endpoint: Endpoint,
    _listener: rustix::fd::OwnedFd,
    _fillers: Vec<rustix::fd::OwnedFd>,
}

impl Blackhole {
    fn new() -> Blackhole {
        let socket = || {
            let flags = rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC;
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap()
        };
        let listener = socket();
        let any: std::net::SocketAddrV4 = "127.0.0.1:0".parse().unwrap();
        rustix::net::bind(&listener, &any).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let address: std::net::SocketAddr = rustix::net::getsockname(&listener).unwrap().try_into().unwrap();
        let fillers = (0..4)
            .map(|_| {
                let filler = socket();
                assert_eq!(rustix::net::connect(&filler, &address), Err(rustix::io::Errno::INPROGRESS));
                filler
            })
            .collect();
        Blackhole { endpoint: endpoint(format!("tcp://{address}")), _listener: listener, _fillers: fillers }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn push_reaches_a_pull_socket_over_each_transport() {
    let folder = tempfile::tempdir().unwrap();
    let expected = |head: &[u8]| [&header(Protocol::Push)[..], head, b"\0\0\0\0\0\0\0\x03abc"].concat();
    for bind in ["127.0.0.1:0", "[::1]:0"] {
        let (endpoint, got) = serve(bind, pull);
        let outcome = one(Job::push(endpoint, [&b"abc"[..]]), PATIENCE);
        assert!(matches!(outcome, Outcome::Delivered { .. }), "{outcome}");
        assert_eq!(got.recv().unwrap(), expected(b""), "{bind}");
    }
    let (endpoint, got) = serve_unix(&folder.path().join("pull"), pull);
    let outcome = one(Job::push(endpoint, [&b"abc"[..]]), PATIENCE);
    assert!(matches!(outcome, Outcome::Delivered { .. }), "{outcome}");
    assert_eq!(got.recv().unwrap(), expected(b"\x01"));
}

#[test]
fn a_request_brings_its_reply() {
    let (endpoint, got) = serve("127.0.0.1:0", rep);
    match one(Job::request(endpoint, 7, [&b"hello"[..]]), PATIENCE) {
        Outcome::Delivered { replies, .. } => assert_eq!(replies, [b"ok"]),
        outcome => panic!("{outcome}"),
    }
    assert_eq!(got.recv().unwrap()[16..], *b"\x80\0\0\x07hello");
}

#[test]
fn a_large_message_goes_out_in_pieces() {
    let payload = vec![7; 8 << 20];
    let (endpoint, got) = serve("127.0.0.1:0", pull);
    let outcome = one(Job::push(endpoint, [&payload[..]]), PATIENCE);
    assert!(matches!(outcome, Outcome::Delivered { .. }), "{outcome}");
    assert_eq!(got.recv().unwrap().len(), 16 + payload.len());
}

#[test]
fn nobody_there_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let stale = folder.path().join("stale");
    drop(UnixListener::bind(&stale).unwrap());
    let begun = Instant::now();
    for dead in [
        format!("tcp://127.0.0.1:{}", free_port()),
        format!("tcp://localhost:{}", free_port()),
        format!("ipc://{}", stale.display()),
        format!("ipc://{}/missing", folder.path().display()),
    ] {
        let outcome = one(Job::push(endpoint(&dead), [&b"x"[..]]), PATIENCE);
        assert!(matches!(outcome, Outcome::Refused), "{dead}: {outcome}");
    }
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn what_is_no_address_here_says_so() {
    let outcome = one(Job::push(endpoint("tcp://no-such-host.invalid:1"), [&b"x"[..]]), PATIENCE);
    assert!(matches!(&outcome, Outcome::BadAddress(why) if why.contains("/etc/hosts")), "{outcome}");
    let outcome = one(Job::push(endpoint(format!("ipc:///{}", "x".repeat(200))), [&b"x"[..]]), PATIENCE);
    assert!(matches!(&outcome, Outcome::BadAddress(why) if why.contains("107")), "{outcome}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let outcome = one(Job::push(endpoint(format!("ipc://{}/x", file.display())), [&b"x"[..]]), PATIENCE);
    assert!(matches!(outcome, Outcome::Unreachable(_)), "{outcome}");
}

#[test]
fn bad_peers_are_told_apart() {
    let (closing, _) = serve("127.0.0.1:0", |_| ());
    let outcome = one(Job::push(closing, [&b"x"[..]]), PATIENCE);
    assert!(matches!(outcome, Outcome::Broken(_)), "{outcome}");

    let (garbage, _) = serve("127.0.0.1:0", |stream| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n"));
    let outcome = one(Job::push(garbage, [&b"x"[..]]), PATIENCE);
    assert!(matches!(outcome, Outcome::Protocol(_)), "{outcome}");

    let (push, _) = serve("127.0.0.1:0", |stream| stream.write_all(&header(Protocol::Push)));
    let outcome = one(Job::push(push, [&b"x"[..]]), PATIENCE);
    assert!(matches!(outcome, Outcome::Protocol(ExchangeError::Handshake(_))), "{outcome}");

    let (huge, _) = serve("127.0.0.1:0", |stream| {
        stream.write_all(&[&header(Protocol::Rep)[..], &[0xff; 8]].concat())?;
        stream.read_to_end(&mut Vec::new())
    });
    let outcome = one(Job::request(huge, 1, [&b"x"[..]]), PATIENCE);
    assert!(matches!(outcome, Outcome::Protocol(ExchangeError::Frame(_))), "{outcome}");
}

#[test]
fn a_silent_peer_costs_the_budget_and_no_more() {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let (babbling, _) = serve("127.0.0.1:0", |stream| {
        stream.write_all(&header(Protocol::Rep)).unwrap();
        // Replies to nobody, for ever.
        while stream.write_all(&[0, 0, 0, 0, 0, 0, 0, 4, 0x80, 0, 0, 9]).is_ok() {}
    });
    let begun = Instant::now();
    let outcomes = run(
        vec![
            Job::push(endpoint(format!("tcp://{}", mute.local_addr().unwrap())), [&b"x"[..]]),
            Job::request(babbling, 1, [&b"x"[..]]),
        ],
        begun + BUDGET,
    );
    let took = begun.elapsed();
    assert!(
        outcomes.iter().all(|outcome| matches!(outcome, Outcome::Silent | Outcome::NotReached)),
        "{outcomes:?}"
    );
    assert!(took >= BUDGET && took < BUDGET + SLACK, "{took:?}");
}

#[test]
fn twenty_blackholes_do_not_delay_a_live_endpoint() {
    let holes: Vec<Blackhole> = (0..20).map(|_| Blackhole::new()).collect();
    let (live, got) = serve("127.0.0.1:0", pull);
    let mut jobs: Vec<Job> = holes.iter().map(|hole| Job::push(hole.endpoint.clone(), [&b"x"[..]])).collect();
    jobs.push(Job::push(live, [&b"x"[..]]));
    let begun = Instant::now();
    let mut outcomes = run(jobs, begun + BUDGET);
    let took = begun.elapsed();
    match outcomes.pop().unwrap() {
        Outcome::Delivered { took, .. } => assert!(took < BUDGET / 2, "{took:?}"),
        outcome => panic!("{outcome}"),
    }
    assert_eq!(outcomes.len(), 20);
    assert!(
        outcomes.iter().all(|outcome| matches!(outcome, Outcome::Silent | Outcome::NotReached)),
        "{outcomes:?}"
    );
    assert!(took < BUDGET + SLACK, "{took:?}");
    got.recv().unwrap();
}

#[test]
fn a_job_may_have_less_time_than_the_others() {
    let hole = Blackhole::new();
    let begun = Instant::now();
    let outcome = one(Job::push(hole.endpoint.clone(), [&b"x"[..]]).within(BUDGET / 10), 10 * BUDGET);
    assert!(matches!(outcome, Outcome::Silent | Outcome::NotReached), "{outcome}");
    let took = begun.elapsed();
    assert!(took >= BUDGET / 10 && took < 5 * BUDGET, "{took:?}");
}

#[test]
fn more_jobs_than_sockets_share_the_time() {
    let hole = Blackhole::new();
    let (live, got) = serve("127.0.0.1:0", pull);
    let mut jobs: Vec<Job> =
        (0..2 * MAX_SOCKETS).map(|_| Job::push(hole.endpoint.clone(), [&b"x"[..]])).collect();
    jobs.push(Job::push(live, [&b"x"[..]]));
    let begun = Instant::now();
    let mut outcomes = run(jobs, begun + BUDGET);
    let took = begun.elapsed();
    let last = outcomes.pop().unwrap();
    assert!(matches!(last, Outcome::Delivered { .. }), "{last}");
    let waited =
        |outcome: &Outcome| matches!(outcome, Outcome::Silent | Outcome::NotReached | Outcome::NotBegun);
    assert!(outcomes.iter().all(waited));
    assert!(took < BUDGET + SLACK, "{took:?}");
    got.recv().unwrap();
}

#[test]
fn no_time_at_all_is_silence() {
    let (live, _) = serve("127.0.0.1:0", pull);
    assert!(matches!(run(vec![Job::push(live, [&b"x"[..]])], Instant::now()).pop(), Some(Outcome::NotBegun)));
    assert!(run(Vec::new(), Instant::now()).is_empty());
}

#[test]
fn a_unix_socket_with_a_full_backlog_is_tried_again_until_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("full");
    let listener = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    rustix::net::bind(&listener, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let filler = UnixStream::connect(&path).unwrap();
    let target = Endpoint::Ipc { path: path.to_str().unwrap().to_owned() };

    let begun = Instant::now();
    let outcome = one(Job::push(target.clone(), [&b"x"[..]]), BUDGET);
    assert!(matches!(outcome, Outcome::Silent | Outcome::NotReached), "{outcome}");
    assert!(begun.elapsed() < BUDGET + SLACK);

    // As soon as there is room it goes through.
    let listener = UnixListener::from(listener);
    let server = thread::spawn(move || {
        drop(listener.accept().unwrap());
        let (mut stream, _) = listener.accept().unwrap();
        pull(&mut stream)
    });
    let outcome = one(Job::push(target, [&b"x"[..]]), PATIENCE);
    assert!(matches!(outcome, Outcome::Delivered { .. }), "{outcome}");
    assert_eq!(server.join().unwrap().len(), 8 + 9 + 1);
    drop(filler);
}

/// libnanomsg's own command as the peer; ended when dropped.
struct Nanocat(Child);

impl Nanocat {
    fn start(arguments: &[&str]) -> Nanocat {
        let child = Command::new("nanocat").args(arguments).stdout(Stdio::piped()).spawn();
        Nanocat(child.expect("nanocat is missing: install the package nanomsg-utils"))
    }

    fn read(&mut self, octets: usize) -> Vec<u8> {
        let mut buffer = vec![0; octets];
        self.0.stdout.as_mut().unwrap().read_exact(&mut buffer).unwrap();
        buffer
    }
}

impl Drop for Nanocat {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Runs `job` until its peer is up.
fn when_up(job: impl Fn() -> Job) -> Outcome {
    let begun = Instant::now();
    loop {
        match one(job(), PATIENCE) {
            Outcome::Refused if begun.elapsed() < PATIENCE => thread::yield_now(),
            outcome => return outcome,
        }
    }
}

fn nanocat_endpoints(folder: &tempfile::TempDir) -> [String; 2] {
    [format!("tcp://127.0.0.1:{}", free_port()), format!("ipc://{}/nanocat", folder.path().display())]
}

#[test]
fn libnanomsg_pull_gets_every_message() {
    let folder = tempfile::tempdir().unwrap();
    for url in nanocat_endpoints(&folder) {
        let mut peer = Nanocat::start(&["--pull", "--bind", &url, "--raw"]);
        let outcome = when_up(|| Job::push(endpoint(&url), [&b"0000"[..]]));
        assert!(matches!(outcome, Outcome::Delivered { .. }), "{url}: {outcome}");
        for number in 1..300 {
            let outcome = one(Job::push(endpoint(&url), [format!("{number:04}").as_bytes()]), PATIENCE);
            assert!(matches!(outcome, Outcome::Delivered { .. }), "{url} {number}: {outcome}");
        }
        let text = String::from_utf8(peer.read(300 * 4)).unwrap();
        let mut numbers: Vec<u32> = (0..300).map(|at| text[at * 4..at * 4 + 4].parse().unwrap()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..300).collect::<Vec<_>>(), "{url}");
    }
}

#[test]
fn libnanomsg_rep_answers() {
    let folder = tempfile::tempdir().unwrap();
    for url in nanocat_endpoints(&folder) {
        let mut peer = Nanocat::start(&["--rep", "--bind", &url, "--raw", "--data", "thanks"]);
        match when_up(|| Job::request(endpoint(&url), 1, [&b"question"[..], b"another?"])) {
            Outcome::Delivered { replies, .. } => assert_eq!(replies, [b"thanks", b"thanks"], "{url}"),
            outcome => panic!("{url}: {outcome}"),
        }
        assert_eq!(peer.read(16), b"questionanother?", "{url}");
    }
}

#[test]
fn a_libnanomsg_socket_of_the_wrong_kind_is_a_protocol_error() {
    let folder = tempfile::tempdir().unwrap();
    for url in nanocat_endpoints(&folder) {
        let _peer = Nanocat::start(&["--rep", "--bind", &url, "--data", "x"]);
        let outcome = when_up(|| Job::push(endpoint(&url), [&b"x"[..]]));
        assert!(matches!(outcome, Outcome::Protocol(_) | Outcome::Broken(_)), "{url}: {outcome}");
    }
}

#[test]
fn outcomes_read_well() {
    let stream = TcpStream::connect(("127.0.0.1", free_port()));
    let shown = [
        Outcome::Refused.to_string(),
        Outcome::Silent.to_string(),
        Outcome::Unreachable(stream.unwrap_err()).to_string(),
    ];
    assert_eq!(shown[..2], ["refused", "silent"]);
    assert!(shown[2].starts_with("unreachable: Connection refused"));
}
