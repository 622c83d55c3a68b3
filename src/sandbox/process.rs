//! Processes that end when we do.
//!
//! # How a process is bound to us
//!
//! Every server is started as `setpriv --pdeathsig KILL -- program ...`: the kernel kills it when its parent
//! dies, however that happens. Three facts shape the code:
//!
//! * The signal comes when the **thread** that forked ends, not the process. A server started on a test
//!   runner's or on tokio's blocking thread would be killed when that thread goes. So all forks happen on
//!   one thread of ours ([`spawner_thread`]), which lives as long as the process.
//! * A change of the effective uid clears the setting. `memcached -u nobody` would lose it, so setpriv
//!   changes the uid first (it sets the signal after the uid).
//! * It is not inherited. Dovecot's own children notice that their master is gone and end by themselves,
//!   within a second.
//!
//! Between the fork and setpriv's `prctl` (about a millisecond) a dying parent is not noticed.
//!
//! Every child leads its own process group, so that what a server leaves behind can be ended too, and so
//! that Ctrl-C in a terminal reaches us alone.

use super::SandboxError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at a state that cannot be waited for.
const POLL: Duration = Duration::from_millis(2);

/// Runs `check` every few milliseconds until it gives a value or `deadline` has passed.
pub(super) fn poll_until<T>(deadline: Duration, mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = check() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(POLL);
    }
}

/// Finds a program in `PATH` and in the folders that hold daemons.
pub(super) fn find_program(name: &str, package: &'static str) -> Result<PathBuf, SandboxError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| SandboxError::MissingProgram { program: name.to_owned(), package })
}

/// How a child is ended when it is dropped.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// SIGTERM, and SIGKILL after this time.
    Terminate(Duration),
    /// The same for Dovecot, whose master sleeps for a second after it has told its children to end, and keeps
    /// its log process until then: both are killed as soon as all others are gone.
    Dovecot(Duration),
    /// SIGKILL at once: nothing of its state matters.
    Kill,
}

/// A process of the sandbox. It does not outlive us; dropping it ends it, and everything in its group.
#[derive(Debug)]
pub struct Child {
    name: String,
    pid: Pid,
    child: std::process::Child,
    stdout: PathBuf,
    stderr: PathBuf,
    end: End,
    status: Option<ExitStatus>,
}

