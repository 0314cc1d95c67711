//! The main job on a booted machine: install, start, build, reboot.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use buildbot_conda_machine::{
    MASTER, Machine, Outcome, PREFIX, Release, Rest, Scenarios, fault, installed, latest_package,
    on_each_release, set_up,
};

on_each_release! {
    installing_with_nothing_set_up_succeeds_and_skips_both_units,
    an_empty_directory_skips_the_unit,
    both_start_build_and_say_what_they_do,
    a_reboot_and_a_power_cut_bring_both_back_with_the_worker_attached,
}

const UNITS: [&str; 2] = ["buildbot-master.service", "buildbot-worker.service"];

/// From the start of the units to the worker's connection; a worker that started first retries after some seconds.
const ATTACHED: Duration = Duration::from_secs(40);

/// Variables that systemd sets for a service, and no build must see.
const PRIVATE: &[&str] = &[
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "SYSTEMD_EXEC_PID",
    "CREDENTIALS_DIRECTORY",
];

fn ensure_skipped(machine: &Machine, unit: &str) -> Outcome {
    let state = machine.unit_property(unit, "ActiveState")?;
    ensure!(state == "inactive", "`{unit}` is `{state}`");
    let condition = machine.unit_property(unit, "ConditionResult")?;
    ensure!(
        condition == "no",
        "the condition of `{unit}` is `{condition}`"
    );
    Ok(())
}

fn start(machine: &Machine) -> Outcome {
    machine
        .run(&[&["systemctl", "start"], &UNITS[..]].concat())?
        .succeeded()?;
    Ok(())
}

fn installing_with_nothing_set_up_succeeds_and_skips_both_units(release: Release) -> Outcome {
    let mut machine = Machine::builder(release)?.boot()?;

    machine.install_package(&latest_package()?)?.succeeded()?;

    let account = machine.run(&["getent", "passwd", "bb"])?.succeeded()?;
    ensure!(account.text().ends_with(":/home/bb:/bin/bash"), "{account}");
    for unit in UNITS {
        let enabled = machine.run(&["systemctl", "is-enabled", unit])?;
        ensure!(enabled.text() == "enabled", "{enabled}");
        ensure_skipped(&machine, unit)?;
    }
    machine.reboot()?;
    for unit in UNITS {
        ensure_skipped(&machine, unit)?;
    }
    let state = machine.run(&["systemctl", "is-system-running"])?;
    ensure!(state.text() == "running", "{state}");
    Ok(())
}

fn an_empty_directory_skips_the_unit(release: Release) -> Outcome {
    let machine = Machine::boot(installed(release)?)?;
    machine
        .shell("install -d -o bb -g bb /home/bb/master /home/bb/worker")?
        .succeeded()?;

    for unit in UNITS {
        machine.run(&["systemctl", "start", unit])?.succeeded()?;
        ensure_skipped(&machine, unit)?;
    }
    Ok(())
}

/// One machine for all that a first start is good for, and a second one with a script in the environment.
fn both_start_build_and_say_what_they_do(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    let mut scenarios = Scenarios::new(|| Ok(()));
    scenarios.run("start returns when the web API answers", || {
        fault("master-start", release, || start_the_master(&machine))
    });
    scenarios.run("the only process is the environment's Python", || {
        ensure_main_processes(&machine)
    });
    scenarios.run("journal and status line say what Buildbot does", || {
        ensure_told(&machine)
    });
    scenarios.run("a script leaves no shell behind", || {
        ensure_script_runs(&machine)
    });
    scenarios.run(
        "a build has what activation sets and nothing of systemd's",
        || ensure_activated_build(&machine),
    );
    scenarios.finish()
}

fn start_the_master(machine: &Machine) -> Outcome {
    machine
        .run(&["systemctl", "start", UNITS[0]])?
        .succeeded()?;

    // Asked once, without any waiting.
    ensure!(
        Rest::new(machine).answers(),
        "the master does not answer:\n{}",
        machine.journal(UNITS[0])?
    );
    Ok(())
}

/// The command lines of all processes in a unit's control group.
fn processes(machine: &Machine, unit: &str) -> anyhow::Result<Vec<String>> {
    let group = machine.unit_property(unit, "ControlGroup")?;
    let script = format!(
        "for process in $(cat /sys/fs/cgroup{group}/cgroup.procs); do tr '\\0' ' ' </proc/$process/cmdline; echo; done"
    );
    let listing = machine.shell(&script)?.succeeded()?;
    Ok(listing.stdout.lines().map(str::to_owned).collect())
}

fn ensure_only_python(machine: &Machine, unit: &str) -> Outcome {
    let main = machine.unit_property(unit, "MainPID")?;
    let program = machine
        .run(&["readlink", &format!("/proc/{main}/exe")])?
        .succeeded()?;
    ensure!(
        program.text().starts_with(&format!("{PREFIX}/bin/python")),
        "`{unit}` runs {program}"
    );
    let processes = processes(machine, unit)?;
    ensure!(processes.len() == 1, "`{unit}` has {processes:?}");
    Ok(())
}

