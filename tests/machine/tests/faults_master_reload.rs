//! A reload of the master has happened when the command succeeds, and has changed nothing when it fails.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use buildbot_conda_machine::{
    HeldBuilds, MASTER, Machine, Outcome, PREFIX, Release, Rest, SOON, Unit, fault,
    held_configuration, master_configuration, on_each_release, set_up,
};
use serde_json::Value;

on_each_release! {
    a_reload_is_in_effect_or_has_failed,
    a_reload_during_a_start_or_a_stop_waits_or_fails,
    a_hundred_reconfigurations_leave_no_trace,
}

const CONFIGURATION: &str = "/home/bb/master/master.cfg";
const STATUS_FILE: &str = "/run/buildbot-conda/master/status.json";

/// A valid configuration that can be distinguished from others by its additional builder.
fn marked(builder: &str) -> String {
    let good = master_configuration();
    format!(
        "{good}
c['builders'].append(util.BuilderConfig(name='{builder}', workernames=['example'], factory=tell))
c['schedulers'].append(schedulers.ForceScheduler(name='one-more', builderNames=['{builder}']))
"
    )
}

fn configure(machine: &Machine, text: &str) -> Outcome {
    machine.write_file(&format!("{CONFIGURATION}.new"), text, "0600", "bb")?;
    machine
        .shell(&format!("mv {CONFIGURATION}.new {CONFIGURATION}"))?
        .succeeded()?;
    Ok(())
}

/// Whether the running configuration has a builder.
fn has(machine: &Machine, builder: &str) -> Result<bool> {
    let found = Rest::new(machine).get(&format!(
        "builders?name={builder}&field=name&field=masterids"
    ))?;
    let masters = found["builders"][0]["masterids"].as_array();
    Ok(masters.is_some_and(|masters| !masters.is_empty()))
}

/// A field of the last reconfiguration in the status file.
fn reconfiguration(machine: &Machine, field: &str) -> Result<Value> {
    let text = machine.read_file(STATUS_FILE)?;
    let status: Value = serde_json::from_str(&text).with_context(|| format!("read {text}"))?;
    Ok(status["reconfiguration"][field].clone())
}

fn reload_with_other_directories(machine: &Machine, master: &Unit<'_>) -> Outcome {
    let text = "[Service]\nRuntimeDirectory=another\nStateDirectory=another\n";
    let drop_in = "/etc/systemd/system/buildbot-master.service.d/another.conf";
    machine.write_file(drop_in, text, "0644", "root")?;
    machine.shell("systemctl daemon-reload")?.succeeded()?;
    master.succeed("restart")?;
    configure(machine, &marked("other"))?;
    master.succeed("reload")?;
    ensure!(has(machine, "other")?);
    machine
        .shell(&format!(
            "rm {drop_in}; systemctl daemon-reload; ! test -e /run/another/status.json"
        ))?
        .succeeded()?;
    configure(machine, &marked("first"))?;
    master.succeed("restart")
}

fn a_reload_is_in_effect_or_has_failed(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    let master = Unit::master(&machine);
    master.succeed("start")?;

    fault("reload-good", release, || {
        configure(&machine, &marked("first"))?;
        master.succeed("reload")?;
        // Asked once, without any waiting.
        ensure!(has(&machine, "first")?);
        let text = master.status_text()?;
        ensure!(text.contains("configuration update complete"), "`{text}`");
        Ok(())
    })?;
    fault("reload-other-directories", release, || {
        reload_with_other_directories(&machine, &master)
    })?;
    fault("reload-full-run", release, || {
        ensure_a_full_run_keeps_no_answer(&machine, &master)
    })?;
    let pid = master.main_pid()?;
    fault("reload-broken", release, || {
        for (mistake, words) in [
            (
                "c['mistake'] = True\n",
                "Unknown BuildmasterConfig key mistake",
            ),
            (
                "import no_such_module\n",
                "No module named 'no_such_module'",
            ),
            ("raise SystemExit\n", "SystemExit"),
            ("import os; os._exit(0)\n", "rejects the new configuration"),
        ] {
            configure(&machine, &format!("{}{mistake}", marked("broken")))?;
            master.fail("reload")?;
            let journal = master.journal()?;
            ensure!(journal.contains(words), "no `{words}` in\n{journal}");
            ensure!(has(&machine, "first")? && !has(&machine, "broken")?);
            ensure!(master.property("ActiveState")? == "active");
        }
        // Past the check: what is broken only in the running master.
        let only_there = "import sys\nif sys.argv[0] == 'twistd':\n    c['mistake'] = True\n";
        configure(&machine, &format!("{}{only_there}", marked("broken")))?;
        master.fail("reload")?;
        let text = master.status_text()?;
        ensure!(
            text.contains("Unknown BuildmasterConfig key mistake"),
            "`{text}`"
        );
        ensure!(!has(&machine, "broken")?);
        Ok(())
    })?;
    fault("reload-partial", release, || apply_in_part(&machine))?;
    fault("hup-by-hand", release, || {
        configure(&machine, &marked("fifth"))?;
        let before = reconfiguration(&machine, "number")?;
        master.kill("HUP")?;
        machine.wait_until("Buildbot has read it", Duration::from_mins(1), || {
            let ended = reconfiguration(&machine, "outcome")? == "complete";
            Ok((ended && reconfiguration(&machine, "number")? != before).then_some(()))
        })?;
        ensure!(has(&machine, "fifth")?);
        Ok(())
    })?;
    fault("reload-twice", release, || {
        two_reloads(
            &machine,
            &marked("sixth"),
            &marked("seventh"),
            "seventh",
            "0 0",
        )?;
        // The second one replaces the first one before that is read, or comes after it.
        let broken = format!("{}c['mistake'] = True\n", marked("ninth"));
        two_reloads(
            &machine,
            &marked("eighth"),
            &broken,
            "seventh eighth",
            "1 1 0 1",
        )?;
        ensure!(!has(&machine, "ninth")?);
        configure(&machine, &marked("tenth"))?;
        // Through systemd, and without it.
        let both = machine.shell(
            "systemctl reload buildbot-master & first=$!; buildbot-conda service reload master & second=$!
             a=0; wait $first || a=$?; b=0; wait $second || b=$?; echo $a $b",
        )?;
        ensure!(both.text() == "0 0", "{both}");
        ensure!(has(&machine, "tenth")?);
        Ok(())
    })?;
    ensure!(master.main_pid()? == pid && master.property("NRestarts")? == "0");
    Ok(())
}

