//! A private Dovecot.

use super::dovecot_text::{Ports, Version};
use super::process::{Child, End, find_program, group, pid_of, poll_until, read_lossy, wait_deadline};
use super::{DovecotOptions, Folder, ImapClient, LmtpClient, MAIL_UID, Maildir, SandboxError, free_port};
use std::fs;
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a start may take.
const START: Duration = Duration::from_secs(10);
/// How long a delivery, or one answer of a server, may take unless told otherwise.
const DEADLINE: Duration = Duration::from_secs(30);
/// Ports are found, then used: somebody else may have taken one in between.
const ATTEMPTS: usize = 5;
/// What a pipe holds: a mail that fits is written before anybody reads it.
const PIPE: usize = 60 << 10;

/// A Dovecot of the sandbox; it ends when this is dropped.
#[derive(Debug)]
pub struct Dovecot {
    // Ended before the folder goes.
    child: Child,
    path: PathBuf,
    installed: Installed,
    ports: Ports,
    options: DovecotOptions,
    separator: char,
    deadline: Duration,
    _folder: Arc<Folder>,
}

/// What a delivery by dovecot-lda did.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The exit status; `None` when a signal ended it, or it was still running at the deadline (and was killed).
    pub status: Option<i32>,
    /// The signal that ended it, ours at the deadline included.
    pub signal: Option<i32>,
    /// What it wrote to its standard error. (Its log is in [`Dovecot::log`].)
    pub stderr: String,
    /// From the start of the process to its end.
    pub took: Duration,
}

impl Delivery {
    /// Whether it ended with 0.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.status == Some(0)
    }
}

