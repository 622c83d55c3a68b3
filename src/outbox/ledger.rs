//! How many events were accepted and how many of them are settled, in a file that outlives the process.
//!
//! Counters are written by `pwrite`, before the acknowledgement, into the kernel's page cache: they outlive SIGKILL, and
//! cost no disk. They do not outlive a power failure; but then the machine has another boot id, and the file still
//! says that a daemon was running, which was synced when it began. So the next start knows in both cases that something
//! may have been left behind, and in the first one how much.
//!
//! ```text
//! 0          8         16                  32         40
//! +----------+---------+-------------------+----------+----------+
//! | ocbusled | state   | boot id           | accepted | settled  |    integers: u64, big-endian
//! +----------+---------+-------------------+----------+----------+
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;

const NAME: &str = "outbox.ledger";
const MAGIC: &[u8; 8] = b"ocbusled";
const OCTETS: usize = 48;
const COUNTERS_AT: u64 = 32;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Why there is no ledger.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The file cannot be read or written.
    #[error("state_dir: {}: {source}: expected a folder that is ours", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another daemon has it.
    #[error("state_dir: {}: another daemon uses it: expected a folder for each", .path.display())]
    Used {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("state_dir: {}: no ledger of ocbus: expected the file to be ours, or absent", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
}

/// What an earlier process had accepted and neither delivered nor told anybody about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeftBehind {
    /// Nothing.
    Nothing,
    /// So many events: it was killed.
    Events(u64),
    /// Some, or none: the machine went down under it.
    Unknown,
}

/// The open ledger. Locked: it has one user.
#[derive(Debug)]
pub(super) struct Ledger {
    file: File,
    path: PathBuf,
    boot_id: Uuid,
    /// What stood there for earlier processes; ours comes on top.
    base: Counters,
    failed: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counters {
    accepted: u64,
    settled: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its last user ended in good order: the counters are on the disk.
    Clean = 0,
    Running = 1,
    /// As Running, and what was left behind by a power failure is not told yet.
    Unknown = 2,
}

impl Ledger {
    /// Opens the ledger in a folder, or makes it, and says what it has to tell.
    pub(super) fn open(folder: &Path) -> Result<(Ledger, LeftBehind), LedgerError> {
        let boot_id = std::fs::read_to_string(BOOT_ID).ok().and_then(|text| text.trim().parse().ok());
        Ledger::open_at(folder, boot_id.unwrap_or_default())
    }

