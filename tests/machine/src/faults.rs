//! The tables of guarantees, and whether a run has confirmed them. This file contains the fault table, with the events
//! that services must survive or report correctly; the attack table is in `attacks.rs`, and shared code in `table.rs`.
//!
//! A test confirms one or more rows with [`fault`] or [`attack`], which write a small file per row and release below
//! `target/faults/`. `cargo xtask test` decides which tests run and prints the tables.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::Release;
use crate::attacks::ATTACKS;
use crate::places::workspace;
use crate::table::{Row, Shown, Table};

/// Every table.
pub const TABLES: [Table; 2] = [FAULTS, ATTACKS];

const FAULTS: Table = Table {
    name: "fault",
    page: (
        "faults.md",
        "This table lists what can happen to a master and a worker, the guaranteed behaviour, and whether the machine\n\
         tests confirmed it, each with a real Buildbot on a booted Debian.",
    ),
    headings: ["event", "promise"],
    rows: ROWS,
};

/// What a run has shown about a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything that is promised has been seen.
    Held,
    /// Something else was observed, or the test was terminated early.
    NotHeld,
    /// No test has reported the row.
    NotRun,
}

impl Verdict {
    /// As the table spells it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::NotHeld => "not held",
            Self::NotRun => "not run",
        }
    }
}

const fn row(id: &'static str, event: &'static str, promise: &'static str) -> Row {
    Row {
        id,
        event,
        promise,
        shown: Shown::OnMachines,
    }
}

/// A row that does not need a machine: the file and the name of its test.
const fn by_test(
    id: &'static str,
    event: &'static str,
    promise: &'static str,
    (file, test): (&'static str, &'static str),
) -> Row {
    Row {
        id,
        event,
        promise,
        shown: Shown::ByTest { file, test },
    }
}

const FAILS_ONCE: &str =
    "the start fails within a limited time with Buildbot's own message, and is not retried";
const TRIED_AGAIN: &str =
    "the reason is shown, and the start is retried without limit until it succeeds";
const RETRIED: &str =
    "the service is restarted and serves, and running builds are retried successfully";
const REPLACED: &str = "the watchdog replaces it";
const REFUSED: &str = "refused";
const REFUSED_ONCE: &str = "the start fails with the reason, and is not retried";

