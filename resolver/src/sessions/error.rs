use ocbus_wire::openchange::{DecodeError, EncodeError};

use crate::error::ResolverError;

/// Why a call on a session's records failed. Unless it says otherwise the records are as they were.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionsError {
    /// The session is registered already (OpenChange: "Non-specific error").
    #[error("{key}: is there already")]
    SessionExists {
        /// The record's key.
        key: String,
    },
    /// The session has a subscription with this handle already (OpenChange: "Already Exists").
    #[error("{key}: handle 0x{handle:x} is subscribed already")]
    HandleExists {
        /// The record's key.
        key: String,
        /// The handle.
        handle: u32,
    },
    /// There is no such record, or no such handle in it (OpenChange: "Not Found").
    #[error("{key}: not found")]
    NotFound {
        /// The record's key.
        key: String,
    },
    /// What was given cannot be stored: a name beyond the dos charset (OpenChange: "Invalid Data"), or more
    /// subscriptions or octets than fit.
    #[error("{key}: {source}")]
    Invalid {
        /// The record's key.
        key: String,
        /// Why.
        #[source]
        source: EncodeError,
    },
    /// The stored record is malformed. It was left alone.
    #[error("{key}: {source}")]
    Malformed {
        /// The record's key.
        key: String,
        /// Where and why.
        #[source]
        source: DecodeError,
    },
    /// memcached failed, or others kept changing the record. Whether a write happened is not known.
    #[error(transparent)]
    Store(#[from] ResolverError),
}
