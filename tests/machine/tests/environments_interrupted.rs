//! "Interrupted at any moment: the old generation serves." Updates of managed environments that fail late, are killed
//! at more than twenty moments, or lose their machine: the old generation serves automatically, with its database, and
//! the next update is not blocked.
//!
//! The moments while a generation is created are tested with an environment of one small package, whose `bin/python`
//! compiles nothing, so that all of them together take seconds. The moments that stop and start services are tested
//! with an older Buildbot with a master, a worker and a history.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use buildbot_conda_machine::{
    CHANNEL, Channel, Machine, Outcome, Output, Release, Rest, Unit, Version, on_each_release,
    without_conda,
};
use buildbot_conda_trace::{Ended, Event, Next, run};

on_each_release! {
    an_interrupted_update_leaves_the_old_generation_serving,
}

/// Of a command, a build or a return, on a busy machine.
const LIMIT: Duration = Duration::from_mins(4);
const STORE: &str = "/var/lib/buildbot-conda/envs";
/// Where the small packages are, and where they are fetched from.
const SMALL: &str = "/srv/small";
const ADDRESS: &str = "http://127.0.0.1:8099";
/// How many updates of the small environment there are.
const UPDATES: usize = MAKING.len();

/// A moment: a word for people, the system call before which everything is killed, a part of one of its paths, and how
/// many such come before.
type Moment = (&'static str, &'static str, &'static str, usize);

/// The moments while a generation is created, for which no instance has to be restarted; none of them is Python's.
const MAKING: [Moment; 17] = [
    ("begin", "execve", "/usr/libexec/buildbot-conda/env", 0),
    ("make the cache", "mkdir", "/var/cache/buildbot-conda", 0),
    ("begin a download", "open", "/archives/", 0),
    ("download", "write", "/archives/", 0),
    ("name a download", "rename", "/archives/", 0),
    ("begin to unpack", "mkdir", "/pkgs", 0),
    ("unpack", "open", "/pkgs/", 1),
    ("unpack more", "open", "/pkgs/", 4),
    ("make the directory", "mkdir", "/.building", 0),
    ("install", "link", "/.building/", 0),
    ("install more", "link", "/.building/", 2),
    ("record a package", "open", "/.building/conda-meta/", 0),
    ("lock it", "open", "conda-meta/buildbot-conda.lock", 0),
    ("name it", "rename", "/.building", 0),
    ("make the link", "symlink", "/.next", 0),
    ("switch the link", "rename", "/current", 0),
    ("note the switch", "rename", "/history", 0),
];

fn call(machine: &Machine, words: &[&str]) -> anyhow::Result<Output> {
    machine.run_within(LIMIT, &[&["buildbot-conda"], words].concat())
}

fn update(machine: &Machine, name: &str, file: &str) -> anyhow::Result<Output> {
    call(machine, &["env", "update", name, "--file", file])
}

fn current(machine: &Machine, name: &str) -> anyhow::Result<String> {
    let link = machine.run(&["readlink", &format!("{STORE}/{name}/current")])?;
    Ok(link.succeeded()?.text().to_owned())
}

/// Runs an update and kills it, with everything that it has started, before the first event for which `is_moment` is
/// true.
fn kill_update(
    machine: &Machine,
    name: &str,
    file: &str,
    mut is_moment: impl FnMut(&Event) -> bool + Send,
) -> Outcome {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--target={}", machine.first_process()?))
        .args([
            "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--",
        ])
        .args(["env", "-i", "LC_ALL=C.UTF-8"])
        .arg("PATH=/usr/sbin:/usr/bin:/sbin:/bin")
        .args(["buildbot-conda", "env", "update", name, "--file", file]);
    let ended = run(&command, |event| {
        if is_moment(event) {
            Next::Kill
        } else {
            Next::Continue
        }
    })
    .context("follow an update")?;
    ensure!(ended == Ended::Killed, "the moment did not come: {ended:?}");
    Ok(())
}

fn an_interrupted_update_leaves_the_old_generation_serving(release: Release) -> Outcome {
    let mut machine = Machine::boot(without_conda(release)?)?;
    let [old, new] = [Version::V3_11_9, Version::V4_3_0].map(|version| {
        let channel = Channel::made()?;
        channel.lock(version, CHANNEL)
    });
    let old = old?;
    machine.write_file("/root/old.txt", &old, "0644", "root")?;
    call(
        &machine,
        &["env", "create", "buildbot", "--file", "/root/old.txt"],
    )?
    .succeeded()?;
    let python = format!("{STORE}/buildbot/current/bin/python");
    machine.write_file("/root/packages.py", PACKAGES, "0644", "root")?;
    let count = UPDATES.to_string();
    let trap = machine
        .run(&[&python, "/root/packages.py", SMALL, &count])?
        .succeeded()?;
    for (file, lock) in [("/root/same.txt", &old), ("/root/newer.txt", &new?)] {
        let text = format!("{lock}{}\n", trap.text());
        machine.write_file(file, &text, "0644", "root")?;
    }
    call(&machine, &["create", "master"])?.succeeded()?;
    call(&machine, &["create", "worker"])?.succeeded()?;
    build(&machine)?;

    let first = current(&machine, "buildbot")?;
    killed_while_it_is_made(&machine, &python)?;
    killed_while_services_are_restarted(&machine, &first)?;
    a_worker_that_does_not_serve_takes_the_database_back(&machine, &first)?;
    machine = power_is_cut(machine, &first)?;
    killed_when_it_serves(&machine, &first)
}

fn build(machine: &Machine) -> Outcome {
    let rest = Rest::new(machine);
    rest.wait_for_worker("worker", LIMIT)?;
    let build = rest.wait_for_build(rest.force("hello", &[])?, LIMIT)?;
    ensure!(build.results == 0, "{build:?}");
    Ok(())
}

fn killed_while_it_is_made(machine: &Machine, python: &str) -> Outcome {
    machine
        .run(&[
            "systemd-run",
            "--quiet",
            "--unit=small",
            "--working-directory",
            SMALL,
            python,
            "-m",
            "http.server",
            "--bind",
            "127.0.0.1",
            "8099",
        ])?
        .succeeded()?;
    let ask = format!("import urllib.request as r; r.urlopen('{ADDRESS}/0.txt')");
    machine.wait_until("packages are served", LIMIT, || {
        let asked = machine.run(&[python, "-c", &ask])?;
        Ok((asked.status == 0).then_some(()))
    })?;
    let file = |number: usize| format!("{SMALL}/{number}.txt");
    call(machine, &["env", "create", "small", "--file", &file(0)])?.succeeded()?;
    for (number, (moment, call_name, part, skipped)) in MAKING.into_iter().enumerate() {
        let described = |text: String| format!("killed before `{moment}`: {text}");
        let before = current(machine, "small")?;
        machine.run(&["rm", "-r", "/var/cache/buildbot-conda"])?;
        let mut left = skipped;
        kill_update(machine, "small", &file(number + 1), |event| {
            let Event::Step(step) = event else {
                return false;
            };
            let is_one =
                step.call == call_name && step.paths.iter().any(|path| path.contains(part));
            let is_moment = is_one && left == 0;
            left = left.saturating_sub(usize::from(is_one));
            is_moment
        })
        .with_context(|| described(String::new()))?;
        // The switch of the link is the moment from which another one serves.
        let serves = machine.read_file(&format!("{STORE}/small/current/share/small"))?;
        let is_switched = moment == "note the switch";
        ensure!(
            (current(machine, "small")? != before) == is_switched
                && serves == (number + usize::from(is_switched)).to_string(),
            described(serves)
        );
        let talk = update(machine, "small", &file(number + 1))?;
        let serves = machine.read_file(&format!("{STORE}/small/current/share/small"))?;
        let names = machine
            .shell(&format!(
                "cd {STORE}/small; ls -A | grep -vx '[0-9a-f]\\{{12\\}}'; cd /var/cache/buildbot-conda; ls -A archives"
            ))?
            .succeeded()?;
        let expected = ".lock\ncurrent\nhistory\n";
        ensure!(
            talk.status == 0
                && serves == (number + 1).to_string()
                && names.stdout.starts_with(expected)
                && !names.stdout[expected.len()..].contains("part"),
            described(format!("{talk}\n{names}"))
        );
    }
    let found = call(machine, &["env", "verify", "small"])?;
    ensure!(found.status == 0, "{found}");
    call(machine, &["env", "gc", "small"])?.succeeded()?;
    let left = machine.shell(&format!("ls {STORE}/small | grep -cx '[0-9a-f]\\{{12\\}}'"))?;
    ensure!(left.text() == "2", "{left}");
    Ok(())
}

/// Whether an event is the one before which everything is killed.
type IsMoment = Box<dyn FnMut(&Event) -> bool + Send>;

/// The words of the program that one event is about, if it is the start of one.
fn words(event: &Event) -> Option<&[String]> {
    match event {
        Event::Exec(exec) => Some(&exec.arguments),
        _ => None,
    }
}

fn killed_while_services_are_restarted(machine: &Machine, first: &str) -> Outcome {
    let starts = |wanted: &'static [&'static str]| {
        move |event: &Event| {
            words(event).is_some_and(|words| {
                wanted
                    .iter()
                    .all(|word| words.iter().any(|one| one == word))
            })
        }
    };
    let renames = |event: &Event| matches!(event, Event::Step(step) if step.call == "rename" && step.paths[1].ends_with("/buildbot/current"));
    // Made once, so that the other moments are those of its trial and its switch.
    call(machine, &["env", "gc", "--cache"])?.succeeded()?;
    let compiles = |event: &Event| matches!(event, Event::Step(step) if step.call == "execve" && step.paths[0].contains("/bin/python"));
    let moments: [(&str, IsMoment); 7] = [
        ("compile", Box::new(compiles)),
        (
            "try it for the master",
            Box::new(starts(&["service", "try", "master"])),
        ),
        ("guard", Box::new(starts(&["env", "recover"]))),
        (
            "stop the master",
            Box::new(starts(&["stop", "buildbot-master.service"])),
        ),
        (
            "start the master",
            Box::new(starts(&["start", "buildbot-master.service"])),
        ),
        (
            "start the worker",
            Box::new(starts(&["start", "buildbot-worker.service"])),
        ),
        ("switch the link", Box::new(renames)),
    ];
    for (moment, is_moment) in moments {
        kill_update(machine, "buildbot", "/root/same.txt", is_moment)
            .with_context(|| format!("killed before `{moment}`"))?;
        ensure!(
            current(machine, "buildbot")? == first,
            "killed before `{moment}`"
        );
        serves_by_itself(machine, first).with_context(|| format!("killed before `{moment}`"))?;
    }
    build(machine)
}

