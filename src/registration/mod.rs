//! Registration with Dovecot: whose mails its push drivers tell of.
//!
//! Dovecot's OX and Lua drivers look at the key [`KEY`] in the METADATA (RFC 5464) of the user's mailbox `""`. Without
//! it they are silent. The [`Registrar`] keeps it set for users that have sessions and for those that are permanent,
//! and takes it back when the last session has been gone for a while.
//!
//! * [`settings`]: the section `[registration]` of the settings.
//! * `core`: which registration is looked at, made or taken back next. No I/O, no clock.
//! * `claims`: what was done by hand at one daemon, for all others to know.
//! * `share`: which daemon looks after which user.
//! * `registrar`: the tasks around `core`: sessions from the resolver, other daemons, outcomes.
//! * `reach`: Dovecot, by [`doveadm`] (its HTTP API) or [`metadata`] (IMAP); `endpoints`: which server is asked.
//! * `keep`: the file that outlives a restart.
//! * `http`: `/v1/users`, for `ocbus users`; its client is [`gateway::remote`](crate::gateway::remote).

mod claims;
mod core;
pub mod doveadm;
mod endpoints;
mod http;
mod keep;
pub mod metadata;
mod reach;
mod registrar;
pub mod settings;
mod share;
mod template;
pub(crate) mod tls;

pub use core::{Entry, Refusal, State};
pub use http::router;
pub use registrar::{Registrar, RegistrarStatistics, Sessions};
pub use settings::{RegistrationConfig, RegistrationError, RegistrationSettings};
pub use template::Template;
pub use tls::TlsError;

/// The key that Dovecot's push drivers look at, on the mailbox `""`.
pub const KEY: &str = "/private/vendor/vendor.dovecot/http-notify";
