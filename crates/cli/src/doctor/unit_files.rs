//! The files of a unit: files that replace the package's, masks, drop-ins that override it, and whether systemd has
//! loaded the current state.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use buildbot_conda_core::dropin::{DropIn, FINGERPRINT_VARIABLE};
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::{Instance, Settings};
use buildbot_conda_core::unit_text;
use buildbot_conda_host::unit_files::{Runs, Unit as OnDisk};

use super::finding::{Check, Finding};
use super::scene::Scene;
use crate::system::systemd::Unit;

/// Where an administrator's units are, before the package's.
const ADMINISTRATORS: &str = "/etc/systemd/system";
/// Bytes; more than any unit file has.
const LARGEST: u64 = 1 << 20;
/// Settings without which a service is not monitored, stopped or restarted correctly.
const ESSENTIAL: [&str; 13] = [
    "Type",
    "NotifyAccess",
    "ExecStart",
    "User",
    "Group",
    "DynamicUser",
    "KillMode",
    "Restart",
    "RestartPreventExitStatus",
    "RuntimeDirectory",
    "StateDirectory",
    "RootDirectory",
    "PIDFile",
];
/// Settings that the configuration has keys for: two places would disagree some day.
const CONFIGURED: [(&str, &str); 4] = [
    ("WatchdogSec", "watchdog"),
    ("TimeoutStartSec", "start-timeout"),
    ("TimeoutStopSec", "drain"),
    ("TimeoutSec", "start-timeout"),
];

/// One instance's.
pub(super) fn examine(instance: &Instance, scene: &Scene<'_>) -> Vec<Finding> {
    let unit = scene.unit_files.of(&instance.reference);
    let mut findings = vec![file(instance, &unit, scene), mask(instance, &unit, scene)];
    findings.extend(drop_ins(instance, &unit, scene));
    if let (Some(loaded), true) = (scene.unit(instance), unit.is_ours()) {
        findings.push(reload(instance, loaded));
    }
    findings
}

fn file(instance: &Instance, unit: &OnDisk, scene: &Scene<'_>) -> Finding {
    let reference = Some(&instance.reference);
    let name = instance.reference.unit_name();
    match &unit.runs {
        Runs::Copy(path) => {
            let path = path.display();
            let seen = format!(
                "`{path}` replaces the package's unit, so changes of that unit in upgrades have no effect"
            );
            let finding = Finding::warning(Check::UnitFile, reference, seen)
                .command([
                    "mv",
                    "--no-clobber",
                    &path.to_string(),
                    &format!("{path}.off"),
                ])
                .words(format!(
                    "make changes in a drop-in instead: `systemctl edit {name}`"
                ));
            reloaded(finding, scene)
        }
        Runs::HandMade(path) => hand_made(path, instance, scene),
        Runs::Ours | Runs::Replaced(_) | Runs::Masked(_) | Runs::Missing => Finding::ok(
            Check::UnitFile,
            reference,
            format!("`{name}` is the unit of the package"),
        ),
    }
}

/// How to replace a hand-made unit by the package's: `adopt` reads such units only in the directory of administrators.
fn hand_made(path: &Path, instance: &Instance, scene: &Scene<'_>) -> Finding {
    let is_in = |directory: &str| path.parent() == Some(&scene.context.path(directory));
    let problem = |seen| Finding::problem(Check::UnitFile, Some(&instance.reference), seen);
    let shown = path.to_string_lossy();
    if is_in(paths::UNITS) {
        let again = ["apt-get", "install", "--reinstall", "buildbot-conda"];
        let seen = format!("`{shown}` was changed and no longer starts the launcher");
        return problem(seen).command(scene.there(again));
    }
    let adopt = ["buildbot-conda", "adopt", &instance.reference.to_string()].map(str::to_owned);
    let seen =
        format!("`{shown}` overrides the package's unit, so the configuration has no effect");
    if is_in(ADMINISTRATORS) {
        return problem(seen).command(scene.there(adopt));
    }
    let directory = scene.context.path(ADMINISTRATORS);
    problem(seen)
        .command(["mv", "--no-clobber", &shown, &directory.to_string_lossy()])
        .command(scene.there(adopt))
}

