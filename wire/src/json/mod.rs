//! Events as JSON: the body of `POST /v1/events`, what `ocbus inspect` reads and writes, and what
//! `ocbus watch --json` prints. `docs/formats.md` has the fields.

mod document;
mod error;
mod event;
mod fields;
mod read;
mod uids;

pub use document::{Decoded, Limits, Skipped, decode_events, encode_events};
pub(crate) use error::text;
pub use error::{FieldError, JsonError};
pub use event::EventJson;
pub(crate) use fields::shown;
pub use fields::{Fields, Unsigned, number};
pub use read::{Reading, read_event};
pub(crate) use uids::listed;

/// The version of the document, under `v`.
pub const VERSION: u32 = 1;
