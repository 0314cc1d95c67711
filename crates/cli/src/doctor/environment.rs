//! What the facts about an environment and its Python amount to.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::names::Role;
use buildbot_conda_core::settings::Instance;

use super::finding::{Check, Finding};
use super::inside::{
    Damage, EnvironmentFacts, EnvironmentState, Inside, MasterFacts, PythonFacts, Resolution,
};
use super::prefix::{Prefix, buildbot};
use super::scene::Scene;
use crate::system::record::{Noted as _, Record};

/// The last second of the year 9999.
const LATEST: u64 = 253_402_300_799;

pub(super) fn judge(instance: &Instance, inside: &Inside, scene: &Scene<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut usable = true;
    let reference = Some(&instance.reference);
    if let Some(reason) = inside.failed_activation() {
        findings.push(
            Finding::problem(Check::Environment, reference, reason)
                .words(buildbot_conda_conda::HINT),
        );
        return findings;
    }
    if let Some(facts) = &inside.environment {
        findings.push(state(instance, facts, scene));
        usable = facts.state == EnvironmentState::Usable;
        findings.extend(resolution(instance, facts));
        if usable {
            findings.extend(packages(instance, facts, scene));
            findings.extend(changed(instance, facts, scene));
        }
    }
    match &inside.python {
        // Then it is clear why nothing runs.
        _ if !usable => {}
        None => {
            let seen = "Python in the environment was not run";
            let unseen = |check| Finding::unseen(check, reference, seen);
            findings.extend([Check::Python, Check::Bytecode].map(unseen));
        }
        Some(Err(reason)) => {
            let seen = format!("Python in the environment does not run: {reason}");
            let finding = Finding::problem(Check::Python, reference, seen);
            findings.push(Prefix::of(instance, scene).reinstall(finding, &["python"]));
        }
        Some(Ok(facts)) => {
            findings.extend(python(instance, facts, scene));
            findings.extend(pages(instance, facts, inside.master.as_ref(), scene));
        }
    }
    findings
}

fn state(instance: &Instance, facts: &EnvironmentFacts, scene: &Scene<'_>) -> Finding {
    let reference = Some(&instance.reference);
    let prefix = instance.prefix();
    let shared = Prefix::of(instance, scene);
    let problem = |seen: String| Finding::problem(Check::Environment, reference, seen);
    let (package, _) = buildbot(instance.reference.role);
    match &facts.state {
        EnvironmentState::Usable => Finding::ok(
            Check::Environment,
            reference,
            format!("`{prefix}` contains Python and Buildbot"),
        ),
        EnvironmentState::Missing => {
            let finding = problem(format!("environment `{prefix}` not found"));
            match elsewhere(facts) {
                // One cause, one way out: making one here would leave that one unused.
                Some(other) => there(finding, instance, &other),
                None => shared.make(finding),
            }
        }
        // There is something at the prefix, which `conda create` would remove.
        EnvironmentState::NoCondaMeta => {
            let finding = problem(format!(
                "`{prefix}` contains no `conda-meta`, so it is not an environment"
            ));
            finding.words(
                "set `conda-root` and `conda-env` to the environment, or move the existing files away",
            )
        }
        EnvironmentState::NoPython => shared.complete(
            problem(format!("`{prefix}` contains no Python")),
            &["python"],
        ),
        EnvironmentState::NoBuildbot => {
            shared.complete(problem(format!("`{prefix}` contains no `{package}`")), &[])
        }
        EnvironmentState::Refused(reason, hint) => {
            problem(format!("`{prefix}` cannot be activated: {reason}")).words(hint)
        }
        EnvironmentState::Closed(obstacle) => {
            match scene.closed(Check::Environment, instance, obstacle) {
                Ok(problem) => shared.use_another(problem),
                Err(reason) => Finding::unseen(Check::Environment, reference, reason),
            }
        }
    }
}

/// Where conda itself would find an environment of this name.
fn elsewhere(facts: &EnvironmentFacts) -> Option<String> {
    match facts.resolution.as_ref()? {
        // A path that is not valid in the configuration cannot be meant.
        Resolution::Elsewhere(other) => usable(other),
        _ => None,
    }
}

/// Makes the instance run from `prefix`.
fn there(finding: Finding, instance: &Instance, prefix: &str) -> Finding {
    let reference = instance.reference.to_string();
    finding
        .command(["buildbot-conda", "set", &reference, "conda-env", prefix])
        .command(["systemctl", "daemon-reload"])
        .words(format!(
            "`conda activate {}` selects the same one",
            instance.conda_env
        ))
}

