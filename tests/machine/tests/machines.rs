//! The machines themselves: what every other machine test relies on.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use buildbot_conda_machine::{
    Environment, Machine, Network, Outcome, PREFIX, Release, Version, machines_directory,
    on_each_release,
};

on_each_release! {
    a_machine_comes_up_running_as_the_release_it_should_be,
    the_environment_works_with_nothing_but_glibc_from_the_machine,
}

/// What the machines' own machinery does, whatever the release is.
const ANY: Release = Release::Trixie;

fn a_machine_comes_up_running_as_the_release_it_should_be(release: Release) -> Outcome {
    let machine = Machine::builder(release)?.boot()?;

    let state = machine.run(&["systemctl", "is-system-running"])?;
    let failed = machine.run(&["systemctl", "--failed", "--no-legend"])?;
    ensure!(state.text() == "running", "{state}{failed}");
    let codename = machine.shell(". /etc/os-release; echo $VERSION_CODENAME")?;
    ensure!(codename.text() == release.code_name(), "{codename}");
    let interfaces = machine.shell("ls /sys/class/net")?;
    ensure!(interfaces.text() == "lo", "{interfaces}");
    Ok(())
}

#[test]
fn two_machines_at_once_do_not_see_each_other() -> Outcome {
    let builder = || Machine::builder(ANY);
    let (first, second) = (builder()?.boot()?, builder()?.boot()?);

    first.write_file("/etc/only-here", "first\n", "0644", "root")?;
    ensure!(first.read_file("/etc/only-here")? == "first\n");
    let absent = second.run(&["test", "-e", "/etc/only-here"])?;
    ensure!(absent.status == 1, "{absent}");
    drop(first);
    let alive = second.run(&["systemctl", "is-system-running"])?;
    ensure!(alive.text() == "running", "{alive}");
    Ok(())
}

/// Whether a port of the host `name` is reached within two seconds.
fn reaches(machine: &Machine, name: &str) -> anyhow::Result<bool> {
    let script = "timeout 2 bash -c 'exec 3<>/dev/tcp/$0/7'";
    let script = script.replace("$0", name);
    Ok(machine.run(&["sh", "-c", &script])?.status == 0)
}

#[test]
fn machines_of_one_network_find_each_other_until_a_link_is_cut() -> Outcome {
    let boot = |name| Machine::boot_named(Machine::builder(ANY)?.layers(), name);
    let (a, b) = (boot("a")?, boot("b")?);
    let listen = "[Socket]\nListenStream=7\nAccept=yes\n[Install]\nWantedBy=sockets.target\n";
    b.write_file("/etc/systemd/system/echo.socket", listen, "0644", "root")?;
    let serve = "[Service]\nExecStart=cat\nStandardInput=socket\n";
    b.write_file("/etc/systemd/system/echo@.service", serve, "0644", "root")?;
    b.run(&["systemctl", "start", "echo.socket"])?.succeeded()?;
    let mut network = Network::new(&["a", "b"])?;
    network.connect("a", &a)?;
    network.connect("b", &b)?;

    ensure!(a.run(&["hostname"])?.text() == "a");
    ensure!(reaches(&a, "b")?, "b is connected");
    network.cut("a", "b")?;
    ensure!(!reaches(&a, "b")?, "the link is cut");
    network.restore("a")?;
    network.slow("b", 300, 5)?;
    let asked = Instant::now();
    ensure!(reaches(&a, "b")?, "the link is slow");
    ensure!(asked.elapsed() > Duration::from_millis(250), "it is not");
    Ok(())
}

const MARKER_UNIT: &str = "\
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo started >>/var/lib/marker'
[Install]
WantedBy=multi-user.target
";

#[test]
fn a_reboot_keeps_files_and_starts_enabled_units() -> Outcome {
    let mut machine = Machine::builder(ANY)?.boot()?;
    machine.write_file(
        "/etc/systemd/system/marker.service",
        MARKER_UNIT,
        "0644",
        "root",
    )?;
    machine
        .run(&["systemctl", "enable", "marker"])?
        .succeeded()?;

    machine.reboot()?;

    ensure!(machine.read_file("/var/lib/marker")? == "started\n");
    ensure!(machine.unit_property("marker", "Result")? == "success");
    Ok(())
}

#[test]
fn a_power_cut_keeps_files_and_the_machine_boots_again() -> Outcome {
    let mut machine = Machine::builder(ANY)?.boot()?;
    // ExecStop= would leave a trace if the machine were shut down in order.
    let unit =
        "[Service]\nExecStart=/bin/sleep infinity\nExecStop=/bin/touch /var/lib/stopped-in-order\n";
    machine.write_file("/etc/systemd/system/trace.service", unit, "0644", "root")?;
    machine.run(&["systemctl", "start", "trace"])?.succeeded()?;
    machine.write_file("/var/lib/kept", "kept\n", "0600", "root")?;

    machine.power_cut()?;

    ensure!(machine.read_file("/var/lib/kept")? == "kept\n");
    let trace = machine.run(&["test", "-e", "/var/lib/stopped-in-order"])?;
    ensure!(trace.status == 1, "{trace}");
    let state = machine.run(&["systemctl", "is-system-running"])?;
    ensure!(state.text() == "running", "{state}");
    Ok(())
}

