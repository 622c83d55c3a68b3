//! The waiting call: EcDoAsyncWaitEx, or MAPI/HTTP NotificationWait.

use uuid::Uuid;

/// A parked wait: another for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaitId(pub(super) u64);

impl WaitId {
    /// As a number, for a host that keeps it so.
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// From the number.
    pub fn from_u64(id: u64) -> WaitId {
        WaitId(id)
    }
}

/// What became of a call that wants to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parked {
    /// It is parked; it will be completed once.
    Parked(WaitId),
    /// It is answered at once.
    Done(WaitOutcome),
}

/// A wait that was parked and is to be answered now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completed {
    /// Which wait.
    pub wait: WaitId,
    /// Of which session.
    pub session: Uuid,
    /// How.
    pub outcome: WaitOutcome,
}

/// How a wait is answered (MS-OXCRPC 3.3.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WaitOutcome {
    /// Something is queued: the client is to fetch it.
    EventPending,
    /// Nothing came for almost five minutes: the client waits again.
    TimedOut,
    /// A wait is parked for the session, and the policy is to keep it; or the policy is to replace it, and this one
    /// was; or the session cannot be waited for here (a limit). A client that reads this may fall back to polling.
    Rejected,
    /// The session is unknown, closed or expired. The flag is set, so that the client makes its next call and finds
    /// out.
    UnknownSession,
    /// The server is stopping.
    Exiting,
}

impl WaitOutcome {
    /// The flag NotificationPending of pulFlagsOut.
    pub const NOTIFICATION_PENDING: u32 = 1;

    /// The name in logs and statistics.
    pub fn name(self) -> &'static str {
        match self {
            WaitOutcome::EventPending => "event-pending",
            WaitOutcome::TimedOut => "timed-out",
            WaitOutcome::Rejected => "rejected",
            WaitOutcome::UnknownSession => "unknown-session",
            WaitOutcome::Exiting => "exiting",
        }
    }

    /// The call's return value: 0, 0x7EE (Rejected) or 0x3ED (Exiting).
    pub fn result(self) -> u32 {
        match self {
            WaitOutcome::EventPending | WaitOutcome::TimedOut | WaitOutcome::UnknownSession => 0,
            WaitOutcome::Rejected => 0x7ee,
            WaitOutcome::Exiting => 0x3ed,
        }
    }

    /// pulFlagsOut.
    pub fn flags(self) -> u32 {
        match self {
            WaitOutcome::EventPending | WaitOutcome::UnknownSession => WaitOutcome::NOTIFICATION_PENDING,
            WaitOutcome::TimedOut | WaitOutcome::Rejected | WaitOutcome::Exiting => 0,
        }
    }

    /// The body of a MAPI/HTTP NotificationWait response: StatusCode, ErrorCode, EventPending and the size of an
    /// auxiliary buffer, which there is not. Each a u32, little-endian. It is the same wait: the HTTP part
    /// (PROCESSING, PENDING each 15 s, DONE) is the server's.
    pub fn notification_wait_body(self) -> [u8; 16] {
        let mut body = [0; 16];
        for (place, value) in body.as_chunks_mut().0.iter_mut().zip([0, self.result(), self.flags(), 0]) {
            *place = value.to_le_bytes();
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_and_flags_are_those_of_the_rules() {
        let rows = [
            (WaitOutcome::EventPending, 0, 1),
            (WaitOutcome::TimedOut, 0, 0),
            (WaitOutcome::Rejected, 0x7ee, 0),
            (WaitOutcome::UnknownSession, 0, 1),
            (WaitOutcome::Exiting, 0x3ed, 0),
        ];
        for (outcome, result, flags) in rows {
            assert_eq!((outcome.result(), outcome.flags()), (result, flags), "{outcome:?}");
        }
    }

    #[test]
    fn the_body_of_notification_wait_is_the_one_of_the_reference() {
        let event = [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(WaitOutcome::EventPending.notification_wait_body(), event);
        assert_eq!(WaitOutcome::TimedOut.notification_wait_body(), [0; 16]);
        assert_eq!(WaitOutcome::Rejected.notification_wait_body()[4..8], [0xee, 7, 0, 0]);
    }
}
