use std::ffi::c_void;

use ocbus::emsmdb::{Parked, WaitOutcome};
use uuid::Uuid;

use crate::arguments::{self, Out, one_of};
use crate::handle::{self, ocbus_t};
use crate::outbox::{Answered, Forgotten};
use crate::session;
use crate::status::{Error, guard, ocbus_status};

/// How a wait is answered (MS-OXCRPC 3.3.4.1).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ocbus_outcome {
    /// Something is queued: the client is to fetch it. Result 0, flags 1.
    OCBUS_OUTCOME_EVENT = 1,
    /// Nothing came in time: the client waits again. Result 0, flags 0.
    OCBUS_OUTCOME_TIMED_OUT = 2,
    /// A wait is parked for the session already, or another took its place (second_wait). Result 0x7EE, flags 0.
    OCBUS_OUTCOME_REJECTED = 3,
    /// The session is unknown, closed or expired. Result 0, flags 1: the client makes its next call and finds out.
    OCBUS_OUTCOME_UNKNOWN_SESSION = 4,
    /// The server is stopping. Result 0x3ED, flags 0.
    OCBUS_OUTCOME_EXITING = 5,
}

use ocbus_outcome::*;

const OUTCOMES: [(u32, WaitOutcome); 5] = [
    (OCBUS_OUTCOME_EVENT as u32, WaitOutcome::EventPending),
    (OCBUS_OUTCOME_TIMED_OUT as u32, WaitOutcome::TimedOut),
    (OCBUS_OUTCOME_REJECTED as u32, WaitOutcome::Rejected),
    (OCBUS_OUTCOME_UNKNOWN_SESSION as u32, WaitOutcome::UnknownSession),
    (OCBUS_OUTCOME_EXITING as u32, WaitOutcome::Exiting),
];

/// The answer of EcDoAsyncWaitEx. This structure never grows.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ocbus_wait_answer {
    /// One of ocbus_outcome.
    pub outcome: u32,
    /// The call's return value: 0, 0x7EE or 0x3ED.
    pub result: u32,
    /// pulFlagsOut: 1 if the client is to fetch notifications.
    pub flags: u32,
}

impl From<WaitOutcome> for ocbus_wait_answer {
    fn from(outcome: WaitOutcome) -> ocbus_wait_answer {
        let found = OUTCOMES.iter().find(|(_, known)| *known == outcome);
        let number = found.map_or(OCBUS_OUTCOME_EVENT as u32, |(number, _)| *number);
        ocbus_wait_answer { outcome: number, result: outcome.result(), flags: outcome.flags() }
    }
}

/// A parked wait is answered: now the server answers its client's call. Called once for each wait that was parked
/// with it, unless ocbus_wait_cancel() was called before.
///
/// Called from within ocbus_dispatch() and ocbus_destroy() only, in the thread that calls them. `session`: the 16
/// octets of its GUID. Ownership: `session` and `answer` are the library's, valid until the callback returns. It may
/// call any function of the library but ocbus_dispatch() and ocbus_destroy(): ocbus_wait_park() too.
pub type ocbus_wait_callback = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        ocbus: *const ocbus_t,
        wait: u64,
        session: *const u8,
        answer: *const ocbus_wait_answer,
    ),
>;

/// A wait's callback and what it is given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Callback {
    call: unsafe extern "C" fn(*mut c_void, *const ocbus_t, u64, *const u8, *const ocbus_wait_answer),
    user: *mut c_void,
}

// SAFETY: the pointer is the host's. It is only handed back to it, in a thread in which it has called.
unsafe impl Send for Callback {}

impl Callback {
    /// # Safety
    /// In a thread of the host that has called the library to be called back.
    pub(crate) unsafe fn answer(self, ocbus: *const ocbus_t, answered: &Answered) {
        let session = answered.wait.session.to_bytes_le();
        let answer = ocbus_wait_answer::from(answered.outcome);
        // SAFETY: the host's function, as it promised by passing it; both pointers live until it returns.
        unsafe { (self.call)(self.user, ocbus, answered.id, session.as_ptr(), &raw const answer) }
    }
}

