use ocbus::emsmdb::Subscription;
use ocbus::wire::ropnotify::{FolderId, MessageId, NotificationTypes, RegisterNotification, Scope};

use crate::arguments::{Out, array, guid, one_of};
use crate::handle::{self, ocbus_t};
use crate::session::find;
use crate::status::{Error, guard, ocbus_status};

/// Where something must happen for a subscription to be told.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ocbus_scope {
    /// Anywhere.
    OCBUS_SCOPE_STORE = 1,
    /// In a folder.
    OCBUS_SCOPE_FOLDER = 2,
    /// To a message.
    OCBUS_SCOPE_MESSAGE = 3,
}

use ocbus_scope::*;

/// The most octets of a request that are looked at.
const MAX_ROP_OCTETS: usize = 0x8000;

/// Adds a subscription (RopRegisterNotification). `handle`: the one that the server put at the request's output
/// index; it stands in each RopNotify. `types`: the request's mask (0x0002 new mail, 0x0004 created, 0x0008 deleted,
/// 0x0010 modified, 0x0020 moved, 0x0040 copied). `scope`: one of ocbus_scope; `folder` (a FID) is used for
/// OCBUS_SCOPE_FOLDER and OCBUS_SCOPE_MESSAGE, `message` (a MID) for OCBUS_SCOPE_MESSAGE, else they must be 0.
///
/// Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION, OCBUS_ERROR_DUPLICATE (the handle is a
/// subscription or a table of the session), OCBUS_ERROR_LIMIT (setting `handles_per_session`).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_subscribe(
    ocbus: *const ocbus_t,
    session: *const u8,
    handle: u32,
    logon_id: u8,
    types: u16,
    scope: u32,
    folder: u64,
    message: u64,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let (ocbus, guid) = unsafe { (handle::get(ocbus)?, guid(session)?) };
        let scope = scope_of(scope, folder, message)?;
        let types = NotificationTypes::from_bits(types);
        Ok(find(ocbus, guid)?.subscribe(Subscription { handle, logon_id, types, scope })?)
    })
}

fn scope_of(scope: u32, folder: u64, message: u64) -> Result<Scope, Error> {
    const SCOPES: [(u32, ocbus_scope); 3] = [
        (OCBUS_SCOPE_STORE as u32, OCBUS_SCOPE_STORE),
        (OCBUS_SCOPE_FOLDER as u32, OCBUS_SCOPE_FOLDER),
        (OCBUS_SCOPE_MESSAGE as u32, OCBUS_SCOPE_MESSAGE),
    ];
    match (one_of("scope", scope, &SCOPES)?, folder, message) {
        (OCBUS_SCOPE_STORE, 0, 0) => Ok(Scope::Store),
        (OCBUS_SCOPE_FOLDER, 1.., 0) => Ok(Scope::Folder(FolderId::from_u64(folder))),
        (OCBUS_SCOPE_MESSAGE, _, 1..) => {
            Ok(Scope::Message { folder: FolderId::from_u64(folder), message: MessageId::from_u64(message) })
        }
        _ => Err(Error::argument(format!(
            "scope {scope} with folder 0x{folder:016x} and message 0x{message:016x}: expected the ids that the scope \
             needs, and 0 for the others"
        ))),
    }
}

/// Adds a subscription as ocbus_subscribe() does, from the octets of the request: `rop` points to its RopId, 0x29.
/// What stands behind it is left alone; `*consumed` (may be NULL) is how many octets the request had.
///
/// Ownership: `rop` is read during the call only. Threads: any. Errors: as ocbus_subscribe(), and
/// OCBUS_ERROR_MALFORMED (no such request, or the octets end within it).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_subscribe_rop(
    ocbus: *const ocbus_t,
    session: *const u8,
    handle: u32,
    rop: *const u8,
    octets: usize,
    consumed: *mut usize,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let (ocbus, guid) = unsafe { (handle::get(ocbus)?, guid(session)?) };
        // SAFETY: likewise.
        let rop = unsafe { array("rop", rop, octets, MAX_ROP_OCTETS)? };
        let (request, length) = RegisterNotification::decode(rop).map_err(|error| {
            Error::new(ocbus_status::OCBUS_ERROR_MALFORMED, format!("RopRegisterNotification: {error}"))
        })?;
        find(ocbus, guid)?.subscribe(Subscription::of(&request, handle))?;
        if !consumed.is_null() {
            // SAFETY: as ocbus.h asks of the caller.
            unsafe { Out::new("consumed", consumed)? }.set(length);
        }
        Ok(())
    })
}

/// Removes a subscription or a table (RopRelease). What waits for it is taken out. A server may call it for every
/// handle that is released: one that is neither is OCBUS_ERROR_UNKNOWN_HANDLE, and nothing happens.
///
/// Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION, OCBUS_ERROR_UNKNOWN_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_release(
    ocbus: *const ocbus_t,
    session: *const u8,
    handle: u32,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let (ocbus, guid) = unsafe { (handle::get(ocbus)?, guid(session)?) };
        match find(ocbus, guid)?.unsubscribe(handle)? {
            true => Ok(()),
            false => Err(ocbus::emsmdb::HandleError::Unknown { handle }.into()),
        }
    })
}
