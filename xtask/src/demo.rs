//! `cargo xtask demo`: the main job before one's eyes, in the order in which an administrator does it.
//!
//! Every claim that is printed has been checked; the first one that does not hold ends it with an error.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use buildbot_conda_machine::{
    Build, Environment, Machine, PREFIX, Release, Rest, Version, create_instances, debian_root,
};

use crate::stages::Stages;
use crate::test::parse_release;
use crate::{deb, prerequisites};

const UNITS: [&str; 2] = ["buildbot-master.service", "buildbot-worker.service"];

/// What to show.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The Debian release to boot
    #[arg(long, default_value = "trixie", value_parser = parse_release)]
    release: Release,
    /// A package that has been built already
    #[arg(long)]
    package: Option<PathBuf>,
}

/// Builds the package as the user, shows the rest as root.
pub(crate) fn run(workspace: &Path, arguments: Arguments) -> Result<()> {
    let mut stages = Stages::new(8 + usize::from(arguments.package.is_none()));
    let release = arguments.release;
    let package = match arguments.package {
        Some(package) => package,
        None => stages.run("building the package", || deb::build(workspace))?,
    };
    if !prerequisites::is_root() {
        return again_as_root(&package, release);
    }
    let outcome = show(&mut stages, release, &package);
    stages.print()?;
    outcome
}

/// cargo's files stay the user's; only booting machines takes root.
fn again_as_root(package: &Path, release: Release) -> Result<()> {
    eprintln!("calling sudo: booting a machine takes root");
    let program = std::env::current_exe().context("find this program")?;
    let mut command = Command::new("sudo");
    // sudo sets a PATH of its own, on which another Python may come first.
    command.args(["--preserve-env", "env"]).arg(format!(
        "PATH={}",
        std::env::var("PATH").unwrap_or_default()
    ));
    command
        .arg(program)
        .args(["demo", "--release", release.code_name(), "--package"])
        .arg(package);
    let status = command.status().context("start sudo")?;
    if status.success() {
        Ok(())
    } else {
        bail!("run the demonstration as root: {status}")
    }
}

fn show(stages: &mut Stages, release: Release, package: &Path) -> Result<()> {
    stages.run(
        "seeing to what is needed from Debian",
        prerequisites::for_machines,
    )?;
    let environment = stages.run("making a Conda environment with Buildbot", || {
        Environment::install(Version::V4_3_0, PREFIX)
    })?;
    stages.run(&format!("making a {release} root"), || debian_root(release))?;
    let machine = stages.run("booting a throwaway machine", || {
        Machine::builder(release)?.boot()
    })?;
    stages.run("apt install: the package, nothing set up yet", || {
        install_package(&machine, package)
    })?;
    stages.run(
        "copying the environment and creating master and worker",
        || {
            machine.copy_in(&environment.directory(), PREFIX)?;
            machine
                .run(&["chown", "-R", "bb:bb", "/home/bb"])?
                .succeeded()?;
            create_instances(&machine, "bb")
        },
    )?;
    stages.run("systemctl start buildbot-master buildbot-worker", || {
        start(&machine)
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

fn install_package(machine: &Machine, package: &Path) -> Result<()> {
    machine.install_package(package)?.succeeded()?;
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

fn start(machine: &Machine) -> Result<()> {
    let started = machine.run(&[&["systemctl", "start"], &UNITS[..]].concat())?;
    if started.status != 0 {
        for unit in UNITS {
            eprintln!("{}", machine.status(unit)?);
        }
    }
    started.succeeded()?;
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
            program.text().starts_with(&format!("{PREFIX}/bin/python")),
            "`{unit}` runs `{}`",
            program.text()
        );
        eprintln!("      {unit}: PID {main} is {}", program.text());
    }
    rest.wait_for_worker("example", Duration::from_secs(30))
}

fn force(machine: &Machine) -> Result<Build> {
    let rest = Rest::new(machine);
    let request = rest.force("example", &[])?;
    let build = rest.wait_for_build(request, Duration::from_mins(1))?;
    ensure!(build.results == 0, "build {}: {}", build.id, build.state);
    Ok(build)
}

/// Appends the log of the build after checking what it says.
fn write_build(shown: &mut String, machine: &Machine, build: &Build) -> Result<()> {
    let rest = Rest::new(machine);
    writeln!(shown, "\nbuild {}: {}", build.id, build.state)?;
    for (step, expected) in [("identity", "bb"), ("prefix", PREFIX)] {
        let log = rest.log(build, step)?;
        ensure!(
            log.lines().any(|line| line == expected),
            "step `{step}` does not say `{expected}`:\n{log}"
        );
        writeln!(shown, "--- log of step `{step}`\n{}", log.trim_end())?;
    }
    writeln!(shown)?;
    Ok(())
}
