use uuid::Uuid;

/// Why a session cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is one with this GUID.
    #[error("session {guid} is open already: expected a GUID of its own for each session")]
    Duplicate {
        /// The GUID.
        guid: Uuid,
    },
    /// The user has as many as allowed.
    #[error("user {cn} has {max} sessions: expected at most sessions_per_user = {max}")]
    TooManyOfUser {
        /// The user.
        cn: String,
        /// The bound.
        max: usize,
    },
    /// There are as many as allowed.
    #[error("there are {max} sessions: expected at most sessions = {max}")]
    TooMany {
        /// The bound.
        max: usize,
    },
    /// The server is stopping.
    #[error("the server is stopping: no session is opened")]
    Stopping,
}

/// Why a subscription or a table cannot be added or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// No such session: never opened, closed or expired.
    #[error(transparent)]
    Session(#[from] UnknownSession),
    /// The handle is one of the session's already.
    #[error("handle {handle:#x} is in use: expected one of its own for each subscription and table")]
    Duplicate {
        /// The handle.
        handle: u32,
    },
    /// The session has as many as allowed.
    #[error("the session has {max} subscriptions and tables: expected at most handles_per_session = {max}")]
    TooMany {
        /// The bound.
        max: usize,
    },
    /// No such table, or no such handle.
    #[error("handle {handle:#x}: no such subscription or table in the session")]
    Unknown {
        /// The handle.
        handle: u32,
    },
    /// More columns than a table may have.
    #[error("{columns} columns: expected at most {}", super::MAX_COLUMNS)]
    Columns {
        /// How many.
        columns: usize,
    },
}

/// No such session: never opened, closed or expired. Its client is to connect again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("session {0} is unknown: never opened, closed or expired")]
pub struct UnknownSession(pub Uuid);
