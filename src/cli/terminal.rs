//! What commands print for people: aligned columns, and colours on a terminal only. `NO_COLOR` is heeded by `anstream`,
//! through which everything here is printed. Where nobody reads any more (`branchline events list | head -1`) a command ends quietly.

use std::fmt;
use std::io::{self, Write};

use anstyle::{AnsiColor, Effects, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use unicode_width::UnicodeWidthStr;

/// Prints on standard output, without a line break.
macro_rules! out {
    ($($text:tt)*) => { $crate::cli::terminal::print(format_args!($($text)*)) };
}

/// Prints a line on standard output.
macro_rules! outln {
    () => { $crate::cli::terminal::print_line(format_args!("")) };
    ($($text:tt)*) => { $crate::cli::terminal::print_line(format_args!($($text)*)) };
}

/// Prints on standard output; see `out!`.
pub fn print(text: fmt::Arguments<'_>) {
    let mut out = anstream::stdout();
    let printed = out.write_fmt(text).and_then(|()| out.flush());
    printed.unwrap_or_else(|error| end_unread(&error));
}

/// Prints a line; see `outln!`.
pub fn print_line(text: fmt::Arguments<'_>) {
    print(format_args!("{text}\n"));
}

/// What can't be printed ends the command: quietly where whoever read it has had enough.
pub fn end_unread(error: &io::Error) -> ! {
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    eprintln!("branchline: can't print: {error}");
    std::process::exit(1);
}

/// What went well.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// What waits, or wants a look.
pub const WAITS: Style = AnsiColor::Yellow.on_default();
/// What is over without a delivery, as it was asked for.
pub const QUIET: Style = AnsiColor::Cyan.on_default();
/// What failed.
pub const BAD: Style = AnsiColor::Red.on_default();
/// What stands above something else.
pub const HEAD: Style = Style::new().effects(Effects::BOLD);
/// What is only there to be found.
pub const FAINT: Style = Style::new().effects(Effects::DIMMED);

/// Between two columns.
const GAP: usize = 2;

/// A text in a colour.
pub fn styled(style: Style, text: impl fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// A text in a column.
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A text in a colour.
    pub fn new(style: Style, text: impl fmt::Display) -> Self {
        Self { text: text.to_string(), style }
    }
}

impl<T: fmt::Display> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(Style::new(), text)
    }
}

/// Rows whose columns stand below each other.
#[derive(Default)]
pub struct Columns {
    indent: usize,
    rows: Vec<Vec<Cell>>,
}

impl Columns {
    /// Columns below a line of names.
    pub fn with_head(names: &[&str]) -> Self {
        let mut columns = Self::default();
        columns.add(names.iter().map(|name| Cell::new(HEAD, name)));
        columns
    }

    /// Columns that begin this far from the left.
    pub fn indented(indent: usize) -> Self {
        Self { indent, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn add(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Columns {
    /// A line for each row; nothing is padded that nothing follows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.width());
            }
        }
        for row in &self.rows {
            write!(f, "{:indent$}", "", indent = self.indent)?;
            let length = row.iter().rposition(|cell| !cell.text.is_empty()).map_or(0, |last| last + 1);
            for (number, (cell, width)) in row[..length].iter().zip(&widths).enumerate() {
                write!(f, "{}", styled(cell.style, &cell.text))?;
                if number + 1 < length {
                    write!(f, "{:pad$}", "", pad = width - cell.text.width() + GAP)?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// JSON on standard output: one object, for programs.
pub fn print_json(value: &impl serde::Serialize) {
    outln!("{}", serde_json::to_string_pretty(value).expect("what is printed has text keys only"));
}

/// JSON on standard output: an object a line, for streams.
pub fn print_json_line(value: &impl serde::Serialize) {
    outln!("{}", serde_json::to_string(value).expect("what is printed has text keys only"));
}

/// A progress bar on standard error that shows how much of a whole is done, in no unit.
pub fn progress_share(length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:32} {percent:>3} %  {msg}  {eta}");
    let style = style.expect("the template above is one").progress_chars("━╸─");
    ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr_with_hz(8)).with_style(style)
}

/// A progress bar on standard error, in bytes; nothing is drawn where that is no terminal. Without a length it only shows that something goes on.
pub fn progress(length: Option<u64>) -> ProgressBar {
    let template = match length {
        Some(_) => "{bar:32} {bytes}/{total_bytes}  {msg}  {eta}",
        None => "{spinner} {msg}",
    };
    let style = ProgressStyle::with_template(template).expect("the templates above are ones").progress_chars("━╸─");
    ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr_with_hz(8)).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_whatever_they_hold_and_lines_have_no_blanks_at_their_end() {
        let mut columns = Columns::indented(2);
        columns.add(["name".into(), "outcome".into()]);
        columns.add([Cell::from("김철수"), Cell::new(GOOD, "delivered"), "last".into()]);
        columns.add(["x".into(), "filtered".into(), "".into()]);
        let plain = anstream::adapter::strip_str(&columns.to_string()).to_string();
        assert_eq!(plain, "  name    outcome\n  김철수  delivered  last\n  x       filtered\n");
    }
}
