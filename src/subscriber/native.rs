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
        let batch = match Batch::decode_as::<Arc<Event>>(request) {
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
        let mut events = batch.events;
        let strangers = self.take_strangers(&mut events);
        let taken = u32::try_from(events.len()).unwrap_or(u32::MAX);
        add(&counters.events, events.len());
        self.bus.publish_shared(events);
        let skipped = u32::try_from(batch.skipped).unwrap_or(u32::MAX);
        answer(&Ack::taken(taken, skipped, strangers.into_iter().collect()))
    }

    /// Takes out the events of users who are not held here, and gives the users.
    fn take_strangers(&self, events: &mut Vec<Arc<Event>>) -> BTreeSet<String> {
        let mut strangers = BTreeSet::new();
        let told = events.len();
        let held = self.held.lock();
        // Most batches are one user's.
        let mut last: Option<(String, bool)> = None;
        events.retain(|event| {
            // A resync for everybody has no user.
            if event.user.is_empty() && matches!(event.kind, EventKind::Resync { .. }) {
                return true;
            }
            if let Some((user, holds)) = &last
                && *user == event.user
            {
                return *holds;
            }
            let holds = Cn::new(&event.user).is_ok_and(|cn| held.contains_key(&cn));
            if !holds {
                strangers.insert(event.user.clone());
            }
            last = Some((event.user.clone(), holds));
            holds
        });
        drop(held);
        let count = u64::try_from(told - events.len()).unwrap_or(u64::MAX);
        self.counters.strangers.fetch_add(count, Ordering::Relaxed);
        strangers
    }
}
