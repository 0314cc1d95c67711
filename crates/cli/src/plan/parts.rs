//! Steps that the plans of several verbs have.

use std::path::Path;

use anyhow::Context as _;
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_host::trusted::Trust;

use super::{FileStep, Step};
use crate::system::accounts::account_of;
use crate::system::context::Context;
use crate::system::own_place;
use crate::system::record::{Noted, RECORDS, record_file};
use crate::system::values::Mode;

/// Where units are that the machine starts with.
const WANTS: &str = "multi-user.target.wants";

/// A directory, unless it is there or will be.
pub(crate) fn directory(path: &Path, mode: u32, steps: &mut Vec<Step>) {
    let path = path.to_owned();
    let is_there = path.is_dir();
    let mode = Mode::new(mode);
    let create = Step::from(FileStep::CreateDirectory { path, mode });
    if !is_there && !steps.contains(&create) {
        steps.push(create);
    }
}

/// The link that `systemctl enable` would make, unless it is there or one like it.
pub(crate) fn enable(reference: &InstanceRef, units: &Path, steps: &mut Vec<Step>) {
    enable_in(WANTS, reference, units, steps);
}

/// The link that has another unit start it: in `multi-user.target.wants`, `ci.target.requires`.
pub(crate) fn enable_in(
    parent: &str,
    reference: &InstanceRef,
    units: &Path,
    steps: &mut Vec<Step>,
) {
    let name = reference.unit_name();
    let file = match &reference.name {
        None => name.clone(),
        Some(_) => format!("buildbot-{}@.service", reference.role),
    };
    let wants = units.join(parent);
    directory(&wants, 0o755, steps);
    let link = FileStep::Link {
        path: wants.join(name),
        target: Path::new(paths::UNITS).join(file),
    };
    steps.push(link.into());
}

/// A step of root's where the account cannot make its directory itself. Below `home`, it can, and
/// without an account nobody knows.
///
/// # Errors
///
/// When somebody else could put something in the place of the directory.
pub(crate) fn give(
    instance: &Instance,
    home: &Path,
    context: &Context,
) -> anyhow::Result<Option<Step>> {
    own_place::ensure(instance, context)?;
    let path = Path::new(instance.directory.as_str());
    let is_in_new_home = account_of(instance, context).is_none() && path.starts_with(home);
    if context.is_elsewhere() || is_in_new_home || path.is_dir() {
        return Ok(None);
    }
    let parent = path.ancestors().skip(1).find(|parent| parent.is_dir());
    let is_roots = parent.is_some_and(|parent| Trust::of_root(None).find(parent).is_ok());
    let step = FileStep::GiveDirectory {
        path: path.to_owned(),
        user: instance.user.clone(),
    };
    Ok(is_roots.then(|| step.into()))
}

/// Notes what was created, for later.
pub(crate) fn note(
    record: &impl Noted,
    reference: &InstanceRef,
    context: &Context,
) -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::new();
    directory(&context.path(RECORDS), 0o755, &mut steps);
    let write = FileStep::Write {
        path: record_file(reference, context),
        text: serde_json::to_string(record).context("write a record")? + "\n",
        mode: Mode::new(0o644),
        secret: false,
    };
    steps.push(write.into());
    Ok(steps)
}
