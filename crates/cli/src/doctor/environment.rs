//! What the facts about an environment and its Python amount to.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use buildbot_conda_core::names::Role;
use buildbot_conda_core::settings::Instance;

use super::directory::as_user;
use super::finding::{Check, Finding};
use super::inside::{
    Damage, EnvironmentFacts, EnvironmentState, Inside, PythonFacts, Resolution, buildbot,
};
use super::scene::Scene;
use crate::system::accounts;
use crate::system::context::Context;

/// The last second of the year 9999.
const LATEST: u64 = 253_402_300_799;

pub(super) fn judge(instance: &Instance, inside: &Inside, scene: &Scene<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut usable = true;
    if let Some(facts) = &inside.environment {
        findings.push(state(instance, facts, scene));
        usable = facts.state == EnvironmentState::Usable;
        findings.extend(resolution(instance, facts));
        if usable {
            findings.extend(packages(instance, facts, scene));
            findings.extend(changed(instance, facts, scene));
        }
    }
    let reference = Some(&instance.reference);
    match &inside.python {
        // Then it is clear why nothing runs.
        _ if !usable => {}
        None => {
            let seen = "the environment's Python was not run";
            let unseen = |check| Finding::unseen(check, reference, seen);
            findings.extend([Check::Python, Check::Bytecode].map(unseen));
        }
        Some(Err(reason)) => {
            let seen = format!("the environment's Python does not run: {reason}");
            let finding = Finding::problem(Check::Python, reference, seen);
            findings.push(reinstall(finding, instance, scene, &["python"]));
        }
        Some(Ok(facts)) => findings.extend(python(instance, facts, scene)),
    }
    findings
}

/// The conda of the instance's installation; environments of micromamba, pixi and rattler have none.
fn conda(instance: &Instance, scene: &Scene<'_>) -> Option<String> {
    let path = format!("{}/bin/conda", instance.conda_root.as_str());
    scene.context.path(&path).exists().then_some(path)
}

/// Adds the command by which conda makes or changes the environment, as the account that owns it.
fn by_conda(
    finding: Finding,
    instance: &Instance,
    scene: &Scene<'_>,
    verb: &str,
    options: &[&str],
    packages: &[&str],
) -> Finding {
    let Some(conda) = conda(instance, scene) else {
        return finding.words(format!(
            "add {} with the program that manages this environment, such as micromamba or pixi",
            packages
                .iter()
                .map(|name| format!("`{name}`"))
                .collect::<Vec<_>>()
                .join(", ")
        ));
    };
    let prefix = instance.prefix().to_string();
    let words = [
        &[conda.as_str(), verb, "--yes", "--prefix", &prefix],
        options,
        packages,
    ]
    .concat();
    finding.command(scene.there(as_owner(instance, &words)))
}

/// Installs packages once more.
fn reinstall(
    finding: Finding,
    instance: &Instance,
    scene: &Scene<'_>,
    packages: &[&str],
) -> Finding {
    by_conda(
        finding,
        instance,
        scene,
        "install",
        &["--force-reinstall"],
        packages,
    )
}

/// Root runs nothing that others can write: the owner of the environment does, or where root owns it
/// and somebody else the directory above, the service user.
fn as_owner(instance: &Instance, words: &[&str]) -> Vec<String> {
    let prefix = instance.prefix();
    let owner = Path::new(prefix.as_str())
        .metadata()
        .map_or(0, |metadata| metadata.uid());
    let program = words.first().copied().unwrap_or_default();
    if owner == 0 && is_roots(prefix.as_str()) && is_roots(program) {
        return words.iter().map(|word| (*word).to_owned()).collect();
    }
    match accounts::name_of_user(owner, &Context::default())
        .ok()
        .flatten()
    {
        Some(name) if owner != 0 && name != instance.user.as_str() => {
            let before = ["runuser", "-u", &name, "--"];
            let all = before.iter().chain(words);
            all.map(|word| (*word).to_owned()).collect()
        }
        _ => as_user(instance, words),
    }
}

fn state(instance: &Instance, facts: &EnvironmentFacts, scene: &Scene<'_>) -> Finding {
    let reference = Some(&instance.reference);
    let prefix = instance.prefix();
    let problem = |seen: String| Finding::problem(Check::Environment, reference, seen);
    let (package, _) = buildbot(instance.reference.role);
    let install = |finding: Finding, verb: &str, packages: &[&str]| {
        by_conda(
            finding,
            instance,
            scene,
            verb,
            &["--channel", "conda-forge"],
            packages,
        )
    };
    let elsewhere = match conda(instance, scene) {
        Some(_) => "or set `conda-root` and `conda-env` to where it is".to_owned(),
        None => format!(
            "set `conda-root` and `conda-env` to where it is, or make it with `python` and `{package}` by the program \
             that makes environments here, such as micromamba or pixi"
        ),
    };
    match &facts.state {
        EnvironmentState::Usable => Finding::ok(
            Check::Environment,
            reference,
            format!("`{prefix}` has Python and Buildbot"),
        ),
        EnvironmentState::Missing => install(
            problem(format!("there is no environment `{prefix}`")),
            "create",
            &["python", package],
        )
        .words(&elsewhere),
        EnvironmentState::NoCondaMeta => install(
            problem(format!(
                "`{prefix}` has no `conda-meta`, so it is no environment"
            )),
            "create",
            &["python", package],
        )
        .words(&elsewhere),
        EnvironmentState::NoPython => install(
            problem(format!("`{prefix}` has no Python")),
            "install",
            &["python"],
        ),
        EnvironmentState::NoBuildbot => install(
            problem(format!("`{prefix}` has no `{package}`")),
            "install",
            &[package],
        ),
        EnvironmentState::Refused(reason, hint) => {
            problem(format!("`{prefix}` cannot be activated: {reason}")).words(hint)
        }
        EnvironmentState::Unseen(reason) => {
            Finding::unseen(Check::Environment, reference, reason.clone())
        }
    }
}

