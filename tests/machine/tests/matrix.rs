//! Every system of the support matrix: installation with a preseed, master and worker, a build, the verbs, reloads, a
//! reboot, a purge. What was seen is kept for `docs/matrix.md`.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use buildbot_conda_machine::{
    LATER, Layers, MASTER_UNIT, Machine, Outcome, Release, SOON, Stage, System, WORKER_UNIT,
    create_instances, environments_package, latest_package, matrix_directory, scripted,
};

#[test]
fn systemd_247() -> Outcome {
    smoke(System::Systemd247)
}

#[test]
fn systemd_254() -> Outcome {
    smoke(System::Systemd254)
}

#[test]
fn unstable() -> Outcome {
    smoke(System::Unstable)
}

mod bookworm {
    #[test]
    fn smoke() -> super::Outcome {
        super::smoke(super::System::Debian(super::Release::Bookworm))
    }
}

mod trixie {
    #[test]
    fn smoke() -> super::Outcome {
        super::smoke(super::System::Debian(super::Release::Trixie))
    }
}

mod arm64 {
    /// `cargo xtask test --arm64` runs it, with the packages for arm64.
    #[test]
    fn smoke() -> super::Outcome {
        super::smoke(super::System::Arm64)
    }
}

const PRESEED: &str = "\
buildbot-conda buildbot-conda/conda-path string /home/bb/anaconda3
buildbot-conda buildbot-conda/services multiselect master, worker
";

fn smoke(system: System) -> Outcome {
    let begun = Instant::now();
    let layers = Layers::new(system.root()?).with(system.environment()?);
    let mut stage = Stage {
        machine: Machine::boot(layers)?,
    };
    let version = stage
        .machine
        .run(&["systemctl", "--version"])?
        .succeeded()?;
    let version = version
        .text()
        .split_whitespace()
        .nth(1)
        .unwrap_or_default()
        .to_owned();

    install(&stage)?;
    stage.start()?;
    stage.build("true")?;
    verbs(&stage)?;
    reloads(&stage)?;
    drain(&stage)?;
    stage.systemctl(&["restart", MASTER_UNIT, WORKER_UNIT])?;
    stage.rest().wait_for_worker("example", SOON)?;
    stage.machine.reboot()?;
    stage.rest().wait_for_worker("example", SOON)?;
    stage.build("true")?;
    clean_journal(&stage)?;
    if system == System::Arm64 {
        environments(&stage.machine)?;
    }
    purge(&stage)?;
    record(system, &version, begun.elapsed())
}

fn install(stage: &Stage) -> Outcome {
    let machine = &stage.machine;
    machine.write_file("/root/preseed", PRESEED, "0600", "root")?;
    machine
        .shell("debconf-set-selections </root/preseed")?
        .succeeded()?;
    machine.install_package(&latest_package()?)?.succeeded()?;
    // The environment's tree came first and brought the home directory along, as root's.
    machine.run(&["chown", "bb:bb", "/home/bb"])?.succeeded()?;
    create_instances(machine, "bb")?;
    stage.write_master_configuration(&scripted())
}

fn verbs(stage: &Stage) -> Outcome {
    for words in [
        &["list", "--fail-if-down"][..],
        &["status"],
        &["status", "worker"],
        &["check"],
        &["doctor"],
    ] {
        let command = [&["buildbot-conda"], words].concat();
        let output = stage.machine.run_within(LATER, &command)?;
        // The doctor has warnings about a machine whose builds run as the master does.
        ensure!(!output.stderr.contains("error:"), "{words:?}: {output}");
        ensure!(
            words == ["doctor"] || output.status == 0,
            "{words:?}: {output}"
        );
    }
    let list = stage
        .machine
        .run(&["buildbot-conda", "list"])?
        .succeeded()?;
    ensure!(list.stdout.contains("http://"), "{list}");
    Ok(())
}

/// Both return 0 when it has happened, and no process is another one.
fn reloads(stage: &Stage) -> Outcome {
    let pids = || -> anyhow::Result<Vec<String>> {
        [MASTER_UNIT, WORKER_UNIT]
            .iter()
            .map(|unit| stage.main_pid(unit))
            .collect()
    };
    let before = pids()?;
    stage.systemctl(&["reload", MASTER_UNIT])?;
    let request = stage.begin_build("sleep 3")?;
    stage.systemctl(&["reload", WORKER_UNIT])?;
    // At once: it has returned when the new worker is connected.
    let status = stage.property(WORKER_UNIT, "StatusText")?;
    ensure!(status.contains("connected to"), "{status}");
    stage.ensure_success(request)?;
    ensure!(
        stage.rest().builds_of(request)?.len() == 1,
        "the build was interrupted"
    );
    ensure!(pids()? == before, "{before:?}");
    let list = stage
        .machine
        .run(&["buildbot-conda", "list"])?
        .succeeded()?;
    ensure!(list.stdout.contains("http://"), "{list}");
    stage.build("true")?;
    Ok(())
}

fn drain(stage: &Stage) -> Outcome {
    stage
        .machine
        .run_within(LATER, &["buildbot-conda", "drain", "worker"])?
        .succeeded()?;
    ensure!(stage.property(WORKER_UNIT, "ActiveState")? == "inactive");
    stage.systemctl(&["start", WORKER_UNIT])?;
    stage.rest().wait_for_worker("example", SOON)
}

/// No errors, and no messages of systemd about our units.
fn clean_journal(stage: &Stage) -> Outcome {
    for unit in [MASTER_UNIT, WORKER_UNIT] {
        let journal = stage
            .machine
            .run(&[
                "journalctl",
                "--no-pager",
                "--priority=warning",
                "--unit",
                unit,
            ])?
            .succeeded()?;
        for words in ["MAINPID", "ReactorNotRunning", "Unknown key"] {
            ensure!(!journal.stdout.contains(words), "{journal}");
        }
    }
    Ok(())
}

/// On other systems the tests of environments do much more.
fn environments(machine: &Machine) -> Outcome {
    machine
        .install_package(&environments_package()?)?
        .succeeded()?;
    let program = "/usr/libexec/buildbot-conda/env";
    let help = machine.run(&[program, "--help"])?.succeeded()?;
    ensure!(help.stdout.contains("Usage"), "{help}");
    machine
        .run(&["buildbot-conda", "env", "list"])?
        .succeeded()?;
    Ok(())
}

fn purge(stage: &Stage) -> Outcome {
    let machine = &stage.machine;
    machine
        .run_within(LATER, &["apt-get", "purge", "--yes", "buildbot-conda"])?
        .succeeded()?;
    for path in [
        "/etc/buildbot-conda",
        "/var/lib/buildbot-conda",
        "/run/buildbot-conda",
    ] {
        let left = machine.run(&["test", "-e", path])?;
        ensure!(left.status != 0, "`{path}` is left");
    }
    machine
        .run(&["test", "-d", "/home/bb/master"])?
        .succeeded()?;
    Ok(())
}

/// A line for `docs/matrix.md`.
fn record(system: System, version: &str, took: Duration) -> Outcome {
    let row = format!("| {system} | {version} | passed |\n");
    eprintln!("{system}: {} s", took.as_secs());
    fs::write(matrix_directory()?.join(format!("system-{system}")), row)
        .context("write a row of the matrix")
}
