//! `cargo xtask demo`: the main job before one's eyes, in the order in which an administrator does it.
//!
//! Every claim that is printed has been checked; the first one that does not hold ends it with an error.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use buildbot_conda_machine::{Build, CHANNEL, Channel, Machine, Release, Rest, Version};

use crate::stages::Stages;
use crate::test::prepare;
use crate::{deb, prerequisites};

const UNITS: [&str; 2] = ["buildbot-master.service", "buildbot-worker.service"];
/// Where the generations of the environment are.
const ENVIRONMENT: &str = "/var/lib/buildbot-conda/envs/buildbot";
const LOCK: &str = "/root/lock.txt";

/// What to show.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The Debian release to boot
    #[arg(long, default_value = "trixie")]
    release: Release,
    /// A package that has been built already
    #[arg(long, requires = "env_package")]
    package: Option<PathBuf>,
    /// The package of environments, built already
    #[arg(long, requires = "package")]
    env_package: Option<PathBuf>,
}

/// Builds the packages as the user, shows the rest as root.
pub(crate) fn run(workspace: &Path, arguments: Arguments) -> Result<()> {
    let given = arguments.package.zip(arguments.env_package);
    let stages = Stages::new(5 + 4 * usize::from(given.is_none()));
    let release = arguments.release;
    let packages = match given {
        Some((package, environments)) => [package, environments],
        None => build(workspace, &stages, release)?,
    };
    if !prerequisites::is_root() {
        return again_as_root(&packages, release);
    }
    let outcome = show(&stages, release, &packages);
    stages.print()?;
    outcome
}

/// Builds both packages, and meanwhile makes what the machine is made of.
fn build(workspace: &Path, stages: &Stages, release: Release) -> Result<[PathBuf; 2]> {
    stages.run(
        "installing requirements from Debian",
        prerequisites::for_demo,
    )?;
    thread::scope(|scope| {
        let package = scope.spawn(|| stages.run("building the package", || deb::build(workspace)));
        let machine = scope.spawn(|| {
            stages.run("creating a Conda channel with Buildbot, and a root", || {
                prepare::call(&[release], false)
            })
        });
        let environments = stages.run("building the package of environments", || {
            deb::build_environments(workspace)
        });
        let package = package.join().expect("building does not panic");
        machine.join().expect("making a root does not panic")?;
        Ok([package?, environments?])
    })
}

/// cargo's files remain the user's; only booting machines needs root.
fn again_as_root([package, environments]: &[PathBuf; 2], release: Release) -> Result<()> {
    eprintln!("calling sudo: only root can boot a machine");
    let mut command = prerequisites::as_root(&prerequisites::this_program());
    command
        .args(["demo", "--release", release.code_name(), "--package"])
        .arg(package)
        .arg("--env-package")
        .arg(environments);
    let status = command.status().context("start sudo")?;
    if status.success() {
        Ok(())
    } else {
        bail!("run the demonstration as root: {status}")
    }
}

fn show(stages: &Stages, release: Release, packages: &[PathBuf; 2]) -> Result<()> {
    // Both packages may have been given.
    prerequisites::for_machines()?;
    let channel = Channel::made()?;
    let machine = stages.run("booting a temporary machine, without any Conda", || {
        Machine::builder(release)?.boot()
    })?;
    stages.run("apt install: the packages, nothing set up yet", || {
        install_packages(&machine, packages)
    })?;
    stages.run("buildbot-conda env create buildbot --file lock.txt", || {
        machine.copy_in(channel.directory(), CHANNEL)?;
        let lock = channel.lock(Version::V4_3_0, CHANNEL)?;
        machine.write_file(LOCK, &lock, "0644", "root")?;
        call(&machine, &["env", "create", "buildbot", "--file", LOCK])?;
        call(&machine, &["env", "verify", "buildbot"])
    })?;
    stages.run("buildbot-conda create master, create worker", || {
        call(&machine, &["create", "master"])?;
        call(&machine, &["create", "worker"])?;
        ensure_serves(&machine)
    })?;
    let build = stages.run("one build, forced through the REST API", || force(&machine))?;

    let mut shown = String::new();
    write_build(&mut shown, &machine, &build)?;
    for unit in UNITS {
        let status = machine
            .run(&[
                "systemctl",
                "status",
                "--no-pager",
                "--full",
                "--lines=3",
                unit,
            ])?
            .succeeded()?;
        writeln!(
            shown,
            "$ systemctl status {unit}\n{}",
            status.stdout.trim_end()
        )?;
    }
    std::io::stdout()
        .write_all(shown.as_bytes())
        .context("print what happened")
}

/// A command of ours; its output is shown if it fails.
fn call(machine: &Machine, words: &[&str]) -> Result<()> {
    let words = [&["buildbot-conda"], words].concat();
    machine
        .run_within(Duration::from_mins(3), &words)?
        .succeeded()?;
    Ok(())
}

fn install_packages(machine: &Machine, packages: &[PathBuf; 2]) -> Result<()> {
    for package in packages {
        machine.install_package(package)?.succeeded()?;
    }
    for unit in UNITS {
        let enabled = machine.run(&["systemctl", "is-enabled", unit])?;
        ensure!(
            enabled.text() == "enabled",
            "`{unit}` is not enabled: {enabled}"
        );
        let state = machine.unit_property(unit, "ActiveState")?;
        ensure!(
            state == "inactive",
            "`{unit}` is `{state}` without a directory"
        );
        eprintln!("      {unit}: enabled, waits for its directory");
    }
    Ok(())
}

fn ensure_serves(machine: &Machine) -> Result<()> {
    let rest = Rest::new(machine);
    ensure!(
        rest.answers(),
        "the master does not answer although it has started"
    );
    for unit in UNITS {
        let main = machine.unit_property(unit, "MainPID")?;
        let program = machine
            .run(&["readlink", "-f", &format!("/proc/{main}/exe")])?
            .succeeded()?;
        ensure!(
            program
                .text()
                .starts_with(&format!("{}/bin/python", prefix(machine)?)),
            "`{unit}` runs `{}`",
            program.text()
        );
        eprintln!("      {unit}: PID {main} is {}", program.text());
    }
    rest.wait_for_worker("worker", Duration::from_secs(30))
}

/// The generation that serves.
fn prefix(machine: &Machine) -> Result<String> {
    let prefix = machine.run(&["readlink", "-f", &format!("{ENVIRONMENT}/current")])?;
    Ok(prefix.succeeded()?.text().to_owned())
}

fn force(machine: &Machine) -> Result<Build> {
    let rest = Rest::new(machine);
    let request = rest.force("hello", &[])?;
    let build = rest.wait_for_build(request, Duration::from_mins(1))?;
    ensure!(build.results == 0, "build {}: {}", build.id, build.state);
    Ok(build)
}

/// Appends the log of the build after checking its content.
fn write_build(shown: &mut String, machine: &Machine, build: &Build) -> Result<()> {
    let rest = Rest::new(machine);
    writeln!(shown, "\nbuild {}: {}", build.id, build.state)?;
    let log = rest.log(build, "hello")?;
    let expected = format!("hello from {}", prefix(machine)?);
    ensure!(
        log.lines().any(|line| line == expected),
        "step `hello` does not print `{expected}`:\n{log}"
    );
    writeln!(shown, "--- log of step `hello`\n{}", log.trim_end())?;
    writeln!(shown)?;
    Ok(())
}
