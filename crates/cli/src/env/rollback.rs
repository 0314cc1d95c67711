//! `env rollback NAME [GENERATION]`: makes an earlier generation current again.

use std::process::ExitCode;

use anyhow::bail;
use buildbot_conda_environments::{EnvironmentName, difference, packages_of};
use clap::Args;

use super::change::{self, Change, Restarts};
use super::databases::Databases;
use super::diff;
use super::recovery::locked;
use super::scene::{existing, one_of};
use crate::output::Manner;
use crate::system::context::Context;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Name of the environment
    #[arg(value_name = "NAME")]
    name: EnvironmentName,
    /// The generation, or the beginning of its name; by default the previous one
    #[arg(value_name = "GENERATION")]
    generation: Option<String>,
    #[command(flatten)]
    restarts: Restarts,
    /// Also restore the databases of the masters from before the upgrade: builds since then are lost
    #[arg(long, conflicts_with_all = ["no_restart", "json"])]
    with_database: bool,
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
    let (environment, from) = existing(name, context)?;
    let to = match &arguments.generation {
        Some(text) => one_of(&environment, text)?,
        None => match environment.previous()? {
            Some(previous) => previous,
            None => bail!("`{name}` has no previous generation"),
        },
    };
    if to == from {
        eprintln!("generation {to} of `{name}` is already in use");
        return if json {
            diff::report(&from, &to, &[], dry_run)
        } else {
            Ok(ExitCode::SUCCESS)
        };
    }
    let differences = difference(
        &packages_of(&environment.prefix(&from))?,
        &packages_of(&environment.prefix(&to))?,
    );
    let change = Change {
        environment: &environment,
        from: &from,
        to: &to,
        restarts: &arguments.restarts,
    };
    let databases = if arguments.with_database {
        Databases::upgraded_by(&change, context)?
    } else {
        Databases::default()
    };
    // What is lost, before anything happens.
    eprint!("{databases}");
    match lock {
        None => {}
        Some(lock) if !databases.is_empty() => databases.roll_back(&change, &lock)?,
        Some(lock) => change::carry_out(&change, &lock, context).map_err(|error| {
            let upgraded = Databases::upgraded_by(&change, context).unwrap_or_default();
            upgraded.with_hint(error, name)
        })?,
    }
    if json {
        return diff::report(&from, &to, &differences, dry_run);
    }
    let tense = if dry_run {
        "would be in use"
    } else {
        "is in use"
    };
    eprintln!("`{name}`: generation {to} {tense} instead of {from}");
    diff::print(&differences)
}
