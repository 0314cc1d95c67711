//! Examines what only the service user may read: the directory, the environment, and how Buildbot reads them.
//!
//! For this, the program runs again as that user, as `doctor --inside REF`, with the unit's sandbox and credentials, in
//! a clean environment and with a time limit. Its answer consists of facts, never of commands: code of the service user
//! runs at the same time and may have written the answer. Commands are derived from the configuration only.

mod directory;
mod environment;
mod python;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use buildbot_conda_core::names::Role;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::values::AbsolutePath;
use serde::{Deserialize, Serialize};

use super::finding::Check;
use crate::output;
use crate::system::as_user;
use crate::system::children::{self, Bounds, Input, Lines, Stream};
use crate::system::context::Context;

pub(super) use directory::{DirectoryFacts, PidFile};
pub(super) use environment::{Damage, EnvironmentFacts, Resolution, State as EnvironmentState};
pub(super) use python::{Database, MasterFacts, PythonFacts, Reach, Tac, WorkerInTac};

/// More than any answer has, in bytes.
const LARGEST: usize = 1 << 20;
/// How long the examination may take, in addition to the reading of a configuration.
const PATIENCE: Duration = Duration::from_mins(3);
/// What was found inside.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Inside {
    pub(super) environment: Option<EnvironmentFacts>,
    pub(super) directory: Option<DirectoryFacts>,
    /// The answer of the environment's Python, or the reason why it does not run.
    pub(super) python: Option<Result<PythonFacts, String>>,
    /// What Buildbot makes of a master's configuration and database.
    pub(super) master: Option<MasterFacts>,
}

impl Inside {
    /// Which activation script does not come back to its shell, and how it leaves it.
    pub(super) fn failed_activation(&self) -> Option<&str> {
        let reason = self.python.as_ref()?.as_ref().err()?;
        reason
            .starts_with(python::ACTIVATION_SCRIPT)
            .then_some(reason)
    }

    /// Whether all is well with what other instances that run from the same share with it.
    pub(super) fn can_be_shared(&self) -> bool {
        let environment = self.environment.as_ref();
        environment.is_none_or(|facts| facts.state == EnvironmentState::Usable)
            && self.python.as_ref().is_none_or(Result::is_ok)
    }

    /// Adds the facts of another result that this one does not contain.
    pub(super) fn with(mut self, other: &Self) -> Self {
        if let (Some(own), Some(other)) = (&mut self.environment, &other.environment)
            && own.state == EnvironmentState::Usable
        {
            own.damage.clone_from(&other.damage);
            (own.packages, own.unread) = (other.packages, other.unread);
        }
        if let Some(Ok(other)) = &other.python {
            let own = match self.python.take() {
                Some(Ok(own)) => (own.tac, own.editable),
                Some(Err(reason)) => {
                    self.python = Some(Err(reason));
                    return self;
                }
                None => (None, Vec::new()),
            };
            let mut facts = other.clone();
            (facts.tac, facts.editable) = own;
            self.python = Some(Ok(facts));
        }
        self
    }

    /// Whether an earlier finding explains why Buildbot cannot run, so that its own message adds nothing.
    pub(super) fn says_why_nothing_runs(&self) -> bool {
        let is_usable = |facts: &EnvironmentFacts| facts.state == EnvironmentState::Usable;
        !self.environment.as_ref().is_none_or(is_usable)
            || self.failed_activation().is_some()
            || self.directory.as_ref().is_some_and(|facts| !facts.has_tac)
    }
}

/// How deep to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Only files: below a root directory, or if the code belongs to another account.
    Files,
    /// Programs are run as well.
    Everything,
}

/// Checks that need a look inside.
const FILES: [Check; 8] = [
    Check::Directory,
    Check::Ownership,
    Check::Secrets,
    Check::PidFile,
    Check::Environment,
    Check::Resolution,
    Check::Packages,
    Check::Changed,
];
/// Checks that need Python to run.
const PYTHON: [Check; 6] = [
    Check::Python,
    Check::Plugins,
    Check::Bytecode,
    Check::Tac,
    Check::AllowShutdown,
    Check::Connection,
];
/// Checks whose facts are the same for all instances that run from an environment in one role.
pub(super) const SHARED: [Check; 4] = [
    Check::Packages,
    Check::Python,
    Check::Plugins,
    Check::Bytecode,
];
/// Checks that need a master's configuration to be read.
const MASTER: [Check; 5] = [
    Check::Checkconfig,
    Check::Sandbox,
    Check::Database,
    Check::Ports,
    Check::Front,
];

