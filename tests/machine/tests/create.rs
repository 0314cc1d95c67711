//! Instances made and removed in one command each, on a booted machine, up to the first build.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use buildbot_conda_machine::{
    MASTER, MASTER_UNIT, Machine, Outcome, Output, PREFIX, Release, Rest, Unit, WORKER_UNIT,
    attack, installed, on_each_release,
};

on_each_release! {
    two_commands_lead_to_the_first_green_build_and_two_more_back,
    what_fails_on_the_way_leaves_nothing_behind,
    what_is_killed_on_the_way_is_taken_back_by_the_next_command,
}

/// From a request to the end of its build on a busy machine.
const BUILT: Duration = Duration::from_mins(1);
/// The same for any step.
const SOON: Duration = Duration::from_mins(1);

fn call(machine: &Machine, words: &[&str]) -> anyhow::Result<Output> {
    machine.run(&[&["buildbot-conda"], words].concat())
}

/// The same on a terminal that shows UTF-8 and colours.
fn call_on_a_terminal(machine: &Machine, line: &str) -> anyhow::Result<Output> {
    machine.shell(&format!(
        "TERM=xterm LC_ALL=C.UTF-8 script --quiet --return --command 'buildbot-conda {line}' /dev/null"
    ))
}

/// Accounts, units, configuration, secrets and homes: everything that a command could leave behind. What a master notes
/// of itself when it has served, and of its workers, comes when it comes.
fn state(machine: &Machine) -> anyhow::Result<String> {
    let script = "getent passwd; cd /; find etc/systemd/system etc/buildbot-conda var/lib/buildbot-conda home srv \
                  -path home/bb/anaconda3 -prune -o ! -name lock ! -name served ! -name attached.json -print | sort | while read -r path; do \
                  stat -c '%n %F %a %U %N' \"$path\"; test ! -f \"$path\" || sha256sum \"$path\"; done 2>/dev/null || true";
    Ok(machine.shell(script)?.succeeded()?.stdout)
}

fn ensure_same(machine: &Machine, before: &str, talk: &Output) -> Outcome {
    let now = state(machine)?;
    let differ: Vec<&str> = now
        .lines()
        .filter(|line| !before.contains(line))
        .chain(before.lines().filter(|line| !now.contains(line)))
        .collect();
    ensure!(differ.is_empty(), "{differ:#?}\n{talk}");
    Ok(())
}

