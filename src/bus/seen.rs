use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher, RandomState};

use uuid::Uuid;

/// The ids that were seen last: as many as told at least, twice as many at most.
///
/// In two generations: the younger grows until it is full, then the older is forgotten whole. To forget ids one by one
/// costs as much as to remember them, and an order of them besides.
#[derive(Debug)]
pub(super) struct Seen {
    younger: HashSet<Uuid, IdHash>,
    older: HashSet<Uuid, IdHash>,
    limit: usize,
}

impl Seen {
    pub(super) fn new(limit: usize) -> Seen {
        let hash = IdHash::new();
        let [younger, older] = [hash.clone(), hash].map(HashSet::with_hasher);
        Seen { younger, older, limit: limit.max(1) }
    }

    /// Remembers an id; `false` if it was there.
    pub(super) fn insert(&mut self, id: Uuid) -> bool {
        if self.older.contains(&id) || !self.younger.insert(id) {
            return false;
        }
        if self.younger.len() == self.limit {
            std::mem::swap(&mut self.younger, &mut self.older);
            self.younger.clear();
        }
        true
    }
}

/// Most of an id is random already: a multiplication spreads it, and a secret of this set keeps a peer from choosing
/// ids that meet.
#[derive(Debug, Clone)]
struct IdHash {
    secret: u64,
}

impl IdHash {
    fn new() -> IdHash {
        IdHash { secret: RandomState::new().hash_one(0) }
    }
}

impl BuildHasher for IdHash {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher(self.secret)
    }
}

struct IdHasher(u64);

/// An odd number without a pattern: the golden ratio's digits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for IdHasher {
    fn write(&mut self, octets: &[u8]) {
        for piece in octets.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut().zip(piece).for_each(|(to, from)| *to = *from);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        // Both halves of the product: the high one depends on every bit.
        let product = u128::from(self.0 ^ word) * u128::from(SPREAD);
        #[allow(clippy::cast_possible_truncation)]
        let folded = (product >> 64) as u64 ^ product as u64;
        self.0 = folded;
    }

    fn write_usize(&mut self, _: usize) {
        // The length of the octets, which is 16 each time.
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_ids_are_kept_as_told_and_not_twice_as_many() {
        let mut seen = Seen::new(3);
        let mut new = |id| seen.insert(Uuid::from_u128(id));
        assert!((1..=4).all(&mut new));
        assert!((2..=4).all(|id| !new(id)), "the last three");
        assert!((5..=9).all(&mut new));
        assert!((7..=9).all(|id| !new(id)), "the last three");
        assert!((1..=3).all(&mut new), "long forgotten");
        assert!(seen.younger.len() < 3 && seen.older.len() <= 3);
    }

    #[test]
    fn ids_that_differ_in_any_octet_are_spread() {
        let hash = IdHash::new();
        for octet in 0..16 {
            let hashes: HashSet<u64> = (0..=255u8)
                .map(|value| {
                    let mut id = [7; 16];
                    id[octet] = value;
                    // What hashbrown looks at first: the low bits, and the highest seven.
                    hash.hash_one(Uuid::from_bytes(id)) & 0xfe00_0000_0000_ffff
                })
                .collect();
            assert!(hashes.len() > 250, "octet {octet}: {}", hashes.len());
        }
    }
}
