//! The JSON of Dovecot's OX push driver, and of scripts that send the same with more in it (EGroupware's).
//! `docs/formats.md` has the fields, and what Dovecot is known to send.

mod error;
mod header;
mod notification;

pub use error::OxError;
pub use notification::{OxEvent, OxNotification, RepeatKey};
