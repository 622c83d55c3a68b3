//! MessagePack by rmp-serde, with the checks that it leaves to its callers: the size first, nothing left over
//! behind the value, no memory for elements that are only claimed.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Deserializer, Error as _, SeqAccess, Visitor};
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

fn decode<T: DeserializeOwned>(octets: &[u8], limit: usize) -> Result<T, DecodeError> {
    if octets.len() > limit {
        return Err(DecodeError::TooLarge { size: octets.len(), limit });
    }
    let (value, read) = decode_prefix(octets)?;
    match octets.len() - read {
        0 => Ok(value),
        left => Err(DecodeError::Trailing { offset: read, left }),
    }
}

/// Reads one value, and says how many octets it took.
fn decode_prefix<T: DeserializeOwned>(octets: &[u8]) -> Result<(T, usize), DecodeError> {
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
pub(super) fn decode_versioned<T: DeserializeOwned>(
    octets: &[u8],
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
