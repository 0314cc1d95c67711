//! The units that an administrator wrote, of our names and of others that start a Buildbot: files, drop-ins and links in
//! `/etc/systemd/system`, as text. What they mean is for `derive`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use buildbot_conda_core::names::{InstanceRef, Role};

use crate::system::context::Context;
use crate::system::systemd::{self, running_units};
use crate::system::unit_files::{self, UNITS, entries, hand_made, has_extension, read};
use buildbot_conda_core::unit_text::{self, Setting};

/// A hand-made unit file and the instances that run by it: one, or those of a template.
#[derive(Debug)]
pub(super) struct HandMade {
    /// `buildbot-master.service`, `buildbot-worker@.service`.
    pub(super) file_name: String,
    /// Its settings and those of its drop-ins that hold for every instance.
    pub(super) settings: Vec<Setting>,
    /// Every file and link that belongs to it, relative to [`UNITS`].
    pub(super) files: Vec<PathBuf>,
    /// In the order of their references.
    pub(super) instances: Vec<Instance>,
    /// Names after `@` that cannot be instances of ours.
    pub(super) unusable: Vec<String>,
}

/// One instance of a hand-made unit.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) reference: InstanceRef,
    /// The name by which systemd knows it.
    pub(super) unit: String,
    /// Of its own drop-ins.
    pub(super) settings: Vec<Setting>,
    /// Directories of the links that enable it, such as `multi-user.target.wants`.
    pub(super) parents: Vec<String>,
    pub(super) is_running: bool,
}

/// Every hand-made unit of our names, in the order of the file names.
pub(super) fn find(context: &Context) -> anyhow::Result<Vec<HandMade>> {
    let directory = context.path(UNITS);
    let mut found = Vec::new();
    for (file_name, text) in hand_made(context)? {
        let shown = format!("{UNITS}/{file_name}");
        let mut unit = HandMade {
            settings: unit_text::parse(&shown, &text),
            files: vec![PathBuf::from(&file_name)],
            file_name,
            instances: Vec::new(),
            unusable: Vec::new(),
        };
        let name = unit.file_name.clone();
        drop_ins(&directory, &name, &mut unit.files, &mut unit.settings)?;
        add_instances(&directory, context, None, &mut unit)?;
        found.push(unit);
    }
    for (file_name, text) in unit_files::of_other_names(UNITS, context)? {
        let settings = unit_text::parse(&format!("{UNITS}/{file_name}"), &text);
        let Some(role) = role_of(&settings) else {
            continue;
        };
        let mut unit = HandMade {
            settings,
            files: vec![PathBuf::from(&file_name)],
            file_name,
            instances: Vec::new(),
            unusable: Vec::new(),
        };
        let name = unit.file_name.clone();
        drop_ins(&directory, &name, &mut unit.files, &mut unit.settings)?;
        add_instances(&directory, context, Some(role), &mut unit)?;
        let is_taken = |reference: &InstanceRef| {
            let mut known = found.iter().flat_map(|unit: &HandMade| &unit.instances);
            known.any(|known| known.reference == *reference)
        };
        // One that nothing starts is a file, and a name that another unit has is that unit's.
        let (chosen, others): (Vec<_>, Vec<_>) = unit
            .instances
            .drain(..)
            .filter(|instance| instance.is_running || !instance.parents.is_empty())
            .partition(|instance| {
                !is_taken(&instance.reference) && !is_ours(&instance.reference, context)
            });
        unit.instances = chosen;
        unit.unusable
            .extend(others.into_iter().map(|instance| instance.unit));
        if !unit.instances.is_empty() || !unit.unusable.is_empty() {
            found.push(unit);
        }
    }
    Ok(found)
}

/// Whether the package's own unit runs under a name. It is enabled before it is set up.
fn is_ours(reference: &InstanceRef, context: &Context) -> bool {
    systemd::runs(context) && systemd::is_running(&reference.unit_name()).unwrap_or(true)
}

