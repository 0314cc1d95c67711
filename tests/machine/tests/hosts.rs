//! A host as files: it is exported, and every later change is shown by `host verify` and reverted by `host apply`,
//! after which the services serve again.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use buildbot_conda_machine::{
    Machine, OTHER_LOCK, Outcome, Output, Release, Rest, Unit, managed, on_each_release,
};

on_each_release! { what_is_changed_is_named_and_mended }

/// From a request to its completion on a busy machine.
const LIMIT: Duration = Duration::from_mins(4);
const PROFILE: &str = "/srv/host";
const SECRETS: &str = "/root/secrets";
const ENVIRONMENT: &str = "/var/lib/buildbot-conda/envs/buildbot";
/// An environment of a user, where Conda would have created it.
const TOOLS: &str = "/home/bb/conda/envs/tools";

/// The changes of the host between two applications of the profile, and the lines that report them.
type Change = (&'static str, &'static [&'static str]);

const FILES: [Change; 8] = [
    (
        "usermod --append --groups video bb-worker",
        &[
            "account `bb-worker`: system bb-worker,video /home/bb-worker /bin/bash, \
             not system bb-worker /home/bb-worker /bin/bash",
        ],
    ),
    (
        "buildbot-conda set master drain 5s",
        &["configuration `/etc/buildbot-conda/config.toml`: different"],
    ),
    (
        "echo '# x' >>/etc/systemd/system/buildbot-master.service.d/memory.conf",
        &["unit file `/etc/systemd/system/buildbot-master.service.d/memory.conf`: different"],
    ),
    (
        "mkdir /etc/systemd/system/buildbot-worker@.service.d
         echo >/etc/systemd/system/buildbot-worker@.service.d/x.conf",
        &["unit file `/etc/systemd/system/buildbot-worker@.service.d/x.conf`: additional"],
    ),
    (
        "echo '# Mine.' >>/home/bb/master/master.cfg",
        &["file `master:master.cfg`: different"],
    ),
    (
        "chmod 0640 /home/bb-worker/worker/buildbot.tac",
        &["file `worker:buildbot.tac`: mode 0640, not mode 0600"],
    ),
    (
        "rm /var/lib/buildbot-conda/created/worker.json",
        &["record `worker`: missing"],
    ),
    (
        "chmod 0755 /etc/buildbot-conda/credentials; chmod 0700 /home/bb/master",
        &[
            "mode of `/etc/buildbot-conda/credentials`: 0755 root root, not 0700 root root",
            "mode of `/home/bb/master`: 0700 bb bb, not 0755 bb bb",
        ],
    ),
];
const SERVICES: [Change; 4] = [
    (
        "cd /var/lib/buildbot-conda/envs/buildbot/current/; echo >>bin/buildbot; rm bin/twistd",
        &[
            "environment `/var/lib/buildbot-conda/envs/buildbot/current`: changed bin/buildbot",
            "environment `/var/lib/buildbot-conda/envs/buildbot/current`: missing bin/twistd",
        ],
    ),
    (
        "rm /etc/systemd/system/buildbot-master.service.d/memory.conf",
        &["unit file `/etc/systemd/system/buildbot-master.service.d/memory.conf`: missing"],
    ),
    (
        "rm /etc/buildbot-conda/credentials/password-of-worker",
        &["credential `password-of-worker`: missing"],
    ),
    (
        "systemctl disable --quiet buildbot-worker",
        &["unit `buildbot-worker.service`: disabled, not enabled"],
    ),
];
const INSTANCES: [Change; 4] = [
    (
        "mv /home/bb/conda/envs/tools /home/bb/tools",
        &["environment `/home/bb/conda/envs/tools`: missing"],
    ),
    (
        "systemctl stop buildbot-master; rm -r /home/bb/master /var/lib/buildbot-conda/instances/master",
        &["instance `master`: missing"],
    ),
    (
        "systemctl stop buildbot-worker; rm -r /home/bb-worker/worker",
        &["instance `worker`: missing"],
    ),
    (
        "systemctl mask --quiet buildbot-worker",
        &["unit `buildbot-worker.service`: masked, not enabled"],
    ),
];

fn call(machine: &Machine, words: &[&str]) -> anyhow::Result<Output> {
    machine.run_within(LIMIT, &[&["buildbot-conda"], words].concat())
}

fn apply(machine: &Machine) -> anyhow::Result<Output> {
    call(machine, &["host", "apply", PROFILE, "--secrets", SECRETS])
}

/// A host that was set up by commands and by hand, and its profile.
fn exported(release: Release) -> anyhow::Result<Machine> {
    let machine = Machine::boot(managed(release)?)?;
    Rest::new(&machine).wait_for_worker("worker", LIMIT)?;
    machine
        .shell(
            "mkdir /etc/systemd/system/buildbot-master.service.d
             printf '[Service]\\nMemoryHigh=2G\\n' >/etc/systemd/system/buildbot-master.service.d/memory.conf
             systemctl daemon-reload; systemctl restart buildbot-master",
        )?
        .succeeded()?;
    machine.shell(&by_conda())?.succeeded()?;
    call(&machine, &["host", "export", PROFILE, "--with-files"])?.succeeded()?;
    machine
        .shell(&format!("cp -a /etc/buildbot-conda/credentials {SECRETS}"))?
        .succeeded()?;
    Ok(machine)
}

/// Everything treats it as an environment of Conda: without generations, and owned by its account.
fn by_conda() -> String {
    format!(
        r#"cp /root/lock.txt /srv/lock.txt
         install --directory --owner=bb --group=bb /home/bb/stage /home/bb/conda /home/bb/conda/envs
         setpriv --reuid=bb --regid=bb --init-groups --reset-env -- /usr/libexec/buildbot-conda/env              --file /srv/lock.txt --directory /home/bb/stage --cache /home/bb/stage/cache --at {TOOLS}
         rm -r /home/bb/stage
         cat >>/etc/buildbot-conda/config.toml <<'END'

["worker@tools"]
directory = "/srv/tools"
conda-env = "{TOOLS}"
END"#
    )
}

fn what_is_changed_is_named_and_mended(release: Release) -> Outcome {
    let machine = exported(release)?;
    let again = call(&machine, &["host", "export", PROFILE])?.succeeded()?;
    ensure!(
        again.stdout.is_empty() && again.stderr.contains("is up to date"),
        "{again}"
    );
    let secret = machine.shell(&format!(
        "grep -rF \"$(cat {SECRETS}/password-of-worker)\" {PROFILE}"
    ))?;
    ensure!(secret.status == 1, "a secret is in the profile: {secret}");
    // A checkout of a user is written as that user.
    machine
        .shell("install --directory --owner=bb --group=bb /home/bb/hosts")?
        .succeeded()?;
    call(&machine, &["host", "export", "/home/bb/hosts/this"])?.succeeded()?;
    let foreign = machine.run(&["find", "/home/bb/hosts", "!", "-user", "bb"])?;
    ensure!(
        foreign.succeeded()?.stdout.is_empty(),
        "root has written there"
    );

    let clean = call(&machine, &["host", "verify", PROFILE])?;
    ensure!(clean.status == 0 && clean.stdout.is_empty(), "{clean}");
    ensure_nothing_to_do(&machine)?;

    change_and_mend(&machine, &FILES)?;
    ensure!(
        machine
            .read_file("/home/bb/master/master.cfg.replaced")?
            .contains("# Mine."),
        "what was replaced is not kept"
    );
    ensure!(
        machine
            .shell("cat /var/lib/buildbot-conda/replaced/etc/buildbot-conda/config.toml.replaced")?
            .stdout
            .contains("drain = \"5s\""),
        "what was replaced is not kept"
    );

    change_and_mend(&machine, &SERVICES)?;
    change_and_mend(&machine, &INSTANCES)?;
    machine
        .shell(&format!(
            "diff -r --no-dereference -x conda-meta /home/bb/tools {TOOLS} && test -z \"$(find {TOOLS} ! -user bb)\"
             test \"$(ls -A /home/bb/conda/envs)\" = tools"
        ))?
        .succeeded()?;

    // Another generation serves, and goes again.
    let link = format!("{ENVIRONMENT}/current");
    let wanted = machine.run(&["readlink", &link])?.succeeded()?;
    call(
        &machine,
        &["env", "update", "buildbot", "--file", OTHER_LOCK],
    )?
    .succeeded()?;
    let found = machine.run(&["readlink", &link])?.succeeded()?;
    let (wanted, found) = (wanted.text(), found.text());
    let expected = format!("environment `{link}`: generation {found}, not generation {wanted}");
    mended(&machine, &[&expected])?;

    // A secret that is not given is requested by its name, before anything is done.
    machine
        .shell(
            "rm /etc/buildbot-conda/credentials/password-of-worker
             chmod 0755 /etc/buildbot-conda/credentials",
        )?
        .succeeded()?;
    let refused = call(&machine, &["host", "apply", PROFILE])?;
    ensure!(
        refused.status == 1
            && refused.stderr
                == "error: credentials are needed, but there is no terminal to ask for them: password-of-worker\n\
                    hint: use `--secrets DIR` with a file for each name\n",
        "{refused}"
    );
    apply(&machine)?.succeeded()?;

    // What the files cannot restore is reported and left.
    machine
        .shell("sed -i '/^Package: buildbot-conda-env$/,/^$/s/^Version: .*/Version: 9/' /var/lib/dpkg/status")?
        .succeeded()?;
    let verify = call(&machine, &["host", "verify", PROFILE])?;
    ensure!(
        verify.status == 1
            && verify
                .stdout
                .starts_with("package `buildbot-conda-env`: 9, not "),
        "{verify}"
    );
    let left = apply(&machine)?.succeeded()?;
    ensure!(
        left.stderr
            .contains("hint: apt-get install buildbot-conda-env=")
            && left.stderr.ends_with("nothing to do\n"),
        "{left}"
    );

    let rest = Rest::new(&machine);
    rest.wait_for_worker("worker", LIMIT)?;
    let build = rest.wait_for_build(rest.force("hello", &[])?, LIMIT)?;
    ensure!(build.results == 0, "{build:?}");
    Ok(())
}

/// All changes are made to the host, reported in the order of kinds, and reverted at once.
fn change_and_mend(machine: &Machine, changes: &[Change]) -> Outcome {
    for (script, _) in changes {
        machine
            .shell(&format!("set -e; {script}"))?
            .succeeded()
            .with_context(|| (*script).to_owned())?;
    }
    let lines = changes.iter().flat_map(|(_, lines)| lines.iter().copied());
    mended(machine, &lines.collect::<Vec<_>>())
}

/// The host differs in exactly this; applying the profile reverts it, and the services serve.
fn mended(machine: &Machine, lines: &[&str]) -> Outcome {
    let verify = call(machine, &["host", "verify", PROFILE])?;
    ensure!(verify.status == 1, "{verify}");
    let found: Vec<&str> = verify.stdout.lines().collect();
    ensure!(found == lines, "{verify}");
    let applied = apply(machine)?.succeeded()?;
    let verify = call(machine, &["host", "verify", PROFILE])?;
    ensure!(verify.status == 0, "{applied}\n{verify}");
    for unit in [Unit::master(machine), Unit::worker(machine)] {
        let state = unit.property("ActiveState")?;
        ensure!(state == "active", "{state}\n{applied}");
    }
    Ok(())
}

fn ensure_nothing_to_do(machine: &Machine) -> Outcome {
    let applied = apply(machine)?.succeeded()?;
    ensure!(applied.stderr == "nothing to do\n", "{applied}");
    Ok(())
}
