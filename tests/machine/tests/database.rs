//! A master's database when the environment gets another Buildbot: backed up, upgraded, refused, interrupted and
//! restored, with the sandbox and the account of the unit, and no build ever lost.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use buildbot_conda_machine::{
    Environment, LATER, Layers, MASTER, MASTER_UNIT, Machine, Outcome, Output, PREFIX, Release,
    Rest, SOON, Stage, Unit, Version, WORKER_UNIT, fault, installed_with, layer, on_each_release,
    scripted, set_up, virtual_environment,
};

on_each_release! {
    an_older_database_is_backed_up_upgraded_and_served,
    an_interrupted_upgrade_loses_nothing,
    a_newer_database_is_refused_and_a_backup_brings_it_back,
    an_administrator_upgrades_backs_up_and_restores,
    a_database_behind_a_credential_is_found,
    a_new_master_has_its_builds_on_a_server,
}

const OLD: &str = "/opt/envs/old";
const STATE: &str = "/var/lib/buildbot-conda/instances/master";
/// Succeeds while Buildbot's own upgrade runs, and prints `/proc/PID/cmdline`. The program is one word of it, and the
/// brackets prevent a match in the searching shell.
const UPGRADING: &str =
    "grep --no-messages -lz '\"buildbot\", \"upgrade-[m]aster\"' /proc/[0-9]*/cmdline";
/// `systemctl clean` leaves it alone.
const BACKUPS: &str = "/var/lib/buildbot-conda/backups/master";
const MARK: &str = "/var/lib/buildbot-conda/backups/master/upgrade-in-progress";

/// A master and a worker with one finished build in a database of the older Buildbot, the master stopped, and the
/// environment of the older Buildbot still configured.
fn older(release: Release) -> Result<Stage> {
    let environment = Environment::install(Version::V3_11_9, OLD)?;
    let below = set_up(release)?.with(environment.tree().to_path_buf());
    let layers = layer(
        "older",
        release,
        below,
        &[include_str!("database.rs")],
        |machine| {
            let stage = make_older(Stage { machine })?;
            Ok(stage.machine)
        },
    )?;
    let machine = Machine::boot(layers)?;
    let stage = Stage { machine };
    stage.systemctl(&["start", WORKER_UNIT])?;
    Ok(stage)
}

fn make_older(stage: Stage) -> Result<Stage> {
    stage.machine.run(&["rm", "-r", MASTER])?.succeeded()?;
    let create = ["create-master", "--quiet", "--relocatable", MASTER];
    let buildbot = format!("{OLD}/bin/buildbot");
    stage
        .machine
        .run_as("bb", &[&[buildbot.as_str()], &create[..]].concat())?
        .succeeded()?;
    stage.write_master_configuration(&scripted())?;
    stage.configure("master", &format!("conda-env = \"{OLD}\""))?;
    stage.start()?;
    stage.build("true")?;
    Ok(stage)
}

/// The environment of the master gets this Buildbot.
fn switch(stage: &Stage, prefix: &str) -> Outcome {
    let value = format!("s|^conda-env = \"/.*|conda-env = \"{prefix}\"|");
    stage.edit("/etc/buildbot-conda/config.toml", &value)?;
    stage.systemctl(&["daemon-reload"])?;
    Ok(())
}

fn backups(stage: &Stage) -> Result<Vec<String>> {
    let list = format!("ls {BACKUPS} 2>/dev/null || true");
    let names = stage.machine.shell(&list)?.succeeded()?;
    Ok(names.stdout.lines().map(str::to_owned).collect())
}

/// The master serves, all builds are there, new ones can be made, and no upgrade is in progress.
fn ensure_serves(stage: &Stage, builds: usize) -> Outcome {
    stage.wait_for_state(MASTER_UNIT, LATER, "active")?;
    let found = stage.rest().builds()?;
    ensure!(
        found.len() == builds && found.iter().all(|build| build.results == 0),
        "{found:?}"
    );
    let mark = stage.machine.run(&["test", "-e", MARK])?;
    ensure!(mark.status == 1, "an upgrade is still marked");
    let wrong = stage.machine.shell(&format!(
        "find {MASTER} {STATE} {BACKUPS} ! -user bb; find {BACKUPS} -type f ! -perm 0600; \
         find {MASTER} -name '*.restoring' -o -name '*.damaged-*'"
    ))?;
    ensure!(wrong.text().is_empty(), "{wrong}");
    stage.rest().wait_for_worker("example", SOON)
}

