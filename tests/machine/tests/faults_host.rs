//! Faults of the host of a service: missing things, a configuration that changes while the service runs, upgrades of
//! the package, secrets, sandboxes and unusual places. Services report what is wrong, and no build is lost.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use buildbot_conda_machine::{
    CONFIGURATION, Environment, LATER, MASTER, MASTER_UNIT, Machine, Outcome, PREFIX, Release,
    SOON, Stage, Version, WORKER, WORKER_UNIT, fault, latest_package, on_each_release, scripted,
    set_up,
};

on_each_release! {
    what_is_missing_fails_once_with_its_reason,
    a_unit_written_by_hand_is_left_alone,
    a_configuration_that_systemd_has_not_read_is_not_silent,
    an_upgrade_of_the_package_loses_no_build,
    secrets_stay_where_they_are_needed,
    exposure_stays_below_its_limits_and_sudo_works,
    every_place_works_in_every_profile,
    directories_with_hostile_names_boot_start_and_build,
    an_odd_account_and_an_older_worker_build,
}

const BOTH: [&str; 2] = [MASTER_UNIT, WORKER_UNIT];

/// Starts a unit, which must fail with all of `words` shown, and without a retry.
fn ensure_fails_once(stage: &Stage, unit: &str, ending: &str, words: &[&str]) -> Outcome {
    let before = stage.machine.journal_cursor()?;
    let start = stage
        .machine
        .run_within(LATER, &["systemctl", "start", unit])?;
    ensure!(start.status != 0, "`{unit}` starts");
    // Messages of systemd's own child may be in the journal without the unit that they belong to.
    let cursor = format!("--after-cursor={before}");
    stage.machine.run(&["journalctl", "--sync"])?.succeeded()?;
    let journal = stage
        .machine
        .run(&["journalctl", "--no-pager", &cursor])?
        .succeeded()?;
    let status = stage.machine.status(unit)?.stdout;
    let output = format!("{start}{status}{}", journal.stdout);
    for word in words {
        ensure!(output.contains(word), "nothing about `{word}` in\n{output}");
    }
    // A unit that is going to be restarted is `activating` until then.
    let now = stage.property(unit, "ActiveState")?;
    let restarts = stage.property(unit, "NRestarts")?;
    ensure!(
        now == ending && restarts == "0",
        "`{unit}` is `{now}` after {restarts} restarts"
    );
    Ok(())
}

fn what_is_missing_fails_once_with_its_reason(release: Release) -> Outcome {
    let stage = Stage::new(release)?;
    let good = stage.machine.read_file(CONFIGURATION)?;
    let configure = |text: &str| {
        stage
            .machine
            .write_file(CONFIGURATION, text, "0644", "root")?;
        stage.systemctl(&["reset-failed"])?;
        stage.systemctl(&["daemon-reload"])
    };
    let own_directory = format!("directory = \"{WORKER}\"");
    let local = "/etc/systemd/system/buildbot-worker.service.d/local.conf";

    fault("missing-credential", release, || {
        stage.configure("worker", "credentials = { password = \"no-such-file\" }")?;
        ensure_fails_once(
            &stage,
            WORKER_UNIT,
            "failed",
            &["/etc/buildbot-conda/credentials/no-such-file", "`password`"],
        )?;
        configure(&good)
    })?;

    fault("missing-mount", release, || {
        // As a line of fstab for a disk that is gone.
        stage.machine.write_file(
            "/etc/systemd/system/srv-data.mount",
            "[Mount]\nWhat=/dev/disk/by-label/gone\nWhere=/srv/data\nType=ext4\n",
            "0644",
            "root",
        )?;
        configure(&good.replace(&own_directory, "directory = \"/srv/data/worker\""))?;
        stage
            .machine
            .shell(&format!(
                "mkdir -p /srv/data; cp -a {WORKER} /srv/data/worker"
            ))?
            .succeeded()?;
        // Not even started, as what it needs is not there.
        ensure_fails_once(
            &stage,
            WORKER_UNIT,
            "inactive",
            &["srv-data.mount", "Dependency failed for buildbot-worker"],
        )?;
        configure(&good)
    })?;

    fault("missing-path", release, || {
        // For a bind mount, systemd may name the other side.
        for (line, reason) in [
            (
                "ReadWritePaths=/srv/no-such-directory",
                "/srv/no-such-directory: No such file",
            ),
            (
                "BindPaths=/srv/no-such-directory:/mnt",
                "No such file or directory",
            ),
        ] {
            stage
                .machine
                .write_file(local, &format!("[Service]\n{line}\n"), "0644", "root")?;
            stage.systemctl(&["daemon-reload"])?;
            ensure_fails_once(&stage, WORKER_UNIT, "failed", &["226/NAMESPACE", reason])?;
            stage.systemctl(&["reset-failed", WORKER_UNIT])?;
        }
        stage.machine.run(&["rm", local])?.succeeded()?;
        // What our own settings name and is not there is refused by the launcher, which knows what it was for.
        configure(&good.replace("[worker]\n", "[worker]\nhardening = \"strict\"\n"))?;
        stage
            .machine
            .run(&["mv", PREFIX, "/root/moved-away"])?
            .succeeded()?;
        ensure_fails_once(&stage, WORKER_UNIT, "failed", &[PREFIX])?;
        stage
            .machine
            .run(&["mv", "/root/moved-away", PREFIX])?
            .succeeded()?;
        configure(&good)
    })?;

    // Everything is fixed.
    stage.start()
}

