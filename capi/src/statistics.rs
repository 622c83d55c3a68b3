use std::mem::size_of;

use crate::arguments::Out;
use crate::handle::{self, ocbus_t};
use crate::status::{Error, guard, ocbus_status};

/// What the library holds now, and what it has done since ocbus_create(). Fields may be added at its end.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct ocbus_statistics {
    /// Set by the caller to `sizeof(ocbus_statistics)`: how much it knows. Set by the library to how much it wrote.
    pub size: usize,
    /// Open sessions, now.
    pub sessions: u64,
    /// Users with a session, or within their grace, now.
    pub users: u64,
    /// Parked waits, now.
    pub parked: u64,
    /// Events that wait for ids, now.
    pub pending: u64,
    /// Replies in all queues, now.
    pub queued_replies: u64,
    /// Octets of these, now.
    pub queued_octets: u64,
    /// Events taken; resyncs are among them.
    pub events: u64,
    /// Events for users without a session.
    pub unheard: u64,
    /// Resyncs.
    pub resyncs: u64,
    /// Replies put into queues.
    pub queued: u64,
    /// Replies that one in the queue already says, or was made to say.
    pub folded: u64,
    /// Replies that did not fit into a full queue; a resync stands for them.
    pub lost: u64,
    /// Times that a queue was full.
    pub overflows: u64,
    /// Replies fetched.
    pub taken: u64,
    /// Questions to the server.
    pub queries: u64,
    /// Of these, unanswered in time.
    pub query_timeouts: u64,
    /// Of these, answered as failed, or by something else than was asked.
    pub query_failures: u64,
    /// Of these, answered as unknown; messages count each.
    pub query_unknown: u64,
    /// Answers that came too late, or to nothing that was asked.
    pub late_answers: u64,
    /// Events of which an id was missing, so that less was told.
    pub events_without_ids: u64,
    /// Events that came while too many waited for ids.
    pub events_over: u64,
    /// Waits answered because something was queued.
    pub waits_event: u64,
    /// Waits answered because their time was over.
    pub waits_timed_out: u64,
    /// Waits answered with 0x7EE.
    pub waits_rejected: u64,
    /// Waits for a session that there is not, or that ended meanwhile.
    pub waits_unknown: u64,
    /// Waits answered because the server stops.
    pub waits_exiting: u64,
    /// Sessions that nobody called for as long as they may idle.
    pub expired: u64,
    /// Sessions refused because of a limit.
    pub refused: u64,
    /// Events that came to the bus, those that came twice not among them.
    pub bus_published: u64,
    /// Events that came twice.
    pub bus_duplicates: u64,
    /// Events that the bus's queue lost; a resync stands for them.
    pub bus_lost: u64,
    /// Batches taken at the endpoint.
    pub batches: u64,
    /// Mails told by OpenChange v1 payloads.
    pub legacy_events: u64,
    /// Batches, payloads and events that could not be read.
    pub malformed: u64,
    /// Events for users without a session here.
    pub strangers: u64,
    /// Connections from outside the trusted networks that were turned away.
    pub rejected_peers: u64,
    /// Calls on the resolver that failed.
    pub resolver_failures: u64,
    /// Registrations that somebody else had removed or forgotten, and that were made again.
    pub registrations_lost: u64,
    /// Shared sessions (setting `sharing`), now; those among them whose records are still to be removed.
    pub shared: u64,
    /// Octets of replies appended to `deliver:`.
    pub shared_appended_octets: u64,
    /// Octets of replies taken from it.
    pub shared_taken_octets: u64,
    /// Times that `deliver:` was full, so that a resync took the place of what waited.
    pub shared_full: u64,
    /// Times that memcached had forgotten replies before they were fetched; a resync stands for them.
    pub shared_forgotten: u64,
    /// Calls on memcached for shared sessions that failed. They are repeated.
    pub shared_failures: u64,
}

/// Fills the part of `*statistics` that `statistics->size` covers.
///
/// Ownership: the caller's. Threads: any. Errors: OCBUS_ERROR_ARGUMENT (NULL, or `size` is not that of a structure).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_statistics_read(
    ocbus: *const ocbus_t,
    statistics: *mut ocbus_statistics,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let ocbus = unsafe { handle::get(ocbus)? };
        // SAFETY: likewise.
        let _checked = unsafe { Out::new("statistics", statistics)? };
        // SAFETY: every version of the structure begins with its size.
        let size = unsafe { (&raw const (*statistics).size).read_unaligned() };
        if size < 2 * size_of::<usize>() || size > 65_536 {
            let message = format!("statistics->size: {size}: expected sizeof(ocbus_statistics)");
            return Err(Error::argument(message));
        }
        let mut current = read(ocbus);
        current.size = size.min(size_of::<ocbus_statistics>());
        // SAFETY: the caller has `size` octets there, and `current` is not shorter than what is copied.
        unsafe {
            std::ptr::copy_nonoverlapping(
                (&raw const current).cast::<u8>(),
                statistics.cast::<u8>(),
                current.size,
            );
        }
        Ok(())
    })
}

fn read(ocbus: &ocbus_t) -> ocbus_statistics {
    let engine = ocbus.emsmdb.statistics();
    let bus = ocbus.bus.statistics();
    let sharing = ocbus.emsmdb.sharing_statistics();
    let subscriber = ocbus.subscriber.as_ref().map(|subscriber| subscriber.statistics()).unwrap_or_default();
    ocbus_statistics {
        size: 0,
        sessions: engine.sessions,
        users: engine.users,
        parked: engine.parked,
        pending: engine.pending,
        queued_replies: engine.queued_replies,
        queued_octets: engine.queued_octets,
        events: engine.events,
        unheard: engine.unheard,
        resyncs: engine.resyncs,
        queued: engine.queued,
        folded: engine.folded,
        lost: engine.lost,
        overflows: engine.overflows,
        taken: engine.taken,
        queries: engine.queries,
        query_timeouts: engine.query_timeouts,
        query_failures: engine.query_failures,
        query_unknown: engine.query_unknown,
        late_answers: engine.late_answers,
        events_without_ids: engine.events_without_ids,
        events_over: engine.events_over,
        waits_event: engine.waits_event,
        waits_timed_out: engine.waits_timed_out,
        waits_rejected: engine.waits_rejected,
        waits_unknown: engine.waits_unknown,
        waits_exiting: engine.waits_exiting,
        expired: engine.expired,
        refused: engine.refused,
        bus_published: bus.published,
        bus_duplicates: bus.duplicates,
        bus_lost: bus.lost,
        batches: subscriber.batches,
        legacy_events: subscriber.legacy_events,
        malformed: subscriber.malformed,
        strangers: subscriber.strangers,
        rejected_peers: subscriber.rejected_peers,
        resolver_failures: subscriber.resolver_failures,
        registrations_lost: subscriber.registrations_lost,
        shared: sharing.sessions,
        shared_appended_octets: sharing.appended_octets,
        shared_taken_octets: sharing.taken_octets,
        shared_full: sharing.full,
        shared_forgotten: sharing.forgotten,
        shared_failures: sharing.failures,
    }
}
