//! `docs/tasks.md` as a user reads it: the commands that are marked with `run` are run in order, on a machine on which
//! nothing is set up, and the results are checked. Services, accounts and timers need a booted machine.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use buildbot_conda_machine::{Machine, Outcome, Release, Rest, installed_with, on_each_release};

on_each_release! { the_commands_of_the_tasks_do_what_they_are_for }

/// Starts and a first build, on a machine that has other things to do.
const LIMIT: Duration = Duration::from_mins(5);
/// The port that the tasks give to the web pages.
const PORT: u16 = 8020;

/// Heading and text of each block that is to be run.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let text = include_str!("../../../docs/tasks.md");
    let sections = text.split("\n## ").skip(1);
    sections
        .flat_map(|section| {
            let heading = section.lines().next().unwrap_or_default();
            let blocks = section.split("```sh run\n").skip(1);
            blocks.map(move |block| (heading, block.split("```").next().unwrap_or_default()))
        })
        .collect()
}

fn the_commands_of_the_tasks_do_what_they_are_for(release: Release) -> Outcome {
    let machine = Machine::boot(installed_with(release, "curl", "curl openssl")?)?;
    let blocks = blocks();
    ensure!(blocks.len() > 12, "{blocks:#?}");
    let mut is_broken = false;
    for (heading, block) in blocks {
        // The machine has no sudo, and root needs none.
        let script = format!("cd /root; sudo() {{ \"$@\"; }}\n{block}");
        let output = machine.run_within(LIMIT, &["bash", "-euc", &script])?;
        let output = output.succeeded().with_context(|| heading.to_owned())?;
        ensure!(!output.stderr.contains("error: "), "{heading}: {output}");
        if heading == "Build a git repository" && !is_broken {
            is_broken = true;
            // A build between the tasks, which leaves something to be found out about.
            fail_a_build(&machine)?;
        }
    }
    what_the_tasks_were_for(&machine)
}

/// With a step that fails after some lines of output.
fn fail_a_build(machine: &Machine) -> Outcome {
    let script = "cat >>/home/bb/master/master.cfg <<'END'\n\
                  broken = util.BuildFactory([steps.ShellCommand(name='good', command=['true']),\n\
                  \x20   steps.ShellCommand(name='bad', command='echo the reason; exit 3')])\n\
                  c['builders'].append(util.BuilderConfig(name='broken', workernames=WORKERS, factory=broken))\n\
                  c['schedulers'].append(schedulers.ForceScheduler(name='force-broken', builderNames=['broken']))\n\
                  END\n\
                  buildbot-conda reload buildbot-master.service || { journalctl --no-pager --lines=30; exit 1; }";
    machine.shell(script)?.succeeded()?;
    let rest = Rest::new(machine);
    let build = rest.wait_for_build(rest.force_by("force-broken", "broken", &[])?, LIMIT)?;
    ensure!(build.results == 2, "{build:?}");
    let shown = machine.run(&["buildbot-conda", "build", "master"])?;
    let shown = shown.succeeded()?.stdout;
    for expect in [
        "build 1 of broken: failure",
        "success    good",
        "failure    bad",
        "\n    the reason\n",
    ] {
        ensure!(shown.contains(expect), "`{expect}` is not in:\n{shown}");
    }
    let other = machine.run(&[
        "buildbot-conda",
        "build",
        "master",
        "7",
        "--builder",
        "hello",
    ])?;
    ensure!(other.stderr.contains("build 7 not found"), "{other}");
    Ok(())
}

fn what_the_tasks_were_for(machine: &Machine) -> Outcome {
    let list = machine
        .run(&["buildbot-conda", "list"])?
        .succeeded()?
        .stdout;
    for instance in ["master ", "worker ", "worker@gpu ", "worker@ci "] {
        let line = list.lines().find(|line| line.starts_with(instance));
        ensure!(line.is_some_and(|line| line.contains(" active ")), "{list}");
    }
    // The second worker has its new password.
    let rest = Rest::at(machine, PORT);
    for worker in ["gpu", "ci"] {
        rest.wait_for_worker(worker, LIMIT)?;
    }
    let shown = machine
        .run(&["buildbot-conda", "show", "worker"])?
        .succeeded()?;
    ensure!(
        shown.stdout.contains("directory = \"/srv/worker\""),
        "{shown}"
    );
    let environment = machine.run(&["buildbot-conda", "run", "worker", "--", "env"])?;
    ensure!(
        environment
            .stdout
            .contains("https_proxy=http://proxy.example:3128"),
        "{environment}"
    );

    // The timer's service copies to the configured place, and a copy without a name can be restored.
    machine
        .run_within(
            LIMIT,
            &["systemctl", "start", "buildbot-backup@master.service"],
        )?
        .succeeded()?;
    let script = "set -- /srv/backups/master/*.sqlite; test -e \"$1\"; cp \"$1\" /root/state.sqlite; cmp \"$1\" /root/state.sqlite\n\
                  head -c 15 /root/master.sqlite | grep -qF 'SQLite format 3'\n\
                  systemctl stop buildbot-master; buildbot-conda restore master /root/state.sqlite\n\
                  systemctl start buildbot-master\n\
                  if buildbot-conda restore master /etc/passwd; then exit 1; fi";
    machine
        .run_within(LIMIT, &["sh", "-euc", script])?
        .succeeded()?;

    // A credential that was changed is seen, and a reload names it.
    let script = "echo other >/etc/buildbot-conda/credentials/webhook; chmod 600 /etc/buildbot-conda/credentials/webhook";
    machine.shell(script)?.succeeded()?;
    let doctor = machine.run(&[
        "buildbot-conda",
        "doctor",
        "master",
        "--only",
        "credentials",
    ])?;
    ensure!(
        doctor
            .stdout
            .contains("`webhook` has changed since the start"),
        "{doctor}"
    );
    let reload = machine
        .run(&["buildbot-conda", "reload", "master"])?
        .succeeded()?;
    ensure!(reload.stderr.contains("`webhook` has changed"), "{reload}");

    what_monitoring_sees(machine)?;
    a_failure_is_reported_once(machine)?;

    // A worker that is disabled on purpose is not a warning.
    let script = "systemctl disable --now buildbot-worker@ci; buildbot-conda doctor worker@ci --only unit-state,unit-enabled";
    let doctor = machine.shell(script)?.succeeded()?;
    ensure!(doctor.stdout.starts_with("no problems"), "{doctor}");
    ensure!(!doctor.stdout.contains("warning:"), "{doctor}");
    Ok(())
}

