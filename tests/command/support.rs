//! A sandbox with memcached, and the command in it.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ocbus::sandbox::{Child, Memcached, Sandbox};
use serde_json::Value;

pub(crate) const LIMIT: Duration = Duration::from_secs(15);

/// What a run printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// It must have failed so, with one line on standard error and nothing on standard output.
    #[track_caller]
    pub(crate) fn fails(&self, status: i32, parts: &[&str]) {
        self.fails_after_output(status, parts);
        assert_eq!(self.stdout, "", "{self:?}");
    }

    /// The same, whatever it printed before.
    #[track_caller]
    pub(crate) fn fails_after_output(&self, status: i32, parts: &[&str]) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.stderr.starts_with("ocbus: "), "{self:?}");
        assert!(self.stderr.ends_with('\n') && self.stderr.lines().count() == 1, "one line: {self:?}");
        assert!(!self.stderr.trim_end().contains(char::is_control), "{self:?}");
        assert!(parts.iter().all(|part| self.stderr.contains(part)), "{parts:?} in {self:?}");
    }

    /// It must have ended with 0 and said nothing on standard error; gives what it printed.
    #[track_caller]
    pub(crate) fn ok(&self) -> &str {
        assert_eq!((self.status, self.stderr.as_str()), (0, ""), "{self:?}");
        &self.stdout
    }

    /// Its lines as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<Value> {
        json(self.ok())
    }
}

#[track_caller]
pub(crate) fn json(lines: &str) -> Vec<Value> {
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

/// The command, with nothing from our own environment that it would heed.
pub(crate) fn ocbus(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocbus"));
    command.args(arguments);
    for name in
        ["OCBUS_RESOLVER", "OCBUS_LOG", "OCBUS_PLUGIN", "OCBUS_SANDBOX_KEEP", "NO_COLOR", "CLICOLOR_FORCE"]
    {
        command.env_remove(name);
    }
    command
}

/// Runs to the end, which must come within the limit.
pub(crate) fn run(mut command: Command, input: &[u8]) -> Run {
    let (mut stdin, mut stdout, mut stderr) = (file(input), file(b""), file(b""));
    stdin.rewind().unwrap();
    command.stdin(stdin).stdout(Stdio::from(stdout.try_clone().unwrap()));
    command.stderr(Stdio::from(stderr.try_clone().unwrap()));
    let mut child = command.spawn().unwrap();
    let end = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{command:?} still ran after {LIMIT:?}: {} {}", text(&mut stdout), text(&mut stderr));
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let status = status.code().unwrap_or_else(|| panic!("{command:?}: {status}"));
    Run { status, stdout: text(&mut stdout), stderr: text(&mut stderr) }
}

fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, content).unwrap();
    file
}

fn text(file: &mut File) -> String {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

/// Polls until a value is there.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < end, "{what} did not happen within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// memcached and what uses it. Children started here end with it.
pub(crate) struct Bench {
    pub(crate) memcached: Memcached,
    pub(crate) sandbox: Sandbox,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        let sandbox = Sandbox::new().unwrap();
        Bench { memcached: sandbox.memcached().unwrap(), sandbox }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = ocbus(arguments);
        command.env("OCBUS_RESOLVER", self.memcached.configuration());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        run(self.command(arguments), b"")
    }

    /// Starts `ocbus watch`, and waits until it is registered.
    #[track_caller]
    pub(crate) fn watch(&self, arguments: &[&str]) -> Child {
        let mut child = self.start(&[&["watch"], arguments].concat());
        child.wait_output("listening at ", LIMIT).unwrap();
        // The line may still be under way.
        until("the line's end", || child.stderr().ends_with('\n').then_some(()));
        child
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        self.sandbox.start("ocbus", &self.command(arguments)).unwrap()
    }

    /// Whether a record is there.
    pub(crate) fn record(&self, key: &str) -> Option<Vec<u8>> {
        self.memcached.get(key).unwrap()
    }
}

/// The URLs that a watcher says it listens at.
#[track_caller]
pub(crate) fn urls(watcher: &Child) -> Vec<String> {
    let lines = watcher.stderr();
    let url = |line: &str| Some(line.strip_prefix("listening at ")?.split(' ').next()?.to_owned());
    lines.lines().filter_map(url).collect()
}

/// Waits until a child has printed so many lines; gives them.
#[track_caller]
pub(crate) fn lines(child: &Child, count: usize) -> Vec<String> {
    until(&format!("{count} lines of output"), || {
        let text = child.stdout();
        let whole = text.get(..text.rfind('\n')? + 1)?;
        (whole.lines().count() >= count).then(|| whole.lines().map(str::to_owned).collect())
    })
}

/// Waits for a child's end; gives its exit status.
#[track_caller]
pub(crate) fn ended(child: &mut Child) -> Option<i32> {
    let status = child.wait(LIMIT).unwrap();
    status.unwrap_or_else(|| panic!("still runs: {} {}", child.stdout(), child.stderr())).code()
}
