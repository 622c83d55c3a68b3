use crate::json::{FieldError, JsonError};

/// Why a body is no notification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OxError {
    /// Too large, not UTF-8, or not JSON. Dovecot before 2.2.33 writes no JSON for a mail without From or
    /// Subject.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A field is missing or is not what it has to be.
    #[error(transparent)]
    Field(#[from] FieldError),
}