impl Dovecot {
    pub(super) fn start(
        folder: Arc<Folder>,
        path: PathBuf,
        options: &DovecotOptions,
    ) -> Result<Self, SandboxError> {
        let uid = rustix::process::geteuid();
        if !uid.is_root() {
            return Err(SandboxError::NotRoot { uid: uid.as_raw(), mail_uid: MAIL_UID });
        }
        let installed = Installed::find()?;
        traversable(&path)?;
        for folder in ["", "log", "mail", "run", "state"].map(|name| path.join(name)) {
            fs::create_dir(&folder)
                .and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)))
                .map_err(SandboxError::path("make", &folder))?;
        }
        let mails = path.join("mail");
        std::os::unix::fs::chown(&mails, Some(MAIL_UID), Some(MAIL_UID))
            .map_err(SandboxError::path("give away", &mails))?;
        options.write_modules(installed.version, &path, &installed.modules)?;
        options.write_passwords(&path)?;
        let separator = options.separator;
        let mut attempt = 1;
        loop {
            let ports = Ports { imap: free_port()?, lmtp: free_port()?, doveadm: free_port()? };
            match launch(&installed, &path, options, ports) {
                Ok(child) => {
                    let deadline = DEADLINE;
                    return Ok(Self {
                        child,
                        path,
                        installed,
                        ports,
                        options: options.clone(),
                        separator,
                        deadline,
                        _folder: folder,
                    });
                }
                Err(SandboxError::Ended { output, .. })
                    if attempt < ATTEMPTS && output.contains("Address already in use") =>
                {
                    attempt += 1;
                    // Its complaint is nobody's fault, and whoever reads the log looks for faults.
                    let log = log_file(&path);
                    if log.exists() {
                        fs::remove_file(&log).map_err(SandboxError::path("remove", &log))?;
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Its folder: `dovecot.conf`, `log/`, `mail/USER/Maildir`, `modules/`, `run/`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its configuration file.
    #[must_use]
    pub fn conf(&self) -> PathBuf {
        conf(&self.path)
    }

    /// The pid of its master process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// All its processes, as `(pid, name)`: the master, `lmtp`, `imap`, `auth` and so on.
    #[must_use]
    pub fn processes(&self) -> Vec<(i32, String)> {
        group(self.pid())
    }

    /// What `dovecot --version` says: `2.3.19.1 (9b53102964)`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.installed.printed
    }

    /// The port of its IMAP server.
    #[must_use]
    pub fn imap_port(&self) -> u16 {
        self.ports.imap
    }

    /// The port of its LMTP server.
    #[must_use]
    pub fn lmtp_port(&self) -> u16 {
        self.ports.lmtp
    }

    /// The port of its DoveAdm HTTP API, where the options open that.
    #[must_use]
    pub fn doveadm_port(&self) -> u16 {
        self.ports.doveadm
    }

    /// Ends it as an administrator would: its ports refuse from then on. Its mails stay.
    pub fn shut_down(&mut self) {
        self.child.set_end(End::Terminate(Duration::from_secs(5)));
        self.child.stop();
    }

    /// Starts it again at the same ports, with the same mails; ends it before, if it still runs.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self) -> Result<(), SandboxError> {
        self.shut_down();
        self.child = launch(&self.installed, &self.path, &self.options, self.ports)?;
        Ok(())
    }

    /// Changes how long a delivery, or one answer of a server, may take (30 s at first).
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// Delivers a mail as an MTA's pipe does: one dovecot-lda for it.
    ///
    /// It is started without setpriv, so that its time is its own; when we die, it ends by itself as soon as it
    /// has delivered.
    ///
    /// # Errors
    /// When it cannot be started. A delivery that fails is a [`Delivery`] too.
    pub fn deliver_lda(
        &self,
        user: &str,
        mail: impl AsRef<[u8]>,
        mailbox: Option<&str>,
    ) -> Result<Delivery, SandboxError> {
        let mut command = Command::new(&self.installed.lda);
        command.arg("-c").arg(self.conf()).args(["-d", user]);
        if let Some(mailbox) = mailbox {
            command.args(["-m", mailbox]);
        }
        let (delivery, _) = self.run(command, mail.as_ref())?;
        Ok(delivery)
    }

    /// Runs doveadm; gives what it printed.
    ///
    /// # Errors
    /// When it does not end with 0 within the deadline.
    pub fn doveadm(&self, arguments: &[&str]) -> Result<String, SandboxError> {
        let mut command = Command::new(find_program("doveadm", "dovecot-core")?);
        command.arg("-c").arg(self.conf()).args(arguments);
        let (outcome, output) = self.run(command, &[])?;
        if outcome.is_ok() {
            return Ok(output);
        }
        let status = format!("status {:?}, signal {:?}", outcome.status, outcome.signal);
        Err(SandboxError::Ended { name: format!("doveadm {arguments:?}"), status, output: outcome.stderr })
    }

    /// Sets the METADATA without which Dovecot's OX driver tells nothing of a user; `value` is `user=NAME`.
    ///
    /// # Errors
    /// As [`doveadm`](Self::doveadm); and where the options have no `mail_attribute_dict`.
    pub fn register_ox(&self, user: &str, value: &str) -> Result<(), SandboxError> {
        const KEY: &str = "/private/vendor/vendor.dovecot/http-notify";
        // The mailbox "", as the driver looks for it.
        self.doveadm(&["mailbox", "metadata", "set", "-u", user, "-s", "", KEY, value]).map(drop)
    }

    /// Connects to its LMTP server.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn lmtp(&self) -> Result<LmtpClient, SandboxError> {
        LmtpClient::connect(self.ports.lmtp, self.deadline)
    }

    /// Connects to its IMAP server and logs in.
    ///
    /// # Errors
    /// When it does not answer, or the login fails.
    pub fn imap(&self, user: &str) -> Result<ImapClient, SandboxError> {
        ImapClient::login(self.ports.imap, user, self.deadline)
    }

    /// A user's stored mails.
    #[must_use]
    pub fn maildir(&self, user: &str) -> Maildir {
        Maildir::new(self.path.join("mail").join(user).join("Maildir"), self.separator)
    }

    /// The whole log. Servers write it through another process: see [`wait_log`](Self::wait_log).
    #[must_use]
    pub fn log(&self) -> String {
        read_lossy(&log_file(&self.path))
    }

    /// The lines of the log that speak of our plugin.
    #[must_use]
    pub fn plugin_log_lines(&self) -> Vec<String> {
        self.log().lines().filter(|line| line.contains("openchange")).map(str::to_owned).collect()
    }

    /// Waits until the log contains `pattern`; gives the first line with it.
    ///
    /// # Errors
    /// When that does not happen within `deadline`; the error has the log's tail.
    pub fn wait_log(&self, pattern: &str, deadline: Duration) -> Result<String, SandboxError> {
        poll_until(deadline, || self.log().lines().find(|line| line.contains(pattern)).map(str::to_owned))
            .ok_or_else(|| SandboxError::Deadline {
                what: format!("{pattern:?} in Dovecot's log"),
                after: deadline,
                detail: tail(&self.log()),
            })
    }

    /// Ends it as an administrator would and gives the whole log, what its processes wrote at their end included.
    /// That takes Dovecot a second (five, when it has just started); a drop is quicker.
    #[must_use]
    pub fn stop(mut self) -> String {
        self.child.set_end(End::Terminate(Duration::from_secs(5)));
        self.child.stop();
        self.log()
    }

    /// Runs a short-lived program with `input` at its standard input.
    fn run(&self, mut command: Command, input: &[u8]) -> Result<(Delivery, String), SandboxError> {
        let program = format!("{:?}", command.get_program());
        let failed = |what: &str| format!("{what} {program}");
        let file = |what: &str| tempfile::tempfile_in(&self.path).map_err(SandboxError::io(failed(what)));
        let (mut stdout, mut stderr) = (file("keep the output of")?, file("keep the errors of")?);
        command.stdin(self.input(input).map_err(SandboxError::io(failed("write the input of")))?);
        command.stdout(stdout.try_clone().map_err(SandboxError::io(failed("keep the output of")))?);
        command.stderr(stderr.try_clone().map_err(SandboxError::io(failed("keep the errors of")))?);
        let started = Instant::now();
        let mut child = command.spawn().map_err(SandboxError::io(failed("start")))?;
        // It holds the reading end of the input.
        drop(command);
        let pid = pid_of(&child)?;
        let ended = wait_deadline(&mut child, pid, self.deadline);
        let took = started.elapsed();
        let status = match ended.map_err(SandboxError::io(failed("wait for")))? {
            Some(status) => status,
            None => child.kill().and_then(|()| child.wait()).map_err(SandboxError::io(failed("end")))?,
        };
        let text = |file: &mut fs::File| {
            file.rewind()
                .and_then(|()| io::read_to_string(file))
                .map_err(SandboxError::io(failed("read the output of")))
        };
        let (stdout, stderr) = (text(&mut stdout)?, text(&mut stderr)?);
        Ok((Delivery { status: status.code(), signal: status.signal(), stderr, took }, stdout))
    }

    /// A pipe where the input fits into it, as an MTA would have it, else a file.
    fn input(&self, input: &[u8]) -> io::Result<Stdio> {
        if input.len() <= PIPE {
            let (reader, mut writer) = io::pipe()?;
            writer.write_all(input)?;
            return Ok(reader.into());
        }
        let mut file = tempfile::tempfile_in(&self.path)?;
        file.write_all(input)?;
        file.rewind()?;
        Ok(file.into())
    }
}

