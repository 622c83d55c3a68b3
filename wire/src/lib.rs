//! The event model of ocbus and every byte format it speaks. No I/O, no clock, no async: each format is
//! a pair of functions between octets and values, used alike by the Dovecot plugin, the daemon, the
//! command and the fuzz targets.
//!
//! * [`Event`]: what happened in a mailbox, in the names of RFC 5423.
//! * [`native`]: batches of events and their acknowledgement (MessagePack), and the lease record.
//! * [`openchange`]: the records and the new-mail payload of OpenChange 2.x, octet for octet.
//! * [`ropnotify`]: the ROPs of MAPI notifications, which an emsmdb server sends to Outlook.
//! * [`sp`]: the handshake and the frames of nanomsg's SP protocols over tcp and ipc.
//! * [`json`]: events as JSON, for `POST /v1/events`, `ocbus inspect` and `ocbus watch --json`.
//! * [`ox`]: the JSON that Dovecot's own push driver sends.
//! * [`Endpoint`]: where a subscriber listens.
//!
//! `docs/formats.md` shows each format with a worked example in hex.

mod endpoint;
mod event;
#[cfg(feature = "json")]
pub mod json;
pub mod native;
mod octets;
pub mod openchange;
#[cfg(feature = "json")]
pub mod ox;
pub mod ropnotify;
pub mod sp;

pub use endpoint::{Endpoint, EndpointError};
pub use event::{Event, EventKind, Mailbox, NewMessage, ResyncReason, Transfer, UidSet};
