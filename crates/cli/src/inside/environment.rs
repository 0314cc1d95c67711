//! An environment at its own prefix, created by its owner: root runs nothing in places where others can write.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use buildbot_conda_core::paths;
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use crate::output;
use crate::system::as_user;

/// What is to be made.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Prefix {
    pub(crate) path: PathBuf,
    /// The text of its lock.
    pub(crate) lock: String,
    /// What is passed on to the builder, such as `--offline`.
    pub(crate) options: Vec<String>,
}

/// Lets `owner` create it, or creates it in this process if the owner is root.
pub(crate) fn make(owner: &str, wanted: &Prefix) -> anyhow::Result<()> {
    if owner == "root" {
        return make_prefix(wanted);
    }
    let input = serde_json::to_string(wanted).context("write the request")?;
    as_user::call_within(
        as_user::LONG,
        owner,
        None,
        &["environment"],
        &wanted.path,
        &input,
    )
    .map(drop)
    .with_context(|| format!("create `{}` as `{owner}`", wanted.path.display()))
}

/// As the owner: creates the environment that standard input describes.
pub(crate) fn make_as_owner() -> anyhow::Result<()> {
    let wanted = serde_json::from_reader(std::io::stdin()).context("read the request")?;
    make_prefix(&wanted)
}

/// Instead of the prefix, with a separate cache.
fn make_prefix(wanted: &Prefix) -> anyhow::Result<()> {
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let parent = wanted
        .path
        .parent()
        .context("find the directory of a prefix")?;
    fs::create_dir_all(parent).with_context(|| format!("create `{}`", parent.display()))?;
    let stage = tempfile::Builder::new()
        .prefix(".buildbot-conda.")
        .tempdir_in(parent)
        .with_context(|| format!("create a directory in `{}`", parent.display()))?;
    let mut lock = tempfile::Builder::new()
        .suffix(".txt")
        .tempfile()
        .context("write a lock")?;
    lock.write_all(wanted.lock.as_bytes())
        .context("write a lock")?;
    let mut command = builder(&wanted.options, lock.path());
    command.arg("--directory").arg(stage.path());
    command.arg("--at").arg(&wanted.path);
    command.arg("--cache").arg(stage.path().join("cache"));
    run(command, paths::ENVIRONMENT_BUILDER)
}

/// The program that makes environments, for a lock; `--no-restart` is not for it.
pub(crate) fn builder(options: &[String], lock: &Path) -> Command {
    let mut command = Command::new(paths::ENVIRONMENT_BUILDER);
    command.arg("--file").arg(lock);
    command.args(options.iter().filter(|word| *word != "--no-restart"));
    command
}

/// Runs it to its successful end.
pub(crate) fn run(mut command: Command, shown_command: &str) -> anyhow::Result<()> {
    // It shows its progress there.
    output::end_line();
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("run `{shown_command}`"))?;
    if !status.success() {
        bail!("`{shown_command}` failed");
    }
    Ok(())
}
