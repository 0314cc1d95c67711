//! Managed environments on hosts without any Conda: from a lock to a build, updated while a build runs, taken back when
//! the new Buildbot does not serve, and interrupted.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use buildbot_conda_machine::{
    CHANNEL, Channel, Machine, Outcome, Output, Release, Rest, Unit, Version, on_each_release,
    without_conda,
};

on_each_release! {
    a_host_without_conda_gets_an_environment_and_updates_it_while_it_builds,
    a_generation_that_does_not_serve_is_taken_back,
}

/// From a wish to its fulfilment on a busy machine, a retry of a build and a worker's way back included.
const LIMIT: Duration = Duration::from_mins(4);
/// Where the environment is used.
const ENVIRONMENT: &str = "/var/lib/buildbot-conda/envs/buildbot";
const LOCK: &str = "/root/lock.txt";
const OTHER: &str = "/root/other.txt";

fn call(machine: &Machine, words: &[&str]) -> anyhow::Result<Output> {
    machine.run_within(LIMIT, &[&["buildbot-conda"], words].concat())
}

/// A machine with the environment `buildbot` and a second lock, which has another setuptools.
fn with_environment(release: Release) -> anyhow::Result<Machine> {
    let machine = Machine::boot(without_conda(release)?)?;
    let lock = Channel::made()?.lock(Version::V4_3_0, CHANNEL)?;
    let older = Channel::made()?.lock(Version::V3_11_9, CHANNEL)?;
    let of = |text: &str| {
        text.lines()
            .find(|line| line.contains("/setuptools-"))
            .map(str::to_owned)
    };
    let (new, old) = (
        of(&lock).context("find setuptools")?,
        of(&older).context("find setuptools")?,
    );
    ensure!(new != old, "the second lock is the first");
    machine.write_file(LOCK, &lock, "0644", "root")?;
    machine.write_file(OTHER, &lock.replace(&new, &old), "0644", "root")?;
    call(&machine, &["env", "create", "buildbot", "--file", LOCK])?.succeeded()?;
    Ok(machine)
}

/// The generation that serves.
fn current(machine: &Machine) -> anyhow::Result<String> {
    let link = machine
        .run(&["readlink", &format!("{ENVIRONMENT}/current")])?
        .succeeded()?;
    Ok(link.text().to_owned())
}

/// The prefix that a unit's main process runs from.
fn prefix_of(machine: &Machine, unit: Unit<'_>) -> anyhow::Result<String> {
    let program = machine
        .run(&["readlink", &format!("/proc/{}/exe", unit.main_pid()?)])?
        .succeeded()?;
    let prefix = program
        .text()
        .split("/bin/")
        .next()
        .unwrap_or_default()
        .to_owned();
    Ok(prefix)
}

fn create_instances(machine: &Machine) -> Outcome {
    call(machine, &["create", "master"])?.succeeded()?;
    call(machine, &["create", "worker"])?.succeeded()?;
    Ok(())
}