fn a_unit_written_by_hand_is_left_alone(release: Release) -> Outcome {
    let stage = Stage::new(release)?;
    stage.machine.write_file(
        "/etc/systemd/system/buildbot-worker.service",
        "[Service]\nExecStart=/bin/sleep infinity\n",
        "0644",
        "root",
    )?;
    stage.configure("worker", "watchdog = \"4s\"")?;

    fault("hand-made-unit", release, || {
        stage.systemctl(&["start", WORKER_UNIT])?;
        let pid = stage.main_pid(WORKER_UNIT)?;
        ensure!(stage.property(WORKER_UNIT, "DropInPaths")?.is_empty());
        ensure!(stage.property(WORKER_UNIT, "WatchdogUSec")? == "0");
        ensure!(stage.property(WORKER_UNIT, "User")?.is_empty());
        // Nor do our verbs reach for a process that is not ours.
        let drain = stage.machine.run(&["buildbot-conda", "drain", "worker"])?;
        ensure!(drain.status == 1, "{drain}");
        stage.systemctl(&["start", MASTER_UNIT])?;
        // Longer than the watchdog that it must not have.
        thread::sleep(Duration::from_secs(5));
        ensure!(stage.main_pid(WORKER_UNIT)? == pid);
        Ok(())
    })
}

fn a_configuration_that_systemd_has_not_read_is_not_silent(release: Release) -> Outcome {
    let stage = Stage::new(release)?;
    let good = stage.machine.read_file(CONFIGURATION)?;
    let edit = |text: String| {
        ensure!(text != good, "nothing changes");
        stage
            .machine
            .write_file(CONFIGURATION, &text, "0644", "root")
    };
    // The second of a file's time stamp may be the one of systemd's reading.
    let read_again = || {
        stage
            .machine
            .write_file(CONFIGURATION, &good, "0644", "root")?;
        thread::sleep(Duration::from_millis(1100));
        stage.systemctl(&["daemon-reload"])
    };
    let changed = "the configuration was changed after systemd read it";

    fault("stale-configuration", release, || {
        // systemd forgets a unit that nothing refers to, and reads it at its start: then there is nothing to warn about.
        stage.systemctl(&["enable", WORKER_UNIT])?;
        read_again()?;
        for (line, word) in [
            ("drain = \"5min\"", changed),
            ("directory = \"/home/bb/elsewhere\"", changed),
            ("credentials = { password = \"password\" }", changed),
            ("hardening = \"strict\"", changed),
            (
                "user = \"daemon\"",
                "systemd started `buildbot-worker.service` as `bb`",
            ),
        ] {
            stage
                .machine
                .shell(&format!(
                    "[ -e /home/bb/elsewhere ] || cp -a {WORKER} /home/bb/elsewhere"
                ))?
                .succeeded()?;
            // The table has one directory, whichever it is.
            let table = format!("[worker]\ndirectory = \"{WORKER}\"\n");
            let changed_table = if line.starts_with("directory") {
                format!("[worker]\n{line}\n")
            } else {
                format!("{table}{line}\n")
            };
            edit(good.replace(&table, &changed_table))?;
            let before = stage.machine.journal_cursor()?;
            let start = stage.machine.run(&["systemctl", "start", WORKER_UNIT])?;
            ensure!(
                start.stderr.contains("changed on disk"),
                "systemctl does not warn about `{line}`: {start}"
            );
            ensure!(stage.property(WORKER_UNIT, "NeedDaemonReload")? == "yes");
            ensure!(
                (start.status == 0) == (word == changed),
                "`{line}`: {start}"
            );
            // By time instead of by invocation: journald does not find the invocation of a process that has exited by
            // the time its line is read.
            let journal = stage.machine.journal_after(WORKER_UNIT, &before)?;
            ensure!(
                journal.contains(word),
                "nothing about `{word}` for `{line}` in\n{journal}"
            );
            stage
                .machine
                .run(&["systemctl", "stop", WORKER_UNIT])?
                .succeeded()?;
            read_again()?;
        }
        // An instance that systemd has never heard of.
        edit(format!(
            "{good}\n[\"worker@new\"]\ndirectory = \"/home/bb/elsewhere\"\n"
        ))?;
        let unit = "buildbot-worker@new.service";
        ensure_fails_once(
            &stage,
            unit,
            "failed",
            &["systemd started `buildbot-worker@new.service` without its settings"],
        )?;
        stage.systemctl(&["daemon-reload"])?;
        let start = stage.systemctl(&["start", unit])?;
        ensure!(!start.stderr.contains("changed on disk"), "{start}");
        ensure!(!stage.machine.journal(unit)?.contains(changed));
        Ok(())
    })
}

