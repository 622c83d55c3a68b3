use std::path::PathBuf;

/// Why settings are not taken. One line each: the file, the line, the key, the value and what would be right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("settings {}: {source}: expected a file in TOML (--config)", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is longer than any settings are.
    #[error("{}: {octets} octets: expected at most {max}", .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        octets: u64,
        /// The longest that is read.
        max: u64,
    },
    /// It is not TOML, or a key or a value is wrong.
    #[error("{}:{line}: {}{reason}", .path.display(), prefix(.key))]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The key with its sections, as `http.listen`; empty when the text is no TOML.
        key: String,
        /// The value and what would be right.
        reason: String,
    },
    /// A value is right by itself, and not with the others, or what it names cannot be had.
    #[error("{}: {key}: {reason}", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The key with its sections.
        key: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
}

impl SettingsError {
    /// The same, of settings of which these keep their former values until a restart.
    pub(in crate::gateway) fn with_kept(mut self, keys: &[&str]) -> SettingsError {
        if let SettingsError::Unusable { reason, .. } = &mut self {
            *reason = format!("{reason}; until a restart {} cannot change", keys.join(", "));
        }
        self
    }
}

fn prefix(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("{key}: ") }
}