#[test]
fn a_command_that_hangs_is_ended_at_its_limit() -> Outcome {
    let machine = Machine::builder(ANY)?.boot()?;
    let started = Instant::now();

    let error = machine
        .run_within(Duration::from_secs(1), &["sleep", "1000"])
        .expect_err("it takes 1000 s");

    ensure!(
        error.to_string().contains("still ran after 1 s"),
        "{error:#}"
    );
    ensure!(
        started.elapsed() < Duration::from_secs(10),
        "ended after {:?}",
        started.elapsed()
    );
    Ok(())
}

/// Set in another process of this program, which must boot a machine, report this, and wait to be killed.
const VICTIM: &str = "BUILDBOT_CONDA_MACHINE_VICTIM";

#[test]
fn a_killed_test_process_leaves_no_process_and_no_mount() -> Outcome {
    if std::env::var_os(VICTIM).is_some() {
        let machine = Machine::builder(ANY)?.boot()?;
        let boot = machine.run(&["cat", "/proc/sys/kernel/random/boot_id"])?;
        writeln!(std::io::stdout(), "up {}", boot.text())?;
        std::thread::sleep(Duration::from_mins(5));
        return Ok(());
    }
    let name = "a_killed_test_process_leaves_no_process_and_no_mount";
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["--exact", name, "--nocapture"])
        .env(VICTIM, "yes")
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(victim.stdout.take().context("read the victim's output")?).lines();
    let up = lines.map_while(Result::ok).any(|line| line.contains("up "));
    let machine = format!("buildbot-conda-{}-0", victim.id());
    let before = processes_mentioning(&machine);

    victim.kill()?;
    victim.wait()?;

    ensure!(up && before > 0, "the victim's machine came up");
    let deadline = Instant::now() + Duration::from_secs(10);
    while processes_mentioning(&machine) > 0 {
        ensure!(
            Instant::now() < deadline,
            "processes of `{machine}` are still there"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    // Only the unified hierarchy, or next to the older ones.
    for hierarchy in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        let group = std::path::Path::new(hierarchy).join(&machine);
        while group.exists() {
            ensure!(
                Instant::now() < deadline,
                "`{}` is still there",
                group.display()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    // The next machine of any later process removes the directory. This process may have checked before.
    let directory = machines_directory().join("running").join(&machine);
    let lock = std::fs::File::open(directory.join("lock"));
    ensure!(
        lock.is_err() || lock.is_ok_and(|lock| lock.try_lock().is_ok()),
        "`{}` is free",
        directory.display()
    );
    Ok(())
}

/// How many processes have `text` in their command line.
fn processes_mentioning(text: &str) -> usize {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let command_lines =
        entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    command_lines
        .filter(|line| String::from_utf8_lossy(line).contains(text))
        .count()
}

/// Prints its prefix, and every mapped library of other origin than the prefix.
const PROBE: &str = "\
import bz2, ctypes, lzma, readline, sqlite3, ssl, sys, uuid, zlib
import buildbot.master, buildbot_worker.bot, cbor2, cryptography.x509, msgpack, sqlalchemy.engine, yaml
print(sys.prefix)
maps = {line.split()[-1] for line in open('/proc/self/maps') if '.so' in line}
print(*sorted(path for path in maps if not path.startswith(sys.prefix)))
";

fn the_environment_works_with_nothing_but_glibc_from_the_machine(release: Release) -> Outcome {
    let environment = Environment::install(Version::V4_3_0, PREFIX)?;
    let machine = Machine::builder(release)?
        .with_environment(&environment)
        .boot()?;

    for program in ["buildbot", "buildbot-worker"] {
        let version = machine
            .run(&[&format!("{PREFIX}/bin/{program}"), "--version"])?
            .succeeded()?;
        ensure!(version.stdout.contains("version: 4.3.0"), "{version}");
    }
    let looked = machine
        .run(&[&format!("{PREFIX}/bin/python"), "-c", PROBE])?
        .succeeded()?;
    let mut lines = looked.stdout.lines();
    ensure!(lines.next() == Some(PREFIX), "{looked}");
    let libraries: Vec<_> = lines
        .next()
        .context("read the libraries")?
        .split_whitespace()
        .collect();
    let glibc = [
        "libc.so.6",
        "libm.so.6",
        "ld-linux-x86-64.so.2",
        "libresolv.so.2",
        "libdl.so.2",
        "libpthread.so.0",
        "librt.so.1",
    ];
    for library in &libraries {
        let name = library.rsplit('/').next().unwrap_or_default();
        ensure!(glibc.contains(&name), "`{library}` comes from the machine");
    }
    ensure!(
        libraries
            .iter()
            .any(|library| library.ends_with("libc.so.6")),
        "{looked}"
    );
    Ok(())
}
