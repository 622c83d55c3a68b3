//! Which of several equal servers is asked: in turn, those that failed a moment ago left aside.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Whether a URL's host is this machine, by its name or number.
pub(in crate::registration) fn is_local(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// The state of each server, by its index.
#[derive(Debug)]
pub(in crate::registration) struct Endpoints {
    aside_until: Vec<Option<Instant>>,
    /// Whose request had no answer in time, as far as it may have been their mailbox alone.
    slow: Vec<Vec<String>>,
    retry: Duration,
    /// Who is asked first next time, if it is not aside.
    turn: usize,
}

impl Endpoints {
    /// `count` servers in use; one that fails is left aside for `retry`.
    pub(in crate::registration) fn new(count: usize, retry: Duration) -> Endpoints {
        Endpoints { aside_until: vec![None; count], slow: vec![Vec::new(); count], retry, turn: 0 }
    }

    /// Whom to ask, one after the other until one answers. A server whose time aside is over is asked again, first
    /// among them: it is by being asked that it is checked. From then it is aside again until it has answered, so
    /// that a dead one costs one request its time limit, not all that are made meanwhile. Empty: all failed a
    /// moment ago.
    pub(in crate::registration) fn order(&mut self, now: Instant) -> Vec<usize> {
        let count = self.aside_until.len();
        let turns = (0..count).map(|step| (self.turn + step) % count.max(1));
        let (mut checked, mut used) = (Vec::new(), Vec::new());
        for index in turns {
            match self.aside_until.get(index).copied().flatten() {
                None => used.push(index),
                Some(until) if until <= now => checked.push(index),
                Some(_) => {}
            }
        }
        self.turn = self.turn.wrapping_add(1) % count.max(1);
        for index in &checked {
            self.set_aside(*index, now);
        }
        checked.extend(used);
        checked
    }

    /// It failed. Says whether it was in use.
    pub(in crate::registration) fn failed(&mut self, index: usize, now: Instant) -> bool {
        let used = self.aside_until.get(index).is_some_and(Option::is_none);
        self.set_aside(index, now);
        used
    }

    /// It was reached, and did not answer for these users in time. That may be one user's mailbox, however often it is
    /// asked for: only when there is nobody whom all silences in a row have in common they are the server's. Says
    /// whether it was in use and is not any more.
    pub(in crate::registration) fn silent(&mut self, index: usize, users: &[&str], now: Instant) -> bool {
        let Some(suspects) = self.slow.get_mut(index) else { return false };
        if suspects.is_empty() {
            *suspects = users.iter().map(|user| (*user).to_owned()).collect();
            return false;
        }
        suspects.retain(|suspect| users.contains(&suspect.as_str()));
        match suspects.is_empty() {
            true => self.failed(index, now),
            false => false,
        }
    }

    /// It answered. Says whether it was aside.
    pub(in crate::registration) fn answered(&mut self, index: usize) -> bool {
        if let Some(slow) = self.slow.get_mut(index) {
            slow.clear();
        }
        self.aside_until.get_mut(index).and_then(Option::take).is_some()
    }

    /// How many servers there are, and how many of them failed and have not answered since.
    pub(in crate::registration) fn aside(&self) -> (u64, u64) {
        let aside = self.aside_until.iter().filter(|until| until.is_some()).count();
        (self.aside_until.len() as u64, aside as u64)
    }

    fn set_aside(&mut self, index: usize, now: Instant) {
        if let Some(until) = self.aside_until.get_mut(index) {
            *until = Some(now + self.retry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Duration = Duration::from_secs(10);

    #[test]
    fn servers_take_turns_and_one_that_fails_is_left_aside_until_its_time_is_over() {
        let now = Instant::now();
        let mut endpoints = Endpoints::new(3, RETRY);
        assert_eq!(endpoints.order(now), [0, 1, 2]);
        assert_eq!(endpoints.order(now), [1, 2, 0]);
        assert!(endpoints.failed(2, now));
        assert!(!endpoints.failed(2, now));
        assert_eq!(endpoints.order(now), [0, 1]);
        assert_eq!(endpoints.order(now), [0, 1]);
        assert_eq!(endpoints.aside(), (3, 1));
        let later = now + RETRY;
        assert_eq!(endpoints.order(later), [2, 1, 0], "checked first");
        assert!(!endpoints.order(later).contains(&2), "by one request only");
        assert!(endpoints.answered(2));
        assert!(!endpoints.answered(2));
        assert_eq!((endpoints.order(later).len(), endpoints.aside()), (3, (3, 0)));
    }

    #[test]
    fn when_all_have_failed_nobody_is_asked() {
        let now = Instant::now();
        let mut endpoints = Endpoints::new(2, RETRY);
        endpoints.failed(0, now);
        endpoints.failed(1, now + Duration::from_secs(1));
        assert!(endpoints.order(now + Duration::from_secs(2)).is_empty());
        assert_eq!(endpoints.order(now + RETRY), [0]);
    }

    #[test]
    fn silences_are_one_mailboxs_as_long_as_it_can_be() {
        let now = Instant::now();
        let mut endpoints = Endpoints::new(1, RETRY);
        // A batch, then its users one by one: any of them may be it, and bob is.
        assert!(!endpoints.silent(0, &["ann", "bob", "eve"], now));
        for _ in 0..10 {
            assert!(!endpoints.silent(0, &["bob"], now));
        }
        assert_eq!(endpoints.order(now), [0]);
        assert!(endpoints.silent(0, &["ann"], now), "not bob's alone");
        assert!(endpoints.order(now).is_empty());
        // An answer in between acquits the server.
        endpoints.answered(0);
        assert!(!endpoints.silent(0, &["bob"], now));
        endpoints.answered(0);
        assert!(!endpoints.silent(0, &["ann"], now));
        assert_eq!(endpoints.order(now), [0]);
    }
}
