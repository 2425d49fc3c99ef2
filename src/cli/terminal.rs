//! What commands print for people, in colours on a terminal only: `NO_COLOR` is heeded by `anstream`, through whose macros
//! everything here is printed.

use std::fmt;

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What failed.
pub const BAD: Style = AnsiColor::Red.on_default();

/// A text in a colour.
pub fn styled(style: Style, text: impl fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// JSON on standard output: an object a line, for streams.
pub fn print_json_line(value: &impl serde::Serialize) {
    anstream::println!("{}", serde_json::to_string(value).expect("what is printed has text keys only"));
}

/// JSON on standard output: one object, for programs.
pub fn print_json(value: &impl serde::Serialize) {
    anstream::println!("{}", serde_json::to_string_pretty(value).expect("what is printed has text keys only"));
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
