use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use ocbus::emsmdb::{HandleError, LogonError, NotifyError, OpenError, UnknownSession};

/// What became of a call. New codes may come; treat one that you do not know as a failure.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ocbus_status {
    /// Done.
    OCBUS_OK = 0,
    /// An argument is NULL, too long, out of its range or no UTF-8. Nothing was done.
    OCBUS_ERROR_ARGUMENT = 1,
    /// A setting is unknown, out of its range or missing; the message names it.
    OCBUS_ERROR_CONFIG = 2,
    /// No such session: never opened, closed or expired. The client is to connect again.
    OCBUS_ERROR_UNKNOWN_SESSION = 3,
    /// The session has no such subscription or table.
    OCBUS_ERROR_UNKNOWN_HANDLE = 4,
    /// No such wait: answered, cancelled or never parked.
    OCBUS_ERROR_UNKNOWN_WAIT = 5,
    /// A session or a handle of that name is there already.
    OCBUS_ERROR_DUPLICATE = 6,
    /// A limit of the settings is reached.
    OCBUS_ERROR_LIMIT = 7,
    /// Octets are not what they should be; the message says at which one.
    OCBUS_ERROR_MALFORMED = 8,
    /// It is being destroyed.
    OCBUS_ERROR_STOPPING = 9,
    /// It was created before this process forked: see ocbus_create().
    OCBUS_ERROR_FORKED = 10,
    /// Not from within a callback.
    OCBUS_ERROR_BUSY = 11,
    /// The system refused a descriptor, a thread or a socket.
    OCBUS_ERROR_SYSTEM = 12,
    /// A defect of the library, which it survived. Please report the message.
    OCBUS_ERROR_PANIC = 13,
}

use ocbus_status::*;

/// A call that failed: the code, and a sentence for the log.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Error {
    pub(crate) status: ocbus_status,
    pub(crate) message: String,
}

impl Error {
    pub(crate) fn new(status: ocbus_status, message: impl Into<String>) -> Error {
        Error { status, message: message.into() }
    }

    pub(crate) fn argument(message: impl Into<String>) -> Error {
        Error::new(OCBUS_ERROR_ARGUMENT, message)
    }
}

impl From<UnknownSession> for Error {
    fn from(error: UnknownSession) -> Error {
        Error::new(OCBUS_ERROR_UNKNOWN_SESSION, error.to_string())
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Error {
        let status = match error {
            OpenError::Duplicate { .. } => OCBUS_ERROR_DUPLICATE,
            OpenError::Stopping => OCBUS_ERROR_STOPPING,
            _ => OCBUS_ERROR_LIMIT,
        };
        Error::new(status, error.to_string())
    }
}

impl From<LogonError> for Error {
    fn from(error: LogonError) -> Error {
        let status = match &error {
            LogonError::Session(_) => OCBUS_ERROR_UNKNOWN_SESSION,
            LogonError::InUse { .. } => OCBUS_ERROR_DUPLICATE,
            _ => OCBUS_ERROR_LIMIT,
        };
        Error::new(status, error.to_string())
    }
}

impl From<HandleError> for Error {
    fn from(error: HandleError) -> Error {
        let status = match error {
            HandleError::Session(_) => OCBUS_ERROR_UNKNOWN_SESSION,
            HandleError::Duplicate { .. } => OCBUS_ERROR_DUPLICATE,
            HandleError::Unknown { .. } => OCBUS_ERROR_UNKNOWN_HANDLE,
            _ => OCBUS_ERROR_LIMIT,
        };
        Error::new(status, error.to_string())
    }
}

impl From<NotifyError> for Error {
    fn from(error: NotifyError) -> Error {
        match error {
            NotifyError::Handle(error) => error.into(),
            NotifyError::TooLarge { .. } => Error::new(OCBUS_ERROR_LIMIT, error.to_string()),
            error => Error::new(OCBUS_ERROR_MALFORMED, error.to_string()),
        }
    }
}

thread_local! {
    static LAST: RefCell<Option<(ocbus_status, CString)>> = const { RefCell::new(None) };
}

fn remember(error: &Error) {
    // A NUL inside would end it early: a message quotes what it was given.
    let message = CString::new(error.message.replace('\0', "\\0")).unwrap_or_default();
    LAST.with_borrow_mut(|last| *last = Some((error.status, message)));
}

/// Runs the body of a function of the library: its error is kept for the thread, and a panic is one of them.
pub(crate) fn guard(body: impl FnOnce() -> Result<(), Error>) -> ocbus_status {
    // What a panic leaves half done stands behind locks that take no notice of poisoning, and is whole there.
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<&str>().copied().map(str::to_owned);
        let what = what.or_else(|| panic.downcast_ref::<String>().cloned());
        let what = what.unwrap_or_else(|| "no message".to_owned());
        Err(Error::new(OCBUS_ERROR_PANIC, format!("a defect of libocbus, which it survived: {what}")))
    });
    match outcome {
        Ok(()) => OCBUS_OK,
        Err(error) => {
            remember(&error);
            error.status
        }
    }
}

