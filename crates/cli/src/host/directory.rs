//! Reads the directory of a profile completely, and writes it file by file, each atomically, `host.toml` last.
//!
//! The directory may belong to a person, in a checkout. Then this program runs again as that person to write it, so
//! that root follows none of their links.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use buildbot_conda_core::settings::Settings;
use buildbot_conda_host::trusted::Trust;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::layout::{CONFIGURATION, ENVIRONMENTS, INSTANCES, PRESEED, UNITS, file_of};
use super::manifest::Manifest;
use super::profile::Profile;
use super::{preseed, system};
use crate::inside::profile::{self, MANIFEST, Writing};
use crate::system::accounts;
use crate::system::context::Context;

/// Bytes; more than any file of a profile has.
const LARGEST: u64 = 8 << 20;

/// The profile in `directory`.
///
/// # Errors
///
/// If there is none, or a required file is missing.
pub(super) fn read(directory: &Path) -> anyhow::Result<Profile> {
    let name = directory.display();
    let manifest = directory.join(MANIFEST);
    if !manifest.is_file() {
        bail!(
            "`{name}` is not a profile: it contains no `{MANIFEST}`\nhint: create one with `buildbot-conda host export {name}`"
        );
    }
    let name = manifest.display().to_string();
    let manifest = Manifest::parse(&name, &part(directory, Path::new(MANIFEST))?)?;
    let mut profile = Profile {
        configuration: part(directory, Path::new(CONFIGURATION))?,
        unit_files: BTreeMap::new(),
        locks: BTreeMap::new(),
        instance_files: BTreeMap::new(),
        manifest,
    };
    for path in below(directory, Path::new(UNITS))? {
        let text = part(directory, &path)?;
        let path = utf8(
            path.strip_prefix(UNITS)
                .context("determine the name of a unit file")?,
        )?;
        if !system::is_unit_file(&path) {
            let shown_path = directory.join(UNITS).join(&path);
            bail!(
                "`{}` is not a unit of buildbot-conda or a drop-in of one",
                shown_path.display()
            );
        }
        profile.unit_files.insert(path, text);
    }
    for environment in &profile.manifest.environments {
        let text = part(directory, Path::new(&environment.lock))?;
        profile.locks.insert(environment.lock.clone(), text);
    }
    for instance in &profile.manifest.instances {
        for path in instance.files.keys() {
            ensure_inside(path)?;
            let text = part(directory, &file_of(&instance.reference, path))?;
            let key = (instance.reference.clone(), path.clone());
            profile.instance_files.insert(key, text);
        }
    }
    for name in &profile.manifest.credentials {
        let parts = Path::new(name).components();
        let is_name = Path::new(name).components().count() == 1;
        let good = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::RootDir);
        if !(is_name || name.starts_with('/')) || !parts.clone().all(good) {
            bail!("`{name}` is not the name of a credential");
        }
    }
    Ok(profile)
}

/// Refuses a profile that would give root's power to others: whoever can write it decides what root does. Only root and
/// one person, who has it in a checkout, may do so, but not the account of an instance, because its builds could.
///
/// # Errors
///
/// With the file or directory that others can write.
pub(super) fn ensure_believable(
    directory: &Path,
    settings: &Settings,
    context: &Context,
) -> anyhow::Result<()> {
    if context.is_elsewhere() {
        return Ok(());
    }
    let owner = owner_of(directory)?;
    let name = accounts::name_of_user(owner, context)?.unwrap_or_else(|| owner.to_string());
    let present = context.settings().ok();
    let mut instances = settings
        .instances()
        .chain(present.iter().flat_map(Settings::instances));
    let hint = "hint: whoever can write a profile can become root: store it in a directory that belongs to root or to one person";
    if let Some(instance) = instances.find(|instance| instance.user.as_str() == name) {
        let reference = &instance.reference;
        bail!(
            "`{}` belongs to `{name}`, who runs `{reference}`\n{hint}",
            directory.display()
        );
    }
    let mut group = None;
    if let Some(user) = accounts::find(&name, context)?
        && accounts::is_alone_in_group(&user)?
    {
        group = Some(user.gid);
    }
    let trust = Trust::of_root(None).and_account(owner, group);
    for path in below(directory, Path::new(""))? {
        match trust.find(&directory.join(path)) {
            Err(untrusted) if untrusted.is_distrust() => bail!("{untrusted}\n{hint}"),
            _ => {}
        }
    }
    Ok(())
}

/// The existing profile in `directory`, if there is one.
///
/// # Errors
///
/// If the directory contains something else.
pub(super) fn read_if_any(directory: &Path) -> anyhow::Result<Option<Manifest>> {
    let manifest = directory.join(MANIFEST);
    if manifest.is_file() {
        let name = manifest.display().to_string();
        return Manifest::parse(&name, &part(directory, Path::new(MANIFEST))?).map(Some);
    }
    let name = directory.display();
    match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("list `{name}`")),
        Ok(entries) => {
            let is_empty = entries
                .flatten()
                .all(|entry| entry.file_name() == ".git" || entry.file_name() == ".gitignore");
            if !is_empty {
                bail!(
                    "`{name}` is not empty and not a profile\nhint: specify a separate directory"
                );
            }
            Ok(None)
        }
    }
}

