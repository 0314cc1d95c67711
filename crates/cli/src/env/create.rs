//! `env create NAME [--file FILE]`: the first generation of an environment.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use buildbot_conda_core::paths;
use buildbot_conda_environments::EnvironmentName;
use clap::Args;

use super::builder::{self, Source};
use super::recovery::locked;
use super::scene::store;
use super::show;
use crate::output;
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
    /// Show the packages that would be installed, and create nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the packages as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let name = &arguments.name;
    context.ensure_root()?;
    let environment = store(context).environment(name);
    if environment.current()?.is_some() {
        bail!(
            "the environment `{name}` already exists\n\
             hint: `buildbot-conda env update {name} --file FILE` changes it"
        );
    }
    let file = match &arguments.file {
        Some(file) => file.clone(),
        None => context.path(paths::ENVIRONMENT_FILE),
    };
    if arguments.dry_run {
        let answer = builder::build(&environment, &file, &arguments.source, None, context)?;
        return show::print(&answer.packages, arguments.json);
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
    if arguments.json {
        return show::print(&answer.packages, true);
    }
    output::print(format_args!("{generation}\n"))
}
