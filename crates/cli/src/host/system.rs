//! What belongs to root on a host: configuration, units, packages, names of credentials, and the modes of all that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use buildbot_conda_core::names::{InstanceRef, Role, Unit};
use buildbot_conda_core::paths;

use super::layout::OWN_DIRECTORIES;
use crate::system::context::Context;
use crate::system::unit_files::{self, entries};

/// Ours, as dpkg knows them.
const PACKAGES: [&str; 2] = ["buildbot-conda", "buildbot-conda-env"];
/// A link to it masks a unit, systemctl(1).
const NOTHING: &str = "/dev/null";

/// The text of the configuration; empty where there is none.
pub(super) fn configuration(context: &Context) -> anyhow::Result<String> {
    let path = context.configuration();
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        other => other.with_context(|| format!("read `{}`", path.display())),
    }
}

/// Versions of our installed packages; none if they cannot be determined.
pub(super) fn packages(context: &Context) -> BTreeMap<String, String> {
    let mut command = Command::new("dpkg-query");
    if context.is_elsewhere() {
        command.arg("--root").arg(context.path("/"));
    }
    let output = command
        .arg("--show")
        .arg("--showformat=${db:Status-Status} ${Package} ${Version}\\n")
        .args(PACKAGES)
        .output();
    // It fails for unknown packages, and reports the others.
    let text = output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    );
    let installed = text
        .lines()
        .filter_map(|line| line.strip_prefix("installed ")?.split_once(' '));
    installed
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .collect()
}

/// Files of an administrator in `/etc/systemd/system`, by their paths there: units with our names, and their drop-ins.
/// A link to a missing file masks a drop-in like an empty file, and is treated as one.
pub(super) fn unit_files(context: &Context) -> anyhow::Result<BTreeMap<String, String>> {
    let units = context.path(unit_files::UNITS);
    let mut found = BTreeMap::new();
    for name in entries(&units)? {
        let path = units.join(&name);
        if is_unit(&name) && path.is_file() {
            found.insert(name, text(&path)?);
        } else if name.strip_suffix(".d").is_some_and(takes_drop_ins) {
            for entry in entries(&path)? {
                if !entry.starts_with('.') && end_of(&entry) == "conf" {
                    found.insert(format!("{name}/{entry}"), text(&path.join(&entry))?);
                }
            }
        }
    }
    Ok(found)
}

/// Whether [`unit_files`] would find a path, relative to the directory of units.
pub(super) fn is_unit_file(path: &str) -> bool {
    match path.split_once('/') {
        None => is_unit(path),
        Some((directory, name)) => {
            directory.strip_suffix(".d").is_some_and(takes_drop_ins)
                && !name.contains('/')
                && end_of(name) == "conf"
        }
    }
}

/// `buildbot-master.service`, `buildbot-worker@gpu.service`, and the templates of such.
pub(super) fn is_unit(name: &str) -> bool {
    let stem = name
        .strip_prefix("buildbot-")
        .and_then(|text| text.strip_suffix(".service"));
    let role = stem.and_then(|stem| stem.split('@').next());
    role.is_some_and(|role| role.parse::<Role>().is_ok())
}

/// What follows the last dot.
fn end_of(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, end)| end)
}

/// Also those of all units whose names start with `buildbot-`, systemd.unit(5).
fn takes_drop_ins(name: &str) -> bool {
    is_unit(name) || name == "buildbot-.service"
}

/// `enabled`, `disabled` or `masked` for every instance, and for other enabled units of ours.
pub(super) fn enablement(
    references: impl Iterator<Item = InstanceRef>,
    context: &Context,
) -> anyhow::Result<BTreeMap<Unit, String>> {
    let units = context.path(unit_files::UNITS);
    let mut ours: BTreeSet<Unit> = references.map(|reference| reference.unit()).collect();
    ours.extend(Role::ALL.map(|role| InstanceRef::plain(role).unit()));
    for parent in entries(&units)? {
        if matches!(end_of(&parent), "wants" | "requires") {
            let links = entries(&units.join(parent))?;
            ours.extend(links.iter().filter_map(|name| name.parse().ok()));
        }
    }
    let mut found = BTreeMap::new();
    for unit in ours {
        let name = unit.to_string();
        let is_masked =
            fs::read_link(units.join(&name)).is_ok_and(|target| target == Path::new(NOTHING));
        let state = if is_masked {
            "masked"
        } else if unit_files::links(&name, context)?.is_empty() {
            "disabled"
        } else {
            "enabled"
        };
        found.insert(unit, state.to_owned());
    }
    Ok(found)
}

/// What a profile calls the file of a credential.
pub(super) fn credential_name(path: &str) -> &str {
    let name = path.strip_prefix(paths::CREDENTIALS);
    name.and_then(|name| name.strip_prefix('/')).unwrap_or(path)
}

/// Where the file of a credential is.
pub(super) fn credential_path(name: &str) -> String {
    if name.starts_with('/') {
        return name.to_owned();
    }
    format!("{}/{name}", paths::CREDENTIALS)
}

/// Those of `names` whose files are there, sorted.
pub(super) fn credentials(names: &BTreeSet<String>, context: &Context) -> Vec<String> {
    let is_there = |name: &&String| context.path(&credential_path(name)).is_file();
    names.iter().filter(is_there).cloned().collect()
}

/// What is in those that are there, and are text.
pub(super) fn credential_values(
    names: &[String],
    context: &Context,
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    for name in names {
        let path = context.path(&credential_path(name));
        match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("read `{}`", path.display()));
            }
            Ok(bytes) => {
                if let Ok(text) = String::from_utf8(bytes) {
                    values.insert(name.clone(), text);
                }
            }
        }
    }
    Ok(values)
}

/// Every file in the credentials directory, configured or not.
pub(super) fn credentials_there(context: &Context) -> anyhow::Result<Vec<String>> {
    let directory = context.path(paths::CREDENTIALS);
    let mut names = entries(&directory)?;
    names.retain(|name| !name.starts_with('.') && directory.join(name).is_file());
    Ok(names)
}

/// Paths whose modes and owners a profile has.
pub(super) fn governed<'a>(
    directories: impl Iterator<Item = &'a str>,
    credentials: &[String],
    unit_files: impl Iterator<Item = &'a String>,
) -> BTreeSet<String> {
    let mut paths: BTreeSet<String> = OWN_DIRECTORIES.map(str::to_owned).into();
    paths.insert(paths::CONFIGURATION.to_owned());
    paths.extend(directories.map(str::to_owned));
    paths.extend(credentials.iter().map(|name| credential_path(name)));
    for file in unit_files {
        paths.insert(format!("{}/{file}", unit_files::UNITS));
        if let Some((directory, _)) = file.split_once('/') {
            paths.insert(format!("{}/{directory}", unit_files::UNITS));
        }
    }
    paths
}

fn text(path: &Path) -> anyhow::Result<String> {
    if fs::canonicalize(path).is_ok_and(|target| target == Path::new(NOTHING)) {
        return Ok(String::new());
    }
    fs::read_to_string(path).with_context(|| format!("read `{}`", path.display()))
}
