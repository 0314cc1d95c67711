//! Standard output, which is data: written whole, and quiet about a reader that went away.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;

/// Writes `text` to standard output.
pub(crate) fn print(text: impl fmt::Display) -> anyhow::Result<ExitCode> {
    let mut stdout = io::stdout().lock();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // `buildbot-conda list | head -1` is no failure.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error).context("write to standard output"),
    }
}

/// `text` on one line without control characters: what a service user wrote must not steer the
/// terminal of an administrator.
pub(crate) fn harmless(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect()
}
