//! Samba's "dos charset": one octet for each character, or an error. Never a substitute: a folder whose name
//! was mangled is another folder.
//!
//! The tables are those of crate `yore`, asked for one character at a time (its bulk coders stay switched
//! off with its feature `alloc`). Two things are ours:
//!
//! * `yore` follows WHATWG, which lends characters (C1 controls, and U+05BA in CP1255) to the octets that
//!   Windows leaves undefined. iconv, which Samba calls, refuses those octets and characters; so does this.
//!   With that, every table here is the one of glibc's iconv, octet for octet.
//! * CP858 (CP850 with a euro), ISO-8859-1 and ISO-8859-15, which `yore` lacks.
//!
//! Not offered: character sets with several octets for a character (CP932 and its like), and those in which
//! ASCII is not ASCII (CP864, EBCDIC). CP1255 and CP1258 are the plain tables; iconv also joins a letter
//! with the mark that follows it, and splits what only that can write.

use std::{fmt, str::FromStr};

use yore::code_pages;

/// Generates [`Page`], its names and both directions from one list, so that no page can have one without the
/// others. Octets and characters that reach the tables are never ASCII.
macro_rules! pages {
    (full: $($full:ident)*; gaps: $($gaps:ident)*; own: $($own:ident $name:literal $decode:ident $encode:ident),*;) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(clippy::upper_case_acronyms, reason = "the names of yore's types, and of the charsets")]
        enum Page { $($full,)* $($gaps,)* $($own,)* }

        impl DosCharset {
            /// Every charset there is.
            pub const ALL: &[Self] = &[$(Self(Page::$own),)* $(Self(Page::$full),)* $(Self(Page::$gaps),)*];

            /// Its usual name, the first one to write in smb.conf: `CP850`.
            pub fn name(self) -> &'static str {
                match self.0 {
                    $(Page::$full => stringify!($full),)*
                    $(Page::$gaps => stringify!($gaps),)*
                    $(Page::$own => $name,)*
                }
            }

            fn decode_upper(self, octet: u8) -> Option<char> {
                match self.0 {
                    $(Page::$full => not_lent(code_pages::$full.decode_byte(octet)),)*
                    $(Page::$gaps => code_pages::$gaps.decode_byte(octet).and_then(not_lent),)*
                    $(Page::$own => $decode(octet),)*
                }
            }

            fn encode_upper(self, character: char) -> Option<u8> {
                match self.0 {
                    $(Page::$full => not_lent(character).and_then(|c| code_pages::$full.encode_char(c)),)*
                    $(Page::$gaps => not_lent(character).and_then(|c| code_pages::$gaps.encode_char(c)),)*
                    $(Page::$own => $encode(character),)*
                }
            }
        }
    };
}

pages! {
    full: CP437 CP737 CP850 CP852 CP855 CP860 CP861 CP862 CP863 CP865 CP866
          CP1250 CP1251 CP1252 CP1254 CP1256 CP1258;
    gaps: CP857 CP869 CP874 CP1253 CP1255 CP1257;
    own: ASCII "ASCII" ascii_decode ascii_encode,
         CP858 "CP858" cp858_decode cp858_encode,
         Latin1 "ISO-8859-1" latin1_decode latin1_encode,
         Latin9 "ISO-8859-15" latin9_decode latin9_encode;
}

/// A character set of one octet for each character, as smb.conf's `dos charset` names it. The default is
/// Samba's: CP850.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DosCharset(Page);

impl Default for DosCharset {
    fn default() -> Self {
        Self(Page::CP850)
    }
}

impl DosCharset {
    /// Finds a charset by the name that smb.conf spells: `CP850`, `cp-850`, `850`, `IBM850`, `WINDOWS-1252`,
    /// `ISO-8859-1`, `ISO8859-1`, `LATIN1`, `ASCII`. Case, dashes and underscores do not count.
    ///
    /// UTF-8 is refused, as Samba refuses it ("'dos charset' must not be UTF8, using (default value) CP850
    /// instead"). Samba then goes on with CP850; whoever names UTF-8 here is told so instead.
    pub fn by_name(name: &str) -> Result<Self, CharsetNameError> {
        let wanted = plain(name);
        if matches!(wanted.as_str(), "UTF8" | "CP65001") {
            return Err(CharsetNameError::Utf8);
        }
        let wanted = match wanted.as_str() {
            "LATIN1" => "ISO88591",
            "LATIN9" => "ISO885915",
            "USASCII" => "ASCII",
            other => other,
        };
        Self::ALL
            .iter()
            .copied()
            .find(|charset| plain(charset.name()) == wanted)
            .ok_or_else(|| CharsetNameError::Unknown { name: name.to_owned() })
    }

    /// The octets of a text, one for each character, without a NUL at the end.
    pub fn encode(self, text: &str) -> Result<Vec<u8>, Unmappable> {
        text.chars()
            .enumerate()
            .map(|(position, character)| {
                self.encode_char(character).ok_or(Unmappable { character, position, charset: self.name() })
            })
            .collect()
    }

