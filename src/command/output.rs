//! What goes to standard output and standard error.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::Color;
use super::failure::Failure;

/// Names, headings.
pub(super) const STRONG: Style = Style::new().bold();
/// What is there to be passed over.
pub(super) const DIM: Style = Style::new().dimmed();
/// Well.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// Not as it should be.
pub(super) const BAD: Style = AnsiColor::Red.on_default();
/// Neither.
pub(super) const UNSURE: Style = AnsiColor::Yellow.on_default();

/// Tells all output whether to use colour.
pub(super) fn choose_color(color: Color) {
    match color {
        // anstream looks at the terminal, NO_COLOR and CLICOLOR itself.
        Color::Auto => anstream::ColorChoice::Auto,
        Color::Always => anstream::ColorChoice::Always,
        Color::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}

/// Prints one line on standard output, at once: whoever reads it acts on it.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    let mut stdout = anstream::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(|error| Failure::of_output(&error))
}

/// Prints one line of JSON.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    line(&serde_json::to_string(value)?)
}

/// Prints octets as they are.
pub(super) fn octets(octets: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(octets).and_then(|()| stdout.flush()).map_err(|error| Failure::of_output(&error))
}

/// One line on standard error. Nobody is left to be told when that fails.
pub(super) fn note(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// One line on standard error, in our name.
pub(super) fn complain(why: &str) {
    note(&format!("ocbus: {}", one_line(why)));
}

/// A text painted in a style.
pub(super) fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// A text that may hold several lines, such as a server's log, as one.
pub(super) fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    escape(&lines.join("; "))
}

/// What comes from outside (a subject, say) must not move the cursor, change colours or turn the line around.
pub(super) fn escape(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        match character.is_control() || turns {
            // Writing to a string cannot fail.
            true => drop(write!(shown, "{}", character.escape_default())),
            false => shown.push(character),
        }
    }
    shown
}

/// Lines of cells, each column as wide as its widest cell.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Vec<(Style, String)>>,
}

impl Table {
    /// Adds a line; empty cells at its end are left out.
    pub(super) fn row<const N: usize>(&mut self, cells: [(Style, String); N]) {
        let mut cells: Vec<(Style, String)> = cells.into();
        while cells.last().is_some_and(|(_, text)| text.is_empty()) {
            cells.pop();
        }
        self.rows.push(cells);
    }

    pub(super) fn print(&self) -> Result<(), Failure> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        // The last cell of a line needs no room, and may be a remark that is longer than its column.
        let cell = |row: &Vec<(Style, String)>, column: usize| match column + 1 < row.len() {
            true => row.get(column).map(|(_, text)| text.chars().count()),
            false => None,
        };
        let width = |column| self.rows.iter().filter_map(|row| cell(row, column)).max().unwrap_or_default();
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut text = String::new();
            for (at, ((style, cell), width)) in row.iter().zip(&widths).enumerate() {
                text.push_str(&paint(*style, cell));
                if at + 1 < row.len() {
                    text.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
                }
            }
            line(&text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_act_on_a_terminal_is_escaped() {
        assert_eq!(escape("Entwürfe \"x\" 受信"), "Entwürfe \"x\" 受信");
        assert_eq!(escape("a\x1b[31m\r\n\u{9b}\u{202e}"), "a\\u{1b}[31m\\r\\n\\u{9b}\\u{202e}");
        assert_eq!(one_line("a\n  b\r\n\nc\td"), "a; b; c\\td");
    }
}
