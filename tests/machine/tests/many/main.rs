//! Many instances on one machine: of several accounts and environments, made by a loop of `create`, listed, drained
//! and removed, and nothing of one leaks into another. Twenty workers and three masters on bookworm, fewer on trixie.

mod builds;
mod groups;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use buildbot_conda_machine::{
    Environment, Machine, Outcome, Output, Release, Rest, Version, installed, on_each_release,
};
use serde_json::{Value, json};

use builds::builds_see_nothing_of_others;
use groups::{Group, OLD, groups, name_of};

on_each_release! {
    a_loop_of_create_makes_instances_that_know_nothing_of_each_other,
}

/// From a request to the end of its build, and for a worker to connect, on a busy machine.
const SOON: Duration = Duration::from_mins(2);
/// A loop over all of them, on a busy machine.
const LOOP: Duration = Duration::from_mins(20);

fn call(machine: &Machine, words: &[&str]) -> Result<Output> {
    machine.run(&[&["buildbot-conda"], words].concat())
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_owned).collect()
}

/// Accounts, units, configuration, secrets and homes, without what running instances write all the time.
fn state(machine: &Machine) -> Result<BTreeSet<String>> {
    let written = [
        "bytecode/*",
        "*.log",
        "state.sqlite*",
        "twistd.*",
        ".buildbot-conda.lock",
        "lock",
    ];
    let written = written.map(|name| format!("! -path '*/{name}'")).join(" ");
    let script = format!(
        "getent passwd; cd /; find etc/systemd/system etc/buildbot-conda var/lib/buildbot-conda home srv \
         -path home/bb/anaconda3 -prune -o {written} -print | while read -r path; do \
         stat -c '/%n %F %a %U %N' \"$path\"; test ! -f \"$path\" || sha256sum \"/$path\"; done 2>/dev/null || true"
    );
    Ok(lines(&machine.shell(&script)?.succeeded()?.stdout))
}

fn ensure_same(machine: &Machine, before: &BTreeSet<String>, talk: &Output) -> Outcome {
    let now = state(machine)?;
    let differ: Vec<&String> = now.symmetric_difference(before).collect();
    ensure!(differ.is_empty(), "{differ:#?}\n{talk}");
    Ok(())
}

/// What `list --json` has of each instance.
fn rows(machine: &Machine) -> Result<Vec<Value>> {
    let list = call(machine, &["list", "--json"])?.succeeded()?;
    serde_json::from_str(&list.stdout).with_context(|| format!("read {list}"))
}

fn a_loop_of_create_makes_instances_that_know_nothing_of_each_other(release: Release) -> Outcome {
    let environment = Environment::install(Version::V3_11_9, OLD)?;
    let machine = Machine::boot(installed(release)?.with(environment.tree().to_path_buf()))?;
    let groups = groups(release);
    let accounts = groups.iter().skip(1).flat_map(|group| group.accounts);
    for account in accounts {
        let options = "--quiet --system --group --shell /bin/bash";
        machine
            .shell(&format!(
                "adduser {options} --home /home/{account} {account}"
            ))?
            .succeeded()?;
    }
    machine.run(&["mkdir", "/srv/nightly"])?.succeeded()?;
    let before = state(&machine)?;

    let script: String = groups.iter().map(Group::create).collect();
    machine
        .run_within(LOOP, &["sh", "-euxc", &script])?
        .succeeded()?;

    everything_is_connected_as_it_was_asked_for(&machine, &groups)?;
    names_agree(&machine, &groups)?;
    builds_see_nothing_of_others(&machine, &groups)?;
    a_worker_of_one_master_is_no_worker_of_another(&machine, &groups)?;
    a_failure_is_that_of_one(&machine, &groups)?;
    what_a_builder_needs_is_not_removed(&machine, &groups)?;
    a_removed_worker_is_forgotten(&machine, &groups)?;
    all_are_drained_and_removed(&machine, &groups, &before)
}

