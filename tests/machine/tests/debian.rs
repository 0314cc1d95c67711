//! Debian's own programs on a machine with the package: its DEP-8 test with autopkgtest, and needrestart after a library
//! was replaced.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use buildbot_conda_machine::{
    Environment, Layers, MASTER_UNIT, Machine, Outcome, PREFIX, Release, Rest, Version,
    WORKER_UNIT, create_instances, latest_package, on_each_release, with_programs,
};

on_each_release! {
    the_autopkgtest_runs_a_real_build,
    needrestart_restarts_the_master_and_leaves_the_worker_alone,
}

/// Installing the package and running a build, on a machine that has much else to do.
const LIMIT: Duration = Duration::from_mins(8);

fn machine(release: Release) -> anyhow::Result<Machine> {
    let environment = Environment::install(Version::V4_3_0, PREFIX)?;
    let layers: Layers = with_programs(release)?.with(environment.tree().to_path_buf());
    Machine::boot(layers)
}

fn the_autopkgtest_runs_a_real_build(release: Release) -> Outcome {
    let machine = machine(release)?;
    let debian = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../debian");
    for file in ["control", "build"] {
        machine.copy_in(
            &debian.join("tests").join(file),
            &format!("/root/source/debian/tests/{file}"),
        )?;
    }
    machine.copy_in(&debian.join("changelog"), "/root/source/debian/changelog")?;
    // autopkgtest wants to know whose tests these are.
    machine.write_file(
        "/root/source/debian/control",
        "Source: buildbot-conda\n\nPackage: buildbot-conda\nArchitecture: any\n",
        "0644",
        "root",
    )?;
    machine
        .run(&["chmod", "0755", "/root/source/debian/tests/build"])?
        .succeeded()?;
    machine.install_package(&latest_package()?)?.succeeded()?;
    // The environment's tree came first and brought the home directory along, as root's.
    machine.run(&["chown", "bb:bb", "/home/bb"])?.succeeded()?;
    let output = machine.run_within(
        LIMIT,
        &[
            "autopkgtest",
            "--no-built-binaries",
            "/root/source/",
            "--",
            "null",
        ],
    )?;
    let talk = format!("{}{}", output.stdout, output.stderr);
    ensure!(output.status == 0, "{output}");
    ensure!(
        talk.lines()
            .any(|line| line.starts_with("build ") && line.ends_with("PASS")),
        "{output}"
    );
    ensure!(talk.contains(&format!("o{PREFIX}\n")), "{output}");
    Ok(())
}

fn needrestart_restarts_the_master_and_leaves_the_worker_alone(release: Release) -> Outcome {
    let machine = machine(release)?;
    machine.install_package(&latest_package()?)?.succeeded()?;
    machine.run(&["chown", "bb:bb", "/home/bb"])?.succeeded()?;
    create_instances(&machine, "bb")?;
    machine
        .run_within(LIMIT, &["systemctl", "start", MASTER_UNIT, WORKER_UNIT])?
        .succeeded()?;
    Rest::new(&machine).wait_for_worker("example", LIMIT)?;
    let pids = || -> anyhow::Result<[String; 2]> {
        Ok([
            machine.unit_property(MASTER_UNIT, "MainPID")?,
            machine.unit_property(WORKER_UNIT, "MainPID")?,
        ])
    };
    let [master, worker] = pids()?;

    // As in an upgrade: both processes continue with the file that was removed.
    machine
        .shell(&format!(
            "for pid in {master} {worker}; do grep -o '/.*/libz[.]so[.][0-9.]*' /proc/$pid/maps; done | sort -u | \
             while read -r file; do cp -a \"$file\" \"$file.new\"; mv \"$file.new\" \"$file\"; done; \
             for pid in {master} {worker}; do grep -q '(deleted)' /proc/$pid/maps; done"
        ))?
        .succeeded()?;
    let output = machine.run_within(LIMIT, &["needrestart", "-v", "-r", "a", "-l"])?;
    let [master_after, worker_after] = pids()?;
    ensure!(worker_after == worker, "the worker was restarted\n{output}");
    ensure!(
        master_after != master,
        "needrestart has seen nothing\n{output}"
    );
    let talk = format!("{}{}", output.stdout, output.stderr);
    ensure!(
        talk.contains(WORKER_UNIT),
        "the worker is not among the deferred ones\n{output}"
    );
    Ok(())
}
