/// What is wrong with one field, or with an event whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct FieldError {
    place: String,
    problem: String,
}

impl FieldError {
    pub(crate) fn new(place: impl Into<String>, problem: impl Into<String>) -> FieldError {
        FieldError { place: place.into(), problem: problem.into() }
    }

    /// Where: `events[0].uids`.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// What is there, and what was expected.
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

impl From<FieldError> for String {
    fn from(error: FieldError) -> String {
        error.to_string()
    }
}

/// Why a document is none, so that nothing of it was taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// More octets than are allowed; nothing was read.
    #[error("{size} octets: expected at most {limit}")]
    TooLarge {
        /// Octets given.
        size: usize,
        /// Octets allowed.
        limit: usize,
    },
    /// Octets that are no UTF-8.
    #[error("at octet {offset}: no UTF-8: expected JSON in UTF-8")]
    NotUtf8 {
        /// The first of them, from 0.
        offset: usize,
    },
    /// Not JSON, or not of the document's shape.
    #[error("at octet {offset}: {problem}")]
    Malformed {
        /// The octet at which reading stopped, from 0.
        offset: usize,
        /// What was expected.
        problem: String,
    },
    /// A version that this ocbus does not read.
    #[error("v: {found}: expected {}", super::VERSION)]
    Version {
        /// The version that the writer named.
        found: u64,
    },
}

impl JsonError {
    /// What serde_json says, with an offset in octets in place of its line and column.
    pub(crate) fn malformed(text: &str, error: &serde_json::Error) -> JsonError {
        let said = error.to_string();
        let problem = said.rsplit_once(" at line ").map_or(said.as_str(), |(problem, _)| problem);
        // A line's octets and its end; the column counts the octets read of the last one.
        let before: usize =
            text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        let read = before.saturating_add(error.column());
        let offset = if error.is_eof() { text.len() } else { read.saturating_sub(1).min(text.len()) };
        JsonError::Malformed { offset, problem: problem.to_owned() }
    }
}

/// A text's octets, if they are not too many and are UTF-8.
pub(crate) fn text(octets: &[u8], limit: usize) -> Result<&str, JsonError> {
    if octets.len() > limit {
        return Err(JsonError::TooLarge { size: octets.len(), limit });
    }
    std::str::from_utf8(octets).map_err(|error| JsonError::NotUtf8 { offset: error.valid_up_to() })
}