fn an_older_database_is_backed_up_upgraded_and_served(release: Release) -> Outcome {
    let stage = older(release)?;
    switch(&stage, PREFIX)?;
    // TimeoutStartSec= is 30 s longer than this; the upgrade will take longer.
    stage.configure("master", "start-timeout = \"15s\"")?;
    let tac = stage.machine.read_file(&format!("{MASTER}/buildbot.tac"))?;
    fault("database-older", release, || {
        stage.systemctl(&["start", "--no-block", MASTER_UNIT])?;
        let hold = format!(
            "until {UPGRADING} >/tmp/found; do :; done; \
             pid=$(sed -n '1s|/proc/\\([0-9]*\\)/.*|\\1|p' /tmp/found); \
             kill -STOP $pid; sleep 50; kill -CONT $pid"
        );
        let script = format!("({hold}) >/dev/null 2>&1 &");
        stage.machine.shell(&script)?.succeeded()?;
        let mut pids = BTreeSet::new();
        let mut shown = BTreeSet::new();
        stage.machine.wait_until("the master serves", LATER, || {
            pids.insert(stage.property(MASTER_UNIT, "MainPID")?);
            shown.insert(stage.property(MASTER_UNIT, "StatusText")?);
            let found = stage.property(MASTER_UNIT, "ActiveState")?;
            ensure!(
                found != "failed",
                "{}",
                stage.status_and_journal(MASTER_UNIT)?
            );
            Ok((found == "active").then_some(()))
        })?;
        // None before its job is run.
        pids.remove("0");
        ensure!(pids.len() == 1, "several main processes: {pids:?}");
        ensure!(
            shown
                .iter()
                .any(|text| text.contains("upgrading the database from schema 064 to 067")),
            "{shown:?}"
        );
        ensure_serves(&stage, 1)?;
        let names = backups(&stage)?;
        ensure!(
            names.len() == 1 && names[0].ends_with("-buildbot-3.11.9-schema-064.sqlite"),
            "{names:?}"
        );
        ensure!(stage.machine.read_file(&format!("{MASTER}/buildbot.tac"))? == tac);
        stage.build("true")?;
        // The next start has nothing to prepare.
        stage.systemctl(&["restart", MASTER_UNIT])?;
        ensure_serves(&stage, 2)?;
        ensure!(backups(&stage)? == names);
        Ok(())
    })?;
    Ok(())
}

fn an_interrupted_upgrade_loses_nothing(release: Release) -> Outcome {
    let mut stage = older(release)?;
    stage
        .machine
        .run(&["cp", "-a", MASTER, "/home/bb/older"])?
        .succeeded()?;
    switch(&stage, PREFIX)?;
    fault("database-older-interrupted", release, || {
        for moment in [
            format!("ls {BACKUPS}/2*"),
            format!("test -e {MARK}"),
            UPGRADING.to_owned(),
            format!("test -e {MARK} && test -s {MASTER}/state.sqlite-wal"),
        ] {
            let begin = format!(
                "rm -rf {MASTER} {BACKUPS}; \
                 cp -a /home/bb/older {MASTER}; systemctl start --no-block {MASTER_UNIT}; \
                 until {moment} >/dev/null 2>&1; do :; done; \
                 kill -KILL $(systemctl show --value -p MainPID {MASTER_UNIT})"
            );
            stage
                .machine
                .run_within(LATER, &["sh", "-uc", &begin])?
                .succeeded()?;
            // systemd starts it again.
            let served = ensure_serves(&stage, 1);
            served.with_context(|| format!("killed at `{moment}`"))?;
            stage.systemctl(&["stop", MASTER_UNIT])?;
        }
        let begin = format!(
            "rm -rf {MASTER} {BACKUPS}; cp -a /home/bb/older {MASTER}; sync; \
             systemctl start --no-block {MASTER_UNIT}; \
             until test -e {MARK}; do :; done"
        );
        stage
            .machine
            .run_within(LATER, &["sh", "-uc", &begin])?
            .succeeded()?;
        stage.machine.power_cut()?;
        stage.systemctl(&["start", MASTER_UNIT])?;
        stage.systemctl(&["start", "buildbot-worker"])?;
        ensure_serves(&stage, 1)
    })?;
    Ok(())
}