fn resolution(instance: &Instance, facts: &EnvironmentFacts) -> Option<Finding> {
    let reference = Some(&instance.reference);
    let (name, prefix) = (&instance.conda_env, instance.prefix());
    Some(match facts.resolution.as_ref()? {
        Resolution::Same => Finding::ok(
            Check::Resolution,
            reference,
            format!("conda also resolves `{name}` to `{prefix}`"),
        ),
        Resolution::Nowhere => Finding::ok(
            Check::Resolution,
            reference,
            format!("conda does not know an environment `{name}`"),
        ),
        Resolution::Failed(reason) => {
            let seen = format!("conda itself cannot resolve names: {reason}");
            Finding::warning(Check::Resolution, reference, seen).words("fix the named file")
        }
        Resolution::Elsewhere(_) if facts.state == EnvironmentState::Missing => return None,
        Resolution::Elsewhere(_) => {
            let other = elsewhere(facts)?;
            let seen = format!(
                "`conda activate {name}` would select `{other}`, but the service uses `{prefix}`"
            );
            let word = instance.reference.to_string();
            Finding::warning(Check::Resolution, reference, seen)
                .command(["buildbot-conda", "set", &word, "conda-env", prefix.as_str()])
                .command(["systemctl", "daemon-reload"])
                .words(format!("or set `{other}`, if that is intended"))
        }
    })
}

/// A prefix by the rules of the configuration.
fn usable(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    let parsed: buildbot_conda_core::values::AbsolutePath = text.parse().ok()?;
    Some(parsed.to_string())
}

fn packages(instance: &Instance, facts: &EnvironmentFacts, scene: &Scene<'_>) -> Vec<Finding> {
    let reference = Some(&instance.reference);
    if facts.damage.is_empty() && facts.unread > 0 {
        let seen = format!(
            "{} of {} records in `conda-meta` cannot be read by this account",
            facts.unread,
            facts.unread + facts.packages
        );
        return vec![Finding::unseen(Check::Packages, reference, seen)];
    }
    if facts.damage.is_empty() {
        let seen = format!("all {} are unchanged", facts.packages);
        return vec![Finding::ok(Check::Packages, reference, seen)];
    }
    let listed = |damage: &Damage| {
        let Damage {
            package,
            version,
            missing,
            changed,
            example,
        } = damage;
        let counts = match (missing, changed) {
            (missing, 0) => format!("{missing} files missing"),
            (0, changed) => format!("{changed} files changed"),
            (missing, changed) => format!("{missing} files missing and {changed} changed"),
        };
        format!("{package} {version} ({counts}, such as `{example}`)")
    };
    let shown: Vec<String> = facts.damage.iter().take(5).map(listed).collect();
    let more = facts.damage.len() - shown.len();
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let seen = format!(
        "changed since they were installed: {}{more}",
        shown.join(", ")
    );
    let finding = Finding::problem(Check::Packages, reference, seen);
    // A text that is not a package name must not be passed to conda.
    let names: Vec<&str> = facts
        .damage
        .iter()
        .map(|damage| damage.package.as_str())
        .filter(|name| is_name(name))
        .collect();
    if names.is_empty() {
        return vec![finding];
    }
    vec![Prefix::of(instance, scene).reinstall(finding, &names)]
}

fn is_name(text: &str) -> bool {
    let good =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    !text.is_empty() && text.len() < 100 && !text.starts_with(['-', '.']) && text.bytes().all(good)
}

fn changed(instance: &Instance, facts: &EnvironmentFacts, scene: &Scene<'_>) -> Option<Finding> {
    let reference = Some(&instance.reference);
    let unit = scene.unit(instance)?;
    unit.main_pid()?;
    let started = unit.main_process_started()?;
    // A number of the service user's: no more than a date can be.
    let changed = UNIX_EPOCH + Duration::from_secs(facts.changed?.min(LATEST));
    if changed <= started {
        return Some(Finding::ok(
            Check::Changed,
            reference,
            "not changed since the service started",
        ));
    }
    let time = humantime::format_rfc3339_seconds(changed);
    let seen = format!(
        "`{}` was changed at {time}, after the service started: it still uses files that were replaced",
        instance.prefix()
    );
    let name = instance.reference.unit_name();
    let finding =
        Finding::warning(Check::Changed, reference, seen).command(["systemctl", "restart", &name]);
    Some(match instance.reference.role {
        Role::Master => finding,
        Role::Worker => finding.words(format!(
            "`systemctl reload {name}` lets running builds finish first"
        )),
    })
}

