use std::time::Instant;

use crate::config::ConfigError;
use crate::error::ResolverError;
use crate::share::share;
use crate::update::{Item, Response};

/// A look-up that any copy of a record may answer: which server is asked next, and what counts in the end.
///
/// A copy is believed for the keys that it has. For those that it lacks (it may have been restarted, or away when they
/// were written) the record itself is asked, and its word is the last; where it is out of reach, the other copies are.
#[derive(Debug)]
pub(crate) struct Reading {
    /// The record's own server.
    place: usize,
    /// Servers still to be asked, the next one last.
    left: Vec<usize>,
    asked: Option<usize>,
    found: Option<Response>,
    /// What copies have, each key from the first that has it.
    partly: Option<Vec<Option<Item>>>,
    error: Option<ResolverError>,
}

impl Reading {
    /// `order`: the servers in the order in which they are asked.
    pub(super) fn new(place: usize, order: impl DoubleEndedIterator<Item = usize>) -> Reading {
        let left = order.rev().collect();
        Reading { place, left, asked: None, found: None, partly: None, error: None }
    }

    /// The server to ask; `None` when it is over.
    pub(super) fn next(&mut self) -> Option<usize> {
        self.asked = self.left.pop();
        self.asked
    }

    /// When the server that is asked must have answered: one that hangs leaves time for the others.
    pub(super) fn until(&self, now: Instant, deadline: Instant) -> Instant {
        share(now, deadline, self.left.len() + 1)
    }

    /// What the server that was asked has answered.
    pub(super) fn note(&mut self, result: Result<Response, ResolverError>) {
        let itself = self.asked == Some(self.place);
        match result {
            Ok(Response::Items(items)) if !itself => self.note_copy(items),
            Ok(answer) => self.end(answer),
            Err(error) => {
                if !(error.is_outage() || error.is_one_server() || error.is_refused()) {
                    self.left.clear();
                }
                if itself || self.error.is_none() {
                    self.error = Some(error);
                }
            }
        }
    }

    fn note_copy(&mut self, items: Vec<Option<Item>>) {
        let known = match self.partly.take() {
            None => items,
            Some(known) => known.into_iter().zip(items).map(|(known, item)| known.or(item)).collect(),
        };
        if known.iter().all(Option::is_some) {
            return self.end(Response::Items(known));
        }
        self.partly = Some(known);
        if let Some(at) = self.left.iter().position(|server| *server == self.place) {
            let itself = self.left.remove(at);
            self.left.push(itself);
        }
    }

    fn end(&mut self, answer: Response) {
        self.left.clear();
        self.found = Some(answer);
    }

    /// What the look-up has found.
    pub(super) fn result(self) -> Result<Response, ResolverError> {
        let none = || ResolverError::Config(ConfigError::NoServer);
        let found = self.found.or(self.partly.map(Response::Items));
        found.ok_or_else(|| self.error.unwrap_or_else(none))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::update::Version;

    fn item(server: usize) -> Option<Item> {
        Some(Item { value: vec![1], version: Version { cas: 1, server, dialled: 1 } })
    }

    /// Both records of a user.
    fn some(server: usize) -> Response {
        Response::Items(vec![item(server), item(server)])
    }

    /// The second of them.
    fn half(server: usize) -> Response {
        Response::Items(vec![None, item(server)])
    }

    fn none() -> Response {
        Response::Items(vec![None, None])
    }

    fn down() -> ResolverError {
        ResolverError::Down { server: "x".to_owned(), left: Duration::ZERO }
    }

    #[test]
    fn the_first_copy_with_everything_is_enough() {
        let mut reading = Reading::new(1, [2, 0, 1].into_iter());
        assert_eq!(reading.next(), Some(2));
        reading.note(Ok(some(2)));
        assert_eq!(reading.next(), None);
        assert_eq!(reading.result().unwrap(), some(2));
    }

    #[test]
    fn a_copy_without_anything_is_not_believed() {
        for without in [none(), half(2)] {
            for itself in [some(1), half(1), none()] {
                let mut reading = Reading::new(1, [2, 0, 1].into_iter());
                for (server, answer) in [(2, &without), (1, &itself)] {
                    assert_eq!(reading.next(), Some(server), "the record itself is asked next");
                    reading.note(Ok(answer.clone()));
                }
                assert_eq!(reading.next(), None);
                assert_eq!(reading.result().unwrap(), itself, "and its word is the last");
            }
        }
    }

    #[test]
    fn copies_that_lack_something_make_up_for_each_other() {
        let first = || Response::Items(vec![item(0), None]);
        let both = Response::Items(vec![item(0), item(2)]);
        for (last, expected) in [(Ok(first()), both), (Ok(none()), half(2)), (Err(down()), half(2))] {
            let mut reading = Reading::new(1, [2, 0, 1].into_iter());
            for (server, answer) in [(2, Ok(half(2))), (1, Err(down())), (0, last)] {
                assert_eq!(reading.next(), Some(server));
                reading.note(answer);
            }
            assert_eq!(reading.next(), None);
            assert_eq!(reading.result().unwrap(), expected);
        }
    }

    #[test]
    fn what_the_record_itself_says_is_final() {
        let mut reading = Reading::new(1, [1, 2].into_iter());
        reading.next();
        reading.note(Ok(none()));
        assert_eq!(reading.next(), None);
        assert_eq!(reading.result().unwrap(), none());
    }

    #[test]
    fn where_the_record_is_out_of_reach_a_copy_is_believed() {
        let mut reading = Reading::new(1, [1, 2].into_iter());
        reading.next();
        reading.note(Err(down()));
        reading.next();
        reading.note(Ok(none()));
        assert_eq!(reading.result().unwrap(), none());
        let mut reading = Reading::new(1, [2, 1].into_iter());
        while reading.next().is_some() {
            reading.note(Err(down()));
        }
        assert!(reading.result().unwrap_err().is_left_alone());
    }

    #[test]
    fn a_wrong_request_is_not_asked_again() {
        let mut reading = Reading::new(1, [1, 2].into_iter());
        reading.next();
        reading.note(Err(ResolverError::Lease(Duration::ZERO)));
        assert_eq!(reading.next(), None);
        assert!(reading.result().is_err());
    }
}
