//! The activated environment of an instance, for commands that run inside its unit.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use buildbot_conda_conda::{self as conda, CommandLine, Environment, PrefixFacts, Root};
use buildbot_conda_core::settings::Instance;

/// Variables by which systemd talks to one process; they are not for what that process starts.
const OF_THE_SERVICE_MANAGER: [&str; 12] = [
    "BUILDBOT_CONDA_DROP_IN",
    "BUILDBOT_CONDA_LOCK",
    "BUILDBOT_CONDA_PREPARED",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "MAINPID",
    "NOTIFY_SOCKET",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// The command line that runs `program` in the environment of `instance`, with the variables of the
/// configuration and then `extra` set after activation.
pub(crate) fn of_instance(
    instance: &Instance,
    program: OsString,
    arguments: Vec<OsString>,
    extra: BTreeMap<OsString, OsString>,
) -> anyhow::Result<CommandLine> {
    let inherited: Environment = env::vars_os()
        .filter(|(name, _)| !OF_THE_SERVICE_MANAGER.iter().any(|manager| name == manager))
        .collect();
    let prefix = buildbot_conda_host::prefix_to_enter(instance.prefix().as_str());
    let facts =
        PrefixFacts::read(&prefix).map_err(|error| anyhow!("{error}\nhint: {}", error.hint()))?;
    let root = conda_root(Path::new(instance.conda_root.as_str()))?;
    let options = conda::Options {
        target: Some(instance.conda_env.to_string().into()),
        ..conda::Options::default()
    };
    let activation = conda::activate(&facts, root.as_ref(), &inherited, &options)
        .map_err(|error| anyhow!("{error}\nhint: {}", error.hint()))?;
    let mut afterwards: Environment = instance
        .environment
        .iter()
        .map(|(name, value)| (name.as_str().into(), value.into()))
        .collect();
    afterwards.extend(extra);
    Ok(conda::exec_chain(
        &activation,
        &afterwards,
        program,
        arguments,
        None,
    ))
}

/// The Python of an instance's environment, as it is entered now.
pub(crate) fn python_of(instance: &Instance) -> PathBuf {
    buildbot_conda_host::prefix_to_enter(instance.prefix().as_str()).join("bin/python")
}

/// The installation, when there is one: environments of other tools have no conda beside them.
fn conda_root(path: &Path) -> anyhow::Result<Option<Root>> {
    if !path.join("bin/conda").exists() {
        return Ok(None);
    }
    Root::new(path)
        .map(Some)
        .map_err(|error| anyhow!("{error}\nhint: {}", error.hint()))
}
