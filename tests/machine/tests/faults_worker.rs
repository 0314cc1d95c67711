//! What befalls a worker: its way to the master, restarts, crashes and drains with builds running, and builds that
//! misbehave. No build is lost, and the status line is true.

use std::time::{Duration, Instant};

use anyhow::ensure;
use buildbot_conda_machine::{
    CONFIGURATION, LATER, MASTER_UNIT, Outcome, Release, SOON, Stage, WORKER, WORKER_UNIT, fault,
    held_script, on_each_release, scripted,
};

on_each_release! {
    the_status_line_follows_the_way_to_the_master,
    a_restart_and_a_stop_lose_no_build,
    a_crash_loses_no_build,
    a_reload_lets_the_build_finish_and_brings_a_fresh_worker,
    a_build_that_runs_out_of_memory_fails_alone,
    a_frozen_worker_is_replaced,
    workers_are_back_soon_after_their_master,
    a_drain_lets_builds_finish_and_leaves_the_service_down,
    a_build_that_misbehaves_leaves_the_worker_alive,
    a_tac_may_ask_for_odd_things,
}

/// How soon a change must be on the status line.
const TOLD: Duration = Duration::from_secs(15);
/// Long enough to be still running when a test has seen it run, on a busy machine too.
const WORK: &str = "sleep 6";

fn the_status_line_follows_the_way_to_the_master(release: Release) -> Outcome {
    let stage = Stage::new(release)?;
    let status_shows = |words: &[&str]| stage.wait_for_status(WORKER_UNIT, TOLD, words);

    fault("worker-start", release, || {
        let begun = Instant::now();
        stage.systemctl(&["start", WORKER_UNIT])?;
        ensure!(
            begun.elapsed() < SOON,
            "it took {:?} to start",
            begun.elapsed()
        );
        ensure!(stage.property(WORKER_UNIT, "ActiveState")? == "active");
        status_shows(&["127.0.0.1:9989"])
    })?;

    fault("worker-unreachable-master", release, || {
        status_shows(&["Connection refused", "connection refused"])?;
        stage.edit_tac("s/^buildmaster_host = .*/buildmaster_host = 'no-such-host.invalid'/")?;
        stage.systemctl(&["restart", WORKER_UNIT])?;
        let line = status_shows(&["cannot reach no-such-host.invalid:9989"])?;
        ensure!(line.contains("lookup failed"), "`{line}`");
        stage.edit_tac("s/^buildmaster_host = .*/buildmaster_host = '127.0.0.1'/")?;
        stage.systemctl(&["restart", WORKER_UNIT])?;
        status_shows(&["cannot reach 127.0.0.1:9989"])?;
        stage.systemctl(&["start", MASTER_UNIT])?;
        status_shows(&["connected to 127.0.0.1:9989 as example"])?;
        stage.systemctl(&["stop", MASTER_UNIT])?;
        status_shows(&["lost the connection", "cannot reach"])?;
        stage.systemctl(&["start", MASTER_UNIT])?;
        status_shows(&["connected to"])
    })?;

    fault("worker-wrong-port", release, || {
        stage.edit_tac("s/^port = .*/port = 8010/")?;
        stage.systemctl(&["restart", WORKER_UNIT])?;
        status_shows(&["no answer to the login from 127.0.0.1:8010"])?;
        stage.edit_tac("s/^port = .*/port = 9989/")?;
        stage.systemctl(&["restart", WORKER_UNIT])?;
        status_shows(&["connected to"])
    })?;

    fault("worker-password", release, || {
        stage.edit_tac("s/^passwd = .*/passwd = 'other'/")?;
        stage.systemctl(&["restart", WORKER_UNIT])?;
        let line = status_shows(&["rejected"])?;
        ensure!(line.contains("check worker name and password"), "`{line}`");
        let pid = stage.main_pid(WORKER_UNIT)?;
        stage.write_master_configuration(&scripted().replace("\"secret\"", "\"other\""))?;
        stage.systemctl(&["reload", MASTER_UNIT])?;
        status_shows(&["connected to"])?;
        ensure!(stage.main_pid(WORKER_UNIT)? == pid, "it was restarted");
        Ok(())
    })
}