fn ensure_main_processes(machine: &Machine) -> Outcome {
    start(machine)?;
    for unit in UNITS {
        ensure_only_python(machine, unit)?;
        let user = machine.unit_property(unit, "MainPID")?;
        let user = machine.run(&["stat", "--format=%U", &format!("/proc/{user}")])?;
        ensure!(user.text() == "bb", "`{unit}` belongs to {user}");
    }
    Ok(())
}

fn ensure_told(machine: &Machine) -> Outcome {
    Rest::new(machine).wait_for_worker("example", ATTACHED)?;
    for (unit, line, status) in [
        (UNITS[0], "BuildMaster is running", "running"),
        (
            UNITS[1],
            "Connected to buildmaster; worker is ready",
            "connected",
        ),
    ] {
        let journal = machine.journal(unit)?;
        ensure!(
            journal.contains(line),
            "`{line}` is not in the journal of `{unit}`:\n{journal}"
        );
        let shown = machine.status(unit)?.succeeded()?;
        let line = shown
            .stdout
            .lines()
            .find(|line| line.trim_start().starts_with("Status: "));
        ensure!(line.is_some_and(|line| line.contains(status)), "{shown}");
    }
    // The instances' own tac files open it, and nothing is written to it.
    let log = machine.run(&["test", "-s", &format!("{MASTER}/twistd.log")])?;
    ensure!(log.status == 1, "the log is written to a file as well");
    Ok(())
}

/// The variables that `env` printed in a build: its lines after the header's own listing.
fn variable<'log>(log: &'log str, name: &str) -> Option<&'log str> {
    log.lines()
        .find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix('='))
}

/// With variables from a script and from the environment's state.
fn ensure_activated_build(machine: &Machine) -> Outcome {
    let rest = Rest::new(machine);
    rest.wait_for_worker("example", ATTACHED)?;

    let build = rest.wait_for_build(rest.force("example", &[])?, Duration::from_mins(1))?;

    ensure!(build.results == 0, "{build:?}");
    let identity = rest.log(&build, "identity")?;
    ensure!(identity.lines().any(|line| line == "bb"), "{identity}");
    let prefix = rest.log(&build, "prefix")?;
    ensure!(prefix.lines().any(|line| line == PREFIX), "{prefix}");
    let log = rest.log(&build, "environment")?;
    for (name, value) in [
        ("CONDA_PREFIX", PREFIX),
        ("CONDA_DEFAULT_ENV", "buildbot"),
        ("CONDA_SHLVL", "1"),
        ("CONDA_PROMPT_MODIFIER", "(buildbot) "),
        ("FROM_STATE", "it's $HOME \"quoted\""),
        ("FROM_SCRIPT", PREFIX),
        ("HOME", "/home/bb"),
        ("LANG", "C.UTF-8"),
    ] {
        ensure!(
            variable(&log, name) == Some(value),
            "`{name}` is {:?} in\n{log}",
            variable(&log, name)
        );
    }
    let path = variable(&log, "PATH").context("find PATH")?;
    ensure!(
        path.starts_with(&format!("{PREFIX}/bin:")),
        "PATH is `{path}`"
    );
    for name in PRIVATE {
        ensure!(variable(&log, name).is_none(), "`{name}` is in\n{log}");
    }
    Ok(())
}

/// Restarts both with a script and a state in the environment.
fn ensure_script_runs(machine: &Machine) -> Outcome {
    let state = r#"{"env_vars": {"FROM_STATE": "it's $HOME \"quoted\""}}"#;
    machine.write_file(&format!("{PREFIX}/conda-meta/state"), state, "0644", "root")?;
    let script = format!("{PREFIX}/etc/conda/activate.d/example.sh");
    let text = "export FROM_SCRIPT=\"$CONDA_PREFIX\"\n";
    machine.write_file(&script, text, "0644", "root")?;
    machine
        .run(&[&["systemctl", "restart"], &UNITS[..]].concat())?
        .succeeded()?;

    for unit in UNITS {
        ensure_only_python(machine, unit)?;
        let main = machine.unit_property(unit, "MainPID")?;
        let environment = machine.read_file(&format!("/proc/{main}/environ"))?;
        let expected = format!("FROM_SCRIPT={PREFIX}");
        ensure!(
            environment.split('\0').any(|entry| entry == expected),
            "the script of `{unit}` has not run"
        );
    }
    Ok(())
}

fn a_reboot_and_a_power_cut_bring_both_back_with_the_worker_attached(release: Release) -> Outcome {
    let mut machine = Machine::boot(set_up(release)?)?;
    machine
        .run(&[&["systemctl", "enable", "--now"], &UNITS[..]].concat())?
        .succeeded()?;
    Rest::new(&machine).wait_for_worker("example", ATTACHED)?;

    machine.reboot()?;
    Rest::new(&machine).wait_for_worker("example", ATTACHED)?;
    machine.power_cut()?;
    let rest = Rest::new(&machine);
    rest.wait_for_worker("example", ATTACHED)?;

    let build = rest.wait_for_build(rest.force("example", &[])?, Duration::from_mins(1))?;
    ensure!(build.results == 0, "{build:?}");
    let failed = machine.run(&["systemctl", "--failed", "--no-legend"])?;
    ensure!(failed.text().is_empty(), "{failed}");
    Ok(())
}
