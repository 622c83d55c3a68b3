use std::ffi::{CString, c_char, c_int, c_void};

use tracing::Level;

use crate::arguments::{one_of, text};
use crate::ids::{self, ocbus_ids_callback};
use crate::log::{LEVELS, Line, ocbus_log_callback};
use crate::settings::Settings;
use crate::status::{Error, guard, ocbus_status};

/// The longest name of a setting.
const MAX_NAME_OCTETS: usize = 64;

/// The longest value, and the longest text of settings.
const MAX_VALUE_OCTETS: usize = 65_536;

/// What ocbus_create() is told: settings by name, and callbacks. Later versions have more names; the functions stay.
///
/// Not thread-safe: one thread at a time.
#[derive(Debug, Clone, Default)]
pub struct ocbus_options {
    pub(crate) settings: Settings,
    pub(crate) ids: Option<ids::Callback>,
    pub(crate) log: Option<Log>,
}

/// Where lines of the log go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Log {
    pub(crate) level: Level,
    pub(crate) call: unsafe extern "C" fn(*mut c_void, c_int, *const c_char),
    pub(crate) user: *mut c_void,
}

// SAFETY: the pointer is the host's. It is only handed back to it, in a thread in which it has called.
unsafe impl Send for Log {}
// SAFETY: likewise; a host that dispatches in several threads has to expect it there.
unsafe impl Sync for Log {}

impl Log {
    /// Hands a line over.
    ///
    /// # Safety
    /// In a thread of the host that has called the library to be called back.
    pub(crate) unsafe fn line(self, line: &Line) {
        // Control characters are escaped, NUL among them.
        let text = CString::new(line.text.as_str()).unwrap_or_default();
        // SAFETY: the host's function, as it promised by passing it; the string lives until it returns.
        unsafe { (self.call)(self.user, line.number(), text.as_ptr()) }
    }
}

/// # Safety
/// `options` is NULL, or comes from `ocbus_options_new` and is not freed yet nor used elsewhere meanwhile.
unsafe fn get<'a>(options: *mut ocbus_options) -> Result<&'a mut ocbus_options, Error> {
    // SAFETY: as the caller promised.
    unsafe { options.as_mut() }.ok_or_else(|| Error::argument("options is NULL"))
}

/// Options with every default.
///
/// Ownership: the caller's, to be given to ocbus_options_free(). Threads: any. Errors: none; never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn ocbus_options_new() -> *mut ocbus_options {
    Box::into_raw(Box::default())
}

/// Frees options. NULL is right. What was created with them does not need them any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_options_free(options: *mut ocbus_options) {
    guard(|| {
        if !options.is_null() {
            // SAFETY: from ocbus_options_new(), and not used any more, as ocbus.h asks of the caller.
            drop(unsafe { Box::from_raw(options) });
        }
        Ok(())
    });
}

/// Changes one setting. docs/settings.md has all names, with ranges and defaults; "resolver" is the one that matters: the
/// libmemcached configuration string that Dovecot's plugin has as openchange_resolver, or "none" for a server that no
/// other process sends events to. Some ranges are checked by ocbus_create() only.
///
/// Ownership: the strings are copied. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_CONFIG (no such setting, or a wrong
/// value; nothing is changed).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_options_set(
    options: *mut ocbus_options,
    name: *const c_char,
    value: *const c_char,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let options = unsafe { get(options)? };
        // SAFETY: likewise.
        let (name, value) =
            unsafe { (text("name", name, MAX_NAME_OCTETS)?, text("value", value, MAX_VALUE_OCTETS)?) };
        options.settings.set(name, value).map_err(config)
    })
}

/// Changes settings by a text, one in each line: "name = value". Spaces around both are left out; empty lines, and lines that
/// begin with '#' or ';', say nothing. Either all of them are changed or, at an error, none.
///
/// Ownership: the text is copied. Errors: as ocbus_options_set(); the message names the line.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_options_read(
    options: *mut ocbus_options,
    configuration: *const c_char,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let options = unsafe { get(options)? };
        // SAFETY: likewise.
        let configuration = unsafe { text("configuration", configuration, MAX_VALUE_OCTETS)? };
        options.settings = read(&options.settings, configuration)?;
        Ok(())
    })
}

fn read(settings: &Settings, configuration: &str) -> Result<Settings, Error> {
    let mut settings = settings.clone();
    for (number, line) in configuration.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let set = line
            .split_once('=')
            .ok_or_else(|| format!("'{}': expected name = value", line.escape_debug()))
            .and_then(|(name, value)| settings.set(name.trim(), value.trim()));
        set.map_err(|why| config(format!("line {}: {why}", number + 1)))?;
    }
    Ok(settings)
}

fn config(message: String) -> Error {
    Error::new(ocbus_status::OCBUS_ERROR_CONFIG, message)
}

/// Sets the callback that answers questions, and what it is given. ocbus_create() needs one.
///
/// Ownership: `user` must live until ocbus_destroy() has returned. Errors: OCBUS_ERROR_ARGUMENT (NULL).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_options_set_ids(
    options: *mut ocbus_options,
    callback: ocbus_ids_callback,
    user: *mut c_void,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let options = unsafe { get(options)? };
        let call = callback.ok_or_else(|| Error::argument("callback is NULL"))?;
        options.ids = Some(ids::Callback { call, user });
        Ok(())
    })
}

/// Sets the callback that gets the library's log up to a level, one of ocbus_log_level. Without one there is no log:
/// nothing is ever written to standard error. There is one log for the process: with several ocbus_t, each gets all lines.
/// At most 1,000 lines wait to be dispatched; of more the number is told.
///
/// Ownership: `user` must live until ocbus_destroy() has returned. Errors: OCBUS_ERROR_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_options_set_log(
    options: *mut ocbus_options,
    level: u32,
    callback: ocbus_log_callback,
    user: *mut c_void,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let options = unsafe { get(options)? };
        let call = callback.ok_or_else(|| Error::argument("callback is NULL"))?;
        options.log = Some(Log { level: one_of("level", level, &LEVELS)?, call, user });
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_text_of_settings_is_taken_whole_or_not_at_all() {
        let before = Settings::default();
        let text = "# ours\n\n threads=2 \n; later\nresolver = --SERVER=a.example:1 --SERVER=b.example\n";
        let after = read(&before, text).unwrap();
        assert_eq!((after.threads, after.resolver.unwrap().servers.len()), (2, 2));
        let error = read(&before, "threads = 2\n\nthreads = many").unwrap_err();
        assert_eq!(error.to_string(), "line 3: threads: 'many': expected a whole number, 0 or more");
        let error = read(&before, "threads").unwrap_err();
        assert_eq!(error.to_string(), "line 1: 'threads': expected name = value");
    }
}
