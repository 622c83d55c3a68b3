use std::collections::{HashSet, VecDeque};

use uuid::Uuid;

/// The last ids that were seen, oldest forgotten first.
#[derive(Debug)]
pub(super) struct Seen {
    ids: HashSet<Uuid>,
    order: VecDeque<Uuid>,
    limit: usize,
}

impl Seen {
    pub(super) fn new(limit: usize) -> Seen {
        Seen { ids: HashSet::new(), order: VecDeque::new(), limit: limit.max(1) }
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
