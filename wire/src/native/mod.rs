//! ocbus's own formats: MessagePack maps with named fields, versioned and bounded.
//!
//! They evolve both ways. A reader skips fields and kinds that it does not know and gives missing ones their
//! default; a change that an old reader could not take gets a new version number, which the old reader
//! refuses by name. `docs/formats.md` lists every field.

mod ack;
mod batch;
mod error;
mod event_map;
mod lease;
mod msgpack;

pub use ack::Ack;
pub use batch::{Batch, DecodedBatch, MAX_BATCH_OCTETS, MAX_EVENTS};
pub use error::{DecodeError, EncodeError};
pub use lease::{Lease, LeaseRecord};

/// The version of the native formats that this crate writes, and the only one that it reads.
pub const VERSION: u32 = 1;