/// The checks of these that are answered from inside.
pub(super) fn concerned(checks: &[Check]) -> Vec<Check> {
    let inside =
        |check: &&Check| FILES.contains(check) || PYTHON.contains(check) || MASTER.contains(check);
    checks.iter().filter(inside).copied().collect()
}

/// Looks, in this process.
pub(super) fn examine(
    instance: &Instance,
    context: &Context,
    checks: &[Check],
    depth: Depth,
) -> Inside {
    let any = |of: &[Check]| checks.iter().any(|check| of.contains(check));
    let mut inside = Inside::default();
    if any(&FILES) {
        inside.environment = Some(environment::examine(instance, context, checks, depth));
        inside.directory = Some(directory::examine(instance, context));
    }
    if depth == Depth::Everything {
        if any(&PYTHON) {
            inside.python =
                Some(python::ask(instance, checks).map_err(|error| format!("{error:#}")));
        }
        // Nothing else gets past the script either, and each attempt may take a minute.
        let is_activated = inside.failed_activation().is_none();
        if any(&MASTER) && is_activated && instance.reference.role == Role::Master {
            inside.master = Some(python::ask_master(instance, context));
        }
    }
    inside
}

/// `doctor --inside REF`: the facts as JSON on standard output.
pub(super) fn print(
    instance: &Instance,
    context: &Context,
    checks: &[Check],
) -> anyhow::Result<ExitCode> {
    let facts = examine(instance, context, checks, Depth::Everything);
    output::print(serde_json::to_string(&facts).context("write JSON")?)
}

/// Runs the examination as the service user; `as_root` if this process runs as root, otherwise it already runs as that
/// user.
///
/// # Errors
///
/// If there is no answer, with the reason.
pub(super) fn ask(instance: &Instance, checks: &[Check], as_root: bool) -> anyhow::Result<Inside> {
    let limit = PATIENCE + instance.start_timeout;
    let mut words = vec!["doctor".to_owned(), "--inside".to_owned()];
    for check in checks {
        words.extend(["--only".to_owned(), check.to_string()]);
    }
    words.push(instance.reference.to_string());
    let words: Vec<_> = words.into_iter().map(Into::into).collect();
    let (answer, said) = if as_root {
        let answer = as_user::ask(instance, &words, limit)?;
        (answer.stdout, answer.said)
    } else {
        heard(own(&words), limit)?
    };
    serde_json::from_slice(&answer).map_err(|_| anyhow!("{}", last_of(&said, "no answer")))
}

/// The last line that is not empty.
fn last_of(said: &[String], otherwise: &str) -> String {
    let last = said.iter().rev().find(|line| !line.trim().is_empty());
    last.map_or(otherwise, String::as_str).to_owned()
}

/// The service user called this directly: ignore what the user's own environment would change in Python.
fn own(words: &[std::ffi::OsString]) -> Command {
    let mut command = Command::new(paths::CLI);
    command.args(words).env_clear().current_dir("/");
    command
        .env("LANG", "C.UTF-8")
        .env("PATH", "/usr/local/bin:/usr/bin:/bin");
    for name in ["HOME", "USER", "LOGNAME"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Standard output and the lines of standard error, up to a limit and within a time.
fn heard(command: Command, limit: Duration) -> anyhow::Result<(Vec<u8>, Vec<String>)> {
    let program = command.get_program().to_string_lossy().into_owned();
    let bounds = Bounds {
        time: Some(limit),
        printed: LARGEST,
        interruptible: false,
    };
    let mut answer = Vec::new();
    let mut said = Vec::new();
    let mut lines = Lines::default();
    let mut hear = |_, line: &str| said.push(line.to_owned());
    let kill = children::end;
    children::follow(
        command,
        Input::Empty,
        &bounds,
        kill,
        |stream, bytes| match stream {
            Stream::Stdout => answer.extend_from_slice(bytes),
            Stream::Stderr => lines.take(stream, bytes, &mut hear),
        },
    )
    .with_context(|| format!("run `{program}`"))?;
    lines.finish(&mut hear);
    Ok((answer, said))
}

/// A path of the configuration, below the root directory of this invocation.
fn place(path: &AbsolutePath, context: &Context) -> PathBuf {
    context.path(path.as_str())
}
