//! The content of the master's journal, and commands that must not touch the directory of a running master.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use buildbot_conda_machine::{
    MASTER, Machine, Outcome, PREFIX, Release, Rest, Unit, fault, lever_configuration,
    on_each_release, pull_lever, set_up,
};
use serde_json::Value;

on_each_release! {
    the_journal_keeps_levels_and_says_everything_once,
    what_would_disturb_a_running_master_is_refused,
}

/// Enough for what happens at once, on a busy machine.
const MINUTE: Duration = Duration::from_mins(1);

/// The entries of the master's journal that are errors or worse, as journalctl's JSON.
fn errors(machine: &Machine) -> Result<Vec<Value>> {
    machine.run(&["journalctl", "--sync"])?.succeeded()?;
    let words = [
        "journalctl",
        "--unit=buildbot-master",
        "--priority=err",
        "--output=json",
        "--all",
    ];
    let output = machine.run(&words)?.succeeded()?;
    let entries = output
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).context("read an entry"));
    entries.collect()
}

fn the_journal_keeps_levels_and_says_everything_once(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    let master = Unit::master(&machine);
    let log = format!("{MASTER}/twistd.log");
    let path = format!("{MASTER}/master.cfg");
    machine.write_file(&path, &lever_configuration(), "0600", "bb")?;
    master.succeed("start")?;

    fault("log-levels", release, || {
        ensure!(errors(&machine)?.is_empty(), "a good start has errors");
        let fail = "from twisted.python import log, failure\n\
                    def inner():\n    raise ValueError('something of ours')\n\
                    try:\n    inner()\nexcept ValueError:\n    log.err(failure.Failure(), 'while testing')\n\
                    log.msg('only information')\n";
        pull_lever(&machine, fail)?;
        let entries = machine.wait_until("the error is there", MINUTE, || {
            let entries = errors(&machine)?;
            Ok((!entries.is_empty()).then_some(entries))
        })?;
        ensure!(entries.len() == 1, "{entries:?}");
        let message = entries[0]["MESSAGE"]
            .as_str()
            .context("the message is text")?;
        for part in [
            "while testing",
            "Traceback",
            "in inner",
            "something of ours",
        ] {
            ensure!(message.contains(part), "no `{part}` in `{message}`");
        }
        Ok(())
    })?;
    fault("log-once", release, || {
        pull_lever(
            &machine,
            "from twisted.python import log\nlog.msg('said %s' % 'once')\n",
        )?;
        machine.wait_until("it is said", MINUTE, || {
            Ok(master.journal()?.contains("said once").then_some(()))
        })?;
        let journal = master.journal()?;
        for line in ["said once", "BuildMaster is running"] {
            ensure!(
                journal.matches(line).count() == 1,
                "`{line}` is there twice:\n{journal}"
            );
        }
        ensure!(
            machine.run(&["test", "-s", &log])?.status == 1,
            "`{log}` is written"
        );
        machine
            .shell("buildbot-conda set master log both; systemctl daemon-reload")?
            .succeeded()?;
        master.succeed("restart")?;
        // It comes right after the line in the journal, at which the start ends.
        let file = machine.wait_until("it is in the file", MINUTE, || {
            let file = machine.read_file(&log)?;
            Ok(file.contains("BuildMaster is running").then_some(file))
        })?;
        ensure!(
            file.matches("BuildMaster is running").count() == 1,
            "{file}"
        );
        let journal = master.journal()?;
        ensure!(
            journal.matches("BuildMaster is running").count() == 2,
            "{journal}"
        );
        Ok(())
    })
}

fn what_would_disturb_a_running_master_is_refused(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    let master = Unit::master(&machine);
    master.succeed("start")?;
    let pid = master.main_pid()?;

    fault("second-start", release, || {
        let holder = format!("already in use by PID {pid}");
        let python = format!("{PREFIX}/bin/python");
        let runner = "/usr/libexec/buildbot-conda/runner.py";
        let second = machine.run_as("bb", &[&python, runner, "master", MASTER])?;
        ensure!(
            second.status == 69 && second.to_string().contains(&holder),
            "{second}"
        );
        machine
            .shell(&format!(
                "ln -s {MASTER} /home/bb/other
                 printf '[\"master@second\"]\\ndirectory = \"/home/bb/other\"\\n' >>/etc/buildbot-conda/config.toml
                 systemctl daemon-reload"
            ))?
            .succeeded()?;
        let named = Unit::named(&machine, "buildbot-master@second.service");
        named.fail("start")?;
        named.wait_for_status_text(&holder)?;
        named.succeed("stop")
    })?;
    for (row, verb) in [
        ("upstream-upgrade-beside", "upgrade-master"),
        ("upstream-cleanup-beside", "cleanupdb"),
    ] {
        fault(row, release, || {
            let program = format!("{PREFIX}/bin/buildbot");
            let refused = machine.run_as("bb", &[&program, verb, MASTER])?;
            ensure!(
                refused.status != 0 && refused.to_string().contains("running"),
                "{refused}"
            );
            Ok(())
        })?;
    }
    ensure!(Rest::new(&machine).answers());
    ensure!(master.main_pid()? == pid);
    Ok(())
}
