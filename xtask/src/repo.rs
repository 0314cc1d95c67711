//! `cargo xtask repo`: the same as `buildbot-conda repo`, for those who build the package and have not installed it.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use buildbot_conda_repository::command;

/// Does it, and prints what there is to print.
pub(crate) fn run(verb: &command::Verb) -> Result<()> {
    let outcome = command::run(verb)?;
    for line in outcome.talk {
        eprintln!("{line}");
    }
    let mut stdout = std::io::stdout().lock();
    write!(stdout, "{}", outcome.data).context("print the content of the repository")
}
