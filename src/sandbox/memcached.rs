//! A private memcached.

use super::line::Line;
use super::process::{Child, End, as_nobody, find_program, poll_until};
use super::{SandboxError, free_port};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a start, or an answer of ours, may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// Ports are found, then used: somebody else may have taken one in between.
const ATTEMPTS: usize = 5;

/// A memcached of the sandbox; it ends when this is dropped.
#[derive(Debug)]
pub struct Memcached {
    child: Child,
    program: PathBuf,
    port: u16,
    memory_mib: u32,
    output: PathBuf,
}

impl Memcached {
    pub(super) fn start(output: PathBuf, memory_mib: u32) -> Result<Self, SandboxError> {
        let program = find_program("memcached", "memcached")?;
        let mut attempt = 1;
        loop {
            let port = free_port()?;
            match launch(&program, port, memory_mib, &output) {
                Ok(child) => return Ok(Self { child, program, port, memory_mib, output }),
                Err(SandboxError::Ended { .. }) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:port`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `--SERVER=127.0.0.1:port`, as OpenChange's settings name it.
    #[must_use]
    pub fn configuration(&self) -> String {
        format!("--SERVER={}", self.address())
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// Stops it with SIGSTOP: connects still succeed, nothing is answered.
    ///
    /// # Errors
    /// When it has ended.
    pub fn stop(&self) -> Result<(), SandboxError> {
        self.child.signal("STOP")
    }

    /// Lets it go on with SIGCONT.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cont(&self) -> Result<(), SandboxError> {
        self.child.signal("CONT")
    }

    /// Kills it; its port refuses from then on.
    pub fn kill(&mut self) {
        self.child.stop();
    }

    /// Kills it, if it still runs, and starts an empty one at the same port.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart(&mut self) -> Result<(), SandboxError> {
        self.kill();
        self.child = launch(&self.program, self.port, self.memory_mib, &self.output)?;
        Ok(())
    }

    /// Makes it forget everything.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn flush_all(&self) -> Result<(), SandboxError> {
        self.ask(b"flush_all\r\n", "OK").map(|_| ())
    }

    /// Stores a value, whatever it is.
    ///
    /// # Errors
    /// When it does not answer, or refuses.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), SandboxError> {
        let mut request = format!("set {key} 0 0 {}\r\n", value.len()).into_bytes();
        request.extend_from_slice(value);
        request.extend_from_slice(b"\r\n");
        self.ask(&request, "STORED").map(|_| ())
    }

    /// Reads a value.
    ///
    /// # Errors
    /// When it does not answer, or refuses.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, SandboxError> {
        let mut line = Line::connect("memcached", self.port, DEADLINE)?;
        line.send(format!("get {key}\r\n").as_bytes())?;
        let head = line.line()?;
        if head == "END" {
            return Ok(None);
        }
        let length = head
            .strip_prefix("VALUE ")
            .and_then(|rest| rest.rsplit(' ').next()?.parse().ok())
            .ok_or_else(|| refused("get", &head))?;
        line.octets(length).map(Some)
    }

    fn ask(&self, request: &[u8], wanted: &str) -> Result<String, SandboxError> {
        let mut line = Line::connect("memcached", self.port, DEADLINE)?;
        line.send(request)?;
        let answer = line.line()?;
        if answer == wanted {
            return Ok(answer);
        }
        let request = String::from_utf8_lossy(request);
        Err(refused(request.lines().next().unwrap_or_default(), &answer))
    }
}

fn refused(request: &str, answer: &str) -> SandboxError {
    SandboxError::Answer { peer: "memcached", request: request.to_owned(), answer: answer.to_owned() }
}

/// Starts one and waits until it answers.
fn launch(program: &Path, port: u16, memory_mib: u32, output: &Path) -> Result<Child, SandboxError> {
    let mut command = Command::new(program);
    command.args(["-l", "127.0.0.1", "-p", &port.to_string(), "-u", "nobody", "-U", "0"]);
    command.args(["-m", &memory_mib.to_string()]);
    if memory_mib < 2 {
        // An item may be half of it at most.
        command.args(["-I", "512k"]);
    }
    let mut child = Child::start("memcached", &command, as_nobody(), output, End::Kill)?;
    let ready = poll_until(DEADLINE, || {
        if child.poll_status().is_some() {
            return Some(false);
        }
        let mut line = Line::connect("memcached", port, DEADLINE).ok()?;
        line.send(b"stats\r\n").ok()?;
        // Another memcached may have taken the port: then ours ends soon.
        (line.line().ok()? == format!("STAT pid {}", child.pid())).then_some(true)
    });
    match ready {
        Some(true) => Ok(child),
        Some(false) => Err(SandboxError::Ended {
            name: "memcached".to_owned(),
            status: child.status_text(),
            output: child.stderr(),
        }),
        None => Err(SandboxError::Deadline {
            what: format!("memcached answering at 127.0.0.1:{port}"),
            after: DEADLINE,
            detail: child.stderr(),
        }),
    }
}
