//! Several updates side by side, without I/O: what all of them ask next goes to the store in one call.

use std::time::Duration;

use crate::edit::Edit;
use crate::error::ResolverError;
use crate::update::{Request, Response, Step, Update};

pub(crate) struct UpdateMany<E: Edit> {
    updates: Vec<Option<Update<E>>>,
    outcomes: Vec<Option<Result<E::Outcome, ResolverError>>>,
    /// The next requests, and whose they are.
    next: Vec<Request>,
    whose: Vec<usize>,
}

impl<E: Edit> UpdateMany<E> {
    /// One update for each edit; an error in its place is its outcome.
    pub(crate) fn new(edits: impl Iterator<Item = Result<E, ResolverError>>) -> UpdateMany<E> {
        let mut many =
            UpdateMany { updates: Vec::new(), outcomes: Vec::new(), next: Vec::new(), whose: Vec::new() };
        for (number, edit) in edits.enumerate() {
            let (update, outcome) = match edit.map(Update::new) {
                Ok(update) => {
                    many.next.push(update.begin());
                    many.whose.push(number);
                    (Some(update), None)
                }
                Err(error) => (None, Some(Err(error))),
            };
            many.updates.push(update);
            many.outcomes.push(outcome);
        }
        many
    }

    /// What to ask next; `None` when all is over.
    pub(crate) fn requests(&mut self) -> Option<Vec<Request>> {
        let requests = std::mem::take(&mut self.next);
        (!requests.is_empty()).then_some(requests)
    }

    /// How long to wait before they are asked.
    pub(crate) fn pause(&self, random: u64) -> Duration {
        let updates = self.whose.iter().filter_map(|number| self.updates.get(*number)?.as_ref());
        updates.map(|update| update.pause(random)).max().unwrap_or_default()
    }

    /// The answers to these, in their order.
    pub(crate) fn step(&mut self, answers: Vec<Result<Response, ResolverError>>) {
        for (number, answer) in std::mem::take(&mut self.whose).into_iter().zip(answers) {
            let place = self.updates.get_mut(number);
            let (Some(place), Some(outcome)) = (place, self.outcomes.get_mut(number)) else { continue };
            let Some(update) = place.as_mut() else { continue };
            match answer.and_then(|response| update.step(response)) {
                Ok(Step::Ask(request)) => {
                    self.next.push(request);
                    self.whose.push(number);
                }
                Ok(Step::Over(done)) => *outcome = Some(Ok(done)),
                Err(error) => *outcome = place.take().map(|update| update.failed(error)),
            }
        }
    }

    /// What became of each, in the order of the edits.
    pub(crate) fn into_outcomes(self) -> impl Iterator<Item = Result<E::Outcome, ResolverError>> {
        // There is none where an answer was missing, which no store leaves out.
        let missing = || Err(ResolverError::Deadline { server: String::new() });
        self.outcomes.into_iter().map(move |outcome| outcome.unwrap_or_else(missing))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::edit::Change;
    use crate::store::MemoryStore;

    /// Appends an octet to a record; one of 9 is refused.
    struct Append(&'static str, u8);

    impl Edit for Append {
        type Outcome = Vec<u8>;

        fn key(&self) -> String {
            self.0.to_owned()
        }

        fn apply(&mut self, current: Option<&[u8]>) -> Result<(Change, Vec<u8>), ResolverError> {
            if self.1 == 9 {
                return Err(ResolverError::Unwritable { key: self.key(), why: "a nine".to_owned() });
            }
            let value = [current.unwrap_or_default(), &[self.1]].concat();
            Ok((Change::Put { value: value.clone(), expiry: None }, value))
        }
    }

    #[test]
    fn all_ask_together_and_losers_ask_again() {
        let store = MemoryStore::new();
        let lease = || Err(ResolverError::Lease(Duration::ZERO));
        let edits = [Ok(Append("a", 1)), lease(), Ok(Append("b", 2)), Ok(Append("a", 3)), Ok(Append("b", 9))];
        let mut many = UpdateMany::new(edits.into_iter());
        let mut rounds = Vec::new();
        while let Some(requests) = many.requests() {
            rounds.push(requests.len());
            let now = Instant::now();
            many.step(requests.into_iter().map(|request| Ok(store.run(request, now))).collect());
        }
        // All read; three write, of whom one of `a` loses; that one reads and writes again.
        assert_eq!(rounds, [4, 3, 1, 1]);
        let outcomes: Vec<_> = many.into_outcomes().collect();
        assert_eq!(outcomes[0].as_ref().unwrap(), &[1]);
        assert!(matches!(outcomes[1], Err(ResolverError::Lease(_))));
        assert_eq!(outcomes[2].as_ref().unwrap(), &[2]);
        assert_eq!(outcomes[3].as_ref().unwrap(), &[1, 3]);
        assert!(matches!(outcomes[4], Err(ResolverError::Unwritable { .. })));
    }
}