fn python(instance: &Instance, facts: &PythonFacts, scene: &Scene<'_>) -> Vec<Finding> {
    let reference = Some(&instance.reference);
    let mut findings = Vec::new();
    let listed = |failures: &BTreeMap<ForeignText, ForeignText>| {
        let lines: Vec<String> = failures
            .iter()
            .map(|(name, reason)| format!("`{name}` ({reason})"))
            .collect();
        lines.join(", ")
    };
    if facts.imports.is_empty() {
        let seen = format!("Python {} runs and imports Buildbot", facts.version);
        findings.push(Finding::ok(Check::Python, reference, seen));
    } else {
        let seen = format!(
            "Python {} cannot import {}",
            facts.version,
            listed(&facts.imports)
        );
        let finding = Finding::problem(Check::Python, reference, seen);
        findings.push(with_missing(finding, instance, facts, scene));
    }
    if facts.plugins.is_empty() {
        findings.push(Finding::ok(
            Check::Plugins,
            reference,
            "all can be imported",
        ));
    } else {
        let seen = format!("cannot be imported: {}", listed(&facts.plugins));
        findings.push(
            Finding::warning(Check::Plugins, reference, seen)
                .words("install their missing dependencies into the environment, or remove them"),
        );
    }
    findings.extend(bytecode(instance, facts, scene));
    findings
}

/// Web pages that are configured, or that the starter configuration would have, and that need a package more.
fn pages(
    instance: &Instance,
    facts: &PythonFacts,
    master: Option<&MasterFacts>,
    scene: &Scene<'_>,
) -> Option<Finding> {
    if !facts.missing.iter().any(|module| module == "buildbot_www") {
        return None;
    }
    let reference = Some(&instance.reference);
    let is_configured =
        |facts: &MasterFacts| facts.ports.iter().any(|(purpose, _)| purpose == "www");
    let finding = if master.is_some_and(is_configured) {
        let seen =
            "web pages are configured, but the environment lacks `buildbot-www`: a start fails";
        Finding::problem(Check::Plugins, reference, seen)
    } else if Record::read(&instance.reference, scene.context).is_some() {
        let seen = "no web pages are available: the environment lacks `buildbot-www`";
        Finding::warning(Check::Plugins, reference, seen)
    } else {
        return None;
    };
    Some(Prefix::of(instance, scene).extend(finding, &["buildbot-www"]))
}

/// Adds what brings back the innermost module that cannot be imported; what imports it is not at fault. What a package
/// never brought along is installed, and not the package once more.
fn with_missing(
    finding: Finding,
    instance: &Instance,
    facts: &PythonFacts,
    scene: &Scene<'_>,
) -> Finding {
    let shared = Prefix::of(instance, scene);
    let packages = |known: &[(&str, &'static str)]| -> Vec<&'static str> {
        let missing = known
            .iter()
            .filter(|(module, _)| facts.imports.contains_key(*module));
        missing.map(|(_, package)| *package).collect()
    };
    let never_brought = packages(&[("msgpack", "msgpack-python"), ("autobahn", "autobahn")]);
    if !never_brought.is_empty() {
        return shared.extend(finding, &never_brought);
    }
    let brought = packages(&[
        ("ssl", "python"),
        ("sqlite3", "python"),
        ("twisted", "twisted"),
        ("sqlalchemy", "sqlalchemy"),
    ]);
    let package = brought.first().copied();
    shared.reinstall(
        finding,
        &[package.unwrap_or(buildbot(instance.reference.role).0)],
    )
}

fn bytecode(instance: &Instance, facts: &PythonFacts, scene: &Scene<'_>) -> Option<Finding> {
    let reference = Some(&instance.reference);
    let found = facts.bytecode?;
    // A few sources are for other versions of Python and are never compiled.
    if found.writable || found.missing.saturating_mul(10) < found.sources {
        let seen = format!(
            "of {} files of Buildbot, {} are not compiled",
            found.sources, found.missing
        );
        return Some(Finding::ok(Check::Bytecode, reference, seen));
    }
    let seen = format!(
        "{} of {} files of Buildbot have no bytecode, and the service cannot write it: every start compiles them",
        found.missing, found.sources
    );
    let mut finding = Finding::warning(Check::Bytecode, reference, seen);
    let shared = Prefix::of(instance, scene);
    let prefix = instance.prefix().to_string();
    // Owned by root, in a directory of another account: root must not run it.
    if let Some(user) = shared.keeper_owns() {
        let user = format!("{user}:");
        finding = finding.command(["chown", "--recursive", "--no-dereference", &user, &prefix]);
    }
    let python = format!("{prefix}/bin/python");
    let library = format!("{prefix}/lib");
    let compile = [&python, "-m", "compileall", "-q", "-j", "0", &library];
    Some(finding.command(shared.by_keeper(&compile)))
}