    /// The text of some octets. Octets that mean nothing in the charset are an error.
    pub fn decode(self, octets: &[u8]) -> Result<String, Undecodable> {
        octets
            .iter()
            .enumerate()
            .map(|(position, &octet)| {
                self.decode_octet(octet).ok_or(Undecodable { octet, position, charset: self.name() })
            })
            .collect()
    }

    fn encode_char(self, character: char) -> Option<u8> {
        match u8::try_from(character) {
            Ok(octet) if octet.is_ascii() => Some(octet),
            _ => self.encode_upper(character),
        }
    }

    fn decode_octet(self, octet: u8) -> Option<char> {
        if octet.is_ascii() { Some(char::from(octet)) } else { self.decode_upper(octet) }
    }
}

impl fmt::Display for DosCharset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DosCharset {
    type Err = CharsetNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::by_name(name)
    }
}

/// A name that is no dos charset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CharsetNameError {
    /// UTF-8 has several octets for a character.
    #[error("a dos charset cannot be UTF-8: Samba refuses it and uses CP850 instead, so name CP850 here too")]
    Utf8,
    /// No charset here has this name.
    #[error("dos charset {name:?} is unknown, these are known: {}", known())]
    Unknown {
        /// The name as it was given.
        name: String,
    },
}

/// A character that the charset lacks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{charset} has no {character:?} (U+{:04X}), at position {position}", u32::from(*character))]
#[non_exhaustive]
pub struct Unmappable {
    /// The character.
    pub character: char,
    /// How many characters stand before it.
    pub position: usize,
    /// The charset's name.
    pub charset: &'static str,
}

/// An octet that means nothing in the charset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("octet 0x{octet:02x} means nothing in {charset}, at position {position}")]
#[non_exhaustive]
pub struct Undecodable {
    /// The octet.
    pub octet: u8,
    /// How many octets stand before it.
    pub position: usize,
    /// The charset's name.
    pub charset: &'static str,
}

/// A name with what does not count in it taken away: upper case, no separators, `CP` for all that vendors
/// put before a code page's number.
fn plain(name: &str) -> String {
    let name: String =
        name.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_uppercase()).collect();
    let number =
        ["CP", "IBM", "WINDOWS"].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(&name);
    if !number.is_empty() && number.bytes().all(|octet| octet.is_ascii_digit()) {
        format!("CP{number}")
    } else {
        name
    }
}

fn known() -> String {
    DosCharset::ALL.iter().map(|charset| charset.name()).collect::<Vec<_>>().join(", ")
}

/// Takes away the characters that WHATWG lends to undefined octets.
fn not_lent(character: char) -> Option<char> {
    (!matches!(character, '\u{80}'..='\u{9f}' | '\u{5ba}')).then_some(character)
}

fn ascii_decode(_octet: u8) -> Option<char> {
    None
}

fn ascii_encode(_character: char) -> Option<u8> {
    None
}

/// CP858 differs from CP850 in one place: the dotless i made room for the euro.
const CP858_EURO: u8 = 0xd5;

fn cp858_decode(octet: u8) -> Option<char> {
    if octet == CP858_EURO { Some('€') } else { Some(code_pages::CP850.decode_byte(octet)) }
}

fn cp858_encode(character: char) -> Option<u8> {
    match character {
        '€' => Some(CP858_EURO),
        'ı' => None,
        other => code_pages::CP850.encode_char(other),
    }
}

fn latin1_decode(octet: u8) -> Option<char> {
    Some(char::from(octet))
}

fn latin1_encode(character: char) -> Option<u8> {
    u8::try_from(character).ok()
}

/// Where ISO-8859-15 differs from ISO-8859-1.
const LATIN9: [(u8, char); 8] =
    [(0xa4, '€'), (0xa6, 'Š'), (0xa8, 'š'), (0xb4, 'Ž'), (0xb8, 'ž'), (0xbc, 'Œ'), (0xbd, 'œ'), (0xbe, 'Ÿ')];

fn latin9_decode(octet: u8) -> Option<char> {
    LATIN9.iter().find(|(o, _)| *o == octet).map_or(latin1_decode(octet), |(_, c)| Some(*c))
}