fn two_commands_lead_to_the_first_green_build_and_two_more_back(release: Release) -> Outcome {
    let machine = Machine::boot(installed(release)?)?;
    let before = state(&machine)?;

    call(&machine, &["create", "master"])?.succeeded()?;
    let made = call(&machine, &["create", "worker", "--json"])?.succeeded()?;
    ensure!(
        made.stdout.contains("\"changed\": true") && made.stdout.contains("\"state\": \"active\""),
        "{made}"
    );
    // The same once more changes nothing.
    let process = Unit::worker(&machine).main_pid()?;
    for role in ["master", "worker"] {
        let again = call(&machine, &["create", role, "--json"])?.succeeded()?;
        ensure!(again.stdout.contains("\"changed\": false"), "{again}");
    }
    ensure!(Unit::worker(&machine).main_pid()? == process);

    let rest = Rest::new(&machine);
    let build = rest.wait_for_build(rest.force("hello", &[])?, BUILT)?;
    ensure!(build.results == 0, "{build:?}");
    let log = rest.log(&build, "hello")?;
    ensure!(log.contains(&format!("hello from {PREFIX}")), "{log}");
    ensure!(!log.contains("CREDENTIALS"), "{log}");

    secrets_are_kept_and_nobody_else_is_the_master(&machine, release)?;
    let worker = Unit::worker(&machine).main_pid()?;
    let owner = machine.run(&["stat", "-c", "%U", &format!("/proc/{worker}")])?;
    ensure!(owner.text() == "bb-worker", "{owner}");

    // A second pair next to the first one.
    call(
        &machine,
        &["create", "master", "nightly", "--directory", "/srv/nightly"],
    )?
    .succeeded()?;
    let pair = ["--master", "master@nightly", "--worker-name", "worker"];
    call(
        &machine,
        &[&["create", "worker", "night"], &pair[..]].concat(),
    )?
    .succeeded()?;
    let night = Unit::named(&machine, "buildbot-worker@night.service");
    ensure!(
        night
            .status_text()?
            .contains("/run/buildbot-conda/master@nightly/workers"),
        "{}",
        night.status_text()?
    );
    let list = call(&machine, &["list"])?.succeeded()?;
    ensure!(list.stdout.matches(" active ").count() == 4, "{list}");

    an_older_master_is_converted_or_left_as_it_was(&machine)?;

    // A stopped master is not a failure; it knows the worker when it starts.
    Unit::master(&machine).succeed("stop")?;
    let later = call(&machine, &["create", "worker", "later"])?.succeeded()?;
    ensure!(!later.stderr.contains("and reload it"), "{later}");
    Unit::master(&machine).succeed("start")?;
    Rest::new(&machine).wait_for_worker("later", SOON)?;
    call(&machine, &["remove", "worker@later", "--data", "--yes"])?.succeeded()?;

    // There is no terminal to ask.
    let refusal = call(&machine, &["remove", "worker@night"])?;
    ensure!(
        refusal.status == 1 && refusal.stderr.contains("hint: use `--yes`"),
        "{refusal}"
    );
    let kept = call(&machine, &["remove", "worker@night", "--yes"])?.succeeded()?;
    ensure!(
        kept.stderr
            .contains("kept `/home/bb-worker-night/worker-night`"),
        "{kept}"
    );
    machine
        .run(&[
            "rm",
            "-r",
            "/home/bb-worker-night/worker-night",
            "/var/lib/buildbot-conda/instances/worker@night",
        ])?
        .succeeded()?;
    let again = call(&machine, &["remove", "worker@night", "--yes", "--json"])?.succeeded()?;
    ensure!(
        again.stdout.contains("\"changed\": false") && again.stdout.contains("\"before\": null"),
        "{again}"
    );
    for changed in [true, false] {
        let drained = call(&machine, &["drain", "worker", "--json"])?.succeeded()?;
        ensure!(
            drained.stdout.contains(&format!("\"changed\": {changed}"))
                && drained.stdout.contains("\"state\": \"inactive\""),
            "{drained}"
        );
    }
    let mut talk = kept;
    for reference in ["worker", "master@nightly", "master"] {
        talk = call(&machine, &["remove", reference, "--data", "--yes"])?.succeeded()?;
    }
    for unit in [MASTER_UNIT, WORKER_UNIT] {
        ensure!(Unit::named(&machine, unit).property("ActiveState")? == "inactive");
    }
    // What differs is what was there before anybody created anything, and accounts, which stay.
    let now = state(&machine)?;
    let more: Vec<&str> = now.lines().filter(|line| !before.contains(line)).collect();
    let expected = ["bb-worker", "config.toml", "created"];
    ensure!(
        more.iter()
            .all(|line| expected.iter().any(|word| line.contains(word)) || !line.contains('/')),
        "{more:#?}\n{talk}"
    );
    Ok(())
}