/// The socket of the task answers, with the limits of the task and with what the master has noted.
fn what_monitoring_sees(machine: &Machine) -> Outcome {
    let script = "for _ in $(seq 120); do\n\
                  curl --fail --silent http://127.0.0.1:9988/metrics >/root/metrics\n\
                  ! grep -qF 'worker_connected{name=\"master\",worker=\"gpu\"} 1' /root/metrics || break; sleep 1; done\n\
                  cat /root/metrics; systemctl is-failed 'buildbot-conda-metrics@*' || true";
    let metrics = machine
        .run_within(LIMIT, &["sh", "-uc", script])?
        .succeeded()?
        .stdout;
    for expect in [
        "configuration_good 1\n",
        "instance_up{name=\"master\"} 1\n",
        "instance_enabled{name=\"worker@gpu\"} 1\n",
        "instance_state{name=\"worker@ci\",state=\"active\"} 1\n",
        "instance_restarts{name=\"worker\"} 0\n",
        "instance_memory_max_bytes{name=\"worker\"} 4294967296\n",
        "instance_environment_outdated{name=\"master\"} 0\n",
        "worker_connected{name=\"worker@gpu\"} 1\n",
        "master_worker_connected{name=\"master\",worker=\"gpu\"} 1\n",
        "master_requests{name=\"master\"} 0\n",
        "master_builds{name=\"master\"} 0\n",
        "database_up{name=\"master\"} 1\n",
        "backup_failed{name=\"master\"} 0\n",
        "backup_interval_seconds{name=\"master\"} 86400\n",
    ] {
        let is_there = metrics.contains(&format!("\nbuildbot_conda_{expect}"));
        ensure!(is_there, "`{expect}` is not in:\n{metrics}");
    }
    // Where the host's memory is counted in the first hierarchy of control groups, machines cannot count theirs.
    let counts = machine.run(&["grep", "-qw", "memory", "/sys/fs/cgroup/cgroup.controllers"])?;
    let memory = (counts.status == 0).then_some("instance_memory_bytes");
    let others = ["backup_timestamp_seconds", "database_bytes"];
    for family in memory.into_iter().chain(others) {
        let sample = format!("\nbuildbot_conda_{family}{{name=\"master\"}} ");
        ensure!(metrics.contains(&sample), "no `{family}`:\n{metrics}");
    }
    let limit = "cat /sys/fs/cgroup/system.slice/buildbot-worker.service/memory.max 2>/dev/null || echo 4294967296";
    let limit = machine.shell(limit)?.succeeded()?.stdout;
    ensure!(limit.trim() == "4294967296", "{limit}");
    Ok(())
}

/// With mail, as in the task, for a tac that is no longer Python: systemd does not retry that.
fn a_failure_is_reported_once(machine: &Machine) -> Outcome {
    let script = "cat >/usr/sbin/sendmail <<'END'\n\
                  #!/bin/sh\n\
                  { echo \"$*\"; cat; } >\"/root/mail-$$\"\n\
                  END\n\
                  chmod 755 /usr/sbin/sendmail\n\
                  tac=$(buildbot-conda show worker@gpu | sed -n 's/^directory = \"\\(.*\\)\"$/\\1/p')/buildbot.tac\n\
                  cp \"$tac\" /root/tac; echo 'not Python' >>\"$tac\"\n\
                  systemctl restart buildbot-worker@gpu || true\n\
                  for _ in $(seq 300); do ls /root/mail-* >/dev/null 2>&1 && break; sleep 0.2; done\n\
                  cat /root/tac >\"$tac\"; systemctl start buildbot-worker@gpu; sleep 2; cat /root/mail-*";
    let mail = machine
        .run_within(LIMIT, &["sh", "-euc", script])?
        .succeeded()?
        .stdout;
    ensure!(
        mail.starts_with("-i -- ops@example.org\nTo: ops@example.org\n"),
        "{mail}"
    );
    for expect in [
        "Subject: worker@gpu on ",
        "buildbot.tac",
        "buildbot-worker@gpu.service[",
        "`sudo buildbot-conda doctor worker@gpu`",
    ] {
        ensure!(mail.contains(expect), "`{expect}` is not in:\n{mail}");
    }
    ensure!(mail.matches("Subject: ").count() == 1, "{mail}");
    Ok(())
}
