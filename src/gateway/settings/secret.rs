//! Passwords and tokens: where they come from, and a type that does not print them.

use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The longest password or token, in octets.
const MAX_OCTETS: u64 = 4096;

/// A password or token. It is never printed: its `Debug` shows nothing, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl<'de> Deserialize<'de> for Secret {
    /// A value of another type must not be told either: serde's own message would have it.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        match toml::Value::deserialize(deserializer) {
            Ok(toml::Value::String(text)) => Ok(Secret(text)),
            _ => Err(serde::de::Error::custom("expected a text in quotes")),
        }
    }
}

impl Secret {
    /// Keeps a text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text, for comparing or sending. Not for a log.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Where a secret stands: in the settings, in a file of its own, or in the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In the settings themselves (`password = "..."`).
    Plain(Secret),
    /// The first line of a file (`password_file = "..."`).
    File(PathBuf),
    /// A variable of the environment (`password_env = "..."`).
    Environment(String),
}

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The file cannot be read.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is no text, or too long.
    #[error("{}: expected one line of UTF-8 text, at most {MAX_OCTETS} octets", .0.display())]
    Text(PathBuf),
    /// There is no such variable.
    #[error("environment variable {0}: not set, or not UTF-8")]
    Environment(String),
    /// It is empty: everybody would have it.
    #[error("the secret is empty: expected at least one character")]
    Empty,
}

impl SecretSource {
    /// The one of three keys that is given; `None` when none is. An error names what is wrong.
    pub(crate) fn one_of(
        key: &str,
        plain: Option<Secret>,
        file: Option<PathBuf>,
        env: Option<String>,
    ) -> Result<Option<SecretSource>, String> {
        match (plain, file, env) {
            (None, None, None) => Ok(None),
            (Some(secret), None, None) => Ok(Some(SecretSource::Plain(secret))),
            (None, Some(path), None) => Ok(Some(SecretSource::File(path))),
            (None, None, Some(name)) => Ok(Some(SecretSource::Environment(name))),
            _ => Err(format!("expected one of {key}, {key}_file and {key}_env, not several")),
        }
    }

    /// Where a file of it is: as named, or for a relative name in systemd's `$CREDENTIALS_DIRECTORY` if it is
    /// there, else beside the settings.
    fn path(path: &Path, beside: &Path) -> PathBuf {
        if path.is_absolute() {
            return path.to_path_buf();
        }
        let credentials =
            std::env::var_os("CREDENTIALS_DIRECTORY").map(|folder| Path::new(&folder).join(path));
        credentials.filter(|path| path.is_file()).unwrap_or_else(|| beside.join(path))
    }

    /// The secret itself. `beside` is the folder of the settings. Warnings go to `warnings`.
    pub fn read(&self, beside: &Path, warnings: &mut Vec<String>) -> Result<Secret, SecretError> {
        let text = match self {
            SecretSource::Plain(secret) => secret.0.clone(),
            SecretSource::Environment(name) => {
                std::env::var(name).map_err(|_| SecretError::Environment(name.clone()))?
            }
            SecretSource::File(path) => {
                let path = Self::path(path, beside);
                warnings.extend(readable_by_others(&path));
                let of_file = |source| SecretError::File { path: path.clone(), source };
                let mut octets = Vec::new();
                let file = std::fs::File::open(&path).map_err(of_file)?;
                file.take(MAX_OCTETS + 1).read_to_end(&mut octets).map_err(of_file)?;
                let text = String::from_utf8(octets).map_err(|_| SecretError::Text(path.clone()))?;
                let line = text.strip_suffix('\n').unwrap_or(&text);
                let line = line.strip_suffix('\r').unwrap_or(line);
                if line.contains('\n') || line.len() as u64 > MAX_OCTETS {
                    return Err(SecretError::Text(path));
                }
                line.to_owned()
            }
        };
        match text.is_empty() {
            true => Err(SecretError::Empty),
            false => Ok(Secret(text)),
        }
    }

    /// Where it comes from, to be told.
    pub fn place(&self) -> String {
        match self {
            SecretSource::Plain(_) => "in the settings".to_owned(),
            SecretSource::File(path) => format!("from {}", path.display()),
            SecretSource::Environment(name) => format!("from the environment's {name}"),
        }
    }
}

/// A warning when everybody on this host may read a file that holds a secret.
pub(crate) fn readable_by_others(path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.mode();
    (mode & 0o004 != 0).then(|| {
        format!(
            "{}: mode {:04o}: everybody may read the secret in it: chmod o-r",
            path.display(),
            mode & 0o7777
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_secret_prints_nothing() {
        assert_eq!(format!("{:?}", SecretSource::Plain(Secret::new("geheim"))), "Plain((secret))");
    }

    #[test]
    fn a_file_gives_its_one_line_and_a_warning_when_everybody_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let source = SecretSource::File("token".into());
        let mut warnings = Vec::new();
        let mut read = |octets: &[u8], mode: u32| {
            std::fs::write(&path, octets).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            warnings.clear();
            let secret = source.read(folder.path(), &mut warnings);
            (secret.map(|secret| secret.0).map_err(|error| error.to_string()), warnings.clone())
        };
        assert_eq!(read(b"geheim\n", 0o640), (Ok("geheim".to_owned()), vec![]));
        assert_eq!(read(b"geheim\r\n", 0o640).0, Ok("geheim".to_owned()));
        let (_, told) = read(b"geheim", 0o644);
        assert!(told[0].contains("0644") && !told[0].contains("geheim"), "{told:?}");
        assert!(read(b"\n", 0o600).0.unwrap_err().contains("empty"));
        assert!(read(b"two\nlines\n", 0o600).0.unwrap_err().contains("one line"));
        assert!(read(b"\xff", 0o600).0.unwrap_err().contains("UTF-8"));
        assert!(read(&[b'x'; 5000], 0o600).0.unwrap_err().contains("4096"));
    }
}
