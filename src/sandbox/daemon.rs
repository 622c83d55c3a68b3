//! A private `ocbus serve`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use super::process::{Child, End};
use super::{Sandbox, SandboxError};

/// How long a start may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// An `ocbus serve` of the sandbox, with its settings in a file; it is killed when this is dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    program: PathBuf,
    environment: Vec<(String, String)>,
    settings: PathBuf,
    output: PathBuf,
    ports: Vec<u16>,
}

impl Sandbox {
    /// Starts `ocbus serve` with these settings, and waits until it takes requests. A text without a `listen` gets
    /// `http.listen = "127.0.0.1:0"` as its first line, which TOML does not take beside a section `[http]`.
    ///
    /// # Errors
    /// When the command has not been built, or does not listen within ten seconds.
    pub fn daemon(&self, settings: &str) -> Result<Daemon, SandboxError> {
        self.daemon_with(settings, &[])
    }

    /// The same, with more in its environment.
    ///
    /// # Errors
    /// As [`Sandbox::daemon`].
    pub fn daemon_with(&self, settings: &str, environment: &[(&str, &str)]) -> Result<Daemon, SandboxError> {
        let stem = self.path().join(format!("ocbus{}", self.next()));
        let file = stem.with_extension("toml");
        write(&file, settings)?;
        let program = built_command()?;
        let environment: Vec<(String, String)> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (child, ports) = launch(&program, &environment, &file, &stem)?;
        Ok(Daemon { child, program, environment, settings: file, output: stem, ports })
    }
}

impl Daemon {
    /// The port of its first HTTP address.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports.first().copied().unwrap_or_default()
    }

    /// The ports of all its HTTP addresses.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// `http://127.0.0.1:PORT` and a path behind it.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port())
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// The file of its settings.
    #[must_use]
    pub fn settings(&self) -> &Path {
        &self.settings
    }

    /// Writes other settings, and sends SIGHUP; what comes of it is in the log.
    ///
    /// # Errors
    /// When the file cannot be written, or the daemon has ended.
    pub fn reload(&self, settings: &str) -> Result<(), SandboxError> {
        write(&self.settings, settings)?;
        self.child.signal("HUP")
    }

    /// Sends it a signal by name (see [`Child::signal`]).
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, name: &str) -> Result<(), SandboxError> {
        self.child.signal(name)
    }

    /// Waits for its end; `None` when it still runs after `deadline`.
    ///
    /// # Errors
    /// When the operating system cannot tell.
    pub fn wait(&mut self, deadline: Duration) -> Result<Option<ExitStatus>, SandboxError> {
        self.child.wait(deadline)
    }

    /// What it has logged since its last start.
    #[must_use]
    pub fn log(&self) -> String {
        self.child.stderr()
    }

    /// Waits until its log contains `pattern`; gives the whole log.
    ///
    /// # Errors
    /// When that does not happen within `deadline`.
    pub fn wait_log(&mut self, pattern: &str, deadline: Duration) -> Result<String, SandboxError> {
        self.child.wait_output(pattern, deadline)
    }

    /// Ends it at once, without a drain.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.signal("KILL");
        self.child.stop();
    }

    /// Starts it again after its end, with the settings that its file has now. With port 0 it gets other ports.
    ///
    /// # Errors
    /// As [`Sandbox::daemon`].
    pub fn restart(&mut self) -> Result<(), SandboxError> {
        self.kill();
        (self.child, self.ports) = launch(&self.program, &self.environment, &self.settings, &self.output)?;
        Ok(())
    }
}

/// Settings have secrets: nobody else reads them.
fn write(file: &Path, settings: &str) -> Result<(), SandboxError> {
    let listens =
        |line: &str| ["listen =", "http.listen ="].iter().any(|key| line.trim_start().starts_with(key));
    let text = match settings.lines().any(listens) {
        true => settings.to_owned(),
        false => format!("http.listen = \"127.0.0.1:0\"\n{settings}"),
    };
    fs::write(file, text)
        .and_then(|()| fs::set_permissions(file, fs::Permissions::from_mode(0o600)))
        .map_err(SandboxError::path("write", file))
}

fn launch(
    program: &Path,
    environment: &[(String, String)],
    settings: &Path,
    output: &Path,
) -> Result<(Child, Vec<u16>), SandboxError> {
    let mut command = Command::new(program);
    command.args(["serve", "--color", "never", "--config"]).arg(settings);
    for (name, value) in environment {
        command.env(name, value);
    }
    let mut child = Child::start("ocbus serve", &command, &[], output, End::Kill)?;
    // It says so when all parts are there.
    let log = child.wait_output("event=\"serving\"", DEADLINE)?;
    let port = |line: &str| {
        let (_, address) = line.split_once("event=\"listening\" address=")?;
        address.split_whitespace().next()?.rsplit(':').next()?.parse().ok()
    };
    Ok((child, log.lines().filter_map(port).collect()))
}

/// The command `ocbus` that Cargo has built last for our profile, or `OCBUS_COMMAND`.
///
/// # Errors
/// When there is none.
pub fn built_command() -> Result<PathBuf, SandboxError> {
    if let Some(command) = std::env::var_os("OCBUS_COMMAND") {
        return Ok(command.into());
    }
    let own = std::env::current_exe().map_err(SandboxError::io("find our own program"))?;
    // target/debug/deps/test-0123, target/debug/examples/x or target/debug/ocbus.
    let found =
        own.ancestors().skip(1).take(3).map(|folder| folder.join("ocbus")).find(|file| file.is_file());
    found.ok_or(SandboxError::MissingCommand { path: own })
}