fn a_newer_database_is_refused_and_a_backup_brings_it_back(release: Release) -> Outcome {
    let stage = older(release)?;
    switch(&stage, PREFIX)?;
    stage.systemctl(&["start", MASTER_UNIT])?;
    stage.systemctl(&["stop", MASTER_UNIT])?;
    switch(&stage, OLD)?;
    fault("database-newer", release, || {
        let start = stage.machine.run(&["systemctl", "start", MASTER_UNIT])?;
        ensure!(start.status != 0, "it starts");
        let shown = stage.status_and_journal(MASTER_UNIT)?;
        for word in [
            "newer than Buildbot 3.11.9",
            "Buildbot 4.3.0",
            "buildbot-conda restore master",
        ] {
            ensure!(shown.contains(word), "nothing about `{word}` in\n{shown}");
        }
        ensure!(stage.property(MASTER_UNIT, "ExecMainStatus")? == "65");
        ensure!(stage.property(MASTER_UNIT, "NRestarts")? == "0");
        let verb = stage
            .machine
            .run(&["buildbot-conda", "upgrade", "master"])?;
        ensure!(verb.status == 65, "{verb}");
        let restore = ["buildbot-conda", "restore", "master"];
        stage.machine.run(&restore)?.succeeded()?;
        stage.systemctl(&["start", MASTER_UNIT])?;
        ensure_serves(&stage, 1)
    })?;
    Ok(())
}

fn an_administrator_upgrades_backs_up_and_restores(release: Release) -> Outcome {
    let stage = older(release)?;
    switch(&stage, PREFIX)?;
    stage.configure("master", "upgrade = \"manual\"")?;
    let cli = |words: &[&str]| stage.machine.run(&[&["buildbot-conda"], words].concat());
    fault("upgrade-verb", release, || {
        let start = stage.machine.run(&["systemctl", "start", MASTER_UNIT])?;
        ensure!(start.status != 0, "it starts");
        let shown = stage.status_and_journal(MASTER_UNIT)?;
        ensure!(shown.contains("buildbot-conda upgrade master"), "{shown}");
        ensure!(stage.property(MASTER_UNIT, "ExecMainStatus")? == "65");
        ensure!(backups(&stage)?.is_empty());
        let plan = cli(&["upgrade", "master", "--dry-run"])?.succeeded()?;
        ensure!(plan.stdout.contains("from schema 064 to 067"), "{plan}");
        ensure!(backups(&stage)?.is_empty());
        cli(&["upgrade", "master"])?.succeeded()?;
        ensure!(backups(&stage)?.len() == 1);
        stage.systemctl(&["start", MASTER_UNIT])?;
        ensure_serves(&stage, 1)
    })?;
    fault("upgrade-beside", release, || {
        let holder = format!("PID {}", stage.main_pid(MASTER_UNIT)?);
        for verb in ["upgrade", "restore"] {
            let refused = cli(&[verb, "master"])?;
            ensure!(
                refused.status == 69 && refused.to_string().contains(&holder),
                "{refused}"
            );
        }
        let other = stage
            .machine
            .run_as("nobody", &["buildbot-conda", "upgrade", "master"])?;
        ensure!(
            other.status == 1 && other.to_string().contains("only root and `bb`"),
            "{other}"
        );
        Ok(())
    })?;
    fault("backup-restored", release, || {
        let path = cli(&["backup", "master"])?.succeeded()?.text().to_owned();
        let name = path.rsplit('/').next().context("name the backup")?;
        stage.build("true")?;
        ensure_serves(&stage, 2)?;
        stage.systemctl(&["stop", MASTER_UNIT])?;
        let listed = cli(&["restore", "master", "--list", "--json"])?.succeeded()?;
        ensure!(listed.stdout.contains(name), "{listed}");
        // As the service user itself, too.
        let listed = stage
            .machine
            .run_as("bb", &["buildbot-conda", "restore", "master", "--list"])?
            .succeeded()?;
        ensure!(listed.stdout.contains(name), "{listed}");
        // What systemd has made for the unit goes, and no backup with it.
        stage.systemctl(&["clean", "--what=state", MASTER_UNIT])?;
        let left = stage.machine.run(&["test", "-e", STATE])?;
        ensure!(left.status == 1, "`{STATE}` is still there");
        cli(&["restore", "master", name])?.succeeded()?;
        stage.systemctl(&["start", MASTER_UNIT])?;
        ensure_serves(&stage, 1)?;
        // What was there before the restoration has been kept as well.
        ensure!(backups(&stage)?.len() == 3);
        Ok(())
    })?;
    Ok(())
}

