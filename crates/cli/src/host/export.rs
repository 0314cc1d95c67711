//! `host export DIR`.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use buildbot_conda_core::names::Role;
use buildbot_conda_core::settings::{Instance, Settings};
use clap::Args;

use super::actual::{Selection, read_host};
use super::manifest::{EnvironmentEntry, Kind, Manifest};
use super::{directory, secrets, system};
use crate::output;
use crate::system::context::{Context, InvalidConfiguration};
use crate::system::exposed::Exposed;
use crate::system::record::network_file;
use crate::system::unit_files;

/// What an instance is made of, besides what Buildbot itself writes.
const MASTER_FILES: [&str; 3] = ["buildbot.tac", "master.cfg", "workers.toml"];
const WORKER_FILES: [&str; 3] = ["buildbot.tac", "info/admin", "info/host"];
/// What answers Prometheus.
const METRICS: &str = "buildbot-conda-metrics.socket";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Directory of the profile: new, empty, or an existing profile, which is updated
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Include the files of instances: `buildbot.tac`, `master.cfg`, a worker's `info`
    #[arg(long, conflicts_with = "without_files")]
    with_files: bool,
    /// Include another file of instances, such as a module that `master.cfg` imports: a path in their directories; can
    /// be repeated
    #[arg(
        long = "with-file",
        value_name = "PATH",
        conflicts_with = "without_files"
    )]
    extra: Vec<String>,
    /// Include no files of instances, even if the profile contains some
    #[arg(long)]
    without_files: bool,
    /// A value that looks like a secret but is not one, as named in the error message; can be repeated
    #[arg(long = "not-secret", value_name = "FILE:NAME")]
    not_secret: Vec<String>,
    /// Show the files that would be written or removed, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    context.ensure_root()?;
    let before = directory::read_if_any(&arguments.directory)?;
    let settings = context.settings()?;
    settings.check().map_err(InvalidConfiguration::from)?;
    let wanted = |instance: &Instance| wanted_files(instance, arguments, before.as_ref());
    let mut selection = Selection::configured(&settings, wanted, context);
    selection
        .credentials
        .extend(system::credentials_there(context)?);
    let mut host = read_host(&selection, context)?;
    refuse_variables(&host.profile.manifest.environments, context)?;
    for path in &arguments.extra {
        let is_there = host
            .profile
            .instance_files
            .keys()
            .any(|(_, found)| found == path);
        if !is_there {
            bail!("`{path}` is not a readable text file of an instance");
        }
    }
    let manifest = &mut host.profile.manifest;
    // Missing ones are named as well: whoever rebuilds the host has to provide them.
    for name in selection.credentials {
        if !manifest.credentials.contains(&name) {
            let path = system::credential_path(&name);
            let warning = format!("the credential `{path}` is configured, but not found");
            host.warnings.push(warning);
            manifest.credentials.push(name);
        }
    }
    manifest.credentials.sort();
    let mut not_secret: BTreeSet<String> = arguments.not_secret.iter().cloned().collect();
    not_secret.extend(before.iter().flat_map(|before| before.not_secret.clone()));
    let values = system::credential_values(&host.profile.manifest.credentials, context)?;
    let mut found = secrets::find(&host.profile, &settings);
    found.extend(secrets::find_values(&host.profile, &values));
    found.sort();
    found.dedup();
    let is_none = |found: &secrets::Found| not_secret.contains(&found.key());
    host.profile.manifest.not_secret = not_secret
        .iter()
        .filter(|key| found.iter().any(|found| found.key() == **key))
        .cloned()
        .collect();
    refuse(
        &found
            .into_iter()
            .filter(|one| !is_none(one))
            .collect::<Vec<_>>(),
    )?;
    host.warnings.extend(left_out(&settings, context)?);
    for warning in &host.warnings {
        eprintln!("warning: {warning}");
    }
    let changed = directory::write(
        &arguments.directory,
        &host.profile,
        &settings,
        arguments.dry_run,
        context,
    )?;
    let name = arguments.directory.display();
    if changed.is_empty() {
        eprintln!("`{name}` is up to date");
    }
    let lines: Vec<String> = changed.iter().map(|path| format!("{path}\n")).collect();
    output::print(lines.concat())
}

