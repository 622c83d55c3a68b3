//! The library's log on standard error.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::failure::Failure;
use super::output::escape;

/// What is told without a wish for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loudness {
    /// Errors, as lines of the command's own kind: it tells the rest itself.
    Errors,
    /// Warnings too.
    Warnings,
    /// All that an administrator wants to find in a daemon's log, as named events with fields.
    Daemon,
}

/// Starts it.
pub(super) fn start(verbose: u8, loudness: Loudness) -> Result<(), Failure> {
    let wish = std::env::var("OCBUS_LOG").ok().filter(|wish| !wish.is_empty());
    let filter = match (&wish, verbose, loudness) {
        (Some(wish), ..) => wish.as_str(),
        (None, 0, Loudness::Errors) => "error",
        (None, 0, Loudness::Warnings) => "warn",
        (None, 0, Loudness::Daemon) => "info",
        (None, 1, _) => "info,ocbus=debug,ocbus_resolver=debug",
        (None, ..) => "trace",
    };
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Failure::usage(format!("OCBUS_LOG: '{filter}': {error}: expected a filter as in warn,ocbus=debug"))
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A line that cannot be written is lost; the default would print about it, and panic in nng's callbacks.
        .log_internal_errors(false);
    let colour = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    // The journal has times of its own.
    let journal = loudness == Loudness::Daemon && std::env::var_os("JOURNAL_STREAM").is_some();
    match wish.is_some() || verbose > 0 || loudness == Loudness::Daemon {
        true if journal => builder.with_ansi(false).without_time().init(),
        true => builder.with_ansi(colour).init(),
        false => builder.event_format(Brief).init(),
    }
    Ok(())
}

/// `ocbus: warning: reason: message (other fields)`.
struct Brief;

impl<S, N> FormatEvent<S, N> for Brief
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut parts = Parts::default();
        event.record(&mut parts);
        let level = match *event.metadata().level() {
            Level::ERROR => "",
            Level::WARN => "warning: ",
            _ => "note: ",
        };
        let fields = if parts.fields.is_empty() { String::new() } else { format!(" ({})", parts.fields) };
        writeln!(
            writer,
            "ocbus: {level}{}{}{}",
            escape(&parts.reason),
            escape(&parts.message),
            escape(&fields)
        )
    }
}

#[derive(Default)]
struct Parts {
    reason: String,
    message: String,
    fields: String,
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            "reason" => write!(self.reason, "{value:?}: "),
            // The name for machines; the message says it for people.
            "event" => Ok(()),
            name => {
                let comma = if self.fields.is_empty() { "" } else { ", " };
                write!(self.fields, "{comma}{name} {value:?}")
            }
        };
    }
}
