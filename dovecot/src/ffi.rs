//! The border to Dovecot: what it looks up in the module, what the shim calls, and the shim's own
//! functions. The only unsafe code of the plugin.
//!
//! Every entry catches panics: one that crossed into C would abort the process after the mail is stored, and
//! the sender would deliver the mail again. Dovecot's processes have one thread, so nothing here runs twice
//! at a time.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ocbus_wire::Mailbox;

use crate::log::Line;
use crate::publish::{Publishers, User};
use crate::settings::RawSettings;
use crate::transaction::{Delivery, Mail, header, text};

/// `struct openchange_settings`.
#[repr(C)]
struct CSettings {
    resolver: *const c_char,
    cn: *const c_char,
    backend: *const c_char,
    budget: *const c_char,
    keep_refused: *const c_char,
    charset: *const c_char,
    bus: *const c_char,
}

/// `struct openchange_mail`.
#[repr(C)]
struct CMail {
    from: *const c_char,
    subject: *const c_char,
    message_id: *const c_char,
    size: u64,
    uid: u32,
    flags: u32,
}

/// `struct openchange_delivery`.
#[repr(C)]
struct CDelivery {
    mailbox: *const c_char,
    storage_name: *const c_char,
    mails: *const CMail,
    count: usize,
    waited_us: u64,
    uid_validity: u32,
    separator: c_char,
    list_separator: c_char,
}

/// `struct openchange_callbacks`.
#[repr(C)]
struct Callbacks {
    user_new: unsafe extern "C" fn(*const c_char, bool, *const CSettings) -> *mut c_void,
    user_free: unsafe extern "C" fn(*mut c_void),
    budget_us: unsafe extern "C" fn(*const c_void) -> u64,
    deliver: unsafe extern "C" fn(*mut c_void, *const CDelivery),
}

unsafe extern "C" {
    fn openchange_shim_init(module: *mut c_void, callbacks: *const Callbacks);
    fn openchange_shim_deinit();
    fn openchange_shim_log(level: c_int, line: *const c_char);
}

static CALLBACKS: Callbacks = Callbacks { user_new, user_free, budget_us, deliver };

static PUBLISHERS: Mutex<Publishers> = Mutex::new(Publishers::new());

fn publishers() -> MutexGuard<'static, Publishers> {
    PUBLISHERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A C string that never changes.
#[repr(transparent)]
struct Text(*const c_char);

// SAFETY: it points to a constant of this module, or nowhere.
unsafe impl Sync for Text {}

/// Compared by Dovecot with its own ABI, up to the `(`.
// SAFETY: the name is the one that Dovecot looks up; nobody else in the process has it.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "Dovecot looks it up under this name")]
static openchange_plugin_version: Text = Text(concat!(env!("OPENCHANGE_DOVECOT_ABI"), "\0").as_ptr().cast());

/// The plugins that must be loaded before this one.
// SAFETY: as above.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "Dovecot looks it up under this name")]
static openchange_plugin_dependencies: [Text; 2] = [Text(c"notify".as_ptr()), Text(std::ptr::null())];

/// Dovecot loaded the module.
// SAFETY: the name is the one that Dovecot looks up; nobody else in the process has it.
#[unsafe(no_mangle)]
extern "C" fn openchange_plugin_init(module: *mut c_void) {
    guarded((), || {
        // The hook of the standard library would write to stderr, past Dovecot's log.
        panic::set_hook(Box::new(|info| {
            LAST_PANIC.with(|last| {
                if let Ok(mut last) = last.try_borrow_mut() {
                    *last = Some(info.to_string());
                }
            });
        }));
    });
    // SAFETY: `module` is what Dovecot gave us, the callbacks live as long as the module, and Dovecot is initialised.
    unsafe { openchange_shim_init(module, &raw const CALLBACKS) }
}

