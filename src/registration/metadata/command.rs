//! The text of the commands. Everything is quoted; what cannot be is refused before it is sent.

/// The longest text in quotes: Dovecot reads command lines of 64 KiB, others less.
const MAX_QUOTED: usize = 1024;

/// A text that cannot stand in a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{shown}': expected ASCII without control characters, at most {MAX_QUOTED} octets")]
pub struct Unquotable {
    /// Its beginning, escaped.
    shown: String,
}

/// A text in IMAP's quotes (RFC 3501, `quoted`).
fn quoted(text: &str) -> Result<String, Unquotable> {
    let fits = text.len() <= MAX_QUOTED && text.bytes().all(|octet| matches!(octet, b' '..=b'~'));
    match fits {
        true => Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))),
        false => {
            Err(Unquotable { shown: text.chars().take(40).collect::<String>().escape_debug().to_string() })
        }
    }
}

/// Asks for a key of the server's metadata, unless its value is longer than one of ours can be: the user may have put
/// anything there, and the server then says how long it is instead.
pub(super) fn get(key: &str) -> String {
    format!("GETMETADATA (MAXSIZE {MAX_QUOTED}) \"\" ({key})")
}

/// Sets a key of the server's metadata.
pub(super) fn set(key: &str, value: &str) -> Result<String, Unquotable> {
    Ok(format!("SETMETADATA \"\" ({key} {})", quoted(value)?))
}

/// Takes it away.
pub(super) fn unset(key: &str) -> String {
    format!("SETMETADATA \"\" ({key} NIL)")
}

/// Whether a name can be logged in with: async-imap quotes it, and refuses line ends; the rest is up to us.
pub(super) fn check_login(name: &str) -> Result<(), Unquotable> {
    quoted(name).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::super::super::KEY;
    use super::*;

    #[test]
    fn commands_are_those_of_rfc_5464() {
        assert_eq!(
            set(KEY, "user=bob").unwrap(),
            r#"SETMETADATA "" (/private/vendor/vendor.dovecot/http-notify "user=bob")"#
        );
        assert_eq!(get("/k"), r#"GETMETADATA (MAXSIZE 1024) "" (/k)"#);
        assert_eq!(unset(KEY), r#"SETMETADATA "" (/private/vendor/vendor.dovecot/http-notify NIL)"#);
    }

    #[test]
    fn nothing_gets_out_of_its_quotes() {
        assert_eq!(set("/k", r#"a"b\c"#).unwrap(), r#"SETMETADATA "" (/k "a\"b\\c")"#);
        for bad in ["a\r\nA2 DELETE INBOX", "\0", "é", "\u{7f}", &"x".repeat(MAX_QUOTED + 1)] {
            let error = set("/k", bad).unwrap_err().to_string();
            assert!(!error.contains(['\r', '\n', '\0']), "{error}");
            assert!(check_login(bad).is_err());
        }
    }
}