/// The status of the last call that failed in this thread; OCBUS_OK if none has. A call that succeeds does not
/// change it.
///
/// Threads: each has its own. Errors: none.
#[unsafe(no_mangle)]
pub extern "C" fn ocbus_last_status() -> ocbus_status {
    LAST.with_borrow(|last| last.as_ref().map_or(OCBUS_OK, |(status, _)| *status))
}

/// Why the last call in this thread failed: one sentence in UTF-8 for the log, empty if none has. It names the
/// argument or the setting, its value, and what would be right.
///
/// Ownership: the library's, valid until the next call that fails in this thread, or the thread ends. Threads:
/// each has its own. Errors: none; never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn ocbus_last_error() -> *const c_char {
    // The string's octets stay where they are when the cell is left.
    LAST.with_borrow(|last| last.as_ref().map_or(c"".as_ptr(), |(_, message)| message.as_ptr()))
}

/// The name of a status, such as "unknown session"; "unknown status" for a number that is none.
///
/// Ownership: the library's, valid for ever. Threads: any. Errors: none; never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn ocbus_status_name(status: u32) -> *const c_char {
    NAMES.iter().find(|(code, _)| *code as u32 == status).map_or(c"unknown status", |(_, name)| name).as_ptr()
}

const NAMES: [(ocbus_status, &CStr); 14] = [
    (OCBUS_OK, c"done"),
    (OCBUS_ERROR_ARGUMENT, c"wrong argument"),
    (OCBUS_ERROR_CONFIG, c"wrong setting"),
    (OCBUS_ERROR_UNKNOWN_SESSION, c"unknown session"),
    (OCBUS_ERROR_UNKNOWN_HANDLE, c"unknown handle"),
    (OCBUS_ERROR_UNKNOWN_WAIT, c"unknown wait"),
    (OCBUS_ERROR_DUPLICATE, c"there already"),
    (OCBUS_ERROR_LIMIT, c"limit reached"),
    (OCBUS_ERROR_MALFORMED, c"malformed octets"),
    (OCBUS_ERROR_STOPPING, c"stopping"),
    (OCBUS_ERROR_FORKED, c"forked"),
    (OCBUS_ERROR_BUSY, c"busy"),
    (OCBUS_ERROR_SYSTEM, c"refused by the system"),
    (OCBUS_ERROR_PANIC, c"defect of the library"),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn message() -> String {
        // SAFETY: the library's own string, and nothing fails in this thread meanwhile.
        unsafe { CStr::from_ptr(ocbus_last_error()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_panic_is_an_error_and_the_next_call_works() {
        assert_eq!((ocbus_last_status(), message()), (OCBUS_OK, String::new()));
        assert_eq!(guard(|| panic!("no {}", "luck")), OCBUS_ERROR_PANIC);
        assert_eq!(message(), "a defect of libocbus, which it survived: no luck");
        assert_eq!(guard(|| Ok(())), OCBUS_OK);
        assert_eq!(ocbus_last_status(), OCBUS_ERROR_PANIC, "kept, as errno is");
        assert_eq!(guard(|| Err(Error::argument("a\0b"))), OCBUS_ERROR_ARGUMENT);
        assert_eq!(message(), "a\\0b");
    }

    #[test]
    fn each_thread_has_its_own_error() {
        guard(|| Err(Error::argument("here")));
        assert_eq!(std::thread::spawn(message).join().unwrap(), "");
        assert_eq!(message(), "here");
    }
}
