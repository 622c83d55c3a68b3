//! The daemon's outbox: takes events, finds out who listens, sends, and tries again.
//!
//! SKELETON of the API; the real thing is being written on branch `handover`.

mod config;
mod ledger;
mod statistics;
mod trace;

pub use config::{Full, OutboxConfig, OutboxError};
pub use ledger::LedgerError;
pub use statistics::{LATENCY_BOUNDS_US, Statistics};
pub use trace::{Reason, SendOutcome, Source, Step, Trace, TracedEvent};

use std::sync::Arc;
use std::time::Duration;

use ocbus_resolver::{Cn, Resolver};
use ocbus_wire::Event;
use tokio::sync::broadcast;

use crate::Publisher;

/// Takes events, and answers for them. Clones are the same outbox.
#[derive(Clone)]
pub struct Outbox {
    publisher: Publisher,
    traces: broadcast::Sender<Arc<Trace>>,
    runtime: tokio::runtime::Handle,
}

impl Outbox {
    /// An outbox without events. Within a tokio runtime.
    #[expect(clippy::needless_pass_by_value, reason = "kept by the real thing")]
    pub fn start(
        publisher: Publisher,
        _resolver: Resolver,
        config: OutboxConfig,
    ) -> Result<Outbox, OutboxError> {
        config.check()?;
        let runtime = tokio::runtime::Handle::current();
        Ok(Outbox { publisher, traces: broadcast::channel(1024).0, runtime })
    }

    /// Takes events of any users, all or none of them. It does not block; when it returns, the events are counted in
    /// the ledger, so that whoever gave them may be told.
    pub fn accept(&self, _source: Source, events: Vec<Event>) -> Result<(), Full> {
        for event in events {
            let publisher = self.publisher.clone();
            self.runtime.spawn(async move {
                let Ok(cn) = Cn::new(&event.user) else { return };
                drop(publisher.publish(&cn, &[event]).await);
            });
        }
        Ok(())
    }

    /// What it has done so far, and what it holds.
    pub fn statistics(&self) -> Statistics {
        Statistics::default()
    }

    /// Follows events from now on. Whoever is slow loses the oldest traces, and is told how many.
    pub fn traces(&self) -> broadcast::Receiver<Arc<Trace>> {
        self.traces.subscribe()
    }

    /// Accepts nothing any more, and waits until everything is sent, at most for `limit`. What is left then is marked
    /// as missed with those who are registered, and counted; what nobody could be told of stays in the ledger, so that
    /// the next start tells everybody.
    pub async fn drain(&self, _limit: Duration) {}
}
