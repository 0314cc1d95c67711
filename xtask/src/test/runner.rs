//! The runner against each Buildbot that its requirements files pin: virtual environments, and pytest in one of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::check;

/// The one whose environment has pytest comes first.
const VERSIONS: [&str; 2] = ["4.3.0", "3.11.9"];

/// The Pythons of the virtual environments, which are made where they are missing.
///
/// # Errors
///
/// When one cannot be made.
pub(crate) fn pythons(workspace: &Path) -> Result<Vec<PathBuf>> {
    let python = Path::new("python3");
    // The router of some tests, for which all others would wait.
    let requirements = directory(workspace).join("requirements-crossbar.txt");
    venv(workspace, python, &requirements, "crossbar")?;
    VERSIONS
        .iter()
        .map(|version| {
            let requirements = directory(workspace).join(format!("requirements-{version}.txt"));
            Ok(venv(workspace, python, &requirements, version)?.join("bin/python"))
        })
        .collect()
}

/// The command that runs the tests with `pythons` in `processes` processes; `programs` is the directory of our compiled
/// programs.
pub(crate) fn command(
    workspace: &Path,
    pythons: &[PathBuf],
    processes: usize,
    programs: &Path,
) -> Command {
    let mut command = Command::new(&pythons[0]);
    command
        .current_dir(directory(workspace))
        .args(["-m", "pytest", "--quiet"])
        .arg(format!("--numprocesses={processes}"))
        // One after the other, in their order: the longest come first.
        .arg("--maxschedchunk=1")
        .env("RUNNER_TEST_PROGRAMS", programs);
    command
}

pub(super) fn directory(workspace: &Path) -> PathBuf {
    workspace.join("crates/launcher/runner_tests")
}

/// A virtual environment of `python` with what `requirements` pins, made anew when the pins change.
///
/// # Errors
///
/// When it cannot be made.
pub(super) fn venv(
    workspace: &Path,
    python: &Path,
    requirements: &Path,
    name: &str,
) -> Result<PathBuf> {
    let venv = workspace.join("target/runner-venvs").join(name);
    let installed = venv.join("installed.txt");
    let wanted = fs::read_to_string(requirements)
        .with_context(|| format!("read `{}`", requirements.display()))?;
    if fs::read_to_string(&installed).is_ok_and(|present| present == wanted) {
        return Ok(venv);
    }
    check(
        Command::new(python)
            .args(["-m", "venv", "--clear"])
            .arg(&venv),
    )?;
    let pip = ["-m", "pip", "install", "--quiet", "--requirement"];
    check(
        Command::new(venv.join("bin/python"))
            .args(pip)
            .arg(requirements),
    )?;
    fs::write(&installed, wanted).with_context(|| format!("write `{}`", installed.display()))?;
    Ok(venv)
}
