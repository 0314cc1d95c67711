//! `env list [NAME]`: lists environments with their generations and users.

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::settings::Settings;
use buildbot_conda_environments::{Environment, EnvironmentName, LOCK_FILE, packages_of};
use buildbot_conda_host::Unusable;
use clap::Args;
use serde::Serialize;

use super::scene::{existing, store};
use super::{instances, table};
use crate::output;
use crate::system::context::{Context, InvalidConfiguration};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only this environment
    #[arg(value_name = "NAME")]
    name: Option<EnvironmentName>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One generation. `--json` prints a list of these, by environment and then the oldest first.
#[derive(Debug, Serialize)]
struct Row {
    environment: String,
    generation: String,
    /// Whether it is the one that serves.
    current: bool,
    /// Where it is.
    prefix: String,
    /// Seconds since 1970.
    made: u64,
    /// How many there are.
    packages: usize,
    /// Version of the package `buildbot`, or else of `buildbot-worker`.
    buildbot: Option<ForeignText>,
    /// Instances that are configured to use it.
    instances: Vec<String>,
    /// Processes that run from it, as far as this account may see them.
    processes: Vec<u32>,
}

/// The configuration, which names the users of an environment. A host may have environments before it has a
/// configuration; if the configuration cannot be read, the users are unknown.
fn configured(context: &Context) -> Option<Settings> {
    let warn = |why: &dyn std::fmt::Display| {
        eprintln!("cannot determine all instances that use an environment: {why}");
    };
    match context.settings() {
        Ok(settings) => {
            if let Err(refusal) = settings.check() {
                warn(&refusal);
            }
            Some(settings)
        }
        Err(InvalidConfiguration::Unusable(Unusable::Missing(_))) => None,
        Err(error) => {
            warn(&error);
            None
        }
    }
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let environments = match &arguments.name {
        None => store(context).environments()?,
        Some(name) => vec![existing(name, context)?.0],
    };
    let settings = configured(context);
    let mut rows = Vec::new();
    for environment in &environments {
        rows.extend(rows_of(environment, settings.as_ref(), context)?);
    }
    if arguments.json {
        let text = serde_json::to_string_pretty(&rows).context("write environments")?;
        return output::print(text + "\n");
    }
    let lines = rows.iter().map(|row| {
        let mark = if row.current { "in use" } else { "" };
        vec![
            row.environment.clone(),
            row.generation.clone(),
            mark.to_owned(),
            shown_time(row.made),
            row.packages.to_string(),
            row.buildbot.as_deref().unwrap_or("-").to_owned(),
            row.instances.join(" "),
            row.processes.len().to_string(),
        ]
    });
    let header = [
        "ENVIRONMENT",
        "GENERATION",
        "",
        "MADE",
        "PACKAGES",
        "BUILDBOT",
        "INSTANCES",
        "PROCESSES",
    ];
    output::print(table::aligned(&header, lines))
}

/// `2026-11-22 12:34`, in UTC.
fn shown_time(made: u64) -> String {
    let text =
        humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(made)).to_string();
    text.chars().take(16).collect::<String>().replace('T', " ")
}

fn rows_of(
    environment: &Environment,
    settings: Option<&Settings>,
    context: &Context,
) -> anyhow::Result<Vec<Row>> {
    let name = environment.name();
    let current = environment.current()?;
    let mut rows = Vec::new();
    for generation in environment.generations()? {
        let prefix = environment.prefix(&generation);
        let is_current = current.as_ref() == Some(&generation);
        let packages = packages_of(&prefix)?;
        let version = |name: &str| {
            let package = packages.iter().find(|package| package.name == name)?;
            Some(package.version.clone())
        };
        let made = fs::metadata(prefix.join(LOCK_FILE))
            .and_then(|metadata| metadata.modified())
            .with_context(|| format!("examine `{}`", prefix.display()))?;
        let mut users = Vec::new();
        if let Some(settings) = settings {
            users = instances::pinned_to(settings, name, &generation);
            if is_current {
                users.extend(instances::followers(settings, name));
            }
        }
        rows.push(Row {
            environment: name.to_string(),
            generation: generation.to_string(),
            current: is_current,
            made: made
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs(),
            packages: packages.len(),
            buildbot: version("buildbot").or_else(|| version("buildbot-worker")),
            instances: users
                .iter()
                .map(|instance| instance.reference.to_string())
                .collect(),
            processes: if context.is_elsewhere() {
                Vec::new()
            } else {
                instances::processes_in(&prefix)
            },
            prefix: prefix.display().to_string(),
        });
    }
    Ok(rows)
}
