//! `doctor` on a booted machine: each thing is broken, reported, fixed with exactly the printed commands, and then
//! reported as in order. One machine is used for everything, so that a fix that breaks something else is detected.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use buildbot_conda_machine::{
    CONFIGURATION, LATER, MASTER, MASTER_UNIT, Machine, Outcome, PREFIX, Release, Rest, SOON,
    Scenarios, WORKER, WORKER_UNIT, on_each_release, set_up,
};
use serde_json::Value;

on_each_release! { what_is_broken_is_named_and_mended_by_what_was_printed }

/// A link to the environment's `site-packages`, whatever version its Python has.
const PACKAGES: &str = "/home/bb/packages";
const STATUS: &str = "/run/buildbot-conda/worker/status.json";

/// A problem or a warning.
#[derive(Debug)]
struct Found {
    check: String,
    instance: Option<String>,
    instances: Vec<String>,
    severity: String,
    seen: String,
    commands: Vec<String>,
    has_words: bool,
}

/// What has to be seen: check, one of its instances or nothing, severity, a part of what was seen.
type Expected<'a> = (&'a str, &'a str, &'a str, &'a str);

struct Patient<'machine>(&'machine Machine);

/// What a scenario is about, and its rounds.
type Theme = (&'static str, fn(&Patient<'_>) -> Outcome);

impl Patient<'_> {
    fn shell(&self, script: &str) -> Result<String> {
        Ok(self.0.shell(script)?.succeeded()?.stdout)
    }

    /// The findings of doctor for some checks, or for all if none is given.
    fn examine(&self, checks: &[&str]) -> Result<Vec<Found>> {
        let mut words = vec!["buildbot-conda", "doctor", "--json"];
        for check in checks {
            words.extend(["--only", check]);
        }
        let output = self.0.run(&words)?;
        let report: Value =
            serde_json::from_str(&output.stdout).with_context(|| output.to_string())?;
        let findings = report["findings"].as_array().context("read the findings")?;
        let found: Vec<Found> = findings.iter().filter_map(found).collect();
        let problems = found
            .iter()
            .filter(|found| found.severity == "problem")
            .count();
        ensure!(report["problems"] == problems, "{output}");
        ensure!(output.status == i32::from(problems > 0), "{output}");
        Ok(found)
    }

    /// Breaks something, checks that everything is reported, runs the printed commands and then `repair`, for what no
    /// command fixes, and checks that everything is in order.
    fn round(&self, broken: &str, expected: &[Expected<'_>], repair: &str) -> Outcome {
        self.shell(broken)?;
        let mut checks: Vec<&str> = expected.iter().map(|(check, ..)| *check).collect();
        checks.dedup();
        let found = self.examine(&checks)?;
        let named = ensure_named(&found, expected, !repair.is_empty());
        // What comes next finds the machine in order, whatever was said.
        let fixed = self.carry_out(&found).and_then(|()| {
            self.shell(repair)?;
            self.ensure_clean(&checks)
        });
        named
            .and(fixed)
            .with_context(|| format!("after `{broken}`"))
    }

    fn carry_out(&self, found: &[Found]) -> Outcome {
        for command in found.iter().flat_map(|found| &found.commands) {
            self.0
                .run_within(LATER, &["sh", "-euc", command])?
                .succeeded()?;
        }
        Ok(())
    }

    fn ensure_clean(&self, checks: &[&str]) -> Outcome {
        let mut last = String::new();
        let outcome = self.0.wait_until("doctor finds nothing", SOON, || {
            let found = self.examine(checks)?;
            last = format!("{found:#?}");
            Ok(found.is_empty().then_some(()))
        });
        outcome.context(last)
    }
}

