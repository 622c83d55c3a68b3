use std::ffi::c_char;

use ocbus::resolver::Cn;
use ocbus::wire::ropnotify::RopNotify;
use ocbus::wire::{Mailbox, NewMessage};
use ocbus::{Event, EventKind, now_us};
use uuid::Uuid;

use crate::arguments::{array, guid, text};
use crate::handle::{self, ocbus_t};
use crate::session::find;
use crate::status::{Error, guard, ocbus_status};

/// The longest name of a folder.
const MAX_FOLDER_OCTETS: usize = 4_096;

/// Queues what the server has seen itself and the bus does not tell: `rop` is one whole RopNotify (RopId 0x2A), with
/// the handle of a subscription or, for a table's event, of a table of this session. The logon id in it is replaced by
/// that of the handle. What a client did itself in this session it need not be told.
///
/// Ownership: `rop` is read during the call only. Threads: any. Errors: OCBUS_ERROR_ARGUMENT,
/// OCBUS_ERROR_UNKNOWN_SESSION, OCBUS_ERROR_UNKNOWN_HANDLE, OCBUS_ERROR_MALFORMED (no RopNotify, or more than one),
/// OCBUS_ERROR_LIMIT (larger than half of setting `queue_octets`).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_notify(
    ocbus: *const ocbus_t,
    session: *const u8,
    rop: *const u8,
    octets: usize,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let (ocbus, guid) = unsafe { (handle::get(ocbus)?, guid(session)?) };
        // SAFETY: likewise.
        let rop = unsafe { array("rop", rop, octets, RopNotify::MAX_OCTETS)? };
        let malformed =
            |why: String| Error::new(ocbus_status::OCBUS_ERROR_MALFORMED, format!("RopNotify: {why}"));
        let (reply, length) = RopNotify::decode(rop).map_err(|error| malformed(error.to_string()))?;
        if length != rop.len() {
            return Err(malformed(format!("{} octets behind it: expected one reply", rop.len() - length)));
        }
        Ok(find(ocbus, guid)?.notify(reply.handle, reply.notification)?)
    })
}

/// Tells the sessions of a user in this process of a new mail that the server itself put into a folder, and of which
/// Dovecot's plugin does not tell. `folder`: the storage name in modified UTF-7, as SOGo's URI has it ("INBOX");
/// `separator`: between its parts ('/', '.'). `uid`: the mail's UID, not 0. `messages`, `unseen`: how many are in the folder
/// now; -1 if not known.
///
/// Ownership: the arguments are copied. Threads: any. Errors: OCBUS_ERROR_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_tell_new_mail(
    ocbus: *const ocbus_t,
    cn: *const c_char,
    folder: *const c_char,
    separator: c_char,
    uid: u32,
    messages: i64,
    unseen: i64,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let ocbus = unsafe { handle::get(ocbus)? };
        // SAFETY: likewise.
        let (cn, folder) =
            unsafe { (text("cn", cn, Cn::MAX_OCTETS)?, text("folder", folder, MAX_FOLDER_OCTETS)?) };
        let cn = Cn::new(cn).map_err(|error| Error::argument(error.to_string()))?;
        let separator = u8::try_from(separator).ok().map(char::from);
        let separator = separator
            .filter(|character| character.is_ascii_graphic())
            .ok_or_else(|| Error::argument("separator: expected a printable ASCII character, as '/'"))?;
        if uid == 0 {
            return Err(Error::argument("uid: 0: expected a UID, 1 or more"));
        }
        let message = NewMessage { uid: Some(uid), ..NewMessage::default() };
        let mailbox = Mailbox::from_storage(folder, separator);
        let kind = EventKind::MessageNew(message);
        let mut event = Event::new(Uuid::now_v7(), now_us(), cn.as_str(), mailbox, kind);
        event.messages = count("messages", messages)?;
        event.unseen = count("unseen", unseen)?;
        ocbus.bus.publish(event);
        Ok(())
    })
}

fn count(name: &str, value: i64) -> Result<Option<u32>, Error> {
    if value == -1 {
        return Ok(None);
    }
    let wrong = |_| Error::argument(format!("{name}: {value}: expected 0 to {}, or -1", u32::MAX));
    u32::try_from(value).map(Some).map_err(wrong)
}