fn a_restart_and_a_stop_lose_no_build(release: Release) -> Outcome {
    let stage = Stage::running(release)?;

    fault("worker-restart", release, || {
        let request = stage.begin_held_build()?;
        stage.systemctl(&["restart", WORKER_UNIT])?;
        stage.release_builds()?;
        stage.ensure_success(request)
    })?;

    fault("worker-stop", release, || {
        // A process that a build leaves behind in its own session is terminated by a stop, too.
        stage.hold_builds()?;
        let held = held_script();
        let request = stage.begin_build(&format!("setsid sleep 1234 >/dev/null 2>&1 & {held}"))?;
        stage.systemctl(&["stop", WORKER_UNIT])?;
        let left = stage.machine.shell(
            "for line in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$line 2>/dev/null || true; echo; done",
        )?;
        ensure!(!left.stdout.contains("sleep 1234"), "{left}");
        stage.release_builds()?;
        stage.systemctl(&["start", WORKER_UNIT])?;
        stage.ensure_success(request)
    })?;
    Ok(())
}

fn a_crash_loses_no_build(release: Release) -> Outcome {
    let stage = Stage::running(release)?;

    fault("worker-killed", release, || {
        for signal in ["KILL", "SEGV"] {
            let request = stage.begin_held_build()?;
            let pid = stage.main_pid(WORKER_UNIT)?;
            stage.signal(WORKER_UNIT, signal)?;
            stage.release_builds()?;
            stage.ensure_success(request)?;
            ensure!(stage.main_pid(WORKER_UNIT)? != pid);
        }
        ensure!(stage.property(WORKER_UNIT, "NRestarts")? == "2");
        Ok(())
    })?;

    fault("worker-killed-by-build", release, || {
        // Once: the retried build finds the mark.
        let script = format!(
            "test -e /home/bb/mark && exit 0; touch /home/bb/mark; kill -KILL $PPID; {WORK}"
        );
        let request = stage.rest().force("slow", &[("script", &script)])?;
        stage.ensure_success(request)?;
        ensure!(stage.property(WORKER_UNIT, "NRestarts")? == "3");
        Ok(())
    })
}

