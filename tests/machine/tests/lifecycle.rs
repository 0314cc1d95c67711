//! What installing, upgrading, removing and purging the package does to units, on a booted machine.

use std::time::{Duration, Instant};

use anyhow::ensure;
use buildbot_conda_machine::{
    MASTER, Machine, Outcome, Output, Release, latest_package, on_each_release, set_up,
};

on_each_release! {
    an_upgrade_leaves_running_instances_alone_and_stopped_ones_stopped,
    removal_stops_every_instance_and_installation_starts_them_again,
    purge_leaves_the_users_data_and_nothing_that_fails,
    an_installation_does_not_wait_for_a_slow_start,
    an_installation_succeeds_when_buildbot_does_not_start,
    a_policy_against_starting_services_is_obeyed,
    a_unit_written_by_hand_runs_on_through_installation_and_removal,
}

const UNITS: [&str; 3] = [
    "buildbot-master.service",
    "buildbot-worker.service",
    "buildbot-worker@second.service",
];

/// What an installation may take on a busy machine beyond the 10 seconds that it waits for a start.
const INSTALLATION: Duration = Duration::from_secs(40);

/// A master, a worker and a named worker that are enabled and, except for the first start, running.
fn running(release: Release) -> anyhow::Result<Machine> {
    let machine = Machine::boot(set_up(release)?)?;
    machine
        .shell(
            "cp -a /home/bb/worker /home/bb/second\n\
             printf '[\"worker@second\"]\\ndirectory = \"/home/bb/second\"\\n' >>/etc/buildbot-conda/config.toml\n\
             systemctl daemon-reload",
        )?
        .succeeded()?;
    machine
        .run(&[&["systemctl", "enable", "--now"], &UNITS[..]].concat())?
        .succeeded()?;
    Ok(machine)
}

fn property(machine: &Machine, name: &str) -> anyhow::Result<Vec<String>> {
    UNITS
        .iter()
        .map(|unit| machine.unit_property(unit, name))
        .collect()
}

fn install(machine: &Machine) -> anyhow::Result<Output> {
    machine.install_package(&latest_package()?)?.succeeded()
}

/// The same version once more goes through the same scripts as a new one.
fn upgrade(machine: &Machine) -> anyhow::Result<Output> {
    machine.copy_in(&latest_package()?, "/root/new.deb")?;
    machine
        .run(&["dpkg", "--install", "/root/new.deb"])?
        .succeeded()
}

fn remove(machine: &Machine) -> anyhow::Result<Output> {
    machine
        .run(&["dpkg", "--remove", "buildbot-conda"])?
        .succeeded()
}

fn an_upgrade_leaves_running_instances_alone_and_stopped_ones_stopped(release: Release) -> Outcome {
    let machine = running(release)?;
    machine.run(&["systemctl", "stop", UNITS[1]])?.succeeded()?;
    let before = property(&machine, "MainPID")?;
    let since = property(&machine, "StateChangeTimestampMonotonic")?;

    upgrade(&machine)?;

    ensure!(property(&machine, "MainPID")? == before);
    ensure!(property(&machine, "StateChangeTimestampMonotonic")? == since);
    ensure!(property(&machine, "ActiveState")? == ["active", "inactive", "active"]);
    ensure!(property(&machine, "NeedDaemonReload")? == ["no"; 3]);
    Ok(())
}

fn removal_stops_every_instance_and_installation_starts_them_again(release: Release) -> Outcome {
    let machine = running(release)?;

    remove(&machine)?;

    let processes = machine.shell("find /proc -maxdepth 1 -name '[1-9]*' -user bb")?;
    ensure!(processes.text().is_empty(), "{processes}");
    let failed = machine.run(&["systemctl", "--failed", "--no-legend"])?;
    ensure!(failed.text().is_empty(), "{failed}");

    let talk = install(&machine)?;
    machine.wait_until("every instance runs", INSTALLATION, || {
        Ok((property(&machine, "ActiveState")? == ["active"; 3]).then_some(()))
    })?;
    let mark = machine.run(&["test", "-e", "/run/buildbot-conda.start"])?;
    ensure!(mark.status == 1, "{talk}");
    Ok(())
}