/// The package under test with a higher version, and a launcher that prints `mark`.
fn newer_package(mark: &str, scratch: &Path) -> anyhow::Result<PathBuf> {
    let tree = scratch.join("tree");
    let dpkg = |words: &[&str], paths: [&Path; 2]| {
        let output = Command::new("dpkg-deb").args(words).args(paths).output()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    };
    dpkg(&["--raw-extract"], [&latest_package()?, &tree])?;
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    let lines = text.lines().map(|line| {
        if line.starts_with("Version: ") {
            "Version: 99.0"
        } else {
            line
        }
    });
    fs::write(&control, lines.collect::<Vec<_>>().join("\n") + "\n")?;
    let launcher = tree.join("usr/libexec/buildbot-conda/launcher");
    fs::rename(&launcher, launcher.with_extension("real"))?;
    let script = format!(
        "#!/bin/sh\necho '{mark}'\nexec /usr/libexec/buildbot-conda/launcher.real \"$@\"\n"
    );
    fs::write(&launcher, script)?;
    fs::set_permissions(&launcher, fs::Permissions::from_mode(0o755))?;
    let package = scratch.join("newer.deb");
    dpkg(
        &["--root-owner-group", "-Zgzip", "--build"],
        [&tree, &package],
    )?;
    Ok(package)
}

fn an_upgrade_of_the_package_loses_no_build(release: Release) -> Outcome {
    const MARK: &str = "this is the new launcher";
    let scratch = std::env::temp_dir().join(format!(
        "buildbot-conda-newer-{release}-{}",
        std::process::id()
    ));
    fs::create_dir_all(&scratch).with_context(|| format!("create `{}`", scratch.display()))?;
    let stage = Stage::running(release)?;
    stage.systemctl(&["enable", MASTER_UNIT, WORKER_UNIT])?;
    let result = newer_package(MARK, &scratch)
        .and_then(|package| stage.machine.copy_in(&package, "/root/newer.deb"));
    fs::remove_dir_all(&scratch).with_context(|| format!("remove `{}`", scratch.display()))?;
    result?;

    fault("package-upgrade", release, || {
        let pids = BOTH.map(|unit| stage.main_pid(unit).unwrap_or_default());
        let request = stage.begin_build("sleep 10")?;
        stage
            .machine
            .run(&["dpkg", "--install", "/root/newer.deb"])?
            .succeeded()?;
        let version = stage.machine.run(&[
            "dpkg-query",
            "--show",
            "--showformat=${Version}",
            "buildbot-conda",
        ])?;
        ensure!(version.text() == "99.0", "{version}");
        stage.ensure_success(request)?;
        ensure!(
            stage.rest().builds_of(request)?.len() == 1,
            "the build was interrupted"
        );
        for (unit, pid) in BOTH.into_iter().zip(&pids) {
            ensure!(stage.main_pid(unit)? == *pid, "`{unit}` was restarted");
            ensure!(!stage.machine.journal(unit)?.contains(MARK));
        }
        for unit in BOTH {
            stage.systemctl(&["restart", unit])?;
            let journal = stage.machine.journal(unit)?;
            ensure!(journal.contains(MARK), "{journal}");
        }
        stage.rest().wait_for_worker("example", SOON)?;
        stage.build("true")
    })?;
    Ok(())
}

