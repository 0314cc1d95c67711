//! Workers of other hosts: invited by one line, joined by one command, closed again. Only machines with a network between
//! them can show that.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use buildbot_conda_machine::{
    Environment, LATER, Layers, MASTER_UNIT, Machine, Network, Outcome, Output, PREFIX, Release,
    Rest, SOON, Version, WORKER_UNIT, latest_package, on_each_release, with_packages,
};

on_each_release! { workers_of_other_hosts_join_by_one_line_and_are_revoked }

/// The line of the worker that is looked at.
const LINE: &str = "/root/line";

/// A Debian with openssl, the environment and the package, and nothing set up.
fn layers(release: Release) -> anyhow::Result<Layers> {
    let environment = Environment::install(Version::V4_3_0, PREFIX)?;
    let below = with_packages(release, "openssl", "openssl")?;
    let below = below.with(environment.tree().to_path_buf());
    let package = latest_package()?;
    let bytes = std::fs::read(&package).context("read the package")?;
    let digest = format!("{:?}", summary(&bytes));
    let sources = [digest.as_str(), include_str!("farm.rs")];
    buildbot_conda_machine::layer("farm", release, below, &sources, |machine| {
        machine.install_package(&package)?.succeeded()?;
        machine.run(&["chown", "bb:bb", "/home/bb"])?.succeeded()?;
        Ok(machine)
    })
}

/// What tells one package from another: its length and the sum of its bytes.
fn summary(bytes: &[u8]) -> (usize, u64) {
    let sum = bytes.iter().fold(0_u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
    });
    (bytes.len(), sum)
}

fn call(machine: &Machine, words: &[&str]) -> anyhow::Result<Output> {
    machine.run_within(LATER, &[&["buildbot-conda"], words].concat())
}

/// The line of an invitation.
fn invite(machine: &Machine, words: &[&str]) -> anyhow::Result<String> {
    let output = call(machine, &[&["invite"], words].concat())?.succeeded()?;
    let line = output.text().to_owned();
    ensure!(
        line.starts_with("bbworker://") && line.lines().count() == 1,
        "{output}"
    );
    Ok(line)
}

fn join(machine: &Machine, line: &str) -> anyhow::Result<Output> {
    machine.write_file(LINE, line, "0600", "root")?;
    call(machine, &["join", "--file", LINE])
}

/// Builds `hello` with the one worker that is attached.
fn build(rest: Rest<'_>) -> Outcome {
    let built = rest.wait_for_build(rest.force("hello", &[])?, LATER)?;
    ensure!(built.results == 0, "{built:?}");
    Ok(())
}