/// Dovecot unloads the module.
// SAFETY: the name is the one that Dovecot looks up; nobody else in the process has it.
#[unsafe(no_mangle)]
extern "C" fn openchange_plugin_deinit() {
    // SAFETY: pairs with the call in `openchange_plugin_init`.
    unsafe { openchange_shim_deinit() }
    guarded((), || {
        let lines = publishers().close();
        write(&lines);
        // The hook is code of this module, which is about to go.
        drop(panic::take_hook());
    });
}

/// A user was created. NULL: the plugin is off for them.
///
/// # Safety
///
/// All pointers are NULL or C strings that live as long as the call; `set` is not NULL.
unsafe extern "C" fn user_new(login: *const c_char, debug: bool, set: *const CSettings) -> *mut c_void {
    guarded(std::ptr::null_mut(), || {
        // SAFETY: the shim passes a struct on its stack, or NULL, which `as_ref` sees.
        let Some(set) = (unsafe { set.as_ref() }) else { return std::ptr::null_mut() };
        // SAFETY: NULL or a C string, each of them.
        let value = |pointer| unsafe { octets(pointer) }.map(text);
        let raw = RawSettings {
            resolver: value(set.resolver),
            cn: value(set.cn),
            backend: value(set.backend),
            budget: value(set.budget),
            keep_refused: value(set.keep_refused),
            charset: value(set.charset),
            bus: value(set.bus),
        };
        let login = value(login).unwrap_or_default();
        match publishers().user(&login, debug, raw) {
            Ok(user) => Box::into_raw(Box::new(user)).cast(),
            Err(error) => {
                write(&[Line::warning(format!(
                    "{error}; no notifications for {}",
                    crate::log::name(&login)
                ))]);
                std::ptr::null_mut()
            }
        }
    })
}

/// The user is gone.
///
/// # Safety
///
/// `user` comes from [`user_new`], and nobody uses it again.
unsafe extern "C" fn user_free(user: *mut c_void) {
    guarded((), || {
        if !user.is_null() {
            // SAFETY: it was made by `Box::into_raw` in `user_new`, and this is the one call that ends it.
            let user = unsafe { Box::from_raw(user.cast::<User>()) };
            write(&user.finish());
        }
    });
}

/// How long a user's transactions may take.
///
/// # Safety
///
/// `user` comes from [`user_new`] and was not freed.
unsafe extern "C" fn budget_us(user: *const c_void) -> u64 {
    guarded(0, || {
        // SAFETY: as promised above; NULL is seen by `as_ref`.
        let user = unsafe { user.cast::<User>().as_ref() };
        user.map_or(0, |user| u64::try_from(user.budget().as_micros()).unwrap_or(u64::MAX))
    })
}

/// A transaction was committed.
///
/// # Safety
///
/// `user` comes from [`user_new`] and was not freed; `delivery` is valid for the call, as its header says.
unsafe extern "C" fn deliver(user: *mut c_void, delivery: *const CDelivery) {
    guarded((), || {
        // SAFETY: as promised above; NULL is seen by `as_ref`.
        let (user, delivery) = unsafe { (user.cast::<User>().as_ref(), delivery.as_ref()) };
        let (Some(user), Some(delivery)) = (user, delivery) else { return };
        // SAFETY: the strings are NULL or C strings, `mails` has `count` entries.
        let delivery = unsafe { taken(delivery) };
        write(&user.publish(delivery));
    });
}

