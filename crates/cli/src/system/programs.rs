//! Programs of the system that change it: they run to their end, and their output is only shown if they fail.

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use buildbot_conda_core::foreign_text::ForeignText;

/// Runs a program to its successful end.
///
/// # Errors
///
/// When it cannot be run or fails, with its own words.
pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    run_unless(command, &[])
}

/// As [`run`], where some exit statuses are success as well.
pub(crate) fn run_unless(mut command: Command, fine: &[i32]) -> anyhow::Result<()> {
    let mut shown = command.get_program().to_string_lossy().into_owned();
    for word in command.get_args() {
        shown.push(' ');
        shown.push_str(&word.to_string_lossy());
    }
    let output = command
        .stdin(Stdio::null())
        .env("LC_ALL", "C.UTF-8")
        .output()
        .with_context(|| format!("run `{shown}`"))?;
    let status = output.status;
    if status.success() || status.code().is_some_and(|code| fine.contains(&code)) {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    bail!("`{shown}` failed: {}", ForeignText::new(words.trim()))
}
