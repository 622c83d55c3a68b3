//! Octets as hex digits.

/// Reads digits in either case; white space between them does not count.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, String> {
    let mut octets = Vec::with_capacity(text.len() / 2);
    let mut high: Option<u8> = None;
    for (position, character) in text.chars().enumerate() {
        if character.is_whitespace() {
            continue;
        }
        let digit = character.to_digit(16).and_then(|digit| u8::try_from(digit).ok()).ok_or_else(|| {
            format!("hex: at character {position}: {character:?}: expected the digits 0 to 9 and a to f, and spaces")
        })?;
        match high.take() {
            None => high = Some(digit),
            Some(high) => octets.push(high << 4 | digit),
        }
    }
    match high {
        None => Ok(octets),
        Some(_) => Err(format!(
            "hex: at character {}: octet {} has one digit: expected two for each",
            text.trim_end().chars().count() - 1,
            octets.len()
        )),
    }
}

/// Lower case, no spaces.
pub(super) fn encode(octets: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |digit: u8| DIGITS.get(usize::from(digit)).copied().unwrap_or_default();
    octets.iter().flat_map(|octet| [digit(octet >> 4), digit(octet & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_in_any_case_and_spacing() {
        assert_eq!(decode(" 0f A0\nbC ").unwrap(), [0x0f, 0xa0, 0xbc]);
        assert_eq!(decode("0 f").unwrap(), [0x0f]);
        assert!(decode("").unwrap().is_empty());
        assert_eq!(encode(&[0x0f, 0xa0, 0xbc]), "0fa0bc");
    }

    #[test]
    fn what_is_no_hex_is_told_with_its_place() {
        assert!(decode("0102g0").unwrap_err().contains("at character 4: 'g'"));
        assert!(decode("01é").unwrap_err().contains("at character 2: 'é'"));
        assert!(decode("010 ").unwrap_err().contains("at character 2: octet 1"));
    }
}