/// A port that another process uses is only detected when the configuration is applied.
fn apply_in_part(machine: &Machine) -> Outcome {
    let master = Unit::master(machine);
    let listener = format!(
            "systemd-run --quiet --collect --unit=listener {PREFIX}/bin/python -m http.server --bind 127.0.0.1 8011
             until {PREFIX}/bin/python -c 'import socket; socket.create_connection((\"127.0.0.1\", 8011))' 2>/dev/null
             do sleep 0.2; done"
        );
    machine.shell(&listener)?.succeeded()?;
    configure(machine, &marked("third").replace("tcp:8010:", "tcp:8011:"))?;
    master.fail("reload")?;
    let text = master.status_text()?;
    ensure!(text.contains("partly") && text.contains("8011"), "`{text}`");
    let journal = master.journal()?;
    ensure!(journal.contains("only partly in effect"), "{journal}");
    machine.shell("systemctl stop listener")?.succeeded()?;
    configure(machine, &marked("fourth"))?;
    master.succeed("reload")?;
    ensure!(has(machine, "fourth")?);
    Ok(())
}

/// Reloads with `first`, and with `second` during that; then one of the builders `expected` exists, and the two
/// commands have finished with one of the pairs in `statuses`.
fn two_reloads(
    machine: &Machine,
    first: &str,
    second: &str,
    expected: &str,
    statuses: &str,
) -> Outcome {
    configure(machine, first)?;
    machine.write_file(&format!("{CONFIGURATION}.second"), second, "0600", "bb")?;
    let both = machine.shell(&format!(
        "systemctl reload buildbot-master & first=$!
         sleep 0.3; mv {CONFIGURATION}.second {CONFIGURATION}
         systemctl reload buildbot-master & second=$!
         a=0; wait $first || a=$?; b=0; wait $second || b=$?; echo $a $b"
    ))?;
    let pair = both
        .text()
        .split_whitespace()
        .map(|status| if status == "0" { "0" } else { "1" });
    let pair = pair.collect::<Vec<_>>().join(" ");
    let allowed = statuses.split_whitespace().collect::<Vec<_>>();
    ensure!(
        allowed.chunks(2).any(|allowed| allowed.join(" ") == pair),
        "{both}"
    );
    let mut there = false;
    for builder in expected.split_whitespace() {
        there |= has(machine, builder)?;
    }
    ensure!(there, "none of `{expected}` is there: {both}");
    Ok(())
}

/// The answer is written elsewhere, and to its usual place as soon as there is space.
fn ensure_a_full_run_keeps_no_answer(machine: &Machine, master: &Unit<'_>) -> Outcome {
    let fill = "mount -o remount,size=$(df --output=used -k /run | tail -n 1 | tr -d ' ')k /run
                cat /dev/zero >/run/filler 2>/dev/null || :; ! echo full >/run/probe";
    machine.shell(fill)?.succeeded()?;
    let number = reconfiguration(machine, "number")?;
    configure(machine, &marked("full"))?;
    let begun = Instant::now();
    master.succeed("reload")?;
    ensure!(
        begun.elapsed() < Duration::from_mins(1),
        "it took {:?}",
        begun.elapsed()
    );
    ensure!(has(machine, "full")?);
    ensure!(
        reconfiguration(machine, "number")? == number,
        "`/run` is not full"
    );
    let status = machine
        .run(&["buildbot-conda", "status", "master"])?
        .succeeded()?;
    ensure!(
        status.stdout.contains("configuration update complete"),
        "{status}"
    );
    machine
        .shell("rm /run/filler /run/probe; mount -o remount,size=20% /run")?
        .succeeded()?;
    machine.wait_until("the status is written", SOON, || {
        Ok((reconfiguration(machine, "number")? != number).then_some(()))
    })?;
    configure(machine, &marked("first"))?;
    master.succeed("reload")
}

