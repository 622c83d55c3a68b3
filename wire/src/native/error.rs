/// Why octets are not a native batch, acknowledgement or lease record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Larger than the format allows; nothing was read.
    #[error("{size} octets: expected at most {limit}")]
    TooLarge {
        /// Octets given.
        size: usize,
        /// Octets allowed.
        limit: usize,
    },
    /// Written by a newer ocbus, in a format that this one cannot read.
    #[error("version {found}: this ocbus reads version {}", super::VERSION)]
    Version {
        /// The version that the writer named.
        found: u32,
    },
    /// Not MessagePack, or not of this shape.
    #[error("at octet {offset}: {}", told(source))]
    Malformed {
        /// Octets read before it went wrong.
        offset: usize,
        /// What was wrong.
        #[source]
        source: rmp_serde::decode::Error,
    },
    /// Octets left over behind the value.
    #[error("at octet {offset}: {left} octets left over behind the value")]
    Trailing {
        /// Where the value ended.
        offset: usize,
        /// Octets behind it.
        left: usize,
    },
}

impl DecodeError {
    /// The octet at which reading stopped.
    pub fn offset(&self) -> usize {
        match self {
            DecodeError::TooLarge { limit, .. } => *limit,
            DecodeError::Version { .. } => 0,
            DecodeError::Malformed { offset, .. } | DecodeError::Trailing { offset, .. } => *offset,
        }
    }
}

/// Why a value cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// Larger than the format allows, even alone.
    #[error("{size} octets: expected at most {limit}")]
    TooLarge {
        /// Octets it would take.
        size: usize,
        /// Octets allowed.
        limit: usize,
    },
    /// More elements than a reader takes.
    #[error("{count} {what}: expected at most {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// MessagePack cannot express it.
    #[error("cannot be written: {0}")]
    Malformed(#[from] rmp_serde::encode::Error),
}

/// rmp-serde's words, but for the commonest fault, which it tells as one of I/O.
fn told(error: &rmp_serde::decode::Error) -> String {
    use rmp_serde::decode::Error::{InvalidDataRead, InvalidMarkerRead};
    match error {
        InvalidMarkerRead(_) | InvalidDataRead(_) => "the input ends too early".to_owned(),
        other => other.to_string(),
    }
}