/// What the second master of the scenario was before its workers were data: names in its configuration, and one password
/// for all, which its worker shares.
fn make_older(machine: &Machine) -> Outcome {
    let file = "/srv/nightly/master.cfg";
    let text = machine.read_file(file)?;
    let above = text
        .find("def password(")
        .context("find the lines of workers")?;
    let below = text.find("hello = ").context("find what is below them")?;
    let lines = "WORKERS = [\"worker\"]\nc[\"workers\"] = [worker.Worker(name, secret(\"worker-password\")) for name in \
                 WORKERS]\n";
    let older = format!("{}{lines}{}", &text[..above], &text[below..]);
    machine.write_file(file, &older, "0600", "bb")?;
    let credential = "credentials.worker-password";
    let words = [
        "set",
        "master@nightly",
        credential,
        "password-of-first-worker-nightly",
    ];
    call(machine, &words)?.succeeded()?;
    machine
        .shell(
            "rm -r /srv/nightly/workers.toml /srv/nightly/passwords; \
             sed -i 's/,\"worker_credential\":[^}]*//' /var/lib/buildbot-conda/created/master@nightly.json; \
             systemctl daemon-reload; systemctl restart buildbot-master@nightly",
        )?
        .succeeded()?;
    Rest::at(machine, 8011).wait_for_worker("worker", SOON)
}

fn an_older_master_is_converted_or_left_as_it_was(machine: &Machine) -> Outcome {
    make_older(machine)?;
    let rest = Rest::at(machine, 8011);
    let night = Unit::named(machine, "buildbot-worker@night.service");
    let process = night.main_pid()?;
    let convert = ["convert", "master@nightly"];
    let file = "/srv/nightly/master.cfg";
    let older = machine.read_file(file)?;

    // A configuration that the master does not accept is rolled back.
    let strange =
        format!("{older}\nassert not os.path.exists(os.path.join(HERE, \"workers.toml\"))\n");
    machine.write_file(file, &strange, "0600", "bb")?;
    let before = state(machine)?;
    let talk = call(machine, &convert)?;
    ensure!(
        talk.status == 1
            && talk.stderr.contains("rejects its configuration")
            && talk.stderr.contains("all changes were rolled back"),
        "{talk}"
    );
    ensure_same_but_databases(machine, &before, &talk)?;
    machine.write_file(file, &older, "0600", "bb")?;

    let talk = call(machine, &convert)?.succeeded()?;
    ensure!(rest.worker_connected("worker")?, "{talk}");
    let modes = machine.shell(
        "cd /srv/nightly; stat -c '%a %U' passwords passwords/worker workers.toml master.cfg.replaced \
         /etc/buildbot-conda/credentials/password-of-worker-night",
    )?;
    ensure!(
        modes.stdout == "700 bb\n600 bb\n600 bb\n600 bb\n600 root\n",
        "{modes}"
    );
    let again = call(machine, &convert)?.succeeded()?;
    ensure!(again.stderr.contains("already"), "{again}");
    // From here on, it is like a new one.
    ensure!(night.main_pid()? == process, "nobody was restarted");
    call(machine, &["rotate", "worker", "--master", "master@nightly"])?.succeeded()?;
    rest.wait_for_worker("worker", SOON)?;
    let build = rest.wait_for_build(rest.force("hello", &[])?, BUILT)?;
    ensure!(build.results == 0, "{build:?}");
    Ok(())
}