fn a_reload_during_a_start_or_a_stop_waits_or_fails(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    let master = Unit::master(&machine);
    let gate = format!("{MASTER}/gate");
    let waiting =
        format!("import os, time\nwhile not os.path.exists('{gate}'):\n    time.sleep(0.1)\n");

    fault("reload-during-start", release, || {
        configure(&machine, &format!("{}{waiting}", master_configuration()))?;
        machine
            .shell("systemctl start --no-block buildbot-master")?
            .succeeded()?;
        master.wait_for_status_text("reading master.cfg")?;
        // What is read already is the old text.
        configure(&machine, &marked("new"))?;
        let reload = machine.shell(&format!(
            "systemctl reload buildbot-master & reload=$!; sleep 1; kill -0 $reload; touch {gate}; wait $reload"
        ))?;
        reload.succeeded()?;
        ensure!(has(&machine, "new")?, "{}", master.journal()?);
        ensure!(master.property("NRestarts")? == "0");
        Ok(())
    })?;
    fault("stop-during-start", release, || {
        master.succeed("stop")?;
        machine.shell(&format!("rm {gate}"))?.succeeded()?;
        configure(&machine, &format!("{}{waiting}", master_configuration()))?;
        machine
            .shell("systemctl start --no-block buildbot-master")?
            .succeeded()?;
        master.wait_for_status_text("reading master.cfg")?;
        let begun = std::time::Instant::now();
        master.succeed("stop")?;
        ensure!(
            begun.elapsed() < Duration::from_secs(20),
            "{:?}",
            begun.elapsed()
        );
        let end = (master.property("ActiveState")?, master.property("Result")?);
        ensure!(
            end == ("inactive".to_owned(), "success".to_owned()),
            "{end:?}"
        );
        Ok(())
    })?;
    fault("reload-during-stop", release, || {
        configure(&machine, &held_configuration(1))?;
        machine
            .shell("buildbot-conda set master drain 2min; systemctl daemon-reload")?
            .succeeded()?;
        master.succeed("start")?;
        Unit::worker(&machine).succeed("start")?;
        Rest::new(&machine).wait_for_worker("example", Duration::from_mins(1))?;
        let builds = HeldBuilds::start(&machine, 1)?;
        machine
            .shell("systemctl stop --no-block buildbot-master")?
            .succeeded()?;
        master.wait_for_status_text("finishing 1 running build")?;
        master.fail("reload")?;
        ensure!(master.property("ActiveState")? == "deactivating");
        builds.release(0)?;
        master.wait_for_state("inactive")?;
        master.succeed("start")?;
        ensure!(builds.wait_for(0)?.len() == 1);
        Ok(())
    })?;
    fault("clean-shutdown-by-hand", release, || {
        Rest::new(&machine).wait_for_worker("example", Duration::from_mins(1))?;
        let builds = HeldBuilds::start(&machine, 1)?;
        master.kill("USR1")?;
        master.wait_for_status_text("finishing 1 running build")?;
        builds.release(0)?;
        master.wait_for_state("inactive")?;
        ensure!(master.property("Result")? == "success");
        master.succeed("start")?;
        ensure!(builds.wait_for(0)?.len() == 1);
        Ok(())
    })
}

fn a_hundred_reconfigurations_leave_no_trace(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    let master = Unit::master(&machine);
    master.succeed("start")?;

    fault("many-reloads", release, || {
        // The first ones bring in what is imported late.
        hang_up(&machine, 20)?;
        let before = resident(&machine)?;
        configure(&machine, &marked("last"))?;
        hang_up(&machine, 100)?;
        let after = resident(&machine)?;
        ensure!(has(&machine, "last")?);
        ensure!(
            after < before + before / 4,
            "{before} KiB, {after} KiB after 100"
        );
        master.succeed("reload")
    })
}

/// Sends HUP so many times, each after the last one has been answered.
fn hang_up(machine: &Machine, times: u32) -> Outcome {
    let script = format!(
        r#"pid=$(systemctl show --value --property MainPID buildbot-master)
        number() {{ sed -n 's/.*"number": \([0-9]*\), "outcome": "complete".*/\1/p' {STATUS_FILE}; }}
        for i in $(seq {times}); do
            before=$(number)
            kill -HUP $pid
            until [ -n "$(number)" ] && [ "$(number)" != "$before" ]; do sleep 0.05; done
        done"#
    );
    machine.shell(&script)?.succeeded()?;
    Ok(())
}

/// KiB of the main process.
fn resident(machine: &Machine) -> Result<u64> {
    let pid = Unit::master(machine).main_pid()?;
    let text = machine.read_file(&format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.context("find VmRSS")?.parse().context("read VmRSS")
}
