//! Permanent errors make a unit `failed` at once and report the reason with the path; an instance that is not set up is
//! not a failure (`main_job.rs`).

use anyhow::ensure;
use buildbot_conda_machine::{
    CONFIGURATION, MASTER, MASTER_UNIT, Machine, Outcome, PREFIX, Release, Scenarios, WORKER,
    WORKER_UNIT, fault, on_each_release, set_up,
};

on_each_release! { what_cannot_work_is_refused_once_with_its_reason }

const BOTH: [&str; 2] = [MASTER_UNIT, WORKER_UNIT];

/// Starts each unit and checks that the start fails, that the unit stays failed, and that its status page or the new
/// entries of its journal contain each of `words`.
fn ensure_refused(machine: &Machine, units: &[&str], words: &[&str]) -> Outcome {
    for unit in units {
        let before = machine.journal_cursor()?;
        let started = machine.run(&["systemctl", "start", unit])?;
        ensure!(started.status != 0, "`{unit}` starts");
        // A unit that waits for its next start is `activating`.
        let state = machine.unit_property(unit, "ActiveState")?;
        let restarts = machine.unit_property(unit, "NRestarts")?;
        ensure!(
            state == "failed" && restarts == "0",
            "`{unit}` is `{state}` after {restarts} restarts"
        );
        let journal = machine.journal_after(unit, &before)?;
        let output = format!("{}{journal}", machine.status(unit)?.stdout);
        for word in words {
            ensure!(output.contains(word), "nothing about `{word}` in\n{output}");
        }
    }
    Ok(())
}

/// One machine for all of it: each scenario finds it as the package and Buildbot's own commands have left it.
fn what_cannot_work_is_refused_once_with_its_reason(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    let names = [
        CONFIGURATION,
        MASTER,
        WORKER,
        &format!("{PREFIX}/conda-meta"),
    ];
    let names = names.map(|name| name.trim_start_matches('/')).join(" ");
    machine
        .shell(&format!("tar -C / -cpf /root/kept.tar {names}"))?
        .succeeded()?;
    let restore = || {
        machine
            .shell(&format!(
                "systemctl stop {MASTER_UNIT} {WORKER_UNIT}; systemctl reset-failed
                 cd /; rm -rf {names}; tar -xpf /root/kept.tar; systemctl daemon-reload"
            ))?
            .succeeded()?;
        Ok(())
    };
    let mut scenarios = Scenarios::new(restore);

    scenarios.run("missing environment", || {
        machine
            .run(&["mv", PREFIX, "/root/moved-away"])?
            .succeeded()?;
        let refused = ensure_refused(&machine, &BOTH, &[PREFIX]);
        machine
            .run(&["mv", "/root/moved-away", PREFIX])?
            .succeeded()?;
        refused
    });
    scenarios.run("prefix without conda-meta", || {
        machine
            .run(&["rm", "-r", &format!("{PREFIX}/conda-meta")])?
            .succeeded()?;
        ensure_refused(&machine, &BOTH, &[PREFIX, "conda-meta"])
    });
    scenarios.run("invalid state of the environment", || {
        let state = format!("{PREFIX}/conda-meta/state");
        machine.write_file(&state, "{\"env_vars\": ", "0644", "root")?;
        ensure_refused(&machine, &BOTH, &[&state])
    });
    scenarios.run("directory without tac", || {
        for (unit, directory) in BOTH.into_iter().zip([MASTER, WORKER]) {
            machine
                .run(&["rm", &format!("{directory}/buildbot.tac")])?
                .succeeded()?;
            ensure_refused(&machine, &[unit], &["buildbot.tac", directory])?;
        }
        Ok(())
    });
    scenarios.run("broken master configuration", || {
        refuse_broken_configurations(&machine)
    });
    scenarios.run("unknown key", || refuse_unknown_keys(&machine));
    scenarios.run("missing user", || {
        fault("missing-user", release, || refuse_a_missing_user(&machine))
    });
    scenarios.finish()
}

/// In Buildbot's words; and the good one is taken afterwards.
fn refuse_broken_configurations(machine: &Machine) -> Outcome {
    let path = format!("{MASTER}/master.cfg");
    let good = machine.read_file(&path)?;
    for (line, reason) in [
        (
            "c['mistake'] = True",
            "Unknown BuildmasterConfig key mistake",
        ),
        ("import no_such_module", "No module named 'no_such_module'"),
    ] {
        machine.write_file(&path, &format!("{good}{line}\n"), "0600", "bb")?;
        ensure_refused(machine, &BOTH[..1], &[reason, "master.cfg"])?;
    }
    machine.write_file(&path, &good, "0600", "bb")?;
    machine.run(&["systemctl", "start", BOTH[0]])?.succeeded()?;
    Ok(())
}

fn refuse_unknown_keys(machine: &Machine) -> Outcome {
    let good = machine.read_file(CONFIGURATION)?;
    let bad = good
        .replace("[master]\n", "[master]\ndirektory = \"/srv\"\n")
        .replace("[worker]\n", "[worker]\ncolour = 3\n");
    machine.write_file(CONFIGURATION, &bad, "0644", "root")?;
    machine.run(&["systemctl", "daemon-reload"])?.succeeded()?;

    let place = format!("{CONFIGURATION}:");
    ensure_refused(machine, &BOTH[..1], &[&place, "direktory"])?;
    ensure_refused(machine, &BOTH[1..], &[&place, "colour"])
}

fn refuse_a_missing_user(machine: &Machine) -> Outcome {
    let good = machine.read_file(CONFIGURATION)?;
    let bad = good.replace("user = \"bb\"", "user = \"nobody-here\"");
    ensure!(bad != good, "the configuration names no user:\n{good}");
    machine.write_file(CONFIGURATION, &bad, "0644", "root")?;
    machine.run(&["systemctl", "daemon-reload"])?.succeeded()?;
    for unit in BOTH {
        let started = machine.run(&["systemctl", "start", unit])?;
        ensure!(started.status != 0, "`{unit}` starts");
    }
    let listed = machine.shell("buildbot-conda list --json")?;
    let reason = "account `nobody-here` not found";
    ensure!(listed.stdout.matches(reason).count() == 2, "{listed}");
    // As when a directory service answers at last: the next attempt comes as far as the launcher.
    machine.shell("useradd nobody-here")?.succeeded()?;
    for unit in BOTH {
        machine
            .shell(&format!(
                "for i in $(seq 300); do
                     [ \"$(systemctl show --property=ExecMainStatus --value {unit})\" = 217 ] || exit 0; sleep 0.1
                 done; systemctl status {unit}; exit 1"
            ))?
            .succeeded()?;
    }
    Ok(())
}
