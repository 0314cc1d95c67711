//! The runner against each Buildbot that its requirements files pin: virtual environments, and pytest in one of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use buildbot_conda_machine::virtual_environment;

/// The one whose environment has pytest comes first.
const VERSIONS: [&str; 2] = ["4.3.0", "3.11.9"];

/// The virtual environments, made where they are missing.
pub(crate) struct Environments {
    /// The requirements of each Buildbot.
    pythons: Vec<PathBuf>,
    /// Including the router of several masters.
    router: PathBuf,
}

/// Makes the virtual environments.
///
/// # Errors
///
/// When one cannot be made.
pub(crate) fn environments(workspace: &Path) -> Result<Environments> {
    let make = |name: &str| {
        let requirements = directory(workspace).join(format!("requirements-{name}.txt"));
        virtual_environment(Path::new("python3"), name, &requirements, &[])
    };
    // Some tests need it, for which all others would wait.
    let router = make("crossbar")?;
    let pythons = VERSIONS
        .iter()
        .map(|version| Ok(make(version)?.join("bin/python")))
        .collect::<Result<_>>()?;
    Ok(Environments { pythons, router })
}

/// The command that runs the tests in `processes` processes; `programs` is the directory of our compiled programs.
pub(crate) fn command(
    workspace: &Path,
    environments: &Environments,
    processes: usize,
    programs: &Path,
) -> Command {
    let Environments { pythons, router } = environments;
    let joined: Vec<&str> = pythons
        .iter()
        .filter_map(|python| python.to_str())
        .collect();
    let mut command = Command::new(&pythons[0]);
    command
        .current_dir(directory(workspace))
        .args(["-m", "pytest", "--quiet"])
        .arg(format!("--numprocesses={processes}"))
        // One after the other, in their order: the longest come first.
        .arg("--maxschedchunk=1")
        .env("RUNNER_TEST_PYTHONS", joined.join(":"))
        .env("RUNNER_TEST_ROUTER", router)
        .env("RUNNER_TEST_PROGRAMS", programs);
    command
}

pub(super) fn directory(workspace: &Path) -> PathBuf {
    workspace.join("crates/launcher/runner_tests")
}
