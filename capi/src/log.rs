//! The library's log, which the host gets line by line in its own thread.

use std::ffi::{c_char, c_int, c_void};
use std::fmt::{self, Write as _};
use std::sync::{Arc, Once, PoisonError, RwLock, Weak};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::outbox::Outbox;

/// How much a line of the log matters.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ocbus_log_level {
    /// Something is broken.
    OCBUS_LOG_ERROR = 1,
    /// An administrator should know.
    OCBUS_LOG_WARNING = 2,
    /// What happens now and then.
    OCBUS_LOG_INFO = 3,
    /// What happens with each session.
    OCBUS_LOG_DEBUG = 4,
    /// Everything, a mail's content too.
    OCBUS_LOG_TRACE = 5,
}

use ocbus_log_level::*;

/// A line of the log: one line in UTF-8 without its end, control characters escaped, as in
/// `registrations wait until it answers (event=resolver_lost, reason=...)`. `level` is one of ocbus_log_level.
///
/// Called from within ocbus_dispatch() and ocbus_destroy() only, in the thread that calls them. Ownership: `line` is
/// the library's, valid until the callback returns. It must call no function that takes an ocbus_t: of the last lines
/// the handle is gone already.
pub type ocbus_log_callback =
    Option<unsafe extern "C" fn(user: *mut c_void, level: c_int, line: *const c_char)>;

/// The levels by their numbers in C.
pub(crate) const LEVELS: [(u32, Level); 5] = [
    (OCBUS_LOG_ERROR as u32, Level::ERROR),
    (OCBUS_LOG_WARNING as u32, Level::WARN),
    (OCBUS_LOG_INFO as u32, Level::INFO),
    (OCBUS_LOG_DEBUG as u32, Level::DEBUG),
    (OCBUS_LOG_TRACE as u32, Level::TRACE),
];

/// A line that waits for the host.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) level: Level,
    pub(crate) text: String,
}

impl Line {
    /// The level's number in C.
    pub(crate) fn number(&self) -> c_int {
        let found = LEVELS.iter().position(|(_, level)| *level == self.level).unwrap_or(0);
        c_int::try_from(found).unwrap_or(0) + 1
    }
}

/// Who wants lines. There is one log for the process: each gets all of them.
static SINKS: RwLock<Vec<(Level, Weak<Outbox>)>> = RwLock::new(Vec::new());

/// From now on lines up to this level go to the outbox, while it is there.
pub(crate) fn attach(outbox: &Arc<Outbox>, level: Level) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error: this process has another log of the same copy of `tracing`, as a test has.
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(ToHost));
    });
    let mut sinks = SINKS.write().unwrap_or_else(PoisonError::into_inner);
    sinks.retain(|(_, outbox)| outbox.strong_count() > 0);
    sinks.push((level, Arc::downgrade(outbox)));
    drop(sinks);
    // What nobody wanted so far is switched off at its place.
    tracing::callsite::rebuild_interest_cache();
}

struct ToHost;

impl<S: Subscriber> Layer<S> for ToHost {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        // The libraries below have logs of their own, which say nothing to an administrator.
        let ours = metadata.target().starts_with("ocbus");
        let sinks = SINKS.read().unwrap_or_else(PoisonError::into_inner);
        ours && sinks.iter().any(|(level, _)| metadata.level() <= level)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        let sinks: Vec<Arc<Outbox>> = {
            let sinks = SINKS.read().unwrap_or_else(PoisonError::into_inner);
            sinks
                .iter()
                .filter(|(most, _)| level <= *most)
                .filter_map(|(_, outbox)| outbox.upgrade())
                .collect()
        };
        if sinks.is_empty() {
            return;
        }
        let mut parts = Parts::default();
        event.record(&mut parts);
        let text = parts.line();
        for outbox in sinks {
            outbox.push_line(Line { level, text: text.clone() });
        }
    }
}

#[derive(Default)]
struct Parts {
    message: String,
    fields: String,
}

impl Parts {
    fn line(self) -> String {
        let text = match (self.message.is_empty(), self.fields.is_empty()) {
            (_, true) => self.message,
            (true, false) => self.fields,
            (false, false) => format!("{} ({})", self.message, self.fields),
        };
        let mut line = String::with_capacity(text.len());
        for character in text.chars() {
            match character.is_control() {
                true => line.extend(character.escape_default()),
                false => line.push(character),
            }
        }
        line
    }
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => {
                let comma = if self.fields.is_empty() { "" } else { ", " };
                write!(self.fields, "{comma}{name}={value:?}")
            }
        };
    }
}
