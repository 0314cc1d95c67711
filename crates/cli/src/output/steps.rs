//! Shows the steps of a plan while they are carried out. On a terminal, the line of a step stays open until its result
//! is known, and then gets a mark and, if the step took long, its duration. Other output in between gets its own lines,
//! and the step is then named again with its result. Without a terminal, a step is one line and nothing more.

use std::env;
use std::io::{self, IsTerminal as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::style;

/// Steps that take longer than this show their duration.
const LONG: Duration = Duration::from_secs(2);

/// Whether the last line on standard error is that of a step without its result.
static IS_OPEN: AtomicBool = AtomicBool::new(false);

/// A step that is being carried out.
pub(crate) struct StepLine {
    text: String,
    began: Instant,
}

impl StepLine {
    /// Shows a step that begins.
    pub(crate) fn begin(step: &impl ToString) -> Self {
        let line = Self::new(step);
        if io::stderr().is_terminal() {
            super::say(format_args!("{}", line.text));
            IS_OPEN.store(true, Ordering::Relaxed);
        } else {
            super::say(format_args!("{}\n", line.text));
        }
        line
    }

    /// The same for a step that rolls another one back: only people at a terminal see it.
    pub(crate) fn begin_rollback(step: &impl ToString) -> Self {
        if io::stderr().is_terminal() {
            Self::begin(step)
        } else {
            Self::new(step)
        }
    }

    fn new(step: &impl ToString) -> Self {
        Self {
            text: step.to_string(),
            began: Instant::now(),
        }
    }

    /// Shows whether the step has succeeded, and returns its outcome.
    pub(crate) fn end_with(self, outcome: anyhow::Result<()>) -> anyhow::Result<()> {
        self.end(outcome.is_ok());
        outcome
    }

    fn end(self, is_done: bool) {
        let stderr = io::stderr();
        if !stderr.is_terminal() {
            return;
        }
        if !IS_OPEN.swap(false, Ordering::Relaxed) {
            super::say(format_args!("{}", self.text));
        }
        let mark = mark(is_done, is_utf8(|name| env::var(name).ok()));
        let seconds = shown_seconds(self.began.elapsed());
        let style = if is_done { style::GOOD } else { style::BAD };
        let mark = if style::is_wanted(&stderr) {
            style::painted(mark, style)
        } else {
            mark.to_owned()
        };
        super::control(&format!(" {mark}{seconds}\n"));
    }
}

/// Ends the line of a step for what is printed next, by this process or by one that it starts.
pub(crate) fn end_line() {
    if IS_OPEN.swap(false, Ordering::Relaxed) {
        super::control("\n");
    }
}

fn mark(is_done: bool, is_utf8: bool) -> &'static str {
    match (is_done, is_utf8) {
        (true, true) => "✓",
        (false, true) => "✗",
        (true, false) => "- done",
        (false, false) => "- failed",
    }
}

/// Whether the terminal shows more than ASCII, according to the locale; the first variable that is set counts, locale(7).
fn is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| variable(name).filter(|value| !value.is_empty()));
    set.is_some_and(|locale| {
        let locale = locale.to_lowercase();
        locale.ends_with("utf-8") || locale.ends_with("utf8")
    })
}

fn shown_seconds(duration: Duration) -> String {
    match duration.as_secs() {
        _ if duration <= LONG => String::new(),
        seconds @ ..60 => format!(" {seconds} s"),
        seconds => format!(" {} min {} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_steps_show_their_time() {
        for (milliseconds, shown) in [
            (0, ""),
            (2000, ""),
            (2001, " 2 s"),
            (59_900, " 59 s"),
            (125_000, " 2 min 5 s"),
        ] {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(shown_seconds(duration), shown);
        }
    }

    #[test]
    fn the_locale_decides_about_the_marks() {
        for (variables, expect) in [
            (&[][..], false),
            (&[("LANG", "C.UTF-8")], true),
            (&[("LANG", "de_DE.utf8")], true),
            (&[("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")], false),
            (&[("LC_ALL", ""), ("LC_CTYPE", "C.UTF-8")], true),
        ] {
            let variable = |wanted: &str| {
                let found = variables.iter().find(|(name, _)| *name == wanted);
                found.map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(is_utf8(variable), expect, "{variables:?}");
        }
        assert!(mark(true, false).is_ascii() && mark(false, false).is_ascii());
    }
}