fn a_database_behind_a_credential_is_found(release: Release) -> Outcome {
    let stage = older(release)?;
    stage.machine.write_file(
        "/etc/buildbot-conda/credentials/database",
        "sqlite:///state.sqlite",
        "0600",
        "root",
    )?;
    switch(&stage, PREFIX)?;
    stage.configure("master", "credentials = { database = \"database\" }")?;
    stage.configure("master", "hardening = \"strict\"")?;
    stage.configure("master", "upgrade = \"manual\"")?;
    let more = r#"
import os
from buildbot.plugins import secrets
c["secretsProviders"] = [secrets.SecretInAFile(dirname=os.environ["CREDENTIALS_DIRECTORY"])]
c["db"] = {"db_url": util.Secret("database")}
"#;
    stage.write_master_configuration(&format!("{}{more}", scripted()))?;
    let upgrade = ["buildbot-conda", "upgrade", "master", "--dry-run"];
    let plan = stage.machine.run(&upgrade)?.succeeded()?;
    ensure!(plan.stdout.contains("from schema 064 to 067"), "{plan}");
    stage.edit("/etc/buildbot-conda/config.toml", "/^upgrade = /d")?;
    stage.systemctl(&["daemon-reload"])?;
    stage.systemctl(&["start", MASTER_UNIT])?;
    ensure_serves(&stage, 1)?;
    ensure!(backups(&stage)?.len() == 1);
    fault("administrators-drop-in", release, || {
        a_drop_in_holds_for_commands_beside_the_master(&stage, more)
    })
}

/// A master whose configuration needs what only the administrator's drop-in gives it is as good for `backup`, `upgrade`
/// and `doctor` as for systemd.
fn a_drop_in_holds_for_commands_beside_the_master(stage: &Stage, configuration: &str) -> Outcome {
    let files = [
        ("/etc/default/buildbot-master", "SCHEDULE='at night'\n"),
        (
            "/etc/systemd/system/buildbot-master.service.d/local.conf",
            "[Service]\nEnvironmentFile=/etc/default/%N\nEnvironment=\"LOG=%L/buildbot\"\n\
             # goes on \\\nReadWritePaths=\\\n  /var/log/buildbot\n",
        ),
    ];
    stage
        .machine
        .shell("install -d -o bb /var/log/buildbot; mkdir -p /etc/systemd/system/buildbot-master.service.d")?
        .succeeded()?;
    for (path, text) in files {
        stage.machine.write_file(path, text, "0600", "root")?;
    }
    let needs = "assert os.environ['SCHEDULE'] == 'at night'\n\
                 open(os.environ['LOG'] + '/read', 'a').close()\n";
    stage.write_master_configuration(&format!("{}{configuration}{needs}", scripted()))?;
    stage.systemctl(&["daemon-reload"])?;
    stage.systemctl(&["restart", MASTER_UNIT])?;
    ensure_serves(stage, 1)?;
    for words in [
        &["buildbot-conda", "backup", "master"][..],
        &[
            "buildbot-conda",
            "doctor",
            "master",
            "--only",
            "checkconfig",
            "--only",
            "database",
        ],
    ] {
        stage.machine.run(words)?.succeeded()?;
    }
    stage.systemctl(&["stop", MASTER_UNIT])?;
    let upgrade = ["buildbot-conda", "upgrade", "master", "--dry-run"];
    stage.machine.run(&upgrade)?.succeeded()?;
    Ok(())
}

