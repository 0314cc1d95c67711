//! The units of our names that an administrator wrote: files, drop-ins and links in
//! `/etc/systemd/system`, as text. What they mean is for `derive`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use buildbot_conda_core::names::InstanceRef;

use crate::system::context::Context;
use crate::system::systemd::running_units;
use crate::system::unit_files::{UNITS, entries, hand_made, has_extension, read};
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
    /// Of its own drop-ins.
    pub(super) settings: Vec<Setting>,
    pub(super) is_enabled: bool,
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
        add_instances(&directory, context, &mut unit)?;
        found.push(unit);
    }
    Ok(found)
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

/// Links in `*.wants` and `*.requires` enable a unit; what runs counts as well.
fn add_instances(directory: &Path, context: &Context, unit: &mut HandMade) -> anyhow::Result<()> {
    let template = unit.file_name.strip_suffix("@.service");
    let mut names: BTreeMap<String, (bool, bool)> = BTreeMap::new();
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
                names.entry(entry).or_default().0 = true;
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
    for (name, (is_enabled, is_running)) in names {
        if template.is_some() && directory.join(&name).symlink_metadata().is_ok() {
            continue;
        }
        let text = name
            .strip_prefix("buildbot-")
            .and_then(|text| text.strip_suffix(".service"));
        let Some(Ok(reference)) = text.map(str::parse::<InstanceRef>) else {
            unit.unusable.push(name);
            continue;
        };
        let mut settings = Vec::new();
        if template.is_some() {
            drop_ins(directory, &name, &mut unit.files, &mut settings)?;
        }
        unit.instances.push(Instance {
            reference,
            settings,
            is_enabled,
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