/// Makes `directory` this profile, unless `dry_run`; gives the paths that change, sorted.
pub(super) fn write(
    directory: &Path,
    profile: &Profile,
    settings: &Settings,
    dry_run: bool,
    context: &Context,
) -> anyhow::Result<Vec<String>> {
    let texts = texts(profile, settings)?;
    let mut gone = Vec::new();
    for part in [UNITS, ENVIRONMENTS, INSTANCES] {
        let there = below(directory, Path::new(part))?;
        gone.extend(there.into_iter().filter(|path| !texts.contains_key(path)));
    }
    let is_new =
        |path: &PathBuf, text: &str| part(directory, path).map_or(true, |there| there != text);
    let texts: BTreeMap<PathBuf, String> = texts
        .into_iter()
        .filter(|(path, text)| is_new(path, text))
        .collect();
    let mut changed: Vec<String> = texts
        .keys()
        .chain(&gone)
        .map(|path| path.display().to_string())
        .collect();
    changed.sort();
    if dry_run || changed.is_empty() {
        return Ok(changed);
    }
    let writing = Writing { texts, gone };
    let owner = owner_of(directory)?;
    if owner == rustix::process::geteuid().as_raw() || context.is_elsewhere() {
        profile::write(directory, &writing)?;
        return Ok(changed);
    }
    let name = accounts::name_of_user(owner, context)?;
    let owner = name.with_context(|| {
        format!(
            "the owner {owner} of `{}` is not an account of this host",
            directory.display()
        )
    })?;
    profile::ask(&owner, directory, &writing)?;
    Ok(changed)
}

/// Every file of a profile.
fn texts(profile: &Profile, settings: &Settings) -> anyhow::Result<BTreeMap<PathBuf, String>> {
    let mut texts = BTreeMap::from([
        (MANIFEST.into(), profile.manifest.text()?),
        (CONFIGURATION.into(), profile.configuration.clone()),
        (PRESEED.into(), preseed::text(profile, settings)),
    ]);
    for (path, text) in &profile.unit_files {
        texts.insert(Path::new(UNITS).join(path), text.clone());
    }
    for (path, text) in &profile.locks {
        texts.insert(path.into(), text.clone());
    }
    for ((reference, path), text) in &profile.instance_files {
        texts.insert(file_of(reference, path), text.clone());
    }
    Ok(texts)
}

/// Files below `part` of the directory, relative to the directory, sorted. Names that start with `.` are ignored.
fn below(directory: &Path, part: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let path = directory.join(part);
    let entries = match fs::read_dir(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("list `{}`", path.display()))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("list `{}`", path.display()))?;
        let name = part.join(entry.file_name());
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(below(directory, &name)?);
        } else {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

/// Opens a file of a profile by its relative path. No link may lead out of the profile, because root would read another
/// file. The kernel follows no link, even if a file is replaced meanwhile.
fn part(directory: &Path, path: &Path) -> anyhow::Result<String> {
    ensure_inside(&utf8(path)?)?;
    let shown = directory.join(path);
    let name = shown.display();
    let place = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::open(directory, place, Mode::empty());
    let place = place.with_context(|| format!("open `{}`", directory.display()))?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(&place, path, flags, Mode::empty(), inside) {
        Ok(file) => text(&File::from(file), &shown),
        Err(Errno::NOENT) => bail!("file `{name}` of the profile not found"),
        Err(Errno::LOOP) => {
            bail!("`{name}` is a link or behind one, which a profile must not contain")
        }
        Err(error) => Err(error).with_context(|| format!("read `{name}`")),
    }
}

/// The content of a file: regular, text, and of a size.
fn text(file: &File, path: &Path) -> anyhow::Result<String> {
    let name = path.display();
    let metadata = file.metadata().with_context(|| format!("read `{name}`"))?;
    if !metadata.is_file() {
        bail!("`{name}` is not a regular file");
    }
    let bytes = buildbot_conda_host::read_at_most(file, LARGEST)
        .with_context(|| format!("read `{name}`"))?
        .with_context(|| format!("read `{name}`: it is larger than {LARGEST} bytes"))?;
    String::from_utf8(bytes).with_context(|| format!("read `{name}`"))
}

/// Numeric user id of the owner of the directory, or of its future owner.
fn owner_of(directory: &Path) -> anyhow::Result<u32> {
    let absolute = std::path::absolute(directory).context("find the directory")?;
    let there = absolute
        .ancestors()
        .find_map(|ancestor| ancestor.metadata().ok());
    let metadata = there.with_context(|| format!("examine `{}`", directory.display()))?;
    if !metadata.is_dir() {
        bail!("`{}` is not a directory", directory.display());
    }
    Ok(metadata.uid())
}

fn ensure_inside(path: &str) -> anyhow::Result<()> {
    let parts = Path::new(path).components();
    if path.is_empty()
        || !parts
            .clone()
            .all(|part| matches!(part, Component::Normal(_)))
    {
        bail!("`{path}` leads out of the profile");
    }
    Ok(())
}

fn utf8(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str();
    let text = text.with_context(|| format!("`{}` is not UTF-8", path.display()))?;
    Ok(text.to_owned())
}
