//! MessagePack by rmp-serde, with the checks that it leaves to its callers: the size first, nothing left over
//! behind the value, no memory for elements that are only claimed.

use std::borrow::Cow;
use std::fmt;
use std::io::ErrorKind;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::error::{DecodeError, EncodeError};

/// Deepest nesting that is read: twice what the formats have, so that unknown fields have room too.
const MAX_DEPTH: usize = 32;

/// What most events take.
const TYPICAL_OCTETS: usize = 256;

/// Writes a value behind what `octets` has; after an error part of it may be there.
pub(super) fn encode_into<T: Serialize>(value: &T, octets: &mut Vec<u8>) -> Result<(), EncodeError> {
    octets.reserve(TYPICAL_OCTETS);
    Ok(rmp_serde::encode::write_named(octets, value)?)
}

pub(super) fn encode<T: Serialize>(value: &T, limit: usize) -> Result<Vec<u8>, EncodeError> {
    let octets = rmp_serde::to_vec_named(value)?;
    match octets.len() > limit {
        true => Err(EncodeError::TooLarge { size: octets.len(), limit }),
        false => Ok(octets),
    }
}

fn decode<'de, T: Deserialize<'de>>(octets: &'de [u8], limit: usize) -> Result<T, DecodeError> {
    if octets.len() > limit {
        return Err(DecodeError::TooLarge { size: octets.len(), limit });
    }
    if let Some(value) = decode_borrowing(octets) {
        return Ok(value);
    }
    let (value, read) = decode_prefix(octets)?;
    match octets.len() - read {
        0 => Ok(value),
        left => Err(DecodeError::Trailing { offset: read, left }),
    }
}

/// Reads a value that is all there is, with its texts where they stand: half the time of [`decode_prefix`]. What is
/// wrong otherwise this reader cannot say, since it does not tell how far it came.
fn decode_borrowing<'de, T: Deserialize<'de>>(octets: &'de [u8]) -> Option<T> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(octets);
    reader.set_max_depth(MAX_DEPTH);
    let value = T::deserialize(&mut reader).ok()?;
    // Nothing may be left.
    match IgnoredAny::deserialize(&mut reader) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(error))
            if error.kind() == ErrorKind::UnexpectedEof =>
        {
            Some(value)
        }
        _ => None,
    }
}

/// Reads one value, and says how many octets it took.
fn decode_prefix<'de, T: Deserialize<'de>>(octets: &'de [u8]) -> Result<(T, usize), DecodeError> {
    let mut reader = rmp_serde::Deserializer::new(octets);
    reader.set_max_depth(MAX_DEPTH);
    let value = T::deserialize(&mut reader);
    let offset = octets.len() - reader.get_ref().len();
    match value {
        Ok(value) => Ok((value, offset)),
        Err(source) => Err(DecodeError::Malformed { offset, source }),
    }
}

/// Reads one value of our version: another is told as such, whatever its shape. `version` looks into the value.
pub(super) fn decode_versioned<'de, T: Deserialize<'de>>(
    octets: &'de [u8],
    limit: usize,
    version: impl FnOnce(&T) -> u32,
) -> Result<T, DecodeError> {
    match decode(octets, limit) {
        Ok(value) => match version(&value) {
            super::VERSION => Ok(value),
            found => Err(DecodeError::Version { found }),
        },
        Err(too_large @ DecodeError::TooLarge { .. }) => Err(too_large),
        Err(error) => Err(other_version(octets).map_or(error, |found| DecodeError::Version { found })),
    }
}

/// The version alone, of a value that could not be read whole, if it is not ours.
fn other_version(octets: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    struct Versioned {
        v: u32,
    }
    let (Versioned { v }, _) = decode_prefix(octets).ok()?;
    (v != super::VERSION).then_some(v)
}

/// Text that stays where it stands, if it can: serde's `Cow` within an `Option` is always copied.
#[derive(Debug, Default)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl Text<'_> {
    pub(super) fn into_owned(self) -> String {
        self.0.into_owned()
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Text<'a> {
        Text(Cow::Borrowed(text))
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<'a>, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_string<E>(self, text: String) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text)))
            }
        }

        deserializer.deserialize_str(Read)
    }
}

/// `deserialize_with` for an array of at most `MAX` elements, grown as they come: serde would set up to 1 MiB
/// aside for a length that is only claimed.
pub(super) fn bounded<'de, const MAX: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Bounded<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "an array of at most {MAX} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut elements = Vec::new();
            while let Some(element) = seq.next_element()? {
                if elements.len() == MAX {
                    return Err(A::Error::custom(format_args!("an array of more than {MAX} elements")));
                }
                elements.push(element);
            }
            Ok(elements)
        }
    }

    deserializer.deserialize_seq(Bounded::<T, MAX>(PhantomData))
}