fn secrets_are_kept_and_nobody_else_is_the_master(machine: &Machine, release: Release) -> Outcome {
    // Whose is what, and who may read it.
    let modes = machine.shell(&format!(
        "cd /etc/buildbot-conda/credentials; stat -c '%a %U' web-password password-of-worker {MASTER}/master.cfg \
         {MASTER}/state.sqlite {MASTER}/passwords {MASTER}/passwords/worker /home/bb-worker/worker/buildbot.tac \
         /home/bb-worker/worker/info/host"
    ))?;
    ensure!(
        modes.stdout
            == "600 root\n600 root\n600 bb\n600 bb\n700 bb\n600 bb\n600 bb-worker\n644 bb-worker\n",
        "{modes}"
    );
    let leaks = machine.shell(
        "for name in web-password password-of-worker; do grep -rlF \"$(cat /etc/buildbot-conda/credentials/$name)\" \
         /home/bb/master /home/bb-worker /etc/buildbot-conda/config.toml /var/lib/buildbot-conda /var/log; done || true; \
         journalctl --quiet --grep \"$(cat /etc/buildbot-conda/credentials/web-password)\" || true",
    )?;
    ensure!(
        leaks.text() == format!("{MASTER}/passwords/worker"),
        "{leaks}"
    );
    let rest = Rest::new(machine);
    attack("starter-without-login", release, || {
        let closed = [
            ("forceschedulers/force", "force"),
            ("builds/1", "rebuild"),
            ("workers/1", "stop"),
        ];
        for (path, method) in closed {
            ensure!(rest.is_closed(path, method)?, "{path} {method}");
        }
        ensure!(rest.worker_connected("worker")?);
        Ok(())
    })?;
    attack("posing-as-the-master", release, || {
        Unit::master(machine).succeed("stop")?;
        let bind = "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])";
        let words = ["runuser", "-u", "bb-worker", "--", "python3", "-c", bind];
        for name in ["workers", "other"] {
            let path = format!("/run/buildbot-conda/master/{name}");
            let python = format!("{PREFIX}/bin/python3");
            let words = words.map(|word| if word == "python3" { &python } else { word });
            let refused = machine.run(&[&words[..], &[&path]].concat())?;
            ensure!(
                refused.status == 1 && refused.stderr.contains("rror"),
                "{refused}"
            );
        }
        Unit::master(machine).succeed("start")?;
        rest.wait_for_worker("worker", SOON)
    })
}

/// On a terminal, after a step that failed.
fn steps_show_their_results(talk: &Output) -> Outcome {
    // On a slow machine, its seconds are between the mark and the line's end.
    let failed = "\u{1b}[1m\u{1b}[31m✗\u{1b}[0m";
    let (done, undone) = talk.stdout.split_once(failed).unwrap_or_default();
    let tick = " \u{1b}[32m✓\u{1b}[0m";
    ensure!(
        done.contains(tick)
            && undone.contains("\r\nthis step failed, rolling back\r\n")
            && undone.contains(tick)
            && undone.contains("error:\u{1b}[0m set up `")
            && undone.contains("`buildbot create-master` failed: ")
            && undone.contains("all changes were rolled back"),
        "{talk}"
    );
    ensure!(talk.status == 1, "{talk}");
    Ok(())
}