impl Child {
    /// Starts `command` (its standard streams are replaced). `output` is the stem of its output files;
    /// `credentials` are options for setpriv, such as `--reuid`.
    pub(super) fn start(
        name: &str,
        command: &Command,
        credentials: &[&str],
        output: &Path,
        end: End,
    ) -> Result<Self, SandboxError> {
        let setpriv = find_program("setpriv", "util-linux")?;
        let stdout = output.with_extension("out");
        let stderr = output.with_extension("err");
        let create = |path: &Path| File::create(path).map_err(SandboxError::path("create", path));
        let mut bound = Command::new(setpriv);
        bound.args(credentials).args(["--pdeathsig", "KILL", "--"]);
        bound.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => bound.env(key, value),
                None => bound.env_remove(key),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            bound.current_dir(folder);
        }
        bound.process_group(0).stdin(Stdio::null()).stdout(create(&stdout)?).stderr(create(&stderr)?);
        let program = command.get_program().to_os_string();
        let child = spawn_on_lasting_thread(bound).map_err(SandboxError::io(format!("start {program:?}")))?;
        let pid = pid_of(&child)?;
        Ok(Self { name: name.to_owned(), pid, child, stdout, stderr, end, status: None })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// What it has written to its standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        read_lossy(&self.stdout)
    }

    /// What it has written to its standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        read_lossy(&self.stderr)
    }

    /// Waits until its standard output or error contains `pattern`; gives the whole output.
    ///
    /// # Errors
    /// When that does not happen within `deadline`, or the process ends without having written it.
    pub fn wait_output(&mut self, pattern: &str, deadline: Duration) -> Result<String, SandboxError> {
        let found = poll_until(deadline, || {
            let ended = self.poll_status().is_some();
            let text = self.stdout() + &self.stderr();
            (text.contains(pattern) || ended).then_some(text)
        });
        match found {
            Some(text) if text.contains(pattern) => Ok(text),
            Some(output) => {
                Err(SandboxError::Ended { name: self.name.clone(), status: self.status_text(), output })
            }
            None => Err(SandboxError::Deadline {
                what: format!("{pattern:?} in the output of {}", self.name),
                after: deadline,
                detail: self.stdout() + &self.stderr(),
            }),
        }
    }

    /// Waits for its end; `None` when it still runs after `deadline`.
    ///
    /// # Errors
    /// When the operating system cannot tell.
    pub fn wait(&mut self, deadline: Duration) -> Result<Option<ExitStatus>, SandboxError> {
        if self.status.is_none() {
            self.status = wait_deadline(&mut self.child, self.pid, deadline)
                .map_err(SandboxError::io(format!("wait for {}", self.name)))?;
        }
        Ok(self.status)
    }

    /// Sends it a signal by name: `TERM`, `STOP`, `CONT`, `KILL`, `INT`, `HUP`, `USR1`. Returns from `STOP` and `CONT`
    /// once all its threads are stopped, or running again.
    ///
    /// # Errors
    /// When it has ended, or the name is not one of these.
    pub fn signal(&self, name: &str) -> Result<(), SandboxError> {
        let signal = match name {
            "TERM" => Signal::TERM,
            "STOP" => return self.send_and_see(Signal::STOP, true),
            "CONT" => return self.send_and_see(Signal::CONT, false),
            "KILL" => Signal::KILL,
            "INT" => Signal::INT,
            "HUP" => Signal::HUP,
            "USR1" => Signal::USR1,
            _ => {
                return Err(SandboxError::Setting {
                    name: "signal".to_owned(),
                    value: name.to_owned(),
                    wanted: "TERM, STOP, CONT, KILL, INT, HUP or USR1",
                });
            }
        };
        self.send(signal)
    }

    /// Sends a signal, unless the process has been waited for: its pid may be another's by then.
    pub(super) fn send(&self, signal: Signal) -> Result<(), SandboxError> {
        let result =
            if self.status.is_some() { Err(rustix::io::Errno::SRCH) } else { kill_process(self.pid, signal) };
        result.map_err(SandboxError::io(format!("signal {} (pid {})", self.name, self.pid())))
    }

    /// Sends a signal and waits until the kernel shows the process stopped, or running again.
    fn send_and_see(&self, signal: Signal, stopped: bool) -> Result<(), SandboxError> {
        self.send(signal)?;
        let limit = Duration::from_secs(5);
        poll_until(limit, || threads_are_stopped(self.pid(), stopped).then_some(())).ok_or_else(|| {
            SandboxError::Deadline {
                what: format!(
                    "{} pid {} {}",
                    self.name,
                    self.pid(),
                    if stopped { "stopped" } else { "continued" }
                ),
                after: limit,
                detail: format!("its state is {:?}", state(self.pid())),
            }
        })
    }

    /// Its exit status, when it has ended.
    pub(super) fn poll_status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Changes how it is ended.
    pub(super) fn set_end(&mut self, end: End) {
        self.end = end;
    }

    pub(super) fn status_text(&self) -> String {
        self.status.map_or_else(|| "still running".to_owned(), |status| status.to_string())
    }

    /// Ends it now, as a drop would: everything in its process group is gone afterwards.
    pub fn stop(&mut self) {
        if self.status.is_some() {
            return;
        }
        // Until the leader is reaped its pid, and so the group's id, cannot belong to anybody else.
        let (grace, dovecot) = match self.end {
            End::Terminate(grace) => (grace, false),
            End::Dovecot(grace) => (grace, true),
            End::Kill => (Duration::ZERO, false),
        };
        if !grace.is_zero() {
            let _ = kill_process(self.pid, Signal::TERM);
            let _ = kill_process(self.pid, Signal::CONT);
            let needless = |(pid, name): &(i32, String)| dovecot && (*pid == self.pid() || name == "log");
            poll_until(grace, || group(self.pid()).iter().all(needless).then_some(()));
        }
        let _ = kill_process_group(self.pid, Signal::KILL);
        poll_until(Duration::from_secs(5), || group(self.pid()).is_empty().then_some(()));
        self.status = self.child.wait().ok();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits with a deadline, without polling where the kernel has pidfds (5.3).
pub(super) fn wait_deadline(
    child: &mut std::process::Child,
    pid: Pid,
    deadline: Duration,
) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + deadline;
    if let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Ok(None),
                Ok(_) => return child.wait().map(Some),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    let mut result = Ok(None);
    poll_until(deadline, || {
        result = child.try_wait();
        (!matches!(result, Ok(None))).then_some(())
    });
    result
}