/// A master and a worker that know the worker's password, and the master another secret, from credentials.
fn with_credentials(stage: &Stage) -> Outcome {
    for (name, text) in [("password", "s3cret-password"), ("token", "s3cret-token")] {
        stage.machine.write_file(
            &format!("/etc/buildbot-conda/credentials/{name}"),
            text,
            "0600",
            "root",
        )?;
    }
    stage.configure(
        "master",
        "credentials = { password = \"password\", token = \"token\" }",
    )?;
    stage.configure("worker", "credentials = { password = \"password\" }")?;
    let configuration = scripted()
        .replace("import schedulers,", "import schedulers, secrets,")
        .replace(
            "Worker(\"example\", \"secret\")",
            "Worker(\"example\", util.Secret(\"password\"))",
        );
    stage.write_master_configuration(&format!(
        "{configuration}
import os
c['secretsProviders'] = [secrets.SecretInAFile(dirname=os.environ['CREDENTIALS_DIRECTORY'])]
with open(os.path.join(os.environ['CREDENTIALS_DIRECTORY'], 'token')) as file:
    c['title'] = 'a token of %d letters' % len(file.read())
"
    ))?;
    stage.edit_tac("s|^passwd = .*|passwd = open(os.environ['CREDENTIALS_DIRECTORY'] + '/password').read().strip()|")
}

fn secrets_stay_where_they_are_needed(release: Release) -> Outcome {
    let stage = Stage::new(release)?;
    with_credentials(&stage)?;

    fault("secrets", release, || {
        stage.start()?;
        stage.systemctl(&["reload", MASTER_UNIT])?;
        let request =
            stage.begin_build("env; cat /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'; sleep 3")?;
        let seen = stage.machine.shell(
            "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'; \
             cat /run/buildbot-conda/*/status.json; systemctl show 'buildbot-*'; systemctl status 'buildbot-*' || true",
        )?;
        let build = stage.ensure_success(request)?;
        let log = stage.rest().log(&build, "wait")?;
        ensure!(
            log.contains("LANG=C.UTF-8"),
            "the build has not shown its environment:\n{log}"
        );
        ensure!(!log.contains("CREDENTIALS_DIRECTORY"), "{log}");
        stage.systemctl(&["reload", WORKER_UNIT])?;
        stage.rest().wait_for_worker("example", SOON)?;
        // A failing check of the configuration talks, too.
        stage.edit(&format!("{MASTER}/master.cfg"), "$a c['mistake'] = True")?;
        let reload = stage.machine.run(&["systemctl", "reload", MASTER_UNIT])?;
        ensure!(reload.status != 0, "{reload}");
        stage.machine.run(&["journalctl", "--sync"])?.succeeded()?;
        let journal = stage
            .machine
            .run(&["journalctl", "--no-pager", "--all", "--output=export"])?
            .succeeded()?;
        ensure!(
            journal
                .stdout
                .contains("Unknown BuildmasterConfig key mistake"),
            "the journal is not complete"
        );
        for (name, text) in [
            ("a process or a status", &seen.stdout),
            ("a build's log", &log),
            ("the journal", &journal.stdout),
        ] {
            for secret in ["s3cret-password", "s3cret-token"] {
                let line = text.lines().find(|line| line.contains(secret));
                ensure!(line.is_none(), "{name} tells {line:?}");
            }
        }
        Ok(())
    })
}

/// The exposure that `systemd-analyze security` finds: 0 to 10, less is better.
fn exposure(stage: &Stage, unit: &str) -> anyhow::Result<f64> {
    let analysis = stage
        .machine
        .run(&["systemd-analyze", "security", "--no-pager", unit])?
        .succeeded()?;
    let line = analysis
        .stdout
        .lines()
        .find(|line| line.contains("Overall exposure level"))
        .with_context(|| format!("find the exposure in {analysis}"))?;
    let figure = line
        .split_whitespace()
        .find_map(|word| word.parse().ok())
        .with_context(|| format!("find a figure in `{line}`"))?;
    eprintln!("exposure of `{unit}`: {figure}");
    Ok(figure)
}

