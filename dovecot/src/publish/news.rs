//! What a transaction has to tell, and what is made of it when somebody wants it.

use ocbus_wire::Event;

use crate::transaction::Delivery;

/// What a transaction has to tell; events are made when somebody wants them.
pub(super) enum News {
    Delivery(Delivery),
    /// `unclear`: the daemon may have them too.
    Events {
        events: Vec<Event>,
        unclear: bool,
    },
}

impl News {
    pub(super) fn len(&self) -> usize {
        match self {
            News::Delivery(delivery) => delivery.len(),
            News::Events { events, .. } => events.len(),
        }
    }

    pub(super) fn is_unclear(&self) -> bool {
        matches!(self, News::Events { unclear: true, .. })
    }

    pub(super) fn into_events(self, cn: &str) -> Vec<Event> {
        match self {
            News::Delivery(delivery) => delivery.into_events(cn),
            News::Events { events, .. } => events,
        }
    }
}
