/// What an engine holds now, and what it has done since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
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
    /// Resyncs: of the bus, and own ones when too many events waited for ids.
    pub resyncs: u64,
    /// Replies put into queues.
    pub queued: u64,
    /// Replies that one in the queue already says, or was made to say.
    pub folded: u64,
    /// Replies that did not fit into a full queue; a resync of their folders and tables stands for them.
    pub lost: u64,
    /// Times that a queue was full.
    pub overflows: u64,
    /// Replies fetched.
    pub taken: u64,
    /// Questions to the host.
    pub queries: u64,
    /// Of these, unanswered in time.
    pub query_timeouts: u64,
    /// Of these, answered as failed, or by something else than was asked.
    pub query_failures: u64,
    /// Of these, answered as unknown: a folder that the host does not have, a message, a row. Messages count each.
    pub query_unknown: u64,
    /// Answers that came too late, or to nothing that was asked.
    pub late_answers: u64,
    /// Events of which an id was missing, so that less was told: the folder and its tables, or, without a folder, a
    /// resync of the user's sessions.
    pub events_without_ids: u64,
    /// Events that came while too many waited for ids; a resync stands for them.
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
}
