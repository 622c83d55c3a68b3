//! A server's addresses, kept until none of them answers: a name may have moved by then. No I/O, no clock.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use crate::share::share;

#[derive(Debug, Default)]
pub(crate) struct Known {
    addresses: Vec<SocketAddr>,
    /// None of them could be connected to.
    doubted: bool,
}

impl Known {
    /// All that are known, good or not.
    pub(crate) fn all(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The addresses, where there is no need to look them up.
    pub(crate) fn good(&self) -> Option<&[SocketAddr]> {
        (!self.doubted && !self.addresses.is_empty()).then_some(&self.addresses)
    }

    /// Until when a look-up may take: half of the time where the former addresses may still do.
    pub(crate) fn until(&self, now: Instant, deadline: Instant) -> Instant {
        share(now, deadline, if self.addresses.is_empty() { 1 } else { 2 })
    }

    /// What a look-up found. Where it failed the former addresses are tried once more.
    pub(crate) fn looked_up(&mut self, found: io::Result<Vec<SocketAddr>>) -> io::Result<&[SocketAddr]> {
        match found {
            Ok(addresses) => *self = Known { addresses, doubted: false },
            Err(error) if self.addresses.is_empty() => return Err(error),
            Err(error) => {
                tracing::debug!(event = "look_up_failed", reason = %error, "the former addresses are tried");
            }
        }
        Ok(&self.addresses)
    }

    /// None of them could be connected to.
    pub(crate) fn doubt(&mut self) {
        self.doubted = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_name_is_looked_up_again_when_none_of_its_addresses_answers() {
        let address = |text: &str| -> Vec<SocketAddr> { vec![text.parse().unwrap()] };
        let (one, two) = (address("10.0.0.1:11211"), address("10.0.0.2:11211"));
        let failed = || Err(io::ErrorKind::TimedOut.into());
        let (now, mut known) = (Instant::now(), Known::default());
        let deadline = now + Duration::from_secs(2);
        assert!(known.good().is_none() && known.looked_up(failed()).is_err());
        assert_eq!(known.until(now, deadline), deadline);
        assert_eq!(known.looked_up(Ok(one.clone())).unwrap(), one);
        assert_eq!(known.good().unwrap(), one);
        known.doubt();
        assert!(known.good().is_none(), "it is asked for again");
        assert_eq!(
            known.until(now, deadline),
            now + Duration::from_secs(1),
            "and the rest is for the former one"
        );
        assert_eq!(known.looked_up(failed()).unwrap(), one);
        assert!(known.good().is_none(), "still");
        assert_eq!(known.looked_up(Ok(two.clone())).unwrap(), two);
        assert_eq!(known.good().unwrap(), two);
    }
}
