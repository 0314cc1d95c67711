//! The activated environment of an instance, for commands that run inside its unit.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use buildbot_conda_conda::resolve::{Configured, Surroundings, configured};
use buildbot_conda_conda::{self as conda, CommandLine, Environment, PrefixFacts};
use buildbot_conda_core::settings::Instance;
use buildbot_conda_host::trusted::Trust;

/// Variables with which systemd communicates with one process; they must not be passed to its children.
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

/// What of an environment is executed: these directories of its prefix.
const EXECUTED: [&str; 5] = ["", "bin", "conda-meta", "etc/conda", "etc/conda/activate.d"];

/// Where this process is root's, refuses an environment that others than root can write: its scripts and programs would be
/// run by root.
pub(crate) fn ensure_only_roots(prefix: &Path) -> anyhow::Result<()> {
    EXECUTED
        .iter()
        .try_for_each(|part| ensure_only_root_writes(&prefix.join(part)))
}

fn ensure_only_root_writes(path: &Path) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    // As in `/tmp`, others may create names next to those of root.
    let trust = Trust::of_root(None).and_account(0, Some(0));
    match trust.find(path) {
        Err(untrusted) if !untrusted.is_missing() => bail!(
            "root would run what others have put there: {untrusted}\n\
             hint: run it as the account that owns it, as `sudo -u ACCOUNT buildbot-conda ...` does"
        ),
        _ => Ok(()),
    }
}

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
    // Below `--root`, root's process plays the service user. What runs finds modules in the directory.
    if instance.user.as_str() != "root" {
        ensure_only_roots(&prefix)?;
        ensure_only_root_writes(Path::new(instance.directory.as_str()))?;
    }
    let facts =
        PrefixFacts::read(&prefix).map_err(|error| anyhow!("{error}\nhint: {}", error.hint()))?;
    let Configured { root, options } = configured(
        instance.conda_env.to_string().into(),
        Path::new(instance.conda_root.as_str()),
        &Surroundings::of_process(inherited.clone(), Path::new("/")),
    )
    .map_err(|error| anyhow!("{error}\nhint: {}", error.hint()))?;
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

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use buildbot_conda_core::settings::Settings;

    use super::*;

    #[test]
    fn root_runs_nothing_that_others_can_write_whatever_plays_the_service_user() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for name in ["env/bin", "env/conda-meta", "master"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        fs::write(path("env/conda-meta/history"), "").unwrap();
        let text = format!(
            "[master]\nconda-env = '{0}/env'\ndirectory = '{0}/master'\n",
            root.path().display()
        );
        let settings = Settings::parse("c", text.as_bytes());
        let instance = settings.instance(&"master".parse().unwrap()).unwrap();
        let enter = || of_instance(instance, "true".into(), Vec::new(), BTreeMap::new());
        assert!(enter().is_ok());
        for name in ["env/bin", "env/conda-meta", "master"] {
            fs::set_permissions(path(name), Permissions::from_mode(0o777)).unwrap();
            let refused = enter().unwrap_err().to_string();
            assert!(
                refused.starts_with("root would run what others"),
                "{refused}"
            );
            fs::set_permissions(path(name), Permissions::from_mode(0o755)).unwrap();
        }
    }
}