fn a_reload_lets_the_build_finish_and_brings_a_fresh_worker(release: Release) -> Outcome {
    let stage = Stage::running(release)?;

    fault("worker-reload", release, || {
        let begun = || -> anyhow::Result<serde_json::Value> {
            let text = stage
                .machine
                .read_file("/run/buildbot-conda/worker/status.json")?;
            let status: serde_json::Value = serde_json::from_str(&text)?;
            Ok(status["begun"].clone())
        };
        let pid = stage.main_pid(WORKER_UNIT)?;
        let before = begun()?;
        let request = stage.begin_build(WORK)?;
        stage.systemctl(&["reload", WORKER_UNIT])?;
        // The builder may be informed of the build's end a moment after the worker.
        stage.ensure_success(request)?;
        ensure!(
            stage.rest().builds_of(request)?.len() == 1,
            "the build was interrupted"
        );
        ensure!(stage.property(WORKER_UNIT, "ActiveState")? == "active");
        // From systemd 259 on, the process has to stay the same.
        ensure!(stage.main_pid(WORKER_UNIT)? == pid, "it is another process");
        ensure!(begun()? != before, "the worker is the old one");
        stage.build("true")?;
        // The same if there is nothing to wait for.
        let before = begun()?;
        stage.systemctl(&["reload", WORKER_UNIT])?;
        ensure!(stage.property(WORKER_UNIT, "ActiveState")? == "active");
        // From systemd 259 on, the process has to stay the same.
        ensure!(stage.main_pid(WORKER_UNIT)? == pid, "it is another process");
        ensure!(begun()? != before, "the worker is the old one");
        Ok(())
    })?;

    fault("worker-reload-crash", release, || {
        stage.rest().wait_for_worker("example", SOON)?;
        let request = stage.begin_held_build()?;
        stage
            .machine
            .shell(&format!(
                "(if systemctl reload {WORKER_UNIT}; then echo 0; else echo failed; fi >/root/status) >/dev/null 2>&1 &"
            ))?
            .succeeded()?;
        stage.wait_for_status(WORKER_UNIT, SOON, &["draining"])?;
        stage.signal(WORKER_UNIT, "KILL")?;
        let status = stage.machine.wait_until("the reload returns", SOON, || {
            let status = stage.machine.run(&["cat", "/root/status"])?;
            Ok((!status.text().is_empty()).then_some(status))
        })?;
        ensure!(status.text() != "0", "the reload has succeeded");
        stage.release_builds()?;
        stage.ensure_success(request)
    })?;

    fault("worker-reload-refused", release, || {
        stage.edit_tac("s/^allow_shutdown = .*/allow_shutdown = None/")?;
        stage.systemctl(&["restart", WORKER_UNIT])?;
        stage.rest().wait_for_worker("example", SOON)?;
        let pid = stage.main_pid(WORKER_UNIT)?;
        let request = stage.begin_held_build()?;
        let reload = stage.machine.run(&["systemctl", "reload", WORKER_UNIT])?;
        ensure!(reload.status != 0, "{reload}");
        let shown = stage.status_and_journal(WORKER_UNIT)?;
        ensure!(shown.contains("allow_shutdown = 'signal'"), "{shown}");
        // Sent manually, HUP would have killed it.
        stage.signal(WORKER_UNIT, "HUP")?;
        let drain = stage.machine.run(&["buildbot-conda", "drain", "worker"])?;
        ensure!(
            drain.status == 1 && drain.stderr.contains("allow_shutdown = 'signal'"),
            "{drain}"
        );
        stage.release_builds()?;
        stage.ensure_success(request)?;
        ensure!(stage.rest().builds_of(request)?.len() == 1);
        ensure!(stage.main_pid(WORKER_UNIT)? == pid);
        Ok(())
    })
}

/// Allocates memory until none is left.
const GLUTTON: &str = "python -c 'x = [bytearray(1 << 20) for _ in range(1 << 20)]'";

fn a_build_that_runs_out_of_memory_fails_alone(release: Release) -> Outcome {
    let stage = Stage::running(release)?;

    fault("worker-out-of-memory", release, || {
        let pid = stage.main_pid(WORKER_UNIT)?;
        let controllers = stage
            .machine
            .read_file("/sys/fs/cgroup/cgroup.controllers")?;
        let script = if controllers.contains("memory") {
            let limits = ["MemoryMax=400M", "MemorySwapMax=0"];
            stage
                .systemctl(&[&["set-property", "--runtime", WORKER_UNIT], &limits[..]].concat())?;
            GLUTTON.to_owned()
        } else {
            // A host with the older hierarchy of control groups: the kernel cannot be brought to it. Its victim then
            // dies of the same signal, and what systemd makes of it is a setting.
            ensure!(stage.property(WORKER_UNIT, "OOMPolicy")? == "continue");
            "sh -c 'kill -KILL $$'".to_owned()
        };
        let request = stage.rest().force("slow", &[("script", &script)])?;
        let build = stage.rest().wait_for_build(request, LATER)?;
        ensure!(build.results == 2, "{build:?}");
        ensure!(
            stage.main_pid(WORKER_UNIT)? == pid,
            "the worker has not survived"
        );
        stage.build("true")
    })?;
    Ok(())
}