/// Copies what the shim passes.
///
/// # Safety
///
/// The strings are NULL or C strings, and `mails` points to `count` entries.
unsafe fn taken(delivery: &CDelivery) -> Delivery {
    let mails: &[CMail] = match delivery.mails.is_null() {
        true => &[],
        // SAFETY: `count` entries, which the shim does not touch during the call.
        false => unsafe { std::slice::from_raw_parts(delivery.mails, delivery.count) },
    };
    // SAFETY: NULL or a C string, each of them.
    let name = |pointer| unsafe { octets(pointer) }.map(text).unwrap_or_default();
    // SAFETY: NULL or a C string, each of them.
    let value = |pointer| unsafe { octets(pointer) }.map(header);
    let separator = |octet: c_char| char::from(octet.to_ne_bytes()[0]);
    Delivery {
        mailbox: Mailbox {
            name: name(delivery.mailbox),
            separator: separator(delivery.separator),
            storage_name: name(delivery.storage_name),
            list_separator: separator(delivery.list_separator),
        },
        waited: Duration::from_micros(delivery.waited_us),
        uid_validity: Some(delivery.uid_validity).filter(|&known| known != 0),
        mails: mails
            .iter()
            .map(|mail| Mail {
                uid: Some(mail.uid).filter(|&known| known != 0),
                flags: mail.flags,
                size: Some(mail.size).filter(|&known| known != u64::MAX),
                from: value(mail.from),
                subject: value(mail.subject),
                message_id: value(mail.message_id),
            })
            .collect(),
    }
}

/// The octets of a C string.
///
/// # Safety
///
/// `pointer` is NULL or a C string that outlives the result.
unsafe fn octets<'a>(pointer: *const c_char) -> Option<&'a [u8]> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: not NULL, so it is a C string.
    Some(unsafe { CStr::from_ptr(pointer) }.to_bytes())
}

fn write(lines: &[Line]) {
    for line in lines {
        // A line has no control characters, so no NUL either.
        if let Ok(text) = CString::new(line.text.as_str()) {
            // SAFETY: a C string; Dovecot copies it.
            unsafe { openchange_shim_log(line.level as c_int, text.as_ptr()) }
        }
    }
}

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `work`; a panic in it becomes a line in the log, and `otherwise`.
fn guarded<T>(otherwise: T, work: impl FnOnce() -> T) -> T {
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(value) => value,
        Err(payload) => {
            // Its destructor might panic.
            std::mem::forget(payload);
            let said = panic::catch_unwind(|| {
                let what = LAST_PANIC.with(RefCell::take).unwrap_or_else(|| "no message".to_owned());
                write(&[Line::warning(format!("internal error, the mail is not affected: {what}"))]);
            });
            if let Err(payload) = said {
                std::mem::forget(payload);
            }
            otherwise
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_at_the_border() {
        assert_eq!(guarded(7, || panic!("on purpose")), 7);
        assert_eq!(guarded(7, || 8), 8);
    }

    #[test]
    fn null_is_taken_for_nothing() {
        // SAFETY: NULL is allowed everywhere.
        unsafe {
            assert!(user_new(std::ptr::null(), false, std::ptr::null()).is_null());
            deliver(std::ptr::null_mut(), std::ptr::null());
            user_free(std::ptr::null_mut());
        }
    }

    #[test]
    fn what_the_shim_passes_is_copied() {
        let mail = CMail {
            from: c"Alice <a@example.org>".as_ptr(),
            subject: std::ptr::null(),
            message_id: c"\xff".as_ptr(),
            size: u64::MAX,
            uid: 0,
            flags: 8,
        };
        let delivery = CDelivery {
            mailbox: c"INBOX".as_ptr(),
            storage_name: c"INBOX".as_ptr(),
            mails: &raw const mail,
            count: 1,
            waited_us: 0,
            uid_validity: 0,
            separator: b'/'.cast_signed(),
            list_separator: b'.'.cast_signed(),
        };
        // SAFETY: C strings and one entry.
        let delivery = unsafe { taken(&delivery) };
        assert_eq!(delivery.uid_validity, None);
        assert_eq!((delivery.mailbox.separator, delivery.mailbox.list_separator), ('/', '.'));
        let mail = &delivery.mails[0];
        assert_eq!(mail.from.as_deref(), Some("Alice <a@example.org>"));
        assert_eq!((mail.subject.as_deref(), mail.message_id.as_deref()), (None, Some("\u{fffd}")));
        assert_eq!((mail.size, mail.uid, mail.flags), (None, None, 8));
    }
}
