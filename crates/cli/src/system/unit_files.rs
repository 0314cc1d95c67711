//! Unit files and links in `/etc/systemd/system`: which units with our names an administrator wrote, and which are
//! enabled.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::paths;
use buildbot_conda_host::unit_files::Runs;

use super::context::Context;

/// The directory for units of administrators.
pub(crate) const UNITS: &str = "/etc/systemd/system";
/// Bytes; more than any unit file or wrapper script has.
const LARGEST: u64 = 1 << 20;

/// Every hand-made unit file of our names in `/etc/systemd/system` and its text, in the order of the names.
pub(crate) fn hand_made(context: &Context) -> anyhow::Result<Vec<(String, String)>> {
    let directory = context.path(UNITS);
    let unit_files = context.unit_files();
    let mut found = Vec::new();
    for file_name in entries(&directory)? {
        let path = directory.join(&file_name);
        if !is_ours(&file_name)
            || unit_files.of_unit(&file_name).runs != Runs::HandMade(path.clone())
        {
            continue;
        }
        let text = read(&path);
        let text = text.map_err(|reason| anyhow!("read `{UNITS}/{file_name}`: {reason}"))?;
        found.push((file_name, text));
    }
    Ok(found)
}

/// Unit files of other names in a directory of units that speak of a Buildbot and not of our launcher, with their texts.
/// One that is masked or a link is not a file of that directory.
pub(crate) fn of_other_names(
    directory: &str,
    context: &Context,
) -> anyhow::Result<Vec<(String, String)>> {
    let directory = context.path(directory);
    let mut found = Vec::new();
    for file_name in entries(&directory)? {
        let path = directory.join(&file_name);
        let is_file = path
            .symlink_metadata()
            .is_ok_and(|metadata| metadata.is_file());
        if is_ours(&file_name) || !has_extension(&file_name, &["service"]) || !is_file {
            continue;
        }
        // Files that cannot be read are not handled here.
        let Ok(text) = read(&path) else { continue };
        let lower = format!("{file_name} {text}").to_ascii_lowercase();
        let is_of_buildbot = ["buildbot", "buildmaster", "buildslave", "twistd"]
            .iter()
            .any(|word| lower.contains(word));
        if is_of_buildbot && !text.contains(paths::LAUNCHER) && !text.contains(paths::CLI) {
            found.push((file_name, text));
        }
    }
    Ok(found)
}

/// Hand-made unit files with our names or others in other directories of units, which `adopt` does not read.
pub(crate) fn hand_made_elsewhere(context: &Context) -> Vec<PathBuf> {
    let directory = context.path(UNITS);
    let unit_files = context.unit_files();
    let found = unit_files.files().into_keys().filter(|name| is_ours(name));
    let of_our_names = found.filter_map(|name| match unit_files.of_unit(name).runs {
        Runs::HandMade(path) if path.parent() != Some(&directory) => Some(path),
        _ => None,
    });
    let of_others = [paths::UNITS, "/usr/local/lib/systemd/system"]
        .into_iter()
        .flat_map(|directory| {
            let names = of_other_names(directory, context).unwrap_or_default();
            names
                .into_iter()
                .map(|(name, _)| context.path(directory).join(name))
        });
    of_our_names.chain(of_others).collect()
}

/// Refuses an instance that runs by something else than the package's unit.
pub(crate) fn ensure_ours(reference: &InstanceRef, context: &Context) -> anyhow::Result<()> {
    match context.unit_files().of(reference).runs {
        Runs::HandMade(path) => bail!(
            "`{}` overrides the package's unit\nhint: `buildbot-conda adopt` adopts it",
            path.display()
        ),
        Runs::Replaced(path) => bail!(
            "`{}` changes the command of the package's unit\nhint: remove `ExecStart=` from it",
            path.display()
        ),
        Runs::Ours | Runs::Copy(_) | Runs::Masked(_) | Runs::Missing => Ok(()),
    }
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
        return Err("it is not a regular file".to_owned());
    }
    let content = buildbot_conda_host::read_at_most(&file, LARGEST);
    let content = content.map_err(|error| error.to_string())?;
    let content = content.ok_or_else(|| format!("it is larger than {LARGEST} bytes"))?;
    String::from_utf8(content).map_err(|_| "it is not UTF-8".to_owned())
}

/// Whether a file name is that of a unit of ours, or of its template.
pub(crate) fn is_ours(file_name: &str) -> bool {
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

/// The names in a directory owned by root, sorted; none if it does not exist.
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
