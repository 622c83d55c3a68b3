//! memcacheds that are out of reach: one probe for each, whoever waits for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ocbus_resolver::{ResolverError, SessionsError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How soon a memcached that failed is tried again, and a session that failed for a reason of its own. Until then nobody
/// waits for memcached because of it.
pub(super) const RETRY: Duration = Duration::from_millis(500);

/// The server whose being out of reach is why a call failed.
pub(super) fn unreachable(error: &SessionsError) -> Option<&str> {
    match error {
        SessionsError::Store(error) => error.unreachable(),
        _ => None,
    }
}

/// Whether a call waited until its time limit: the next one would too.
pub(super) fn is_timeout(error: &SessionsError) -> bool {
    matches!(error, SessionsError::Store(error) if ResolverError::is_timeout(error))
}

/// By server.
#[derive(Debug, Default)]
pub(super) struct Outages(Mutex<HashMap<String, Outage>>);

#[derive(Debug)]
struct Outage {
    /// The permit is the next probe's; closed, the server is back.
    turn: Arc<Semaphore>,
    /// When it is asked again: a turn in which nobody asked costs the others nothing.
    next_try: Instant,
}

/// Whoever tries a server next. Dropped, it is the turn of another.
#[derive(Debug)]
pub(in crate::emsmdb) struct Probe {
    server: String,
    outage: Arc<Semaphore>,
    _turn: OwnedSemaphorePermit,
}

impl Outages {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Outage>> {
        // Every change is one call: it is whole even behind a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a server is back, or it is the caller's turn to try: then there is a probe, to be kept until it is
    /// known what came of it ([`Outages::tried`]).
    pub(super) async fn wait(&self, server: &str) -> Option<Probe> {
        let outage = {
            let mut outages = self.lock();
            let new = || Outage { turn: Arc::new(Semaphore::new(1)), next_try: Instant::now() + RETRY };
            Arc::clone(&outages.entry(server.to_owned()).or_insert_with(new).turn)
        };
        // Closed: it is back.
        let turn = Arc::clone(&outage).acquire_owned().await.ok()?;
        let next_try = self.lock().get(server).map(|outage| outage.next_try);
        if let Some(at) = next_try {
            tokio::time::sleep_until(at).await;
        }
        Some(Probe { server: server.to_owned(), outage, _turn: turn })
    }

    /// Lets everybody go who waits for the same server, unless it is out of reach still.
    pub(super) fn tried(&self, probe: Option<Probe>, error: Option<&SessionsError>) {
        let Some(probe) = probe else { return };
        let mut outages = self.lock();
        let same = outages.get_mut(&probe.server).filter(|of| Arc::ptr_eq(&of.turn, &probe.outage));
        if error.and_then(unreachable) == Some(&probe.server) {
            if let Some(outage) = same {
                outage.next_try = Instant::now() + RETRY;
            }
            return;
        }
        if same.is_some() {
            outages.remove(&probe.server);
        }
        probe.outage.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down(server: &str) -> SessionsError {
        SessionsError::Store(ResolverError::Deadline { server: server.to_owned() })
    }

    #[tokio::test(start_paused = true)]
    async fn one_tries_for_all_and_lets_them_go() {
        let outages = Arc::new(Outages::default());
        let wait = |server: &'static str| {
            let outages = Arc::clone(&outages);
            tokio::spawn(async move { outages.wait(server).await })
        };
        let first = wait("a").await.unwrap();
        assert!(first.is_some());
        let others: Vec<_> = (0..100).map(|_| wait("a")).collect();
        let elsewhere = wait("b").await.unwrap();
        assert!(elsewhere.is_some(), "another server's outage is another");
        // Out of reach still: one of the others is next, half a second later.
        outages.tried(first, Some(&down("a")));
        let begun = Instant::now();
        let mut probes = 0;
        for other in others {
            let probe = other.await.unwrap();
            probes += usize::from(probe.is_some());
            outages.tried(probe, None);
        }
        assert_eq!((probes, begun.elapsed()), (1, RETRY));
        // The next outage is another one.
        assert!(wait("a").await.unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_hands_its_turn_on() {
        let outages = Outages::default();
        let begun = Instant::now();
        let gives_up = tokio::time::timeout(RETRY / 2, outages.wait("a")).await;
        assert!(gives_up.is_err());
        let probe = outages.wait("a").await;
        assert!(probe.is_some());
        drop(probe);
        assert!(outages.wait("a").await.is_some());
        assert_eq!(begun.elapsed(), RETRY, "nobody has asked: nobody waits the longer");
    }
}
