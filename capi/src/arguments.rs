//! What C gave, checked before it is used.

use std::ffi::{CStr, c_char};
use std::ptr::NonNull;

use uuid::Uuid;

use crate::session::OCBUS_GUID_OCTETS;
use crate::status::Error;

fn null(name: &str) -> Error {
    Error::argument(format!("{name} is NULL"))
}

/// A string of at most `max` octets.
///
/// # Safety
/// `pointer` is NULL, or a string that ends with a NUL and stays as it is while the result is used.
pub(crate) unsafe fn text<'a>(name: &str, pointer: *const c_char, max: usize) -> Result<&'a str, Error> {
    if pointer.is_null() {
        return Err(null(name));
    }
    // SAFETY: of a string that ends with a NUL, no octet behind it is read.
    let length = unsafe { libc::strnlen(pointer, max.saturating_add(1)) };
    if length > max {
        return Err(Error::argument(format!("{name} is longer than {max} octets")));
    }
    // SAFETY: the NUL is there: its place was just found.
    let octets = unsafe { CStr::from_ptr(pointer) };
    octets.to_str().map_err(|error| Error::argument(format!("{name} is no UTF-8: {error}")))
}

/// The 16 octets of a session's GUID.
///
/// # Safety
/// `pointer` is NULL, or 16 octets can be read there.
pub(crate) unsafe fn guid(pointer: *const u8) -> Result<Uuid, Error> {
    let pointer = NonNull::new(pointer.cast_mut()).ok_or_else(|| null("session"))?;
    // SAFETY: 16 octets, which need no alignment.
    Ok(Uuid::from_bytes_le(unsafe { pointer.cast::<[u8; OCBUS_GUID_OCTETS]>().read_unaligned() }))
}

/// An array of at most `max` values; NULL is right for none.
///
/// # Safety
/// `pointer` is NULL, or `count` values can be read there and stay as they are while the result is used.
pub(crate) unsafe fn array<'a, T: Copy>(
    name: &str,
    pointer: *const T,
    count: usize,
    max: usize,
) -> Result<&'a [T], Error> {
    if count > max {
        return Err(Error::argument(format!("{name}: {count} of them: expected at most {max}")));
    }
    match NonNull::new(pointer.cast_mut()) {
        None if count == 0 => Ok(&[]),
        None => Err(null(name)),
        Some(pointer) if !pointer.is_aligned() => Err(Error::argument(format!("{name} is not aligned"))),
        // SAFETY: so many can be read, and `max` is far below isize::MAX octets.
        Some(pointer) => Ok(unsafe { std::slice::from_raw_parts(pointer.as_ptr(), count) }),
    }
}

/// Where a value is to be written.
#[derive(Debug)]
pub(crate) struct Out<T>(NonNull<T>);

impl<T> Out<T> {
    /// # Safety
    /// `pointer` is NULL, or a value can be written there until the call returns.
    pub(crate) unsafe fn new(name: &str, pointer: *mut T) -> Result<Out<T>, Error> {
        NonNull::new(pointer).map(Out).ok_or_else(|| null(name))
    }

    pub(crate) fn set(&self, value: T) {
        // SAFETY: as `new` was promised. C may have allocated it without alignment.
        unsafe { self.0.write_unaligned(value) }
    }
}

/// One of the numbers of an enumeration.
pub(crate) fn one_of<T: Copy>(name: &str, value: u32, allowed: &[(u32, T)]) -> Result<T, Error> {
    let found = allowed.iter().find(|(number, _)| *number == value).map(|(_, meaning)| *meaning);
    found.ok_or_else(|| {
        let numbers: Vec<String> = allowed.iter().map(|(number, _)| number.to_string()).collect();
        Error::argument(format!("{name}: {value}: expected one of {}", numbers.join(", ")))
    })
}
