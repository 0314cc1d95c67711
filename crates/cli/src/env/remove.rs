//! `env remove NAME`: removes an environment, unless an instance uses it.

use std::process::ExitCode;

use anyhow::bail;
use buildbot_conda_environments::EnvironmentName;
use buildbot_conda_host::Unusable;
use clap::Args;
use serde_json::Value;

use super::instances;
use super::recovery::locked;
use super::scene::store;
use crate::output::{self, Manner, Outcome};
use crate::system::context::{Context, InvalidConfiguration};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Name of the environment
    #[arg(value_name = "NAME")]
    name: EnvironmentName,
    #[command(flatten)]
    manner: Manner,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    context.ensure_root()?;
    let name = &arguments.name;
    let environment = store(context).environment(name);
    let Manner { dry_run, json } = arguments.manner;
    let mut outcome = Outcome {
        dry_run,
        after: Some(Value::Null),
        ..Outcome::default()
    };
    if !environment.directory().is_dir() {
        eprintln!(
            "environment `{name}` not found; `buildbot-conda env list` shows all\nnothing to do"
        );
        return if json {
            outcome.print()
        } else {
            Ok(ExitCode::SUCCESS)
        };
    }
    let generations = environment.generations()?;
    // If the configuration cannot be read, the users are unknown. If there is none, there are no users.
    let settings = match context.settings() {
        Err(InvalidConfiguration::Unusable(Unusable::Missing(_))) => None,
        other => Some(other?),
    };
    if let Some(settings) = settings {
        settings.check().map_err(InvalidConfiguration::from)?;
        let mut users = instances::followers(&settings, name);
        for generation in &generations {
            users.extend(instances::pinned_to(&settings, name, generation));
        }
        if let Some(user) = users.first() {
            let reference = &user.reference;
            bail!(
                "`{reference}` uses `{name}`\n\
                 hint: `buildbot-conda set {reference} conda-env ENV` selects another one"
            );
        }
    }
    for generation in &generations {
        let prefix = environment.prefix(generation);
        if !context.is_elsewhere()
            && let Some(process) = instances::processes_in(&prefix).first()
        {
            bail!("process {process} is running from `{}`", prefix.display());
        }
    }
    let directory = environment.directory().display().to_string();
    if !dry_run {
        environment.remove_all(&locked(&environment, context)?)?;
        eprintln!("removed `{name}`");
    }
    if json {
        outcome.changed = true;
        outcome.before = directory.into();
        return outcome.print();
    }
    if dry_run {
        return output::print(format_args!("remove {directory}\n"));
    }
    Ok(ExitCode::SUCCESS)
}
