//! The Dovecot plugin `lib90_openchange_plugin.so`: tells the subscribers of a user about each mail that LDA or
//! LMTP delivers.
//!
//! Delivery comes first: nothing here fails, crashes, duplicates or delays it by more than the budget. No
//! thread, no runtime; one deadline for everything that a transaction costs.
//!
//! * `shim/openchange-shim.c`: reads Dovecot's structs. The only part that differs between its versions.
//! * [`ffi`]: the border to the shim, and the only unsafe code.
//! * [`settings`]: a user's settings, checked.
//! * [`transaction`]: what a committed transaction delivered, as events.
//! * [`publish`]: look up, send, settle, within the budget; what to log about it.
//! * [`handover`]: giving it to the daemon instead, which does all that.
//! * [`sender`]: many short SP exchanges at once, in the calling thread.
//! * [`log`]: lines for Dovecot's log.

mod ffi;
mod handover;
pub mod log;
pub mod publish;
pub mod sender;
pub mod settings;
pub mod transaction;