/// Without any command, the guard has brought both back.
fn serves_by_itself(machine: &Machine, first: &str) -> Outcome {
    let prefix = format!("{STORE}/buildbot/{first}/");
    let units = [Unit::master(machine), Unit::worker(machine)];
    machine.wait_until("the old generation serves", LIMIT, || {
        let guard = machine.run(&["systemctl", "is-active", "buildbot-conda-env-buildbot"])?;
        if !matches!(guard.text(), "inactive" | "failed") {
            return Ok(None);
        }
        for unit in units {
            let pid = unit.property("MainPID")?;
            let program = machine.run(&["readlink", &format!("/proc/{pid}/exe")])?;
            if unit.property("ActiveState")? != "active" || !program.text().starts_with(&prefix) {
                return Ok(None);
            }
        }
        Ok(Rest::new(machine).answers().then_some(()))
    })?;
    let left = machine.run(&["ls", "-A", &format!("{STORE}/buildbot")])?;
    ensure!(!left.stdout.contains(".changing"), "{left}");
    Ok(())
}

/// Builds that succeeded, as the master that runs now knows them.
fn history(machine: &Machine) -> anyhow::Result<usize> {
    let builds = Rest::new(machine).builds()?;
    Ok(builds.iter().filter(|build| build.results == 0).count())
}

