use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};

use uuid::Uuid;

/// The last ids that were seen, oldest forgotten first.
#[derive(Debug)]
pub(super) struct Seen {
    ids: HashSet<Uuid, IdHash>,
    order: VecDeque<Uuid>,
    limit: usize,
}

impl Seen {
    pub(super) fn new(limit: usize) -> Seen {
        Seen { ids: HashSet::with_hasher(IdHash::new()), order: VecDeque::new(), limit: limit.max(1) }
    }

    /// Remembers an id; `false` if it was there.
    pub(super) fn insert(&mut self, id: Uuid) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        if self.order.len() == self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        self.order.push_back(id);
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
    fn only_as_many_ids_are_kept_as_allowed() {
        let mut seen = Seen::new(2);
        assert!([1, 2].map(|id| seen.insert(Uuid::from_u128(id))).iter().all(|&new| new));
        assert!(!seen.insert(Uuid::from_u128(1)));
        assert!(seen.insert(Uuid::from_u128(3)), "forgets 1, the oldest");
        assert!(seen.insert(Uuid::from_u128(1)));
        assert!(!seen.insert(Uuid::from_u128(3)));
        assert_eq!((seen.ids.len(), seen.order.len()), (2, 2));
    }
}
