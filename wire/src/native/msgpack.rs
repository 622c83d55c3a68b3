//! MessagePack by rmp-serde, with the checks that it leaves to its callers: the size first, nothing left over
//! behind the value, no memory for elements that are only claimed.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::error::{DecodeError, EncodeError};

/// Deepest nesting that is read: twice what the formats have, so that unknown fields have room too.
const MAX_DEPTH: usize = 32;

pub(super) fn encode<T: Serialize>(value: &T, limit: usize) -> Result<Vec<u8>, EncodeError> {
    let octets = rmp_serde::to_vec_named(value)?;
    match octets.len() > limit {
        true => Err(EncodeError::TooLarge { size: octets.len(), limit }),
        false => Ok(octets),
    }
}

pub(super) fn decode<T: DeserializeOwned>(octets: &[u8], limit: usize) -> Result<T, DecodeError> {
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

/// The version alone, of a value that could not be read whole: a newer one is told as such.
pub(super) fn newer_version(octets: &[u8]) -> Option<u32> {
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