fn what_fails_on_the_way_leaves_nothing_behind(release: Release) -> Outcome {
    let machine = Machine::boot(installed(release)?)?;
    let before = state(&machine)?;

    // The environment's Buildbot has no `create-master`.
    let program =
        format!("{PREFIX}/lib/python3.11/site-packages/buildbot/scripts/create_master.py");
    machine
        .shell(&format!("mv {program} {program}.away"))?
        .succeeded()?;
    let talk = call_on_a_terminal(&machine, "create master")?;
    steps_show_their_results(&talk)?;
    ensure_same(&machine, &before, &talk)?;
    machine
        .shell(&format!("mv {program}.away {program}"))?
        .succeeded()?;

    // The port is taken after it was looked at: by the web server that a script of the environment starts.
    machine.write_file(
        &format!("{PREFIX}/etc/conda/activate.d/take.sh"),
        "test -e /var/tmp/taken || { python -c 'import socket, time; s = socket.socket(); s.bind((\"127.0.0.1\", 8010)); \
         s.listen(); time.sleep(600)' </dev/null >/dev/null 2>&1 & echo $! >/var/tmp/taken; }\n",
        "0644",
        "root",
    )?;
    let talk = call(&machine, &["create", "master"])?;
    ensure!(
        talk.status == 1
            && talk
                .stderr
                .contains("error: `buildbot-master.service` failed to start")
            && talk.stderr.contains("8010"),
        "{talk}"
    );
    ensure_same(&machine, &before, &talk)?;
    // And systemd has loaded the previous state, for the instances that were not changed as well.
    let doctor = call(&machine, &["doctor", "--only", "unit-reload,unfinished"])?;
    ensure!(doctor.stdout.starts_with("no problems, "), "{doctor}");
    // If systemd has not killed it with the unit, a new master would use the next port while it still exits.
    machine
        .shell(&format!(
            "rm {PREFIX}/etc/conda/activate.d/take.sh; pid=$(cat /var/tmp/taken); \
             while kill $pid 2>/dev/null; do sleep 0.1; done"
        ))?
        .succeeded()?;

    // A worker whose password the master does not know.
    call(&machine, &["create", "master", "--worker-port=9989"])?.succeeded()?;
    let before = state(&machine)?;
    machine.shell("echo other >/root/password")?.succeeded()?;
    let elsewhere = "--master=localhost:9989";
    let given = "--password-file=/root/password";
    let talk = call(&machine, &["create", "worker", elsewhere, given])?;
    ensure!(
        talk.status == 1 && talk.stderr.contains("error: the master rejects `worker`"),
        "{talk}"
    );
    ensure_same_but_databases(&machine, &before, &talk)?;

    // The same for a further one, which the master had accepted in between, and removes again.
    let file = format!("{MASTER}/master.cfg");
    let configuration = machine.read_file(&file)?;
    let table = format!("{MASTER}/workers.toml");
    let workers = machine.read_file(&table)?;
    let strange = configuration.replace("password(name), max", "\"unknown\", max");
    ensure!(strange != configuration, "{configuration}");
    machine.write_file(&file, &strange, "0600", "bb")?;
    let talk = call(&machine, &["create", "worker", "gpu"])?;
    let steps = [
        format!("as `bb`, write `{MASTER}/passwords/gpu`, mode 0600"),
        format!("as `bb`, add \"gpu\" to `{table}`"),
        "check the configuration of `buildbot-master.service`, and reload it".to_owned(),
        "error: the master rejects `worker@gpu`".to_owned(),
    ];
    ensure!(
        talk.status == 1 && steps.iter().all(|step| talk.stderr.contains(step)),
        "{talk}"
    );
    ensure!(machine.read_file(&table)? == workers, "{talk}");
    let left = machine.run(&["ls", &format!("{MASTER}/passwords")])?;
    ensure!(left.text() == "worker", "{left}\n{talk}");
    ensure!(configured_workers(&machine)? == ["worker"], "{talk}");
    ensure_same_but_databases(&machine, &before, &talk)?;
    machine.write_file(&file, &configuration, "0600", "bb")?;
    Unit::master(&machine).succeed("reload")?;

    // A configuration with an error of its administrator: it is not changed, and nothing depends on it.
    let mistaken = format!("{configuration}raise ValueError('a mistake')\n");
    machine.write_file(&file, &mistaken, "0600", "bb")?;
    let talk = call(&machine, &["create", "worker", "gpu"])?;
    ensure!(
        talk.status == 1
            && talk
                .stderr
                .contains("error: `buildbot-master.service` rejects its configuration: ")
            && talk.stderr.contains("a mistake")
            && talk.stderr.contains("; all changes were rolled back\n"),
        "{talk}"
    );
    ensure!(machine.read_file(&file)? == mistaken, "{talk}");
    ensure_same_but_databases(&machine, &before, &talk)?;
    machine.write_file(&file, &configuration, "0600", "bb")?;
    // Buildbot reads the password of a worker that it knows at a start, not at every reload.
    Unit::master(&machine).succeed("restart")?;

    refuse_a_wrong_password_that_is_typed(&machine, &before)
}

/// A typed password is not shown, and a wrong one leaves nothing behind; then the right one is used.
fn refuse_a_wrong_password_that_is_typed(machine: &Machine, before: &str) -> Outcome {
    let talk = type_password(machine, "wrong one")?;
    ensure!(
        talk.status == 1
            && talk.stdout.contains("the master rejects `worker@typed`")
            && !talk.stdout.contains("wrong one"),
        "{talk}"
    );
    ensure_same_but_databases(machine, before, &talk)?;
    let password = machine.read_file("/etc/buildbot-conda/credentials/password-of-worker")?;
    let talk = type_password(machine, password.trim())?;
    ensure!(
        talk.status == 0 && !talk.stdout.contains(password.trim()),
        "{talk}"
    );
    ensure!(Rest::new(machine).worker_connected("worker")?, "{talk}");
    Ok(())
}