fn everything_is_connected_as_it_was_asked_for(machine: &Machine, groups: &[Group]) -> Outcome {
    // Each was, at the end of its `create`; a connection may be lost at any time, and comes again.
    machine.wait_until("every worker is connected", SOON, || {
        let connection = |row: &Value| row["status"]["worker"]["connection"].clone();
        let rows = rows(machine)?;
        let workers = rows.iter().filter(|row| !row["status"]["worker"].is_null());
        let mut connections = workers.map(connection);
        Ok(connections
            .all(|one| one == json!("connected"))
            .then_some(()))
    })?;
    let rows = rows(machine)?;
    let count: usize = groups.iter().map(|group| group.references().len()).sum();
    ensure!(rows.len() == count, "{rows:#?}");
    for group in groups {
        for reference in group.references() {
            let row = rows.iter().find(|row| row["instance"] == json!(reference));
            let row = row.with_context(|| format!("find `{reference}` in {rows:#?}"))?;
            ensure!(row["state"] == json!("active"), "{row:#}");
            ensure!(row["environment"] == json!(group.environment), "{row:#}");
            let is_worker = reference.starts_with("worker");
            if is_worker {
                let name = name_of(reference.rsplit('@').next().unwrap_or_default());
                let expected = format!("connected to localhost:{} as {name}", group.worker_port);
                ensure!(row["message"] == json!(expected), "{row:#}");
            }
            let process = format!("/proc/{}", row["pid"]);
            let owner = machine.run(&["stat", "-c", "%U", &process])?.succeeded()?;
            ensure!(
                owner.text() == group.accounts[usize::from(is_worker)],
                "{reference}: {owner}"
            );
        }
        // Its master knows these, and the one of every new master.
        let known = Rest::at(machine, group.web_port).get("workers")?;
        let known = known["workers"].as_array().context("read workers")?;
        let known: BTreeSet<&str> = known
            .iter()
            .filter_map(|one| one["name"].as_str())
            // Buildbot's own, inside of the master.
            .filter(|name| !name.starts_with("__"))
            .collect();
        let expected = group.workers.iter().map(|name| name_of(name));
        let expected: BTreeSet<String> = expected.chain(["worker".to_owned()]).collect();
        ensure!(
            known == expected.iter().map(String::as_str).collect(),
            "{known:?}"
        );
    }
    let passwords = machine
        .shell("cat /etc/buildbot-conda/credentials/*")?
        .succeeded()?;
    let files = machine
        .shell("ls /etc/buildbot-conda/credentials")?
        .succeeded()?;
    let (files, distinct) = (lines(&files.stdout), lines(&passwords.stdout));
    let workers: usize = groups.iter().map(|group| group.workers.len()).sum();
    ensure!(
        distinct.len() == files.len() && files.len() >= groups.len() + workers,
        "{} passwords in {files:?}",
        distinct.len()
    );
    Ok(())
}

/// On the command line, in the file and in systemd.
fn names_agree(machine: &Machine, groups: &[Group]) -> Outcome {
    let expected: BTreeSet<String> = groups.iter().flat_map(Group::references).collect();
    let list = call(machine, &["list"])?.succeeded()?;
    let first = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let listed: BTreeSet<String> = list.stdout.lines().skip(1).map(first).collect();
    ensure!(listed == expected, "{list}");
    let file = machine.read_file("/etc/buildbot-conda/config.toml")?;
    let tables = file.lines().filter_map(|line| {
        let name = line.strip_prefix('[')?.split(']').next()?.trim_matches('"');
        (name != "defaults").then(|| name.to_owned())
    });
    ensure!(tables.collect::<BTreeSet<_>>() == expected, "{file}");
    let units = machine
        .run(&[
            "systemctl",
            "list-units",
            "--plain",
            "--full",
            "--no-legend",
            "buildbot-*",
        ])?
        .succeeded()?;
    let units: BTreeSet<String> = units.stdout.lines().map(first).collect();
    let unit = |reference: &String| format!("buildbot-{reference}.service");
    ensure!(units == expected.iter().map(unit).collect(), "{units:?}");
    for reference in &expected {
        call(machine, &["show", reference])?.succeeded()?;
    }
    Ok(())
}

