//! What the facts about an instance's directory amount to.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use buildbot_conda_core::names::Role;
use buildbot_conda_core::settings::Instance;

use super::finding::{Check, Finding};
use super::inside::{DirectoryFacts, Inside, PidFile};
use super::scene::{Scene, Viewer};
use crate::system::own_place;

pub(super) fn judge(instance: &Instance, inside: &Inside, scene: &Scene<'_>) -> Vec<Finding> {
    let Some(facts) = &inside.directory else {
        return Vec::new();
    };
    let reference = Some(&instance.reference);
    let checks = [
        Check::Directory,
        Check::Ownership,
        Check::Secrets,
        Check::PidFile,
    ];
    if let Some(obstacle) = &facts.closed {
        return match scene.closed(Check::Directory, instance, obstacle) {
            Ok(problem) => vec![problem.words(format!(
                "give `{}` access there, or move the directory to where it has access",
                instance.user.as_str()
            ))],
            Err(reason) => checks
                .into_iter()
                .map(|check| Finding::unseen(check, reference, reason.clone()))
                .collect(),
        };
    }
    if !facts.exists || facts.is_empty {
        return vec![not_set_up(instance, facts, scene)];
    }
    let mut findings = vec![
        tac(instance, facts, scene),
        ownership(instance, facts, scene),
        exposed(instance, facts, scene),
        pid_file(instance, facts, scene),
    ];
    if let Ok(Some(seen)) = own_place::distrust(instance, scene.context) {
        let finding = Finding::warning(Check::Directory, reference, seen);
        findings.push(finding.words(
            "make root the owner of that directory, or remove the write permission of others",
        ));
    }
    findings
}

/// As root's, a command line that the service user carries out.
pub(super) fn as_user<'a>(instance: &'a Instance, words: &[&'a str]) -> Vec<String> {
    let before = ["runuser", "-u", instance.user.as_str(), "--"];
    before
        .iter()
        .chain(words)
        .map(|word| (*word).to_owned())
        .collect()
}

/// The directory as it is written in commands.
fn path(instance: &Instance, scene: &Scene<'_>) -> String {
    let path = scene.context.path(instance.directory.as_str());
    path.to_string_lossy().into_owned()
}

/// Enabled and not set up is what a fresh installation is like.
fn not_set_up(instance: &Instance, facts: &DirectoryFacts, scene: &Scene<'_>) -> Finding {
    let what = if facts.exists {
        "is empty"
    } else {
        "does not exist"
    };
    if scene.has_served(instance) {
        let seen = format!(
            "`{}` {what}, and `{}` has run from it before",
            path(instance, scene),
            instance.reference
        );
        return Finding::problem(Check::Directory, Some(&instance.reference), seen).words(
            "mount or restore it, or set `directory` in the configuration to its new location",
        );
    }
    let seen = format!("`{}` {what}: not set up yet", path(instance, scene));
    Finding::unseen(Check::Directory, Some(&instance.reference), seen)
}

fn tac(instance: &Instance, facts: &DirectoryFacts, scene: &Scene<'_>) -> Finding {
    let reference = Some(&instance.reference);
    let path = path(instance, scene);
    if let Some(account) = scene.account(&instance.user)
        && facts.owner != account.uid
        && !scene.context.is_elsewhere()
    {
        let user = instance.user.as_str();
        let seen = format!("`{path}` is owned by user {}, not by `{user}`", facts.owner);
        let finding = Finding::problem(Check::Directory, reference, seen);
        return finding.command([
            "chown",
            "--recursive",
            "--no-dereference",
            &format!("{user}:"),
            &path,
        ]);
    }
    if facts.has_tac {
        return Finding::ok(Check::Directory, reference, format!("`{path}` is set up"));
    }
    let seen = format!("`{path}` has no `buildbot.tac`, so a start is refused (status 78)");
    let finding = Finding::problem(Check::Directory, reference, seen);
    let prefix = instance.prefix();
    match instance.reference.role {
        Role::Master => {
            let program = format!("{prefix}/bin/buildbot");
            {
            let directory = instance.directory.as_str();
            let words = [&program, "create-master", "--relocatable", directory];
            finding.command(scene.there(as_user(instance, &words)))
        }
        }
        Role::Worker => finding.words(format!(
            "`runuser -u {} -- {prefix}/bin/buildbot-worker create-worker --allow-shutdown=signal --keepalive=60 {path} \
             HOST:PORT NAME PASSWORD` creates one",
            instance.user.as_str()
        )),
    }
}