fn reloaded(finding: Finding, scene: &Scene<'_>) -> Finding {
    if scene.has_systemd() {
        finding.command(["systemctl", "daemon-reload"])
    } else {
        finding
    }
}

fn mask(instance: &Instance, unit: &OnDisk, scene: &Scene<'_>) -> Finding {
    let reference = Some(&instance.reference);
    let name = instance.reference.unit_name();
    let Runs::Masked(path) = &unit.runs else {
        let seen = format!("`{name}` is not masked");
        return Finding::ok(Check::UnitMasked, reference, seen);
    };
    let seen = format!("`{name}` is masked and cannot be started");
    let finding = Finding::problem(Check::UnitMasked, reference, seen);
    // The mask of a template applies to all of its instances.
    let masked = path.file_name().unwrap_or_default().to_string_lossy();
    let is_in = |directory: &str| path.parent() == Some(&scene.context.path(directory));
    if scene.has_systemd() && is_in(ADMINISTRATORS) {
        return finding.command(["systemctl", "unmask", &masked]);
    }
    if scene.has_systemd() && is_in("/run/systemd/system") {
        return finding.command(["systemctl", "unmask", "--runtime", &masked]);
    }
    reloaded(finding.command(["rm", &path.to_string_lossy()]), scene)
}

fn drop_ins(instance: &Instance, unit: &OnDisk, scene: &Scene<'_>) -> Vec<Finding> {
    let reference = Some(&instance.reference);
    let mut findings: Vec<Finding> = unit
        .drop_ins
        .iter()
        .filter_map(|path| drop_in(path, instance))
        .map(|finding| reloaded(finding, scene))
        .collect();
    if findings.is_empty() {
        let seen = match unit.drop_ins.len() {
            0 => "only the generated one".to_owned(),
            count => format!("{count} besides the generated one, without conflicts"),
        };
        findings.push(Finding::ok(Check::UnitDropIns, reference, seen));
    }
    findings
}

fn read(path: &Path) -> Option<String> {
    let (file, metadata) = buildbot_conda_host::open(path).ok()??;
    if !metadata.is_file() {
        return None;
    }
    let content = buildbot_conda_host::read_at_most(&file, LARGEST).ok()??;
    Some(String::from_utf8_lossy(&content).into_owned())
}

fn drop_in(path: &Path, instance: &Instance) -> Option<Finding> {
    let reference = Some(&instance.reference);
    let text = read(path)?;
    let name = path.to_string_lossy().into_owned();
    // systemd ignores files with other suffixes, and the administrator still has it.
    let aside = ["mv", "--no-clobber", &name, &format!("{name}.off")].map(str::to_owned);
    let settings = unit_text::parse(&name, &text);
    let settings = settings
        .iter()
        .filter(|setting| setting.section == "Service");
    let essential: BTreeSet<&str> = settings
        .clone()
        .filter(|setting| match setting.key.as_str() {
            "Environment" => setting.value.is_empty(),
            "ExecStart" => !setting.value.is_empty() && !unit_text::starts_launcher(&setting.value),
            key => ESSENTIAL.contains(&key),
        })
        .map(|setting| setting.key.as_str())
        .collect();
    if !essential.is_empty() {
        let keys = list(essential);
        let seen = format!("`{name}` changes {keys}, which the service needs");
        return Some(Finding::problem(Check::UnitDropIns, reference, seen).command(aside));
    }
    let configured: BTreeSet<(&str, &str)> = settings
        .filter_map(|setting| {
            let known = CONFIGURED.iter().find(|(known, _)| *known == setting.key);
            known.copied()
        })
        .collect();
    if configured.is_empty() {
        return None;
    }
    let keys = list(configured.iter().map(|(key, _)| *key));
    let ours = list(configured.iter().map(|(_, key)| *key));
    let seen = format!("`{name}` changes {keys}, so {ours} in the configuration has no effect");
    let finding = Finding::warning(Check::UnitDropIns, reference, seen).command(aside);
    Some(finding.words(format!("set {ours} in `{}` instead", paths::CONFIGURATION)))
}

fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

fn reload(instance: &Instance, unit: &Unit) -> Finding {
    let reference = Some(&instance.reference);
    let name = instance.reference.unit_name();
    let problem = |seen: String| {
        Finding::problem(Check::UnitReload, reference, seen).safe(["systemctl", "daemon-reload"])
    };
    let generated = format!("{}/{name}.d/{}", paths::GENERATED, paths::DROP_IN);
    let has_drop_in = unit
        .property("DropInPaths")
        .split_whitespace()
        .any(|path| path == generated);
    if !has_drop_in {
        return problem(format!(
            "systemd does not know the settings of `{name}`: it was not reloaded since the \
             instance was added or corrected"
        ));
    }
    let in_force = unit
        .property("Environment")
        .split_whitespace()
        .find_map(|word| word.strip_prefix(FINGERPRINT_VARIABLE)?.strip_prefix('='));
    let wanted = DropIn::of(instance)
        .ok()
        .map(|drop_in| drop_in.fingerprint());
    if wanted.is_some() && in_force != wanted.as_deref() {
        return problem(format!(
            "systemd was not reloaded since the configuration of `{name}` was changed"
        ));
    }
    if unit.property("NeedDaemonReload") == "yes" {
        return problem(format!(
            "systemd was not reloaded since files of `{name}` were changed"
        ));
    }
    let seen = "systemd uses the current configuration".to_owned();
    Finding::ok(Check::UnitReload, reference, seen)
}

/// Units that start at boot without a table in the configuration.
pub(super) fn examine_all(scene: &Scene<'_>) -> Vec<Finding> {
    let Some(settings) = scene.settings else {
        return vec![unreadable()];
    };
    let wants = scene
        .context
        .path(ADMINISTRATORS)
        .join("multi-user.target.wants");
    let entries = fs::read_dir(wants).into_iter().flatten().flatten();
    let mut findings: Vec<Finding> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| without_table(&name, settings, scene))
        .collect();
    if findings.is_empty() {
        let seen = "every unit that is enabled has a table in the configuration";
        findings.push(Finding::ok(Check::UnitConfigured, None, seen));
    }
    findings
}

fn without_table(name: &str, settings: &Settings, scene: &Scene<'_>) -> Option<Finding> {
    let stem = name.strip_prefix("buildbot-")?.strip_suffix(".service")?;
    // Units of Debian's own Buildbot are none of these.
    let is_ours = ["master", "worker"].iter().any(|role| {
        stem.strip_prefix(role)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
    });
    if !is_ours {
        return None;
    }
    // A name that no instance can have has no table wherever tables can be read.
    let reference: Option<InstanceRef> = stem.parse().ok();
    let has_table = match &reference {
        Some(reference) => settings.has_table(reference),
        None => settings.check().is_ok().then_some(false),
    };
    match has_table {
        Some(true) => return None,
        Some(false) => {}
        None => return Some(unreadable()),
    }
    let seen = format!(
        "`{name}` starts at boot, but the configuration has no table `{stem}`: it fails with status 78"
    );
    let now: &[&str] = if scene.has_systemd() { &["--now"] } else { &[] };
    let words = [&["systemctl", "disable"], now, &[name]].concat();
    Some(Finding::problem(Check::UnitConfigured, None, seen).command(scene.there(words)))
}

/// Nothing follows from a configuration that does not show which instances it has.
fn unreadable() -> Finding {
    let seen = "the instances cannot be read from the configuration";
    Finding::unseen(Check::UnitConfigured, None, seen)
}