    /// As of a boot; without a boot id each start is another one.
    fn open_at(folder: &Path, boot_id: Uuid) -> Result<(Ledger, LeftBehind), LedgerError> {
        let path = folder.join(NAME);
        let failed = |source| LedgerError::Io { path: path.clone(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LedgerError::Used { path }),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let (state, then, base) = match file.metadata().map_err(failed)?.len() {
            0 => (State::Clean, boot_id, Counters::default()),
            _ => read(&file).map_err(failed)?.ok_or_else(|| LedgerError::Foreign { path: path.clone() })?,
        };
        let same_boot = then == boot_id && !boot_id.is_nil();
        let left = match (state, base.accepted.saturating_sub(base.settled)) {
            (State::Unknown, _) => LeftBehind::Unknown,
            (State::Running, _) if !same_boot => LeftBehind::Unknown,
            (_, 0) => LeftBehind::Nothing,
            (_, events) => LeftBehind::Events(events),
        };
        let ledger = Ledger { file, path: path.clone(), boot_id, base, failed: false };
        let state = if left == LeftBehind::Unknown { State::Unknown } else { State::Running };
        ledger.write_whole(state, base).map_err(failed)?;
        Ok((ledger, left))
    }

    /// Writes the counters of this process. A failure is logged once: the events are worth more than their count.
    pub(super) fn write(&mut self, accepted: u64, settled: u64) {
        let octets = self.sum(accepted, settled).octets();
        let written = self.file.write_all_at(&octets, COUNTERS_AT);
        self.note(written);
    }

    /// What was left behind is told, or stands in the counters of this process: it is ours now.
    pub(super) fn forgive(&mut self, accepted: u64, settled: u64) {
        self.base.settled = self.base.accepted;
        let written = self.write_whole(State::Running, self.sum(accepted, settled));
        self.note(written);
    }

    /// The last word, in good order.
    pub(super) fn close(&mut self, accepted: u64, settled: u64) {
        let written = self.write_whole(State::Clean, self.sum(accepted, settled));
        self.note(written);
    }

    fn sum(&self, accepted: u64, settled: u64) -> Counters {
        Counters {
            accepted: self.base.accepted.saturating_add(accepted),
            settled: self.base.settled.saturating_add(settled),
        }
    }

    fn write_whole(&self, state: State, counters: Counters) -> io::Result<()> {
        let mut octets = Vec::with_capacity(OCTETS);
        octets.extend_from_slice(MAGIC);
        octets.extend_from_slice(&(state as u64).to_be_bytes());
        octets.extend_from_slice(self.boot_id.as_bytes());
        octets.extend_from_slice(&counters.octets());
        self.file.write_all_at(&octets, 0)?;
        self.file.sync_all()
    }

    fn note(&mut self, written: io::Result<()>) {
        match written {
            Ok(()) => self.failed = false,
            Err(error) if !std::mem::replace(&mut self.failed, true) => {
                let path = self.path.display();
                tracing::error!(event = "ledger_failed", %path, %error, "what a kill loses would not be counted");
            }
            Err(_) => {}
        }
    }
}

impl Counters {
    fn octets(self) -> [u8; 16] {
        let mut octets = [0; 16];
        let (accepted, settled) = octets.split_at_mut(8);
        accepted.copy_from_slice(&self.accepted.to_be_bytes());
        settled.copy_from_slice(&self.settled.to_be_bytes());
        octets
    }
}

/// `None`: it is not one of ours.
fn read(file: &File) -> io::Result<Option<(State, Uuid, Counters)>> {
    let mut octets = [0; OCTETS];
    if file.metadata()?.len() != octets.len() as u64 {
        return Ok(None);
    }
    file.read_exact_at(&mut octets, 0)?;
    let mut words = octets.chunks_exact(8).filter_map(|word| <[u8; 8]>::try_from(word).ok());
    let magic = words.next();
    let mut number = || words.next().map(u64::from_be_bytes).unwrap_or_default();
    let (state, boot_high, boot_low) = (number(), number(), number());
    let counters = Counters { accepted: number(), settled: number() };
    let state = match state {
        0 => State::Clean,
        1 => State::Running,
        2 => State::Unknown,
        _ => return Ok(None),
    };
    let whole = magic.as_ref() == Some(MAGIC) && counters.settled <= counters.accepted;
    Ok(whole.then_some((state, Uuid::from_u64_pair(boot_high, boot_low), counters)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: Uuid = Uuid::from_u128(7);
    const NEXT_BOOT: Uuid = Uuid::from_u128(8);

    fn open(folder: &Path, boot: Uuid) -> (Ledger, LeftBehind) {
        Ledger::open_at(folder, boot).unwrap()
    }

    #[test]
    fn what_a_killed_process_left_behind_is_counted_until_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (mut ledger, left) = open(folder.path(), BOOT);
        assert_eq!(left, LeftBehind::Nothing);
        ledger.write(10, 7);
        drop(ledger);
        let (mut ledger, left) = open(folder.path(), BOOT);
        assert_eq!(left, LeftBehind::Events(3));
        ledger.write(5, 1);
        drop(ledger);
        let (mut ledger, left) = open(folder.path(), BOOT);
        assert_eq!(left, LeftBehind::Events(7), "killed before it told");
        ledger.write(2, 0);
        ledger.forgive(2, 0);
        drop(ledger);
        let (mut ledger, left) = open(folder.path(), BOOT);
        assert_eq!(left, LeftBehind::Events(2), "what is its own");
        ledger.forgive(0, 0);
        ledger.write(4, 4);
        drop(ledger);
        assert_eq!(open(folder.path(), BOOT).1, LeftBehind::Nothing);
    }

    #[test]
    fn after_a_power_failure_nobody_knows_how_many() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), BOOT).0.write(4, 4);
        let (ledger, left) = open(folder.path(), NEXT_BOOT);
        assert_eq!(left, LeftBehind::Unknown);
        drop(ledger);
        let (mut ledger, left) = open(folder.path(), NEXT_BOOT);
        assert_eq!(left, LeftBehind::Unknown, "killed before it told");
        ledger.forgive(0, 0);
        ledger.close(3, 3);
        drop(ledger);
        let (mut ledger, left) = open(folder.path(), BOOT);
        assert_eq!(left, LeftBehind::Nothing, "closed in good order before the machine went down");
        ledger.close(3, 2);
        drop(ledger);
        assert_eq!(open(folder.path(), NEXT_BOOT).1, LeftBehind::Events(1), "synced at its end");
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), Uuid::nil()).0.write(4, 4);
        assert_eq!(open(folder.path(), Uuid::nil()).1, LeftBehind::Unknown, "no boot id, no certainty");
    }

    #[test]
    fn a_ledger_has_one_user_and_nothing_else_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let (_ledger, _) = open(folder.path(), BOOT);
        assert!(matches!(Ledger::open_at(folder.path(), BOOT), Err(LedgerError::Used { .. })));
        for foreign in [&b"x"[..], &[0; 48], b"ocbusled\0\0\0\0\0\0\0\x07................................"] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(NAME), foreign).unwrap();
            assert!(matches!(Ledger::open_at(folder.path(), BOOT), Err(LedgerError::Foreign { .. })));
            assert_eq!(std::fs::read(folder.path().join(NAME)).unwrap(), foreign);
        }
        let error = Ledger::open(&folder.path().join("absent")).unwrap_err().to_string();
        assert!(error.contains("state_dir") && error.contains("absent/outbox.ledger"), "{error}");
    }
}
