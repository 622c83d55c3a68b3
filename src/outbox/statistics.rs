use super::trace::{Reason, SendOutcome, Source};

/// Upper bounds of [`Statistics::latency`], in microseconds; one more bucket holds what is above the last.
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
        let at = LATENCY_BOUNDS_US.partition_point(|bound| *bound < latency_us);
        if let Some(bucket) = self.latency.get_mut(at) {
            *bucket += 1;
        }
        self.latency_sum_us = self.latency_sum_us.saturating_add(latency_us);
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

fn add(counters: &mut [u64], at: Option<usize>, count: u64) {
    if let Some(counter) = at.and_then(|at| counters.get_mut(at)) {
        *counter = counter.saturating_add(count);
    }
}
