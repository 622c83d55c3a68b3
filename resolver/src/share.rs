//! A deadline for things that are tried one after the other: each has its share of what is left, so that one that
//! hangs leaves time for the next.

use std::time::Instant;

/// When the first of so many must be over.
pub(crate) fn share(now: Instant, deadline: Instant, left: usize) -> Instant {
    now + deadline.saturating_duration_since(now) / u32::try_from(left.max(1)).unwrap_or(u32::MAX)
}

/// Each with the time until which it may be tried, by the clock of the moment at which it is taken.
pub(crate) fn shares<T>(all: &[T], deadline: Instant) -> impl Iterator<Item = (&T, Instant)> {
    all.iter().enumerate().map(move |(at, one)| (one, share(Instant::now(), deadline, all.len() - at)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_one_does_not_need_is_the_others() {
        let now = Instant::now();
        let end = now + Duration::from_secs(6);
        assert_eq!(share(now, end, 3), now + Duration::from_secs(2));
        assert_eq!(share(now + Duration::from_secs(1), end, 2), now + Duration::from_millis(3500));
        assert_eq!(share(end, end, 1), end);
        assert_eq!(share(now, end, 0), end);
        let all: Vec<_> = shares(&['a', 'b'], end).collect();
        assert!(all[0].1 < end && all[1].1 <= end + Duration::from_millis(1) && all[1].1 > all[0].1);
    }
}