/// Parks a wait of a session (EcDoAsyncWaitEx, MAPI/HTTP NotificationWait), or says at once how it is answered:
/// `*wait` is 0 then, and `*answer` the answer. That is so when something is queued already, the session is unknown,
/// another wait is parked, or the server stops: all of these are answers for the client and no errors of this call.
/// Otherwise `*wait` is its number, and `*answer` is all zero. After 297 s (setting `wait_ms`) without an event it is
/// answered so.
///
/// `callback` (with `user`) gets the answer in ocbus_dispatch(). NULL: the answer is fetched by ocbus_wait_next().
///
/// Ownership: `session` is copied; `user` must live until the callback was called, ocbus_wait_cancel() or
/// ocbus_destroy() has returned. Threads: any. Errors: OCBUS_ERROR_ARGUMENT (`session`, `wait` or `answer` is NULL).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_wait_park(
    ocbus: *const ocbus_t,
    session: *const u8,
    callback: ocbus_wait_callback,
    user: *mut c_void,
    wait: *mut u64,
    answer: *mut ocbus_wait_answer,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let (ocbus, guid) = unsafe { (handle::get(ocbus)?, arguments::guid(session)?) };
        // SAFETY: likewise.
        let (wait, answer) = unsafe { (Out::new("wait", wait)?, Out::new("answer", answer)?) };
        match park(ocbus, guid, callback.map(|call| Callback { call, user })) {
            Ok(id) => {
                wait.set(id);
                answer.set(ocbus_wait_answer { outcome: 0, result: 0, flags: 0 });
            }
            Err(outcome) => {
                wait.set(0);
                answer.set(outcome.into());
            }
        }
        Ok(())
    })
}

fn park(ocbus: &ocbus_t, guid: Uuid, callback: Option<Callback>) -> Result<u64, WaitOutcome> {
    let Some(session) = ocbus.emsmdb.session(guid) else { return Err(WaitOutcome::UnknownSession) };
    let outbox = std::sync::Arc::clone(&ocbus.outbox);
    let id = outbox.add_wait(guid, callback);
    match session.park(move |outcome| outbox.answered(id, outcome)) {
        Parked::Parked(parked) => {
            ocbus.outbox.parked(id, parked);
            Ok(id)
        }
        Parked::Done(outcome) => {
            ocbus.outbox.forget_wait(id);
            Err(outcome)
        }
    }
}

/// Parks a wait by its asynchronous session (EcDoAsyncWaitEx in asyncemsmdb; setting `sharing` is asyncemsmdb or both): the
/// session is found in OpenChange's records, and its user is registered, by our own threads. `*wait` is its number. Always
/// answered later, as with ocbus_wait_park(), with the GUID of the asynchronous session in the place of the session's:
/// OCBUS_OUTCOME_UNKNOWN_SESSION where `session:` is not there. A memcached that is away is waited for, no longer than
/// setting `wait_ms`. The replies are fetched by the process that has opened the session.
///
/// At most one waits for each asynchronous session, memcached there or not: of two, one is answered with
/// OCBUS_OUTCOME_REJECTED (setting `second_wait`). At most as many as setting `sessions` are parked, or answered without the
/// host's having been told: of one more the call fails, and its client is best told that nothing came in time.
///
/// Ownership, threads: as with ocbus_wait_park(). Errors: OCBUS_ERROR_ARGUMENT (`async_session` or `wait` is NULL),
/// OCBUS_ERROR_LIMIT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_async_wait_park(
    ocbus: *const ocbus_t,
    async_session: *const u8,
    callback: ocbus_wait_callback,
    user: *mut c_void,
    wait: *mut u64,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let (ocbus, guid) = unsafe { (handle::get(ocbus)?, arguments::guid(async_session)?) };
        // SAFETY: likewise.
        let wait = unsafe { Out::new("wait", wait)? };
        let callback = callback.map(|call| Callback { call, user });
        let id = ocbus.outbox.add_async_wait(guid, callback).map_err(|max| {
            let message = format!("{max} waits of asynchronous sessions are parked: sessions is {max}");
            Error::new(ocbus_status::OCBUS_ERROR_LIMIT, message)
        })?;
        match ocbus.emsmdb.begin_wait_async(guid) {
            Ok(begun) => {
                let (number, outbox) = (begun.number(), std::sync::Arc::clone(&ocbus.outbox));
                let task = ocbus.runtime.spawn(async move {
                    let outcome = begun.answered().await;
                    outbox.answered(id, outcome);
                });
                ocbus.outbox.joining(id, number, task.abort_handle());
            }
            Err(outcome) => ocbus.outbox.answered(id, outcome),
        }
        wait.set(id);
        Ok(())
    })
}