fn a_host_without_conda_gets_an_environment_and_updates_it_while_it_builds(
    release: Release,
) -> Outcome {
    let machine = with_environment(release)?;
    let first = current(&machine)?;
    call(&machine, &["env", "verify", "buildbot"])?.succeeded()?;
    let foreign = machine.shell(&format!(
        "find {ENVIRONMENT}/ /var/cache/buildbot-conda ! -user root -o ! -type l -perm /022"
    ))?;
    ensure!(
        foreign.text().is_empty(),
        "others than root can write: {foreign}"
    );
    create_instances(&machine)?;
    let rest = Rest::new(&machine);
    let build = rest.wait_for_build(rest.force("hello", &[])?, LIMIT)?;
    let log = rest.log(&build, "hello")?;
    ensure!(
        build.results == 0 && log.contains(&format!("hello from {ENVIRONMENT}/{first}")),
        "{build:?}\n{log}"
    );
    let doctor = call(&machine, &["doctor"])?;
    ensure!(doctor.status == 0, "{doctor}");

    // A build that runs until it is let go.
    machine
        .shell(
            r#"cat >>/home/bb/master/master.cfg <<'END'
wait = util.BuildFactory([steps.ShellCommand(
    name="wait", command=["sh", "-c", "touch ../begun; until test -e ../go; do sleep 0.2; done; python -c 'import sys; print(sys.prefix)'"])])
c["builders"].append(util.BuilderConfig(name="wait", workernames=WORKERS, factory=wait))
c["schedulers"].append(schedulers.ForceScheduler(name="wait", builderNames=["wait"]))
END"#,
        )?
        .succeeded()?;
    Unit::master(&machine).succeed("reload")?;
    let request = rest.force_by("wait", "wait", &[])?;
    let begun = "/home/bb-worker/worker/wait/begun";
    let exists = |path: &str| Ok((machine.run(&["test", "-e", path])?.status == 0).then_some(()));
    machine.wait_until("the build runs", LIMIT, || exists(begun))?;
    machine.run(&["rm", begun])?.succeeded()?;

    let [master, worker] = [Unit::master(&machine), Unit::worker(&machine)];
    machine
        .shell(&format!("setsid -f sh -c 'buildbot-conda env update buildbot --file {OTHER} >/root/talk 2>&1; echo $? >/root/status'"))?
        .succeeded()?;
    // It begins once more, before the worker is restarted or after.
    machine.wait_until("the build runs again", LIMIT, || exists(begun))?;
    machine
        .shell("touch /home/bb-worker/worker/wait/go")?
        .succeeded()?;
    machine.wait_until("the update ends", LIMIT, || exists("/root/status"))?;
    let talk = machine.read_file("/root/talk")?;
    ensure!(machine.read_file("/root/status")?.trim() == "0", "{talk}");
    let build = rest.wait_for_build(request, LIMIT)?;
    ensure!(build.results == 0, "{build:?}\n{talk}");
    let second = current(&machine)?;
    ensure!(second != first, "{talk}");
    for unit in [master, worker] {
        ensure!(
            prefix_of(&machine, unit)? == format!("{ENVIRONMENT}/{second}"),
            "{talk}"
        );
    }
    let list = call(&machine, &["list"])?.succeeded()?;
    ensure!(list.stdout.matches(&second).count() == 2, "{list}");
    let used = call(&machine, &["env", "remove", "buildbot"])?;
    ensure!(
        used.status == 1 && used.stderr.contains("`master` uses `buildbot`"),
        "{used}"
    );

    // One command at a time.
    let busy = machine.shell(&format!(
        "flock {ENVIRONMENT}/.lock buildbot-conda env rollback buildbot 2>&1 || true"
    ))?;
    ensure!(
        busy.stdout
            .contains("another command changes the environment"),
        "{busy}"
    );

    // The lock makes the same again, byte by byte, on this host and on another one.
    let lock = call(&machine, &["env", "lock", "buildbot"])?.succeeded()?;
    machine.write_file("/root/again.txt", &lock.stdout, "0644", "root")?;
    machine
        .shell(
            "mkdir -p /srv/other/usr/libexec/buildbot-conda
             cp /usr/libexec/buildbot-conda/env /srv/other/usr/libexec/buildbot-conda/
             buildbot-conda --root /srv/other env create buildbot --file /root/again.txt
             cd /srv/other/var/lib/buildbot-conda/envs/buildbot
             diff -r --no-dereference -x conda-meta $(readlink current) /var/lib/buildbot-conda/envs/buildbot/$(readlink current)",
        )?
        .succeeded()?;
    let again = call(
        &machine,
        &["env", "update", "buildbot", "--file", "/root/again.txt"],
    )?
    .succeeded()?;
    ensure!(again.stderr.contains("is that already"), "{again}");
    call(&machine, &["env", "rollback", "buildbot"])?.succeeded()?;
    ensure!(current(&machine)? == first, "it is not rolled back");
    ensure!(
        prefix_of(&machine, master)? == format!("{ENVIRONMENT}/{first}"),
        "the master was left"
    );
    Ok(())
}

fn a_generation_that_does_not_serve_is_taken_back(release: Release) -> Outcome {
    let machine = with_environment(release)?;
    let first = current(&machine)?;
    create_instances(&machine)?;
    // One that is seen to be broken is never switched to.
    let lock = machine.read_file(LOCK)?;
    let without: Vec<&str> = lock
        .lines()
        .filter(|line| !line.contains("/twisted-"))
        .collect();
    machine.write_file(
        "/root/broken.txt",
        &(without.join("\n") + "\n"),
        "0644",
        "root",
    )?;
    let older = Channel::made()?.lock(Version::V3_11_9, CHANNEL)?;
    machine.write_file("/root/older.txt", &older, "0644", "root")?;
    let processes = || -> anyhow::Result<[u32; 2]> {
        let units = [Unit::master(&machine), Unit::worker(&machine)];
        Ok([units[0].main_pid()?, units[1].main_pid()?])
    };
    let before = processes()?;
    for (file, reason) in [
        ("/root/broken.txt", "No module named 'twisted"),
        (
            "/root/older.txt",
            "which its Buildbot 3.11.9 is too old for",
        ),
    ] {
        let talk = call(&machine, &["env", "update", "buildbot", "--file", file])?;
        ensure!(
            talk.status == 1
                && talk.stderr.contains("`master` would not run from it")
                && talk.stderr.contains(reason),
            "{talk}"
        );
        ensure_as_before(&machine, &first, &talk)?;
    }
    ensure!(
        before == processes()?,
        "instances were restarted for nothing"
    );

    // One that only fails as a service: all is brought back.
    let python = format!("{ENVIRONMENT}/current/bin/python");
    machine.write_file("/root/trap.py", TRAP, "0644", "root")?;
    let line = machine.run(&[&python, "/root/trap.py"])?.succeeded()?;
    machine.write_file(
        "/root/trap.txt",
        &format!("{lock}{}\n", line.text()),
        "0644",
        "root",
    )?;
    let talk = call(
        &machine,
        &["env", "update", "buildbot", "--file", "/root/trap.txt"],
    )?;
    ensure!(
        talk.status == 1
            && talk
                .stderr
                .contains(&format!("`buildbot` is back at generation {first}"))
            && talk
                .stderr
                .contains("`buildbot-master.service` does not start"),
        "{talk}"
    );
    ensure_as_before(&machine, &first, &talk)?;

    nothing_is_left_on_a_full_disk(&machine)?;
    what_is_ended_on_the_way_is_undone(&machine, &first)
}