fn a_worker_that_does_not_serve_takes_the_database_back(machine: &Machine, first: &str) -> Outcome {
    let before = history(machine)?;
    machine.run(&["touch", "/run/trap-fails"])?.succeeded()?;
    let talk = update(machine, "buildbot", "/root/newer.txt")?;
    ensure!(
        talk.status == 1
            && talk
                .stderr
                .contains("master: its start will back up and upgrade the database")
            && talk
                .stderr
                .contains(&format!("`buildbot` is back at generation {first}"))
            && talk
                .stderr
                .contains("`buildbot-worker.service` failed to start"),
        "{talk}"
    );
    serves_by_itself(machine, first)?;
    ensure!(history(machine)? == before, "{talk}");
    let backups = call(machine, &["restore", "master", "--list"])?.succeeded()?;
    ensure!(
        backups.stdout.contains("-buildbot-3.11.9-schema-064")
            && backups.stdout.contains("-buildbot-4.3.0-schema-067"),
        "{backups}"
    );
    let journal = Unit::master(machine).journal()?;
    ensure!(
        journal.contains("upgraded the database and then failed"),
        "{journal}"
    );
    machine.run(&["rm", "/run/trap-fails"])?.succeeded()?;
    build(machine)
}

/// While the worker has not restarted and the master serves from the new generation, everything is killed at once.
fn power_is_cut(mut machine: Machine, first: &str) -> anyhow::Result<Machine> {
    let before = history(&machine)?;
    machine.run(&["touch", "/run/trap-waits"])?.succeeded()?;
    machine
        .shell("setsid -f buildbot-conda env update buildbot --file /root/newer.txt </dev/null >/root/talk 2>&1")?
        .succeeded()?;
    machine.wait_until("the worker is being started", LIMIT, || {
        let waits = machine.run(&["test", "-e", "/run/buildbot-conda/worker/trap"])?;
        Ok((waits.status == 0).then_some(()))
    })?;
    machine.shell("sync")?.succeeded()?;
    machine.power_cut()?;
    machine.wait_until("the master serves again", LIMIT, || {
        Ok(Rest::new(&machine).answers().then_some(()))
    })?;
    ensure!(
        current(&machine, "buildbot")? == first,
        "the link was switched"
    );
    ensure!(
        history(&machine)? == before,
        "{}",
        Unit::master(&machine).journal()?
    );
    build(&machine)?;
    // What is left of it goes with the next command, which has nothing to bring back.
    let pid = Unit::master(&machine).main_pid()?;
    let talk = call(&machine, &["env", "recover", "buildbot"])?.succeeded()?;
    ensure!(
        talk.stderr.contains("was interrupted") && !talk.stderr.contains("rolling back"),
        "{talk}"
    );
    ensure!(Unit::master(&machine).main_pid()? == pid, "{talk}");
    serves_by_itself(&machine, first)?;
    Ok(machine)
}