fn a_frozen_worker_is_replaced(release: Release) -> Outcome {
    let stage = Stage::new(release)?;
    stage.configure("worker", "watchdog = \"10s\"")?;
    stage.start()?;

    fault("worker-hang", release, || {
        let pid = stage.main_pid(WORKER_UNIT)?;
        let request = stage.begin_held_build()?;
        stage.signal(WORKER_UNIT, "STOP")?;
        stage.release_builds()?;
        stage.ensure_success(request)?;
        stage.machine.wait_until("it is replaced", SOON, || {
            let now = stage.property(WORKER_UNIT, "MainPID")?;
            Ok((now != pid && now != "0").then_some(()))
        })?;
        let journal = stage.machine.journal(WORKER_UNIT)?;
        ensure!(journal.contains("Watchdog timeout"), "{journal}");
        Ok(())
    })?;

    fault("frozen-master", release, || {
        stage.edit_tac("s/^keepalive = .*/keepalive = 2/")?;
        stage.systemctl(&["restart", WORKER_UNIT])?;
        stage.rest().wait_for_worker("example", SOON)?;
        let pid = stage.main_pid(WORKER_UNIT)?;
        let request = stage.begin_build("sleep 3")?;
        stage.signal(MASTER_UNIT, "STOP")?;
        // Several keepalives go unanswered, and the build ends meanwhile.
        std::thread::sleep(Duration::from_secs(10));
        stage.signal(MASTER_UNIT, "CONT")?;
        stage.ensure_success(request)?;
        ensure!(stage.main_pid(WORKER_UNIT)? == pid);
        stage.wait_for_status(WORKER_UNIT, TOLD, &["connected to"])?;
        Ok(())
    })
}

/// Workers that wait for their master in the test of outages.
const FLOCK: usize = 5;
/// Seconds. Pauses between attempts grow to ten seconds within the first forty, so a longer outage is like the longest.
const OUTAGES: [u64; 4] = [1, 7, 16, 45];
/// From a serving master to an attached worker.
const RETURN: Duration = Duration::from_secs(20);

fn workers_are_back_soon_after_their_master(release: Release) -> Outcome {
    let stage = Stage::new(release)?;
    let names: Vec<String> = (1..FLOCK).map(|number| format!("w{number}")).collect();
    let mut configuration = scripted();
    for name in &names {
        configuration = configuration.replace(
            "\"workers\": [",
            &format!("\"workers\": [worker.Worker(\"{name}\", \"secret\"), "),
        );
        let directory = format!("/home/bb/{name}");
        stage
            .machine
            .shell(&format!(
                "cp -a {WORKER} {directory}; sed -i \"s/^workername = .*/workername = '{name}'/\" {directory}/buildbot.tac\n\
                 printf '[\"worker@{name}\"]\\ndirectory = \"{directory}\"\\n' >>{CONFIGURATION}"
            ))?
            .succeeded()?;
    }
    stage.write_master_configuration(&configuration)?;
    stage.systemctl(&["daemon-reload"])?;
    stage.start()?;
    for name in &names {
        stage.systemctl(&["start", &format!("buildbot-worker@{name}.service")])?;
        stage.rest().wait_for_worker(name, SOON)?;
    }

    fault("worker-returns", release, || {
        let mut longest = Duration::ZERO;
        let mut returns = 0;
        for outage in OUTAGES {
            stage.systemctl(&["stop", MASTER_UNIT])?;
            std::thread::sleep(Duration::from_secs(outage));
            stage.systemctl(&["start", MASTER_UNIT])?;
            let serving = Instant::now();
            for name in names.iter().map(String::as_str).chain(["example"]) {
                stage.rest().wait_for_worker(name, RETURN)?;
                returns += 1;
            }
            longest = longest.max(serving.elapsed());
        }
        ensure!(
            returns == 20 && longest < RETURN,
            "{returns} in {longest:?}"
        );
        eprintln!(
            "{release}: {returns} of 20 workers are back within {:.1} s of their master",
            longest.as_secs_f64()
        );
        Ok(())
    })
}

