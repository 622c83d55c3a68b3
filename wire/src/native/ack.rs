use serde::{Deserialize, Serialize};

use super::error::{DecodeError, EncodeError};
use super::{VERSION, msgpack};

/// The largest acknowledgement, in octets.
const MAX_ACK_OCTETS: usize = 64 * 1024;

/// The most users that an acknowledgement names.
const MAX_STRANGERS: usize = 4096;

/// The longest reason of a refusal: it goes to the publisher's log.
const MAX_REASON_OCTETS: usize = 512;

/// A subscriber's answer to a batch.
///
/// A batch with an answer is not sent again, whatever the answer says: what was refused once would be
/// refused for ever.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    v: u32,
    /// Events that the subscriber took, those among them that it had seen before.
    #[serde(rename = "ok", default)]
    pub taken: u32,
    /// Events that it could not make sense of.
    #[serde(rename = "skip", default)]
    pub skipped: u32,
    /// Users of the batch whom nobody here listens for (the port has passed to another process, say): the
    /// publisher removes this endpoint from their records.
    #[serde(
        rename = "gone",
        default,
        deserialize_with = "msgpack::bounded::<MAX_STRANGERS, _, _>",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub strangers: Vec<String>,
    /// Why the batch was refused whole, if it was.
    #[serde(rename = "err", default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl Ack {
    /// The batch was taken.
    pub fn taken(taken: u32, skipped: u32, strangers: Vec<String>) -> Ack {
        Ack { v: VERSION, taken, skipped, strangers, refused: None }
    }

    /// The batch was refused whole. Of the reason, which may quote the batch, at most 512 octets are told.
    pub fn refused(reason: impl Into<String>) -> Ack {
        let mut reason = reason.into();
        let end = (0..=MAX_REASON_OCTETS).rev().find(|&end| reason.is_char_boundary(end));
        reason.truncate(end.unwrap_or(0));
        Ack { v: VERSION, refused: Some(reason), ..Ack::default() }
    }

    /// The octets to reply.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        msgpack::encode(self, MAX_ACK_OCTETS)
    }

    /// Reads an answer.
    pub fn decode(octets: &[u8]) -> Result<Ack, DecodeError> {
        msgpack::decode_versioned(octets, MAX_ACK_OCTETS, |ack: &Ack| ack.v)
    }
}
