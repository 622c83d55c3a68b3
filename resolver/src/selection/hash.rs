use super::jenkins::jenkins;

/// A hash of keys, by which libmemcached chooses a server: 32 bits.
///
/// Octets above 127 count as negative numbers where the C code has them in a `char`, as on amd64. On machines
/// whose `char` has no sign libmemcached itself differs, for names that are not ASCII.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyHash {
    /// Jenkins' one-at-a-time: the default, which no string can name.
    #[default]
    OneAtATime,
    /// The first 32 bits of MD5.
    Md5,
    /// 15 bits of the CRC-32 of Ethernet and zip.
    Crc,
    /// The low half of FNV-1 of 64 bits.
    Fnv1_64,
    /// FNV-1a of 32 bits with the low halves of the 64-bit constants: libmemcached's.
    Fnv1a64,
    /// FNV-1 of 32 bits.
    Fnv1_32,
    /// FNV-1a of 32 bits.
    Fnv1a32,
    /// MurmurHash2, seeded with the length.
    Murmur,
    /// Jenkins' lookup3.
    Jenkins,
}

const FNV_64_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_64_PRIME: u64 = 0x0100_0000_01b3;
const FNV_32_BASIS: u32 = 0x811c_9dc5;
const FNV_32_PRIME: u32 = 0x0100_0193;

impl KeyHash {
    /// Those that a configuration string can name. libmemcached knows HSIEH by name too, and refuses it.
    pub(crate) const NAMED: [(&'static str, KeyHash); 8] = [
        ("MD5", KeyHash::Md5),
        ("CRC", KeyHash::Crc),
        ("FNV1_64", KeyHash::Fnv1_64),
        ("FNV1A_64", KeyHash::Fnv1a64),
        ("FNV1_32", KeyHash::Fnv1_32),
        ("FNV1A_32", KeyHash::Fnv1a32),
        ("MURMUR", KeyHash::Murmur),
        ("JENKINS", KeyHash::Jenkins),
    ];

    /// Its name in a configuration string.
    pub fn name(self) -> Option<&'static str> {
        KeyHash::NAMED.iter().find(|(_, hash)| *hash == self).map(|(name, _)| *name)
    }

    /// The hash of octets.
    pub fn value(self, octets: &[u8]) -> u32 {
        match self {
            KeyHash::OneAtATime => one_at_a_time(octets),
            KeyHash::Md5 => md5_word(octets, 0),
            KeyHash::Crc => (crc_32(octets) >> 16) & 0x7fff,
            KeyHash::Fnv1_64 => low_half(octets.iter().fold(FNV_64_BASIS, |hash, octet| {
                hash.wrapping_mul(FNV_64_PRIME) ^ i64::from(octet.cast_signed()).cast_unsigned()
            })),
            KeyHash::Fnv1a64 => octets.iter().fold(low_half(FNV_64_BASIS), |hash, octet| {
                (hash ^ signed(*octet)).wrapping_mul(low_half(FNV_64_PRIME))
            }),
            KeyHash::Fnv1_32 => octets
                .iter()
                .fold(FNV_32_BASIS, |hash, octet| hash.wrapping_mul(FNV_32_PRIME) ^ signed(*octet)),
            KeyHash::Fnv1a32 => octets
                .iter()
                .fold(FNV_32_BASIS, |hash, octet| (hash ^ signed(*octet)).wrapping_mul(FNV_32_PRIME)),
            KeyHash::Murmur => murmur(octets),
            KeyHash::Jenkins => jenkins(octets),
        }
    }
}

/// A C `char` of amd64, widened.
fn signed(octet: u8) -> u32 {
    i32::from(octet.cast_signed()).cast_unsigned()
}

fn low_half(word: u64) -> u32 {
    u32::try_from(word & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

/// A length in C's `uint32_t`.
pub(super) fn length_32(octets: &[u8]) -> u32 {
    u64::try_from(octets.len()).map_or(u32::MAX, low_half)
}

/// Up to four octets, little-endian, zeros for those that are missing.
pub(super) fn word(octets: &[u8]) -> u32 {
    octets.iter().take(4).rev().fold(0, |word, octet| (word << 8) | u32::from(*octet))
}

/// One of the four words of MD5, little-endian.
pub(super) fn md5_word(octets: &[u8], number: usize) -> u32 {
    md5::compute(octets).chunks(4).nth(number).map_or(0, word)
}

fn one_at_a_time(octets: &[u8]) -> u32 {
    let mut hash = octets.iter().fold(0_u32, |hash, octet| {
        let hash = hash.wrapping_add(signed(*octet));
        let hash = hash.wrapping_add(hash << 10);
        hash ^ (hash >> 6)
    });
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}

/// Bit by bit and without a crate: it is as long as the call of one would be, and keys are short.
fn crc_32(octets: &[u8]) -> u32 {
    !octets.iter().fold(u32::MAX, |crc, octet| {
        (0..8).fold(crc ^ u32::from(*octet), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

fn murmur(octets: &[u8]) -> u32 {
    const MIX: u32 = 0x5bd1_e995;
    let length = length_32(octets);
    let mut hash = 0xdead_beef_u32.wrapping_mul(length) ^ length;
    let words = octets.chunks_exact(4);
    let rest = words.remainder();
    for octets in words {
        let mut word = word(octets).wrapping_mul(MIX);
        word ^= word >> 24;
        hash = hash.wrapping_mul(MIX) ^ word.wrapping_mul(MIX);
    }
    if !rest.is_empty() {
        hash = (hash ^ word(rest)).wrapping_mul(MIX);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MIX);
    hash ^ (hash >> 15)
}
