//! What is root's: configuration, units, credentials, modes. What is replaced or taken away is kept.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::{Instance, Settings};

use super::{Draft, Wish};
use crate::host::differences::Difference;
use crate::host::system;
use crate::inside::put::{Put, Text, free_name};
use crate::plan::{self, Step};
use crate::system::context::Context;
use crate::system::unit_files;

/// Where what is replaced is kept.
const REPLACED: &str = "/var/lib/buildbot-conda/replaced";

pub(super) fn configuration(
    wish: &Wish<'_>,
    context: &Context,
    draft: &mut Draft,
) -> anyhow::Result<()> {
    let path = context.configuration();
    let there = &wish.host.profile.configuration;
    if there.is_empty() {
        directory(&path, 0o755, draft);
    } else {
        keep(&path, there, 0o600, context, draft)?;
    }
    draft.files.push(Step::Write {
        path: path.canonicalize().unwrap_or(path),
        text: wish.profile.configuration.clone(),
        mode: mode_of(paths::CONFIGURATION, wish).unwrap_or(0o644),
        secret: false,
    });
    let before = Settings::parse("", there.as_bytes());
    let is_other = |instance: &Instance| {
        !before
            .instance(&instance.reference)
            .is_ok_and(|before| before == instance)
    };
    let changed = wish.instances(is_other);
    draft.begun.extend(changed.iter().cloned());
    draft.changed.extend(changed);
    draft.needs_reload = true;
    Ok(())
}

pub(super) fn unit_file(
    difference: &Difference,
    wish: &Wish<'_>,
    context: &Context,
    draft: &mut Draft,
) -> anyhow::Result<()> {
    let name = &difference.name;
    let path = context.path(name);
    let relative = name.strip_prefix(unit_files::UNITS).unwrap_or(name);
    let relative = relative.trim_start_matches('/');
    if !relative.starts_with("buildbot-") {
        bail!("`{name}` is no unit of ours, nor a drop-in of one");
    }
    if let Some(text) = wish.host.profile.unit_files.get(relative) {
        keep(&path, text, 0o644, context, draft)?;
    }
    if let Some(text) = wish.profile.unit_files.get(relative) {
        directory(&path, 0o755, draft);
        draft.files.push(Step::Write {
            path,
            text: text.clone(),
            mode: mode_of(name, wish).unwrap_or(0o644),
            secret: false,
        });
    } else {
        let parent = path.parent().map(Path::to_path_buf);
        draft.files.push(Step::Remove { path });
        if let Some(path) = parent.filter(|_| relative.contains('/')) {
            draft.files.push(Step::RemoveDirectory { path });
        }
    }
    let unit = relative.split('/').next().unwrap_or_default();
    let unit = unit.trim_end_matches(".d").trim_end_matches(".service");
    // `buildbot-` is of all, `buildbot-worker@` of all with a name.
    let concerned = wish.instances(|instance| {
        let name = instance.reference.unit_name();
        let name = name.trim_end_matches(".service");
        name == unit || (unit.ends_with(['@', '-']) && name.starts_with(unit))
    });
    draft.changed.extend(concerned);
    draft.needs_reload = true;
    Ok(())
}

pub(super) fn credential(
    difference: &Difference,
    wish: &Wish<'_>,
    context: &Context,
    draft: &mut Draft,
) -> anyhow::Result<()> {
    let name = &difference.name;
    let absolute = system::credential_path(name);
    let path = context.path(&absolute);
    if !is_roots_place(&path, context) {
        draft.left.push(format!(
            "left to you: {difference}\nhint: others than root can change its directory, `{}`",
            path.parent().unwrap_or(&path).display()
        ));
        return Ok(());
    }
    let text = wish.secrets.get(name).context("have a credential")?;
    let parent = path
        .parent()
        .context("find the directory of a credential")?;
    if Path::new(&absolute).parent() == Some(Path::new(paths::CREDENTIALS)) {
        directory(&path, 0o700, draft);
    } else if !parent.is_dir() {
        bail!(
            "no directory `{}` for the credential `{absolute}`",
            parent.display()
        );
    }
    draft.files.push(Step::Write {
        path,
        text: text.clone(),
        mode: 0o600,
        secret: true,
    });
    let concerned = wish.instances(|instance| {
        let mut files = instance.credentials.values();
        files.any(|file| file.as_str() == absolute)
    });
    draft.begun.extend(concerned.iter().cloned());
    draft.changed.extend(concerned);
    // The generator gives only those that are there.
    draft.needs_reload = true;
    Ok(())
}

