//! FolderID and MessageID: eight octets, a replica id and a counter.

use std::fmt;

/// The counter has six octets.
const MAX_COUNTER: u64 = (1 << 48) - 1;

/// Generates an id. The two are types of their own so that nobody puts a message where a folder belongs.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// On the wire: the replica id (u16, little-endian), then a counter of six octets, most significant
        /// first. OpenChange keeps the same eight octets as one little-endian u64, and so does this; two ids
        /// are the same if all of it is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u64);

        impl $name {
            /// The octets of an id on the wire.
            pub const OCTETS: usize = 8;

            /// All zero: no object, or, as the row before, the beginning of a table.
            pub const NONE: Self = Self(0);

            /// The id with a replica id (1 in most private stores) and a counter, which has 48 bits: `None` if
            /// it is larger.
            pub const fn from_parts(replica_id: u16, counter: u64) -> Option<Self> {
                if counter > MAX_COUNTER {
                    return None;
                }
                let [_, _, a, b, c, d, e, f] = counter.to_be_bytes();
                let [low, high] = replica_id.to_le_bytes();
                Some(Self::from_octets([low, high, a, b, c, d, e, f]))
            }

            /// The id that OpenChange keeps as this number.
            pub const fn from_u64(id: u64) -> Self {
                Self(id)
            }

            /// The number that OpenChange keeps.
            pub const fn as_u64(self) -> u64 {
                self.0
            }

            /// The id that stands on the wire so.
            pub const fn from_octets(octets: [u8; Self::OCTETS]) -> Self {
                Self(u64::from_le_bytes(octets))
            }

            /// What stands on the wire.
            pub const fn to_octets(self) -> [u8; Self::OCTETS] {
                self.0.to_le_bytes()
            }

            /// The replica id: which store's counter it is.
            pub const fn replica_id(self) -> u16 {
                let [low, high, ..] = self.to_octets();
                u16::from_le_bytes([low, high])
            }

            /// The counter, 48 bits.
            pub const fn counter(self) -> u64 {
                let [_, _, a, b, c, d, e, f] = self.to_octets();
                u64::from_be_bytes([0, 0, a, b, c, d, e, f])
            }
        }

        /// As OpenChange's log shows it: the number, `0x3412000000000001`.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "0x{:016x}", self.0)
            }
        }
    };
}

id! {
    /// The id of a folder (FID).
    FolderId
}

id! {
    /// The id of a message (MID).
    MessageId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_replica_id_is_little_endian_and_the_counter_big_endian() {
        let inbox = FolderId::from_parts(1, 0x1234).unwrap();
        assert_eq!(inbox.to_octets(), *b"\x01\0\0\0\0\0\x12\x34");
        assert_eq!(inbox.as_u64(), 0x3412_0000_0000_0001);
        assert_eq!(inbox.to_string(), "0x3412000000000001");
        assert_eq!((inbox.replica_id(), inbox.counter()), (1, 0x1234));
        let other = MessageId::from_parts(0x0201, 0x1234_5678_9abc).unwrap();
        assert_eq!(other.to_octets(), *b"\x01\x02\x12\x34\x56\x78\x9a\xbc");
        assert_eq!((other.replica_id(), other.counter()), (0x0201, 0x1234_5678_9abc));
        assert_eq!(MessageId::from_octets(other.to_octets()), MessageId::from_u64(other.as_u64()));
        assert_eq!(MessageId::NONE.to_string(), "0x0000000000000000");
    }

    #[test]
    fn a_counter_has_48_bits() {
        assert_eq!(FolderId::from_parts(0, MAX_COUNTER).unwrap().counter(), MAX_COUNTER);
        assert_eq!(FolderId::from_parts(0, MAX_COUNTER + 1), None);
    }
}
