//! `env create NAME [--file FILE]`: the first generation of an environment.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use buildbot_conda_core::paths;
use buildbot_conda_environments::{EnvironmentName, GenerationId};
use clap::Args;
use serde_json::Value;

use super::builder::{self, Answer, Source};
use super::recovery::locked;
use super::scene::store;
use super::show;
use crate::output::{self, Manner, Outcome};
use crate::system::context::Context;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Name of the environment
    #[arg(value_name = "NAME")]
    name: EnvironmentName,
    /// File with the packages: an `@EXPLICIT` list, `environment.yml`, `pixi.lock` or `conda-lock.yml`; by default
    /// `/usr/share/buildbot-conda/environment.yml`, a Buildbot from conda-forge
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    manner: Manner,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let name = &arguments.name;
    context.ensure_root()?;
    let Manner { dry_run, json } = arguments.manner;
    let environment = store(context).environment(name);
    let file = match &arguments.file {
        Some(file) => file.clone(),
        None => context.path(paths::ENVIRONMENT_FILE),
    };
    let mut outcome = Outcome {
        dry_run,
        ..Outcome::default()
    };
    let current = environment.current()?;
    if dry_run || current.is_some() {
        let answer = builder::build(&environment, &file, &arguments.source, None, context)?;
        let generation = answer.generation()?;
        if let Some(current) = &current {
            ensure!(
                *current == generation,
                "the environment `{name}` already exists, with other packages\n\
                 hint: `buildbot-conda env update {name} --file FILE` changes it"
            );
            eprintln!(
                "`{name}` already exists with these packages, generation {current}\nnothing to do"
            );
        }
        outcome.changed = current.is_none();
        outcome.before = current.map_or(Value::Null, |current| current.as_str().into());
        return report(outcome, &answer, &generation, json);
    }
    let lock = locked(&environment, context)?;
    let answer = builder::build(&environment, &file, &arguments.source, Some(&lock), context)?;
    let generation = answer.generation()?;
    environment.switch(&generation, &lock)?;
    eprintln!(
        "created `{name}` with {} packages in `{}`",
        answer.packages.len(),
        paths::managed_prefix(name.as_str())
    );
    if json {
        outcome.changed = true;
        return report(outcome, &answer, &generation, json);
    }
    output::print(format_args!("{generation}\n"))
}

/// The packages, or all of it as JSON.
fn report(
    mut outcome: Outcome,
    answer: &Answer,
    generation: &GenerationId,
    json: bool,
) -> anyhow::Result<ExitCode> {
    if !json {
        return show::print(&answer.packages, false);
    }
    outcome.after = Some(generation.as_str().into());
    let packages = serde_json::to_value(&answer.packages).context("write packages")?;
    outcome.more.insert("packages".to_owned(), packages);
    outcome.print()
}
