//! How a command ends when it does not end well.

use std::error::Error;
use std::fmt::Display;
use std::io::ErrorKind;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};

use super::output;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// Status 1.
    Failed(String),
    /// Status 2, as clap's own.
    Usage(String),
    /// Whoever read our output went away (`| head`): nothing to complain about.
    Closed,
}

impl Failure {
    pub(super) fn failed(why: impl Display) -> Failure {
        Failure::Failed(why.to_string())
    }

    pub(super) fn usage(why: impl Display) -> Failure {
        Failure::Usage(why.to_string())
    }

    /// A failed write to standard output.
    pub(super) fn of_output(error: &std::io::Error) -> Failure {
        match error.kind() {
            ErrorKind::BrokenPipe => Failure::Closed,
            _ => Failure::Failed(format!("standard output: {error}")),
        }
    }

    pub(super) fn report(self) -> ExitCode {
        match self {
            Failure::Failed(why) => say(&why, 1),
            Failure::Usage(why) => say(&why, 2),
            Failure::Closed => ExitCode::SUCCESS,
        }
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Failed(chain(&error))
    }
}

/// An error and its sources; one that repeats its source in its own words is not followed.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let words = source.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = source.source();
    }
    text
}

/// Reports wrong usage, or prints the help that was asked for.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that went away has seen enough of it.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(2)
        }
        _ => say(&wrong_usage(error), 2),
    }
}

/// clap's paragraphs in one line.
fn wrong_usage(error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    if let (Some(argument), Some(value), Some(reason)) =
        (context(ContextKind::InvalidArg), context(ContextKind::InvalidValue), error.source())
    {
        let (value, reason) = (value.escape_debug().to_string(), chain(reason));
        let told =
            reason.contains(&format!("'{value}'")) || (!value.is_empty() && reason.starts_with(&value));
        return match told {
            true => format!("{argument}: {reason}"),
            false => format!("{argument}: '{value}': {reason}"),
        };
    }
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let words: Vec<&str> = lines.take_while(|line| !line.starts_with("For more information")).collect();
    words
        .join(" ")
        .trim_start_matches("error: ")
        .replace(" Usage: ", "; usage: ")
        .replace(" tip: ", "; tip: ")
}

fn say(why: &str, status: u8) -> ExitCode {
    output::complain(why);
    ExitCode::from(status)
}

/// A panic is a fault of ours; it is told in one line as well.
pub(super) fn panicked(info: &std::panic::PanicHookInfo<'_>) {
    let payload = info.payload();
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    output::complain(&format!("internal error at {place}: {}: please report it", text.unwrap_or("panic")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer: {0}")]
    struct Telling(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Silent(#[source] std::io::Error);

    #[test]
    fn sources_are_told_once() {
        let inner = || std::io::Error::other("inner");
        assert_eq!(chain(&Telling(inner())), "outer: inner");
        assert_eq!(chain(&Silent(inner())), "outer: inner");
    }
}
