//! Environments as steps of a plan. What is made is whole or not there, and harms nobody if the plan ends before it is
//! used: nothing takes it back, and the next plan finds it.

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use buildbot_conda_core::paths;
use rustix::fs::{CWD, RenameFlags};
use serde::{Deserialize, Serialize};

use super::{Deed, Undo};
use crate::inside::environment::{self, Prefix, run};

/// The one step of its family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum EnvironmentStep {
    /// An environment is made; one that is there then harms nobody.
    Make(Making),
}

impl fmt::Display for EnvironmentStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Make(making) = self;
        making.fmt(formatter)
    }
}

impl Deed for EnvironmentStep {
    fn undo(&self) -> anyhow::Result<Undo> {
        Ok(Undo::nothing())
    }

    fn perform(&self) -> anyhow::Result<()> {
        let Self::Make(making) = self;
        make(making)
    }

    fn relies_on_others(&self) -> bool {
        true
    }
}

/// An environment that is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Making {
    /// Its name; of one at a prefix of its own, that prefix.
    pub(crate) name: String,
    pub(crate) how: How,
    /// The text of its lock.
    pub(crate) lock: String,
    /// What is passed on to the verb, such as `--offline`.
    pub(crate) options: Vec<String>,
}

/// By which way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum How {
    /// The first generation of one of ours.
    Create,
    /// Another generation of one of ours, tried for every instance that follows it.
    Update,
    /// A generation is made again, and takes the place of its damaged self.
    Mend { generation: String },
    /// At its own prefix, by the account that owned it.
    At { owner: String },
}

impl fmt::Display for Making {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.how {
            How::Create => write!(formatter, "create the environment `{name}`"),
            How::Update => write!(
                formatter,
                "update the environment `{name}`, and roll back if an instance fails to start"
            ),
            How::Mend { generation } => write!(
                formatter,
                "create generation {generation} of the environment `{name}` again"
            ),
            How::At { owner } => write!(formatter, "as `{owner}`, create the environment `{name}`"),
        }
    }
}

/// Makes it, from a copy of the lock that is root's alone.
fn make(making: &Making) -> anyhow::Result<()> {
    let mut file = tempfile::Builder::new()
        .prefix("buildbot-conda.")
        .suffix(".txt")
        .tempfile()
        .context("write a lock")?;
    file.write_all(making.lock.as_bytes())
        .context("write a lock")?;
    let name = &making.name;
    let (verb, lock) = match &making.how {
        How::Create => ("create", file.path()),
        How::Update => ("update", file.path()),
        How::Mend { generation } => return mend(making, generation, file.path()),
        How::At { owner } => return environment::make(owner, &prefix(making)),
    };
    let mut command = Command::new(paths::CLI);
    command.args(["env", verb, name, "--file"]).arg(lock);
    command.args(&making.options);
    run(command, &format!("buildbot-conda env {verb} {name}"))
}

fn prefix(making: &Making) -> Prefix {
    Prefix {
        path: making.name.clone().into(),
        lock: making.lock.clone(),
        options: making.options.clone(),
    }
}

/// Made beside, under the name that it shall have, and exchanged by one call. Whoever runs from it goes on with the
/// files that it has open.
fn mend(making: &Making, generation: &str, lock: &Path) -> anyhow::Result<()> {
    // Its name is none of an environment.
    let stage = Path::new(paths::ENVIRONMENTS).join(format!(".{}", making.name));
    let clear = || match fs::remove_dir_all(&stage) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.with_context(|| format!("remove `{}`", stage.display())),
    };
    clear()?;
    fs::DirBuilder::new()
        .mode(0o755)
        .create(&stage)
        .with_context(|| format!("create `{}`", stage.display()))?;
    let exchanged = exchange(making, generation, lock, &stage);
    exchanged.and(clear())
}

fn exchange(making: &Making, generation: &str, lock: &Path, stage: &Path) -> anyhow::Result<()> {
    let environment = Path::new(paths::ENVIRONMENTS).join(&making.name);
    let mut command = environment::builder(&making.options, lock);
    command.arg("--directory").arg(stage);
    command.arg("--used-as").arg(&environment);
    command.args(["--cache", paths::PACKAGE_CACHE]);
    run(command, paths::ENVIRONMENT_BUILDER)?;
    let (new, old) = (stage.join(generation), environment.join(generation));
    if !new.is_dir() {
        bail!(
            "the lock of `{}` results in another generation than {generation}",
            making.name
        );
    }
    rustix::fs::renameat_with(CWD, &new, CWD, &old, RenameFlags::EXCHANGE)
        .with_context(|| format!("replace `{}`", old.display()))
}