/// After the link is replaced, the new generation serves, and nothing is rolled back.
fn killed_when_it_serves(machine: &Machine, first: &str) -> Outcome {
    let before = history(machine)?;
    kill_update(
        machine,
        "buildbot",
        "/root/newer.txt",
        |event| matches!(event, Event::Step(step) if step.call == "unlink" && step.paths[0].ends_with("/.changing")),
    )?;
    let second = current(machine, "buildbot")?;
    ensure!(second != first, "the link is not switched");
    serves_by_itself(machine, &second)?;
    let talk = update(machine, "buildbot", "/root/newer.txt")?.succeeded()?;
    ensure!(talk.stderr.contains("is up to date"), "{talk}");
    ensure!(history(machine)? == before, "{talk}");
    build(machine)
}

/// Creates packages `small` with their locks, and `trap`, whose activation fails or waits in the services of workers on
/// request. Prints the line of `trap` for a lock.
const PACKAGES: &str = r##"
import hashlib, io, json, os, sys, tarfile
place, count = sys.argv[1], int(sys.argv[2])
os.makedirs(place + "/noarch")
def package(name, version, members):
    index = {"name": name, "version": version, "build": "0", "build_number": 0, "depends": [], "subdir": "noarch", "noarch": "generic"}
    paths = [{"_path": path, "path_type": "hardlink", "sha256": hashlib.sha256(text.encode()).hexdigest(), "size_in_bytes": len(text)}
             for path, text, mode in members]
    info = [("info/index.json", json.dumps(index), 0o644), ("info/paths.json", json.dumps({"paths": paths, "paths_version": 1}), 0o644)]
    file = "noarch/%s-%s-0.tar.bz2" % (name, version)
    with tarfile.open(place + "/" + file, "w:bz2") as archive:
        for path, text, mode in info + members:
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(text), mode
            archive.addfile(entry, io.BytesIO(text.encode()))
    return file + "#sha256:" + hashlib.sha256(open(place + "/" + file, "rb").read()).hexdigest()
for number in range(count + 1):
    line = package("small", str(number), [
        ("bin/python", "#!/bin/sh\nexit 0\n", 0o755), ("lib/python3.11/module.py", "", 0o644),
        ("share/small", str(number), 0o600)])
    with open("%s/%d.txt" % (place, number), "w") as lock:
        lock.write("@EXPLICIT\nhttp://127.0.0.1:8099/%s\n" % line)
# The machine has no certificates of authorities, without which no program begins to download.
import datetime
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.timezone.utc)
name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nobody")])
certificate = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    .serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=9))
    .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256()))
os.makedirs("/etc/ssl/certs", exist_ok=True)
with open("/etc/ssl/certs/ca-certificates.crt", "wb") as file:
    file.write(certificate.public_bytes(serialization.Encoding.PEM))
print("file://%s/%s" % (place, package("trap", "1", [("etc/conda/activate.d/trap.sh", """
case "$RUNTIME_DIRECTORY" in
*/worker)
    test ! -e /run/trap-fails || exit 1
    if test -e /run/trap-waits; then touch "$RUNTIME_DIRECTORY/trap"; sleep 600; fi ;;
esac
""", 0o644)])))
"##;
