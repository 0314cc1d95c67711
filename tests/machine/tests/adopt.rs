//! Hosts that were set up by hand, taken over and restored, on a booted machine with real builds.

use std::time::Duration;

use anyhow::ensure;
use buildbot_conda_machine::{
    HeldBuilds, MASTER, MASTER_UNIT, Machine, Outcome, PREFIX, Release, Rest, Unit, WORKER_UNIT,
    held_configuration, on_each_release, set_up,
};

on_each_release! {
    a_forking_master_and_a_worker_of_another_name_are_adopted_without_a_lost_build_and_given_back,
    a_master_outside_of_its_unit_is_adopted_without_a_lost_build_and_one_without_a_unit_is_named,
    an_adoption_whose_start_fails_leaves_the_old_units_running,
}

/// From the start of a unit to the worker's connection on a busy machine.
const ATTACHED: Duration = Duration::from_mins(1);

/// The hand-made unit of the worker on a host with other names.
const OTHER_NAME: &str = "buildslave.service";

/// As in a typical blog post: a unit each, and a script each that activates and starts.
fn by_hand(release: Release) -> anyhow::Result<Machine> {
    by_hand_with(release, &[])
}

/// The same with other units than those, by their file names.
fn by_hand_with(release: Release, others: &[(&str, String)]) -> anyhow::Result<Machine> {
    let machine = Machine::boot(set_up(release)?)?;
    machine.write_file(
        &format!("{MASTER}/master.cfg"),
        &held_configuration(5),
        "0600",
        "bb",
    )?;
    // What `source activate` does as far as Buildbot is concerned; the environments of these machines have no conda.
    let activate =
        r"prefix=/home/bb/anaconda3/envs/$1; export CONDA_PREFIX=$prefix PATH=$prefix/bin:$PATH";
    machine.write_file("/home/bb/anaconda3/bin/activate", activate, "0755", "root")?;
    let mut units = Vec::new();
    for (role, name, program) in [
        ("master", MASTER_UNIT, "buildbot"),
        ("worker", WORKER_UNIT, "buildbot-worker"),
    ] {
        let script = format!(
            "#!/bin/bash\nsource /home/bb/anaconda3/bin/activate buildbot\n{program} start --nodaemon {role}\n"
        );
        machine.write_file(&format!("/home/bb/start-{role}.sh"), &script, "0755", "bb")?;
        let unit = format!(
            "[Unit]\nDescription=Buildbot {role} by hand\n[Service]\nUser=bb\nWorkingDirectory=/home/bb\n\
             Environment=BY_HAND=yes\nExecStart=/home/bb/start-{role}.sh\n[Install]\nWantedBy=multi-user.target\n"
        );
        units.push((name, unit));
    }
    if !others.is_empty() {
        units = others.to_vec();
    }
    for (name, unit) in &units {
        let path = format!("/etc/systemd/system/{name}");
        machine.write_file(&path, unit, "0644", "root")?;
    }
    machine.run(&["systemctl", "daemon-reload"])?.succeeded()?;
    for (name, _) in &units {
        machine
            .run(&["systemctl", "enable", "--now", name])?
            .succeeded()?;
    }
    Rest::new(&machine).wait_for_worker("example", ATTACHED)?;
    Ok(machine)
}

/// Everything below `/etc` that affects what runs, with contents.
fn settings(machine: &Machine) -> anyhow::Result<String> {
    let script = "cd /etc; find systemd/system buildbot-conda ! -type d | sort | while read -r path; do \
                  stat -c '%n %F %a %U %N' \"$path\"; test -L \"$path\" || sha256sum \"$path\"; done";
    Ok(machine.shell(script)?.succeeded()?.stdout)
}

fn fragment(machine: &Machine, unit: &str) -> anyhow::Result<String> {
    machine.unit_property(unit, "FragmentPath")
}

