//! What cannot work ends as `failed`, once, and says why with the path; what is not set up is no failure (`main_job.rs`).

use std::thread;
use std::time::Duration;

use anyhow::ensure;
use buildbot_conda_machine::{
    MASTER, Machine, Outcome, PREFIX, Release, WORKER, fault, on_each_release, set_up,
};

on_each_release! {
    a_missing_environment_is_refused,
    a_prefix_without_conda_meta_is_refused,
    an_environment_with_invalid_state_is_refused,
    a_directory_without_tac_is_refused,
    a_broken_master_configuration_is_refused_in_buildbots_words,
    an_unknown_key_in_the_configuration_is_refused,
    a_missing_user_is_refused,
}

const BOTH: [&str; 2] = ["buildbot-master.service", "buildbot-worker.service"];
const CONFIGURATION: &str = "/etc/buildbot-conda/config.toml";

/// Starts each unit and checks that the start fails, that the unit stays failed, and that its status page or journal
/// contains each of `words`.
fn ensure_refused(machine: &Machine, units: &[&str], words: &[&str]) -> Outcome {
    for unit in units {
        let started = machine.run(&["systemctl", "start", unit])?;
        ensure!(started.status != 0, "`{unit}` starts");
        let told = format!("{}{}", machine.status(unit)?.stdout, machine.journal(unit)?);
        for word in words {
            ensure!(told.contains(word), "nothing about `{word}` in\n{told}");
        }
    }
    // Longer than the units' RestartSec=: one that is going to be restarted has been by then.
    thread::sleep(Duration::from_secs(6));
    for unit in units {
        let state = machine.unit_property(unit, "ActiveState")?;
        let restarts = machine.unit_property(unit, "NRestarts")?;
        ensure!(
            state == "failed" && restarts == "0",
            "`{unit}` is `{state}` after {restarts} restarts"
        );
    }
    Ok(())
}

fn a_missing_environment_is_refused(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    machine
        .run(&["mv", PREFIX, "/root/moved-away"])?
        .succeeded()?;
    ensure_refused(&machine, &BOTH, &[PREFIX])
}

fn a_prefix_without_conda_meta_is_refused(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    machine
        .run(&["rm", "-r", &format!("{PREFIX}/conda-meta")])?
        .succeeded()?;
    ensure_refused(&machine, &BOTH, &[PREFIX, "conda-meta"])
}

fn an_environment_with_invalid_state_is_refused(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    let state = format!("{PREFIX}/conda-meta/state");
    machine.write_file(&state, "{\"env_vars\": ", "0644", "root")?;
    ensure_refused(&machine, &BOTH, &[&state])
}

fn a_directory_without_tac_is_refused(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    for (unit, directory) in BOTH.into_iter().zip([MASTER, WORKER]) {
        machine
            .run(&["rm", &format!("{directory}/buildbot.tac")])?
            .succeeded()?;
        ensure_refused(&machine, &[unit], &["buildbot.tac", directory])?;
    }
    Ok(())
}

fn a_broken_master_configuration_is_refused_in_buildbots_words(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    let path = format!("{MASTER}/master.cfg");
    let good = machine.read_file(&path)?;

    machine.write_file(&path, &format!("{good}c['mistake'] = True\n"), "0600", "bb")?;
    ensure_refused(
        &machine,
        &BOTH[..1],
        &["Unknown BuildmasterConfig key mistake", "master.cfg"],
    )?;

    machine.write_file(
        &path,
        &format!("{good}import no_such_module\n"),
        "0600",
        "bb",
    )?;
    ensure_refused(
        &machine,
        &BOTH[..1],
        &["No module named 'no_such_module'", "master.cfg"],
    )?;

    machine.write_file(&path, &good, "0600", "bb")?;
    machine.run(&["systemctl", "start", BOTH[0]])?.succeeded()?;
    Ok(())
}

fn an_unknown_key_in_the_configuration_is_refused(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    let good = machine.read_file(CONFIGURATION)?;
    let bad = good
        .replace("[master]\n", "[master]\ndirektory = \"/srv\"\n")
        .replace("[worker]\n", "[worker]\ncolour = 3\n");
    machine.write_file(CONFIGURATION, &bad, "0644", "root")?;
    machine.run(&["systemctl", "daemon-reload"])?.succeeded()?;

    ensure_refused(
        &machine,
        &BOTH[..1],
        &[&format!("{CONFIGURATION}:"), "direktory"],
    )?;
    ensure_refused(
        &machine,
        &BOTH[1..],
        &[&format!("{CONFIGURATION}:"), "colour"],
    )
}

fn a_missing_user_is_refused(release: Release) -> Outcome {
    fault("missing-user", release, || refuse_a_missing_user(release))
}

fn refuse_a_missing_user(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    let good = machine.read_file(CONFIGURATION)?;
    let bad = good.replace("user = \"bb\"", "user = \"nobody-here\"");
    ensure!(bad != good, "the configuration names no user:\n{good}");
    machine.write_file(CONFIGURATION, &bad, "0644", "root")?;
    machine.run(&["systemctl", "daemon-reload"])?.succeeded()?;
    ensure_refused(&machine, &BOTH, &["217/USER"])?;
    // systemd's child says why, and is often gone before journald finds out which unit it belonged to.
    let journal = machine
        .run(&["journalctl", "--no-pager", "--boot"])?
        .succeeded()?;
    for unit in BOTH {
        let reason = format!("{unit}: Failed to determine user credentials");
        ensure!(
            journal.stdout.contains(&reason),
            "no reason for `{unit}` in\n{journal}"
        );
    }
    Ok(())
}
