//! `env gc`: removes generations that are not used and not needed for a rollback.

use std::fs;
use std::io::ErrorKind;
use std::process::ExitCode;

use anyhow::Context as _;
use buildbot_conda_core::paths;
use buildbot_conda_environments::EnvironmentName;
use clap::Args;

use super::instances;
use super::recovery::locked;
use super::scene::{existing, store};
use crate::output;
use crate::system::context::{Context, InvalidConfiguration};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only this environment
    #[arg(value_name = "NAME")]
    name: Option<EnvironmentName>,
    /// Also empty the package cache; packages are downloaded again when they are needed
    #[arg(long)]
    cache: bool,
    /// Show what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the removed paths as a JSON list
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    context.ensure_root()?;
    // Not with a configuration that cannot be read: what it uses would go.
    let settings = context.settings()?;
    settings.check().map_err(InvalidConfiguration::from)?;
    let environments = match &arguments.name {
        None => store(context).environments()?,
        Some(name) => vec![existing(name, context)?.0],
    };
    let mut removed = Vec::new();
    for environment in environments {
        let lock = locked(&environment, context)?;
        let (current, previous) = (environment.current()?, environment.previous()?);
        for generation in environment.generations()? {
            let prefix = environment.prefix(&generation);
            let is_wanted = [&current, &previous].contains(&&Some(generation.clone()))
                || !instances::pinned_to(&settings, environment.name(), &generation).is_empty()
                || (!context.is_elsewhere() && !instances::processes_in(&prefix).is_empty());
            if is_wanted {
                continue;
            }
            removed.push(prefix.display().to_string());
            if !arguments.dry_run {
                environment.remove(&generation, &lock)?;
            }
        }
    }
    if arguments.cache {
        let cache = context.path(paths::PACKAGE_CACHE);
        removed.push(cache.display().to_string());
        if !arguments.dry_run {
            match fs::remove_dir_all(&cache) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove `{}`", cache.display()));
                }
                _ => {}
            }
        }
    }
    if arguments.json {
        let text = serde_json::to_string_pretty(&removed).context("write what is removed")?;
        return output::print(text + "\n");
    }
    let lines: Vec<String> = removed.iter().map(|path| format!("{path}\n")).collect();
    output::print(lines.concat())
}
