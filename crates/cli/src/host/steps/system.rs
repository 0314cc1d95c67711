//! Files owned by root: configuration, units, credentials, modes. Replaced and removed files are kept.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use buildbot_conda_core::names::Unit;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::{Instance, Settings};

use super::{Draft, Wish};
use crate::host::differences::Difference;
use crate::host::system;
use crate::inside::put::{Put, Text, free_name};
use crate::plan::{self, FileStep, Step, UserStep};
use crate::system::context::Context;
use crate::system::unit_files;
use crate::system::values::{Identity, Mode};

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
        directory(&path, Mode::new(0o755), draft);
    } else {
        keep(&path, there, Mode::new(0o600), context, draft)?;
    }
    draft.files.push(
        FileStep::Write {
            path: path.canonicalize().unwrap_or(path),
            text: wish.profile.configuration.clone(),
            mode: mode_of(paths::CONFIGURATION, wish).unwrap_or(Mode::new(0o644)),
            secret: false,
        }
        .into(),
    );
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
    name: &str,
    wish: &Wish<'_>,
    context: &Context,
    draft: &mut Draft,
) -> anyhow::Result<()> {
    let path = context.path(name);
    let relative = name.strip_prefix(unit_files::UNITS).unwrap_or(name);
    let relative = relative.trim_start_matches('/');
    if !relative.starts_with("buildbot-") {
        bail!("`{name}` is not a unit of buildbot-conda or a drop-in of one");
    }
    if let Some(text) = wish.host.profile.unit_files.get(relative) {
        keep(&path, text, Mode::new(0o644), context, draft)?;
    }
    if let Some(text) = wish.profile.unit_files.get(relative) {
        directory(&path, Mode::new(0o755), draft);
        draft.files.push(
            FileStep::Write {
                path,
                text: text.clone(),
                mode: mode_of(name, wish).unwrap_or(Mode::new(0o644)),
                secret: false,
            }
            .into(),
        );
    } else {
        let parent = path.parent().map(Path::to_path_buf);
        draft.files.push(FileStep::Remove { path }.into());
        if let Some(path) = parent.filter(|_| relative.contains('/')) {
            draft.files.push(FileStep::RemoveDirectory { path }.into());
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
    name: &str,
    difference: &Difference,
    wish: &Wish<'_>,
    context: &Context,
    draft: &mut Draft,
) -> anyhow::Result<()> {
    let absolute = system::credential_path(name);
    let path = context.path(&absolute);
    if !is_roots_place(&path, context) {
        draft.left.push(format!(
            "manual change needed: {difference}\nhint: accounts other than root can change its directory, `{}`",
            path.parent().unwrap_or(&path).display()
        ));
        return Ok(());
    }
    let text = wish.secrets.get(name).context("look up a credential")?;
    let parent = path
        .parent()
        .context("find the directory of a credential")?;
    if Path::new(&absolute).parent() == Some(Path::new(paths::CREDENTIALS)) {
        directory(&path, Mode::new(0o700), draft);
    } else if !parent.is_dir() {
        bail!(
            "directory `{}` of the credential `{absolute}` not found",
            parent.display()
        );
    }
    draft.files.push(
        FileStep::Write {
            path,
            text: text.clone(),
            mode: Mode::new(0o600),
            secret: true,
        }
        .into(),
    );
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
    unit: &Unit,
    difference: &Difference,
    context: &Context,
    draft: &mut Draft,
) -> anyhow::Result<()> {
    let name = &unit.to_string();
    let reference = unit.reference();
    let units = context.path(unit_files::UNITS);
    let mask = units.join(name);
    let (wanted, found) = (difference.wanted.as_deref(), difference.found.as_deref());
    if found == Some("masked") {
        draft
            .units
            .push(FileStep::Remove { path: mask.clone() }.into());
    }
    match wanted {
        Some("enabled") => {
            if unit_files::links(name, context)?.is_empty() {
                plan::enable(reference, &units, &mut draft.units);
            }
            draft.begun.insert(reference.clone());
        }
        Some("masked") => draft.units.push(
            FileStep::Link {
                path: mask,
                target: PathBuf::from("/dev/null"),
            }
            .into(),
        ),
        _ => {
            for path in unit_files::links(name, context)? {
                draft.units.push(FileStep::Remove { path }.into());
            }
        }
    }
    draft.needs_reload = true;
    Ok(())
}

pub(super) fn mode(
    name: &str,
    difference: &Difference,
    wish: &Wish<'_>,
    context: &Context,
    draft: &mut Draft,
) -> anyhow::Result<()> {
    let modes = &wish.profile.manifest.modes;
    let wanted = modes.get(name).context("find a mode")?;
    let mut instances = wish.profile.manifest.instances.iter();
    if let Some(instance) = instances.find(|instance| instance.directory == *name) {
        // A place of its user's, where root changes nothing.
        let found = wish.host.profile.manifest.modes.get(name);
        let found = found.context("find a mode")?;
        let is_his = (&found.user, &found.group) == (&wanted.user, &wanted.group);
        if !is_his || context.is_elsewhere() {
            draft.left.push(format!(
                "manual change needed: {difference}\nhint: chown {}:{} {name}",
                wanted.user, wanted.group
            ));
            return Ok(());
        }
        let text = |mode| {
            Some(Text {
                text: String::new(),
                mode,
            })
        };
        draft.files.push(
            UserStep::Put(Put {
                identity: Identity {
                    user: instance.user.clone(),
                    group: None,
                },
                directory: context.path(name),
                path: PathBuf::new(),
                before: text(found.mode),
                after: text(wanted.mode),
                keep: false,
            })
            .into(),
        );
        return Ok(());
    }
    if !is_roots_place(&context.path(name), context) {
        draft.left.push(format!(
            "manual change needed: {difference}\nhint: accounts other than root can change its directory"
        ));
        return Ok(());
    }
    draft.files.push(
        FileStep::SetMode {
            path: context.path(name),
            ownership: wanted.clone().into(),
        }
        .into(),
    );
    Ok(())
}

/// Whether root alone can change where a path leads. Otherwise, a link of another account could make root write, or
/// give away, another file.
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
fn mode_of(path: &str, wish: &Wish<'_>) -> Option<Mode> {
    let ownership = wish.profile.manifest.modes.get(path)?;
    Some(ownership.mode)
}

/// The directory of a file, where there is none.
fn directory(path: &Path, mode: Mode, draft: &mut Draft) {
    let Some(path) = path.parent().filter(|path| !path.is_dir()) else {
        return;
    };
    let step: Step = FileStep::CreateDirectory {
        path: path.to_owned(),
        mode,
    }
    .into();
    if !draft.files.contains(&step) {
        draft.files.push(step);
    }
}

/// A copy of what is about to be replaced.
fn keep(
    path: &Path,
    text: &str,
    mode: Mode,
    context: &Context,
    draft: &mut Draft,
) -> anyhow::Result<()> {
    let below = path.strip_prefix(context.path("/")).unwrap_or(path);
    let copy = free_name(&context.path(REPLACED).join(below))?;
    directory(&copy, Mode::new(0o755), draft);
    draft.files.push(
        FileStep::Write {
            path: copy,
            text: text.to_owned(),
            mode,
            secret: true,
        }
        .into(),
    );
    Ok(())
}