fn purge_leaves_the_users_data_and_nothing_that_fails(release: Release) -> Outcome {
    let mut machine = running(release)?;

    machine
        .run(&["dpkg", "--purge", "buildbot-conda"])?
        .succeeded()?;

    machine
        .shell("test -s /home/bb/master/buildbot.tac; test -s /home/bb/second/buildbot.tac; id bb")?
        .succeeded()?;
    let left = machine.shell(
        "find /etc/systemd /run/systemd/generator /run/buildbot-conda* /var/lib/buildbot-conda \
         -name '*buildbot*' 2>/dev/null || true",
    )?;
    ensure!(left.text().is_empty(), "{left}");
    machine.reboot()?;
    let state = machine.run(&["systemctl", "is-system-running"])?;
    ensure!(state.text() == "running", "{state}");
    Ok(())
}

fn an_installation_does_not_wait_for_a_slow_start(release: Release) -> Outcome {
    let machine = running(release)?;
    remove(&machine)?;
    machine
        .shell(&format!(
            "sed -i '1i import time; time.sleep(60)' {MASTER}/master.cfg"
        ))?
        .succeeded()?;

    let begin = Instant::now();
    let talk = install(&machine)?;
    let taken = begin.elapsed();

    ensure!(taken < INSTALLATION, "{taken:?}\n{talk}");
    ensure!(talk.to_string().contains("still starting"), "{talk}");
    let state = machine.unit_property(UNITS[0], "ActiveState")?;
    ensure!(state == "activating", "`{state}`\n{talk}");
    Ok(())
}

fn an_installation_succeeds_when_buildbot_does_not_start(release: Release) -> Outcome {
    let machine = running(release)?;
    remove(&machine)?;
    machine
        .shell(&format!("echo 'raise SystemExit' >{MASTER}/master.cfg"))?
        .succeeded()?;

    let talk = install(&machine)?;

    ensure!(
        talk.to_string().contains("notice: "),
        "the notice is missing: {talk}"
    );
    let audit = machine.run(&["dpkg", "--audit"])?;
    ensure!(audit.text().is_empty(), "{audit}");
    machine.wait_until("the worker runs", INSTALLATION, || {
        Ok((machine.unit_property(UNITS[1], "ActiveState")? == "active").then_some(()))
    })?;
    Ok(())
}

fn a_policy_against_starting_services_is_obeyed(release: Release) -> Outcome {
    let machine = running(release)?;
    remove(&machine)?;
    machine.write_file(
        "/usr/sbin/policy-rc.d",
        "#!/bin/sh\nexit 101\n",
        "0755",
        "root",
    )?;

    install(&machine)?;

    ensure!(property(&machine, "ActiveState")? == ["inactive"; 3]);
    ensure!(property(&machine, "UnitFileState")? == ["enabled"; 3]);
    Ok(())
}

fn a_unit_written_by_hand_runs_on_through_installation_and_removal(release: Release) -> Outcome {
    let machine = Machine::builder(release)?.boot()?;
    machine.write_file(
        "/etc/systemd/system/buildbot-worker.service",
        "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n",
        "0644",
        "root",
    )?;
    machine
        .shell("systemctl daemon-reload; systemctl enable --now buildbot-worker")?
        .succeeded()?;
    let before = machine.unit_property(UNITS[1], "MainPID")?;

    let talk = install(&machine)?;
    ensure!(
        talk.to_string()
            .contains("hides the package's unit and is left as it is"),
        "{talk}"
    );
    ensure!(machine.unit_property(UNITS[1], "MainPID")? == before);
    remove(&machine)?;
    ensure!(machine.unit_property(UNITS[1], "MainPID")? == before);
    machine
        .run(&["dpkg", "--purge", "buildbot-conda"])?
        .succeeded()?;
    ensure!(machine.unit_property(UNITS[1], "MainPID")? == before);
    let enabled = machine.run(&["systemctl", "is-enabled", "buildbot-worker"])?;
    ensure!(enabled.text() == "enabled", "{enabled}");
    Ok(())
}
