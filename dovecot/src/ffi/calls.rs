//! What the shim calls, each of the functions in `struct openchange_callbacks`.

use std::ffi::{c_char, c_int, c_void};

use super::values::{CCommit, CMail, CMailbox, CSettings, committed, octets, place, saved, words};
use super::{guarded, publishers, write};
use crate::log::Line;
use crate::session::{MailboxChange, Open, Session};
use crate::settings::RawSettings;
use crate::transaction::flags::Marks;
use crate::transaction::{Source, text};

/// A user was created. NULL: the plugin is off for them.
///
/// # Safety
///
/// All pointers are NULL or C strings that live as long as the call; `set` is not NULL.
pub(super) unsafe extern "C" fn user_new(
    login: *const c_char,
    debug: bool,
    set: *const CSettings,
) -> *mut c_void {
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
            events: value(set.events),
            folders: value(set.folders),
        };
        let login = value(login).unwrap_or_default();
        let made = Session::new(&mut publishers(), &login, debug, raw);
        let warnings = publishers().warnings();
        write(&warnings);
        match made {
            Ok(session) => Box::into_raw(Box::new(session)).cast(),
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
pub(super) unsafe extern "C" fn user_free(user: *mut c_void) {
    guarded((), || {
        if !user.is_null() {
            // SAFETY: it was made by `Box::into_raw` in `user_new`, and this is the one call that ends it.
            let session = unsafe { Box::from_raw(user.cast::<Session>()) };
            let lines = session.end(&mut publishers());
            write(&lines);
        }
    });
}

/// How long a user's transactions may take.
///
/// # Safety
///
/// `user` comes from [`user_new`] and was not freed.
pub(super) unsafe extern "C" fn budget_us(user: *const c_void) -> u64 {
    guarded(0, || {
        // SAFETY: as promised above; NULL is seen by `as_ref`.
        let session = unsafe { user.cast::<Session>().as_ref() };
        session.map_or(0, |session| u64::try_from(session.budget().as_micros()).unwrap_or(u64::MAX))
    })
}

/// Whether transactions are to be looked at.
///
/// # Safety
///
/// `user` comes from [`user_new`] and was not freed.
pub(super) unsafe extern "C" fn wants_transactions(user: *const c_void, delivery: bool) -> bool {
    guarded(false, || {
        // SAFETY: as promised above; NULL is seen by `as_ref`.
        let session = unsafe { user.cast::<Session>().as_ref() };
        session.is_some_and(|session| session.wants_transactions(delivery))
    })
}

/// The first change of a transaction is about to come.
///
/// # Safety
///
/// `user` comes from [`user_new`] and was not freed; `at` is valid for the call, as its header says.
pub(super) unsafe extern "C" fn begin(
    user: *const c_void,
    at: *const CMailbox,
    delivery: bool,
) -> *mut c_void {
    guarded(std::ptr::null_mut(), || {
        // SAFETY: as promised above; NULL is seen by `as_ref`.
        let (session, at) = unsafe { (user.cast::<Session>().as_ref(), at.as_ref()) };
        let (Some(session), Some(at)) = (session, at) else { return std::ptr::null_mut() };
        // SAFETY: the strings are NULL or C strings.
        let at = unsafe { place(at) };
        Box::into_raw(Box::new(session.begin(at, delivery))).cast()
    })
}

/// A mail was saved.
///
/// # Safety
///
/// `transaction` comes from [`begin`] and has not ended; `mail` is valid for the call, as its header says.
pub(super) unsafe extern "C" fn save(transaction: *mut c_void, mail: *const CMail) {
    guarded((), || {
        // SAFETY: as promised above; NULL is seen by `as_mut` and `as_ref`.
        let (open, mail) = unsafe { (transaction.cast::<Open>().as_mut(), mail.as_ref()) };
        if let (Some(open), Some(mail)) = (open, mail) {
            // SAFETY: the strings are NULL or C strings, and the list of keywords ends with NULL.
            open.transaction.save(unsafe { saved(mail) });
        }
    });
}

/// Mails were copied here, and had other UIDs there.
///
/// # Safety
///
/// `user` and `transaction` are live; `from` and `mail` are valid for the call, as their header says. `from` may be NULL.
pub(super) unsafe extern "C" fn copy(
    user: *const c_void,
    transaction: *mut c_void,
    from: *const CMailbox,
    first: u32,
    last: u32,
    mail: *const CMail,
) {
    guarded((), || {
        // SAFETY: as promised above; NULL is seen by `as_mut` and `as_ref`.
        let (session, open) =
            unsafe { (user.cast::<Session>().as_ref(), transaction.cast::<Open>().as_mut()) };
        // SAFETY: likewise.
        let (from, mail) = unsafe { (from.as_ref(), mail.as_ref()) };
        let (Some(session), Some(open), Some(mail)) = (session, open, mail) else { return };
        // SAFETY: the list of keywords ends with NULL.
        let marks = Marks { flags: mail.flags, keywords: unsafe { words(mail.keywords) } };
        let Some(from) = from else { return open.transaction.copy_likewise((first, last), marks) };
        // SAFETY: the strings are NULL or C strings.
        let from = unsafe { place(from) };
        session.copies_from(open, &from);
        let source = Source { mailbox: from.mailbox, uid_validity: from.uid_validity };
        open.transaction.copy(source, (first, last), marks);
    });
}

/// Mails are expunged.
///
/// # Safety
///
/// `transaction` comes from [`begin`] and has not ended.
pub(super) unsafe extern "C" fn expunge(transaction: *mut c_void, first: u32, last: u32) {
    guarded((), || {
        // SAFETY: as promised above; NULL is seen by `as_mut`.
        if let Some(open) = unsafe { transaction.cast::<Open>().as_mut() } {
            open.transaction.expunge((first, last));
        }
    });
}

/// Flags of a range of mails were changed; UID 0 is the mail that was saved last.
///
/// # Safety
///
/// `transaction` comes from [`begin`] and has not ended.
pub(super) unsafe extern "C" fn flags(transaction: *mut c_void, first: u32, last: u32, set: u32, clear: u32) {
    guarded((), || {
        // SAFETY: as promised above; NULL is seen by `as_mut`.
        if let Some(open) = unsafe { transaction.cast::<Open>().as_mut() } {
            open.transaction.flags((first, last), set, clear);
        }
    });
}

/// A keyword of a range of mails was set or removed.
///
/// # Safety
///
/// `transaction` comes from [`begin`] and has not ended; `keyword` is NULL or a C string.
pub(super) unsafe extern "C" fn keyword(
    transaction: *mut c_void,
    first: u32,
    last: u32,
    keyword: *const c_char,
    set: bool,
) {
    guarded((), || {
        // SAFETY: as promised above; NULL is seen by `as_mut`.
        let open = unsafe { transaction.cast::<Open>().as_mut() };
        // SAFETY: as promised above.
        let keyword = unsafe { octets(keyword) }.map(text);
        if let (Some(open), Some(keyword)) = (open, keyword) {
            open.transaction.keyword((first, last), &keyword, set);
        }
    });
}

/// What was told of flags and keywords is not what was written, which follows.
///
/// # Safety
///
/// `transaction` comes from [`begin`] and has not ended.
pub(super) unsafe extern "C" fn forget_flags(transaction: *mut c_void) {
    guarded((), || {
        // SAFETY: as promised above; NULL is seen by `as_mut`.
        if let Some(open) = unsafe { transaction.cast::<Open>().as_mut() } {
            open.transaction.forget_flags();
        }
    });
}

/// A transaction was committed; it ends with this.
///
/// # Safety
///
/// `user` and `transaction` are live, and nobody uses `transaction` again; `at` is valid for the call.
pub(super) unsafe extern "C" fn commit(user: *mut c_void, transaction: *mut c_void, at: *const CCommit) {
    guarded((), || {
        if transaction.is_null() {
            return;
        }
        // SAFETY: it was made by `Box::into_raw` in `begin`, and this is the one call that ends it.
        let open = *unsafe { Box::from_raw(transaction.cast::<Open>()) };
        // SAFETY: as promised above; NULL is seen by `as_mut` and `as_ref`.
        let (session, at) = unsafe { (user.cast::<Session>().as_mut(), at.as_ref()) };
        let (Some(session), Some(at)) = (session, at) else { return };
        // SAFETY: `saved` has as many entries as it says.
        let (commit, waited) = unsafe { committed(at) };
        let lines = session.commit(&mut publishers(), open, commit, waited);
        write(&lines);
    });
}

/// A transaction was not committed; it ends with this.
///
/// # Safety
///
/// `transaction` is NULL or live, and nobody uses it again.
pub(super) unsafe extern "C" fn rollback(transaction: *mut c_void) {
    guarded((), || {
        if !transaction.is_null() {
            // SAFETY: it was made by `Box::into_raw` in `begin`, and this is the one call that ends it.
            drop(unsafe { Box::from_raw(transaction.cast::<Open>()) });
        }
    });
}

/// Something happened to a mailbox as a whole.
///
/// # Safety
///
/// `user` is live; `at` and `old` are NULL or valid for the call, as their header says.
pub(super) unsafe extern "C" fn mailbox(
    user: *mut c_void,
    what: c_int,
    at: *const CMailbox,
    old: *const CMailbox,
) {
    guarded((), || {
        // SAFETY: as promised above; NULL is seen by `as_mut` and `as_ref`.
        let (session, at, old) = unsafe { (user.cast::<Session>().as_mut(), at.as_ref(), old.as_ref()) };
        let (Some(session), Some(at)) = (session, at) else { return };
        let what = match what {
            0 => MailboxChange::Create,
            1 => MailboxChange::Delete,
            2 => MailboxChange::Rename,
            3 => MailboxChange::Subscribe,
            4 => MailboxChange::Unsubscribe,
            _ => return,
        };
        // SAFETY: the strings are NULL or C strings.
        let (at, old) = unsafe { (place(at), old.map(|old| place(old))) };
        let lines = session.mailbox_changed(&mut publishers(), what, at, old);
        write(&lines);
    });
}

/// Dovecot gave UIDs to messages that no transaction added.
///
/// # Safety
///
/// `user` is live; `at` is NULL or valid for the call, as its header says.
pub(super) unsafe extern "C" fn found(user: *mut c_void, at: *const CMailbox, count: u32) {
    guarded((), || {
        // SAFETY: as promised above; NULL is seen by `as_mut` and `as_ref`.
        let (session, at) = unsafe { (user.cast::<Session>().as_mut(), at.as_ref()) };
        let (Some(session), Some(at)) = (session, at) else { return };
        // SAFETY: the strings are NULL or C strings.
        let at = unsafe { place(at) };
        let lines = session.found(&mut publishers(), at, u64::from(count));
        write(&lines);
    });
}

/// Dovecot has nothing to do.
///
/// # Safety
///
/// `user` comes from [`user_new`] and was not freed.
pub(super) unsafe extern "C" fn tick(user: *mut c_void) {
    guarded((), || {
        // SAFETY: as promised above; NULL is seen by `as_mut`.
        if let Some(session) = unsafe { user.cast::<Session>().as_mut() } {
            let lines = session.tick(&mut publishers());
            write(&lines);
        }
    });
}

/// In how many milliseconds [`tick`] is wanted; `u32::MAX`: not at all.
///
/// # Safety
///
/// `user` comes from [`user_new`] and was not freed.
pub(super) unsafe extern "C" fn wake_ms(user: *const c_void) -> u32 {
    guarded(u32::MAX, || {
        // SAFETY: as promised above; NULL is seen by `as_ref`.
        let wake = unsafe { user.cast::<Session>().as_ref() }.and_then(Session::wake);
        // Rounded up: a tick that comes too early has nothing to do.
        wake.map_or(u32::MAX, |wake| u32::try_from(wake.as_micros().div_ceil(1000)).unwrap_or(u32::MAX - 1))
    })
}
