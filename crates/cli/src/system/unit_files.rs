//! Unit files and links in `/etc/systemd/system`: which of our names an administrator wrote, and which are enabled.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::paths;

use super::context::Context;

/// Where administrators put units.
pub(crate) const UNITS: &str = "/etc/systemd/system";
/// Bytes; more than any unit file or wrapper script has.
const LARGEST: u64 = 1 << 20;

/// Every hand-made unit file of our names and its text, in the order of the names.
pub(crate) fn hand_made(context: &Context) -> anyhow::Result<Vec<(String, String)>> {
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
        let text = read(&path).map_err(|reason| anyhow!("read `{shown}`: {reason}"))?;
        // An edited copy of ours does what ours does.
        if text.is_empty() || text.contains(paths::LAUNCHER) {
            continue;
        }
        found.push((file_name, text));
    }
    Ok(found)
}

/// The hand-made file that an instance would run by instead of ours.
pub(crate) fn hiding(reference: &InstanceRef, context: &Context) -> anyhow::Result<Option<String>> {
    let template = format!("buildbot-{}@.service", reference.role);
    let names = [reference.unit_name(), template];
    let count = if reference.name.is_some() { 2 } else { 1 };
    let hiding = hand_made(context)?
        .into_iter()
        .find(|(file_name, _)| names[..count].contains(file_name));
    Ok(hiding.map(|(file_name, _)| format!("{UNITS}/{file_name}")))
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
pub(crate) fn read(path: &Path) -> Result<String, String> {
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

pub(crate) fn has_extension(name: &str, extensions: &[&str]) -> bool {
    let found = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    extensions.contains(&found)
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
