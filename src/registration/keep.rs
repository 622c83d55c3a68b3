//! Who is registered, kept in a file over restarts: one line for each user, `permanent bob`, `session bob` or `barred bob`
//! (unregistered by hand, until its session ends). Behind the name stands since when it is registered, in microseconds since
//! the Unix epoch, if it is: `session bob 1763800000000000`.
//!
//! It is written anew as a whole and put in place by a rename. Losing it costs who was registered by hand, and that users
//! whose sessions end meanwhile stay set at Dovecot. So one that cannot be read is never written.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use ocbus_resolver::Cn;

use super::core::Why;

/// The longest file that is read.
const MAX_OCTETS: u64 = 512 << 20;

/// A user, why, and since when.
pub(super) type Line = (Cn, Why, Option<u64>);

/// What a file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) users: Vec<Line>,
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

fn user(line: &[u8]) -> Option<Line> {
    let mut words = std::str::from_utf8(line).ok()?.trim_end_matches('\r').split(' ');
    let (kind, name, since) = (words.next()?, words.next()?, words.next());
    let why = WORDS.iter().find(|(_, word)| *word == kind).map(|(why, _)| *why)?;
    let since = since.map(str::parse).transpose().ok()?;
    words.next().is_none().then_some((Cn::new(name).ok()?, why, since))
}

const WORDS: [(Why, &str); 3] = [(Why::Added, "permanent"), (Why::Barred, "barred"), (Why::Set, "session")];

/// Writes it.
pub(super) fn write(path: &Path, users: &[Line]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    let mut text = String::from("# Written by ocbus serve: who is registered with Dovecot.\n");
    for (cn, why, since) in users {
        let word = WORDS.iter().find(|(other, _)| other == why).map_or("session", |(_, word)| *word);
        text.push_str(word);
        text.push(' ');
        text.push_str(cn.as_str());
        if let Some(since) = since {
            text.push(' ');
            text.push_str(&since.to_string());
        }
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
        let users = vec![
            (Cn::new("bob").unwrap(), Why::Added, Some(1_763_800_000_000_000)),
            (Cn::new("ann").unwrap(), Why::Barred, None),
            (Cn::new("eve@example.org").unwrap(), Why::Set, Some(0)),
        ];
        write(&path, &users).unwrap();
        assert_eq!(read(&path).unwrap(), Kept { users, odd: 0 });
        // One octet that is no UTF-8 costs its line and no other.
        fs::write(
            &path,
            b"permanent\nnonsense bob\npermanent two words\nbarred bob 1 2\npermanent b\xffb\n\nsession ann",
        )
        .unwrap();
        let users = vec![(Cn::new("ann").unwrap(), Why::Set, None)];
        assert_eq!(read(&path).unwrap(), Kept { users, odd: 5 });
        assert!(read(folder.path()).is_err(), "a folder");
    }
}