fn ownership(instance: &Instance, facts: &DirectoryFacts, scene: &Scene<'_>) -> Finding {
    let reference = Some(&instance.reference);
    let user = instance.user.as_str();
    let path = path(instance, scene);
    if !matches!(scene.viewer(instance), Viewer::Root | Viewer::Owner) {
        return Finding::unseen(
            Check::Ownership,
            reference,
            format!("only root and `{user}` can check this"),
        );
    }
    if facts.unwritable_count == 0 {
        return Finding::ok(
            Check::Ownership,
            reference,
            format!("`{user}` can write `{path}`"),
        );
    }
    let examples: Vec<String> = facts
        .unwritable
        .iter()
        .map(|path| format!("`{}`", path.display()))
        .collect();
    let more = facts
        .unwritable_count
        .saturating_sub(facts.unwritable.len());
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let seen = format!(
        "`{user}` cannot write {}{more}, which are owned by other accounts",
        examples.join(", ")
    );
    let finding = Finding::problem(Check::Ownership, reference, seen);
    let is_safe = facts.unwritable_can_be_given
        && !scene.context.is_elsewhere()
        && own_place::ensure(instance, scene.context).is_ok();
    if is_safe {
        return finding.safe([
            "buildbot-conda",
            "service",
            "own",
            &instance.reference.to_string(),
        ]);
    }
    let owner = format!("{user}:");
    finding
        .command(["chown", "--recursive", "--no-dereference", &owner, &path])
        .words(format!(
            "check first that `{user}` may own everything in it"
        ))
}

fn exposed(instance: &Instance, facts: &DirectoryFacts, scene: &Scene<'_>) -> Finding {
    let reference = Some(&instance.reference);
    let path = path(instance, scene);
    // Names that the service user made up become part of no command.
    let is_known = |name: &&String| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        name.len() < 100 && !name.starts_with(['.', '-']) && name.bytes().all(known)
    };
    let names: Vec<&String> = facts.exposed.iter().filter(is_known).collect();
    if names.is_empty() || !others_come_through(Path::new(&path)) {
        let seen = "no file with secrets is world-readable";
        return Finding::ok(Check::Secrets, reference, seen);
    }
    let files: Vec<String> = names.iter().map(|name| format!("{path}/{name}")).collect();
    let shown: Vec<String> = files.iter().map(|file| format!("`{file}`")).collect();
    let seen = format!("everybody on this host can read {}", shown.join(", "));
    let mut words = vec!["chmod", "o="];
    words.extend(files.iter().map(String::as_str));
    let finding = Finding::problem(Check::Secrets, reference, seen);
    if scene.context.is_elsewhere() {
        return finding.command(words);
    }
    // As the service user, who cannot redirect any other account.
    finding.safe(as_user(instance, &words))
}

/// Whether every account can enter the directory. The sandbox shows other parent directories than the real ones, so
/// this is not examined inside it.
fn others_come_through(directory: &Path) -> bool {
    let Ok(path) = directory.canonicalize() else {
        return false;
    };
    path.ancestors().all(|part| {
        part.metadata()
            .is_ok_and(|metadata| metadata.mode() & 0o001 != 0)
    })
}

/// The runner writes its own process id there, for upstream's commands.
fn pid_file(instance: &Instance, facts: &DirectoryFacts, scene: &Scene<'_>) -> Finding {
    let reference = Some(&instance.reference);
    let file = format!("{}/twistd.pid", path(instance, scene));
    let Some(found) = facts.pid_file else {
        return Finding::ok(Check::PidFile, reference, "no PID file");
    };
    let main = scene
        .unit(instance)
        .and_then(crate::system::systemd::Unit::main_pid);
    let PidFile::Of(pid) = found else {
        return left_over(instance, &file, "contains no process ID", scene);
    };
    if main == Some(pid) {
        return Finding::ok(
            Check::PidFile,
            reference,
            "contains the process ID of the service",
        );
    }
    if scene.context.is_elsewhere() || !Path::new(&format!("/proc/{pid}")).exists() {
        return left_over(
            instance,
            &file,
            &format!("names process {pid}, which does not exist"),
            scene,
        );
    }
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).into_owned();
    if !["buildbot", "twistd"]
        .iter()
        .any(|word| command.contains(word))
    {
        let seen = format!("names process {pid}, which is not Buildbot");
        return left_over(instance, &file, &seen, scene);
    }
    let seen = format!(
        "a Buildbot that was started by hand, process {pid}, uses this directory: the service cannot start"
    );
    let program = match instance.reference.role {
        Role::Master => format!("{}/bin/buildbot", instance.prefix()),
        Role::Worker => format!("{}/bin/buildbot-worker", instance.prefix()),
    };
    let directory = path(instance, scene);
    Finding::problem(Check::PidFile, reference, seen)
        .command(as_user(instance, &[&program, "stop", &directory]))
        .command(["systemctl", "start", &instance.reference.unit_name()])
}

fn left_over(instance: &Instance, file: &str, what: &str, scene: &Scene<'_>) -> Finding {
    let seen = format!("`{file}` {what}: Buildbot's own commands consider it a running Buildbot");
    let finding = Finding::warning(Check::PidFile, Some(&instance.reference), seen);
    if scene.context.is_elsewhere() {
        return finding.command(["rm", file]);
    }
    finding.safe(as_user(instance, &["rm", "--force", file]))
}
