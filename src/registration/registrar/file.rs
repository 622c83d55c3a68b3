//! When the file of users is read and written.

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Sessions, Shared, now};
use crate::registration::core::Why;
use crate::registration::keep;

/// How often it is written at most; and for how much of the time.
const KEEP_EVERY: Duration = Duration::from_secs(1);
const KEEP_SHARE: u32 = 20;

/// How it stands with the file of users. Held while it is read or written, so that the last writer has the last word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// What is in it is not known yet, and must not be lost.
    Unread,
    /// It could not be read; that has been said.
    Unreadable,
    /// It is ours. With the generation that was written last; `None`: that one is not, and that has been said.
    Ours(Option<u64>),
}

impl Shared {
    pub(super) async fn keep_file(self: Arc<Shared>) {
        if self.config().state_file.is_none() {
            return;
        }
        loop {
            let begun = Instant::now();
            self.turn_file().await;
            // While many users are registered it changes all the time.
            sleep_until(Instant::now() + KEEP_EVERY.max(begun.elapsed() * KEEP_SHARE)).await;
        }
    }

    /// Reads the file if that has not worked yet, else writes it if something has changed.
    pub(super) async fn turn_file(self: &Arc<Shared>) {
        if self.config().state_file.is_none() {
            return;
        }
        let shared = Arc::clone(self);
        // A disk may be slow. A panic in it leaves things as they were.
        let _ = tokio::task::spawn_blocking(move || {
            let config = shared.config();
            let Some(path) = &config.state_file else { return };
            let mut file = shared.file.lock().unwrap_or_else(PoisonError::into_inner);
            *file = match *file {
                Kept::Unread | Kept::Unreadable => shared.read_file(path, *file),
                Kept::Ours(written) => shared.write_file(path, written),
            };
        })
        .await;
    }

    fn read_file(&self, path: &Path, was: Kept) -> Kept {
        let shown = path.display();
        match keep::read(path) {
            Ok(kept) => {
                if kept.odd > 0 {
                    let lines = kept.odd;
                    tracing::warn!(event = "users_odd", path = %shown, lines, "lines that name nobody are dropped");
                }
                if was == Kept::Unreadable {
                    tracing::info!(event = "users_recalled", path = %shown, users = kept.users.len(), "readable again");
                }
                let mut core = self.core();
                // Nobody would say when the session of a barred one has ended.
                let told = matches!(self.sessions, Sessions::Told);
                for (cn, why, since_us) in
                    kept.users.iter().filter(|(_, why, _)| !told || *why != Why::Barred)
                {
                    core.recall(now(), cn, *why, *since_us);
                }
                drop(core);
                self.wake.notify_one();
                Kept::Ours(Some(0))
            }
            Err(error) => {
                if was == Kept::Unread {
                    tracing::error!(event = "users_unreadable", path = %shown, reason = %error,
                        "who was registered by hand is not known; the file is left as it is, and tried again");
                }
                Kept::Unreadable
            }
        }
    }

    fn write_file(&self, path: &Path, written: Option<u64>) -> Kept {
        let (generation, kept) = {
            let core = self.core();
            let generation = core.generation();
            if written == Some(generation) {
                return Kept::Ours(written);
            }
            (generation, core.kept())
        };
        match keep::write(path, &kept) {
            Ok(()) => Kept::Ours(Some(generation)),
            Err(error) => {
                if written.is_some() {
                    let shown = path.display();
                    tracing::warn!(event = "users_unwritable", path = %shown, reason = %error, "not kept; tried again");
                }
                Kept::Ours(None)
            }
        }
    }
}
