//! All output of this program. Standard output is data, written completely; standard error is for people. If a reader
//! closes a pipe or loses the connection, the program continues, and a plan is carried out to its end. On a terminal,
//! text for people is wrapped between words and has colours (`style`), and the steps of a plan show their results
//! (`steps`).

mod steps;
mod style;

use std::fmt;
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use buildbot_conda_core::foreign_text::{ForeignText, harmless_lines};

pub(crate) use self::steps::{StepLine, end_line};

/// Replaces the standard library's macro in the whole program, because that one panics if standard error is closed.
macro_rules! eprintln {
    () => { $crate::output::say(format_args!("\n")) };
    ($($words:tt)*) => { $crate::output::say(format_args!("{}\n", format_args!($($words)*))) };
}

/// As `eprintln!`, without the line's end.
macro_rules! eprint {
    ($($words:tt)*) => { $crate::output::say(format_args!($($words)*)) };
}

mod outcome;

pub(crate) use outcome::{Manner, Outcome};

/// Writes `text` to standard error.
pub(crate) fn say(text: fmt::Arguments<'_>) {
    end_line();
    // Whatever error or note has foreign text in it.
    let text = text.to_string();
    let text = harmless_lines(&text);
    control(&style::with_labels(&text, style::is_wanted(&io::stderr())));
}

/// The same for text that controls the terminal; it contains nothing from other sources.
pub(crate) fn control(text: &str) {
    // In a single call, so that lines of several threads are not mixed. There is nowhere to report a failure.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Writes `text` to standard output.
pub(crate) fn print(text: impl fmt::Display) -> anyhow::Result<ExitCode> {
    let mut stdout = io::stdout().lock();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // `buildbot-conda list | head -1` is not a failure.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error).context("write to standard output"),
    }
}

/// The same for text with labels such as `problem:`, which are in colour on a terminal.
pub(crate) fn print_labelled(text: &str) -> anyhow::Result<ExitCode> {
    print(style::with_labels(text, style::is_wanted(&io::stdout())))
}

/// [`ForeignText`] for what is only ever shown.
pub(crate) fn harmless(text: &str) -> String {
    ForeignText::new(text).into()
}

/// The width of the terminal at standard output; none for a file or a pipe, or if the terminal does not know its size.
pub(crate) fn width() -> Option<usize> {
    let stdout = io::stdout();
    let is_terminal = stdout.is_terminal();
    let size = rustix::termios::tcgetwinsize(stdout).ok();
    size.filter(|size| is_terminal && size.ws_col > 0)
        .map(|size| usize::from(size.ws_col))
}

/// `text` in lines of at most `width` characters, each with its line break; the first set in by `first` blanks, all
/// others by `rest`. Only a word that is longer than a line is left for the terminal to break.
pub(crate) fn fold(text: &str, first: usize, rest: usize, width: Option<usize>) -> String {
    let width = width.unwrap_or(usize::MAX);
    let mut folded = " ".repeat(first);
    let mut used = first;
    let mut is_line_empty = true;
    for word in text.split(' ') {
        let length = word.chars().count();
        if is_line_empty {
            is_line_empty = false;
        } else if used + 1 + length > width {
            folded.push('\n');
            folded.push_str(&" ".repeat(rest));
            used = rest;
        } else {
            folded.push(' ');
            used += 1;
        }
        folded.push_str(word);
        used += length;
    }
    folded.push('\n');
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_alone() {
        for (text, width, folded) in [
            ("a bc def", None, " a bc def\n"),
            ("a bc def", Some(9), " a bc def\n"),
            ("a bc def", Some(8), " a bc\n  def\n"),
            ("a bc def", Some(2), " a\n  bc\n  def\n"),
            ("a  b", Some(9), " a  b\n"),
            ("/long/path b", Some(4), " /long/path\n  b\n"),
            ("", Some(4), " \n"),
        ] {
            assert_eq!(fold(text, 1, 2, width), folded, "{text} {width:?}");
        }
    }
}