fn resolution(instance: &Instance, facts: &EnvironmentFacts) -> Option<Finding> {
    let reference = Some(&instance.reference);
    let (name, prefix) = (&instance.conda_env, instance.prefix());
    let word = instance.reference.to_string();
    let set = |value: &str| ["buildbot-conda", "set", &word, "conda-env", value].map(str::to_owned);
    let is_missing = facts.state == EnvironmentState::Missing;
    Some(match facts.resolution.as_ref()? {
        Resolution::Same => Finding::ok(
            Check::Resolution,
            reference,
            format!("conda takes `{prefix}` for `{name}`, too"),
        ),
        Resolution::Nowhere => Finding::ok(
            Check::Resolution,
            reference,
            format!("conda knows no `{name}`"),
        ),
        Resolution::Failed(reason) => {
            let seen = format!("conda itself would resolve no name: {reason}");
            Finding::warning(Check::Resolution, reference, seen).words("mend the file it names")
        }
        // A path that cannot stand in the configuration cannot be meant.
        Resolution::Elsewhere(other) => {
            let other = usable(other)?;
            let seen = format!(
                "`conda activate {name}` would take `{other}`, the service takes `{prefix}`"
            );
            if is_missing {
                Finding::problem(Check::Resolution, reference, seen)
                    .command(set(&other))
                    .command(["systemctl", "daemon-reload"])
            } else {
                Finding::warning(Check::Resolution, reference, seen)
                    .command(set(prefix.as_str()))
                    .command(["systemctl", "daemon-reload"])
                    .words(format!("or with `{other}`, if that is meant"))
            }
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
        let seen = format!("all of {} are as they were installed", facts.packages);
        return vec![Finding::ok(Check::Packages, reference, seen)];
    }
    let told = |damage: &Damage| {
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
    let shown: Vec<String> = facts.damage.iter().take(5).map(told).collect();
    let more = facts.damage.len() - shown.len();
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let seen = format!("not as conda installed them: {}{more}", shown.join(", "));
    let finding = Finding::problem(Check::Packages, reference, seen);
    // What is no name of a package is nothing to hand to conda.
    let names: Vec<&str> = facts
        .damage
        .iter()
        .map(|damage| damage.package.as_str())
        .filter(|name| is_name(name))
        .collect();
    if names.is_empty() {
        return vec![finding];
    }
    vec![reinstall(finding, instance, scene, &names)]
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
            "not since the service started",
        ));
    }
    let time = humantime::format_rfc3339_seconds(changed);
    let seen = format!(
        "`{}` was changed at {time}, after the service started: it runs partly on what is no longer there",
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
    let told = |failures: &std::collections::BTreeMap<String, String>| {
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
            told(&facts.imports)
        );
        let finding = Finding::problem(Check::Python, reference, seen);
        findings.push(reinstall(
            finding,
            instance,
            scene,
            &[missing_package(instance, facts)],
        ));
    }
    if facts.plugins.is_empty() {
        findings.push(Finding::ok(
            Check::Plugins,
            reference,
            "all can be imported",
        ));
    } else {
        let seen = format!("cannot be imported: {}", told(&facts.plugins));
        findings.push(
            Finding::warning(Check::Plugins, reference, seen)
                .words("install what they lack into the environment, or remove them"),
        );
    }
    findings.extend(bytecode(instance, facts));
    findings
}

/// The package of the innermost module that cannot be imported; what imports it is not at fault.
fn missing_package(instance: &Instance, facts: &PythonFacts) -> &'static str {
    let packages = [
        ("ssl", "python"),
        ("sqlite3", "python"),
        ("twisted", "twisted"),
        ("sqlalchemy", "sqlalchemy"),
    ];
    let mut missing = packages
        .iter()
        .filter(|(module, _)| facts.imports.contains_key(*module));
    match missing.next() {
        Some((_, package)) => package,
        None => buildbot(instance.reference.role).0,
    }
}

fn bytecode(instance: &Instance, facts: &PythonFacts) -> Option<Finding> {
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
    let finding = Finding::warning(Check::Bytecode, reference, seen);
    let prefix = instance.prefix().to_string();
    let python = format!("{prefix}/bin/python");
    let library = format!("{prefix}/lib");
    let compile = [
        python.as_str(),
        "-m",
        "compileall",
        "-q",
        "-j",
        "0",
        &library,
    ];
    let owner = Path::new(&prefix)
        .metadata()
        .map_or(0, |metadata| metadata.uid());
    if owner != 0 || is_roots(&prefix) {
        return Some(finding.command(as_owner(instance, &compile)));
    }
    // Root's, in a directory of the service user's: nothing that root may run.
    let user = format!("{}:", instance.user.as_str());
    Some(
        finding
            .command(["chown", "--recursive", "--no-dereference", &user, &prefix])
            .command(as_user(instance, &compile)),
    )
}

/// Whether nobody but root decides what is there.
fn is_roots(prefix: &str) -> bool {
    let mut parts = Path::new(prefix).ancestors().map(PathBuf::from);
    parts.all(|path| {
        path.metadata()
            .is_ok_and(|metadata| metadata.uid() == 0 && metadata.mode() & 0o022 == 0)
    })
}
