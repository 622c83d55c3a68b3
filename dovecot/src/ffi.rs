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

use ocbus_wire::{Mailbox, UidSet};

use crate::log::Line;
use crate::publish::Publishers;
use crate::session::{MailboxChange, Open, Place, Session};
use crate::settings::RawSettings;
use crate::transaction::flags::Marks;
use crate::transaction::{Commit, Counts, Mail, Source, header, text};

/// Keywords of one mail that are looked at: far more than any server allows.
const MAX_KEYWORDS: usize = 1024;

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
    events: *const c_char,
    folders: *const c_char,
}

/// `struct openchange_mailbox`.
#[repr(C)]
struct CMailbox {
    name: *const c_char,
    storage_name: *const c_char,
    special_use: *const c_char,
    owner: *const c_char,
    uid_validity: u32,
    separator: c_char,
    list_separator: c_char,
}

/// `struct openchange_mail`.
#[repr(C)]
struct CMail {
    from: *const c_char,
    subject: *const c_char,
    message_id: *const c_char,
    keywords: *const *const c_char,
    size: u64,
    flags: u32,
}

/// `struct openchange_range`.
#[repr(C)]
struct CRange {
    first: u32,
    last: u32,
}

/// `struct openchange_commit`.
#[repr(C)]
struct CCommit {
    saved: *const CRange,
    saved_count: usize,
    order: u64,
    waited_us: u64,
    uid_validity: u32,
    counted: bool,
    messages: u32,
    unseen: u32,
}

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
unsafe extern "C" fn user_free(user: *mut c_void) {
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
unsafe extern "C" fn budget_us(user: *const c_void) -> u64 {
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
unsafe extern "C" fn wants_transactions(user: *const c_void, delivery: bool) -> bool {
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
unsafe extern "C" fn begin(user: *const c_void, at: *const CMailbox, delivery: bool) -> *mut c_void {
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
unsafe extern "C" fn save(transaction: *mut c_void, mail: *const CMail) {
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
unsafe extern "C" fn copy(
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
unsafe extern "C" fn expunge(transaction: *mut c_void, first: u32, last: u32) {
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
unsafe extern "C" fn flags(transaction: *mut c_void, first: u32, last: u32, set: u32, clear: u32) {
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
unsafe extern "C" fn keyword(
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
unsafe extern "C" fn forget_flags(transaction: *mut c_void) {
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
unsafe extern "C" fn commit(user: *mut c_void, transaction: *mut c_void, at: *const CCommit) {
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
unsafe extern "C" fn rollback(transaction: *mut c_void) {
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
unsafe extern "C" fn mailbox(user: *mut c_void, what: c_int, at: *const CMailbox, old: *const CMailbox) {
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
unsafe extern "C" fn found(user: *mut c_void, at: *const CMailbox, count: u32) {
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
unsafe extern "C" fn tick(user: *mut c_void) {
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
unsafe extern "C" fn wake_ms(user: *const c_void) -> u32 {
    guarded(u32::MAX, || {
        // SAFETY: as promised above; NULL is seen by `as_ref`.
        let wake = unsafe { user.cast::<Session>().as_ref() }.and_then(Session::wake);
        // Rounded up: a tick that comes too early has nothing to do.
        wake.map_or(u32::MAX, |wake| u32::try_from(wake.as_micros().div_ceil(1000)).unwrap_or(u32::MAX - 1))
    })
}

/// Copies what the shim says of a mailbox.
///
/// # Safety
///
/// The strings are NULL or C strings.
unsafe fn place(at: &CMailbox) -> Place {
    // SAFETY: NULL or a C string, each of them.
    let value = |pointer| unsafe { octets(pointer) }.map(text);
    let separator = |octet: c_char| char::from(octet.to_ne_bytes()[0]);
    Place {
        mailbox: Mailbox {
            name: value(at.name).unwrap_or_default(),
            separator: separator(at.separator),
            storage_name: value(at.storage_name).unwrap_or_default(),
            list_separator: separator(at.list_separator),
        },
        special_use: value(at.special_use),
        owner: value(at.owner),
        uid_validity: Some(at.uid_validity).filter(|&known| known != 0),
    }
}

/// Copies what the shim says of a saved mail.
///
/// # Safety
///
/// The strings are NULL or C strings, and the list of keywords is NULL or ends with NULL.
unsafe fn saved(mail: &CMail) -> Mail {
    // SAFETY: NULL or a C string, each of them.
    let value = |pointer| unsafe { octets(pointer) }.map(header);
    Mail {
        // SAFETY: as promised above.
        marks: Marks { flags: mail.flags, keywords: unsafe { words(mail.keywords) } },
        size: Some(mail.size).filter(|&known| known != u64::MAX),
        from: value(mail.from),
        subject: value(mail.subject),
        message_id: value(mail.message_id),
    }
}

/// Copies what the shim says of a commit; the part of the budget that is spent already comes second.
///
/// # Safety
///
/// `saved` is NULL, or has as many entries as it says.
unsafe fn committed(at: &CCommit) -> (Commit, Duration) {
    let ranges: &[CRange] = match at.saved.is_null() {
        true => &[],
        // SAFETY: as many entries, which the shim does not touch during the call.
        false => unsafe { std::slice::from_raw_parts(at.saved, at.saved_count) },
    };
    let mut saved = UidSet::new();
    ranges.iter().for_each(|range| saved.push_range(range.first, range.last));
    let commit = Commit {
        saved,
        uid_validity: Some(at.uid_validity).filter(|&known| known != 0),
        order: Some(at.order).filter(|&known| known != 0),
        time_us: 0,
        counts: at.counted.then_some(Counts { messages: at.messages, unseen: at.unseen }),
    };
    (commit, Duration::from_micros(at.waited_us))
}

/// Copies a list of C strings.
///
/// # Safety
///
/// `list` is NULL, or C strings with a NULL behind the last.
unsafe fn words(list: *const *const c_char) -> Vec<String> {
    let mut words = Vec::new();
    if list.is_null() {
        return words;
    }
    for at in 0..MAX_KEYWORDS {
        // SAFETY: nothing before this one was the NULL at the end.
        let Some(word) = (unsafe { octets(*list.add(at)) }) else { break };
        words.push(text(word));
    }
    words
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
            assert!(begin(std::ptr::null(), std::ptr::null(), true).is_null());
            save(std::ptr::null_mut(), std::ptr::null());
            copy(std::ptr::null(), std::ptr::null_mut(), std::ptr::null(), 1, 1, std::ptr::null());
            expunge(std::ptr::null_mut(), 1, 1);
            flags(std::ptr::null_mut(), 1, 1, 0, 0);
            keyword(std::ptr::null_mut(), 1, 1, std::ptr::null(), true);
            forget_flags(std::ptr::null_mut());
            commit(std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null());
            rollback(std::ptr::null_mut());
            mailbox(std::ptr::null_mut(), 0, std::ptr::null(), std::ptr::null());
            tick(std::ptr::null_mut());
            assert_eq!(wake_ms(std::ptr::null()), u32::MAX);
            assert!(!wants_transactions(std::ptr::null(), true));
            user_free(std::ptr::null_mut());
        }
    }

    #[test]
    fn what_the_shim_passes_is_copied() {
        let list = [c"a".as_ptr(), c"\xff".as_ptr(), std::ptr::null()];
        let mail = CMail {
            from: c"Alice <a@example.org>".as_ptr(),
            subject: std::ptr::null(),
            message_id: c"\xff".as_ptr(),
            keywords: list.as_ptr(),
            size: u64::MAX,
            flags: 8,
        };
        let at = CMailbox {
            name: c"INBOX".as_ptr(),
            storage_name: c"INBOX".as_ptr(),
            special_use: c"\\Junk".as_ptr(),
            owner: std::ptr::null(),
            uid_validity: 0,
            separator: b'/'.cast_signed(),
            list_separator: b'.'.cast_signed(),
        };
        let ranges = [CRange { first: 3, last: 5 }, CRange { first: 1, last: 1 }];
        let end = CCommit {
            saved: ranges.as_ptr(),
            saved_count: 2,
            order: 0,
            waited_us: 7,
            uid_validity: 9,
            counted: true,
            messages: 5,
            unseen: 0,
        };
        // SAFETY: C strings, a list that ends, and two entries.
        let (mail, at, (end, waited)) = unsafe { (saved(&mail), place(&at), committed(&end)) };
        assert_eq!((at.uid_validity, at.owner), (None, None));
        assert_eq!((at.mailbox.separator, at.mailbox.list_separator), ('/', '.'));
        assert_eq!(at.special_use.as_deref(), Some("\\Junk"));
        assert_eq!(mail.from.as_deref(), Some("Alice <a@example.org>"));
        assert_eq!((mail.subject.as_deref(), mail.message_id.as_deref()), (None, Some("\u{fffd}")));
        assert_eq!((mail.size, mail.marks.flags), (None, 8));
        assert_eq!(mail.marks.keywords, ["a", "\u{fffd}"]);
        assert_eq!((end.saved.to_string().as_str(), end.order, end.uid_validity), ("3:5,1", None, Some(9)));
        assert_eq!(waited, Duration::from_micros(7));
        assert_eq!(end.counts, Some(Counts { messages: 5, unseen: 0 }));
    }
}
