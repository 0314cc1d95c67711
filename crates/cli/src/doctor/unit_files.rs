//! What systemd makes a unit of: files that hide the package's, masks, drop-ins that undo it, and
//! whether systemd has read what is on disk.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use buildbot_conda_core::dropin::{DropIn, FINGERPRINT_VARIABLE};
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::{Instance, Settings};

use super::finding::{Check, Finding};
use super::scene::Scene;
use crate::system::units::Unit;

/// Where an administrator's units are, before the package's.
const ADMINISTRATORS: &str = "/etc/systemd/system";
/// Bytes; more than any unit file has.
const LARGEST: u64 = 1 << 20;
/// Settings without which a service is not told about, not ended, or not restarted as it should be.
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
pub(super) fn look(instance: &Instance, scene: &Scene<'_>) -> Vec<Finding> {
    let view = View::of(instance, scene);
    let mut findings = vec![file(instance, &view, scene), mask(instance, &view, scene)];
    findings.extend(drop_ins(instance, &view, scene));
    if let (Some(unit), None, false) = (scene.unit(instance), &view.hand_made, view.is_masked) {
        findings.push(reload(instance, unit));
    }
    findings
}

/// What there is of one unit, in systemd's eyes or, where there is no systemd, on disk.
struct View {
    /// The file that hides the package's.
    hand_made: Option<PathBuf>,
    /// It starts our launcher all the same.
    starts_launcher: bool,
    is_masked: bool,
    is_masked_until_boot: bool,
    /// Those that are not the generator's.
    drop_ins: Vec<PathBuf>,
}

impl View {
    fn of(instance: &Instance, scene: &Scene<'_>) -> Self {
        let on_disk = Self::on_disk(instance, scene);
        let Some(unit) = scene.unit(instance) else {
            return on_disk;
        };
        let mut view = Self::in_systemd(unit);
        // systemd's list says nothing of those that it has not read yet, and is unclear about blanks.
        for path in on_disk.drop_ins {
            if !view.drop_ins.contains(&path) {
                view.drop_ins.push(path);
            }
        }
        view
    }

    fn in_systemd(unit: &Unit) -> Self {
        let fragment = PathBuf::from(unit.property("FragmentPath"));
        let is_masked = unit.property("LoadState") == "masked";
        // `/lib` is another name of `/usr/lib`.
        let is_packages = ["/usr/lib/systemd/system", "/lib/systemd/system"]
            .iter()
            .any(|directory| fragment.parent() == Some(Path::new(directory)));
        let exists = !fragment.as_os_str().is_empty() && !is_masked;
        let hand_made = (exists && !is_packages).then_some(fragment);
        let drop_ins = unit.property("DropInPaths").split_whitespace();
        Self {
            starts_launcher: hand_made.as_deref().is_some_and(starts_launcher),
            hand_made,
            is_masked,
            is_masked_until_boot: unit.property("UnitFileState") == "masked-runtime",
            drop_ins: drop_ins
                .map(PathBuf::from)
                .filter(|path| !path.starts_with(paths::GENERATED))
                .collect(),
        }
    }

    fn on_disk(instance: &Instance, scene: &Scene<'_>) -> Self {
        let directory = scene.context.path(ADMINISTRATORS);
        let reference = &instance.reference;
        let mut names = vec![reference.unit_name()];
        if reference.name.is_some() {
            names.push(format!("buildbot-{}@.service", reference.role));
        }
        let files: Vec<PathBuf> = names.iter().map(|name| directory.join(name)).collect();
        let first = files.iter().find(|path| path.symlink_metadata().is_ok());
        let is_masked = first.is_some_and(|path| {
            fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null"))
        });
        let hand_made = first.filter(|_| !is_masked).cloned();
        let mut drop_ins: Vec<PathBuf> = names
            .iter()
            .flat_map(|name| {
                fs::read_dir(directory.join(format!("{name}.d")))
                    .into_iter()
                    .flatten()
            })
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|end| end == "conf"))
            .collect();
        drop_ins.sort();
        Self {
            starts_launcher: hand_made.as_deref().is_some_and(starts_launcher),
            hand_made,
            is_masked,
            is_masked_until_boot: false,
            drop_ins,
        }
    }
}

fn read(path: &Path) -> Option<String> {
    let (file, metadata) = buildbot_conda_host::open(path).ok()??;
    if !metadata.is_file() {
        return None;
    }
    let content = buildbot_conda_host::read_at_most(&file, LARGEST).ok()??;
    Some(String::from_utf8_lossy(&content).into_owned())
}

fn starts_launcher(path: &Path) -> bool {
    let text = read(path).unwrap_or_default();
    settings(&text).any(|(key, value)| key == "ExecStart" && value.contains(paths::LAUNCHER))
}

/// Keys and values of the `[Service]` section; a line that goes on below counts by its beginning.
fn settings(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut section = "";
    text.lines().map(str::trim).filter_map(move |line| {
        if line.starts_with('[') {
            section = line;
        }
        let (key, value) = line.split_once('=')?;
        let counts = section == "[Service]" && !line.starts_with(['#', ';']);
        counts.then(|| (key.trim(), value.trim()))
    })
}

