//! Modified UTF-7 (RFC 3501, 5.1.3): how IMAP servers write mailbox names in ASCII. Dovecot keeps mailboxes
//! under such names, and OpenChange's plugin sends them as they stand.
//!
//! Printable ASCII stands for itself, `&` is `&-`, and everything else is UTF-16BE in base64 (`,` for `/`, no
//! padding) between `&` and `-`: `Entw&APw-rfe`.

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

/// The modified UTF-7 of a name.
pub fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(character) = rest.chars().next() {
        let length = if is_direct(character) { character.len_utf8() } else { shifted_length(rest) };
        let (run, after) = rest.split_at(length);
        rest = after;
        match character {
            '&' => out.push_str("&-"),
            _ if is_direct(character) => out.push_str(run),
            _ => {
                out.push('&');
                encode_base64(run, &mut out);
                out.push('-');
            }
        }
    }
    out
}

/// The name that is written so, or `None` if this is not modified UTF-7, or not the one way to write it that
/// [`encode`] gives: RFC 3501 allows no other, and two spellings of one folder would be two folders.
pub fn decode(written: &str) -> Option<String> {
    let mut name = String::with_capacity(written.len());
    let mut rest = written;
    while let Some((direct, shifted)) = rest.split_once('&') {
        name.push_str(direct);
        let (base64, after) = shifted.split_once('-')?;
        if base64.is_empty() {
            name.push('&')
        } else {
            decode_base64(base64, &mut name)?
        }
        rest = after;
    }
    name.push_str(rest);
    // Raw UTF-8, control characters, shifts without need and stray bits all end here.
    (encode(&name) == written).then_some(name)
}

/// Whether a character stands for itself (`&` too, though it is doubled).
fn is_direct(character: char) -> bool {
    matches!(character, ' '..='~')
}

/// How many octets of the text, from its start, stand in one shift.
fn shifted_length(text: &str) -> usize {
    text.find(is_direct).unwrap_or(text.len())
}

fn encode_base64(text: &str, out: &mut String) {
    let mut bits = 0_u32;
    let mut pending = 0;
    for unit in text.encode_utf16() {
        bits = (bits << 16) | u32::from(unit);
        pending += 16;
        while pending >= 6 {
            pending -= 6;
            push_sextet(bits >> pending, out);
        }
    }
    if pending > 0 {
        push_sextet(bits << (6 - pending), out);
    }
}

fn push_sextet(bits: u32, out: &mut String) {
    let digit = usize::try_from(bits & 0x3f).ok().and_then(|index| BASE64.get(index));
    out.extend(digit.copied().map(char::from));
}

fn decode_base64(base64: &str, out: &mut String) -> Option<()> {
    let mut units = Vec::with_capacity(base64.len() / 2);
    let mut bits = 0_u32;
    let mut pending = 0;
    for digit in base64.bytes() {
        let sextet = BASE64.iter().position(|known| *known == digit)?;
        bits = (bits << 6) | u32::try_from(sextet).ok()?;
        pending += 6;
        if pending >= 16 {
            pending -= 16;
            units.push(u16::try_from((bits >> pending) & 0xffff).ok()?);
        }
    }
    for character in char::decode_utf16(units) {
        out.push(character.ok()?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_pairs() {
        for (name, written) in [
            ("", ""),
            ("INBOX", "INBOX"),
            ("INBOX/Sent Items", "INBOX/Sent Items"),
            ("Entwürfe", "Entw&APw-rfe"),
            ("Входящие", "&BBIERQQ+BDQETwRJBDgENQ-"),
            ("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"), // RFC 3501's own example
            ("R&D", "R&-D"),
            ("&", "&-"),
            ("&&", "&-&-"),
            ("&-", "&--"),
            ("ü&ü", "&APw-&-&APw-"),
            ("-ü-", "-&APw--"),
            ("😀", "&2D3eAA-"),
            ("a\tb", "a&AAk-b"),
            ("\0\x7f", "&AAAAfw-"),
        ] {
            assert_eq!(encode(name), written);
            assert_eq!(decode(written).as_deref(), Some(name), "{written}");
        }
    }

    #[test]
    fn what_is_not_the_one_way_to_write_a_name_is_refused() {
        for written in [
            "&",          // no end
            "&APw",       // no end
            "a&-&",       // no end
            "Entwürfe",   // raw
            "a\tb",       // raw
            "&AGE-",      // an `a`, which stands for itself
            "&ACY-",      // a `&`, which is `&-`
            "&APw-&APw-", // two shifts for one
            "&AP-",       // not a whole unit
            "&APx-",      // stray bits
            "&APwA-",     // more stray bits
            "&AP=-",      // not base64
            "&U/BTFw-",   // base64, but not modified
            "&2D0-",      // half a surrogate pair
            "&3gDYPQ-",   // a pair the wrong way round
        ] {
            assert_eq!(decode(written), None, "{written}");
        }
    }

    #[test]
    fn every_character_comes_back() {
        // The first plane, and of those behind it, which only differ in their surrogates, a sample.
        for character in ('\0'..='\u{ffff}').chain(('\u{10000}'..=char::MAX).step_by(101)) {
            let name = format!("a{character}{character}b");
            assert_eq!(decode(&encode(&name)), Some(name));
        }
    }
}
