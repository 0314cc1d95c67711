//! `cargo xtask check`: what one wants to know before a commit, in seconds.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::tidy::RULES;
use crate::tree::Tree;

/// For cargo: is everything formatted?
pub(crate) const FORMAT: [&str; 3] = ["fmt", "--all", "--check"];
/// For cargo: the lints of all crates except the one for environments, which has a separate stage.
const LINTS: [&str; 8] = [
    "clippy",
    "--workspace",
    "--exclude",
    "buildbot-conda-env",
    "--all-targets",
    "--",
    "--deny",
    "warnings",
];

pub(crate) fn run(workspace: &Path) -> Result<()> {
    for words in [&FORMAT[..], &LINTS] {
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(workspace)
            .args(words)
            .status()
            .context("run cargo")?;
        ensure!(status.success(), "`cargo {}` failed", words.join(" "));
    }
    let tree = Tree::of(workspace)?;
    for (name, rule) in RULES {
        rule(&tree).with_context(|| name.to_owned())?;
        eprintln!("{name}: yes");
    }
    Ok(())
}
