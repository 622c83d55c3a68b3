//! The Dovecot plugin `lib90_openchange_plugin.so`: tells the subscribers of a user what happens in the mailboxes,
//! whatever process of Dovecot does it.
//!
//! Mail comes first: nothing here fails, crashes, duplicates or delays a delivery or a command by more than the
//! budget. No thread, no runtime; one deadline for everything that a transaction costs.
//!
//! * `shim/openchange-shim.c`: reads Dovecot's structs. The only part that differs between its versions.
//! * [`ffi`]: the border to the shim, and the only unsafe code.
//! * [`settings`]: a user's settings, checked.
//! * [`filter`]: which events are told, of which mailboxes.
//! * [`transaction`]: what one transaction does, collected as ranges, and the events that it makes.
//! * [`outbox`]: what has not been told yet; copies and expunges become moves here.
//! * [`session`]: a user of this process: when what is told.
//! * [`publish`]: look up, send, settle, within the budget; what to log about it.
//! * [`handover`]: giving it to the daemon instead, which does all that.
//! * [`sender`]: many short SP exchanges at once, in the calling thread.
//! * [`log`]: lines for Dovecot's log.

mod ffi;
pub mod filter;
mod handover;
pub mod log;
pub mod outbox;
pub mod publish;
pub mod sender;
pub mod session;
pub mod settings;
pub mod transaction;
