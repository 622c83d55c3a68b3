//! Who is registered, kept in a file over restarts: one line for each user, `permanent bob` or `session bob`.
//!
//! It is written anew as a whole and put in place by a rename. Losing it costs little: who was registered by hand is
//! not any more, and users whose sessions end meanwhile stay set at Dovecot.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use ocbus_resolver::Cn;

/// The longest file that is read.
const MAX_OCTETS: u64 = 256 << 20;

/// Reads a file; none is nobody. Lines that say nothing to us are passed over.
pub(super) fn read(path: &Path) -> io::Result<Vec<(Cn, bool)>> {
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_OCTETS).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let user = |line: &str| {
        let (kind, name) = line.split_once(' ')?;
        let by_hand = match kind {
            "permanent" => true,
            "session" => false,
            _ => return None,
        };
        Some((Cn::new(name).ok()?, by_hand))
    };
    Ok(text.lines().filter_map(user).collect())
}

/// Writes it.
pub(super) fn write(path: &Path, users: &[(Cn, bool)]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    let mut text = String::from("# Written by ocbus serve: who is registered with Dovecot.\n");
    for (cn, by_hand) in users {
        text.push_str(if *by_hand { "permanent " } else { "session " });
        text.push_str(cn.as_str());
        text.push('\n');
    }
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_odd_lines_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/users");
        assert!(read(&path).unwrap().is_empty());
        let users = [(Cn::new("bob").unwrap(), true), (Cn::new("eve@example.org").unwrap(), false)];
        write(&path, &users).unwrap();
        assert_eq!(read(&path).unwrap(), users);
        fs::write(&path, "permanent\nnonsense bob\npermanent two words\nsession ann").unwrap();
        assert_eq!(read(&path).unwrap(), [(Cn::new("ann").unwrap(), false)]);
    }
}