/// Those that the running master is configured for, but for its own.
fn configured_workers(machine: &Machine) -> anyhow::Result<Vec<String>> {
    let answer = Rest::new(machine).get("workers")?;
    let workers = answer["workers"].as_array().into_iter().flatten();
    let configured = workers.filter(|worker| {
        let builders = worker["configured_on"].as_array();
        builders.is_some_and(|builders| !builders.is_empty()) && worker["name"] != "__Janitor"
    });
    Ok(configured
        .filter_map(|worker| worker["name"].as_str().map(str::to_owned))
        .collect())
}

/// Makes a worker for `localhost:9989` from a terminal, on which the password is typed when it is asked for. What the
/// terminal shows is the output.
fn type_password(machine: &Machine, password: &str) -> anyhow::Result<Output> {
    let program = r#"
import os, pty, sys
words = "buildbot-conda create worker typed --user bb --master localhost:9989 --worker-name worker".split()
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(words[0], words)
shown = b""
typed = False
while True:
    try:
        part = os.read(terminal, 4096)
    except OSError:
        break
    if not part:
        break
    shown += part
    if not typed and b"password of the worker at localhost:9989: " in shown:
        os.write(terminal, sys.argv[1].encode() + b"\n")
        typed = True
print(shown.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;
    machine.run(&[&format!("{PREFIX}/bin/python"), "-c", program, password])
}

/// A running master writes to its database all the time, and later its import cache.
fn ensure_same_but_databases(machine: &Machine, before: &str, talk: &Output) -> Outcome {
    let without = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .filter(|line| !line.contains("home/bb/master/") && !line.contains("/bytecode/"))
            .filter(|line| !line.contains("srv/nightly/state.sqlite"));
        lines.map(str::to_owned).collect()
    };
    let now = without(&state(machine)?);
    let before = without(before);
    ensure!(now == before, "{before:#?}\n{now:#?}\n{talk}");
    Ok(())
}

fn what_is_killed_on_the_way_is_taken_back_by_the_next_command(release: Release) -> Outcome {
    let machine = Machine::boot(installed(release)?)?;
    let before = state(&machine)?;
    stop_in_activation(&machine, "create master", "/var/tmp")?;
    // No other process interferes.
    let talk = call(&machine, &["create", "worker", "--master=localhost:1"])?;
    ensure!(
        talk.status == 1 && talk.stderr.contains("is changing this host"),
        "{talk}"
    );

    machine.shell("kill -KILL $(cat /root/pid)")?.succeeded()?;
    machine.wait_until("what it began has ended with it", SOON, || {
        let left = machine.shell("find /proc -maxdepth 1 -name '[1-9]*' -user bb")?;
        Ok(left.text().is_empty().then_some(()))
    })?;
    go_on(&machine, "/var/tmp")?;

    // Any of the commands rolls it back, even one that then refuses.
    let talk = call(&machine, &["create", "worker", "--conda-env=none"])?;
    ensure!(
        talk.status == 1
            && talk
                .stderr
                .contains("`buildbot-conda create master` was interrupted, rolling it back first"),
        "{talk}"
    );
    ensure_same(&machine, &before, &talk)?;
    call(&machine, &["create", "master"])?.succeeded()?;
    ensure!(Rest::new(&machine).answers(), "the master does not answer");

    // While the master checks its configuration with a further worker in it.
    let before = state(&machine)?;
    let file = format!("{MASTER}/workers.toml");
    let workers = machine.read_file(&file)?;
    stop_in_activation(&machine, "create worker gpu", MASTER)?;
    let changed = machine.read_file(&file)?;
    ensure!(changed == format!("{workers}[gpu]\n"), "{changed}");
    machine.shell("kill -KILL $(cat /root/pid)")?.succeeded()?;
    go_on(&machine, MASTER)?;
    let talk = call(&machine, &["create", "worker", "--conda-env=none"])?;
    ensure!(
        talk.stderr
            .contains("`buildbot-conda create worker gpu` was interrupted, rolling it back first"),
        "{talk}"
    );
    ensure!(machine.read_file(&file)? == workers, "{talk}");
    ensure!(configured_workers(&machine)? == ["worker"], "{talk}");
    ensure_same_but_databases(&machine, &before, &talk)?;
    what_is_interrupted_while_data_goes_is_completed(&machine)
}

