use std::io::{self, ErrorKind, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::config::EmbeddedConfig;
use super::statistics::EmbeddedStatistics;
use super::store::Store;
use super::text::VERSION;

/// Memory for requests and answers that are longer than usual, of all clients together, in KiB.
const LARGE_KIB: usize = 64 * 1024;

/// A client's leave to take memory beyond the usual.
#[derive(Debug)]
pub(super) struct Large<'s> {
    shared: &'s Shared,
    permit: Option<SemaphorePermit<'s>>,
}

impl<'s> Large<'s> {
    pub(super) fn none(shared: &'s Shared) -> Large<'s> {
        Large { shared, permit: None }
    }

    /// Waits for leave to have so many octets in all, for as long as its patience; an error where others have it.
    pub(super) async fn hold(&mut self, octets: usize) -> io::Result<()> {
        let held = self.permit.as_ref().map_or(0, SemaphorePermit::num_permits);
        let Some(more @ 1..) = (octets / 1024 + 1).checked_sub(held) else { return Ok(()) };
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let shared = self.shared;
        match (timeout(shared.config.patience, shared.large.acquire_many(more)).await, &mut self.permit) {
            (Ok(Ok(permit)), Some(held)) => held.merge(permit),
            (Ok(Ok(permit)), none) => *none = Some(permit),
            _ => return Err(io::Error::new(ErrorKind::OutOfMemory, "too many large requests at once")),
        }
        Ok(())
    }

    pub(super) fn let_go(&mut self) {
        self.permit = None;
    }
}

/// What all connections of an embedded resolver share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: EmbeddedConfig,
    store: Mutex<Store>,
    started: Instant,
    started_ms: u64,
    pub(super) large: Semaphore,
    told_binary: AtomicBool,
    pub(super) connections: AtomicU64,
    pub(super) accepted: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) binary: AtomicU64,
}

impl Shared {
    pub(super) fn new(config: EmbeddedConfig) -> Shared {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Shared {
            store: Mutex::new(Store::new(config.max_octets)),
            config,
            started: Instant::now(),
            started_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            large: Semaphore::new(LARGE_KIB),
            told_binary: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            binary: AtomicU64::new(0),
        }
    }

    /// Milliseconds since the Unix epoch, by a clock that never goes back: a leap of the system's ends no record.
    pub(super) fn now_ms(&self) -> u64 {
        let since = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.started_ms.saturating_add(since)
    }

    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says once that a client speaks what we do not.
    pub(super) fn tell_binary(&self) {
        self.binary.fetch_add(1, Ordering::Relaxed);
        if !self.told_binary.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                event = "binary_protocol_refused",
                "a client speaks memcached's binary protocol: expected a configuration without --BINARY-PROTOCOL; \
                 its connections are closed"
            );
        }
    }

    pub(super) fn statistics(&self) -> EmbeddedStatistics {
        let now_ms = self.now_ms();
        let mut store = self.store();
        let (records, octets) = store.size(now_ms);
        let counts = store.counts;
        drop(store);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EmbeddedStatistics {
            records,
            octets,
            max_octets: self.config.max_octets,
            connections: read(&self.connections),
            accepted: read(&self.accepted),
            rejected_peers: read(&self.rejected),
            gets: counts.gets,
            hits: counts.hits,
            puts: counts.puts,
            refused: counts.refused,
            expired: counts.expired,
            malformed: read(&self.malformed),
            binary: read(&self.binary),
        }
    }

    /// The rows of `stats`, under memcached's names where it has such.
    pub(super) fn rows(&self, out: &mut Vec<u8>) {
        let statistics = self.statistics();
        let rows: [(&str, u64); 16] = [
            ("pid", u64::from(std::process::id())),
            ("uptime", self.started.elapsed().as_secs()),
            ("time", self.now_ms() / 1000),
            ("curr_connections", statistics.connections),
            ("total_connections", statistics.accepted),
            ("rejected_connections", statistics.rejected_peers),
            ("cmd_get", statistics.gets),
            ("cmd_set", statistics.puts),
            ("get_hits", statistics.hits),
            ("get_misses", statistics.gets.saturating_sub(statistics.hits)),
            ("limit_maxbytes", u64::try_from(statistics.max_octets).unwrap_or(u64::MAX)),
            ("bytes", u64::try_from(statistics.octets).unwrap_or(u64::MAX)),
            ("curr_items", u64::try_from(statistics.records).unwrap_or(u64::MAX)),
            ("expired", statistics.expired),
            ("refused", statistics.refused),
            ("evictions", 0),
        ];
        // Writing to memory does not fail.
        for (name, value) in rows {
            let _ = write!(out, "STAT {name} {value}\r\n");
        }
        let _ = write!(out, "STAT version {VERSION}\r\n");
    }
}
