//! What OpenChange 2.x writes and reads, octet for octet: its records in memcached and the payload that its
//! Dovecot plugin pushes. The facts were observed on the running original and stand as test cases in
//! `tests/data/openchange/vectors.json`.
//!
//! | value | where it stands | layout (integers little-endian, no padding) |
//! |---|---|---|
//! | [`SessionRecord`] | [`session_key`] | u8 1, GUID, cn NUL |
//! | [`ResolverRecord`] | `resolver:<cn>` (the resolver crate knows the key) | u8 1, u32 n, u32 n, n hosts each with NUL |
//! | [`SubscriptionRecord`] | [`subscription_key`] | u8 1, u32 n, u32 n, n [`Subscription`]s |
//! | [`deliver`] | [`deliver_key`] | packed RopNotify replies, end to end |
//! | [`NewMail`] | PUSH to an endpoint, read as a [`Notification`] | u8 1, u16 2, backend NUL, message NUL, folder NUL, u8 separator |
//!
//! Strings are in Samba's "dos charset", a [`DosCharset`]. Where the original was tolerant and it made sense,
//! so are these readers: octets after the value are ignored, the last string of a record may lack its NUL,
//! and an empty value reads as no entries. Where it crashed or misread (a first octet other than 1), they
//! return a [`DecodeError`] that says at which octet and why. Writers refuse what the original could not read
//! back.
//!
//! ```
//! use ocbus_wire::openchange::{DosCharset, NewMail, Notification};
//!
//! let mail = NewMail { message: NewMail::message_name(1), folder: "INBOX".into(), ..NewMail::default() };
//! let payload = mail.encode(DosCharset::default())?;
//! assert_eq!(payload, b"\x01\x02\x00sogo\x001.eml\x00INBOX\x00/");
//! assert_eq!(Notification::decode(&payload, DosCharset::default())?, Notification::NewMail(mail));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod charset;
pub mod deliver;
mod error;
pub mod mutf7;
mod ndr;
mod newmail;
mod resolver;
mod session;
mod subscription;

pub use charset::{CharsetNameError, DosCharset, Undecodable, Unmappable};
pub use deliver::deliver_key;
pub use error::{DecodeError, EncodeError, Malformed};
pub use newmail::{NewMail, Notification};
pub use resolver::{MAX_HOSTS, ResolverRecord};
pub use session::{SessionRecord, session_key};
pub use subscription::{
    MAX_PROPERTIES, MAX_SUBSCRIPTIONS, Subscription, SubscriptionRecord, subscription_key,
};

/// The first octet of every record and payload that OpenChange 2.x writes.
pub const VERSION: u8 = 1;
