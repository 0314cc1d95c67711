//! The units of our names that an administrator wrote: files, drop-ins and links in
//! `/etc/systemd/system`, as text. What they mean is for `derive`.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::paths;

use super::unit_text::{self, Setting};
use crate::system::context::Context;

/// Where administrators put units.
pub(crate) const UNITS: &str = "/etc/systemd/system";
/// Bytes; more than any unit file or wrapper script has.
const LARGEST: u64 = 1 << 20;

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
    for file_name in entries(&directory)? {
        if !is_ours(&file_name) {
            continue;
        }
        let path = directory.join(&file_name);
        // `systemctl mask` makes such a link; a masked unit is meant to be one.
        if fs::read_link(&path).is_ok_and(|target| target == Path::new("/dev/null")) {
            continue;
        }
        if path.is_dir() {
            continue;
        }
        let shown = format!("{UNITS}/{file_name}");
        let text = read(&path).map_err(|reason| anyhow::anyhow!("read `{shown}`: {reason}"))?;
        // An edited copy of ours does what ours does.
        if text.is_empty() || text.contains(paths::LAUNCHER) {
            continue;
        }
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

/// The hand-made file that an instance would run by instead of ours.
pub(crate) fn hiding(reference: &InstanceRef, context: &Context) -> anyhow::Result<Option<String>> {
    let template = format!("buildbot-{}@.service", reference.role);
    let names = [reference.unit_name(), template];
    let count = if reference.name.is_some() { 2 } else { 1 };
    let hiding = find(context)?
        .into_iter()
        .find(|unit| names[..count].contains(&unit.file_name));
    Ok(hiding.map(|unit| format!("{UNITS}/{}", unit.file_name)))
}

/// The links that enable a unit.
pub(crate) fn links(unit: &str, context: &Context) -> anyhow::Result<Vec<PathBuf>> {
    let directory = context.path(UNITS);
    let mut links = Vec::new();
    for parent in entries(&directory)? {
        let path = directory.join(&parent).join(unit);
        if has_extension(&parent, &["wants", "requires"]) && fs::read_link(&path).is_ok() {
            links.push(path);
        }
    }
    Ok(links)
}

/// A file as text, up to a limit, without waiting for it; the reason when that cannot be.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let (file, metadata) = match buildbot_conda_host::open(path) {
        Ok(Some(opened)) => opened,
        Ok(None) => return Err("no such file".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    if !metadata.is_file() {
        return Err("it is no regular file".to_owned());
    }
    let content = buildbot_conda_host::read_at_most(&file, LARGEST);
    let content = content.map_err(|error| error.to_string())?;
    let content = content.ok_or_else(|| format!("it is larger than {LARGEST} bytes"))?;
    String::from_utf8(content).map_err(|_| "it is no text".to_owned())
}

fn is_ours(file_name: &str) -> bool {
    let Some(stem) = file_name
        .strip_prefix("buildbot-")
        .and_then(|text| text.strip_suffix(".service"))
    else {
        return false;
    };
    let role = stem.split('@').next().unwrap_or_default();
    role.parse::<Role>().is_ok()
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
        for name in running(&unit.file_name)? {
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

fn has_extension(name: &str, extensions: &[&str]) -> bool {
    let found = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    extensions.contains(&found)
}

fn is_instance_of(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('@'))
        .is_some_and(|rest| rest != ".service" && rest.ends_with(".service"))
}

/// Units by this file that have processes.
fn running(file_name: &str) -> anyhow::Result<Vec<String>> {
    let pattern = file_name.replace("@.service", "@*.service");
    let output = Command::new("systemctl")
        .args(["list-units", "--plain", "--no-legend", "--full"])
        .args([
            "--state=active,activating,reloading,deactivating",
            "--",
            &pattern,
        ])
        .env("LC_ALL", "C.UTF-8")
        .output()
        .context("run `systemctl list-units`")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`systemctl list-units` failed: {}", said.trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    Ok(names.map(str::to_owned).collect())
}

/// The names in a directory of root's, sorted; none where there is no directory.
pub(crate) fn entries(directory: &Path) -> anyhow::Result<Vec<String>> {
    let list = match fs::read_dir(directory) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other.with_context(|| format!("list `{}`", directory.display()))?,
    };
    let mut names: Vec<String> = list
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}