fn exposure_stays_below_its_limits_and_sudo_works(release: Release) -> Outcome {
    let stage = Stage::new(release)?;
    stage.machine.write_file(
        "/etc/sudoers.d/bb",
        "bb ALL=(ALL) NOPASSWD: ALL\n",
        "0440",
        "root",
    )?;
    stage.machine.write_file(
        &format!("{PREFIX}/conda-meta/state"),
        r#"{"env_vars": {"data_place": "there"}}"#,
        "0644",
        "root",
    )?;
    let condarc = "envvars_force_uppercase: false\n";
    stage
        .machine
        .write_file("/home/bb/.condarc", condarc, "0644", "bb")?;
    stage.start()?;

    let places = || -> anyhow::Result<[String; 2]> {
        let script = "env | grep -i ^data_place=";
        let log = stage.build(script)?;
        let of_build = log
            .lines()
            .map(str::trim)
            .find(|line| line.ends_with("=there"));
        let words = ["buildbot-conda", "run", "worker", "--", "sh", "-c", script];
        let of_run = stage.machine.run(&words)?.succeeded()?;
        Ok([of_build.unwrap_or_default(), of_run.text()].map(str::to_owned))
    };
    fault("condarc", release, || {
        let found = places()?;
        ensure!(found == ["data_place=there"; 2], "{found:?}");
        Ok(())
    })?;
    fault("shared-memory", release, || {
        let made = stage.machine.run_as("bb", &["ipcmk", "-M", "4096"])?;
        let made = made.succeeded()?;
        let number = made
            .text()
            .rsplit(' ')
            .next()
            .unwrap_or_default()
            .to_owned();
        stage.systemctl(&["restart", MASTER_UNIT, WORKER_UNIT])?;
        stage.rest().wait_for_worker("example", SOON)?;
        let kept = ["ipcrm", "--shmem-id", &number];
        stage.machine.run(&kept)?.succeeded()?;
        Ok(())
    })?;
    fault("exposure-master", release, || {
        let figure = exposure(&stage, MASTER_UNIT)?;
        ensure!(figure <= 1.5, "{figure}");
        Ok(())
    })?;
    fault("standard-sudo", release, || {
        let log = stage.build("echo \"$(sudo -n id -un) and $(id -un)\"")?;
        ensure!(log.contains("root and bb"), "{log}");
        Ok(())
    })?;
    fault("exposure-worker", release, || {
        stage.configure("worker", "hardening = \"strict\"")?;
        stage.systemctl(&["restart", WORKER_UNIT])?;
        stage.rest().wait_for_worker("example", SOON)?;
        // The home is empty for it, and so `run` does without as well.
        let found = places()?;
        ensure!(found == ["DATA_PLACE=there"; 2], "{found:?}");
        // What systemd runs for a reload is in the same sandbox.
        stage.systemctl(&["reload", WORKER_UNIT])?;
        stage.rest().wait_for_worker("example", SOON)?;
        stage.build("true")?;
        let figure = exposure(&stage, WORKER_UNIT)?;
        ensure!(figure <= 3.1, "{figure}");
        Ok(())
    })
}

fn every_place_works_in_every_profile(release: Release) -> Outcome {
    let mut layers = set_up(release)?;
    let mut environments = vec![PREFIX.to_owned()];
    for prefix in ["/srv/conda/envs/buildbot", "/opt/envs/buildbot"] {
        layers = layers.with(
            Environment::install(Version::V4_3_0, prefix)?
                .tree()
                .to_path_buf(),
        );
        environments.push(prefix.to_owned());
    }
    let stage = Stage {
        machine: Machine::boot(layers)?,
    };
    stage.write_master_configuration(&scripted())?;
    stage
        .machine
        .shell(&format!(
            "for place in srv opt; do install -d -o bb -g bb /$place/bb; \
             cp -a {MASTER} /$place/bb/master; cp -a {WORKER} /$place/bb/worker; done; chown bb: /home/bb"
        ))?
        .succeeded()?;

    fault("home-srv-opt", release, || {
        for profile in ["standard", "strict", "none"] {
            for (index, directory) in ["/home/bb", "/srv/bb", "/opt/bb"].into_iter().enumerate() {
                // Directory and environment in different places, another pair each time.
                let shift = ["standard", "strict", "none"]
                    .iter()
                    .position(|name| *name == profile);
                let environment = &environments[(index + shift.unwrap_or_default()) % 3];
                let text = format!(
                    "[defaults]\nconda-env = \"{environment}\"\nhardening = \"{profile}\"\n\
                     [master]\ndirectory = \"{directory}/master\"\n[worker]\ndirectory = \"{directory}/worker\"\n"
                );
                stage
                    .machine
                    .write_file(CONFIGURATION, &text, "0644", "root")?;
                stage.systemctl(&["daemon-reload"])?;
                stage.start().with_context(|| text.clone())?;
                let log = stage
                    .build("pwd; python -c 'import sys; print(sys.prefix)'; touch here; echo $HOME >there")
                    .with_context(|| text.clone())?;
                for expected in [
                    format!("{directory}/worker/slow/build"),
                    environment.clone(),
                ] {
                    ensure!(
                        log.lines().any(|line| line == expected),
                        "no `{expected}` in\n{text}\n{log}"
                    );
                }
                stage.systemctl(&["stop", WORKER_UNIT, MASTER_UNIT])?;
            }
        }
        Ok(())
    })
}