fn a_worker_of_one_master_is_no_worker_of_another(machine: &Machine, groups: &[Group]) -> Outcome {
    let before = state(machine)?;
    let other = format!("localhost:{}", groups[1].worker_port);
    let secret = "--password-file=/etc/buildbot-conda/credentials/password-of-worker";
    let known = groups[1].chosen();
    let name = format!("--worker-name={known}");
    let words = ["create", "worker", "intruder", "--master", &other, secret];
    let taken = call(machine, &[&words[..], &[&name]].concat())?;
    let expect = format!(
        "error: `worker@{known}` already is the worker `{known}` of the master at {other}\n\
         hint: choose another name with `--worker-name`\n"
    );
    ensure!(taken.status == 1 && taken.stderr == expect, "{taken}");
    // With a name that it knows and nobody uses, and the password of the first master.
    machine
        .run(&["systemctl", "stop", &format!("buildbot-worker@{known}")])?
        .succeeded()?;
    let record = format!("/var/lib/buildbot-conda/created/worker@{known}.json");
    machine.run(&["mv", &record, "/root/record"])?.succeeded()?;
    let refused = call(machine, &[&words[..], &[&name]].concat())?;
    ensure!(
        refused.status == 1
            && refused
                .stderr
                .contains("error: the master rejects `worker@intruder`"),
        "{refused}"
    );
    machine.run(&["mv", "/root/record", &record])?.succeeded()?;
    machine
        .run(&["systemctl", "start", &format!("buildbot-worker@{known}")])?
        .succeeded()?;
    ensure_same(machine, &before, &refused)?;
    Ok(())
}

/// Main processes of the others; a crash and a restart have new ones.
fn others(machine: &Machine, failing: &str) -> Result<Vec<String>> {
    let rows = rows(machine)?;
    let others = rows.iter().filter(|row| row["instance"] != json!(failing));
    Ok(others
        .map(|row| format!("{} {} {}", row["instance"], row["state"], row["pid"]))
        .collect())
}

fn a_failure_is_that_of_one(machine: &Machine, groups: &[Group]) -> Outcome {
    let name = groups[0].chosen();
    let reference = format!("worker@{name}");
    let tac = format!("{}/buildbot.tac", groups[0].worker_directory(name));
    let before = others(machine, &reference)?;
    machine
        .shell(&format!("cp {tac} /root/tac; echo 'no Python' >{tac}"))?
        .succeeded()?;
    let unit = format!("buildbot-{reference}");
    ensure!(
        machine.run(&["systemctl", "restart", &unit])?.status != 0,
        "it starts"
    );
    let status = call(machine, &["status", &reference, "--fail-if-down"])?;
    ensure!(
        status.status == 1 && status.stdout.contains("failed"),
        "{status}"
    );
    let others_are = call(machine, &["status", &groups[1].master(), "--fail-if-down"])?;
    ensure!(others_are.status == 0, "{others_are}");
    ensure!(others(machine, &reference)? == before, "{before:#?}");
    machine
        .shell(&format!("cat /root/tac >{tac}; systemctl start {unit}"))?
        .succeeded()?;
    Rest::at(machine, groups[0].web_port).wait_for_worker(name, SOON)
}

/// The administrator's own builder uses it: the master would not accept its configuration.
fn what_a_builder_needs_is_not_removed(machine: &Machine, groups: &[Group]) -> Outcome {
    let group = &groups[0];
    let reference = format!("worker@{}", group.chosen());
    let before = state(machine)?;
    let refused = call(machine, &["remove", &reference, "--yes", "--data"])?;
    let expect = "error: `buildbot-master.service` rejects its configuration";
    ensure!(
        refused.status == 1
            && refused.stderr.contains(expect)
            && refused.stderr.contains(group.chosen())
            && refused.stderr.contains("all changes were rolled back"),
        "{refused}"
    );
    ensure_same(machine, &before, &refused)?;
    Rest::at(machine, group.web_port).wait_for_worker(group.chosen(), SOON)
}