const ROWS: &[Row] = &[
    row(
        "master-start",
        "the master is started",
        "`systemctl start` returns when it serves",
    ),
    row(
        "worker-start",
        "a worker is started while its master is not running",
        "`systemctl start` does not wait, and the status line shows the state of the connection",
    ),
    row("broken-master-cfg", "`master.cfg` is broken", FAILS_ONCE),
    row("missing-plugin", "a web plugin is missing", FAILS_ONCE),
    row("broken-tac", "`buildbot.tac` is broken", FAILS_ONCE),
    row("missing-tac", "`buildbot.tac` is missing", FAILS_ONCE),
    row(
        "system-exit",
        "`master.cfg` raises `SystemExit`",
        FAILS_ONCE,
    ),
    row("endless-loop", "`master.cfg` does not finish", FAILS_ONCE),
    row("port-in-use", "a port is in use", TRIED_AGAIN),
    row(
        "database-unreachable",
        "the database is unreachable",
        TRIED_AGAIN,
    ),
    row(
        "database-older",
        "the database is older than Buildbot",
        "the database is backed up and upgraded as the service user, the status line shows the progress, and the master starts",
    ),
    row(
        "database-older-interrupted",
        "the upgrade of the database is interrupted",
        "nothing is lost; the next start continues the upgrade or restores the backup",
    ),
    row(
        "database-newer",
        "the database is newer than Buildbot",
        "refused with status 65, the version that wrote the database, and what to do",
    ),
    row(
        "reload-good",
        "the master is reloaded with a good configuration",
        "in effect when `systemctl reload` returns",
    ),
    row(
        "reload-broken",
        "... with a broken one",
        "the command fails with the reason, and the previous configuration stays in use",
    ),
    row(
        "reload-partial",
        "... with one that can only be applied in part",
        "the command fails with that reason",
    ),
    row(
        "reload-during-start",
        "... while it is starting",
        "the command waits until the configuration is in effect",
    ),
    row(
        "reload-twice",
        "... twice at once",
        "both commands report their actual result",
    ),
    row(
        "hup-by-hand",
        "HUP is sent to the master by hand",
        "reaches Buildbot",
    ),
    row("master-killed", "the master is killed with KILL", RETRIED),
    row(
        "master-segfault",
        "the master crashes with a segmentation fault",
        RETRIED,
    ),
    row(
        "master-out-of-memory",
        "the master runs out of memory",
        RETRIED,
    ),
    row(
        "worker-killed",
        "the worker is killed with KILL or crashes",
        RETRIED,
    ),
    row(
        "worker-out-of-memory",
        "a build runs out of memory",
        "that build fails or is retried, and the worker keeps running",
    ),
    row("hang-stopped", "the master is frozen by STOP", REPLACED),
    row("hang-reactor", "the master's reactor is blocked", REPLACED),
    row("worker-hang", "the worker is frozen by STOP", REPLACED),
    row(
        "slow-start",
        "a healthy `master.cfg` takes longer than the watchdog's time, at a start",
        "it is left to finish",
    ),
    row("slow-reload", "... at a reload", "it is left to finish"),
    row(
        "restart-builds",
        "the master is restarted with running builds",
        "20 of 20 are retried successfully",
    ),
    row(
        "stop-builds",
        "the master is stopped with running builds, and started later",
        "all of them are retried successfully",
    ),
    row(
        "drain-builds",
        "the same with `drain` set",
        "builds that finish within that time are waited for, and the others are retried",
    ),
    row(
        "worker-restart",
        "the worker is restarted with a running build",
        "no build is lost",
    ),
    row(
        "worker-stop",
        "the worker is stopped with a running build, and started later",
        "no build is lost",
    ),
    row(
        "worker-reload",
        "the worker is reloaded with a running build",
        "the build finishes, and then the worker is restarted",
    ),
    row(
        "worker-reload-refused",
        "... without `allow_shutdown`",
        "refused with the line to add",
    ),
    row(
        "worker-password",
        "the worker's password is wrong",
        "the status line shows the reason within 15 s, and every later change",
    ),
    row(
        "worker-unreachable-master",
        "the worker's master is unreachable",
        "the status line shows the reason within 15 s, and every later change",
    ),
    row(
        "worker-wrong-port",
        "the worker's port is not one for workers",
        "the status line shows the reason within 15 s, and every later change",
    ),
    row(
        "worker-returns",
        "the master is stopped for a long time and then started",
        "the worker is connected within 20 s, in 20 of 20 attempts",
    ),
    row(
        "second-start",
        "a second start in the directory of a running master",
        "refused with the holder's PID",
    ),
    row(
        "upgrade-beside",
        "`buildbot-conda upgrade` beside a running master",
        "refused with the holder's PID",
    ),
    row(
        "upstream-upgrade-beside",
        "`buildbot upgrade-master` beside a running master",
        REFUSED,
    ),
    row(
        "upstream-cleanup-beside",
        "`buildbot cleanupdb` beside a running master",
        REFUSED,
    ),
    row(
        "missing-user",
        "the user is missing",
        "the start is retried every 5 s, with the reason, until the user exists",
    ),
    row(
        "missing-credential",
        "a credential is missing",
        REFUSED_ONCE,
    ),
    row("missing-mount", "a mount is missing", REFUSED_ONCE),
    row(
        "missing-path",
        "a directory that must be writable is missing",
        REFUSED_ONCE,
    ),
    row(
        "hand-made-unit",
        "a hand-made unit of our name is in `/etc/systemd/system`",
        "the unit is not changed until it is adopted",
    ),
    row(
        "stale-configuration",
        "`config.toml` is edited without `daemon-reload`",
        "systemctl prints a warning, and a start with different settings reports it",
    ),
    row(
        "reboot",
        "the machine is rebooted under load",
        "everything runs again, and nothing is lost",
    ),
    row(
        "power-cut",
        "the power is cut under load",
        "everything runs again, and nothing is lost",
    ),
    row(
        "package-upgrade",
        "the package is upgraded with running builds",
        "no unit is stopped, no build lost, the new launcher is used from the next start",
    ),
    row(
        "secrets",
        "credentials are used",
        "they do not appear in arguments, builds, build logs, `status.json` or the journal",
    ),
    row(
        "exposure-master",
        "`systemd-analyze security` of the master",
        "at most 1.5",
    ),
    row(
        "exposure-worker",
        "... of a worker with `strict`",
        "at most 3.1",
    ),
    row(
        "standard-sudo",
        "a build of a worker with `standard` calls `sudo`",
        "it works",
    ),
    row(
        "home-srv-opt",
        "environment and directories under `/home`, `/srv`, `/opt`",
        "they work in every profile",
    ),
    row(
        "drain-verb",
        "`buildbot-conda drain`",
        "builds finish, the service stays down",
    ),
    row(
        "upgrade-verb",
        "`buildbot-conda upgrade` of a stopped master",
        "backup, then the schema is Buildbot's",
    ),
    row(
        "backup-restored",
        "`buildbot-conda backup`, then `systemctl clean`, and its restoration",
        "the builds from before the backup are in the database",
    ),
    row(
        "log-levels",
        "Buildbot logs an error",
        "`journalctl -p err` shows it, a traceback is one entry",
    ),
    row(
        "log-once",
        "`log` is not set, or is `both`",
        "nothing is written twice; `twistd.log` only with `both`",
    ),
    // What the table of the issue does not name.
    row(
        "odd-configuration",
        "`master.cfg` is a directory, unreadable, not UTF-8; `buildbot.tac` a dangling link",
        FAILS_ONCE,
    ),
    row(
        "exit-in-configuration",
        "`master.cfg` calls `os._exit(0)` or turns itself into a daemon",
        FAILS_ONCE,
    ),
    row("privileged-port", "the web port is below 1024", FAILS_ONCE),
    row(
        "long-error",
        "`master.cfg` has 500 errors",
        "all of them are in the journal, and the status line stays short",
    ),
    row(
        "disk-full",
        "the file system of the master's directory is full",
        TRIED_AGAIN,
    ),
    row(
        "read-only-directory",
        "the master's directory is read-only",
        FAILS_ONCE,
    ),
    row(
        "stop-during-start",
        "the master is stopped while it is starting",
        "stops at once and cleanly",
    ),
    row(
        "reload-during-stop",
        "the master is reloaded while it is stopping",
        "the command fails, and the stop continues",
    ),
    row(
        "clean-shutdown-by-hand",
        "USR1 is sent to the master by hand",
        "builds finish, the service stays down",
    ),
    row(
        "environment-removed",
        "the environment is removed under a running master, which is then restarted",
        FAILS_ONCE,
    ),
    row(
        "reactor-stopped",
        "a plugin stops the reactor",
        "back and serving",
    ),
    row(
        "many-reloads",
        "HUP is sent to the master 100 times in a row",
        "each of them is handled, and memory grows by less than 25 %",
    ),
    row(
        "worker-killed-by-build",
        "a build kills its worker",
        RETRIED,
    ),
    row(
        "worker-reload-crash",
        "the worker is killed while a reload lets its build finish",
        "the command fails, and the build is retried successfully",
    ),
    row(
        "frozen-master",
        "the master is frozen for longer than the worker's keepalive",
        "the running build succeeds, and the worker stays connected",
    ),
    row(
        "worker-drain-setting",
        "the worker is stopped with `drain` set and a build running",
        "the build finishes first",
    ),
    row(
        "worker-disk-full",
        "the file system of a build is full",
        "that build fails with this reason, and the worker keeps running",
    ),
    row(
        "reload-other-directories",
        "a drop-in adds directories to the master's own, and it is reloaded",
        "in effect when `systemctl reload` returns",
    ),
    row(
        "reload-full-run",
        "... with a full `/run`",
        "in effect when `systemctl reload` returns",
    ),
    row(
        "condarc",
        "condarc changes how an environment is activated",
        "the service, its builds and `buildbot-conda run` have the variables that conda sets",
    ),
    row(
        "shared-memory",
        "a service is stopped while its account has shared memory in use elsewhere",
        "the shared memory is kept",
    ),
    row(
        "administrators-drop-in",
        "a master needs a setting from a drop-in of the administrator",
        "`backup`, `upgrade` and `doctor` use it as well",
    ),
    by_test(
        "adopted-with-builds",
        "a master that `buildbot start` runs as a daemon is adopted while builds run, and the adoption is undone",
        "the builds are retried successfully, and afterwards everything is in its previous state",
        (
            "tests/machine/tests/adopt.rs",
            "a_forking_master_and_a_worker_of_another_name_are_adopted_without_a_lost_build_and_given_back",
        ),
    ),
    by_test(
        "adoption-fails",
        "units are adopted, and the new ones do not start",
        "the old units run, and everything is in its previous state",
        (
            "tests/machine/tests/adopt.rs",
            "an_adoption_whose_start_fails_leaves_the_old_units_running",
        ),
    ),
    by_test(
        "unit-in-the-packages-place",
        "a unit of our name was written into `/lib/systemd/system` before the package is installed",
        "it stays in effect, in `/etc/systemd/system`, and this is reported",
        (
            "tests/package/tests/lifecycle.rs",
            "a_hand_made_unit_in_the_packages_place_stays_in_force",
        ),
    ),
    by_test(
        "base-directory-elsewhere",
        "`buildbot.tac` sets another base directory and another configuration file",
        "`backup`, `restore` and `upgrade` use these",
        (
            "crates/launcher/runner_tests/test_upgrade.py",
            "test_base_directory_is_where_the_tac_has_it",
        ),
    ),
    by_test(
        "host-renamed",
        "a master with a `name` is killed, and the host name changes before the next start",
        "running builds are retried successfully",
        (
            "crates/launcher/runner_tests/test_standby.py",
            "test_history_goes_along_with_a_name",
        ),
    ),
    row(
        "directory-moved-away",
        "the directory of a worker that has run is moved away, and the worker restarted",
        FAILS_ONCE,
    ),
    row(
        "activation-script",
        "a script in `activate.d` exits its shell, kills it, or never finishes",
        FAILS_ONCE,
    ),
    row(
        "network-in-configuration",
        "`master.cfg` downloads something while it is read, and the network is not available yet",
        TRIED_AGAIN,
    ),
    row(
        "worker-directory-removed",
        "the directory of a running worker is removed",
        "the worker keeps running; its next start is refused with the reason",
    ),
    row(
        "worker-gives-up",
        "a worker has used up its `maxretries`",
        "the reason is shown, and connecting is retried without limit",
    ),
    row(
        "worker-tls",
        "a TLS connection string leads to a closed port",
        "on the status line within 15 s",
    ),
    row(
        "worker-twice",
        "two workers have the same name",
        "the status line of the second one shows this, and builds continue",
    ),
    row(
        "hostile-directories",
        "directories have blanks, quotes, backslashes, `%`, `$` and the like in their names",
        "the units start at boot, and builds succeed",
    ),
    row(
        "odd-account",
        "the user has no login shell and no writable home",
        "builds run with the usual umask and with UTF-8",
    ),
    by_test(
        "worker-host-vanished",
        "the host of a worker vanishes during a build, and comes back",
        "both sides notice within 45 s, and the build is retried successfully",
        (
            "crates/launcher/runner_tests/test_vanished.py",
            "test_both_sides_notice_within_45_seconds_that_the_other_has_vanished",
        ),
    ),
    by_test(
        "master-host-vanished",
        "the host of a master vanishes during a build, and comes back",
        "the worker notices within 45 s and reconnects, and the build is retried successfully",
        (
            "crates/launcher/runner_tests/test_vanished.py",
            "test_master_whose_host_was_away_gets_its_worker_back_and_the_build_is_retried",
        ),
    ),
    row(
        "slow-link",
        "a round trip between worker and master takes 300 ms, and 5 % of all frames are lost",
        "builds succeed at the first attempt, and no connection is lost",
    ),
    by_test(
        "certificate-renewed",
        "the certificate of a master is renewed three times during 100 builds of a worker on another host",
        "none of 100 builds is affected, and no connection is lost",
        (
            "crates/launcher/runner_tests/test_door.py",
            "test_certificate_that_is_renewed_under_load_disturbs_no_build_and_no_connection",
        ),
    ),
    by_test(
        "certificate-expired",
        "the certificate of a master has expired",
        "the status line of the worker shows the reason within 15 s, and a new certificate is accepted without a restart",
        (
            "crates/launcher/runner_tests/test_tls.py",
            "test_certificate_that_is_not_accepted_is_on_the_status_line_and_in_the_journal",
        ),
    ),
    row(
        "authority-replaced",
        "the authority of a master's host is lost, and a new one is created",
        "workers stay connected until they restart; `rotate` and `join` connect each of them again",
    ),
    by_test(
        "clock-off",
        "the clock of a host is an hour off",
        "a certificate that was just created is accepted",
        (
            "crates/cli/src/farm/openssl.rs",
            "a_host_whose_clock_is_an_hour_off_accepts_a_certificate_that_was_just_made",
        ),
    ),
    by_test(
        "many-workers",
        "a master with 200 workers in one service is restarted",
        "all of them reconnect; `cargo xtask bench farm` measures the time",
        (
            "crates/launcher/runner_tests/test_starter.py",
            "test_two_hundred_workers_of_a_process_are_back_soon_after_a_restart_of_their_master",
        ),
    ),
    row(
        "older-worker",
        "a worker of Buildbot 3.11.9 with a master of 4.3.0",
        "builds, reloads and restarts as the newer one does",
    ),
];

