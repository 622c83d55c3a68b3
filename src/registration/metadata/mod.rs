//! Metadata by IMAP: GETMETADATA and SETMETADATA (RFC 5464) on the mailbox `""`, logged in as each user.
//!
//! * `command`: what is said to the server, as text. No I/O.
//! * `bounded`: what a server may say to us.
//! * `client`: the exchange, over async-imap.
//!
//! async-imap is what Delta Chat speaks with its Dovecots, GETMETADATA included; it is released, runs on tokio, and
//! leaves the connection to us. (imap-next and imap-codec have typed commands, but are alpha.) At its level
//! `trace` it would log what it sends, passwords too; it does so by the crate `log`, which nothing here listens to.

mod bounded;
mod client;
mod command;
mod endpoint;

pub(super) use client::Act;
pub use client::{Imap, ImapConfig, ImapError, Login};
pub use endpoint::ImapEndpoint;
