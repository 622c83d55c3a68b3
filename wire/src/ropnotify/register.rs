//! RopRegisterNotification: a client asks to be told.

use super::decode::{boolean, folder, message, rop_id};
use super::error::{DecodeError, EncodeError};
use super::{FolderId, MessageId, NotificationTypes};
use crate::octets::{Reader, Writer};

/// A client's request to be told of what happens.
///
/// ```text
/// 0   u8   0x29
/// 1   u8   logon id
/// 2   u8   input handle index
/// 3   u8   output handle index
/// 4   u16  types
/// 6   u8   reserved, 0; only with 0x0400 among the types
/// 6   u8   whole store: 1, or 0 and then
/// 7   u64  folder
/// 15  u64  message, 0 for the folder
/// ```
///
/// Older texts have one octet of types and one that is reserved and 0, which is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RegisterNotification {
    /// The logon in which it is asked.
    pub logon_id: u8,
    /// Where the handle of the object stands in the request's table of handles.
    pub input_handle_index: u8,
    /// Where to put the handle of the subscription, which stands in each of its [`RopNotify`](super::RopNotify).
    pub output_handle_index: u8,
    /// What to be told. Bits that mean nothing are kept.
    pub types: NotificationTypes,
    /// Where.
    pub scope: Scope,
}

/// Where something must happen for a subscription to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Anywhere.
    Store,
    /// In this folder.
    Folder(FolderId),
    /// To this message.
    Message {
        /// Its folder.
        folder: FolderId,
        /// The message; not 0.
        message: MessageId,
    },
}

/// The answer to [`RegisterNotification`].
///
/// ```text
/// 0  u8   0x29
/// 1  u8   output handle index
/// 2  u32  return value
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RegisterNotificationResponse {
    /// That of the request.
    pub output_handle_index: u8,
    /// 0, or an error code.
    pub return_value: u32,
}

impl RegisterNotification {
    /// RopId of RopRegisterNotification.
    pub const ROP_ID: u8 = 0x29;

    /// The octets of the request.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let ids = match self.scope {
            Scope::Store => None,
            Scope::Folder(folder) => Some((folder, MessageId::NONE)),
            Scope::Message { message: MessageId::NONE, .. } => return Err(EncodeError::NoMessage),
            Scope::Message { folder, message } => Some((folder, message)),
        };
        let mut writer = Writer::new();
        writer.u8(Self::ROP_ID);
        writer.u8(self.logon_id);
        writer.u8(self.input_handle_index);
        writer.u8(self.output_handle_index);
        writer.u16(self.types.bits());
        if self.types.contains(NotificationTypes::EXTENDED) {
            writer.u8(0);
        }
        writer.u8(u8::from(ids.is_none()));
        if let Some((folder, message)) = ids {
            writer.array(folder.to_octets());
            writer.array(message.to_octets());
        }
        Ok(writer.finish())
    }

    /// Reads the request that stands at the beginning, and says how many octets it has taken. What stands in the
    /// reserved octet does not matter. Types that no notification has, and no types at all, are kept as they are: a client
    /// that asks for more than there is gets what there is, and not an error that ends its session.
    pub fn decode(octets: &[u8]) -> Result<(Self, usize), DecodeError> {
        let mut reader = Reader::new(octets);
        rop_id(&mut reader, Self::ROP_ID)?;
        let logon_id = reader.u8("logon id")?;
        let input_handle_index = reader.u8("input handle index")?;
        let output_handle_index = reader.u8("output handle index")?;
        let types = NotificationTypes::from_bits(reader.u16("notification types")?);
        if types.contains(NotificationTypes::EXTENDED) {
            reader.u8("reserved octet")?;
        }
        let scope = match boolean(&mut reader, "wish for the whole store")? {
            true => Scope::Store,
            false => {
                let folder = folder(&mut reader, "folder id")?;
                match message(&mut reader, "message id")? {
                    MessageId::NONE => Scope::Folder(folder),
                    message => Scope::Message { folder, message },
                }
            }
        };
        let request = Self { logon_id, input_handle_index, output_handle_index, types, scope };
        Ok((request, reader.offset()))
    }
}

impl RegisterNotificationResponse {
    /// Its octets, always as many.
    pub const OCTETS: usize = 6;

    /// The octets of the answer.
    pub fn encode(&self) -> [u8; Self::OCTETS] {
        let [a, b, c, d] = self.return_value.to_le_bytes();
        [RegisterNotification::ROP_ID, self.output_handle_index, a, b, c, d]
    }

    /// Reads the answer that stands at the beginning, and says how many octets it has taken.
    pub fn decode(octets: &[u8]) -> Result<(Self, usize), DecodeError> {
        let mut reader = Reader::new(octets);
        rop_id(&mut reader, RegisterNotification::ROP_ID)?;
        let output_handle_index = reader.u8("output handle index")?;
        let return_value = reader.u32("return value")?;
        Ok((Self { output_handle_index, return_value }, reader.offset()))
    }
}
