use std::time::Duration;

use ocbus_wire::Event;

use super::trace::{Reason, SendOutcome, Source};

/// The kinds of events that are counted apart, by [`EventKind::name`](crate::EventKind::name); the last is for all others.
pub const COUNTED_KINDS: [&str; 16] = [
    "MessageNew",
    "MessageAppend",
    "MessageCopy",
    "MessageMove",
    "MessageRead",
    "MessageTrash",
    "MessageExpunge",
    "FlagsSet",
    "FlagsClear",
    "MailboxCreate",
    "MailboxDelete",
    "MailboxRename",
    "MailboxSubscribe",
    "MailboxUnsubscribe",
    "Resync",
    "other",
];

/// A number for each of [`COUNTED_KINDS`].
pub type ByKind = [u64; COUNTED_KINDS.len()];

/// Upper bounds of [`Statistics::latency`] and [`Statistics::lookup_time`], in microseconds; one more bucket holds what is above the last.
pub const LATENCY_BOUNDS_US: [u64; 16] = [
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    30_000_000,
    120_000_000,
];

/// What an outbox has done since it started, and what it holds now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Events accepted, by source ([`Source::ALL`]).
    pub accepted: [u64; Source::ALL.len()],
    /// The same, by source and kind.
    pub accepted_kinds: [ByKind; Source::ALL.len()],
    /// Events that were turned away whole because the outbox was full or stopping, by source.
    pub refused: [u64; Source::ALL.len()],
    /// Events that reached everybody who was registered.
    pub delivered: u64,
    /// Events that went without, by reason ([`Reason::ALL`]).
    pub dropped: [u64; Reason::ALL.len()],
    /// Events that an earlier process had accepted and left behind when it was killed; told by resyncs.
    pub left_behind: u64,
    /// Look-ups that were answered.
    pub lookups: u64,
    /// Look-ups that failed.
    pub lookup_failures: u64,
    /// Look-ups, answered or not, by the time they took; as [`Statistics::latency`].
    pub lookup_time: [u64; LATENCY_BOUNDS_US.len() + 1],
    /// The sum of these times.
    pub lookup_time_sum_us: u64,
    /// Events that native endpoints have acknowledged, once for each endpoint; resyncs of the outbox included.
    pub sent_native: ByKind,
    /// Events that were pushed to legacy endpoints, once for each endpoint.
    pub sent_legacy: ByKind,
    /// Sends to endpoints, by outcome ([`SendOutcome::ALL`]).
    pub sends: [u64; SendOutcome::ALL.len()],
    /// Sends that were made again after one that failed.
    pub retries: u64,
    /// Mails that a legacy endpoint did not get, and nobody could be told.
    pub legacy_lost: u64,
    /// Resyncs that the outbox made for what it dropped.
    pub resyncs: u64,
    /// Events held now.
    pub held_events: u64,
    /// What they take, in octets.
    pub held_octets: u64,
    /// Users who have events waiting now.
    pub waiting_users: u64,
    /// Users who wait for a look-up now.
    pub lookup_queue: u64,
    /// Whether the resolver is out of reach now.
    pub resolver_outage: bool,
    /// Events by the time between their own time (Dovecot's commit) and a native endpoint's acknowledgement: how
    /// many are within each of [`LATENCY_BOUNDS_US`] and above the one before; not cumulated.
    pub latency: [u64; LATENCY_BOUNDS_US.len() + 1],
    /// The sum of these times.
    pub latency_sum_us: u64,
}

impl Statistics {
    /// Counts a time.
    pub(super) fn add_latency(&mut self, latency_us: u64) {
        observe(&mut self.latency, &mut self.latency_sum_us, latency_us);
    }

    /// Counts a look-up's time.
    pub(super) fn add_lookup_time(&mut self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        observe(&mut self.lookup_time, &mut self.lookup_time_sum_us, took_us);
    }

    /// Counts what an endpoint has taken.
    pub(super) fn add_sent<'a>(&mut self, native: bool, events: impl Iterator<Item = &'a Event>) {
        let counters = if native { &mut self.sent_native } else { &mut self.sent_legacy };
        events.for_each(|event| add(counters, kind(event), 1));
    }

    /// Counts accepted events by their kinds.
    pub(super) fn add_accepted_kinds(&mut self, source: Source, events: &[Event]) {
        let at = Source::ALL.iter().position(|one| *one == source);
        let Some(counters) = at.and_then(|at| self.accepted_kinds.get_mut(at)) else { return };
        events.iter().for_each(|event| add(counters, kind(event), 1));
    }

    pub(super) fn add_dropped(&mut self, reason: Reason, count: u64) {
        add(&mut self.dropped, Reason::ALL.iter().position(|one| *one == reason), count);
    }

    pub(super) fn add_accepted(&mut self, source: Source, count: u64) {
        add(&mut self.accepted, Source::ALL.iter().position(|one| *one == source), count);
    }

    pub(super) fn add_refused(&mut self, source: Source, count: u64) {
        add(&mut self.refused, Source::ALL.iter().position(|one| *one == source), count);
    }

    pub(super) fn add_send(&mut self, outcome: SendOutcome) {
        add(&mut self.sends, SendOutcome::ALL.iter().position(|one| *one == outcome), 1);
    }
}

fn observe(buckets: &mut [u64], sum_us: &mut u64, us: u64) {
    let at = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us);
    add(buckets, Some(at), 1);
    *sum_us = sum_us.saturating_add(us);
}

fn kind(event: &Event) -> Option<usize> {
    let name = event.kind.name();
    let known = COUNTED_KINDS.iter().position(|kind| *kind == name);
    known.or(Some(COUNTED_KINDS.len() - 1))
}

fn add(counters: &mut [u64], at: Option<usize>, count: u64) {
    if let Some(counter) = at.and_then(|at| counters.get_mut(at)) {
        *counter = counter.saturating_add(count);
    }
}