/// Starts one and waits until all its listeners are open.
fn launch(
    installed: &Installed,
    path: &Path,
    options: &DovecotOptions,
    ports: Ports,
) -> Result<Child, SandboxError> {
    let conf = conf(path);
    fs::write(&conf, options.text(installed.version, path, ports)?)
        .map_err(SandboxError::path("write", &conf))?;
    let mut command = Command::new(&installed.dovecot);
    command.arg("-F").arg("-c").arg(&conf);
    let end = End::Dovecot(Duration::from_millis(500));
    let mut child = Child::start("dovecot", &command, &[], &path.join("log/master"), end)?;
    // The master opens its listeners, unix sockets included, before it writes its pid.
    let pid_file = path.join("run/master.pid");
    let ready = poll_until(START, || {
        if child.poll_status().is_some() {
            return Some(false);
        }
        let pid = fs::read_to_string(&pid_file).ok()?;
        (pid.trim() == child.pid().to_string()).then_some(true)
    });
    let output = || format!("{}{}", child.stderr(), tail(&read_lossy(&log_file(path))));
    match ready {
        Some(true) => Ok(child),
        Some(false) => Err(SandboxError::Ended {
            name: "dovecot".to_owned(),
            status: child.status_text(),
            output: output(),
        }),
        None => {
            let what = "the start of dovecot".to_owned();
            Err(SandboxError::Deadline { what, after: START, detail: output() })
        }
    }
}

