//! `env ...`: managed environments, each a directory of immutable generations that belong to root.
//!
//! What an environment is on disk is the crate `environments`; making a generation is the work of the program in the
//! package `buildbot-conda-env`, called by `builder`. Everything else is here, so that an environment can be looked at,
//! checked, switched back and removed without that program. `update` and `rollback` share `change`: try, restart, switch;
//! `recovery` takes back what does not come to that end; `instances` is what they do to services.

mod builder;
mod change;
mod create;
mod diff;
mod gc;
mod instances;
mod list;
mod lock;
mod recovery;
mod remove;
mod rollback;
mod show;
mod table;
mod trial;
mod update;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use buildbot_conda_core::paths;
use buildbot_conda_environments::{Environment, EnvironmentName, GenerationId, Lock, Store};
use clap::Subcommand;

use crate::system::context::Context;

pub(crate) use trial::Arguments as TrialArguments;
pub(crate) use trial::run as run_trial;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make an environment from a file that says what is in it
    Create(create::Arguments),
    /// Make a new generation beside the one that serves, try it, and let it serve
    Update(update::Arguments),
    /// Let an earlier generation serve again
    Rollback(rollback::Arguments),
    /// Bring instances back that an interrupted command has left with another generation than the one that serves
    Recover(recovery::Arguments),
    /// List environments, their generations and who uses them
    List(list::Arguments),
    /// Show the packages of an environment
    Show(show::Arguments),
    /// Show what differs between two generations or environments
    Diff(diff::Arguments),
    /// Check that every file is still what its package brought
    Verify(verify::Arguments),
    /// Print a lock that makes the same environment again, anywhere
    Lock(lock::Arguments),
    /// Remove an environment with all its generations
    Remove(remove::Arguments),
    /// Remove generations that nobody uses any more
    Gc(gc::Arguments),
}

pub(crate) fn run(verb: &Verb, context: &Context) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Create(arguments) => create::run(arguments, context),
        Verb::Update(arguments) => update::run(arguments, context),
        Verb::Rollback(arguments) => rollback::run(arguments, context),
        Verb::Recover(arguments) => recovery::run(arguments, context),
        Verb::List(arguments) => list::run(arguments, context),
        Verb::Show(arguments) => show::run(arguments, context),
        Verb::Diff(arguments) => diff::run(arguments, context),
        Verb::Verify(arguments) => verify::run(arguments, context),
        Verb::Lock(arguments) => lock::run(arguments, context),
        Verb::Remove(arguments) => remove::run(arguments, context),
        Verb::Gc(arguments) => gc::run(arguments, context),
    }
}

/// All environments of this host.
fn store(context: &Context) -> Store {
    Store::new(context.path(paths::ENVIRONMENTS))
}

/// An environment and the generation that serves.
fn existing(
    name: &EnvironmentName,
    context: &Context,
) -> anyhow::Result<(Environment, GenerationId)> {
    let environment = store(context).environment(name);
    match environment.current()? {
        Some(current) => Ok((environment, current)),
        None => bail!(
            "no environment `{name}`\nhint: `buildbot-conda env create {name} --file FILE` makes it"
        ),
    }
}

/// Where packages are: the name of a managed environment, with `@GENERATION` where it is not the one that serves, or
/// the path of any environment of Conda's.
fn prefix_of(target: &str, context: &Context) -> anyhow::Result<PathBuf> {
    if target.contains('/') {
        let path = Path::new(target);
        if !path.join("conda-meta").is_dir() {
            bail!("no Conda environment `{target}`");
        }
        return Ok(path.to_owned());
    }
    let (name, generation) = match target.split_once('@') {
        None => (target, None),
        Some((name, generation)) => (name, Some(generation)),
    };
    let (environment, current) = existing(&name.parse()?, context)?;
    let generation = match generation {
        None => current,
        Some(text) => one_of(&environment, text)?,
    };
    Ok(environment.prefix(&generation))
}

/// A generation by its name or the beginning of it.
fn one_of(environment: &Environment, text: &str) -> anyhow::Result<GenerationId> {
    let generations = environment.generations()?;
    let mut found = generations
        .into_iter()
        .filter(|generation| !text.is_empty() && generation.as_str().starts_with(text));
    let name = environment.name();
    let generation = found.next().with_context(|| {
        format!(
            "`{name}` has no generation `{text}`\nhint: `buildbot-conda env list {name}` has them"
        )
    })?;
    if found.next().is_some() {
        bail!("`{name}` has several generations that begin with `{text}`");
    }
    Ok(generation)
}

/// Keeps others from changing the environment, and brings back what an interrupted command has left half done.
fn locked(environment: &Environment, context: &Context) -> anyhow::Result<Lock> {
    let lock = environment.lock()?;
    recovery::finish(environment, &lock, context)?;
    Ok(lock)
}

/// For verbs that change something.
fn ensure_root(context: &Context) -> anyhow::Result<()> {
    if !context.is_elsewhere() && !rustix::process::geteuid().is_root() {
        bail!("only root can do this\nhint: call it with sudo");
    }
    Ok(())
}
