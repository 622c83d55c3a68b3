//! The SP protocols of nanomsg over tcp and ipc, as octets. No I/O and no clock: the caller owns the
//! socket and the deadline.
//!
//! * [`handshake`]: the 8 octets that each side sends first.
//! * [`frame`]: length-prefixed messages, encoder and incremental decoder.
//! * [`exchange`]: the whole conversation of a short-lived sender, PUSH or REQ, as a state machine.
//!
//! What real peers send, and how libnanomsg reacts to bad ones, stands in
//! `tests/data/openchange/sp_framing.json`; `wire/tests/sp_framing.rs` plays it.

pub mod exchange;
pub mod frame;
pub mod handshake;

pub use exchange::{Exchange, ExchangeError, Outcome};
pub use frame::{FrameDecoder, FrameError, encode_frame};
pub use handshake::{HANDSHAKE_LEN, Handshake, HandshakeError, Protocol};

/// What carries the messages; the two differ in the head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// `tcp://host:port`: a frame is a length and the message.
    Tcp,
    /// `ipc://path`, a unix socket: a frame is one octet 01, a length and the message.
    Ipc,
}
