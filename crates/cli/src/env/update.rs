//! `env update NAME --file FILE`: creates a new generation next to the current one.

use std::path::PathBuf;
use std::process::ExitCode;

use buildbot_conda_environments::{EnvironmentName, difference, packages_of};
use clap::Args;

use super::builder::{self, Source};
use super::change::{self, Change, Restarts};
use super::diff;
use super::recovery::locked;
use super::scene::existing;
use crate::output::Manner;
use crate::system::context::Context;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Name of the environment
    #[arg(value_name = "NAME")]
    name: EnvironmentName,
    /// File with the new packages: an `@EXPLICIT` list, `environment.yml`, `pixi.lock` or `conda-lock.yml`
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    restarts: Restarts,
    #[command(flatten)]
    manner: Manner,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    context.ensure_root()?;
    let Manner { dry_run, json } = arguments.manner;
    let name = &arguments.name;
    let (environment, _) = existing(name, context)?;
    let lock = if dry_run {
        None
    } else {
        Some(locked(&environment, context)?)
    };
    // Asked again: what an interrupted command left half done is undone by now.
    let (environment, from) = existing(name, context)?;
    let before = packages_of(&environment.prefix(&from))?;
    let answer = builder::build(
        &environment,
        &arguments.file,
        &arguments.source,
        lock.as_ref(),
        context,
    )?;
    let to = answer.generation()?;
    let differences = difference(&before, &answer.packages);
    if let Some(lock) = lock.filter(|_| to != from) {
        let change = Change {
            environment: &environment,
            from: &from,
            to: &to,
            restarts: &arguments.restarts,
        };
        change::carry_out(&change, &lock, context)?;
    }
    if json {
        return diff::report(&from, &to, &differences, dry_run);
    }
    if to == from {
        eprintln!("`{name}` is up to date, generation {from}");
        return Ok(ExitCode::SUCCESS);
    }
    let tense = if dry_run {
        "would be in use"
    } else {
        "is in use"
    };
    eprintln!("`{name}`: generation {to} {tense} instead of {from}");
    diff::print(&differences)
}
