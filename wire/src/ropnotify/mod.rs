//! The ROPs of MAPI notifications, octet for octet: what an OpenChange or Exchange server puts behind its
//! responses so that Outlook refreshes, and how Outlook asks for it. By MS-OXCNOTIF and MS-OXCROPS.
//!
//! | value | RopId | who sends it | layout (integers little-endian, no padding) |
//! |---|---|---|---|
//! | [`RegisterNotification`] | 0x29 | client | u8 0x29, logon, two handle indexes, types, scope |
//! | [`RegisterNotificationResponse`] | 0x29 | server | u8 0x29, handle index, u32 return value |
//! | [`RopNotify`] | 0x2A | server | u8 0x2A, u32 handle, u8 logon, u16 flags, fields by the flags |
//! | [`RopPending`] | 0x6E | server | u8 0x6E, u16 session index |
//!
//! A RopNotify is a reply without a request and without framing: its own fields say where it ends. [`split`]
//! takes several that stand end to end, as in OpenChange's `deliver:` records, apart.
//!
//! Readers are strict: flags, table events and booleans that the rules do not have are refused, and so is
//! every truncation. What is read is what is written again, octet for octet.
//!
//! ```
//! use ocbus_wire::ropnotify::{FolderId, MessageClass, MessageId, Notification, RopNotify};
//!
//! let reply = RopNotify {
//!     handle: 0x29,
//!     logon_id: 0,
//!     notification: Notification::NewMail {
//!         folder: FolderId::from_parts(1, 0x1234).ok_or("48 bits")?,
//!         message: MessageId::from_parts(1, 0xabcdef).ok_or("48 bits")?,
//!         message_flags: 2,
//!         class: MessageClass::default(),
//!     },
//! };
//! let octets = reply.encode()?;
//! assert_eq!(octets, b"\x2a\x29\0\0\0\0\x02\x80\x01\0\0\0\0\0\x12\x34\x01\0\0\0\0\xab\xcd\xef\x02\0\0\0\0IPM.Note\0");
//! assert_eq!(RopNotify::decode(&octets)?, (reply, octets.len()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod class;
mod decode;
mod encode;
mod error;
mod flags;
mod id;
mod notification;
mod pending;
mod register;
mod table;

pub use class::MessageClass;
pub use decode::split;
pub(crate) use decode::split_with_octets;
pub use error::{DecodeError, EncodeError, Malformed};
pub use flags::NotificationTypes;
pub use id::{FolderId, MessageId};
pub use notification::{Notification, RopNotify, Tags};
pub use pending::RopPending;
pub use register::{RegisterNotification, RegisterNotificationResponse, Scope};
pub use table::{FolderRow, MessageRow, TableEvent};