/// Takes a wait back, as its client is gone: its callback is not called any more (if it is not running in another
/// thread just now), and ocbus_wait_next() does not give it. What would have ended it is still queued and ends the next
/// wait at once.
///
/// Threads: any. Errors: OCBUS_ERROR_UNKNOWN_WAIT (it was answered, and its callback was called; or it was never parked).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_wait_cancel(ocbus: *const ocbus_t, wait: u64) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let ocbus = unsafe { handle::get(ocbus)? };
        let forgotten = ocbus.outbox.forget_wait(wait).ok_or_else(|| {
            let message = format!("wait {wait}: answered, cancelled or never parked");
            Error::new(ocbus_status::OCBUS_ERROR_UNKNOWN_WAIT, message)
        })?;
        match forgotten {
            Forgotten::Parked(guid, Some(parked)) => {
                if let Ok(session) = session::find(ocbus, guid) {
                    session.cancel(parked);
                }
            }
            // At once, and not when its task ends: the client's next wait is not to be the second one.
            Forgotten::Joining(guid, Some(number)) => {
                ocbus.emsmdb.cancel_wait_async(guid, number);
            }
            Forgotten::Parked(_, None) | Forgotten::Joining(_, None) => {}
        }
        Ok(())
    })
}

/// Gives an answered wait that was parked without a callback: its number in `*wait`, the GUID of its session in
/// `session` (16 octets; may be NULL), its answer in `*answer`. `*wait` is 0 if there is none. To be called until then
/// whenever ocbus_fd() is readable, by who parks waits without a callback.
///
/// Threads: any; each answer is given once. Errors: OCBUS_ERROR_ARGUMENT (`wait` or `answer` is NULL).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_wait_next(
    ocbus: *const ocbus_t,
    wait: *mut u64,
    session: *mut u8,
    answer: *mut ocbus_wait_answer,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let ocbus = unsafe { handle::get(ocbus)? };
        // SAFETY: likewise.
        let (wait, answer) = unsafe { (Out::new("wait", wait)?, Out::new("answer", answer)?) };
        match ocbus.outbox.next_fetched() {
            None => wait.set(0),
            Some(answered) => {
                wait.set(answered.id);
                answer.set(answered.outcome.into());
                if !session.is_null() {
                    // SAFETY: 16 octets, as ocbus.h asks of the caller.
                    unsafe { Out::new("session", session.cast::<[u8; 16]>())? }
                        .set(answered.wait.session.to_bytes_le());
                }
            }
        }
        Ok(())
    })
}

/// The body of a MAPI/HTTP NotificationWait response for an outcome: 16 octets to `body`.
///
/// Threads: any. Errors: OCBUS_ERROR_ARGUMENT (`outcome` is none of ocbus_outcome, `body` is NULL).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_wait_body(outcome: u32, body: *mut u8) -> ocbus_status {
    guard(|| {
        // SAFETY: 16 octets, as ocbus.h asks of the caller.
        let body = unsafe { Out::new("body", body.cast::<[u8; 16]>())? };
        body.set(one_of("outcome", outcome, &OUTCOMES)?.notification_wait_body());
        Ok(())
    })
}