/// The pins of an environment that has the driver.
const PINS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../crates/launcher/runner_tests/requirements-4.3.0.txt"
);

/// A Debian with `PostgreSQL`, the package, and an environment with the driver.
fn with_server(release: Release) -> Result<Layers> {
    let below = installed_with(release, "postgresql", "postgresql")?;
    let found = virtual_environment(Path::new("python3"), "4.3.0", Path::new(PINS), &[])?;
    layer(
        "postgresql",
        release,
        below,
        &[include_str!("database.rs")],
        |machine| {
            let packages = "lib/python3.11/site-packages";
            for name in ["psycopg2", "psycopg2_binary.libs"] {
                let there = format!("{PREFIX}/{packages}/{name}");
                machine.copy_in(&found.join(packages).join(name), &there)?;
            }
            Ok(machine)
        },
    )
}

fn call(machine: &Machine, words: &[&str]) -> Result<Output> {
    machine.run_within(LATER, &[&["buildbot-conda"], words].concat())
}

/// What the server answers, as its administrator asks.
fn ask(machine: &Machine, database: &str, query: &str) -> Result<String> {
    let words = ["psql", "--no-align", "--tuples-only", "--command", query];
    let output = machine.run_as("postgres", &[&words[..], &[database]].concat())?;
    Ok(output.succeeded()?.text().to_owned())
}

/// Names of roles and databases that a command could leave behind.
fn left(machine: &Machine) -> Result<String> {
    let query = "select rolname from pg_roles where rolname !~ '^pg_' union all \
                 select datname from pg_database where not datistemplate order by 1";
    let files = machine.shell("ls -A /home/bb /etc/buildbot-conda/credentials 2>&1 || true")?;
    Ok(ask(machine, "postgres", query)? + "\n" + files.text())
}

const CREATE: [&str; 4] = ["create", "master", "--database", "postgresql"];

fn a_new_master_has_its_builds_on_a_server(release: Release) -> Outcome {
    let machine = Machine::boot(with_server(release)?)?;
    what_fails_leaves_nothing_on_the_server(&machine)?;
    let before = left(&machine)?;

    call(&machine, &CREATE)?.succeeded()?;
    call(&machine, &["create", "worker"])?.succeeded()?;
    let rest = Rest::new(&machine);
    let build = rest.wait_for_build(rest.force("hello", &[])?, LATER)?;
    ensure!(build.results == 0, "{build:?}");
    let database = "buildbot_master";
    ensure!(ask(&machine, database, "select count(*) from builds")? == "1");
    let file = machine.run(&["ls", &format!("{MASTER}/state.sqlite")])?;
    ensure!(file.status != 0, "{file}");
    call(&machine, &["backup", "master"])?.succeeded()?;

    a_password_is_where_only_root_and_the_master_read_it(&machine)?;
    builds_move_to_a_file_and_back_whatever_interrupts_it(&machine)?;

    call(&machine, &["remove", "worker", "--data", "--yes"])?.succeeded()?;
    let kept = call(&machine, &["remove", "master", "--dry-run"])?.succeeded()?;
    let note = "# kept the database `buildbot_master` of PostgreSQL";
    ensure!(kept.stdout.contains(note), "{kept}");
    let talk = call(&machine, &["remove", "master", "--data", "--yes"])?.succeeded()?;
    ensure!(left(&machine)? == before, "{}\n{talk}", left(&machine)?);
    Ok(())
}