/// Records the result of `show` as the verdict about row `id` of the fault table on `release`.
///
/// Each row is confirmed by one test. Until `show` has succeeded, the row is `not held`, also if the process is killed.
///
/// # Errors
///
/// Those of `show`, the row named; or when there is no such row, or its file cannot be written.
pub fn fault<T>(id: &str, release: Release, show: impl FnOnce() -> Result<T>) -> Result<T> {
    report(&FAULTS, id, release, show)
}

/// As [`fault`], for a row of the attack table that machines show.
///
/// # Errors
///
/// As [`fault`].
pub fn attack<T>(id: &str, release: Release, show: impl FnOnce() -> Result<T>) -> Result<T> {
    report(&ATTACKS, id, release, show)
}

fn report<T>(
    table: &Table,
    id: &str,
    release: Release,
    show: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let is_reported = |row: &&Row| row.id == id && row.shown == Shown::OnMachines;
    if !table.rows.iter().any(|row| is_reported(&row)) {
        bail!("row `{id}` of the {} table not found", table.name);
    }
    record(id, release, Verdict::NotHeld)?;
    let shown = show().with_context(|| format!("show `{id}` on {release}"))?;
    record(id, release, Verdict::Held)?;
    Ok(shown)
}

/// What has been reported about a row on `release` since [`forget_faults`].
pub fn verdict(id: &str, release: Release) -> Verdict {
    match fs::read_to_string(file(id, release)) {
        Ok(text) if text == Verdict::Held.text() => Verdict::Held,
        Ok(_) => Verdict::NotHeld,
        Err(_) => Verdict::NotRun,
    }
}