fn latin9_encode(character: char) -> Option<u8> {
    if let Some((octet, _)) = LATIN9.iter().find(|(_, c)| *c == character) {
        return Some(*octet);
    }
    latin1_encode(character).filter(|octet| LATIN9.iter().all(|(o, _)| o != octet))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charset(name: &str) -> DosCharset {
        DosCharset::by_name(name).unwrap()
    }

    #[test]
    fn ascii_is_ascii_in_every_charset() {
        let ascii: Vec<u8> = (0..=0x7f).collect();
        let text = String::from_utf8(ascii.clone()).unwrap();
        for charset in DosCharset::ALL {
            assert_eq!(charset.encode(&text), Ok(ascii.clone()), "{charset}");
            assert_eq!(charset.decode(&ascii), Ok(text.clone()), "{charset}");
        }
    }

    /// Both directions of every table agree, over all octets and all characters of Unicode's first plane
    /// (no table has others).
    #[test]
    fn every_charset_is_a_bijection() {
        for charset in DosCharset::ALL {
            let decoded: Vec<(u8, char)> =
                (0..=u8::MAX).filter_map(|octet| Some((octet, charset.decode_octet(octet)?))).collect();
            for &(octet, character) in &decoded {
                assert_eq!(charset.encode_char(character), Some(octet), "{charset} {character:?}");
            }
            let encodable = ('\0'..='\u{ffff}').filter(|&c| charset.encode_char(c).is_some()).count();
            assert_eq!(encodable, decoded.len(), "{charset}");
        }
    }

    /// One telling octet for each page, so that no two lines of the list can be swapped.
    #[test]
    fn each_name_stands_for_its_own_table() {
        for (name, octet, character) in [
            ("CP437", 0xe0, 'α'),
            ("CP737", 0x80, 'Α'),
            ("CP850", 0xd5, 'ı'),
            ("CP852", 0x86, 'ć'),
            ("CP855", 0xe0, 'Я'),
            ("CP857", 0xa7, 'ğ'),
            ("CP858", 0xd5, '€'),
            ("CP860", 0x84, 'ã'),
            ("CP861", 0x8c, 'ð'),
            ("CP862", 0x80, 'א'),
            ("CP863", 0x84, 'Â'),
            ("CP865", 0xaf, '¤'),
            ("CP866", 0x9f, 'Я'),
            ("CP869", 0xa4, 'Α'),
            ("CP874", 0xa1, 'ก'),
            ("CP1250", 0xe6, 'ć'),
            ("CP1251", 0xdf, 'Я'),
            ("CP1252", 0x80, '€'),
            ("CP1253", 0xe1, 'α'),
            ("CP1254", 0xf0, 'ğ'),
            ("CP1255", 0xe0, 'א'),
            ("CP1256", 0xc7, 'ا'),
            ("CP1257", 0xe0, 'ą'),
            ("CP1258", 0xfe, '₫'),
            ("ISO-8859-1", 0xa4, '¤'),
            ("ISO-8859-15", 0xa4, '€'),
        ] {
            assert_eq!(charset(name).decode(&[octet]), Ok(character.to_string()), "{name}");
        }
    }

    #[test]
    fn the_default_is_cp850() {
        assert_eq!(DosCharset::default().name(), "CP850");
        assert_eq!(DosCharset::default().encode("Entwürfe").unwrap(), b"Entw\x81rfe");
    }

    #[test]
    fn names_in_the_spellings_of_smb_conf() {
        for name in ["CP850", "cp850", "CP-850", "850", "IBM850", "ibm-850", "IBM_850"] {
            assert_eq!(charset(name).name(), "CP850", "{name}");
        }
        for (name, known) in [
            ("ASCII", "ASCII"),
            ("us-ascii", "ASCII"),
            ("WINDOWS-1252", "CP1252"),
            ("windows1252", "CP1252"),
            ("iso8859-1", "ISO-8859-1"),
            ("ISO_8859-1", "ISO-8859-1"),
            ("LATIN1", "ISO-8859-1"),
            ("iso-8859-15", "ISO-8859-15"),
        ] {
            assert_eq!(charset(name).name(), known, "{name}");
        }
        for charset in DosCharset::ALL {
            assert_eq!(charset.name().parse(), Ok(*charset));
        }
    }

    #[test]
    fn utf8_is_refused_and_cp850_named() {
        for name in ["UTF-8", "utf8", "UTF_8"] {
            let error = DosCharset::by_name(name).unwrap_err();
            assert_eq!(error, CharsetNameError::Utf8);
            assert!(error.to_string().contains("CP850"), "{error}");
        }
    }

    #[test]
    fn unknown_names_are_quoted_and_the_known_ones_listed() {
        for name in ["", "CP", "CP932", "CP864", "KOI\n"] {
            let error = DosCharset::by_name(name).unwrap_err().to_string();
            assert!(error.contains(&format!("{name:?}")) && error.contains("CP850"), "{error}");
        }
    }

    #[test]
    fn what_a_charset_lacks_is_named_with_its_position() {
        let error = DosCharset::default().encode("5€").unwrap_err();
        assert_eq!((error.character, error.position), ('€', 1));
        assert_eq!(error.to_string(), "CP850 has no '€' (U+20AC), at position 1");
        // Decomposed letters are two characters, and a mark alone has no octet.
        let error = DosCharset::default().encode("Entwu\u{308}rfe").unwrap_err();
        assert_eq!(error.to_string(), "CP850 has no '\\u{308}' (U+0308), at position 5");
    }

    #[test]
    fn octets_without_a_meaning_are_refused() {
        let error = charset("CP1252").decode(b"ab\x81").unwrap_err();
        assert_eq!(error.to_string(), "octet 0x81 means nothing in CP1252, at position 2");
        assert!(charset("CP1252").encode("\u{81}").is_err(), "lent by WHATWG");
        assert!(charset("CP1255").decode(b"\xca").is_err(), "lent by WHATWG");
        assert!(charset("ASCII").decode(b"\x80").is_err());
        assert!(charset("ASCII").encode("ü").is_err());
        assert!(charset("CP858").encode("ı").is_err());
        assert!(charset("ISO-8859-15").encode("¤").is_err());
    }
}