fn a_drain_lets_builds_finish_and_leaves_the_service_down(release: Release) -> Outcome {
    let stage = Stage::running(release)?;
    let drain = |reference: &str| {
        stage
            .machine
            .run_within(LATER, &["buildbot-conda", "drain", reference])
    };
    let ensure_built_once = |request: u64| {
        let build = stage.ensure_success(request)?;
        let builds = stage.rest().builds_of(request)?;
        ensure!(builds == [build], "{builds:?}");
        Ok(())
    };
    let ensure_down = |unit: &str| {
        // A unit that is going to be restarted is `activating` until then.
        ensure!(stage.property(unit, "ActiveState")? == "inactive");
        ensure!(stage.property(unit, "Result")? == "success");
        Ok(())
    };

    fault("drain-verb", release, || {
        // It runs on while two commands look on.
        let request = stage.begin_build("sleep 15")?;
        let plan = stage
            .machine
            .run(&["buildbot-conda", "drain", "--dry-run", "worker"])?
            .succeeded()?;
        let pid = stage.main_pid(WORKER_UNIT)?;
        ensure!(
            plan.stdout.starts_with(&format!("kill -HUP {pid}\n")),
            "{plan}"
        );
        let unprivileged = stage
            .machine
            .run_as("bb", &["buildbot-conda", "drain", "worker"])?;
        ensure!(
            unprivileged.status == 1 && unprivileged.stderr.contains("only root"),
            "{unprivileged}"
        );
        let drained = drain("worker")?.succeeded()?;
        ensure!(drained.stderr.contains("running a step"), "{drained}");
        ensure!(drained.stderr.contains("and stopped"), "{drained}");
        ensure_built_once(request)?;
        ensure_down(WORKER_UNIT)?;
        drain("worker")?.succeeded()?;

        stage.systemctl(&["start", WORKER_UNIT])?;
        stage.rest().wait_for_worker("example", SOON)?;
        let request = stage.begin_build(WORK)?;
        let drained = drain("master")?.succeeded()?;
        ensure!(drained.stderr.contains("1 running build"), "{drained}");
        ensure_down(MASTER_UNIT)?;
        // Without its master a worker has nothing to wait for.
        drain("worker")?.succeeded()?;
        stage.systemctl(&["start", WORKER_UNIT])?;
        // What has been a name at no time is not an instance that is down.
        let unknown = drain("worker@nobody")?;
        ensure!(unknown.status == 78, "{unknown}");
        stage.systemctl(&["start", MASTER_UNIT])?;
        ensure_built_once(request)
    })?;

    fault("worker-drain-setting", release, || {
        stage.configure("worker", "drain = \"5min\"")?;
        stage.rest().wait_for_worker("example", SOON)?;
        stage.systemctl(&["restart", WORKER_UNIT])?;
        stage.rest().wait_for_worker("example", SOON)?;
        let request = stage.begin_build(WORK)?;
        stage.systemctl(&["stop", WORKER_UNIT])?;
        ensure_built_once(request)?;
        ensure_down(WORKER_UNIT)
    })
}

fn a_build_that_misbehaves_leaves_the_worker_alive(release: Release) -> Outcome {
    let stage = Stage::running(release)?;
    let results = |script: &str| {
        let request = stage.rest().force("slow", &[("script", script)])?;
        stage.rest().wait_for_build(request, LATER)
    };

    fault("worker-disk-full", release, || {
        // The directory exists from the first build on.
        stage.build("true")?;
        stage
            .machine
            .shell(&format!(
                "mount -t tmpfs -o size=64k,uid=$(id -u bb) tmpfs {WORKER}/slow/build"
            ))?
            .succeeded()?;
        let build = results("dd if=/dev/zero of=large bs=1k count=200")?;
        ensure!(build.results == 2, "{build:?}");
        let log = stage.rest().log(&build, "wait")?;
        ensure!(log.contains("No space left on device"), "{log}");
        stage
            .machine
            .run(&["umount", &format!("{WORKER}/slow/build")])?
            .succeeded()?;
        stage.build("true")
    })?;

    fault("directory-moved-away", release, || {
        stage
            .machine
            .shell(&format!(
                "mv {WORKER} {WORKER}.away && systemctl daemon-reload"
            ))?
            .succeeded()?;
        let restart = stage.machine.run(&["systemctl", "restart", WORKER_UNIT])?;
        ensure!(restart.status != 0, "{restart}");
        stage.wait_for_state(WORKER_UNIT, SOON, "failed")?;
        let shown = stage.status_and_journal(WORKER_UNIT)?;
        ensure!(shown.contains("has run from it before"), "{shown}");
        let doctor = stage.machine.run(&["buildbot-conda", "doctor", "worker"])?;
        ensure!(
            doctor.status == 1 && doctor.stdout.contains("has run from it before"),
            "{doctor}"
        );
        stage
            .machine
            .shell(&format!("mv {WORKER}.away {WORKER}"))?
            .succeeded()?;
        stage.systemctl(&["start", WORKER_UNIT])?;
        stage.rest().wait_for_worker("example", SOON)
    })?;
    let pid = stage.main_pid(WORKER_UNIT)?;

    fault("worker-directory-removed", release, || {
        stage.machine.run(&["rm", "-r", WORKER])?.succeeded()?;
        // It is created again for a build, but without the files of a worker.
        results("pwd")?;
        ensure!(stage.main_pid(WORKER_UNIT)? == pid);
        let restart = stage.machine.run(&["systemctl", "restart", WORKER_UNIT])?;
        ensure!(restart.status != 0, "{restart}");
        let shown = stage.status_and_journal(WORKER_UNIT)?;
        ensure!(shown.contains("contains no `buildbot.tac`, and"), "{shown}");
        stage.wait_for_state(WORKER_UNIT, SOON, "failed")
    })
}

