use ocbus::emsmdb::notification_room;

use crate::arguments::{Out, guid};
use crate::handle::{self, ocbus_t};
use crate::session::find;
use crate::status::{Error, guard, ocbus_status};

/// The octets that a response has left for notifications: the `size` of ocbus_take(). `pcb_out`: the size of the
/// client's buffer (EcDoRpcExt2's pcbOut, MaxRopOut of MAPI/HTTP). `responses`: the octets of the normal ROP responses
/// in it. `handles`: the entries of its table of handles. It is
/// `min(pcb_out, 32768) - 8 - 2 - responses - 4 * handles`, 0 if that is negative.
///
/// Threads: any. Errors: none.
#[unsafe(no_mangle)]
pub extern "C" fn ocbus_room(pcb_out: usize, responses: usize, handles: usize) -> usize {
    notification_room(pcb_out, responses, handles)
}

/// Moves a session's replies into `buffer`, at the end of a response: whole RopNotify replies, in order, and behind
/// them a RopPending if some are left and its 3 octets fit. `size`: what may be written at most (ocbus_room()). What
/// does not fit stays for the next time. `*written`: the octets written. `*pending` (may be NULL): whether some are
/// left; `*replies` (may be NULL): how many RopNotify were written.
///
/// With `size` 0 nothing is taken, and `buffer` may be NULL.
///
/// With setting `sharing` the replies are in memcached, and this waits for it, for setting `resolver_timeout_ms` at most. While
/// it is away nothing is taken and nothing lost. Of a session that was opened in another process nothing is taken.
///
/// Ownership: `buffer` is the caller's. Threads: any. Errors: OCBUS_ERROR_ARGUMENT (nothing is taken),
/// OCBUS_ERROR_UNKNOWN_SESSION.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_take(
    ocbus: *const ocbus_t,
    session: *const u8,
    buffer: *mut u8,
    size: usize,
    written: *mut usize,
    pending: *mut bool,
    replies: *mut usize,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let (ocbus, guid) = unsafe { (handle::get(ocbus)?, guid(session)?) };
        // SAFETY: likewise.
        let written = unsafe { Out::new("written", written)? };
        if buffer.is_null() && size > 0 {
            return Err(Error::argument("buffer is NULL"));
        }
        let session = find(ocbus, guid)?;
        let mut octets = Vec::new();
        let taken = match ocbus.emsmdb.is_shared() {
            true => ocbus.runtime.block_on(session.fetch(size, &mut octets))?,
            false => session.take(size, &mut octets)?,
        };
        let length = octets.len().min(size);
        if length > 0 {
            // SAFETY: `size` octets can be written there, as ocbus.h asks of the caller, and `octets` is ours.
            unsafe { std::ptr::copy_nonoverlapping(octets.as_ptr(), buffer, length) };
        }
        written.set(length);
        if !pending.is_null() {
            // SAFETY: as ocbus.h asks of the caller.
            unsafe { Out::new("pending", pending)? }.set(taken.pending);
        }
        if !replies.is_null() {
            // SAFETY: likewise.
            unsafe { Out::new("replies", replies)? }.set(taken.replies);
        }
        Ok(())
    })
}

/// Whether replies wait for a session in this process. Does not count as a call of its client.
///
/// Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_has_replies(
    ocbus: *const ocbus_t,
    session: *const u8,
    has: *mut bool,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let (ocbus, guid) = unsafe { (handle::get(ocbus)?, guid(session)?) };
        // SAFETY: likewise.
        let has = unsafe { Out::new("has", has)? };
        has.set(find(ocbus, guid)?.has_replies());
        Ok(())
    })
}
