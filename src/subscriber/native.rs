//! The native endpoint: batches in, acknowledgements out. Decoding and publishing happen where the message is
//! received: neither blocks, and an answer means that the bus has the events.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ocbus_resolver::Cn;
use ocbus_wire::native::{Ack, Batch};
use ocbus_wire::{Endpoint, Event, EventKind};

use super::{Counters, Held, SubscriberConfig, SubscriberError};
use crate::bus::Bus;
use crate::sockets::{Role, Server};

/// The native socket.
#[derive(Debug)]
pub(super) struct NativeSocket(Server);

struct Receiver {
    bus: Bus,
    held: Arc<Held>,
    counters: Arc<Counters>,
}

impl NativeSocket {
    pub(super) fn listen(
        config: &SubscriberConfig,
        bind: &Endpoint,
        bus: &Bus,
        held: &Arc<Held>,
        counters: &Arc<Counters>,
    ) -> Result<NativeSocket, SubscriberError> {
        let receiver = Receiver { bus: bus.clone(), held: Arc::clone(held), counters: Arc::clone(counters) };
        let handler = Arc::new(move |request: &[u8]| receiver.take(request));
        Ok(NativeSocket(Server::listen(Role::Reply, bind, &config.listen_options(counters), handler)?))
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }
}

fn answer(ack: &Ack) -> Vec<u8> {
    // An acknowledgement is far below its limit; an empty one says nothing, and the batch comes again.
    ack.encode().unwrap_or_default()
}

impl Receiver {
    fn take(&self, request: &[u8]) -> Vec<u8> {
        let batch = match Batch::decode(request) {
            Ok(batch) => batch,
            Err(error) => {
                let count = self.counters.malformed.fetch_add(1, Ordering::Relaxed) + 1;
                if count.is_power_of_two() {
                    tracing::warn!(event = "batch_refused", reason = %error, count, "a batch could not be read");
                }
                return answer(&Ack::refused(error.to_string()));
            }
        };
        let counters = &self.counters;
        let add = |counter: &std::sync::atomic::AtomicU64, count: usize| {
            counter.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
        };
        add(&counters.batches, 1);
        add(&counters.malformed, batch.skipped);
        let (mut taken, mut strangers) = (0u32, BTreeSet::new());
        for event in batch.events {
            if !self.holds(&event) {
                add(&counters.strangers, 1);
                strangers.insert(event.user);
                continue;
            }
            taken = taken.saturating_add(1);
            add(&counters.events, 1);
            self.bus.publish(event);
        }
        let skipped = u32::try_from(batch.skipped).unwrap_or(u32::MAX);
        answer(&Ack::taken(taken, skipped, strangers.into_iter().collect()))
    }

    fn holds(&self, event: &Event) -> bool {
        // A resync for everybody has no user.
        (event.user.is_empty() && matches!(event.kind, EventKind::Resync { .. }))
            || Cn::new(&event.user).is_ok_and(|cn| self.held.lock().contains_key(&cn))
    }
}