/// The master serves with as many builds, makes one more, and has the database of this kind.
fn ensure_builds(machine: &Machine, builds: usize, kind: &str) -> Outcome {
    Unit::master(machine).wait_for_state("active")?;
    let rest = Rest::new(machine);
    let found = rest.builds()?;
    ensure!(found.len() == builds, "{found:?}");
    rest.wait_for_worker("worker", LATER)?;
    let build = rest.wait_for_build(rest.force("hello", &[])?, LATER)?;
    ensure!(build.results == 0, "{build:?}");
    let line = machine.run(&["grep", "^c\\[\"db\"\\] = ", &format!("{MASTER}/master.cfg")])?;
    ensure!(line.stdout.contains(kind), "{line}");
    Ok(())
}

fn builds_move_to_a_file_and_back_whatever_interrupts_it(machine: &Machine) -> Outcome {
    let migrate = |to: &str| call(machine, &["migrate", "master", "--to", to]);
    let file = format!("{MASTER}/state.sqlite");
    let plan = call(
        machine,
        &["migrate", "master", "--to", "sqlite", "--dry-run"],
    )?
    .succeeded()?;
    ensure!(
        plan.stdout.contains(&format!("to `{file}`, and compare")),
        "{plan}"
    );
    ensure_builds(machine, 1, "buildbot_master")?;
    let moved = migrate("sqlite")?.succeeded()?;
    ensure!(moved.stderr.contains("tables are the same"), "{moved}");
    ensure_builds(machine, 2, "state.sqlite")?;

    // The old one is kept, and would not be overwritten.
    let refused = migrate("postgresql")?;
    ensure!(
        refused.status == 1
            && refused
                .stderr
                .contains("sudo -u postgres dropdb buildbot_master"),
        "{refused}"
    );
    ask(machine, "postgres", "drop database buildbot_master")?;

    // Killed while the copy is under way, and the next start does not wait for anybody.
    let before = left(machine)?;
    let kill = "buildbot-conda migrate master --to postgresql >/dev/null 2>&1 & \
                until grep -qs remove-copy /var/lib/buildbot-conda/unfinished.json; do :; done; kill -KILL $!; wait";
    machine.run_within(LATER, &["sh", "-c", kill])?;
    machine.run_within(LATER, &["systemctl", "start", MASTER_UNIT])?;
    ensure_builds(machine, 3, "state.sqlite")?;
    let taken_back = call(machine, &["recover"])?.succeeded()?;
    ensure!(left(machine)? == before, "{taken_back}");
    ensure_builds(machine, 4, "state.sqlite")?;

    // A configuration that names it in a way of its own is not touched, and nothing is stopped.
    let edit = |script: &str| {
        let path = format!("{MASTER}/master.cfg");
        machine
            .run(&["sed", "--in-place", script, &path])?
            .succeeded()
    };
    edit("s|\"sqlite:///state.sqlite\"|\"sqlite:///\" + \"state.sqlite\"|")?;
    let pid = Unit::master(machine).main_pid()?;
    let refused = migrate("postgresql")?;
    ensure!(
        refused.status == 1
            && refused
                .stderr
                .contains("is not a plain text on the same line"),
        "{refused}"
    );
    ensure!(Unit::master(machine).main_pid()? == pid);
    edit("s|\" + \"state|state|")?;

    // Killed when the configuration names the copy already: what the master has done since is not taken back.
    let kill = format!(
        "buildbot-conda migrate master --to postgresql >/dev/null 2>&1 & \
         until grep -qs buildbot_master {MASTER}/master.cfg; do :; done; kill -KILL $!; wait"
    );
    machine.run_within(LATER, &["sh", "-c", &kill])?;
    machine.run_within(LATER, &["systemctl", "start", MASTER_UNIT])?;
    ensure_builds(machine, 5, "buildbot_master")?;
    let kept = call(machine, &["recover"])?.succeeded()?;
    let reason =
        "nothing is rolled back: `master` has gone on with `postgresql:///buildbot_master`";
    ensure!(kept.stderr.contains(reason), "{kept}");
    ensure_builds(machine, 6, "buildbot_master")?;
    let again = migrate("postgresql")?.succeeded()?;
    ensure!(again.stderr.ends_with("nothing to do\n"), "{again}");

    machine.run(&["rm", &file])?.succeeded()?;
    migrate("sqlite")?.succeeded()?;
    ask(machine, "postgres", "drop database buildbot_master")?;
    migrate("postgresql")?.succeeded()?;
    ensure_builds(machine, 7, "buildbot_master")?;
    ensure!(ask(machine, "buildbot_master", "select count(*) from builds")? == "8");
    machine.run(&["rm", &file])?.succeeded()?;
    Ok(())
}

