//! What can go wrong in a sandbox, said so that the reader knows what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An error of the sandbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// Dovecot changes to the mail uid for each delivery, so its master has to be root.
    #[error(
        "a private Dovecot delivers as mail uid {mail_uid} and has to be started by root, but this \
         process has uid {uid}: run it as root (in a container, or with sudo)"
    )]
    NotRoot {
        /// Who we are.
        uid: u32,
        /// Whom deliveries run as.
        mail_uid: u32,
    },
    /// A server is not installed.
    #[error("{program} is not installed: `apt-get install {package}` (or `scripts/setup`) brings it")]
    MissingProgram {
        /// The program or file that was looked for.
        program: String,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The Dovecot plugin has not been built.
    #[error(
        "the Dovecot plugin is not at {}: build it with `cargo build -p dovecot-openchange-plugin`, or name \
         its .so in OCBUS_PLUGIN", .path.display()
    )]
    MissingPlugin {
        /// Where it was expected.
        path: PathBuf,
    },
    /// The command has not been built.
    #[error("the command ocbus is not beside {}: build it with `cargo build -p ocbus`, or name it in OCBUS_COMMAND", .path.display())]
    MissingCommand {
        /// Our own program, near which it was expected.
        path: PathBuf,
    },
    /// The installed Dovecot wants another settings grammar.
    #[error("the sandbox writes settings for Dovecot 2.3, and the installed one is {found}: {output}")]
    UnsupportedDovecot {
        /// What `dovecot --version` says.
        found: String,
        /// What Dovecot said about the settings.
        output: String,
    },
    /// A setting that cannot be written to Dovecot's configuration.
    #[error("Dovecot setting {name} = {value:?} cannot be written: {wanted}")]
    Setting {
        /// The setting.
        name: String,
        /// The value that was given.
        value: String,
        /// What would be right.
        wanted: &'static str,
    },
    /// The mail uid cannot reach the sandbox's folder.
    #[error(
        "the mail uid cannot enter {} (mode {mode:03o}): `chmod o+x` it, or name another folder in \
         OCBUS_SANDBOX_DIR", .path.display()
    )]
    NotTraversable {
        /// The folder without the bit.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Unix socket names hold 107 octets.
    #[error(
        "{} has {length} octets, too many for the unix sockets below it (at most {limit}): name a shorter \
         folder in OCBUS_SANDBOX_DIR", .path.display()
    )]
    PathTooLong {
        /// The sandbox's folder.
        path: PathBuf,
        /// Its length.
        length: usize,
        /// The longest that works.
        limit: usize,
    },
    /// A server ended while it was being started.
    #[error("{name} ended at its start ({status}): {output}")]
    Ended {
        /// The server.
        name: String,
        /// Its exit status.
        status: String,
        /// What it printed or logged.
        output: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {}.{:03} s: {detail}", .after.as_secs(), .after.subsec_millis())]
    Deadline {
        /// What was waited for.
        what: String,
        /// For how long.
        after: Duration,
        /// The state at that time: a log's tail, a process's output.
        detail: String,
    },
    /// A server answered something else than was asked for.
    #[error("{peer} answered {answer:?} to {request:?}")]
    Answer {
        /// The server.
        peer: &'static str,
        /// What we sent.
        request: String,
        /// What came back.
        answer: String,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl SandboxError {
    /// An adapter for `map_err`: `what` failed with an I/O error.
    pub(super) fn io<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source: source.into() }
    }

    /// The same for an operation on a path.
    pub(super) fn path<E: Into<io::Error>>(verb: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { what: format!("{verb} {}", path.display()), source: source.into() }
    }
}
