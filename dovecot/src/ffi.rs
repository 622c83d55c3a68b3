//! The border to Dovecot: what it looks up in the module, what the shim calls ([`calls`], with [`values`]), and the
//! shim's own functions. The only unsafe code of the plugin.
//!
//! Every entry catches panics: one that crossed into C would abort the process after the mail is stored, and
//! the sender would deliver the mail again. Dovecot's processes have one thread, so nothing here runs twice
//! at a time.

#![allow(unsafe_code)]

mod calls;
#[cfg(test)]
mod tests;
mod values;

use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int, c_void};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::log::Line;
use crate::publish::Publishers;
use calls::{
    begin, budget_us, commit, copy, expunge, flags, forget_flags, found, keyword, mailbox, rollback, save,
    tick, user_free, user_new, wake_ms, wants_transactions,
};
use values::{CCommit, CMail, CMailbox, CSettings};

/// `struct openchange_callbacks`.
#[repr(C)]
struct Callbacks {
    user_new: unsafe extern "C" fn(*const c_char, bool, *const CSettings) -> *mut c_void,
    user_free: unsafe extern "C" fn(*mut c_void),
    budget_us: unsafe extern "C" fn(*const c_void) -> u64,
    wants_transactions: unsafe extern "C" fn(*const c_void, bool) -> bool,
    begin: unsafe extern "C" fn(*const c_void, *const CMailbox, bool) -> *mut c_void,
    save: unsafe extern "C" fn(*mut c_void, *const CMail),
    copy: unsafe extern "C" fn(*const c_void, *mut c_void, *const CMailbox, u32, u32, *const CMail),
    expunge: unsafe extern "C" fn(*mut c_void, u32, u32),
    flags: unsafe extern "C" fn(*mut c_void, u32, u32, u32, u32),
    keyword: unsafe extern "C" fn(*mut c_void, u32, u32, *const c_char, bool),
    forget_flags: unsafe extern "C" fn(*mut c_void),
    commit: unsafe extern "C" fn(*mut c_void, *mut c_void, *const CCommit),
    rollback: unsafe extern "C" fn(*mut c_void),
    mailbox: unsafe extern "C" fn(*mut c_void, c_int, *const CMailbox, *const CMailbox),
    found: unsafe extern "C" fn(*mut c_void, *const CMailbox, u32),
    tick: unsafe extern "C" fn(*mut c_void),
    wake_ms: unsafe extern "C" fn(*const c_void) -> u32,
}

unsafe extern "C" {
    fn openchange_shim_init(module: *mut c_void, callbacks: *const Callbacks);
    fn openchange_shim_deinit();
    fn openchange_shim_log(level: c_int, line: *const c_char);
}

static CALLBACKS: Callbacks = Callbacks {
    user_new,
    user_free,
    budget_us,
    wants_transactions,
    begin,
    save,
    copy,
    expunge,
    flags,
    keyword,
    forget_flags,
    commit,
    rollback,
    mailbox,
    found,
    tick,
    wake_ms,
};

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
