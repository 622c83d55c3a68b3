//! What a call on one user does to all.

use std::sync::Arc;
use std::time::Duration;

use ocbus_resolver::Cn;
use ocbus_wire::Event;

use super::super::config::OutboxConfig;
use super::super::trace::{SendOutcome, Step, Trace, TracedEvent};
use super::{Home, Sent};

impl Home<'_> {
    pub(super) fn pause(&mut self, attempts: u32) -> Duration {
        pause(self.config, attempts, self.random)
    }

    pub(super) fn count_send(&mut self, sent: Sent) {
        let outcome = match sent {
            Sent::Taken => SendOutcome::Taken,
            Sent::Nothing => return,
            Sent::Refused => SendOutcome::Refused,
            Sent::Gone => SendOutcome::Gone,
            Sent::Failed { .. } => SendOutcome::Failed,
        };
        self.statistics.add_send(outcome);
    }

    pub(super) fn trace(
        &mut self,
        cn: &Cn,
        events: &mut dyn Iterator<Item = &Event>,
        step: impl FnOnce() -> Step,
    ) {
        if self.traced {
            let events: Vec<TracedEvent> = events.map(TracedEvent::of).collect();
            let (time_us, user) = (self.now.us, cn.to_string());
            self.traces.push(Arc::new(Trace { time_us, user, events, step: step() }));
        }
    }
}

/// The pause before a retry: doubled each time, and between half and all of it, so that those who failed together do
/// not come back together.
pub(super) fn pause(config: &OutboxConfig, attempts: u32, random: &mut u64) -> Duration {
    let doubled = config.retry_min.saturating_mul(1u32.checked_shl(attempts).unwrap_or(u32::MAX));
    let whole = doubled.min(config.retry_max);
    // xorshift64
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    let part = u32::try_from(*random % 512).unwrap_or(0);
    whole / 2 + (whole / 1024) * part
}