/// Each expected finding exists, with a solution.
fn ensure_named(found: &[Found], expected: &[Expected<'_>], is_repaired: bool) -> Outcome {
    for (check, instance, severity, seen) in expected {
        let is_it = |found: &&Found| {
            found.check == *check
                && (found.instances.is_empty() && instance.is_empty()
                    || found.instances.iter().any(|name| name == instance))
                && found.severity == *severity
                && found.seen.contains(seen)
        };
        let found_it = found.iter().find(is_it);
        let found_it = found_it
            .with_context(|| format!("no {check} of `{instance}` with `{seen}` in {found:#?}"))?;
        ensure!(
            !found_it.commands.is_empty() || found_it.has_words && is_repaired,
            "nothing mends {found_it:?}"
        );
    }
    Ok(())
}

fn found(finding: &Value) -> Option<Found> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let severity = text(&finding["severity"])?;
    let commands = finding["mending"]["commands"].as_array();
    matches!(severity.as_str(), "problem" | "warning").then_some(())?;
    Some(Found {
        check: text(&finding["check"])?,
        instance: text(&finding["instance"]),
        instances: finding["instances"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(text)
            .collect(),
        severity,
        seen: text(&finding["seen"])?,
        commands: commands.into_iter().flatten().filter_map(text).collect(),
        has_words: finding["mending"]["words"].is_string(),
    })
}

fn what_is_broken_is_named_and_mended_by_what_was_printed(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    let patient = Patient(&machine);
    prepare(&patient)?;
    a_host_that_was_set_up_by_hand(&patient)?;
    patient.shell("cp -p /home/bb/master/master.cfg /home/bb/good.cfg")?;
    let themes: [Theme; 8] = [
        ("host", host),
        ("units", units),
        ("files", files),
        ("environment", environment),
        ("Buildbot", buildbot),
        ("connection", connection),
        ("safe commands", safe_mending),
        ("others than root", others_than_root),
    ];
    let mut scenarios = Scenarios::new(|| Ok(()));
    for (name, theme) in themes {
        scenarios.run(name, || theme(&patient));
    }
    scenarios.run("all is in order", || patient.ensure_clean(&[]));
    scenarios.finish()
}

/// The environment belongs to the service user, with records that this user can read, and contains a `conda` that
/// restores the files that were moved away.
fn prepare(patient: &Patient<'_>) -> Outcome {
    let conda = format!(
        "#!/bin/sh\nset -e\n\
         if [ \"$1\" = create ]; then [ ! -e {PREFIX} ] || exit 9; mv /home/bb/whole {PREFIX}; fi\ncd /home/bb/aside\nfor name in *; do [ ! -e \"$name\" ] || mv \"$name\" {PACKAGES}/; done\n"
    );
    patient.shell(&format!(
        "chown -R bb: /home/bb/anaconda3; chmod a+r {PREFIX}/conda-meta/*; install -d -o bb /home/bb/aside; \
         ln -s {PREFIX}/lib/python3*/site-packages {PACKAGES}"
    ))?;
    patient
        .0
        .write_file("/home/bb/anaconda3/bin/conda", &conda, "0755", "bb")
}

/// Readable by everyone, and one account for both: all commands of the report fix this. That it is stopped and not
/// enabled counts as a decision, so starting it is left to the administrator.
fn a_host_that_was_set_up_by_hand(patient: &Patient<'_>) -> Outcome {
    let found = patient.examine(&[])?;
    let mut printed = String::new();
    for found in &found {
        writeln!(
            printed,
            "{} {}",
            found.instance.as_deref().unwrap_or("-"),
            found.check
        )?;
    }
    for line in [
        "master secrets",
        "worker shared-account",
        "worker connection",
    ] {
        ensure!(
            printed.lines().any(|printed| printed == line),
            "no `{line}` in\n{printed}"
        );
    }
    patient.carry_out(&found)?;
    patient.shell(&format!(
        "systemctl enable --now {MASTER_UNIT} {WORKER_UNIT}"
    ))?;
    Rest::new(patient.0).wait_for_worker("example", SOON)?;
    let output = patient.0.run(&["buildbot-conda", "doctor"])?.succeeded()?;
    ensure!(
        output.stdout.starts_with("no problems, no warnings, "),
        "{output}"
    );
    Ok(())
}

fn host(patient: &Patient<'_>) -> Outcome {
    let keep = format!("cp -p {CONFIGURATION} /root/config.toml");
    let put_back = format!("cp -p /root/config.toml {CONFIGURATION}; systemctl daemon-reload");
    patient.shell(&keep)?;
    patient.round(
        &format!("sed -i 's/^\\[master\\]/[master]\\ndirektory = \"x\"/' {CONFIGURATION}"),
        &[("configuration", "master", "problem", "unknown key")],
        &put_back,
    )?;
    patient.round(
        &format!("chmod o+w {CONFIGURATION}"),
        &[(
            "configuration",
            "",
            "problem",
            "is writable by accounts other than root",
        )],
        "",
    )?;
    patient.round(
        &format!("rm {CONFIGURATION}"),
        &[("configuration", "", "problem", "not found")],
        &put_back,
    )?;
    patient.round(
        &format!("sed -i 's/^\\[master\\]/[master]\\nuser = \"newcomer\"/' {CONFIGURATION}"),
        &[(
            "account",
            "master",
            "problem",
            "account `newcomer` not found",
        )],
        &put_back,
    )?;
    patient.round(
        "chmod a-x /usr/libexec/buildbot-conda/launcher",
        &[("package", "", "problem", "has mode 0644")],
        "",
    )?;
    patient.round(
        "touch /usr/sbin/needrestart; mv /etc/needrestart/conf.d/buildbot-conda.conf /root",
        &[("needrestart", "", "warning", "does not exclude workers")],
        "",
    )?;
    patient
        .shell("mv /root/buildbot-conda.conf /etc/needrestart/conf.d; rm /usr/sbin/needrestart")?;
    // A container has the clock of its host; this one has its own clock for a moment.
    patient.round(
        "mv /run/systemd/container /root; cat >/usr/local/bin/timedatectl <<'END'\n\
         #!/bin/sh\n[ \"$1\" != set-ntp ] || touch /root/synchronised\n\
         echo CanNTP=yes; if [ -e /root/synchronised ]; then echo NTPSynchronized=yes; else echo NTP=no; fi\nEND\n\
         chmod 755 /usr/local/bin/timedatectl",
        &[("clock", "", "warning", "is not synchronised")],
        "",
    )?;
    patient.shell("rm /usr/local/bin/timedatectl; mv /root/container /run/systemd")?;
    let state = "/var/lib/buildbot-conda/instances";
    patient.round(
        &format!("mount -t tmpfs -o size=1m none {state}"),
        &[("space", "", "problem", "MiB are free")],
        &format!("umount {state}"),
    )?;
    patient.round(
        &format!("mount -t tmpfs -o nr_inodes=100 none {state}"),
        &[("space", "", "problem", "of 100 inodes are free")],
        &format!("umount {state}"),
    )?;
    patient.round(
        "printf '[Service]\\nExecStart=/bin/true\\n' >/etc/systemd/system/display-manager.service; \
         systemctl daemon-reload; systemctl set-default graphical.target",
        &[("boot-target", "", "warning", "boots to a desktop")],
        "",
    )?;
    patient.shell("rm /etc/systemd/system/display-manager.service; systemctl daemon-reload")?;
    Ok(())
}

fn units(patient: &Patient<'_>) -> Outcome {
    patient.round(
        "systemctl mask buildbot-worker",
        &[("unit-masked", "worker", "problem", "is masked")],
        "",
    )?;
    patient.round(
        "systemctl disable buildbot-master; systemctl stop buildbot-worker",
        &[
            (
                "unit-enabled",
                "master",
                "warning",
                "does not start at boot",
            ),
            ("unit-state", "worker", "warning", "is stopped"),
        ],
        "",
    )?;
    patient.round(
        "cp /usr/lib/systemd/system/buildbot-worker.service /etc/systemd/system; systemctl daemon-reload",
        &[("unit-file", "worker", "warning", "replaces the package's unit")],
        "",
    )?;
    patient.round(
        &format!(
            "systemctl stop buildbot-worker; printf '[Service]\\nUser=bb-worker\\nWorkingDirectory={WORKER}\\n\
             ExecStart={PREFIX}/bin/buildbot-worker start --nodaemon {WORKER}\\n\
             [Install]\\nWantedBy=multi-user.target\\n' >/etc/systemd/system/buildbot-worker.service; \
             systemctl daemon-reload; systemctl start buildbot-worker"
        ),
        &[("unit-file", "worker", "problem", "overrides the package's unit")],
        "",
    )?;
    patient.round(
        "mkdir -p /etc/systemd/system/buildbot-master.service.d; cd /etc/systemd/system/buildbot-master.service.d; \
         printf '[Service]\\nType=simple\\n' >'simple type.conf'; printf '[Service]\\nWatchdogSec=1h\\n' >time.conf; \
         printf '[Service]\\nNice=5\\n' >harmless.conf; systemctl daemon-reload",
        &[
            ("unit-drop-ins", "master", "problem", "changes `Type`"),
            ("unit-drop-ins", "master", "warning", "`watchdog` in the configuration"),
        ],
        "",
    )?;
    let override_is_left = "test -e /etc/systemd/system/buildbot-master.service.d/harmless.conf";
    patient.shell(&format!(
        "{override_is_left}; rm -r /etc/systemd/system/buildbot-master.service.d"
    ))?;
    patient.round(
        &format!("sed -i 's/^\\[worker\\]/[worker]\\ndrain = \"7min\"/' {CONFIGURATION}"),
        &[(
            "unit-reload",
            "worker",
            "problem",
            "since the configuration of",
        )],
        "",
    )?;
    patient.round(
        "systemctl enable buildbot-worker@ghost",
        &[("unit-configured", "", "problem", "`worker@ghost`")],
        "",
    )?;
    patient.round(
        "systemctl stop buildbot-master; \
         echo 'import nowhere_at_all' >>/home/bb/master/master.cfg; ! systemctl start buildbot-master; \
         cp -p /home/bb/good.cfg /home/bb/master/master.cfg",
        &[("unit-state", "master", "problem", "nowhere_at_all")],
        "",
    )
}

fn files(patient: &Patient<'_>) -> Outcome {
    patient.shell("echo secret >/etc/buildbot-conda/credentials/door; chmod 600 /etc/buildbot-conda/credentials/door")?;
    patient.shell("buildbot-conda set master credentials.door door; systemctl daemon-reload")?;
    patient.round(
        "cd /etc/buildbot-conda; chmod 755 credentials; chmod 644 credentials/door",
        &[
            ("credentials", "", "problem", "(mode 0755)"),
            ("credentials", "master", "problem", "(mode 0644)"),
        ],
        "",
    )?;
    patient.round(
        "mv /etc/buildbot-conda/credentials/door /root",
        &[("credentials", "master", "problem", "not found")],
        "mv /root/door /etc/buildbot-conda/credentials",
    )?;
    patient.round(
        "touch /home/bb/master/by-root; mkdir /home/bb/master/also; chmod o+r /home/bb/master/master.cfg; \
         chmod o+x /home/bb /home/bb/master",
        &[
            ("ownership", "master", "problem", "`/home/bb/master/by-root`"),
            ("secrets", "master", "problem", "`/home/bb/master/master.cfg`"),
        ],
        "",
    )?;
    patient.round(
        &format!("systemctl stop buildbot-worker; echo 4194000 >{WORKER}/twistd.pid; chown bb-worker: {WORKER}/twistd.pid"),
        &[("pid-file", "worker", "warning", "which does not exist")],
        "",
    )?;
    patient.round(
        &format!(
            // Upstream's command gives up following the log after ten seconds, few on a busy machine.
            "cd {WORKER}; runuser -u bb-worker -- {PREFIX}/bin/buildbot-worker start {WORKER} || true; \
             until kill -0 $(cat twistd.pid); do sleep 0.1; done"
        ),
        &[("pid-file", "worker", "problem", "was started by hand")],
        "",
    )?;
    patient.round(
        &format!("chown root {MASTER}"),
        &[("directory", "master", "problem", "is owned by user 0")],
        "",
    )?;
    patient.round(
        &format!("cp -p {MASTER}/buildbot.tac /root; rm {MASTER}/buildbot.tac"),
        &[("directory", "master", "problem", "has no `buildbot.tac`")],
        &format!("cp -p /root/buildbot.tac {MASTER}"),
    )
}

fn environment(patient: &Patient<'_>) -> Outcome {
    patient.round(
        &format!(
            "mv {PACKAGES}/sqlalchemy /home/bb/aside; touch {PREFIX}/conda-meta/history; \
             install -d -o bb /home/bb/.conda /home/bb/.conda/envs /home/bb/.conda/envs/buildbot"
        ),
        &[
            (
                "python",
                "master",
                "problem",
                "`sqlalchemy` (ModuleNotFoundError",
            ),
            ("packages", "master", "problem", "sqlalchemy 2"),
            ("changed", "master", "warning", "after the service started"),
            (
                "resolution",
                "master",
                "warning",
                "`/home/bb/.conda/envs/buildbot`",
            ),
        ],
        "",
    )?;
    let plugin = format!("{PACKAGES}/plugin-1.dist-info");
    patient.round(
        &format!(
            "mkdir {plugin}; printf 'Metadata-Version: 2.1\\nName: plugin\\nVersion: 1\\n' >{plugin}/METADATA; \
             printf '[buildbot.steps]\\nnone = nowhere_at_all:Step\\n' >{plugin}/entry_points.txt; \
             find {PACKAGES}/buildbot -name '*.pyc' -delete"
        ),
        &[
            ("plugins", "master", "warning", "nowhere_at_all"),
            ("bytecode", "master", "warning", "have no bytecode"),
        ],
        &format!("rm -r {plugin}"),
    )?;
    patient.round(
        &format!("mv {PREFIX}/conda-meta /home/bb/conda-meta"),
        &[(
            "environment",
            "master",
            "problem",
            "contains no `conda-meta`",
        )],
        &format!("mv /home/bb/conda-meta {PREFIX}/conda-meta"),
    )?;
    // What conda-forge's packages do not bring along.
    patient.round(
        &format!("mv {PACKAGES}/msgpack /home/bb/aside"),
        &[(
            "python",
            "worker",
            "problem",
            "`msgpack` (ModuleNotFoundError",
        )],
        "",
    )?;
    // Several things at once: all commands in order, each once. The environment that two instances lack is created
    // once, by a conda that never replaces an existing one, and stopped instances are started when that is possible.
    patient.round(
        &format!(
            "systemctl stop {WORKER_UNIT} {MASTER_UNIT}; systemctl disable {MASTER_UNIT}; mv {PREFIX} /home/bb/whole; \
             ! systemctl start {MASTER_UNIT}"
        ),
        &[
            ("environment", "master", "problem", "not found"),
            ("unit-state", "master", "problem", "has failed"),
            ("unit-state", "worker", "warning", "is stopped"),
            ("unit-enabled", "master", "warning", "does not start at boot"),
        ],
        "",
    )
}

fn buildbot(patient: &Patient<'_>) -> Outcome {
    patient.round(
        &format!(
            "echo 'c[\"nonsense\"] = 1' >>{MASTER}/master.cfg; cp -p {WORKER}/buildbot.tac /root/worker.tac; \
             echo 'import nowhere_at_all' >>{WORKER}/buildbot.tac"
        ),
        &[
            ("checkconfig", "master", "problem", "nonsense"),
            ("tac", "worker", "problem", "nowhere_at_all"),
        ],
        &format!("cp -p /home/bb/good.cfg {MASTER}/master.cfg; cp -p /root/worker.tac {WORKER}/buildbot.tac"),
    )?;
    let inside = "from buildbot.plugins import schedulers as d, steps as s, util as u, worker as w\n\
                  c[\"workers\"].append(w.LocalWorker(\"inside\"))\n\
                  f = u.BuildFactory([s.MasterShellCommand(\"make\"), \
                  s.FileUpload(workersrc=\"a\", masterdest=\"/srv/artifacts/a\")])\n\
                  c[\"builders\"].append(u.BuilderConfig(name=\"own\", workernames=[\"inside\"], factory=f))\n\
                  c[\"schedulers\"].append(d.ForceScheduler(name=\"own\", builderNames=[\"own\"]))\n";
    patient.round(
        &format!("cat >>{MASTER}/master.cfg <<'END'\n{inside}END"),
        &[(
            "sandbox",
            "master",
            "warning",
            "MasterShellCommand in `own`, an upload to `/srv/artifacts/a` in `own`, the LocalWorker `inside`",
        )],
        // What was printed has been done.
        &format!(
            "systemctl show -p ProtectSystem {MASTER_UNIT} | grep -x ProtectSystem=no; \
             cp -p /home/bb/good.cfg {MASTER}/master.cfg; buildbot-conda unset master hardening; \
             systemctl daemon-reload; systemctl restart {MASTER_UNIT}"
        ),
    )?;
    patient.round(
        &format!("sed -i 's/^allow_shutdown = .*/allow_shutdown = None/' {WORKER}/buildbot.tac"),
        &[("allow-shutdown", "worker", "warning", "does not allow")],
        "",
    )?;
    let newer = "import sqlite3; c = sqlite3.connect('state.sqlite'); \
                 c.execute(\"update alembic_version set version_num = '999'\"); c.commit()";
    patient.round(
        &format!(
            "buildbot-conda backup master; systemctl stop buildbot-master; cd {MASTER}; \
             runuser -u bb -- {PREFIX}/bin/python -c \"$(cat <<'END'\n{newer}\nEND\n)\""
        ),
        &[("database", "master", "problem", "is newer than Buildbot")],
        "",
    )?;
    patient.round(
        &format!(
            "systemctl stop {MASTER_UNIT}; \
             systemd-run --quiet --unit=squatter {PREFIX}/bin/python -m http.server --bind 127.0.0.1 8010; \
             until grep -q ':1F4A .* 0A ' /proc/net/tcp; do sleep 0.1; done"
        ),
        &[("ports", "master", "problem", "of `squatter.service`")],
        &format!("systemctl start {MASTER_UNIT}"),
    )
}

fn connection(patient: &Patient<'_>) -> Outcome {
    patient.round(
                &format!(
            "systemctl stop {MASTER_UNIT}; while grep -q '\"connected\"' {STATUS}; do sleep 0.1; done"
        ),
        &[("connection", "worker", "problem", "127.0.0.1:9989")],
        "",
    )?;
    let tac = format!("{WORKER}/buildbot.tac");
    let put_back = format!("cp -p /root/worker.tac {tac}; systemctl restart {WORKER_UNIT}");
    patient.shell(&format!(
        "cp -p {tac} /root/worker.tac; systemctl stop {WORKER_UNIT}"
    ))?;
    patient.round(
        &format!("sed -i \"s/^buildmaster_host = .*/buildmaster_host = 'nowhere.invalid'/\" {tac}"),
        &[(
            "connection",
            "worker",
            "problem",
            "the host name of its master, nowhere.invalid:9989",
        )],
        &format!("cp -p /root/worker.tac {tac}"),
    )?;
    patient.round(
        &format!("sed -i 's/^port = .*/port = 8010/' {tac}"),
        &[("connection", "worker", "problem", "does not accept workers")],
        &format!("cp -p /root/worker.tac {tac}"),
    )?;
    let port = 9989;
    let tls = format!("tls:127.0.0.1:{port}");
    patient.round(
        &format!(
            "sed -i \"s/^buildmaster_host = .*/buildmaster_host = None/; s/^port = .*/port = None/; \
             s/^connection_string = .*/connection_string = '{tls}'/\" {tac}"
        ),
        &[("connection", "worker", "problem", "is not trusted")],
        &format!("cp -p /root/worker.tac {tac}"),
    )?;
    patient.shell(&format!(
        "sed -i \"s/^passwd = .*/passwd = 'wrong'/\" {tac}; systemctl restart {WORKER_UNIT}"
    ))?;
    patient.0.wait_until("the worker is refused", SOON, || {
        let status = patient.0.read_file(STATUS)?;
        Ok(status.contains("\"refused\"").then_some(()))
    })?;
    patient.round(
        "true",
        &[(
            "connection",
            "worker",
            "problem",
            "check worker name and password",
        )],
        &put_back,
    )
}

/// `--fix` shows and does what is safe, and nothing else.
fn safe_mending(patient: &Patient<'_>) -> Outcome {
    patient.shell(&format!(
        "chmod 644 /etc/buildbot-conda/credentials/door; touch {MASTER}/by-root-again; systemctl disable buildbot-worker"
    ))?;
    let commands = [
        "chmod 0600 /etc/buildbot-conda/credentials/door",
        "buildbot-conda service own master",
    ];
    let checks = ["credentials", "ownership", "unit-enabled"];
    let only = [
        "--only", checks[0], "--only", checks[1], "--only", checks[2],
    ];
    let fix = [&["buildbot-conda", "doctor", "--fix"], &only[..]].concat();
    let shown = patient.0.run(&[&fix[..], &["--dry-run"]].concat())?;
    for command in commands {
        ensure!(shown.stdout.lines().any(|line| line == command), "{shown}");
    }
    let before = patient.examine(&checks)?;
    ensure!(before.len() == 3, "{before:?}");
    let fixed = patient.0.run(&fix)?.succeeded()?;
    ensure!(
        fixed.stderr == format!("{}\n{}\n", commands[0], commands[1]),
        "{fixed}"
    );
    ensure!(
        fixed.stdout.contains("warning: worker: unit-enabled"),
        "{fixed}"
    );
    ensure!(patient.examine(&["credentials", "ownership"])?.is_empty());
    patient.shell("systemctl enable buildbot-worker")?;
    let nothing = patient.0.run(&fix)?.succeeded()?;
    ensure!(
        nothing.stderr.starts_with("no problem can be fixed"),
        "{nothing}"
    );
    Ok(())
}

/// Other accounts see less, and are told so; and what the service user made up reaches neither root nor root's
/// terminal.
fn others_than_root(patient: &Patient<'_>) -> Outcome {
    let doctor = ["buildbot-conda", "doctor"];
    for user in ["nobody", "bb"] {
        let output = patient.0.run_as(user, &doctor)?.succeeded()?;
        ensure!(
            output.stdout.contains("not checked (`--all` shows them)"),
            "{output}"
        );
    }
    let refused = patient
        .0
        .run_as("nobody", &["buildbot-conda", "doctor", "--fix"])?;
    ensure!(refused.status <= 1, "{refused}");
    let forged = format!(
        "#!/bin/sh\nid -u >>{MASTER}/who\n\
         printf '{{\"version\":\"\\\\u001b[2J\",\"prefix\":\"/\",\"library\":\"\",\"plugins\":{{}},\"bytecode\":null,\
         \"tac\":null,\"editable\":[],\"imports\":{{\"; reboot\":\"\\\\n$(reboot)\"}}}}'\n"
    );
    patient.shell(&format!("mv {PREFIX}/bin/python {PREFIX}/bin/kept"))?;
    patient
        .0
        .write_file(&format!("{PREFIX}/bin/python"), &forged, "0755", "bb")?;
    let output = patient.0.run(&[
        "buildbot-conda",
        "doctor",
        "master",
        "--only",
        "python",
        "--only",
        "checkconfig",
    ])?;
    ensure!(
        output.status == 1 && output.stdout.contains(r"Python \u{1b}[2J cannot import"),
        "{output}"
    );
    ensure!(!output.stdout.contains('\u{1b}'), "{output}");
    let commands = output
        .stdout
        .lines()
        .filter(|line| line.starts_with("    "));
    ensure!(
        !commands.into_iter().any(|line| line.contains("reboot")),
        "{output}"
    );
    let who = patient.shell(&format!("sort -u {MASTER}/who; id -u bb; rm {MASTER}/who"))?;
    let ids: Vec<&str> = who.lines().collect();
    ensure!(ids.len() == 2 && ids[0] == ids[1], "{who}");
    patient.shell(&format!("mv {PREFIX}/bin/kept {PREFIX}/bin/python"))?;
    Ok(())
}
