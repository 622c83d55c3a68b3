//! A private memcached (Debian's), and a server that says whatever a test wants.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(10);

/// Waits until something is so; not longer than ten seconds.
pub(crate) fn poll_until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !so() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// SIGSTOP, until it has come to every thread.
pub(crate) fn stop(child: &Child) {
    signal(child, "-STOP", true);
}

/// SIGCONT, likewise.
pub(crate) fn go_on(child: &Child) {
    signal(child, "-CONT", false);
}

fn signal(child: &Child, signal: &str, stopped: bool) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    poll_until("memcached has the signal", || {
        std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().all(|task| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
            let state = stat.rsplit(')').next().unwrap_or_default().trim_start().chars().next();
            (state == Some('T')) == stopped
        })
    });
}

/// One connection, line by line.
pub(crate) struct Line(BufReader<TcpStream>);

impl Line {
    fn new(stream: TcpStream) -> Line {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Line(BufReader::new(stream))
    }

    /// The next line without its end; empty at the end of the stream.
    pub(crate) fn line(&mut self) -> String {
        let mut line = Vec::new();
        // A peer that resets is at its end, too.
        let _ = self.0.read_until(b'\n', &mut line);
        String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()
    }

    pub(crate) fn send(&mut self, octets: &[u8]) {
        let _ = self.0.get_mut().write_all(octets);
    }

    pub(crate) fn wait_for_end(&mut self) {
        let _ = self.0.read_to_end(&mut Vec::new());
    }

    /// Carries everything to a port of this machine and back, until both sides have ended.
    pub(crate) fn relay(mut self, port: u16) {
        let mut there = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut back, mut here) = (there.try_clone().unwrap(), self.0.get_ref().try_clone().unwrap());
        let answers = std::thread::spawn(move || std::io::copy(&mut back, &mut here));
        let _ = std::io::copy(&mut self.0, &mut there);
        let _ = there.shutdown(std::net::Shutdown::Write);
        let _ = answers.join();
    }
}

/// A memcached on 127.0.0.1; it ends when this is dropped.
pub(crate) struct Memcached {
    child: Child,
    pub(crate) port: u16,
}

impl Memcached {
    pub(crate) fn start() -> Memcached {
        // Ports are found, then used: somebody else may have taken one in between.
        for _ in 0..50 {
            // Below those that the kernel gives to connections: one of them might have it when this is started anew.
            let port = 10_240 + u16::try_from(RandomState::new().hash_one(()) % 22_000).unwrap();
            if TcpListener::bind(("127.0.0.1", port)).is_ok()
                && let Some(memcached) = launch(port)
            {
                return memcached;
            }
        }
        panic!("memcached does not start: is it installed? (Debian: apt install memcached)");
    }

    /// Kills it; its port refuses from then on.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Starts an empty one at the same port.
    pub(crate) fn restart(&mut self) {
        self.kill();
        *self = launch(self.port).expect("memcached at its former port");
    }

    /// SIGSTOP: connects still succeed, nothing is answered.
    pub(crate) fn stop(&self) {
        stop(&self.child);
    }

    pub(crate) fn go_on(&self) {
        go_on(&self.child);
    }

    fn line(&self) -> Line {
        Line::new(TcpStream::connect(("127.0.0.1", self.port)).unwrap())
    }

    /// Asks one line, and gives the answer, which must begin so.
    pub(crate) fn ask(&self, request: &str, wanted: &str) -> String {
        let mut line = self.line();
        line.send(format!("{request}\r\n").as_bytes());
        let answer = line.line();
        assert!(answer.starts_with(wanted), "{request}: {answer}");
        answer
    }

    pub(crate) fn set(&self, key: &str, value: &[u8]) {
        let mut line = self.line();
        line.send(&[format!("set {key} 0 0 {}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat());
        assert_eq!(line.line(), "STORED");
    }

    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        let mut line = self.line();
        line.send(format!("get {key}\r\n").as_bytes());
        let head = line.line();
        let length: usize = head.strip_prefix("VALUE ")?.rsplit(' ').next()?.parse().unwrap();
        let mut value = vec![0; length];
        line.0.read_exact(&mut value).unwrap();
        Some(value)
    }

    /// Its counters.
    pub(crate) fn stats(&self) -> HashMap<String, u64> {
        let mut line = self.line();
        line.send(b"stats\r\n");
        let mut stats = HashMap::new();
        loop {
            let row = line.line();
            let Some((name, value)) = row.strip_prefix("STAT ").and_then(|row| row.split_once(' ')) else {
                assert_eq!(row, "END");
                return stats;
            };
            if let Ok(value) = value.parse() {
                stats.insert(name.to_owned(), value);
            }
        }
    }
}

impl Drop for Memcached {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts one and waits until it answers; `None` where somebody else has the port.
fn launch(port: u16) -> Option<Memcached> {
    let child = Command::new("memcached")
        .args(["-l", "127.0.0.1", "-p", &port.to_string(), "-u", "nobody", "-U", "0", "-m", "16"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("memcached (Debian: apt install memcached)");
    // From here on it ends whatever happens.
    let mut memcached = Memcached { child, port };
    let mut answer = String::new();
    poll_until("memcached answers", || {
        if memcached.child.try_wait().unwrap().is_some() {
            return true;
        }
        let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
        let mut line = Line::new(stream);
        line.send(b"stats\r\n");
        answer = line.line();
        !answer.is_empty()
    });
    (answer == format!("STAT pid {}", memcached.child.id())).then_some(memcached)
}

/// A server that treats each connection as a test says, in a thread of its own.
pub(crate) struct FakeServer {
    pub(crate) port: u16,
}

impl FakeServer {
    pub(crate) fn start(serve: impl Fn(Line) + Send + Sync + 'static) -> FakeServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // It ends with the test's process.
        std::thread::spawn(move || {
            let serve = Arc::new(serve);
            for stream in listener.incoming().flatten() {
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || serve(Line::new(stream)));
            }
        });
        FakeServer { port }
    }
}
