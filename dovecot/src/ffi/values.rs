//! The shim's structs, and copies of what they point to. Nothing in them outlives a call.

use std::ffi::{CStr, c_char};
use std::time::Duration;

use ocbus_wire::{Mailbox, UidSet};

use crate::session::Place;
use crate::transaction::flags::Marks;
use crate::transaction::{Commit, Counts, Mail, header, text};

/// Keywords of one mail that are looked at: far more than any server allows.
const MAX_KEYWORDS: usize = 1024;

/// `struct openchange_settings`.
#[repr(C)]
pub(super) struct CSettings {
    pub(super) resolver: *const c_char,
    pub(super) cn: *const c_char,
    pub(super) backend: *const c_char,
    pub(super) budget: *const c_char,
    pub(super) keep_refused: *const c_char,
    pub(super) charset: *const c_char,
    pub(super) bus: *const c_char,
    pub(super) events: *const c_char,
    pub(super) folders: *const c_char,
}

/// `struct openchange_mailbox`.
#[repr(C)]
pub(super) struct CMailbox {
    pub(super) name: *const c_char,
    pub(super) storage_name: *const c_char,
    pub(super) special_use: *const c_char,
    pub(super) owner: *const c_char,
    pub(super) uid_validity: u32,
    pub(super) separator: c_char,
    pub(super) list_separator: c_char,
}

/// `struct openchange_mail`.
#[repr(C)]
pub(super) struct CMail {
    pub(super) from: *const c_char,
    pub(super) subject: *const c_char,
    pub(super) message_id: *const c_char,
    pub(super) keywords: *const *const c_char,
    pub(super) size: u64,
    pub(super) flags: u32,
}

/// `struct openchange_range`.
#[repr(C)]
pub(super) struct CRange {
    pub(super) first: u32,
    pub(super) last: u32,
}

/// `struct openchange_commit`.
#[repr(C)]
pub(super) struct CCommit {
    pub(super) saved: *const CRange,
    pub(super) saved_count: usize,
    pub(super) order: u64,
    pub(super) waited_us: u64,
    pub(super) uid_validity: u32,
    pub(super) counted: bool,
    pub(super) messages: u32,
    pub(super) unseen: u32,
}

/// Copies what the shim says of a mailbox.
///
/// # Safety
///
/// The strings are NULL or C strings.
pub(super) unsafe fn place(at: &CMailbox) -> Place {
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
pub(super) unsafe fn saved(mail: &CMail) -> Mail {
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
pub(super) unsafe fn committed(at: &CCommit) -> (Commit, Duration) {
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
pub(super) unsafe fn words(list: *const *const c_char) -> Vec<String> {
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
pub(super) unsafe fn octets<'a>(pointer: *const c_char) -> Option<&'a [u8]> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: not NULL, so it is a C string.
    Some(unsafe { CStr::from_ptr(pointer) }.to_bytes())
}
