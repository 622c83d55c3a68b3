use std::time::Duration;

use super::calls::*;
use super::guarded;
use super::values::*;
use crate::transaction::Counts;

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
