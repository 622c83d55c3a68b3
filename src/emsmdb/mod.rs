//! What makes Outlook refresh.
pub mod engine;
mod room;
pub mod sogo;

pub use room::{MAX_PAYLOAD_OCTETS, notification_room};
