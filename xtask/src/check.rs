//! `cargo xtask check`: what one wants to know before a commit, in seconds.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::tidy::{RULES, Tree};

pub(crate) fn run(workspace: &Path) -> Result<()> {
    for words in [
        &["fmt", "--all", "--check"][..],
        &[
            "clippy",
            "--workspace",
            "--exclude",
            "buildbot-conda-env",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ],
    ] {
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