/// Directories that a careless unit file, script or command line would read as something else.
const HOSTILE: [&str; 13] = [
    "/srv/a b  c",
    "/srv/blank ",
    "/srv/%n %i %% 100%",
    "/srv/a \"b\" 'c'",
    "/srv/it's",
    "/srv/a\\b\\\\c",
    "/srv/backslash\\",
    "/srv/a:b",
    "/-x/-y",
    "/!srv/|a",
    "/srv/#a;b",
    "/srv/$HOME${x}`y`",
    "/srv/é\u{a0}船",
];

/// The same for masters, one after the other: fewer masters, each with several of the names.
const HOSTILE_MASTERS: [(&str, &str); 3] = [
    ("/srv/%n 100%/\"b\" it's \\", "standard"),
    ("/srv/a:b/#c;d/$HOME${x}`y`", "strict"),
    ("/-x/!y/|z é\u{a0}船 ", "strict"),
];

/// `text` as a basic string of TOML.
fn toml_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn copy_instance(stage: &Stage, source: &str, destination: &str) -> Outcome {
    let script = r#"mkdir -p "$(dirname "$1")"; cp -a "$0" "$1""#;
    stage
        .machine
        .run(&["sh", "-euc", script, source, destination])?
        .succeeded()?;
    Ok(())
}

