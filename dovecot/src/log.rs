//! Lines for Dovecot's log. Texts from outside become one line of bounded length here.

/// How urgent a line is; the numbers are the shim's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum Level {
    /// Only with `mail_debug`.
    Debug = 0,
    /// Good to know.
    Info = 1,
    /// Somebody should look.
    Warning = 2,
}

/// The longest line, in octets.
const MAX_LINE: usize = 1500;

/// The longest name (of a user, of a mailbox) in a line, in characters.
const MAX_NAME: usize = 100;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// How urgent.
    pub level: Level,
    /// The text, `openchange: ` included.
    pub text: String,
}

impl Line {
    /// A line for Dovecot's log: with its prefix, without control characters, not too long.
    pub fn new(level: Level, text: impl AsRef<str>) -> Line {
        let mut line = String::from("openchange: ");
        for character in text.as_ref().chars() {
            if line.len() >= MAX_LINE {
                line.push_str("...");
                break;
            }
            match character.is_control() {
                true => line.extend(character.escape_default()),
                false => line.push(character),
            }
        }
        Line { level, text: line }
    }

    /// A warning.
    pub fn warning(text: impl AsRef<str>) -> Line {
        Line::new(Level::Warning, text)
    }
}

/// A name as a line shows it: control characters escaped, cut when it is very long.
pub fn name(name: &str) -> String {
    let mut shown: String = name.chars().take(MAX_NAME).flat_map(char::escape_debug).collect();
    if name.chars().nth(MAX_NAME).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_comes_in_is_one_bounded_line() {
        let line = Line::warning("a\r\nb\0c ü");
        assert_eq!(line.text, "openchange: a\\r\\nb\\u{0}c ü");
        assert!(Line::warning("ü".repeat(5000)).text.len() < MAX_LINE + 10);
        assert_eq!(name("bob"), "bob");
        assert_eq!(name("x\r\ny"), "x\\r\\ny");
        assert_eq!(name(&"x".repeat(300)).len(), MAX_NAME + 3);
    }
}
