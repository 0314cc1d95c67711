//! All output of this program: its result on stdout, and messages on stderr. If the reader of stderr closes it, the
//! program continues; the standard library's `eprintln!` would panic.

use std::fmt::Display;
use std::io::{self, Write as _};

use anyhow::Context as _;
use buildbot_conda_core::foreign_text::harmless_lines;

/// A line, or several, for people: some of it is text of packages and servers.
pub(crate) fn say(text: &str) {
    // There is nowhere to report a failure.
    let _ = writeln!(io::stderr(), "{}", harmless_lines(text));
}

/// The answer to the program that asked.
pub(crate) fn print(text: impl Display) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}").context("write the answer")
}