pub(super) fn unit(
    difference: &Difference,
    context: &Context,
    draft: &mut Draft,
) -> anyhow::Result<()> {
    let name = &difference.name;
    let reference = name
        .strip_prefix("buildbot-")
        .and_then(|text| text.strip_suffix(".service"));
    let reference: InstanceRef = reference.unwrap_or_default().parse()?;
    let units = context.path(unit_files::UNITS);
    let mask = units.join(name);
    let (wanted, found) = (difference.wanted.as_deref(), difference.found.as_deref());
    if found == Some("masked") {
        draft.units.push(Step::Remove { path: mask.clone() });
    }
    match wanted {
        Some("enabled") => {
            if unit_files::links(name, context)?.is_empty() {
                plan::enable(&reference, &units, &mut draft.units);
            }
            draft.begun.insert(reference.to_string());
        }
        Some("masked") => draft.units.push(Step::Link {
            path: mask,
            target: PathBuf::from("/dev/null"),
        }),
        _ => {
            for path in unit_files::links(name, context)? {
                draft.units.push(Step::Remove { path });
            }
        }
    }
    draft.needs_reload = true;
    Ok(())
}

pub(super) fn mode(
    difference: &Difference,
    wish: &Wish<'_>,
    context: &Context,
    draft: &mut Draft,
) -> anyhow::Result<()> {
    let name = &difference.name;
    let wanted = difference.wanted.as_deref().unwrap_or_default();
    let words: Vec<&str> = wanted.split(' ').collect();
    let [mode, user, group] = words[..] else {
        bail!("`{wanted}` is no mode with an owner and a group");
    };
    let mode = u32::from_str_radix(mode, 8).with_context(|| format!("read the mode `{mode}`"))?;
    let mut instances = wish.profile.manifest.instances.iter();
    if let Some(instance) = instances.find(|instance| instance.directory == *name) {
        // A place of its user's, where root changes nothing.
        let found = difference.found.as_deref().unwrap_or_default();
        let is_his = found.split(' ').skip(1).eq([user, group]);
        if !is_his || context.is_elsewhere() {
            draft.left.push(format!(
                "left to you: {difference}\nhint: chown {user}:{group} {name}"
            ));
            return Ok(());
        }
        let found = found.split(' ').next().unwrap_or_default();
        let found = u32::from_str_radix(found, 8).context("read a mode")?;
        let text = |mode| {
            Some(Text {
                text: String::new(),
                mode,
            })
        };
        draft.files.push(Step::Put(Put {
            user: instance.user.clone(),
            directory: context.path(name),
            path: PathBuf::new(),
            before: text(found),
            after: text(mode),
            keep: false,
        }));
        return Ok(());
    }
    if !is_roots_place(&context.path(name), context) {
        draft.left.push(format!(
            "left to you: {difference}\nhint: others than root can change its directory"
        ));
        return Ok(());
    }
    draft.files.push(Step::SetMode {
        mode,
        user: user.to_owned(),
        group: group.to_owned(),
        path: context.path(name),
    });
    Ok(())
}

/// Whether root alone can change what a path leads to. Where others can, a link of theirs would have root write, or give
/// away, another file.
fn is_roots_place(path: &Path, context: &Context) -> bool {
    context.is_elsewhere()
        || path.ancestors().skip(1).all(|ancestor| {
            match fs::symlink_metadata(ancestor) {
                Ok(found) => found.is_dir() && found.uid() == 0 && found.mode() & 0o022 == 0,
                // It is made by root, in one that was looked at.
                Err(error) => error.kind() == ErrorKind::NotFound,
            }
        })
}

/// The mode that the profile has for a path.
fn mode_of(path: &str, wish: &Wish<'_>) -> Option<u32> {
    let text = wish.profile.manifest.modes.get(path)?;
    u32::from_str_radix(text.split(' ').next()?, 8).ok()
}

/// The directory of a file, where there is none.
fn directory(path: &Path, mode: u32, draft: &mut Draft) {
    let Some(path) = path.parent().filter(|path| !path.is_dir()) else {
        return;
    };
    let step = Step::CreateDirectory {
        path: path.to_owned(),
        mode,
    };
    if !draft.files.contains(&step) {
        draft.files.push(step);
    }
}

/// A copy of what is about to be replaced.
fn keep(
    path: &Path,
    text: &str,
    mode: u32,
    context: &Context,
    draft: &mut Draft,
) -> anyhow::Result<()> {
    let below = path.strip_prefix(context.path("/")).unwrap_or(path);
    let copy = free_name(&context.path(REPLACED).join(below))?;
    directory(&copy, 0o755, draft);
    draft.files.push(Step::Write {
        path: copy,
        text: text.to_owned(),
        mode,
        secret: true,
    });
    Ok(())
}
