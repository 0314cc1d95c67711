//! Managed environments on hosts without any Conda: from a lock to a build, updated while a build runs, taken back when
//! the new Buildbot does not serve.

use std::time::Duration;

use anyhow::ensure;
use buildbot_conda_machine::{
    CHANNEL, Channel, LOCK, Machine, OTHER_LOCK, Outcome, Output, Release, Rest, Unit, Version,
    managed, on_each_release,
};

on_each_release! {
    a_host_without_conda_gets_an_environment_and_updates_it_while_it_builds,
    a_generation_that_does_not_serve_is_taken_back,
}

/// From a request to its completion on a busy machine, including a retry of a build and the reconnection of a worker.
const LIMIT: Duration = Duration::from_mins(4);
/// Where the environment is used.
const ENVIRONMENT: &str = "/var/lib/buildbot-conda/envs/buildbot";

fn call(machine: &Machine, words: &[&str]) -> anyhow::Result<Output> {
    machine.run_within(LIMIT, &[&["buildbot-conda"], words].concat())
}

/// A machine with the environment `buildbot`, a master and a worker, both running.
fn with_environment(release: Release) -> anyhow::Result<Machine> {
    let machine = Machine::boot(managed(release)?)?;
    Rest::new(&machine).wait_for_worker("worker", LIMIT)?;
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

/// Back to the first generation, with two workers that are restarted at the same time.
fn roll_back_two_workers_at_once(machine: &Machine, first: &str) -> Outcome {
    call(machine, &["create", "worker", "two"])?.succeeded()?;
    let words = ["env", "rollback", "buildbot", "--drain-together", "2"];
    call(machine, &words)?.succeeded()?;
    ensure!(current(machine)? == first, "it is not rolled back");
    for unit in [
        Unit::master(machine),
        Unit::worker(machine),
        Unit::named(machine, "buildbot-worker@two.service"),
    ] {
        ensure!(
            prefix_of(machine, unit)? == format!("{ENVIRONMENT}/{first}"),
            "{unit:?} was left"
        );
    }
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
        .shell(&format!("setsid -f sh -c 'buildbot-conda env update buildbot --file {OTHER_LOCK} >/root/talk 2>&1; echo $? >/root/status' </dev/null >/dev/null 2>&1"))?
        .succeeded()?;
    // It starts once more, before or after the worker is restarted.
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
            .contains("another command is changing the environment"),
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
    ensure!(again.stderr.contains("is up to date"), "{again}");
    roll_back_two_workers_at_once(&machine, &first)
}

fn a_generation_that_does_not_serve_is_taken_back(release: Release) -> Outcome {
    let machine = with_environment(release)?;
    let first = current(&machine)?;
    // All of it in the narrowest sandbox, into which the environment's generations have to be bound.
    for reference in ["master", "worker"] {
        call(&machine, &["set", reference, "hardening", "strict"])?.succeeded()?;
    }
    // An instance that never ran does not prevent any generation.
    machine
        .shell(&format!(
            "install -D -o bb -g bb /dev/null /home/bb/broken/buildbot.tac
             printf '[\"master@broken\"]\\ndirectory = \"/home/bb/broken\"\\nconda-env = \"{ENVIRONMENT}/current\"\\n' \
                 >>/etc/buildbot-conda/config.toml"
        ))?
        .succeeded()?;
    machine
        .shell("systemctl daemon-reload; systemctl restart buildbot-master buildbot-worker")?
        .succeeded()?;
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
            "which Buildbot 3.11.9 does not support yet",
        ),
    ] {
        let talk = call(&machine, &["env", "update", "buildbot", "--file", file])?;
        ensure!(
            talk.status == 1
                && talk.stderr.contains("`master` would fail to start")
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
                .contains("`buildbot-master.service` failed to start")
            && talk.stderr.contains("it is not running, and generation"),
        "{talk}"
    );
    ensure_as_before(&machine, &first, &talk)?;

    nothing_is_left_on_a_full_disk(&machine)?;
    every_format_makes_the_same_and_no_evil_package_is_installed(&machine)
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

/// Every format creates one generation, which already exists after the first one; a file that does not match its
/// content is refused, and nothing changes.
fn every_format_makes_the_same_and_no_evil_package_is_installed(machine: &Machine) -> Outcome {
    let yml = format!("name: formats\nchannels: [\"file://{CHANNEL}\"]\ndependencies: [python]\n");
    machine.write_file("/root/environment.yml", &yml, "0644", "root")?;
    let created = [
        "env",
        "create",
        "formats",
        "--file",
        "/root/environment.yml",
    ];
    call(machine, &created)?.succeeded()?;
    let lock = call(machine, &["env", "lock", "formats"])?.succeeded()?;
    machine.write_file("/root/sha256.txt", &lock.stdout, "0644", "root")?;
    let python = format!("{ENVIRONMENT}/current/bin/python");
    machine.write_file("/root/formats.py", FORMATS, "0644", "root")?;
    machine.run(&[&python, "/root/formats.py"])?.succeeded()?;
    let update = |file: &str| {
        let path = format!("/root/{file}");
        call(machine, &["env", "update", "formats", "--file", &path])
    };
    for file in [
        "environment.yml",
        "sha256.txt",
        "md5.txt",
        "pixi.lock",
        "conda-lock.yml",
    ] {
        let talk = update(file)?;
        ensure!(
            talk.status == 0 && talk.stderr.contains("is up to date"),
            "{file}: {talk}"
        );
    }
    let state = "ls -A /var/lib/buildbot-conda/envs/formats; readlink /var/lib/buildbot-conda/envs/formats/current";
    let before = machine.shell(state)?.succeeded()?.stdout;
    for (file, reason) in [
        ("checksum.txt", "is not the expected package"),
        ("truncated.txt", "truncated-1-0"),
        ("traversal.txt", "is outside of the environment"),
    ] {
        let talk = update(file)?;
        ensure!(
            talk.status == 1 && talk.stderr.contains(reason),
            "{file}: {talk}"
        );
        ensure!(
            machine.shell(state)?.succeeded()?.stdout == before,
            "{file}: {talk}"
        );
    }
    let evil = machine.shell("find / -xdev -name evil -not -path '/proc/*'")?;
    ensure!(evil.text().is_empty(), "{evil}");
    call(machine, &["env", "remove", "formats"])?.succeeded()?;
    Ok(())
}

/// Writes what `sha256.txt` has in the other formats, and locks of packages that are not what they should be.
const FORMATS: &str = r##"
import hashlib, io, json, os, tarfile
from urllib.parse import urlsplit
os.chdir("/root")
urls = [line.split("#")[0] for line in open("sha256.txt") if line.startswith("file:")]
pixi = "version: 6\nenvironments:\n  default:\n    channels:\n    - url: file:///srv/channel/\n    packages:\n      linux-64:\n"
described, conda, explicit = "packages:\n", "package:\n", "@EXPLICIT\n"
for url in urls:
    content = open(urlsplit(url).path, "rb").read()
    md5, sha256 = hashlib.md5(content).hexdigest(), hashlib.sha256(content).hexdigest()
    name, version, build = url.rsplit("/", 1)[1].rsplit("-", 2)
    pixi += "      - conda: %s\n" % url
    subdir = url.split("/")[-2]
    described += "- conda: %s\n  sha256: %s\n  md5: %s\n  subdir: %s\n" % (url, sha256, md5, subdir)
    described += "  noarch: generic\n" if subdir == "noarch" else ""
    conda += ("- name: %s\n  version: '%s'\n  manager: conda\n  platform: linux-64\n  dependencies: {}\n  url: %s\n"
        "  hash:\n    md5: %s\n    sha256: %s\n  category: main\n  optional: false\n" % (name, version, url, md5, sha256))
    explicit += "%s#%s\n" % (url, md5)
open("md5.txt", "w").write(explicit)
open("pixi.lock", "w").write(pixi + described)
open("conda-lock.yml", "w").write("version: 1\nmetadata:\n  content_hash:\n    linux-64: %s\n  channels:\n"
    "  - url: file:///srv/channel\n    used_env_vars: []\n  platforms: [linux-64]\n  sources: []\n%s" % ("0" * 64, conda))
last = explicit.rstrip()[-1]
open("checksum.txt", "w").write(explicit.rstrip()[:-1] + ("0" if last != "0" else "1") + "\n")
def package(name, path):
    index = {"name": name, "version": "1", "build": "0", "build_number": 0, "depends": [], "subdir": "noarch", "noarch": "generic"}
    text = b"evil"
    entry = {"_path": path, "path_type": "hardlink", "sha256": hashlib.sha256(text).hexdigest(), "size_in_bytes": len(text)}
    files = [("info/index.json", json.dumps(index).encode()), (path, text),
             ("info/paths.json", json.dumps({"paths": [entry], "paths_version": 1}).encode())]
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:bz2") as archive:
        for path, text in files:
            info = tarfile.TarInfo(path)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    return made.getvalue()
os.makedirs("/srv/wrong/noarch")
whole = package("truncated", "share/evil")
for name, content in ("truncated", whole[:len(whole) // 2]), ("traversal", package("traversal", "../../../../evil")):
    path = "/srv/wrong/noarch/%s-1-0.tar.bz2" % name
    open(path, "wb").write(content)
    open(name + ".txt", "w").write("%sfile://%s#%s\n" % (explicit, path, hashlib.md5(content).hexdigest()))
"##;

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
