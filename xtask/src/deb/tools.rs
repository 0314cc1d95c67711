//! cargo-deb in one fixed version, installed below the target directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::command::run_on_stderr;

/// Other versions write other bytes.
pub(crate) const CARGO_DEB_VERSION: &str = "3.8.0";

/// The path of cargo-deb, installed below `target/tools` when it is not there yet.
pub(super) fn cargo_deb(workspace: &Path) -> Result<PathBuf> {
    let root = workspace.join(format!("target/tools/cargo-deb-{CARGO_DEB_VERSION}"));
    let program = root.join("bin/cargo-deb");
    if program.is_file() {
        return Ok(program);
    }
    eprintln!(
        "installing cargo-deb {CARGO_DEB_VERSION} into `{}`",
        root.display()
    );
    // The system's liblzma would make the compressed bytes depend on the machine.
    run_on_stderr(
        Command::new(super::cargo())
            .args(["install", "cargo-deb", "--locked"])
            .args([
                "--version",
                CARGO_DEB_VERSION,
                "--features",
                "static-lzma",
                "--root",
            ])
            .arg(&root)
            .current_dir(workspace),
    )?;
    Ok(program)
}
