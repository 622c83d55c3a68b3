use std::fmt;
use std::str::FromStr;

/// The name under which a user's endpoints stand in memcached: a username or an e-mail address, ASCII letters
/// in lower case, as OpenChange does it.
///
/// Checked when made, because it becomes part of a memcached key: a name with CR LF in it must not become a
/// command (in OpenChange it did).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cn(String);

/// Why a string is no cn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CnError {
    /// Nothing there.
    #[error("cn is empty: expected a username or an e-mail address")]
    Empty,
    /// Its key would be longer than memcached takes.
    #[error("cn of {0} octets: expected at most 241 (memcached's 250 less 'resolver:')")]
    TooLong(usize),
    /// A space or a control character, which memcached keys cannot have.
    #[error(
        "cn '{shown}': character {character:?} at octet {offset}: expected no spaces and no control characters"
    )]
    Character {
        /// The cn with such characters escaped.
        shown: String,
        /// The first of them.
        character: char,
        /// Where it stands.
        offset: usize,
    },
}

impl Cn {
    /// The longest cn, in octets, as observed of OpenChange: memcached's 250 less `resolver:`.
    pub const MAX_OCTETS: usize = 241;

    /// Checks a name and brings its ASCII letters to lower case.
    pub fn new(name: &str) -> Result<Cn, CnError> {
        if name.is_empty() {
            return Err(CnError::Empty);
        }
        if name.len() > Cn::MAX_OCTETS {
            return Err(CnError::TooLong(name.len()));
        }
        let bad = |c: &(usize, char)| c.1.is_whitespace() || c.1.is_control();
        if let Some((offset, character)) = name.char_indices().find(bad) {
            return Err(CnError::Character { shown: name.escape_debug().to_string(), character, offset });
        }
        Ok(Cn(name.to_ascii_lowercase()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of OpenChange's record: `resolver:<cn>`.
    pub fn resolver_key(&self) -> String {
        format!("resolver:{}", self.0)
    }

    /// The key of the record of native leases: `ocbus:<cn>`.
    pub fn lease_key(&self) -> String {
        format!("ocbus:{}", self.0)
    }

    /// Whose registration a key is. Anything may stand beside ours in a store.
    pub(crate) fn of_key(key: &str) -> Option<Cn> {
        let name = key.strip_prefix("ocbus:").or_else(|| key.strip_prefix("resolver:"))?;
        // `Bob` is nobody's name: a look-up asks for `bob`, who has a key of his own.
        Cn::new(name).ok().filter(|cn| cn.as_str() == name)
    }

    /// For the key of a record of leases, `ocbus:<cn>`, that of the same user's other one, `resolver:<cn>`, which chooses
    /// the server of both; for other keys nothing.
    pub fn resolver_key_beside(key: &str) -> Option<String> {
        key.strip_prefix("ocbus:").map(|cn| format!("resolver:{cn}"))
    }
}

impl fmt::Display for Cn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Cn {
    type Err = CnError;

    fn from_str(name: &str) -> Result<Cn, CnError> {
        Cn::new(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_letters_fall_and_others_stay() {
        assert_eq!(
            Cn::new("User.Name@Example.COM").unwrap().resolver_key(),
            "resolver:user.name@example.com"
        );
        assert_eq!(Cn::new("JÜRGEN").unwrap().lease_key(), "ocbus:jÜrgen");
    }

    #[test]
    fn nothing_that_memcached_would_read_as_a_command_gets_through() {
        assert_eq!(Cn::new(""), Err(CnError::Empty));
        for bad in ["foo bar", "x\r\nflush_all", "x\ty", "x\0", "x\u{7f}", "x\u{85}", "\u{a0}x"] {
            let error = Cn::new(bad).unwrap_err();
            assert!(matches!(error, CnError::Character { .. }), "{bad:?}");
            assert!(!error.to_string().contains(['\r', '\n', '\0']), "{error}");
        }
        assert!(Cn::new(&"c".repeat(241)).is_ok());
        assert_eq!(Cn::new(&"c".repeat(242)), Err(CnError::TooLong(242)));
    }
}