/// Starts a new table. The directory is then the caller's, who may be less than the root that the tests run as.
///
/// # Errors
///
/// When the old one cannot be removed, or none be made.
pub fn forget_faults() -> Result<()> {
    let directory = directory();
    if directory.exists() {
        fs::remove_dir_all(&directory)
            .with_context(|| format!("remove `{}`", directory.display()))?;
    }
    create(&directory)
}

fn directory() -> PathBuf {
    workspace().join("target/faults")
}

fn create(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("create `{}`", directory.display()))
}

fn file(id: &str, release: Release) -> PathBuf {
    directory().join(format!("{release}.{id}"))
}

fn record(id: &str, release: Release, verdict: Verdict) -> Result<()> {
    let directory = directory();
    create(&directory)?;
    let target = file(id, release);
    let new = directory.join(format!(".{release}.{id}.{}", std::process::id()));
    fs::write(&new, verdict.text())
        .and_then(|()| fs::rename(&new, &target))
        .with_context(|| format!("write `{}`", target.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::{Row, Shown, TABLES, workspace};

    fn rows() -> impl Iterator<Item = &'static Row> {
        TABLES.iter().flat_map(|table| table.rows)
    }

    /// The text of every test that may show a row.
    fn sources() -> String {
        let directory = workspace().join("tests/machine/tests");
        let entries = fs::read_dir(directory).expect("the tests have a directory");
        let files = entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
        let showing = files.filter(|text| text.contains(" fault(") || text.contains(" attack("));
        showing.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn ids_are_unique_and_of_small_letters_and_hyphens() {
        let ids: BTreeSet<_> = rows().map(|row| row.id).collect();
        assert_eq!(ids.len(), rows().count());
        for id in ids {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
            assert!(id.bytes().all(plain), "`{id}`");
        }
    }

    #[test]
    fn each_row_of_machines_is_shown_by_one_test() {
        let sources = sources();
        for row in rows().filter(|row| row.shown == Shown::OnMachines) {
            let quoted = format!("\"{}\"", row.id);
            let count = sources.matches(&quoted).count();
            assert_eq!(count, 1, "`{}` occurs {count} times in the tests", row.id);
        }
    }

    /// Whether `text` has a test of that name: of Rust, with the attribute that makes it one, or of Python.
    fn has_test(text: &str, name: &str) -> bool {
        let function = format!("fn {name}()");
        let method = format!("def {name}(");
        // With `release: Release` on the same line or, where the name is long, on the next one.
        let of_release = format!("fn {name}(");
        let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
        lines.iter().enumerate().any(|(number, line)| {
            let above = lines[..number].iter().rev();
            let mut attributes = above.take_while(|line| line.starts_with("#["));
            let is_rust = line.starts_with(&function) && attributes.any(|line| *line == "#[test]");
            // With `on_each_release!`, which turns the listed functions into tests.
            let arguments = line.strip_prefix(&of_release).map(|rest| {
                let next = lines.get(number + 1).filter(|_| rest.is_empty());
                next.copied().unwrap_or(rest)
            });
            let is_of_release = arguments.is_some_and(|text| text.starts_with("release: Release"));
            let is_rust = is_rust || (is_of_release && is_listed(&lines, name));
            is_rust || (name.starts_with("test_") && line.starts_with(&method))
        })
    }

    fn is_listed(lines: &[&str], name: &str) -> bool {
        let from = lines
            .iter()
            .skip_while(|line| !line.starts_with("on_each_release! {"));
        let mut list = from.take_while(|line| !line.starts_with('}'));
        list.any(|line| line.strip_suffix(',') == Some(name))
    }

    #[test]
    fn each_row_of_a_cheaper_test_names_a_test_that_exists() {
        for row in rows() {
            if let Shown::ByTest { file, test } = row.shown {
                let text = fs::read_to_string(workspace().join(file)).unwrap_or_default();
                assert!(
                    has_test(&text, test),
                    "`{}`: `{test}` not in `{file}`",
                    row.id
                );
            }
        }
    }

    #[test]
    fn a_function_that_is_not_run_shows_nothing() {
        let text = "on_each_release! {\n    listed,\n    of_two_lines,\n}\n#[test]\n#[cfg(unix)]\nfn shown() {}\n\nfn helper() {}\n\
                    // fn said()\ndef test_it(tmp):\nfn listed(release: Release) {}\nfn left(release: Release) {}\n\
                    fn of_two_lines(\n    release: Release,\n) {}";
        for (name, expect) in [
            ("shown", true),
            ("test_it", true),
            ("listed", true),
            ("of_two_lines", true),
            ("left", false),
            ("helper", false),
            ("said", false),
            ("show", false),
        ] {
            assert_eq!(has_test(text, name), expect, "{name}");
        }
    }
}
