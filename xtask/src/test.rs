//! `cargo xtask test`: every check, cheapest first, each as a stage of its own. A failed stage does not hide the others.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use buildbot_conda_machine::{Release, forget_faults};

use crate::stages::Stages;
use crate::{deb, faults, interrupted, prerequisites, reproduce};

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Leave out what needs the package or a booted machine
    #[arg(long, conflicts_with = "release")]
    fast: bool,
    /// Build, lint and test the crate of environments alone, which is left out of `--fast`
    #[arg(long, conflicts_with_all = ["fast", "release"])]
    env: bool,
    /// Boot machines of this release only
    #[arg(long, value_parser = parse_release)]
    release: Option<Release>,
}

/// Names a release on the command line.
pub(crate) fn parse_release(name: &str) -> Result<Release, String> {
    let known = Release::ALL
        .into_iter()
        .find(|release| release.code_name() == name);
    known.ok_or_else(|| "expected `bookworm` or `trixie`".to_owned())
}

/// Runs the stages, prints them, and fails if one of them did.
pub(crate) fn run(workspace: &Path, arguments: &Arguments) -> Result<()> {
    let cargo = |words: &[&str]| {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(workspace).args(words);
        command
    };
    if arguments.env {
        let mut stages = Stages::new(2);
        environments(workspace, &mut stages);
        stages.print()?;
        return finish(&stages);
    }
    let mut stages = Stages::new(if arguments.fast { 4 } else { 11 });
    stages.attempt("format", || check(&mut cargo(&["fmt", "--all", "--check"])));
    stages.attempt("lints", || {
        check(&mut cargo(&[
            "clippy",
            "--workspace",
            "--exclude",
            "buildbot-conda-env",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ]))
    });
    stages.attempt("units of code", || check(&mut cargo(&["test"])));
    stages.attempt("runner", || {
        prerequisites::for_python()?;
        runner(workspace)
    });
    let releases = arguments
        .release
        .map_or(Release::ALL.to_vec(), |release| vec![release]);
    if !arguments.fast {
        forget_faults()?;
        let package = stages.attempt("package is built", || deb::build(workspace));
        let environments = environments(workspace, &mut stages);
        // Without a package the tests of it cannot be run, and its own stage has failed.
        if let Some(package) = package {
            let with_package = |words: &[&str]| {
                let mut command = cargo(words);
                command.env("BUILDBOT_CONDA_DEB", &package);
                if let Some(environments) = &environments {
                    command.env("BUILDBOT_CONDA_ENV_DEB", environments);
                }
                command
            };
            stages.attempt("package is built again", || {
                reproduce::check(workspace, &package)
            });
            stages.attempt("package", || {
                prerequisites::for_package_tests()?;
                let mut tests = with_package(&[
                    "test",
                    "--no-fail-fast",
                    "--package",
                    "buildbot-conda-package-tests",
                ]);
                as_root(&mut tests);
                check(&mut tests)
            });
            stages.attempt("machines", || {
                prerequisites::for_machines()?;
                let mut tests = with_package(&[
                    "test",
                    "--no-fail-fast",
                    "--package",
                    "buildbot-conda-machine",
                    "--",
                    // They wait for Buildbot more than they compute.
                    "--test-threads=4",
                ]);
                if let Some(release) = arguments.release {
                    tests.arg(format!("{release}::"));
                }
                as_root(&mut tests);
                check(&mut tests)
            });
        }
        stages.attempt("fault table", || faults::check(&releases));
    }
    stages.print()?;
    if !arguments.fast {
        faults::print(&releases)?;
        interrupted::print(workspace)?;
    }
    finish(&stages)
}

fn finish(stages: &Stages) -> Result<()> {
    match stages.failed() {
        0 => Ok(()),
        failed => bail!("{failed} of the stages failed"),
    }
}

/// The package of what makes environments, and lints and tests of its crate with what was compiled for it.
fn environments(workspace: &Path, stages: &mut Stages) -> Option<PathBuf> {
    let package = stages.attempt("package of environments is built", || {
        deb::build_environments(workspace)
    })?;
    stages.attempt("environments", || deb::check_environments(workspace));
    Some(package)
}

/// The runner against each Buildbot that its requirements files pin; its tests find the virtual environments.
fn runner(workspace: &Path) -> Result<()> {
    let tests = workspace.join("crates/launcher/runner_tests");
    let mut pythons = Vec::new();
    for version in ["4.3.0", "3.11.9"] {
        let requirements = tests.join(format!("requirements-{version}.txt"));
        pythons.push(venv(workspace, &requirements, version)?.join("bin/python"));
    }
    check(Command::new(&pythons[0]).current_dir(&tests).args([
        "-m",
        "pytest",
        "--quiet",
        "--numprocesses=auto",
    ]))
}

/// A virtual environment with what `requirements` pins, made anew when the pins change.
fn venv(workspace: &Path, requirements: &Path, version: &str) -> Result<std::path::PathBuf> {
    let venv = workspace.join("target/runner-venvs").join(version);
    let installed = venv.join("installed.txt");
    let wanted = std::fs::read_to_string(requirements)
        .with_context(|| format!("read `{}`", requirements.display()))?;
    if std::fs::read_to_string(&installed).is_ok_and(|present| present == wanted) {
        return Ok(venv);
    }
    check(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&venv),
    )?;
    let pip = ["-m", "pip", "install", "--quiet", "--requirement"];
    check(
        Command::new(venv.join("bin/python"))
            .args(pip)
            .arg(requirements),
    )?;
    std::fs::write(&installed, wanted)
        .with_context(|| format!("write `{}`", installed.display()))?;
    Ok(venv)
}

/// Lets cargo build the tests as the user and run them by sudo: booting machines takes root.
fn as_root(command: &mut Command) {
    if !prerequisites::is_root() {
        let target = format!(
            "{}_UNKNOWN_LINUX_GNU",
            std::env::consts::ARCH.to_uppercase()
        );
        // sudo sets a PATH of its own, on which another Python may come first.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env(
            format!("CARGO_TARGET_{target}_RUNNER"),
            format!("sudo --preserve-env env PATH={path}"),
        );
    }
}

/// Runs a command that shows its own output, and fails unless it succeeds.
fn check(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .with_context(|| format!("start `{name}`"))?;
    if !status.success() {
        bail!("run `{name}`: {status}");
    }
    Ok(())
}