fn directories_with_hostile_names_boot_start_and_build(release: Release) -> Outcome {
    let mut stage = Stage::new(release)?;
    let mut tables = String::new();
    let mut workers = String::new();
    for (number, directory) in HOSTILE.iter().enumerate() {
        copy_instance(&stage, WORKER, directory)?;
        let script =
            format!(r#"sed -i "s/^workername = .*/workername = 'h{number}'/" "$0/buildbot.tac""#);
        stage
            .machine
            .run(&["sh", "-euc", &script, directory])?
            .succeeded()?;
        // The strict profile if it is possible: bind mounts do not support quotes.
        let profile = if directory.contains(['"', '\'']) || number % 2 == 0 {
            "standard"
        } else {
            "strict"
        };
        tables += &[
            &format!("[\"worker@h{number}\"]\n"),
            &format!(
                "directory = {}\nhardening = \"{profile}\"\n",
                toml_text(directory)
            ),
        ]
        .map(String::as_str)
        .concat();
        workers += &[
            "worker.Worker(\"h",
            &number.to_string(),
            "\", \"secret\"), ",
        ]
        .concat();
    }
    for (number, (directory, profile)) in HOSTILE_MASTERS.iter().enumerate() {
        tables += &[
            &format!("[\"master@h{number}\"]\n"),
            &format!(
                "directory = {}\nhardening = \"{profile}\"\n",
                toml_text(directory)
            ),
        ]
        .map(String::as_str)
        .concat();
    }
    let configuration = scripted()
        .replace("\"workers\": [", &format!("\"workers\": [{workers}"))
        .replace(
            "\"builders\": [",
            &format!("\"builders\": [util.BuilderConfig(name=\"h%d\" % n, workernames=[\"h%d\" % n], factory=wait) for n in range({})] + [", HOSTILE.len()),
        )
        .replace("builderNames=[", &format!("builderNames=[\"h%d\" % n for n in range({})] + [", HOSTILE.len()));
    stage.write_master_configuration(&configuration)?;
    for (directory, _) in HOSTILE_MASTERS {
        copy_instance(&stage, MASTER, directory)?;
    }
    let text = stage.machine.read_file(CONFIGURATION)? + &tables;
    stage
        .machine
        .write_file(CONFIGURATION, &text, "0644", "root")?;
    stage.systemctl(&["daemon-reload"])?;

    fault("hostile-directories", release, || {
        let units: Vec<String> = (0..HOSTILE.len())
            .map(|number| format!("buildbot-worker@h{number}.service"))
            .collect();
        let mut words = vec!["enable", "--quiet", MASTER_UNIT];
        words.extend(units.iter().map(String::as_str));
        stage.systemctl(&words)?;
        stage.machine.reboot()?;
        for (number, directory) in HOSTILE.iter().enumerate() {
            let name = format!("h{number}");
            stage
                .rest()
                .wait_for_worker(&name, LATER)
                .with_context(|| (*directory).to_owned())?;
            let request = stage.rest().force(&name, &[("script", "pwd")])?;
            let build = stage.ensure_success(request)?;
            let log = stage.rest().log(&build, "wait")?;
            let expected = format!("{directory}/{name}/build");
            ensure!(
                log.lines().any(|line| line == expected),
                "no `{expected}` in\n{log}"
            );
        }
        words[0] = "stop";
        words.remove(1);
        stage.systemctl(&words)?;
        for number in 0..HOSTILE_MASTERS.len() {
            let unit = format!("buildbot-master@h{number}.service");
            stage.systemctl(&["start", &unit])?;
            stage.systemctl(&["restart", WORKER_UNIT])?;
            stage.rest().wait_for_worker("example", SOON)?;
            stage.build("true")?;
            stage.systemctl(&["reload", &unit])?;
            stage.systemctl(&["stop", &unit])?;
        }
        Ok(())
    })
}

fn an_odd_account_and_an_older_worker_build(release: Release) -> Outcome {
    let old = "/opt/envs/old";
    let layers = set_up(release)?.with(
        Environment::install(Version::V3_11_9, old)?
            .tree()
            .to_path_buf(),
    );
    let stage = Stage {
        machine: Machine::boot(layers)?,
    };
    stage.write_master_configuration(&scripted())?;

    fault("odd-account", release, || {
        stage
            .machine
            .shell(&format!(
                "usermod --shell /usr/sbin/nologin bb; install -d -o bb -g bb /srv/bb; \
                 cp -a {MASTER} {WORKER} /srv/bb; chown root: /home/bb; chmod 0755 /home/bb"
            ))?
            .succeeded()?;
        stage.edit(
            CONFIGURATION,
            "s|^directory = \"/home/bb|directory = \"/srv/bb|",
        )?;
        stage.systemctl(&["daemon-reload"])?;
        stage.start()?;
        let log = stage.build(
            "umask; touch $HOME/here 2>&1 || true; \
             python -c 'import sys; print(sys.getfilesystemencoding(), \"\\u00e9\")'; echo shell=$SHELL",
        )?;
        for line in ["0022", "utf-8 \u{e9}"] {
            ensure!(
                log.lines().any(|found| found == line),
                "no `{line}` in\n{log}"
            );
        }
        ensure!(log.contains("Permission denied"), "{log}");
        Ok(())
    })?;

    fault("older-worker", release, || {
        stage.configure("worker", &format!("conda-env = \"{old}\""))?;
        stage.systemctl(&["restart", WORKER_UNIT])?;
        stage.rest().wait_for_worker("example", SOON)?;
        stage.wait_for_status(WORKER_UNIT, SOON, &["connected to"])?;
        let log =
            stage.build("python -c 'import buildbot_worker; print(buildbot_worker.version)'")?;
        ensure!(
            log.lines().any(|line| line == Version::V3_11_9.number()),
            "{log}"
        );
        // A reload of it, and a restart with a build running, are as with the newer one.
        let request = stage.begin_build("sleep 5")?;
        stage.systemctl(&["reload", WORKER_UNIT])?;
        stage.ensure_success(request)?;
        ensure!(stage.rest().builds_of(request)?.len() == 1);
        stage.rest().wait_for_worker("example", SOON)?;
        let request = stage.begin_build("sleep 5")?;
        stage.systemctl(&["restart", WORKER_UNIT])?;
        stage.ensure_success(request)
    })?;
    Ok(())
}
