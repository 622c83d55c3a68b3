use std::fmt;

use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// UIDs as ranges, in the order in which they were told: flagging 100,000 messages is one range.
///
/// The order matters: the n-th UID of a copy stands beside the n-th old UID. On the wire it is a flat array of
/// first and last of each range.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct UidSet {
    /// Most sets are one range or two: these stand here, in the room of a `Vec`.
    ranges: SmallVec<[(u32, u32); 2]>,
}

impl UidSet {
    /// The most ranges that a set may have on the wire: more do not fit in a batch, so that a set that was
    /// written is one that is read.
    pub const MAX_RANGES: usize = 32_768;

    /// No UID.
    pub fn new() -> UidSet {
        UidSet::default()
    }

    /// Adds one UID behind the others; extends the last range when it follows on.
    pub fn push(&mut self, uid: u32) {
        self.push_range(uid, uid);
    }

    /// Adds `first..=last` behind the others. A range whose last is below its first adds nothing, and 0, which
    /// is no UID, is left out: readers refuse it.
    pub fn push_range(&mut self, first: u32, last: u32) {
        let first = first.max(1);
        if last < first {
            return;
        }
        match self.ranges.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(first) => *end = last,
            _ => self.ranges.push((first, last)),
        }
    }

    /// The ranges, first and last included.
    pub fn ranges(&self) -> &[(u32, u32)] {
        &self.ranges
    }

    /// How many UIDs.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|&(first, last)| u64::from(last - first) + 1).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Each UID in order. A set from outside may stand for four billion: take what you can use.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|&(first, last)| first..=last)
    }
}

impl FromIterator<u32> for UidSet {
    fn from_iter<I: IntoIterator<Item = u32>>(uids: I) -> UidSet {
        let mut set = UidSet::new();
        uids.into_iter().for_each(|uid| set.push(uid));
        set
    }
}

impl fmt::Display for UidSet {
    /// As in IMAP: `1:3,7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}:{last}")?,
            }
        }
        Ok(())
    }
}

impl Serialize for UidSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.ranges.len() * 2))?;
        for (first, last) in &self.ranges {
            seq.serialize_element(first)?;
            seq.serialize_element(last)?;
        }
        seq.end()
    }
}

impl<'de> Deserialize<'de> for UidSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UidSet, D::Error> {
        struct Ranges;

        impl<'de> Visitor<'de> for Ranges {
            type Value = UidSet;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a flat array of first and last UIDs")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<UidSet, A::Error> {
                // Grown as elements really come: the length in the header is only a claim.
                let mut set = UidSet::new();
                while let Some(first) = seq.next_element::<u32>()? {
                    let last = seq
                        .next_element::<u32>()?
                        .ok_or_else(|| A::Error::custom("uid ranges: a first UID without its last"))?;
                    if first == 0 || last < first {
                        return Err(A::Error::custom(format_args!(
                            "uid range {first}:{last}: expected 1 <= first <= last"
                        )));
                    }
                    if set.ranges.len() == UidSet::MAX_RANGES {
                        return Err(A::Error::custom(format_args!(
                            "more than {} uid ranges",
                            UidSet::MAX_RANGES
                        )));
                    }
                    set.push_range(first, last);
                }
                Ok(set)
            }
        }

        deserializer.deserialize_seq(Ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_join_and_order_stays() {
        let set: UidSet = [5, 6, 7, 3, 9, 10].into_iter().collect();
        assert_eq!(set.ranges(), [(5, 7), (3, 3), (9, 10)]);
        assert_eq!(set.to_string(), "5:7,3,9:10");
        assert_eq!(set.len(), 6);
        assert_eq!(set.iter().collect::<Vec<_>>(), [5, 6, 7, 3, 9, 10]);
    }

    #[test]
    fn zero_is_no_uid() {
        let mut set: UidSet = [0, 1].into_iter().collect();
        set.push_range(0, 0);
        set.push_range(0, 3);
        assert_eq!(set.ranges(), [(1, 1), (1, 3)]);
    }

    #[test]
    fn the_last_uid_does_not_overflow() {
        let set: UidSet = [u32::MAX, 1].into_iter().collect();
        assert_eq!(set.ranges(), [(u32::MAX, u32::MAX), (1, 1)]);
        let mut all = UidSet::new();
        all.push_range(1, u32::MAX);
        assert_eq!(all.len(), u64::from(u32::MAX));
    }
}
