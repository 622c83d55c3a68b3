//! Headers as Dovecot takes them from a mail: encoded words, folds, anything.

use mail_parser::HeaderValue;
use mail_parser::parsers::MessageStream;

/// The most octets that are kept of a header.
const MAX_HEADER_OCTETS: usize = 4096;

/// The text that a header shows: on one line, its encoded words (RFC 2047) decoded. What cannot be decoded stays
/// as it is.
pub(super) fn shown(raw: &str) -> String {
    let line = unfolded(raw);
    let text = match line.contains("=?") {
        true => decoded(&line).unwrap_or(line),
        false => line,
    };
    let mut text = text.replace(char::is_control, " ");
    if text.len() > MAX_HEADER_OCTETS {
        let last = (0..=MAX_HEADER_OCTETS).rev().find(|&at| text.is_char_boundary(at));
        text.truncate(last.unwrap_or_default());
    }
    text
}

/// Line ends before a space or a tab are folds, which mean nothing; others stand for a space.
fn unfolded(raw: &str) -> String {
    let mut line = String::with_capacity(raw.len());
    let mut characters = raw.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek()) {
            ('\r' | '\n', Some('\r' | '\n' | ' ' | '\t') | None) => {}
            ('\r' | '\n', Some(_)) => line.push(' '),
            _ => line.push(character),
        }
    }
    line
}

fn decoded(line: &str) -> Option<String> {
    // The parser wants the header's end.
    let octets = [line.as_bytes(), b"\n"].concat();
    match MessageStream::new(&octets).parse_unstructured() {
        HeaderValue::Text(text) => Some(text.into_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn headers_as_people_read_them() {
        for (raw, expected) in [
            ("", ""),
            ("hello", "hello"),
            ("two  spaces", "two  spaces"),
            ("=?UTF-8?B?Wm/DqyDDnG7Dr2NvZGU=?= <zoe@example.org>", "Zoë Ünïcode <zoe@example.org>"),
            (
                "=?UTF-8?Q?Gr=C3=BC=C3=9Fe_=E2=82=AC_=F0=9F=98=80_\"quoted\"_back\\slash?=",
                "Grüße € 😀 \"quoted\" back\\slash",
            ),
            ("=?ISO-2022-JP?B?GyRCRnxLXBsoQg==?=", "日本"),
            ("=?windows-1252?q?=80?= and =?iso-8859-1*de?q?=FC?=", "€ and ü"),
            // Between encoded words white space means nothing (RFC 2047, 6.2).
            ("=?utf-8?q?a?=\n =?utf-8?q?b?=", "ab"),
            ("word000 x\n word001 x\n\tword002", "word000 x word001 x word002"),
            ("a\r\nb", "a b"),
            ("raw latin1 \u{fffd}\u{fffd} and ctl \u{1} here", "raw latin1 \u{fffd}\u{fffd} and ctl   here"),
            ("=?utf-8?q?a=0Ab=00c?=", "a b c"),
            // Not encoded words.
            ("=?", "=?"),
            ("1 =? 2 ?= 3", "1 =? 2 ?= 3"),
            ("=?utf-8?x?abc?=", "=?utf-8?x?abc?="),
            ("=?utf-8?b?", "=?utf-8?b?"),
        ] {
            assert_eq!(shown(raw), expected, "{raw:?}");
        }
    }

    #[test]
    fn a_long_header_is_cut_between_characters() {
        let long = "é".repeat(5000);
        assert_eq!(shown(&long).len(), 4096);
        assert_eq!(shown(&format!("a{long}")).len(), 4095);
    }
}