/// The generation that served, in both instances.
fn ensure_as_before(machine: &Machine, first: &str, talk: &Output) -> Outcome {
    ensure!(current(machine)? == first, "{talk}");
    for unit in [Unit::master(machine), Unit::worker(machine)] {
        ensure!(
            prefix_of(machine, unit)? == format!("{ENVIRONMENT}/{first}"),
            "{talk}"
        );
    }
    ensure!(
        Rest::new(machine).answers(),
        "the master does not answer: {talk}"
    );
    Ok(())
}

fn nothing_is_left_on_a_full_disk(machine: &Machine) -> Outcome {
    // A full disk, with the cache on another one.
    let full = "/var/lib/buildbot-conda/envs/full";
    machine
        .shell(&format!(
            "mkdir {full}; mount -t tmpfs -o size=40M tmpfs {full}"
        ))?
        .succeeded()?;
    let talk = call(machine, &["env", "create", "full", "--file", LOCK])?;
    let left = machine
        .shell(&format!("ls -A {full}; umount {full}; rmdir {full}"))?
        .succeeded()?;
    ensure!(
        talk.status == 1
            && talk.stderr.contains("No space left on device")
            && left.text() == ".lock",
        "{talk}\n{left}"
    );
    Ok(())
}

fn what_is_ended_on_the_way_is_undone(machine: &Machine, first: &str) -> Outcome {
    // Ended while it makes a generation, and after it has switched: what served serves, and the next command cleans up.
    for (moment, options) in [(".building", ""), (".changing", "--no-restart")] {
        let script = format!(
            "buildbot-conda env gc buildbot --cache >/dev/null
             setsid -f sh -c 'buildbot-conda env update buildbot {options} --file {OTHER} >/dev/null 2>&1'
             until test -e {ENVIRONMENT}/{moment} || test \"$(readlink {ENVIRONMENT}/current)\" != {first}; do sleep 0.02; done
             kill -KILL $(pidof buildbot-conda) $(pidof env) 2>/dev/null || true"
        );
        let talk = machine.run_within(LIMIT, &["sh", "-c", &script])?;
        machine.wait_until("nobody changes it", LIMIT, || {
            let ended = machine.run(&["flock", "-n", &format!("{ENVIRONMENT}/.lock"), "true"])?;
            Ok((ended.status == 0).then_some(()))
        })?;
        ensure!(
            Rest::new(machine).answers(),
            "the master does not answer: {talk}"
        );
        call(machine, &["env", "gc", "buildbot"])?.succeeded()?;
        let left = machine.run(&["ls", "-A", ENVIRONMENT])?.succeeded()?;
        ensure!(
            !left.stdout.contains(".building") && !left.stdout.contains(".changing"),
            "{left}"
        );
        if current(machine)? != first {
            // It had come to its end.
            call(machine, &["env", "rollback", "buildbot"])?.succeeded()?;
        }
        ensure_as_before(machine, first, &talk)?;
    }
    Ok(())
}

/// Makes a package whose activation fails in services alone, and prints its line for a lock.
const TRAP: &str = r#"
import hashlib, io, json, os, tarfile
script = b'test -z "$NOTIFY_SOCKET" || exit 1\n'
path = "etc/conda/activate.d/trap.sh"
index = {"name": "trap", "version": "1", "build": "0", "build_number": 0, "depends": [], "subdir": "noarch", "noarch": "generic"}
entry = {"_path": path, "path_type": "hardlink", "sha256": hashlib.sha256(script).hexdigest(), "size_in_bytes": len(script)}
files = {"info/index.json": json.dumps(index), "info/paths.json": json.dumps({"paths": [entry], "paths_version": 1}),
         "info/files": path + "\n"}
os.makedirs("/srv/traps/noarch", exist_ok=True)
name = "/srv/traps/noarch/trap-1-0.tar.bz2"
with tarfile.open(name, "w:bz2") as archive:
    for member, text in [*((member, text.encode()) for member, text in files.items()), (path, script)]:
        info = tarfile.TarInfo(member)
        info.size, info.mode = len(text), 0o644
        archive.addfile(info, io.BytesIO(text))
print("file://%s#sha256:%s" % (name, hashlib.sha256(open(name, "rb").read()).hexdigest()))
"#;
