//! RopPending: more notifications wait than fitted.

use super::error::DecodeError;
use crate::octets::Reader;

/// Says that notifications wait for a session of the same client: in a response, behind the last RopNotify. The
/// client then calls again.
///
/// ```text
/// 0  u8   0x6E
/// 1  u16  session index
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RopPending {
    /// Which session: an index that the client was given when it connected. One that it does not know it ignores.
    pub session_index: u16,
}

impl RopPending {
    /// RopId of RopPending.
    pub const ROP_ID: u8 = 0x6e;

    /// Its octets, always as many.
    pub const OCTETS: usize = 3;

    /// Its octets.
    pub fn encode(&self) -> [u8; Self::OCTETS] {
        let [low, high] = self.session_index.to_le_bytes();
        [Self::ROP_ID, low, high]
    }

    /// Reads one, and says how many octets it has taken.
    pub fn decode(octets: &[u8]) -> Result<(Self, usize), DecodeError> {
        let mut reader = Reader::new(octets);
        super::decode::rop_id(&mut reader, Self::ROP_ID)?;
        let session_index = reader.u16("session index")?;
        Ok((Self { session_index }, reader.offset()))
    }
}
