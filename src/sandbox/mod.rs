//! A private Dovecot and memcached under one folder, for the demo, the tests, the soak and the benchmarks.
//!
//! Everything listens on 127.0.0.1 at free ports, lives under one temporary folder, and is gone when its value
//! is dropped, or when the process dies in whatever way (see [`Child`] and `process.rs`). The API blocks; every
//! wait has a deadline.
//!
//! ```no_run
//! use ocbus::sandbox::{DovecotOptions, Sandbox, mail};
//! # fn main() -> Result<(), ocbus::sandbox::SandboxError> {
//! let sandbox = Sandbox::new()?;
//! let memcached = sandbox.memcached()?;
//! let dovecot = sandbox.dovecot(
//!     DovecotOptions::new(&["notify", "openchange"]).setting("openchange_resolver", &memcached.configuration()),
//! )?;
//! let delivery = dovecot.deliver_lda("bob", mail("alice@example.org", "Hello", "Hi Bob"), None)?;
//! assert_eq!(delivery.status, Some(0), "{}", delivery.stderr);
//! assert_eq!(dovecot.maildir("bob").count("INBOX"), 1);
//! # Ok(()) }
//! ```
//!
//! Values that hold a [`Sandbox`]'s folder (servers, children) keep it alive: the folder goes with the last of
//! them. `OCBUS_SANDBOX_DIR` names another place for it than the system's temporary folder, and
//! `OCBUS_SANDBOX_KEEP=1` leaves it there to be looked at.

mod daemon;
mod dovecot;
mod dovecot_conf;
mod dovecot_text;
mod error;
pub mod faults;
mod imap;
mod line;
mod lmtp;
mod mail;
mod maildir;
mod memcached;
mod process;

pub use daemon::{Daemon, built_command};
pub use dovecot::{Delivery, Dovecot};
pub use dovecot_conf::{DovecotOptions, built_plugin};
pub use error::SandboxError;
pub use imap::{ImapClient, mailbox_name};
pub use lmtp::{LmtpClient, Reply};
pub use mail::{Mail, mail};
pub use maildir::Maildir;
pub use memcached::Memcached;
pub use process::{Child, alive, open_descriptors};

use process::{End, poll_until};
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// Who owns the mails; needs no account.
pub const MAIL_UID: u32 = 5000;
/// `sun_path` holds 107 octets and a NUL; the longest name below our folder takes less than 37.
const PATH_LIMIT: usize = 70;

/// A folder for private servers.
#[derive(Debug)]
pub struct Sandbox {
    folder: Arc<Folder>,
    started: AtomicU32,
}

impl Sandbox {
    /// Makes the folder, in `OCBUS_SANDBOX_DIR` or the system's temporary folder.
    ///
    /// # Errors
    /// When it cannot be made there, is too long for unix sockets, or the mail uid cannot enter it.
    pub fn new() -> Result<Self, SandboxError> {
        let parent = std::env::var_os("OCBUS_SANDBOX_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let parent = std::path::absolute(&parent).map_err(SandboxError::path("use", &parent))?;
        let made = tempfile::Builder::new().prefix("ocbus-").tempdir_in(&parent);
        let folder = made.map_err(SandboxError::path("make a sandbox in", &parent))?;
        let path = folder.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
            .map_err(SandboxError::path("set the mode of", path))?;
        let length = path.as_os_str().len();
        if length > PATH_LIMIT {
            return Err(SandboxError::PathTooLong { path: path.to_path_buf(), length, limit: PATH_LIMIT });
        }
        Ok(Self {
            folder: Arc::new(Folder { dir: Some(folder), keep: AtomicBool::new(false) }),
            started: AtomicU32::new(0),
        })
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves the folder there at the end, to be looked at.
    pub fn keep(&self) {
        self.folder.keep.store(true, Ordering::Relaxed);
    }

    /// Starts a memcached.
    ///
    /// # Errors
    /// When it is not installed, or does not answer within five seconds.
    pub fn memcached(&self) -> Result<Memcached, SandboxError> {
        self.memcached_of(64)
    }

    /// Starts a memcached that may take so much memory for its items; with little it evicts.
    ///
    /// # Errors
    /// As [`Sandbox::memcached`].
    pub fn memcached_of(&self, memory_mib: u32) -> Result<Memcached, SandboxError> {
        Memcached::start(self.path().join(format!("memcached{}", self.next())), memory_mib)
    }

    /// Starts a Dovecot; several may run at a time, each with its own mails.
    ///
    /// # Errors
    /// When we are not root, something is not installed, or it does not start within ten seconds.
    pub fn dovecot(&self, options: DovecotOptions) -> Result<Dovecot, SandboxError> {
        let path = self.path().join(format!("d{}", self.next()));
        Dovecot::start(Arc::clone(&self.folder), path, &options)
    }

    /// Starts any other program, bound to us as the servers are. Its standard streams go to files; SIGTERM ends
    /// it, and SIGKILL after two seconds.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, name: &str, command: &Command) -> Result<Child, SandboxError> {
        let output = self.path().join(format!("{name}{}", self.next()));
        Child::start(name, command, &[], &output, End::Terminate(Duration::from_secs(2)))
    }

    fn next(&self) -> u32 {
        self.started.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// The folder itself, removed with the last value that needs it.
#[derive(Debug)]
struct Folder {
    dir: Option<TempDir>,
    keep: AtomicBool,
}

impl Folder {
    fn path(&self) -> &Path {
        self.dir.as_ref().map_or(Path::new("/nonexistent"), TempDir::path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let Some(folder) = self.dir.take() else { return };
        let path = folder.keep();
        let wished =
            std::env::var_os("OCBUS_SANDBOX_KEEP").is_some_and(|keep| keep != "0" && !keep.is_empty());
        if wished || *self.keep.get_mut() {
            return;
        }
        // A process that is just being ended may still create a file.
        poll_until(Duration::from_secs(2), || {
            let _ = fs::remove_dir_all(&path);
            (!path.exists()).then_some(())
        });
    }
}

/// The first port that [`free_port`] takes: below are those that services are known by.
const FIRST_PORT: u16 = 10_240;

/// How many it tries.
const PORT_TRIES: u32 = 64;

/// A port of 127.0.0.1 that was free a moment ago. It lies below those that the kernel gives to connections, one of which
/// might take it before the server that it is for, or while that is started anew.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16, SandboxError> {
    let bind =
        |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.local_addr().map(|address| address.port());
    let given = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first_given: u16 = given.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0);
    let below = u64::from(first_given.saturating_sub(FIRST_PORT));
    // At random: others choose at the same time.
    (0..PORT_TRIES)
        .filter_map(|_| RandomState::new().hash_one(()).checked_rem(below))
        .filter_map(|offset| FIRST_PORT.checked_add(u16::try_from(offset).ok()?))
        .find_map(|port| bind(port).ok())
        .map_or_else(|| bind(0), Ok)
        .map_err(SandboxError::io("find a free port on 127.0.0.1"))
}