fn a_removed_worker_is_forgotten(machine: &Machine, groups: &[Group]) -> Outcome {
    let group = &groups[0];
    let file = format!("{}/workers.toml", group.master_directory());
    let before = machine.read_file(&file)?;
    let instance = group.workers[0];
    let (gone, reference) = (name_of(instance), format!("worker@{instance}"));
    let dry = call(machine, &["remove", &reference, "--dry-run"])?.succeeded()?;
    let steps = [
        format!("as `bb`, remove \"{gone}\" from `{file}`"),
        "check the configuration of `buildbot-master.service`, and reload it".to_owned(),
    ];
    ensure!(dry.stdout.contains(&steps.join("\n")), "{dry}");
    call(machine, &["remove", &reference, "--yes", "--data"])?.succeeded()?;
    let after = machine.read_file(&file)?;
    ensure!(
        after == before.replacen(&format!("[{gone}]\n"), "", 1),
        "{after}"
    );
    ensure!(machine.run(&["stat", "-c", "%a %U:%G", &file])?.text() == "600 bb:bb");
    // As the master itself sees it: configured on it or not.
    let known = Rest::at(machine, group.web_port).get("workers")?;
    for worker in known["workers"].as_array().context("read workers")? {
        if worker["name"] == json!("__Janitor") {
            continue;
        }
        let is_configured = worker["configured_on"]
            .as_array()
            .is_some_and(|on| !on.is_empty());
        ensure!(
            is_configured == (worker["name"] != json!(gone)),
            "{worker:#}"
        );
    }
    // And made again, it is known again.
    call(machine, &["create", "worker", instance])?.succeeded()?;
    Rest::at(machine, group.web_port).wait_for_worker(&gone, SOON)
}

fn all_are_drained_and_removed(
    machine: &Machine,
    groups: &[Group],
    before: &BTreeSet<String>,
) -> Outcome {
    let workers: Vec<String> = groups.iter().flat_map(Group::workers).collect();
    let masters: Vec<String> = groups.iter().map(Group::master).collect();
    let all = [workers, masters].concat();
    let script = format!(
        "for one in {}; do buildbot-conda drain $one; done",
        all.join(" ")
    );
    machine
        .run_within(LOOP, &["sh", "-euxc", &script])?
        .succeeded()?;
    for row in rows(machine)? {
        ensure!(row["state"] == json!("inactive"), "{row:#}");
    }

    // The first one's data goes, that of the others is kept.
    let mut script = String::new();
    for (number, group) in groups.iter().enumerate() {
        let data = if number == 0 { "--data" } else { "" };
        let references = [group.workers(), vec![group.master()]].concat().join(" ");
        let _ = writeln!(
            script,
            "for one in {references}; do buildbot-conda remove $one {data} --yes; done"
        );
    }
    let talk = machine
        .run_within(LOOP, &["sh", "-euc", &script])?
        .succeeded()?;
    ensure!(rows(machine)?.is_empty(), "{talk}");
    let kept: BTreeSet<&str> = talk
        .stderr
        .lines()
        .filter_map(|line| line.strip_prefix("kept `")?.strip_suffix('`'))
        .collect();
    for group in &groups[1..] {
        for directory in [
            group.master_directory(),
            group.worker_directory(group.chosen()),
        ] {
            ensure!(kept.contains(directory.as_str()), "{talk}");
        }
    }
    let now = state(machine)?;
    let said = |line: &str| kept.iter().any(|path| line.contains(path));
    // The account was created with its home directory, and is kept; so are records that belong to nobody any more.
    let expected = [
        "bb-worker",
        "/etc/buildbot-conda/config.toml",
        "/var/lib/buildbot-conda/created ",
    ];
    let more: Vec<&String> = now
        .difference(before)
        .filter(|line| !said(line) && !expected.iter().any(|word| line.contains(word)))
        .collect();
    ensure!(more.is_empty(), "{more:#?}\n{talk}");
    let less: Vec<&String> = before
        .difference(&now)
        .filter(|line| {
            !line.contains("/etc/buildbot-conda/config.toml")
                && !line.contains("multi-user.target.wants/buildbot-")
        })
        .collect();
    ensure!(less.is_empty(), "{less:#?}\n{talk}");
    Ok(())
}