/// The pid of a child in the form that rustix takes.
pub(super) fn pid_of(child: &std::process::Child) -> Result<Pid, SandboxError> {
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::other("no pid"))
        .map_err(SandboxError::io("start a process"))
}

/// What to start, and where to send the outcome.
type Job = (Command, SyncSender<io::Result<std::process::Child>>);

/// Starts a process on the one thread that never ends before the process does (see the module's text).
fn spawn_on_lasting_thread(command: Command) -> io::Result<std::process::Child> {
    static SPAWNER: Mutex<Option<SyncSender<Job>>> = Mutex::new(None);
    let jobs = {
        let mut spawner = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
        match &*spawner {
            Some(jobs) => jobs.clone(),
            None => spawner.insert(spawner_thread()?).clone(),
        }
    };
    let (reply, answer) = sync_channel(1);
    let gone = || io::Error::other("the thread that starts processes is gone");
    jobs.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

fn spawner_thread() -> io::Result<SyncSender<Job>> {
    let (jobs, inbox) = sync_channel::<Job>(1);
    thread::Builder::new().name("ocbus-sandbox".to_owned()).spawn(move || {
        for (mut command, reply) in inbox {
            // Nobody waits for the answer any more only if the asking thread was killed; then the child is
            // dropped here, and the kernel ends it with us.
            let _ = reply.send(command.spawn());
        }
    })?;
    Ok(jobs)
}

/// Whether all threads of a process are stopped, or all of them run: they stop one by one, and any of them may still
/// answer meanwhile.
fn threads_are_stopped(pid: i32, stopped: bool) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads
        .filter_map(|thread| stat_of(&thread.ok()?.path().join("stat")))
        .all(|(state, ..)| matches!(state, 'T' | 't') == stopped)
}

/// `(state, parent, group, name)` of a process; `None` when there is none.
fn stat(pid: i32) -> Option<(char, i32, i32, String)> {
    stat_of(Path::new(&format!("/proc/{pid}/stat")))
}

fn stat_of(path: &Path) -> Option<(char, i32, i32, String)> {
    let text = fs::read_to_string(path).ok()?;
    // The name may contain spaces and parentheses: it ends at the last one.
    let (head, tail) = text.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let mut fields = tail.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    Some((state, parent, group, name))
}

fn state(pid: i32) -> Option<char> {
    stat(pid).map(|stat| stat.0)
}

/// Whether a process runs: neither gone nor a zombie.
#[must_use]
pub fn alive(pid: i32) -> bool {
    !matches!(state(pid), None | Some('Z' | 'X'))
}

/// The running processes of a process group: `(pid, name)`.
pub(super) fn group(leader: i32) -> Vec<(i32, String)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| match stat(pid)? {
            (state, _, group, name) if group == leader && !matches!(state, 'Z' | 'X') => Some((pid, name)),
            _ => None,
        })
        .collect()
}

/// How many descriptors a process holds open; 0 when it has ended.
#[must_use]
pub fn open_descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// A file's text; empty when there is none yet.
pub(super) fn read_lossy(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Options for setpriv that make a root process `nobody`; none for anybody else.
pub(super) fn as_nobody() -> &'static [&'static str] {
    if rustix::process::geteuid().is_root() {
        &["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]
    } else {
        &[]
    }
}