/// `^C` at the end of `remove --data`: it cannot be rolled back by then, and no later command is blocked.
fn what_is_interrupted_while_data_goes_is_completed(machine: &Machine) -> Outcome {
    let script = "buildbot-conda remove master --data --yes 2>&1 | { while read -r line; do echo \"$line\"; \
                  case $line in 'as `bb`, remove '*) pkill -INT -x buildbot-conda;; esac; done; }";
    let talk = machine.run(&["bash", "-o", "pipefail", "-c", script])?;
    ensure!(talk.status == 0, "{talk}");
    let left = machine.shell(&format!(
        "ls -d {MASTER} /var/lib/buildbot-conda/instances/master; grep -F '[master]' /etc/buildbot-conda/config.toml; true"
    ))?;
    ensure!(left.stdout.is_empty(), "{left}\n{talk}");
    call(machine, &["recover"])?.succeeded()?;

    // What is killed there is named by `doctor` and completed by `recover`.
    call(machine, &["create", "master"])?.succeeded()?;
    let plan = r#"{"version": 2, "title": "remove master", "undo": [], "remaining": [
        {"clear": {"user": "no-such-account", "group": null, "directory": "/srv", "keep": false}},
        {"remove-tree": {"path": "/srv/left"}}]}"#;
    let journal = "/var/lib/buildbot-conda/unfinished.json";
    machine.shell("mkdir -p /srv/left/state")?.succeeded()?;
    machine.write_file(journal, plan, "0600", "root")?;
    let doctor = call(machine, &["doctor", "--only", "unfinished"])?;
    ensure!(
        doctor.status == 1 && doctor.stdout.contains("buildbot-conda recover"),
        "{doctor}"
    );
    let talk = call(machine, &["recover"])?.succeeded()?;
    ensure!(
        talk.stderr.contains("account `no-such-account` not found"),
        "{talk}"
    );
    let left = machine.shell(&format!("ls -d {journal} /srv/left; true"))?;
    ensure!(left.stdout.is_empty(), "{left}\n{talk}");
    call(machine, &["remove", "master", "--data", "--yes"])?.succeeded()?;
    Ok(())
}

/// Starts a command, and returns while it waits for an environment to be activated. The account that activates it can
/// write in `place`.
fn stop_in_activation(machine: &Machine, verb: &str, place: &str) -> Outcome {
    machine.write_file(
        &format!("{PREFIX}/etc/conda/activate.d/wait.sh"),
        &format!("touch {place}/waits; while test ! -e {place}/go; do sleep 0.1; done\n"),
        "0644",
        "root",
    )?;
    let script = format!(
        "setsid -f sh -c 'echo $$ >/root/pid; exec buildbot-conda {verb}' </dev/null >/root/talk 2>&1"
    );
    machine.shell(&script)?.succeeded()?;
    machine.wait_until("an environment is being activated", SOON, || {
        let waits = machine.run(&["test", "-e", &format!("{place}/waits")])?;
        Ok((waits.status == 0).then_some(()))
    })
}

/// Activation waits no more, neither the one under way nor those to come.
fn go_on(machine: &Machine, place: &str) -> Outcome {
    let script = format!("touch {place}/go; rm {PREFIX}/etc/conda/activate.d/wait.sh");
    machine.shell(&script)?.succeeded()?;
    Ok(())
}
