//! `ocbus serve`: the daemon for stock Dovecot's push drivers, for our Lua script and for our plugin's hand-over.
//!
//! * [`settings`]: `ocbus.toml`, its secrets, and what a reload changes;
//! * [`users`]: from a request's `user` to a cn; [`credentials`]: who may send; `tls`: our certificate;
//! * [`http`]: the end-points and the connections to them;
//! * `status`: metrics, the page at `/`, and traces;
//! * [`remote`]: the client of all this, for our own commands; `following`: traces, for `ocbus trace`;
//! * `daemon`: all parts put together; [`lifecycle`]: signals and systemd.
//!
//! A request is read within bounds, its user becomes a cn, and its events go to the [`Outbox`](crate::Outbox), which
//! only counts and queues them: the answer goes out before anything is looked up or sent.

pub mod credentials;
mod daemon;
mod following;
pub mod http;
pub mod lifecycle;
pub mod remote;
pub mod settings;
mod status;
mod tls;
pub mod users;

pub use daemon::{Daemon, DaemonError};
pub use following::{Following, Told};
pub use http::Gateway;
pub use settings::{Loaded, Settings, SettingsError};
pub use status::Status;
pub use tls::{Identity, IdentityError};
