//! The configuration: all problems of the file, the accounts that it names, and instances that share one.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use buildbot_conda_core::names::Role;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::{Affects, Instance, Settings};
use buildbot_conda_host::Unusable;
use buildbot_conda_host::trusted::{Reason, Untrusted};

use super::finding::{Check, Finding};
use super::scene::Scene;
use crate::system::context::InvalidConfiguration;

pub(super) fn examine(
    settings: Result<&Settings, &InvalidConfiguration>,
    scene: &Scene<'_>,
) -> Vec<Finding> {
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => return vec![unusable(error)],
    };
    let mut findings: Vec<Finding> = settings
        .problems()
        .iter()
        .map(|problem| {
            let reference = match &problem.affects {
                Affects::Instance(reference) => Some(reference),
                _ => None,
            };
            let message = problem.display(settings.file()).to_string();
            let (seen, hint) = message
                .split_once("\nhint: ")
                .unwrap_or((&message, "correct the configuration"));
            let finding = Finding::problem(Check::Configuration, reference, seen);
            finding.words(format!("{hint}; then `systemctl daemon-reload`"))
        })
        .collect();
    if findings.is_empty() {
        let seen = format!("`{}` is valid", settings.file());
        findings.push(Finding::ok(Check::Configuration, None, seen));
    }
    for instance in &scene.instances {
        findings.push(account(instance, scene));
        findings.extend(shared_account(instance, settings, scene));
    }
    findings
}

fn unusable(error: &InvalidConfiguration) -> Finding {
    let message = error.to_string();
    let seen = message.split("\nhint: ").next().unwrap_or_default();
    let finding = Finding::problem(Check::Configuration, None, seen);
    let InvalidConfiguration::Unusable(unusable) = error else {
        return finding;
    };
    match unusable {
        Unusable::Missing(path) => {
            // What a first installation does.
            let starter = path.to_string_lossy();
            let root = starter
                .strip_suffix(paths::CONFIGURATION)
                .unwrap_or_default();
            finding
                .command([
                    "install",
                    "-m",
                    "0644",
                    &format!("{root}{}", paths::STARTER),
                    &starter,
                ])
                .words("or `dpkg-reconfigure buildbot-conda`, which asks again")
        }
        // Not for `--fix`: another account may have written the content.
        Unusable::Distrusted { untrusted } => distrusted(finding, untrusted),
        Unusable::Unreadable { path, .. } => finding.words(format!(
            "check its owner and mode: `ls -l {}`",
            path.display()
        )),
        Unusable::NotRegular(path) | Unusable::TooLarge(path) => finding.words(format!(
            "replace `{}` with a configuration file",
            path.display()
        )),
    }
}

fn distrusted(finding: Finding, untrusted: &Untrusted) -> Finding {
    let at = untrusted.at.display().to_string();
    // A user's own directory in the path of a link keeps its owner.
    let is_here = untrusted.at == untrusted.path || untrusted.path.parent() == Some(&untrusted.at);
    let finding = match untrusted.reason {
        Reason::Owner(_) if is_here => finding.command(["chown", "root:root", &at]),
        Reason::Mode(_) if is_here => finding.command(["chmod", "go-w", &at]),
        _ => {
            let path = untrusted.path.display();
            return finding.words(format!(
                "check the content of `{path}`, then replace it with a file owned by root"
            ));
        }
    };
    finding.words(format!("check `{at}` first: somebody else could write it"))
}

fn account(instance: &Instance, scene: &Scene<'_>) -> Finding {
    let reference = Some(&instance.reference);
    let user = instance.user.as_str();
    if scene.account(&instance.user).is_some() {
        return Finding::ok(Check::Account, reference, format!("`{user}` exists"));
    }
    let seen = format!("account `{user}` not found, systemd cannot start the service (status 217)");
    Finding::problem(Check::Account, reference, seen).command(scene.there(adduser(user)))
}

/// As the package makes its own account.
fn adduser(name: &str) -> Vec<String> {
    let home = format!("/home/{name}");
    words([
        "adduser",
        "--quiet",
        "--system",
        "--group",
        "--home",
        &home,
        "--shell",
        "/bin/bash",
        "--gecos",
        "Buildbot",
        name,
    ])
}

/// Builds run as their worker's account: what that account can read, they can, and change.
fn shared_account(worker: &Instance, settings: &Settings, scene: &Scene<'_>) -> Option<Finding> {
    if worker.reference.role != Role::Worker {
        return None;
    }
    let reference = Some(&worker.reference);
    // Masters come first.
    let mut sharing = settings.instances().filter(|other| {
        other.reference != worker.reference
            && other.user == worker.user
            && scene.is_set_up(other) != Some(false)
    });
    let user = worker.user.as_str();
    let Some(other) = sharing.next() else {
        let seen = format!("no other instance runs as `{user}`");
        return Some(Finding::ok(Check::SharedAccount, reference, seen));
    };
    if scene.is_set_up(worker) == Some(false) {
        return None;
    }
    let what = match other.reference.role {
        Role::Master => {
            "every build can read and change that master's configuration, secrets and database"
        }
        Role::Worker => "builds of one can read and change files and builds of the other",
    };
    let seen = format!(
        "it runs as `{user}`, and so does `{}`: {what}",
        other.reference
    );
    let finding = Finding::warning(Check::SharedAccount, reference, seen);
    Some(own_account(finding, worker, scene))
}

/// How to move the instance to its own account. The directory is kept, because a tac may name it.
fn own_account(finding: Finding, worker: &Instance, scene: &Scene<'_>) -> Finding {
    let name = match &worker.reference.name {
        None => "bb-worker".to_owned(),
        Some(name) => format!("bb-worker-{name}"),
    };
    let unit = worker.reference.unit_name();
    let reference = worker.reference.to_string();
    let owner = format!("{name}:");
    let directory = worker.directory.as_str();
    let mut commands = vec![
        adduser(&name),
        words(["systemctl", "stop", &unit]),
        words([
            "chown",
            "--recursive",
            "--no-dereference",
            &owner,
            directory,
        ]),
    ];
    for path in closed(worker, scene) {
        commands.push(words(["chmod", "o+x", &path]));
    }
    commands.push(words(["buildbot-conda", "set", &reference, "user", &name]));
    commands.push(words(["systemctl", "daemon-reload"]));
    commands.push(words(["systemctl", "start", &unit]));
    if scene.context.is_elsewhere() {
        commands.retain(|words| words[0] != "systemctl");
    }
    let mut finding = finding;
    for command in commands {
        finding = finding.command(scene.there(command));
    }
    finding
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// Directories above the worker's and the environment's that only their owner comes through.
fn closed(worker: &Instance, scene: &Scene<'_>) -> BTreeSet<String> {
    let prefix = worker.prefix();
    let paths = [prefix.as_str(), worker.directory.as_str()].map(Path::new);
    let above = paths.iter().flat_map(|path| path.ancestors().skip(1));
    let names = above.map(|path| path.to_string_lossy().into_owned());
    let is_closed = |path: &String| {
        let metadata = scene.context.path(path).metadata();
        metadata.is_ok_and(|metadata| metadata.mode() & 0o001 == 0)
    };
    names.filter(is_closed).collect()
}