/// Which role a unit of another name has, by the words of its command and of its own name.
fn role_of(settings: &[Setting]) -> Option<Role> {
    let command = unit_text::in_force(settings, "Service", "ExecStart").pop()?;
    let others = ["WorkingDirectory", "PIDFile", "SyslogIdentifier"];
    let words = settings
        .iter()
        .filter(|setting| others.contains(&setting.key.as_str()));
    let file = command
        .place
        .file
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let text = command.value.to_ascii_lowercase();
    let all: String = words
        .map(|setting| setting.value.to_ascii_lowercase() + " ")
        .collect();
    let all = format!("{file} {text} {all}");
    let is_buildbot = [
        "buildbot",
        "buildmaster",
        "buildslave",
        "buildworker",
        "twistd",
    ]
    .iter()
    .any(|word| all.contains(word));
    let is_worker = ["worker", "slave"].iter().any(|word| all.contains(word));
    is_buildbot.then_some(if is_worker {
        Role::Worker
    } else {
        Role::Master
    })
}

fn drop_ins(
    directory: &Path,
    unit: &str,
    files: &mut Vec<PathBuf>,
    settings: &mut Vec<Setting>,
) -> anyhow::Result<()> {
    let name = format!("{unit}.d");
    for entry in entries(&directory.join(&name))? {
        if !has_extension(&entry, &["conf"]) {
            continue;
        }
        let relative = Path::new(&name).join(&entry);
        let shown = format!("{UNITS}/{}", relative.display());
        let text = read(&directory.join(&relative));
        let text = text.map_err(|reason| anyhow::anyhow!("read `{shown}`: {reason}"))?;
        settings.extend(unit_text::parse(&shown, &text));
        files.push(relative);
    }
    Ok(())
}

/// The instance that a unit becomes: by its name, or for one with another name by the role that `others` has.
fn reference_of(name: &str, other: Option<Role>) -> Option<InstanceRef> {
    let stem = name.strip_suffix(".service")?;
    let Some(role) = other else {
        return stem.strip_prefix("buildbot-")?.parse().ok();
    };
    match stem.split_once('@') {
        Some((_, instance)) => format!("{role}@{instance}").parse().ok(),
        None => Some(InstanceRef::plain(role)),
    }
}

/// Links in `*.wants` and `*.requires` enable a unit; what runs counts as well.
fn add_instances(
    directory: &Path,
    context: &Context,
    others: Option<Role>,
    unit: &mut HandMade,
) -> anyhow::Result<()> {
    let template = unit.file_name.strip_suffix("@.service");
    let mut names: BTreeMap<String, (Vec<String>, bool)> = BTreeMap::new();
    for parent in entries(directory)? {
        if !has_extension(&parent, &["wants", "requires"]) {
            continue;
        }
        for entry in entries(&directory.join(&parent))? {
            let is_of_it = match template {
                Some(prefix) => is_instance_of(&entry, prefix),
                None => entry == unit.file_name,
            };
            if is_of_it {
                unit.files.push(Path::new(&parent).join(&entry));
                names.entry(entry).or_default().0.push(parent.clone());
            }
        }
    }
    if template.is_none() {
        names.entry(unit.file_name.clone()).or_default();
    }
    if !context.is_elsewhere() {
        for name in running_units(&unit.file_name.replace("@.service", "@*.service"))? {
            // One with a file of its own does not run by the template.
            if template.is_none_or(|prefix| is_instance_of(&name, prefix)) {
                names.entry(name).or_default().1 = true;
            }
        }
    }
    for (name, (parents, is_running)) in names {
        if template.is_some() && directory.join(&name).symlink_metadata().is_ok() {
            continue;
        }
        let Some(reference) = reference_of(&name, others) else {
            unit.unusable.push(name);
            continue;
        };
        let mut settings = Vec::new();
        if template.is_some() {
            drop_ins(directory, &name, &mut unit.files, &mut settings)?;
        }
        unit.instances.push(Instance {
            reference,
            unit: name,
            settings,
            parents,
            is_running,
        });
    }
    unit.instances.sort_by(|a, b| a.reference.cmp(&b.reference));
    Ok(())
}

fn is_instance_of(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('@'))
        .is_some_and(|rest| rest != ".service" && rest.ends_with(".service"))
}