fn what_fails_leaves_nothing_on_the_server(machine: &Machine) -> Outcome {
    machine
        .run(&["systemctl", "stop", "postgresql"])?
        .succeeded()?;
    let refused = call(machine, &CREATE)?;
    ensure!(
        refused.status == 1
            && refused
                .stderr
                .contains("hint: `systemctl start postgresql`"),
        "{refused}"
    );
    machine
        .run(&["systemctl", "start", "postgresql"])?
        .succeeded()?;

    // At the start, which is the last step.
    let before = left(machine)?;
    let drop_in = "/etc/systemd/system/buildbot-master.service.d";
    machine
        .shell(&format!(
            "mkdir {drop_in}; printf '[Service]\\nExecStartPre=/bin/false\\n' >{drop_in}/x.conf"
        ))?
        .succeeded()?;
    let failed = call(machine, &CREATE)?;
    machine.run(&["rm", "-r", drop_in])?.succeeded()?;
    ensure!(failed.status == 1, "{failed}");
    ensure!(left(machine)? == before, "{}\n{failed}", left(machine)?);

    // A role that somebody else has made is left as it is.
    ask(machine, "postgres", "create role bb nologin")?;
    let before = left(machine)?;
    let failed = call(machine, &CREATE)?;
    ensure!(
        failed.status == 1 && failed.stderr.contains("not permitted to log in"),
        "{failed}"
    );
    ensure!(left(machine)? == before, "{}\n{failed}", left(machine)?);
    ask(machine, "postgres", "drop role bb")?;
    Ok(())
}

fn a_password_is_where_only_root_and_the_master_read_it(machine: &Machine) -> Outcome {
    ask(
        machine,
        "postgres",
        "create role ci login password 'Geheim'",
    )?;
    ask(machine, "postgres", "create database builds")?;
    let url = "postgresql://ci:Geheim@127.0.0.1/builds\n";
    machine.write_file("/root/url", url, "0600", "root")?;
    let create = [
        "create",
        "master",
        "nightly",
        "--database-file",
        "/root/url",
    ];
    // Not the owner of the database, so it cannot create tables in it.
    let refused = call(machine, &create)?;
    let hint =
        "hint: as an administrator of the server, run `alter database \"builds\" owner to \"ci\"`";
    ensure!(
        refused.status == 1 && refused.stderr.contains(hint),
        "{refused}"
    );
    ask(machine, "postgres", "alter database builds owner to ci")?;
    call(machine, &create)?.succeeded()?;
    ensure!(ask(machine, "builds", "select count(*) from masters")? == "1");
    let again = call(
        machine,
        &["create", "master", "other", "--database-file", "/root/url"],
    )?;
    ensure!(
        again.stderr.contains("already contains tables of Buildbot"),
        "{again}"
    );
    let found = machine.shell(
        "grep -rl Geheim /home/bb/master* /etc /var/lib/buildbot-conda /run/buildbot-conda; \
         journalctl --no-pager | grep Geheim; true",
    )?;
    ensure!(
        found.text() == "/etc/buildbot-conda/credentials/database-url-nightly",
        "{found}"
    );
    let kept = call(machine, &["remove", "master@nightly", "--data", "--yes"])?.succeeded()?;
    let note = "kept Buildbot's tables in the database `postgresql://127.0.0.1/builds`";
    ensure!(kept.stderr.contains(note), "{kept}");
    ask(machine, "postgres", "drop database builds")?;
    ask(machine, "postgres", "drop role ci")?;
    Ok(())
}