/// A master that `buildbot start` runs as a daemon, whose command line does not name Buildbot, and a worker whose unit
/// has another name.
fn a_forking_master_and_a_worker_of_another_name_are_adopted_without_a_lost_build_and_given_back(
    release: Release,
) -> Outcome {
    let master = format!(
        "[Unit]\nDescription=Buildbot by hand\n[Service]\nType=forking\nUser=bb\nWorkingDirectory={MASTER}\n\
         PIDFile={MASTER}/twistd.pid\nTimeoutStartSec=3min\nEnvironment=BY_HAND=yes\n\
         ExecStart={PREFIX}/bin/buildbot start --start_timeout=120 {MASTER}\n\
         ExecStop={PREFIX}/bin/buildbot stop {MASTER}\n[Install]\nWantedBy=multi-user.target\n"
    );
    let worker = "[Service]\nUser=bb\nWorkingDirectory=/home/bb\nEnvironment=BY_HAND=yes\n\
                  ExecStart=/bin/bash -lc 'exec /home/bb/start-worker.sh'\n[Install]\nWantedBy=multi-user.target\n";
    let units = [(MASTER_UNIT, master), (OTHER_NAME, worker.to_owned())];
    let machine = by_hand_with(release, &units)?;
    let before = settings(&machine)?;
    let builds = HeldBuilds::start(&machine, 5)?;

    let plan = machine
        .run(&["buildbot-conda", "adopt", "--dry-run"])?
        .succeeded()?;
    ensure!(settings(&machine)? == before, "a dry run changes something");
    let talk = machine.run(&["buildbot-conda", "adopt"])?.succeeded()?;
    // What was announced is what was done, line by line.
    for line in plan.stdout.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        ensure!(talk.stderr.contains(line), "`{line}` is not in {talk}");
    }

    for (unit, role) in [(MASTER_UNIT, "master"), (WORKER_UNIT, "worker")] {
        let path = fragment(&machine, unit)?;
        // Bookworm names it by its link `/lib`.
        ensure!(
            path.ends_with(&format!("/lib/systemd/system/{unit}")) && !path.starts_with("/etc"),
            "{path}"
        );
        ensure!(Unit::named(&machine, unit).property("ActiveState")? == "active");
        ensure!(Unit::named(&machine, unit).property("UnitFileState")? == "enabled");
        let pid = Unit::named(&machine, unit).main_pid()?;
        let executable = machine
            .run(&["readlink", &format!("/proc/{pid}/exe")])?
            .succeeded()?;
        ensure!(
            executable.text().starts_with(PREFIX),
            "{role}: {executable}"
        );
    }
    let rest = Rest::new(&machine);
    rest.wait_for_worker("example", ATTACHED)?;
    builds.ensure_retried()?;
    let build = rest.wait_for_build(rest.force("example", &[])?, ATTACHED)?;
    ensure!(build.results == 0, "{build:?}");
    ensure!(
        rest.log(&build, "environment")?.contains("BY_HAND=yes"),
        "the variable of the old unit is gone"
    );

    let talk = machine
        .run(&["buildbot-conda", "adopt", "--undo"])?
        .succeeded()?;
    ensure!(settings(&machine)? == before, "{talk}");
    for unit in [MASTER_UNIT, OTHER_NAME] {
        let path = fragment(&machine, unit)?;
        ensure!(path == format!("/etc/systemd/system/{unit}"), "{path}");
        ensure!(Unit::named(&machine, unit).property("ActiveState")? == "active");
    }
    rest.wait_for_worker("example", ATTACHED)?;
    let left = machine.shell("ls /var/backups")?.succeeded()?;
    ensure!(!left.stdout.contains("buildbot"), "{left}");
    Ok(())
}