fn a_tac_may_ask_for_odd_things(release: Release) -> Outcome {
    let stage = Stage::new(release)?;

    fault("worker-gives-up", release, || {
        // Upstream ends with 0 after these attempts.
        stage.edit_tac("s/^maxretries = .*/maxretries = 2/")?;
        stage.systemctl(&["start", WORKER_UNIT])?;
        stage.machine.wait_until("it has given up", SOON, || {
            let restarts: u32 = stage.property(WORKER_UNIT, "NRestarts")?.parse()?;
            Ok((restarts > 0).then_some(()))
        })?;
        let shown = stage.status_and_journal(WORKER_UNIT)?;
        ensure!(
            shown.contains("gave up: cannot reach 127.0.0.1:9989"),
            "{shown}"
        );
        stage.systemctl(&["start", MASTER_UNIT])?;
        stage.rest().wait_for_worker("example", SOON)
    })?;

    fault("worker-tls", release, || {
        stage.edit_tac("s/^connection_string = .*/connection_string = 'tls:127.0.0.1:9'/")?;
        stage.edit_tac("s/^buildmaster_host = .*/buildmaster_host = None/")?;
        stage.edit_tac("s/^port = .*/port = None/")?;
        stage.systemctl(&["restart", WORKER_UNIT])?;
        let line = stage.wait_for_status(WORKER_UNIT, TOLD, &["cannot reach"])?;
        ensure!(
            line.contains("127.0.0.1:9") && line.contains("refused"),
            "`{line}`"
        );
        stage.edit_tac("s/^connection_string = .*/connection_string = 'tcp:127.0.0.1:9989'/")?;
        stage.systemctl(&["restart", WORKER_UNIT])?;
        stage.rest().wait_for_worker("example", SOON)
    })?;

    fault("worker-twice", release, || {
        // The same name from another directory: the master rejects one of the two.
        stage
            .machine
            .shell(&format!(
                "cp -a {WORKER} /home/bb/twin; rm /home/bb/twin/twistd.pid /home/bb/twin/.buildbot-conda.lock\n\
                 printf '[\"worker@twin\"]\\ndirectory = \"/home/bb/twin\"\\n' >>{CONFIGURATION}; systemctl daemon-reload"
            ))?
            .succeeded()?;
        stage.systemctl(&["start", "buildbot-worker@twin.service"])?;
        stage.wait_for_status(
            "buildbot-worker@twin.service",
            TOLD,
            &["rejected", "lost the connection", "closed the connection"],
        )?;
        stage.build("true")?;
        stage.systemctl(&["stop", "buildbot-worker@twin.service"])
    })?;
    Ok(())
}