fn workers_of_other_hosts_join_by_one_line_and_are_revoked(release: Release) -> Outcome {
    let below = layers(release)?;
    let boot = |name| Machine::boot_named(below.clone(), name);
    let (a, b, c) = (boot("a")?, boot("b")?, boot("c")?);
    let mut network = Network::new(&["a", "b", "c"])?;
    for (name, machine) in [("a", &a), ("b", &b), ("c", &c)] {
        network.connect(name, machine)?;
    }
    call(&a, &["create", "master"])?.succeeded()?;
    let rest = Rest::new(&a);
    let process = a.unit_property(MASTER_UNIT, "MainPID")?;

    // One command on each side.
    let line = invite(&a, &["gpu", "--slots", "2"])?;
    join(&b, &line)?.succeeded()?;
    ensure!(rest.worker_connected("gpu")?, "it says so when it is");
    build(rest)?;
    let slots = a.shell("grep -A1 '^.gpu.' /home/bb/master/workers.toml")?;
    ensure!(slots.stdout.contains("slots = 2"), "{slots}");

    // What a stranger has of it.
    let again = join(&c, &line)?;
    ensure!(again.status != 0, "the line was used: {again}");
    let left = c.run(&["test", "-e", "/home/bb/worker"])?;
    ensure!(left.status != 0, "a refused worker leaves nothing");
    let other = line.replace(&line[line.len() - 60..line.len() - 50], "0123456789");
    let other = join(&c, &other)?;
    ensure!(
        other.status != 0 && other.stderr.contains("another authority"),
        "{other}"
    );
    let expired = line.split("?until=").next().unwrap_or_default().to_owned() + "?until=1000000000";
    let expired = join(&c, &expired)?;
    ensure!(
        expired.status != 0 && expired.stderr.contains(" ended "),
        "{expired}"
    );
    let short = invite(&a, &["late", "--ttl", "1s"])?;
    std::thread::sleep(Duration::from_secs(2));
    let late = join(&c, &short)?;
    ensure!(
        late.status != 0 && late.stderr.contains(" ended "),
        "{late}"
    );
    call(&a, &["service", "upkeep"])?.succeeded()?;
    let known = a.shell("cat /home/bb/master/workers.toml; ls /home/bb/master/passwords")?;
    ensure!(!known.stdout.contains("late"), "it is revoked: {known}");
    // Its clock is wrong, and it tries all the same.
    let forged = short.split("?until=").next().unwrap_or_default().to_owned() + "?until=9999999999";
    let forged = join(&c, &forged)?;
    ensure!(
        forged.status != 0,
        "the master does not know it any more: {forged}"
    );

    // A second host; neither password nor line is anywhere but where it belongs.
    join(&c, &invite(&a, &["cpu"])?)?.succeeded()?;
    ensure!(rest.worker_connected("cpu")?, "the second is there too");
    let secret = line.split(['@', ':']).nth(2).context("find the password")?;
    for (machine, places) in [
        (&a, "/var/log /run /tmp"),
        (&b, "/var/log /run /tmp /home/bb/worker"),
    ] {
        let script = format!(
            "grep -rlF {secret} {places} /etc/buildbot-conda/config.toml /proc/[0-9]*/environ 2>/dev/null || true; \
             journalctl --quiet --grep {secret} || true; find / -xdev -perm -004 -type f -newer /etc/hostname \
             -exec grep -lF {secret} {{}} + 2>/dev/null || true"
        );
        let found = machine.run_within(LATER, &["sh", "-c", &script])?;
        let places = found
            .stdout
            .lines()
            .filter(|line| !line.starts_with("/run/credentials/"));
        ensure!(places.count() == 0, "{found}");
    }

    // A certificate is renewed while a build's connection is open.
    let until =
        |machine: &Machine| machine.read_file("/var/lib/buildbot-conda/created/master.network");
    let before = until(&a)?;
    a.shell(
        "sed -i 's/\"until\":[0-9]*/\"until\":1/' /var/lib/buildbot-conda/created/master.network",
    )?
    .succeeded()?;
    let renewed = call(&a, &["service", "upkeep"])?;
    ensure!(
        renewed.status == 0 && renewed.stderr.contains("has a new certificate"),
        "{renewed} before {before}"
    );
    ensure!(rest.worker_connected("gpu")? && rest.worker_connected("cpu")?);
    b.run(&["systemctl", "restart", WORKER_UNIT])?.succeeded()?;
    rest.wait_for_worker("gpu", SOON)?;

    // Another password, by a new line.
    let rotated = call(&a, &["rotate", "gpu"])?.succeeded()?;
    join(&b, rotated.text())?.succeeded()?;
    rest.wait_for_worker("gpu", SOON)?;
    let old = join(&c, &line)?;
    ensure!(old.status != 0, "the old password is no good: {old}");

    // And out. The connection is closed, and it does not come back.
    call(&a, &["revoke", "gpu"])?.succeeded()?;
    b.wait_until("the worker is refused", SOON, || {
        let status = call(&b, &["status", "worker"])?;
        Ok(status.stdout.contains("refuse").then_some(()))
    })?;
    ensure!(!rest.worker_connected("gpu").unwrap_or_default());
    ensure!(rest.worker_connected("cpu")?, "the other one stays");
    build(rest)?;
    ensure!(
        a.unit_property(MASTER_UNIT, "MainPID")? == process,
        "nothing of all that was a restart"
    );
    Ok(())
}
