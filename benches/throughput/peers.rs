//! NATS and Redis, spoken to by bare sockets; NATS through its C client, and libnanomsg.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ocbus::sandbox::Sandbox;

const LIMIT: Duration = Duration::from_secs(20);
/// Octets of one write.
const WRITE: usize = 64 << 10;

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// A server that ends with us.
struct Server(Child);

impl Server {
    fn start(program: &str, arguments: &[&str]) -> Server {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Server(command.spawn().unwrap_or_else(|error| panic!("{program}: {error}: scripts/setup bench")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connect(port: u16) -> TcpStream {
    let deadline = Instant::now() + LIMIT;
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => {
                stream.set_nodelay(true).unwrap();
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                return stream;
            }
            Err(error) => assert!(Instant::now() < deadline, "port {port}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn read_until(stream: &mut TcpStream, end: &[u8]) {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        let mut octet = [0];
        stream.read_exact(&mut octet).unwrap();
        read.push(octet[0]);
    }
}

/// A publisher's and a subscriber's connection to a server; what a message looks like on each is always as long.
struct Pair {
    publish: TcpStream,
    subscribe: TcpStream,
}

impl Pair {
    fn stream(&mut self, messages: usize, sent: &[u8], received: usize) -> f64 {
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let (publish, subscribe) = (&mut self.publish, &mut self.subscribe);
            scope.spawn(move || {
                let piece = sent.repeat((WRITE / sent.len()).max(1));
                let mut left = messages * sent.len();
                while left > 0 {
                    let count = left.min(piece.len());
                    publish.write_all(&piece[..count]).unwrap();
                    left -= count;
                }
            });
            let mut left = messages * received;
            let mut buffer = vec![0; WRITE];
            while left > 0 {
                let count = subscribe.read(&mut buffer).unwrap();
                assert!(count > 0 && count <= left);
                left -= count;
            }
        });
        messages as f64 / begun.elapsed().as_secs_f64()
    }

    fn singles(&mut self, count: usize, sent: &[u8], received: usize, answer: usize) -> Vec<u64> {
        let (mut buffer, mut answers) = (vec![0; received], vec![0; answer]);
        (0..count)
            .map(|_| {
                let begun = Instant::now();
                self.publish.write_all(sent).unwrap();
                self.subscribe.read_exact(&mut buffer).unwrap();
                let took = begun.elapsed();
                self.publish.read_exact(&mut answers).unwrap();
                u64::try_from(took.as_nanos()).unwrap()
            })
            .collect()
    }
}

pub(crate) struct Nats {
    pair: Pair,
    port: u16,
    _server: Server,
}

impl Nats {
    pub(crate) fn start(sandbox: &Sandbox) -> Nats {
        let port = free_port();
        // No PING in the middle of a stream; and a subscriber that a noisy machine holds up is not cut off.
        let file = sandbox.path().join("nats.conf");
        std::fs::write(&file, "ping_interval: \"1h\"\nwrite_deadline: \"20s\"\nmax_pending: 1GB\n").unwrap();
        let file = file.to_str().unwrap();
        let server = Server::start("nats-server", &["-a", "127.0.0.1", "-p", &port.to_string(), "-c", file]);
        let client = |first: &str| {
            let mut stream = connect(port);
            read_until(&mut stream, b"\r\n");
            let hello = "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"bench\"}\r\n";
            stream.write_all(format!("{hello}{first}PING\r\n").as_bytes()).unwrap();
            read_until(&mut stream, b"PONG\r\n");
            // The server's first one comes a second or two after the start whatever its interval.
            read_until(&mut stream, b"PING\r\n");
            stream.write_all(b"PONG\r\n").unwrap();
            stream
        };
        Nats { pair: Pair { subscribe: client("SUB bob 1\r\n"), publish: client("") }, port, _server: server }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    fn sizes(octets: usize) -> (Vec<u8>, usize) {
        let sent = format!("PUB bob {octets}\r\n{}\r\n", "x".repeat(octets)).into_bytes();
        (sent, format!("MSG bob 1 {octets}\r\n").len() + octets + 2)
    }

    pub(crate) fn stream(&mut self, messages: usize, octets: usize) -> f64 {
        let (sent, received) = Nats::sizes(octets);
        self.pair.stream(messages, &sent, received)
    }

    pub(crate) fn singles(&mut self, count: usize, octets: usize) -> Vec<u64> {
        let (sent, received) = Nats::sizes(octets);
        self.pair.singles(count, &sent, received, 0)
    }
}

/// A program in C, linked to a client library.
pub(crate) struct Program(std::path::PathBuf);

impl Program {
    pub(crate) fn build(sandbox: &Sandbox, name: &str, library: &str) -> Program {
        let source = format!("{}/benches/peers/{name}.c", env!("CARGO_MANIFEST_DIR"));
        let program = sandbox.path().join(format!("{name}-peer"));
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-o"]).arg(&program).args([source.as_str(), library, "-lpthread"]);
        assert!(compiler.status().unwrap().success(), "{source} does not compile: scripts/setup bench");
        Program(program)
    }

    /// Messages a second, and the nanoseconds of each alone. Its `port`: where its server is, or where it may be one itself.
    pub(crate) fn run(&self, port: u16, messages: usize, octets: usize, singles: usize) -> (f64, Vec<u64>) {
        let arguments = [usize::from(port), messages, octets, singles].map(|number| number.to_string());
        let output = Command::new(&self.0).args(arguments).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let mut lines = text.lines();
        let rate = lines.next().unwrap().parse().unwrap();
        (rate, lines.map(|line| line.parse().unwrap()).collect())
    }
}

pub(crate) struct Redis {
    pair: Pair,
    _server: Server,
}

impl Redis {
    pub(crate) fn start(sandbox: &Sandbox) -> Redis {
        let port = free_port().to_string();
        let folder = sandbox.path().to_str().unwrap();
        let arguments =
            ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder];
        let server = Server::start("redis-server", &arguments);
        let port = port.parse().unwrap();
        let mut subscribe = connect(port);
        subscribe.write_all(b"*2\r\n$9\r\nSUBSCRIBE\r\n$3\r\nbob\r\n").unwrap();
        read_until(&mut subscribe, b":1\r\n");
        Redis { pair: Pair { subscribe, publish: connect(port) }, _server: server }
    }

    fn sizes(octets: usize) -> (Vec<u8>, usize) {
        let payload = "x".repeat(octets);
        let mut sent = String::new();
        write!(sent, "*3\r\n$7\r\nPUBLISH\r\n$3\r\nbob\r\n${octets}\r\n{payload}\r\n").unwrap();
        let received = format!("*3\r\n$7\r\nmessage\r\n$3\r\nbob\r\n${octets}\r\n{payload}\r\n").len();
        (sent.into_bytes(), received)
    }

    pub(crate) fn stream(&mut self, messages: usize, octets: usize) -> f64 {
        let (sent, received) = Redis::sizes(octets);
        // Each PUBLISH is answered by ":1": somebody has to read that.
        let mut answers = self.pair.publish.try_clone().unwrap();
        let reader = std::thread::spawn(move || {
            let mut left = messages * 4;
            let mut buffer = vec![0; WRITE];
            while left > 0 {
                left -= answers.read(&mut buffer).unwrap();
            }
        });
        let rate = self.pair.stream(messages, &sent, received);
        reader.join().unwrap();
        rate
    }

    pub(crate) fn singles(&mut self, count: usize, octets: usize) -> Vec<u64> {
        let (sent, received) = Redis::sizes(octets);
        self.pair.singles(count, &sent, received, 4)
    }
}
