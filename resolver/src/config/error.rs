use std::fmt;

use super::options;

/// The most of an option that an error shows.
const SHOWN: usize = 100;

/// Why a string is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Nothing there.
    #[error("resolver configuration is empty: expected an option, as --SERVER=host:port")]
    Empty,
    /// libmemcached would refuse it for one of its options.
    #[error("resolver configuration: option '{option}' {place}: {wrong}: expected {expected}")]
    Option {
        /// The option as it stands there, with control characters escaped.
        option: String,
        /// Where.
        place: Place,
        /// What is wrong.
        wrong: String,
        /// What would be right.
        expected: String,
    },
    /// Nothing is wrong, but no server is named.
    #[error("resolver configuration names no server: expected --SERVER=host:port or --SOCKET=\"/path\"")]
    NoServer,
}

/// A place in a configuration string, or in a file that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// The file and its line, counted from 1. Boxed: errors are moved about, and seldom of a file.
    pub file: Option<Box<(String, usize)>>,
    /// The octet of the string or the line, counted from 0.
    pub octet: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at octet {}", self.octet)?;
        match self.file.as_deref() {
            Some((file, line)) => write!(f, " of line {line} of '{}'", shown(file)),
            None => Ok(()),
        }
    }
}

/// An option and where it stands, for errors about it.
#[derive(Debug)]
pub(super) struct At {
    pub(super) option: String,
    pub(super) place: Place,
}

impl At {
    pub(super) fn wrong(&self, wrong: &str, expected: &str) -> ConfigError {
        ConfigError::Option {
            option: self.option.clone(),
            place: self.place.clone(),
            wrong: wrong.to_owned(),
            expected: expected.to_owned(),
        }
    }
}

/// Text from outside, for a line of ours.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default().escape_debug()),
        None => text.escape_debug().to_string(),
    }
}

/// The option that begins at an octet, up to the space behind it.
pub(super) fn option_at(text: &str, octet: usize) -> &str {
    let rest = text.get(octet..).unwrap_or_default();
    let mut quoted = false;
    let end = rest.find(|character| {
        quoted ^= character == '"';
        character == ' ' && !quoted
    });
    // INCLUDE's file stands behind a space.
    let end = match end {
        Some(end) if rest.get(..end).is_some_and(|word| word.eq_ignore_ascii_case("INCLUDE")) => {
            rest.get(end + 1..).and_then(|file| file.find(' ')).map(|more| end + 1 + more)
        }
        end => end,
    };
    end.map_or(rest, |end| rest.get(..end).unwrap_or(rest))
}

/// What somebody who wrote this where an option belongs may have meant.
pub(super) fn meant(found: &str) -> String {
    let name = found.trim_start_matches('-');
    let end = name.find(['=', ':', '"']).unwrap_or(name.len());
    let name = name.get(..end).unwrap_or(name).to_ascii_uppercase().replace('_', "-");
    let name = match name.as_str() {
        "AUTO-EJECT-HOSTS" => "REMOVE-FAILED-SERVERS",
        "HASH-WITH-PREFIX-KEY" => "HASH-WITH-NAMESPACE",
        "PREFIX-KEY" => "NAMESPACE",
        "SERVERS" => "SERVER",
        "KETAMA" => "DISTRIBUTION",
        other => other,
    };
    match options::OPTIONS.iter().find(|option| option.bare_name() == name) {
        Some(option) => option.syntax(),
        None if ["RESET", "END"].contains(&name) => name.to_owned(),
        None if name == "INCLUDE" => "INCLUDE \"/path\"".to_owned(),
        None => "an option of libmemcached's, as --SERVER=host:port".to_owned(),
    }
}
