//! The log's lines and the tables of them in docs/operations.md are the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../../docs/operations.md");

/// Parts of docs/operations.md with a table of lines: from where to where.
const DAEMON: (&str, &str) = ("\nWhat the daemon's log says:", "\nLines about refusals");
const REGISTRAR: (&str, &str) = ("\n## Registering users with Dovecot", "\n## ");
const PROGRAM: (&str, &str) = ("\n## What a subscriber's log says", "\n## ");

/// The tables that have to have the lines of a file. `None`: they are in no log that is kept.
fn tables(file: &str) -> Option<&'static [(&'static str, &'static str)]> {
    let of = |rooms: &[&str]| rooms.iter().any(|room| file.starts_with(room));
    if of(&["src/gateway/", "src/outbox/", "src/handover/", "src/command/serve.rs"]) {
        Some(&[DAEMON])
    } else if of(&["src/registration/"]) {
        Some(&[REGISTRAR])
    } else if of(&[
        "src/subscriber/",
        "src/emsmdb/",
        "src/bus/",
        "src/publisher/",
        "src/sockets/nng_server.rs",
    ]) || of(&["resolver/src/sessions/"])
    {
        Some(&[PROGRAM])
    } else if of(&["src/command/", "src/sandbox/"]) {
        None
    } else {
        // Rooms that the daemon and other programs share.
        Some(&[DAEMON, PROGRAM])
    }
}

fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut files, mut folders) = (Vec::new(), vec![root.join("src"), root.join("resolver/src")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                None => folders.push(path),
                Some(extension) if extension == "rs" => files.push(path),
                Some(_) => {}
            }
        }
    }
    files
}

/// The names of a text's lines, but for those that only `debug` shows.
fn lines_of(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for (at, found) in text.match_indices("event = \"") {
        let name = text[at + found.len()..].split('"').next().unwrap();
        let call = &text[..at];
        let level = ["error!(", "warn!(", "info!(", "debug!(", "trace!("]
            .into_iter()
            .filter_map(|level| Some((call.rfind(level)?, level)))
            .max();
        // Elsewhere it is no line: a field of something else.
        if level.is_some_and(|(_, level)| !["debug!(", "trace!("].contains(&level)) {
            names.push(name);
        }
    }
    names
}

/// The names in the first column of a part's tables.
fn told((from, to): (&str, &str)) -> BTreeSet<&'static str> {
    let start =
        PAGE.find(from).unwrap_or_else(|| panic!("{from:?} is not in docs/operations.md")) + from.len();
    let part = PAGE[start..].split(to).next().unwrap();
    let cells = part.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let names = cells.flat_map(|cell| cell.split("`, `")).map(|name| name.trim_end_matches('`'));
    names.filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')).collect()
}

#[test]
fn each_line_of_the_log_is_told_and_what_is_told_is_a_line() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut untold, mut everything) = (BTreeMap::new(), String::new());
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        let file = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if let Some(tables) = tables(&file) {
            for name in lines_of(&text) {
                let missing: Vec<&str> = tables
                    .iter()
                    .filter(|table| !told(**table).contains(name))
                    .map(|table| table.0.trim())
                    .collect();
                if !missing.is_empty() {
                    untold.insert((name.to_owned(), file.clone()), missing.join("\" and \""));
                }
            }
        }
        everything.push_str(&text);
    }
    let untold: Vec<String> =
        untold.iter().map(|((name, file), table)| format!("`{name}` of {file}: in \"{table}\"")).collect();
    assert!(
        untold.is_empty(),
        "docs/operations.md does not tell of these lines of the log. Add a row to the table (what the line means, and \
         what to do), or make the line debug:\n{}",
        untold.join("\n")
    );
    let gone: Vec<&str> = [DAEMON, REGISTRAR, PROGRAM]
        .into_iter()
        .flat_map(told)
        .filter(|name| !everything.contains(&format!("\"{name}\"")))
        .collect();
    assert!(
        gone.is_empty(),
        "docs/operations.md tells of lines that nothing writes. Take them out: {gone:?}"
    );
}
