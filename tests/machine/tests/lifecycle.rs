//! What installing, upgrading, removing and purging the package does to units, on a booted machine.

use std::time::{Duration, Instant};

use anyhow::ensure;
use buildbot_conda_machine::{
    MASTER, Machine, Outcome, Output, Release, latest_package, on_each_release, set_up,
};

on_each_release! {
    an_upgrade_leaves_running_instances_alone_and_stopped_ones_stopped,
    a_downgrade_leaves_running_instances_alone,
    removal_stops_every_instance_and_installation_starts_them_again,
    purge_leaves_the_users_data_and_nothing_that_fails,
    an_installation_does_not_wait_for_a_slow_start,
    an_installation_succeeds_when_buildbot_does_not_start,
    a_policy_against_starting_services_is_obeyed,
    a_unit_written_by_hand_runs_on_through_installation_and_removal,
    what_an_image_build_installs_comes_up_at_the_first_boot,
    an_account_that_was_asked_for_runs_the_services,
}

const UNITS: [&str; 3] = [
    "buildbot-master.service",
    "buildbot-worker.service",
    "buildbot-worker@second.service",
];

/// What an installation may take on a busy machine in addition to the 10 seconds that it waits for a start.
const INSTALLATION: Duration = Duration::from_secs(40);

/// A master, a worker and a named worker that are enabled and, except for the first start, running.
fn running(release: Release) -> anyhow::Result<Machine> {
    let machine = Machine::boot(set_up(release)?)?;
    machine
        .shell(
            "cp -a /home/bb/worker /home/bb/second\n\
             sed -i 's/^workername = .*/workername = \"second\"/' /home/bb/second/buildbot.tac\n\
             echo 'c[\"workers\"].append(worker.Worker(\"second\", \"secret\"))' >>/home/bb/master/master.cfg\n\
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

/// Makes an older version in the machine out of the one under test, and gives its path.
fn old_version(machine: &Machine) -> anyhow::Result<&'static str> {
    machine.copy_in(&latest_package()?, "/root/new.deb")?;
    machine
        .shell(
            "cd /root; dpkg-deb --raw-extract new.deb old
             sed -i 's/^Version: .*/Version: 0.0.1/' old/DEBIAN/control
             dpkg-deb --root-owner-group -Znone --build old >/dev/null
             rm -r old",
        )?
        .succeeded()?;
    Ok("/root/old.deb")
}

/// Goes to the package in the machine with apt, whatever its version.
fn change_to(machine: &Machine, package: &str) -> Outcome {
    let install = format!(
        "DEBIAN_FRONTEND=noninteractive apt-get install --yes --allow-downgrades {package}"
    );
    machine.shell(&install)?.succeeded()?;
    Ok(())
}

fn version(machine: &Machine) -> anyhow::Result<String> {
    let show = [
        "dpkg-query",
        "--show",
        "--showformat=${Version}",
        "buildbot-conda",
    ];
    Ok(machine.run(&show)?.succeeded()?.stdout)
}

fn remove(machine: &Machine) -> anyhow::Result<Output> {
    machine
        .run(&["dpkg", "--remove", "buildbot-conda"])?
        .succeeded()
}

fn an_upgrade_leaves_running_instances_alone_and_stopped_ones_stopped(release: Release) -> Outcome {
    let machine = running(release)?;
    // The records that an upgrade starts from are those of the old version.
    remove(&machine)?;
    let old = old_version(&machine)?;
    change_to(&machine, old)?;
    machine.wait_until("every instance runs", INSTALLATION, || {
        Ok((property(&machine, "ActiveState")? == ["active"; 3]).then_some(()))
    })?;
    machine.run(&["systemctl", "stop", UNITS[1]])?.succeeded()?;
    let before = property(&machine, "MainPID")?;
    let since = property(&machine, "StateChangeTimestampMonotonic")?;

    change_to(&machine, "/root/new.deb")?;

    ensure!(version(&machine)? != "0.0.1");
    ensure!(property(&machine, "MainPID")? == before);
    ensure!(property(&machine, "StateChangeTimestampMonotonic")? == since);
    ensure!(property(&machine, "ActiveState")? == ["active", "inactive", "active"]);
    ensure!(property(&machine, "NeedDaemonReload")? == ["no"; 3]);
    Ok(())
}

fn a_downgrade_leaves_running_instances_alone(release: Release) -> Outcome {
    let machine = running(release)?;
    let before = property(&machine, "MainPID")?;
    let old = old_version(&machine)?;

    change_to(&machine, old)?;

    ensure!(version(&machine)? == "0.0.1");
    let after = property(&machine, "MainPID")?;
    ensure!(after == before, "{before:?} became {after:?}");
    ensure!(property(&machine, "UnitFileState")? == ["enabled"; 3]);
    // And the installed files work.
    machine
        .run(&["systemctl", "restart", UNITS[0], UNITS[2]])?
        .succeeded()?;
    Ok(())
}

fn ensure_no_processes(machine: &Machine) -> Outcome {
    // An instance that exits during the check is not a failure.
    let processes = machine.shell("find /proc -maxdepth 1 -name '[1-9]*' -user bb || true")?;
    ensure!(processes.text().is_empty(), "{processes}");
    Ok(())
}

fn removal_stops_every_instance_and_installation_starts_them_again(release: Release) -> Outcome {
    let machine = running(release)?;

    remove(&machine)?;

    ensure_no_processes(&machine)?;
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

    ensure_no_processes(&machine)?;
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
            .contains("overrides the package's unit and is not changed"),
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

fn what_an_image_build_installs_comes_up_at_the_first_boot(release: Release) -> Outcome {
    let mut machine = Machine::boot(set_up(release)?)?;
    machine
        .run(&["dpkg", "--purge", "buildbot-conda"])?
        .succeeded()?;
    machine.copy_in(&latest_package()?, "/root/new.deb")?;

    // Without the sign of a running systemd, as in a chroot.
    machine
        .shell(
            "unshare --mount sh -euc 'mount -t tmpfs none /run
             DEBIAN_FRONTEND=noninteractive apt-get install --yes /root/new.deb'",
        )?
        .succeeded()?;
    ensure!(property(&machine, "ActiveState")?[..2] == ["inactive"; 2]);
    machine.reboot()?;

    for unit in &UNITS[..2] {
        machine.wait_until("both services run", INSTALLATION, || {
            Ok((machine.unit_property(unit, "ActiveState")? == "active").then_some(()))
        })?;
        let state = machine.unit_property(unit, "UnitFileState")?;
        ensure!(state == "enabled", "`{unit}` is {state}");
    }
    Ok(())
}

fn an_account_that_was_asked_for_runs_the_services(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    machine
        .run(&["dpkg", "--purge", "buildbot-conda"])?
        .succeeded()?;
    machine
        .shell(
            "mkdir /srv/ci; mv /home/bb/master /srv/ci/master; mv /home/bb/worker /srv/ci/worker
             useradd --system --no-create-home --home-dir /srv/ci ci; chown -R ci:ci /srv/ci
             debconf-set-selections <<'END'
buildbot-conda buildbot-conda/user string ci
buildbot-conda buildbot-conda/master-directory string /srv/ci/master
buildbot-conda buildbot-conda/worker-directory string /srv/ci/worker
END",
        )?
        .succeeded()?;

    let talk = install(&machine)?;

    for unit in &UNITS[..2] {
        machine.wait_until("both services run", INSTALLATION, || {
            Ok((machine.unit_property(unit, "ActiveState")? == "active").then_some(()))
        })?;
        let pid = machine.unit_property(unit, "MainPID")?;
        let owner = machine.run(&["stat", "--format=%U", &format!("/proc/{pid}")])?;
        ensure!(owner.text() == "ci", "`{unit}` belongs to {owner}\n{talk}");
    }
    machine
        .run(&["dpkg", "--purge", "buildbot-conda"])?
        .succeeded()?;
    machine
        .shell("id ci; test -s /srv/ci/master/buildbot.tac")?
        .succeeded()?;
    Ok(())
}
