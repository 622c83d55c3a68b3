//! Tokens. As in libmemcached the longest one at a place wins, whatever is expected there, and of two equally
//! long ones the more special: `--SERVER=md5` has no host in it, `--SERVER=md55` has.

use super::options::{Known, OPTIONS};
use crate::selection::KeyHash;

#[derive(Debug, Clone, Copy)]
pub(super) enum Token<'t> {
    Space,
    Comma,
    /// Its low 32 bits: libmemcached's reading of a number, when it is long.
    Number(u32),
    /// `:11211`; as libmemcached does it, 99999 becomes 34463.
    Port(u16),
    /// `/?5`.
    Weight(u32),
    /// `#` at the start of a line, with the end of that line in sight.
    Comment,
    Option(&'static Known),
    Keyword(Keyword),
    Hash(HashName),
    Distribution(DistributionName),
    /// Four numbers with points between them.
    Address(&'t str),
    /// `[::1]`, without the brackets: ours, not libmemcached's.
    Bracketed(&'t str),
    /// At least three letters and digits, with `.`, `-`, `_` and `"` in between.
    Word(&'t str),
    /// What stands between quotes, backslashes included.
    Quoted(&'t str),
    /// Known to be nothing: an option that there is not, or a character that begins no token.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyword {
    Include,
    Reset,
    End,
    Debug,
    /// Reserved, and nothing that can be used: no word either.
    Reserved,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HashName {
    Built(KeyHash),
    /// libmemcached knows its name, and is not built with it.
    Hsieh,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DistributionName {
    Consistent,
    Modula,
    Random,
}

/// A token and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lexeme<'t> {
    pub(super) token: Token<'t>,
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Lexer<'t> {
        Lexer { text, at: 0 }
    }

    pub(super) fn next(&mut self) -> Option<Lexeme<'t>> {
        loop {
            let start = self.at;
            let rest = self.text.get(start..)?;
            let first = rest.chars().next()?;
            if matches!(first, '\t' | '\r' | '\n') {
                self.at += 1;
                continue;
            }
            let line_start =
                start.checked_sub(1).is_none_or(|before| self.text.as_bytes().get(before) == Some(&b'\n'));
            let (length, token) = longest(rest, line_start).unwrap_or((first.len_utf8(), Token::Unknown));
            self.at += length;
            return Some(Lexeme { token, start, end: self.at });
        }
    }
}

/// The longest token at the start of `rest`, the first of equally long ones.
fn longest(rest: &str, line_start: bool) -> Option<(usize, Token<'_>)> {
    let names = NAMES.iter().map(|(name, token)| (*name, *token));
    let hashes = KeyHash::NAMED.iter().map(|(name, hash)| (*name, Token::Hash(HashName::Built(*hash))));
    let options = OPTIONS.iter().map(|option| (option.name, Token::Option(option)));
    let words = options.chain(names).chain(hashes);
    let words = words.filter(|(name, _)| begins_with(rest, name)).map(|(name, token)| (name.len(), token));
    let numbers = [
        number(rest).map(|(length, number)| (length, Token::Number(number))),
        short_number(rest, ":").map(|(length, port)| (length, Token::Port(low_16(port)))),
        short_number(rest, "/?").map(|(length, weight)| (length, Token::Weight(weight))),
        comment(rest).filter(|_| line_start).map(|length| (length, Token::Comment)),
    ];
    let others = [
        unknown_option(rest).map(|length| (length, Token::Unknown)),
        address(rest).map(|length| (length, Token::Address(head(rest, length)))),
        word(rest).map(|length| (length, Token::Word(head(rest, length)))),
        quoted(rest),
        bracketed(rest),
    ];
    let tokens = punctuation(rest)
        .into_iter()
        .chain(numbers.into_iter().flatten())
        .chain(words)
        .chain(others.into_iter().flatten());
    tokens.fold(None, |best: Option<(usize, Token<'_>)>, next| match best {
        Some((longest, _)) if longest >= next.0 => best,
        _ => Some(next),
    })
}

/// Names that are no options, in any case of letters.
const NAMES: [(&str, Token<'static>); 12] = [
    ("INCLUDE", Token::Keyword(Keyword::Include)),
    ("RESET", Token::Keyword(Keyword::Reset)),
    ("END", Token::Keyword(Keyword::End)),
    ("DEBUG", Token::Keyword(Keyword::Debug)),
    ("SERVERS", Token::Keyword(Keyword::Reserved)),
    ("CSL_ERROR", Token::Keyword(Keyword::Reserved)),
    ("TRUE", Token::Keyword(Keyword::Reserved)),
    ("FALSE", Token::Keyword(Keyword::Reserved)),
    ("CONSISTENT", Token::Distribution(DistributionName::Consistent)),
    ("MODULA", Token::Distribution(DistributionName::Modula)),
    ("RANDOM", Token::Distribution(DistributionName::Random)),
    ("HSIEH", Token::Hash(HashName::Hsieh)),
];

fn head(text: &str, length: usize) -> &str {
    text.get(..length).unwrap_or_default()
}

fn begins_with(rest: &str, name: &str) -> bool {
    rest.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}

/// How many octets from the start on are so.
fn run(rest: &str, is: impl Fn(u8) -> bool) -> usize {
    rest.bytes().position(|octet| !is(octet)).unwrap_or(rest.len())
}

fn digits(rest: &str) -> usize {
    run(rest, |octet| octet.is_ascii_digit())
}

fn punctuation(rest: &str) -> Option<(usize, Token<'_>)> {
    match rest.bytes().next()? {
        b' ' => Some((1, Token::Space)),
        b',' => Some((1, Token::Comma)),
        b'=' => Some((1, Token::Unknown)),
        _ => None,
    }
}

fn number(rest: &str) -> Option<(usize, u32)> {
    let length = digits(rest);
    (length > 0).then(|| (length, low_32(head(rest, length))))
}

/// At most five digits behind a sign.
fn short_number(rest: &str, sign: &str) -> Option<(usize, u32)> {
    let rest = rest.strip_prefix(sign)?;
    let length = digits(rest).min(5);
    (length > 0).then(|| (sign.len() + length, low_32(head(rest, length))))
}

/// What C's `atoi` makes of digits where a `long` has 64 bits.
fn low_32(digits: &str) -> u32 {
    let number = digits.parse::<i64>().unwrap_or(i64::MAX);
    u32::try_from(number & i64::from(u32::MAX)).unwrap_or(u32::MAX)
}

fn low_16(number: u32) -> u16 {
    u16::try_from(number & u32::from(u16::MAX)).unwrap_or(u16::MAX)
}

fn comment(rest: &str) -> Option<usize> {
    rest.starts_with('#').then(|| rest.find('\n')).flatten()
}

fn unknown_option(rest: &str) -> Option<usize> {
    let name = rest.strip_prefix("--")?;
    Some(2 + run(name, |octet| octet.is_ascii_alphanumeric()))
}

fn address(rest: &str) -> Option<usize> {
    let mut length = 0;
    for part in 0..4 {
        let number = digits(rest.get(length..)?);
        // The last one ends where it must.
        length += match part {
            3 => number.min(3),
            _ => number,
        };
        if number == 0 || (part < 3 && number > 3) {
            return None;
        }
        if part < 3 {
            rest.get(length..)?.strip_prefix('.')?;
            length += 1;
        }
    }
    Some(length)
}

fn word(rest: &str) -> Option<usize> {
    let within = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'"' | b'_' | b'-');
    let end = rest.get(..run(rest, within))?.rfind(|last: char| last.is_ascii_alphanumeric())? + 1;
    (end > 2 && rest.starts_with(|first: char| first.is_ascii_alphanumeric())).then_some(end)
}

/// Up to the first quote that has no backslash in front. With C's `L` before it, the opening quote stays.
fn quoted(rest: &str) -> Option<(usize, Token<'_>)> {
    let prefix = usize::from(rest.starts_with(['L', 'l']));
    let body = rest.get(prefix..)?.strip_prefix('"')?;
    let mut characters = body.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => {
                let end = prefix + 1 + at;
                return Some((end + 1, Token::Quoted(rest.get(1..end)?)));
            }
            '\\' if characters.next()?.1 == '\n' => return None,
            _ => {}
        }
    }
    None
}

fn bracketed(rest: &str) -> Option<(usize, Token<'_>)> {
    let (address, _) = rest.strip_prefix('[')?.split_once(']')?;
    let plausible = address.bytes().all(|octet| octet.is_ascii_hexdigit() || matches!(octet, b':' | b'.'));
    plausible.then_some((address.len() + 2, Token::Bracketed(address)))
}
