//! The program that creates generations: its arguments and its answer.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::paths;
use buildbot_conda_environments::{Environment, GenerationId, Lock, Package};
use clap::Args;
use rustix::io::FdFlags;
use serde::{Deserialize, Serialize};

use crate::system::context::Context;

/// Where what is in an environment comes from.
#[derive(Debug, Args)]
pub(super) struct Source {
    /// Channel for an `environment.yml`, instead of its own: a name, a URL or a directory; can be repeated
    #[arg(long = "channel", value_name = "CHANNEL")]
    channels: Vec<String>,
    /// Mirror for addresses below a URL, which is tried first; can be repeated
    #[arg(long = "mirror", value_name = "URL=MIRROR")]
    mirrors: Vec<String>,
    /// The environment of a `pixi.lock` to use
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// Maximum size of all unpacked packages together, in MiB; by default 65536
    #[arg(long, value_name = "MIB")]
    max_size: Option<u64>,
    /// Maximum number of files of all packages together; by default 2000000
    #[arg(long, value_name = "COUNT")]
    max_files: Option<u64>,
    /// Maximum size of an unpacked package, as a multiple of its archive; by default 250
    #[arg(long, value_name = "FACTOR")]
    max_ratio: Option<u64>,
    /// Use only cached and local packages, without network access
    #[arg(long)]
    offline: bool,
}

/// What the program has done, or would do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) generation: String,
    /// Whether it was made just now.
    pub(super) made: bool,
    pub(super) packages: Vec<Package>,
    /// What was not done although users may expect it.
    pub(super) warnings: Vec<ForeignText>,
}

impl Answer {
    pub(super) fn generation(&self) -> anyhow::Result<GenerationId> {
        Ok(self.generation.parse()?)
    }
}

/// Creates the generation, unless it exists; without a lock, it only returns what it would contain.
pub(super) fn build(
    environment: &Environment,
    file: &Path,
    source: &Source,
    lock: Option<&Lock>,
    context: &Context,
) -> anyhow::Result<Answer> {
    let program = context.path(paths::ENVIRONMENT_BUILDER);
    if !program.exists() {
        bail!(
            "`{}` is not installed, it is needed to create environments\nhint: apt install buildbot-conda-env",
            program.display()
        );
    }
    let mut command = Command::new(&program);
    command
        .arg("--file")
        .arg(file)
        .arg("--directory")
        .arg(environment.directory())
        .arg("--used-as")
        .arg(format!("{}/{}", paths::ENVIRONMENTS, environment.name()))
        .arg("--cache")
        .arg(context.path(paths::PACKAGE_CACHE));
    for (option, values) in [
        ("--channel", &source.channels),
        ("--mirror", &source.mirrors),
    ] {
        for value in values {
            command.arg(option).arg(value);
        }
    }
    if let Some(name) = &source.environment {
        command.arg("--environment").arg(name);
    }
    for (option, limit) in [
        ("--max-size", source.max_size),
        ("--max-files", source.max_files),
        ("--max-ratio", source.max_ratio),
    ] {
        if let Some(limit) = limit {
            command.arg(option).arg(limit.to_string());
        }
    }
    if source.offline {
        command.arg("--offline");
    }
    match lock {
        None => {
            command.arg("--dry-run");
        }
        // If this process is killed, the environment stays locked until the program has exited, too.
        Some(lock) => {
            rustix::io::fcntl_setfd(lock.file(), FdFlags::empty()).context("pass on the lock")?;
        }
    }
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("run `{}`", program.display()))?;
    if let Some(lock) = lock {
        // All of it, whichever of the program's threads wrote last.
        environment.sweep(lock)?;
        rustix::io::fcntl_setfd(lock.file(), FdFlags::CLOEXEC).context("keep the lock")?;
    }
    // The program has not understood its arguments.
    if output.status.code() == Some(2) {
        bail!(
            "`{}` has a different version than this program\n\
             hint: apt install buildbot-conda buildbot-conda-env",
            program.display()
        );
    }
    if !output.status.success() {
        bail!(
            "the environment `{}` is unchanged: no new generation was created",
            environment.name()
        );
    }
    let answer: Answer = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("parse the output of `{}`", program.display()))?;
    for warning in &answer.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(answer)
}