/// Paths in the directory of an instance. What the profile has had it has again.
fn wanted_files(
    instance: &Instance,
    arguments: &Arguments,
    before: Option<&Manifest>,
) -> Vec<String> {
    if arguments.without_files {
        return Vec::new();
    }
    let mut files: BTreeSet<String> = arguments.extra.iter().cloned().collect();
    if arguments.with_files {
        let usual: &[&str] = match instance.reference.role {
            Role::Master => &MASTER_FILES,
            Role::Worker => &WORKER_FILES,
        };
        files.extend(usual.iter().map(|path| (*path).to_owned()));
    }
    let instances = before.map(|before| before.instances.as_slice());
    let had = instances
        .unwrap_or_default()
        .iter()
        .find(|had| had.reference == instance.reference);
    files.extend(had.into_iter().flat_map(|had| had.files.keys().cloned()));
    files.into_iter().collect()
}

/// What other verbs have set up that a profile does not have, with what sets it up again.
fn left_out(settings: &Settings, context: &Context) -> anyhow::Result<Vec<String>> {
    let mut left = Vec::new();
    for instance in settings.instances() {
        let reference = &instance.reference;
        if let Some(Exposed { front, host, .. }) = Exposed::read(reference, context) {
            left.push(format!(
                "the profile does not contain that {front} serves `{reference}` at https://{host}/; \
                 `buildbot-conda web expose {reference} --host {host}` with the options of before sets it up"
            ));
        }
        if network_file(reference, context).exists() {
            left.push(format!(
                "the profile does not contain that workers on other hosts connect to `{reference}`; \
                 `buildbot-conda invite --master {reference}` sets it up, and each of them has to join again"
            ));
        }
    }
    if !unit_files::links(METRICS, context)?.is_empty() {
        left.push(format!(
            "the profile does not contain that `{METRICS}` is enabled; `systemctl enable --now {METRICS}` enables it"
        ));
    }
    Ok(left)
}

/// A managed environment is made again from its lock, which has no variables.
fn refuse_variables(environments: &[EnvironmentEntry], context: &Context) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for environment in environments {
        if environment.kind != Kind::Managed {
            continue;
        }
        let path = context.path(&format!("{}/conda-meta/state", environment.prefix));
        let names = variables(&path)?;
        if !names.is_empty() {
            lines.push(format!(
                "\n`{}`: `{}`",
                environment.prefix,
                names.join("`, `")
            ));
        }
    }
    if lines.is_empty() {
        return Ok(());
    }
    Err(anyhow::anyhow!(
        "a lock does not contain variables of a managed environment, nothing was written{}\n\
         hint: set them under `environment` in `config.toml`, and create the environment from a lock",
        lines.concat()
    ))
    .context("export this host")
}

/// Names of the variables that `conda-meta/state` sets, as `conda env config vars set` writes them.
fn variables(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("read `{}`", path.display()))?,
    };
    let state: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("read `{}`", path.display()))?;
    let variables = state.get("env_vars").and_then(serde_json::Value::as_object);
    Ok(variables
        .into_iter()
        .flatten()
        .map(|(name, _)| name.clone())
        .collect())
}

/// All of them at once, with the ways out.
fn refuse(found: &[secrets::Found]) -> anyhow::Result<()> {
    let Some(first) = found.first() else {
        return Ok(());
    };
    let lines: Vec<String> = found
        .iter()
        .map(|found| {
            format!(
                "\n{}:{}: `{}` is in plain text",
                found.file, found.line, found.name
            )
        })
        .collect();
    let first = first.key();
    Err(anyhow::anyhow!(
        "a profile must not contain secrets, nothing was written{}\n\
         hint: store it in a file of `credentials`, see buildbot-conda.toml(5); if it is not a secret, use `--not-secret {first}`",
        lines.concat()
    ))
    .context("export this host")
}
