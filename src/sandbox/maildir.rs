//! What Dovecot has stored.

use super::imap::modified_utf7;
use std::fs;
use std::path::{Path, PathBuf};

/// A user's mails on disk.
#[derive(Debug, Clone)]
pub struct Maildir {
    path: PathBuf,
    separator: char,
}

impl Maildir {
    pub(super) fn new(path: PathBuf, separator: char) -> Self {
        Self { path, separator }
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many mails a mailbox holds, `new` and `cur` together; 0 when there is no such mailbox.
    #[must_use]
    pub fn count(&self, mailbox: &str) -> usize {
        self.mails(mailbox).len()
    }

    /// The files of a mailbox's mails, oldest first.
    #[must_use]
    pub fn mails(&self, mailbox: &str) -> Vec<PathBuf> {
        let folder = self.folder(mailbox);
        let entries = ["new", "cur"].into_iter().filter_map(|part| fs::read_dir(folder.join(part)).ok());
        let mut mails: Vec<PathBuf> =
            entries.flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
        // A file's name begins with the time of its arrival: seconds, M and microseconds.
        mails.sort_by_key(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let (seconds, rest) = name.split_once('.').unwrap_or_default();
            let micros = rest.trim_start_matches('M').split('P').next().unwrap_or_default();
            (seconds.parse::<u64>().unwrap_or_default(), micros.parse::<u64>().unwrap_or_default())
        });
        mails
    }

    /// How many mails all mailboxes hold together.
    #[must_use]
    pub fn total(&self) -> usize {
        let children = fs::read_dir(&self.path).into_iter().flatten().filter_map(|entry| {
            let entry = entry.ok()?;
            entry.file_name().to_str()?.starts_with('.').then(|| entry.path())
        });
        std::iter::once(self.path.clone())
            .chain(children)
            .flat_map(|folder| ["new", "cur"].map(|part| folder.join(part)))
            .filter_map(|folder| fs::read_dir(folder).ok())
            .map(Iterator::count)
            .sum()
    }

    /// Maildir++: INBOX is the folder itself, `A/B` is `.A.B` in it.
    fn folder(&self, mailbox: &str) -> PathBuf {
        if mailbox.eq_ignore_ascii_case("INBOX") {
            return self.path.clone();
        }
        let storage = modified_utf7(mailbox).replace(self.separator, ".");
        self.path.join(format!(".{storage}"))
    }
}
