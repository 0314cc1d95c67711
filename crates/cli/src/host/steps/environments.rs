//! Environments: ours are created, updated and repaired. An environment of Conda is created if it is missing, and
//! otherwise left to Conda.

use anyhow::{Context as _, bail};
use buildbot_conda_core::paths;

use super::{Draft, Wish};
use crate::host::differences::{Difference, State, Subject};
use crate::host::managed;
use crate::host::manifest::{EnvironmentEntry, Kind};
use crate::plan::{EnvironmentStep, How, Making, Step};
use crate::system::context::Context;

pub(super) fn environment(
    prefix: &str,
    difference: &Difference,
    wish: &Wish<'_>,
    context: &Context,
    draft: &mut Draft,
) -> anyhow::Result<()> {
    let wanted = wanted(prefix, wish).context("find an environment")?;
    let users = wish.instances(|instance| instance.prefix().as_str() == prefix);
    match (wanted.kind, difference.state) {
        (Kind::Managed, State::Damaged) => {
            // One that is not what the profile wants is replaced anyway.
            let generation = wanted.generation.as_ref();
            if let (Some(generation), false) = (generation, is_different(prefix, wish)) {
                let generation = generation.clone();
                let (name, _) =
                    managed::of_prefix(prefix).context("determine the name of an environment")?;
                let how = How::Mend { generation };
                push(&name, how, wanted, wish.no_restart, wish, context, draft)?;
                draft.changed.extend(users);
            }
        }
        (Kind::Managed, _) => make(prefix, wanted, wish, context, draft)?,
        (Kind::Conda, State::Missing) => {
            let owner = wanted.owner.clone().unwrap_or_else(|| "root".to_owned());
            let how = How::At { owner };
            push(prefix, how, wanted, wish.no_restart, wish, context, draft)?;
            draft.begun.extend(users);
        }
        (Kind::Conda, _) => {
            let lock = &wanted.lock;
            draft.left.push(format!(
                "manual change needed: {difference}\n\
                 hint: it is managed by Conda: `conda install --prefix {prefix} --file {lock}`"
            ));
        }
    }
    Ok(())
}

/// The current generation, or one that instances are pinned to. Both verbs make it current, so after a pinned one the
/// desired generation is made current again.
fn make(
    prefix: &str,
    wanted: &EnvironmentEntry,
    wish: &Wish<'_>,
    context: &Context,
    draft: &mut Draft,
) -> anyhow::Result<()> {
    let (name, pinned) =
        managed::of_prefix(prefix).context("determine the name of an environment")?;
    let is_planned = |step: &Step| matches!(step, Step::Environment(EnvironmentStep::Make(making)) if making.name == name);
    let is_there =
        managed::names(context).contains(&name) || draft.environments.iter().any(is_planned);
    let how = if is_there { How::Update } else { How::Create };
    let users = wish.instances(|instance| instance.prefix().as_str() == prefix);
    if pinned.is_none() {
        push(&name, how, wanted, wish.no_restart, wish, context, draft)?;
    } else {
        push(&name, how, wanted, true, wish, context, draft)?;
        let current = paths::managed_prefix(&name);
        if let Some(serves) = self::wanted(&current, wish) {
            let leave = wish.no_restart || !is_different(&current, wish);
            push(&name, How::Update, serves, leave, wish, context, draft)?;
        }
    }
    if !is_there || pinned.is_some() {
        draft.begun.extend(users);
    }
    Ok(())
}

fn wanted<'a>(prefix: &str, wish: &Wish<'a>) -> Option<&'a EnvironmentEntry> {
    let mut all = wish.profile.manifest.environments.iter();
    all.find(|one| one.prefix == prefix)
}

/// Whether it is missing, or another one.
fn is_different(prefix: &str, wish: &Wish<'_>) -> bool {
    wish.differences.iter().any(|other| {
        matches!(&other.subject, Subject::Environment(other) if other == prefix)
            && other.state != State::Damaged
    })
}

/// A step, once and last.
fn push(
    name: &str,
    how: How,
    wanted: &EnvironmentEntry,
    no_restart: bool,
    wish: &Wish<'_>,
    context: &Context,
    draft: &mut Draft,
) -> anyhow::Result<()> {
    let program = context.path(paths::ENVIRONMENT_BUILDER);
    if !program.exists() {
        bail!(
            "`{}` is not installed, it is needed to create environments\nhint: apt install buildbot-conda-env",
            program.display()
        );
    }
    let mut options = wish.options.clone();
    if how == How::Update && no_restart {
        options.push("--no-restart".to_owned());
    }
    let lock = wish.profile.locks.get(&wanted.lock);
    let step: Step = EnvironmentStep::Make(Making {
        name: name.to_owned(),
        how,
        lock: lock.context("find a lock")?.clone(),
        options,
    })
    .into();
    draft.environments.retain(|other| *other != step);
    draft.environments.push(step);
    Ok(())
}
