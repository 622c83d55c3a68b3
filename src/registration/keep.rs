//! Who is registered, kept in a file over restarts: one line for each user, `permanent bob` or `session bob`.
//!
//! It is written anew as a whole and put in place by a rename. Losing it costs who was registered by hand, and that users
//! whose sessions end meanwhile stay set at Dovecot. So one that cannot be read is never written.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use ocbus_resolver::Cn;

/// The longest file that is read.
const MAX_OCTETS: u64 = 256 << 20;

/// What a file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// Each with whether it was by hand.
    pub(super) users: Vec<(Cn, bool)>,
    /// Lines that say nothing to us.
    pub(super) odd: usize,
}

/// Reads a file; none is nobody. Lines that say nothing to us, or are no UTF-8, are passed over.
pub(super) fn read(path: &Path) -> io::Result<Kept> {
    let mut octets = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_OCTETS + 1).read_to_end(&mut octets)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
        Err(error) => return Err(error),
    };
    if octets.len() as u64 > MAX_OCTETS {
        return Err(io::Error::other(format!("expected at most {MAX_OCTETS} octets")));
    }
    let mut kept = Kept::default();
    for line in
        octets.split(|octet| *octet == b'\n').filter(|line| !line.is_empty() && !line.starts_with(b"#"))
    {
        match user(line) {
            Some(user) => kept.users.push(user),
            None => kept.odd += 1,
        }
    }
    Ok(kept)
}

fn user(line: &[u8]) -> Option<(Cn, bool)> {
    let (kind, name) = std::str::from_utf8(line).ok()?.trim_end_matches('\r').split_once(' ')?;
    let by_hand = match kind {
        "permanent" => true,
        "session" => false,
        _ => return None,
    };
    Some((Cn::new(name).ok()?, by_hand))
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
        assert_eq!(read(&path).unwrap(), Kept::default());
        let users = vec![(Cn::new("bob").unwrap(), true), (Cn::new("eve@example.org").unwrap(), false)];
        write(&path, &users).unwrap();
        assert_eq!(read(&path).unwrap(), Kept { users, odd: 0 });
        // One octet that is no UTF-8 costs its line and no other.
        fs::write(&path, b"permanent\nnonsense bob\npermanent two words\npermanent b\xffb\n\nsession ann")
            .unwrap();
        assert_eq!(read(&path).unwrap(), Kept { users: vec![(Cn::new("ann").unwrap(), false)], odd: 4 });
        assert!(read(folder.path()).is_err(), "a folder");
    }
}
