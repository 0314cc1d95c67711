//! `cargo xtask test`: every check, cheapest first, each as a stage of its own. A failed stage does not hide the others.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, bail};
use buildbot_conda_machine::{Release, forget_faults};
use rustix::process::setpriority_process;

use crate::check::{FORMAT, LINTS};
use crate::stages::Stages;
use crate::{deb, faults, interrupted, lanes, prerequisites, reproduce};

/// Compiles the tests of the package that is named next.
const TESTS_OF: [&str; 4] = ["test", "--no-run", "--tests", "--package"];

/// Tests on machines that need the package of environments as well.
const WITH_ENVIRONMENTS: [&str; 4] = [
    "environments",
    "environments_interrupted",
    "hosts",
    "rebuild",
];

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
    #[arg(long)]
    release: Option<Release>,
}

/// Runs the stages, prints them, and fails if one of them did.
pub(crate) fn run(workspace: &Path, arguments: &Arguments) -> Result<()> {
    if arguments.env {
        let mut stages = Stages::new(2);
        let package = stages.attempt("package of environments is built", || {
            deb::build_environments(workspace)
        });
        if package.is_some() {
            stages.attempt("environments", || deb::check_environments(workspace));
        }
        stages.print()?;
        return finish(&stages);
    }
    let mut stages = Stages::new(if arguments.fast { 4 } else { 12 });
    stages.attempt("format", || check(&mut cargo(workspace, &FORMAT)));
    stages.attempt("lints", || check(&mut cargo(workspace, &LINTS)));
    stages.attempt("units of code", || check(&mut cargo(workspace, &["test"])));
    stages.attempt("runner", || {
        prerequisites::for_python()?;
        runner(workspace)
    });
    let releases = arguments
        .release
        .map_or(Release::ALL.to_vec(), |release| vec![release]);
    if !arguments.fast {
        with_packages(workspace, arguments, &mut stages)?;
        stages.attempt("tables of faults and attacks", || faults::check(&releases));
    }
    stages.print()?;
    if !arguments.fast {
        faults::print(&releases)?;
        interrupted::print(workspace)?;
    }
    finish(&stages)
}

/// The stages that need the packages. What makes environments is compiled while machines wait for Buildbot: alone it
/// would take five minutes.
fn with_packages(workspace: &Path, arguments: &Arguments, stages: &mut Stages) -> Result<()> {
    forget_faults()?;
    // Without the package the tests of it cannot be run, and its own stage has failed.
    let Some(package) = stages.attempt("package is built", || deb::build(workspace)) else {
        return Ok(());
    };
    let mut packages = vec![("BUILDBOT_CONDA_DEB", package.clone())];
    thread::scope(|scope| {
        let compiled = scope.spawn(|| {
            // Of this thread, and so of the compilers that it starts: setpriority(2), "C library/kernel differences".
            setpriority_process(None, 10).context("lower the priority of a compilation")?;
            deb::build_environments(workspace)
        });
        stages.attempt("package is built again", || {
            reproduce::check(workspace, &package)
        });
        stages.attempt("machines", || {
            prerequisites::for_machines()?;
            let is_wanted = |name: &str| !WITH_ENVIRONMENTS.contains(&name);
            machines(workspace, arguments, &packages, is_wanted)
        });
        let environments = stages.attempt("package of environments is built", || {
            compiled.join().expect("compiling does not panic")
        });
        let Some(environments) = environments else {
            return;
        };
        packages.push(("BUILDBOT_CONDA_ENV_DEB", environments));
        stages.attempt("environments", || deb::check_environments(workspace));
        stages.attempt("machines without Conda", || {
            let is_wanted = |name: &str| WITH_ENVIRONMENTS.contains(&name);
            machines(workspace, arguments, &packages, is_wanted)
        });
        stages.attempt("package", || {
            prerequisites::for_package_tests()?;
            let mut cargo = cargo(workspace, &TESTS_OF);
            cargo.arg("buildbot-conda-package-tests");
            lanes::run(
                &mut cargo,
                2,
                |_| true,
                |program| as_root(program, &packages, &[]),
            )
        });
    });
    Ok(())
}

/// The tests on booted machines. They wait for Buildbot more than they compute.
fn machines(
    workspace: &Path,
    arguments: &Arguments,
    packages: &[(&str, PathBuf)],
    is_wanted: impl Fn(&str) -> bool,
) -> Result<()> {
    let mut words = vec!["--test-threads=2".to_owned()];
    words.extend(arguments.release.map(|release| format!("{release}::")));
    let mut cargo = cargo(workspace, &TESTS_OF);
    cargo.arg("buildbot-conda-machine");
    lanes::run(&mut cargo, 4, is_wanted, |program| {
        as_root(program, packages, &words)
    })
}

fn finish(stages: &Stages) -> Result<()> {
    match stages.failed() {
        0 => Ok(()),
        failed => bail!("{failed} of the stages failed"),
    }
}

/// The runner against each Buildbot that its requirements files pin; its tests find the virtual environments.
fn runner(workspace: &Path) -> Result<()> {
    let tests = workspace.join("crates/launcher/runner_tests");
    let mut pythons = Vec::new();
    for version in ["4.3.0", "3.11.9"] {
        let requirements = tests.join(format!("requirements-{version}.txt"));
        pythons.push(venv(workspace, &requirements, version)?.join("bin/python"));
    }
    // Each waits for a Buildbot now and then.
    let processes = 2 * thread::available_parallelism().map_or(1, NonZero::get);
    check(
        Command::new(&pythons[0])
            .current_dir(&tests)
            .args(["-m", "pytest", "--quiet"])
            .arg(format!("--numprocesses={processes}")),
    )
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

/// A test program that is run by root, with sudo if need be: booting machines takes root, compiling does not.
fn as_root(program: &Path, packages: &[(&str, PathBuf)], words: &[String]) -> Command {
    let mut command = if prerequisites::is_root() {
        Command::new(program)
    } else {
        // sudo sets a PATH of its own, on which another Python may come first.
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sudo");
        command
            .args(["--preserve-env", "env"])
            .arg(format!("PATH={path}"))
            .arg(program);
        command
    };
    command
        .args(words)
        .envs(packages.iter().map(|(name, path)| (name, path)));
    command
}

/// cargo in the workspace.
fn cargo(workspace: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace).args(words);
    command
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
