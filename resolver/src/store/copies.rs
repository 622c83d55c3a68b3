use std::time::Instant;

use crate::config::ConfigError;
use crate::error::ResolverError;
use crate::share::share;
use crate::update::{Item, Response};

/// A look-up that any copy of a record may answer: which server is asked next, and what counts in the end.
///
/// A copy that has nothing at all is not believed: it may have been restarted. The record itself decides then.
#[derive(Debug)]
pub(crate) struct Reading {
    /// The record's own server.
    place: usize,
    /// Servers still to be asked, the next one last.
    left: Vec<usize>,
    asked: Option<usize>,
    found: Option<Response>,
    empty: Option<Response>,
    error: Option<ResolverError>,
}

impl Reading {
    /// `order`: the servers in the order in which they are asked.
    pub(super) fn new(place: usize, order: impl DoubleEndedIterator<Item = usize>) -> Reading {
        let left = order.rev().collect();
        Reading { place, left, asked: None, found: None, empty: None, error: None }
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
            Ok(answer) if itself || has_something(&answer) => {
                self.left.clear();
                self.found = Some(answer);
            }
            Ok(answer) => self.empty = Some(answer),
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

    /// What the look-up has found.
    pub(super) fn result(self) -> Result<Response, ResolverError> {
        let none = || ResolverError::Config(ConfigError::NoServer);
        self.found.or(self.empty).ok_or_else(|| self.error.unwrap_or_else(none))
    }
}

fn has_something(answer: &Response) -> bool {
    let Response::Items(items) = answer else { return true };
    items.iter().any(|item: &Option<Item>| item.is_some())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::update::Version;

    fn some(server: usize) -> Response {
        let version = Version { cas: 1, server, dialled: 1 };
        Response::Items(vec![None, Some(Item { value: vec![1], version })])
    }

    fn none() -> Response {
        Response::Items(vec![None, None])
    }

    fn down() -> ResolverError {
        ResolverError::Down { server: "x".to_owned(), left: Duration::ZERO }
    }

    #[test]
    fn the_first_copy_with_something_is_enough() {
        let mut reading = Reading::new(1, [2, 0, 1].into_iter());
        assert_eq!(reading.next(), Some(2));
        reading.note(Ok(some(2)));
        assert_eq!(reading.next(), None);
        assert_eq!(reading.result().unwrap(), some(2));
    }

    #[test]
    fn a_copy_without_anything_is_not_believed() {
        let mut reading = Reading::new(1, [2, 0, 1].into_iter());
        for (server, answer) in [(2, Ok(none())), (0, Err(down())), (1, Ok(some(1)))] {
            assert_eq!(reading.next(), Some(server));
            reading.note(answer);
        }
        assert_eq!(reading.next(), None);
        assert_eq!(reading.result().unwrap(), some(1));
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