fn conf(path: &Path) -> PathBuf {
    path.join("dovecot.conf")
}

fn log_file(path: &Path) -> PathBuf {
    path.join("log/dovecot.log")
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
}

/// Every folder on the way has to let the mail uid pass.
fn traversable(path: &Path) -> Result<(), SandboxError> {
    for folder in path.ancestors().skip(1) {
        let mode = fs::metadata(folder).map_err(SandboxError::path("look at", folder))?.permissions().mode();
        if mode & 0o001 == 0 {
            return Err(SandboxError::NotTraversable { path: folder.to_path_buf(), mode: mode & 0o7777 });
        }
    }
    Ok(())
}

/// Where the installed Dovecot has its parts.
#[derive(Debug)]
struct Installed {
    dovecot: PathBuf,
    lda: PathBuf,
    modules: PathBuf,
    version: Version,
    /// What `dovecot --version` says.
    printed: String,
}

impl Installed {
    fn find() -> Result<Self, SandboxError> {
        let dovecot = find_program("dovecot", "dovecot-core")?;
        let (programs, modules) = folders();
        let file = |name: &str, package: &'static str| {
            let file = programs.join(name);
            if file.is_file() {
                Ok(file)
            } else {
                Err(SandboxError::MissingProgram { program: file.display().to_string(), package })
            }
        };
        let lda = file("dovecot-lda", "dovecot-core")?;
        file("imap", "dovecot-imapd")?;
        file("lmtp", "dovecot-lmtpd")?;
        let printed = Command::new(&dovecot).arg("--version").output();
        let found = printed
            .map(|printed| String::from_utf8_lossy(&printed.stdout).trim().to_owned())
            .unwrap_or_default();
        match Version::of(&found) {
            Some(version) => Ok(Self { dovecot, lda, modules, version, printed: found }),
            None => Err(SandboxError::UnsupportedDovecot { found }),
        }
    }
}

/// The folders of Dovecot's programs and of its modules: what `dovecot-config` says (dovecot-dev has it), or
/// doveconf's defaults, or Debian's.
fn folders() -> (PathBuf, PathBuf) {
    let known = ["/usr/lib/dovecot", "/usr/local/lib/dovecot", "/usr/lib64/dovecot"].map(Path::new);
    for text in known.iter().map(|folder| read_lossy(&folder.join("dovecot-config"))) {
        let value = |key: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
            Some(PathBuf::from(value.trim_matches(['"', '\''])))
        };
        if let (Some(programs), Some(modules)) = (value("dovecot_pkglibexecdir"), value("dovecot_moduledir"))
        {
            return (programs, modules);
        }
    }
    let asked = Command::new("doveconf").args(["-d", "-h", "libexec_dir", "mail_plugin_dir"]).output();
    let text = asked.map(|asked| String::from_utf8_lossy(&asked.stdout).into_owned()).unwrap_or_default();
    let mut lines = text.lines().filter(|line| line.starts_with('/')).map(PathBuf::from);
    let fallback = || PathBuf::from("/usr/lib/dovecot");
    let programs = lines.next().unwrap_or_else(fallback);
    (programs, lines.next().unwrap_or_else(|| fallback().join("modules")))
}