/// A unit of root's whose `su` ends in a scope of its own, as PAM makes one for each session.
fn a_master_outside_of_its_unit_is_adopted_without_a_lost_build_and_one_without_a_unit_is_named(
    release: Release,
) -> Outcome {
    let start = format!("{PREFIX}/bin/buildbot start --start_timeout=120 {MASTER}");
    let session =
        |command: &str| format!("/usr/bin/systemd-run --quiet --scope -- su - bb -c '{command}'");
    let master = format!(
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart={}\n\
         ExecStop=/bin/su - bb -c '{PREFIX}/bin/buildbot stop {MASTER}'\n[Install]\nWantedBy=multi-user.target\n",
        session(&start)
    );
    let worker = "[Service]\nUser=bb\nWorkingDirectory=/home/bb\nExecStart=/home/bb/start-worker.sh\n\
                  [Install]\nWantedBy=multi-user.target\n";
    let units = [(MASTER_UNIT, master), (WORKER_UNIT, worker.to_owned())];
    let machine = by_hand_with(release, &units)?;
    let before = settings(&machine)?;
    let pid = format!("cat {MASTER}/twistd.pid");
    let old = machine.shell(&pid)?.succeeded()?.text().to_owned();
    let group = machine.shell(&format!("cat /proc/{old}/cgroup"))?;
    ensure!(group.text().contains(".scope"), "{group}");
    let builds = HeldBuilds::start(&machine, 5)?;

    let talk = machine.run(&["buildbot-conda", "adopt"])?.succeeded()?;
    ensure!(
        talk.stderr
            .contains("which runs outside of `buildbot-master.service`")
            && talk.stderr.contains(&format!("the process {old}")),
        "{talk}"
    );
    let gone = machine.run(&["test", "-e", &format!("/proc/{old}")])?;
    ensure!(gone.status == 1, "the process {old} still runs");
    let unit = Unit::named(&machine, MASTER_UNIT);
    ensure!(unit.property("ActiveState")? == "active" && unit.property("User")? == "bb");
    Rest::new(&machine).wait_for_worker("example", ATTACHED)?;
    builds.ensure_retried()?;

    machine
        .run(&["buildbot-conda", "adopt", "--undo"])?
        .succeeded()?;
    ensure!(settings(&machine)? == before);
    Rest::new(&machine).wait_for_worker("example", ATTACHED)?;

    // A unit that has lost it does not stop it, and one that does not run is not its own.
    let lost = format!("systemctl stop {MASTER_UNIT} && {}", session(&start));
    machine
        .run_within(ATTACHED * 3, &["sh", "-c", &lost])?
        .succeeded()?;
    let before = machine.shell(&pid)?.text().to_owned();
    let talk = machine.run(&["buildbot-conda", "adopt"])?;
    let expected = format!("(process {before} of `bb` in `run-");
    ensure!(
        talk.status == 1
            && talk.stderr.contains(&expected)
            && talk.stderr.contains("is running, but"),
        "{talk}"
    );
    let remove = format!(
        "systemctl disable --now {WORKER_UNIT} {MASTER_UNIT}; rm /etc/systemd/system/buildbot-*.service"
    );
    machine.shell(&remove)?.succeeded()?;
    machine.run(&["systemctl", "daemon-reload"])?.succeeded()?;
    let talk = machine.run(&["buildbot-conda", "adopt"])?.succeeded()?;
    ensure!(
        talk.stderr.contains("nothing to adopt") && talk.stderr.contains(&expected),
        "{talk}"
    );
    ensure!(machine.shell(&pid)?.text() == before);
    Ok(())
}

fn an_adoption_whose_start_fails_leaves_the_old_units_running(release: Release) -> Outcome {
    let machine = by_hand(release)?;
    let before = settings(&machine)?;
    // The launcher refuses such an environment, which the scripts never look at.
    machine.write_file(&format!("{PREFIX}/conda-meta/state"), "{", "0644", "root")?;

    let talk = machine.run(&["buildbot-conda", "adopt"])?;

    ensure!(talk.status == 1, "{talk}");
    ensure!(
        talk.stderr
            .contains("error: `buildbot-master.service` failed to start")
            && talk.stderr.contains("all changes were rolled back"),
        "{talk}"
    );
    ensure!(settings(&machine)? == before, "{talk}");
    for unit in [MASTER_UNIT, WORKER_UNIT] {
        let path = fragment(&machine, unit)?;
        ensure!(path == format!("/etc/systemd/system/{unit}"), "{path}");
    }
    let rest = Rest::new(&machine);
    rest.wait_for_worker("example", ATTACHED)?;
    let build = rest.wait_for_build(rest.force("example", &[])?, ATTACHED)?;
    ensure!(build.results == 0, "{build:?}");
    let left = machine.shell("ls /var/backups /var/lib/buildbot-conda")?;
    ensure!(
        !left.stdout.contains("unfinished")
            && !left.stdout.lines().any(|line| line == "buildbot-conda"),
        "{left}"
    );
    Ok(())
}
