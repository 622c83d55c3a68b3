use std::ffi::c_char;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use ocbus::emsmdb::{NewSession, Session};
use ocbus::resolver::Cn;
use ocbus::wire::ResyncReason;
use ocbus::{Event, now_us};
use uuid::Uuid;

use crate::arguments::{guid, text};
use crate::handle::{self, ocbus_t};
use crate::status::{Error, guard, ocbus_status};

/// The octets of a session's GUID, as a GUID stands on the wire (in Samba: of GUID_to_ndr_buf()). The library
/// compares them, and shows them in its log as Samba does.
pub const OCBUS_GUID_OCTETS: usize = 16;

pub(crate) fn find(ocbus: &ocbus_t, guid: Uuid) -> Result<Session, Error> {
    ocbus.emsmdb.session(guid).ok_or_else(|| ocbus::emsmdb::engine::UnknownSession(guid).into())
}

/// Opens a session (EcDoConnectEx, MAPI/HTTP Connect). `session`: its GUID, 16 octets, another for each. `cn`: whose
/// mailbox it shows, the name under which the Dovecot plugin looks its listeners up (openchange_cn: a username or an
/// address; at most 241 octets, no spaces). `index`: the session index that the client was told; it stands in
/// RopPending.
///
/// Does not wait: the user is registered with the resolver meanwhile. What came before that is made good: the
/// session is told to look again. A resolver that does not answer is no error.
///
/// Ownership: the arguments are copied. Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_DUPLICATE (such a session
/// is open), OCBUS_ERROR_LIMIT (settings `sessions_per_user`, `sessions`).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_session_open(
    ocbus: *const ocbus_t,
    session: *const u8,
    cn: *const c_char,
    index: u16,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let (ocbus, guid) = unsafe { (handle::get(ocbus)?, guid(session)?) };
        // SAFETY: likewise.
        let cn = unsafe { text("cn", cn, Cn::MAX_OCTETS)? };
        let cn = Cn::new(cn).map_err(|error| Error::argument(error.to_string()))?;
        open(ocbus, NewSession { guid, cn, index })
    })
}

fn open(ocbus: &ocbus_t, new: NewSession) -> Result<(), Error> {
    let cn = new.cn.clone();
    let emsmdb = ocbus.emsmdb.clone();
    in_background(ocbus, cn, async move { emsmdb.open_session(new).await.map(drop) })
}

/// Opens at once, and has the rest, the registration of the user, done by our own threads.
fn in_background<E>(
    ocbus: &ocbus_t,
    cn: Cn,
    opening: impl Future<Output = Result<(), E>> + Send + 'static,
) -> Result<(), Error>
where
    E: Send + 'static,
    Error: From<E>,
{
    let mut opening: Pin<Box<_>> = Box::pin(opening);
    match opening.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(opened) => Ok(opened?),
        // It is open, and its user is being registered.
        Poll::Pending => {
            let bus = ocbus.bus.clone();
            ocbus.runtime.spawn(async move {
                if opening.await.is_ok() {
                    let reason = ResyncReason::ResolverLost;
                    bus.publish(Event::resync(Uuid::now_v7(), now_us(), cn.as_str(), reason, 0));
                }
            });
            Ok(())
        }
    }
}

/// Ties an asynchronous session to a session (EcDoAsyncConnectEx), so that asyncemsmdb finds it in another process: writes
/// OpenChange's `session:`. `async_session`: the GUID of the handle that the client is given, 16 octets. Without setting
/// `sharing` nothing is to be done, and nothing is done.
///
/// Waits for memcached, for setting `resolver_timeout_ms` at most. That it is away is no error: the record is written when
/// it is back.
///
/// Ownership: the arguments are copied. Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_async_connect(
    ocbus: *const ocbus_t,
    session: *const u8,
    async_session: *const u8,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let (ocbus, guid, other) = unsafe { (handle::get(ocbus)?, guid(session)?, guid(async_session)?) };
        let session = find(ocbus, guid)?;
        Ok(ocbus.runtime.block_on(session.connect_async(other))?)
    })
}

/// The client made a call: its session lives on. Every other call for a session says so too but
/// ocbus_has_replies() and ocbus_notify(); a session that nobody calls for `idle_s` ends.
///
/// Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_session_touch(ocbus: *const ocbus_t, session: *const u8) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let (ocbus, guid) = unsafe { (handle::get(ocbus)?, guid(session)?) };
        Ok(find(ocbus, guid)?.touch()?)
    })
}

/// A client has logged on to another mailbox in its session (RopLogon): a shared one, public folders. What is opened with
/// this `logon_id` from now on (ocbus_subscribe(), ocbus_table_add()) is told of the events of `cn`; a `logon_id` of which
/// the library was not told is the session's own mailbox. One queue and one wait are for all of them. At most 64 others.
///
/// Does not wait: the user is registered with the resolver meanwhile, and what came before that is made good.
///
/// Ownership: the arguments are copied. Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION,
/// OCBUS_ERROR_DUPLICATE (something is open in this logon of another mailbox), OCBUS_ERROR_LIMIT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_session_logon(
    ocbus: *const ocbus_t,
    session: *const u8,
    logon_id: u8,
    cn: *const c_char,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let (ocbus, guid) = unsafe { (handle::get(ocbus)?, guid(session)?) };
        // SAFETY: likewise.
        let cn = unsafe { text("cn", cn, Cn::MAX_OCTETS)? };
        let cn = Cn::new(cn).map_err(|error| Error::argument(error.to_string()))?;
        let session = find(ocbus, guid)?;
        let user = cn.clone();
        in_background(ocbus, user, async move { session.logon(logon_id, cn).await })
    })
}

/// The client has released a logon (RopRelease), and with it its subscriptions and tables.
///
/// Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION, OCBUS_ERROR_UNKNOWN_HANDLE (nothing was there).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_session_logoff(
    ocbus: *const ocbus_t,
    session: *const u8,
    logon_id: u8,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let (ocbus, guid) = unsafe { (handle::get(ocbus)?, guid(session)?) };
        match find(ocbus, guid)?.logoff(logon_id)? {
            true => Ok(()),
            false => Err(Error::new(
                ocbus_status::OCBUS_ERROR_UNKNOWN_HANDLE,
                format!("logon {logon_id}: nothing is open in it"),
            )),
        }
    })
}

/// Closes a session (EcDoDisconnect, MAPI/HTTP Disconnect, a context handle that was run down). Its subscriptions,
/// tables and replies are gone; its parked wait is answered with OCBUS_OUTCOME_UNKNOWN_SESSION.
///
/// Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_session_close(ocbus: *const ocbus_t, session: *const u8) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let (ocbus, guid) = unsafe { (handle::get(ocbus)?, guid(session)?) };
        match find(ocbus, guid)?.close() {
            true => Ok(()),
            // Another thread closed it just now.
            false => Err(ocbus::emsmdb::engine::UnknownSession(guid).into()),
        }
    })
}