fn file(instance: &Instance, view: &View, scene: &Scene<'_>) -> Finding {
    let reference = Some(&instance.reference);
    let unit = instance.reference.unit_name();
    let Some(path) = &view.hand_made else {
        return Finding::ok(
            Check::UnitFile,
            reference,
            format!("`{unit}` is the package's"),
        );
    };
    let path = path.display();
    if view.starts_launcher {
        let seen = format!("`{path}` is a copy of the package's unit, which upgrades do not reach");
        return Finding::warning(Check::UnitFile, reference, seen)
            .command(scene.there(["systemctl", "revert", &unit]))
            .words("what it changes belongs into a drop-in: `systemctl edit`");
    }
    let seen =
        format!("`{path}` hides the package's unit, so nothing of the configuration has an effect");
    let adopt = ["buildbot-conda", "adopt", &instance.reference.to_string()].map(str::to_owned);
    Finding::problem(Check::UnitFile, reference, seen).command(scene.there(adopt))
}

fn mask(instance: &Instance, view: &View, scene: &Scene<'_>) -> Finding {
    let reference = Some(&instance.reference);
    let unit = instance.reference.unit_name();
    if !view.is_masked {
        return Finding::ok(
            Check::UnitMasked,
            reference,
            format!("`{unit}` is not masked"),
        );
    }
    let seen = format!("`{unit}` is masked, so nothing can start it");
    let finding = Finding::problem(Check::UnitMasked, reference, seen);
    if !scene.has_systemd() {
        let link = scene.context.path(ADMINISTRATORS).join(&unit);
        return finding.command(["rm", &link.to_string_lossy()]);
    }
    if view.is_masked_until_boot {
        return finding.command(["systemctl", "unmask", "--runtime", &unit]);
    }
    finding.command(["systemctl", "unmask", &unit])
}

fn drop_ins(instance: &Instance, view: &View, scene: &Scene<'_>) -> Vec<Finding> {
    let reference = Some(&instance.reference);
    let mut findings: Vec<Finding> = view
        .drop_ins
        .iter()
        .filter_map(|path| drop_in(path, instance))
        .map(|finding| {
            if scene.has_systemd() {
                finding.command(["systemctl", "daemon-reload"])
            } else {
                finding
            }
        })
        .collect();
    if findings.is_empty() {
        let seen = match view.drop_ins.len() {
            0 => "there are none beside the generated one".to_owned(),
            count => format!("{count} beside the generated one, and none undoes it"),
        };
        findings.push(Finding::ok(Check::UnitDropIns, reference, seen));
    }
    findings
}

fn drop_in(path: &Path, instance: &Instance) -> Option<Finding> {
    let reference = Some(&instance.reference);
    let text = read(path)?;
    let name = path.to_string_lossy().into_owned();
    // systemd passes over files of other endings, and the administrator has it still.
    let aside = ["mv", "--no-clobber", &name, &format!("{name}.off")].map(str::to_owned);
    let essential: BTreeSet<&str> = settings(&text)
        .filter(|(key, value)| match *key {
            "Environment" => value.is_empty(),
            "ExecStart" => !value.is_empty() && !value.contains(paths::LAUNCHER),
            _ => ESSENTIAL.contains(key),
        })
        .map(|(key, _)| key)
        .collect();
    if !essential.is_empty() {
        let keys = list(essential);
        let seen = format!("`{name}` changes {keys}, on which the service depends");
        return Some(Finding::problem(Check::UnitDropIns, reference, seen).command(aside));
    }
    let configured: BTreeSet<(&str, &str)> = settings(&text)
        .filter_map(|(key, _)| CONFIGURED.iter().find(|(known, _)| *known == key).copied())
        .collect();
    if configured.is_empty() {
        return None;
    }
    let keys = list(configured.iter().map(|(key, _)| *key));
    let ours = list(configured.iter().map(|(_, key)| *key));
    let seen =
        format!("`{name}` changes {keys}, so that {ours} of the configuration has no effect");
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
            "systemd does not know the settings of `{name}`: it has not read the configuration since the instance \
             was added or became good"
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
            "systemd has `{name}` as it was before the configuration was changed"
        ));
    }
    if unit.property("NeedDaemonReload") == "yes" {
        return problem(format!(
            "files of `{name}` were changed since systemd has read them"
        ));
    }
    let seen = "systemd has read the configuration as it is now".to_owned();
    Finding::ok(Check::UnitReload, reference, seen)
}

/// Units that start at boot without a table in the configuration.
pub(super) fn look_at_all(scene: &Scene<'_>) -> Vec<Finding> {
    let Some(settings) = scene.settings else {
        return Vec::new();
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
        let seen = "every unit that starts at boot has a table in the configuration";
        findings.push(Finding::ok(Check::UnitConfigured, None, seen));
    }
    findings
}

fn without_table(name: &str, settings: &Settings, scene: &Scene<'_>) -> Option<Finding> {
    let stem = name.strip_prefix("buildbot-")?.strip_suffix(".service")?;
    // Units of Debian's own Buildbot are none of these.
    let reference: Option<InstanceRef> = stem.parse().ok();
    let is_ours = ["master", "worker"].iter().any(|role| {
        stem.strip_prefix(role)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
    });
    let is_known =
        reference.is_some_and(|reference| settings.references().any(|known| *known == reference));
    (is_ours && !is_known).then(|| {
        let seen = format!("`{name}` starts at boot, but the configuration has no table `{stem}`: it fails with status 78");
        let finding = Finding::problem(Check::UnitConfigured, None, seen);
        let now: &[&str] = if scene.has_systemd() { &["--now"] } else { &[] };
        let words = [&["systemctl", "disable"], now, &[name]].concat();
        finding.command(scene.there(words))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_those_of_the_service_section() {
        let text = "[Unit]\nType=x\n[Service]\n# Type=a\n Type = simple \n;User=b\nExecStart=\n[Install]\nUser=c\n";
        let found: Vec<_> = settings(text).collect();
        assert_eq!(found, [("Type", "simple"), ("ExecStart", "")]);
    }
}
