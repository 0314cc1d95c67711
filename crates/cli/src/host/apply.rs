//! `host apply DIR`: creates a plan from the differences and carries it out. Then the host is examined again:
//! differences that are only visible then, such as the mode of a new directory, are removed as well.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use buildbot_conda_core::settings::Settings;
use clap::Args;
use serde_json::Value;

use super::actual::{Selection, read_host};
use super::differences::differences;
use super::profile::Profile;
use super::steps::{self, Wish};
use super::{credentials, directory};
use crate::output::{self, Manner, Outcome};
use crate::plan;
use crate::system::context::{Context, InvalidConfiguration};

/// A second look finds what the first plan has brought about, a third one that nothing is left.
const LOOKS: usize = 3;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Directory of the profile
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Read missing credentials from files with their names in this directory
    #[arg(long, value_name = "DIR")]
    secrets: Option<PathBuf>,
    /// Do not restart running instances; they apply the changes at the next restart
    #[arg(long)]
    no_restart: bool,
    /// Mirror for addresses below a URL, for environments; can be repeated
    #[arg(long = "mirror", value_name = "URL=MIRROR")]
    mirrors: Vec<String>,
    /// Create environments only from cached and local packages, without network access
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    manner: Manner,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    if context.is_elsewhere() && !arguments.manner.dry_run {
        bail!(
            "`host apply` changes a running system and cannot be used with `--root`\n\
             hint: `--dry-run` shows the steps"
        );
    }
    context.ensure_root()?;
    let profile = directory::read(&arguments.directory)?;
    let name = arguments.directory.join("config.toml");
    let settings = Settings::parse(
        &name.display().to_string(),
        profile.configuration.as_bytes(),
    );
    settings.check().map_err(InvalidConfiguration::from)?;
    ensure_agree(&profile, &settings, arguments)?;
    directory::ensure_believable(&arguments.directory, &settings, context)?;
    let Manner { dry_run, json } = arguments.manner;
    let state = || -> anyhow::Result<Value> {
        if !json {
            return Ok(Value::Null);
        }
        let host = read_host(&Selection::of(&profile), context)?;
        serde_json::to_value(differences(&profile, &host)).context("describe the differences")
    };
    let mut outcome = Outcome {
        dry_run,
        before: state()?,
        ..Outcome::default()
    };
    if dry_run {
        plan::announce_unfinished(context);
        let (plan, left) = plan(arguments, &profile, &settings, context)?;
        for line in &left {
            eprintln!("{line}");
        }
        if plan.steps.is_empty() {
            eprintln!("nothing to do");
        }
        if json {
            outcome.changed = !plan.steps.is_empty();
            outcome.steps = plan.steps.iter().map(ToString::to_string).collect();
            return outcome.print();
        }
        return output::print(plan);
    }
    let journal = plan::begin(context)?;
    for _ in 0..LOOKS {
        let (plan, left) = plan(arguments, &profile, &settings, context)?;
        if plan.steps.is_empty() {
            for line in &left {
                eprintln!("{line}");
            }
            let message = if outcome.changed {
                "done"
            } else {
                "nothing to do"
            };
            eprintln!("{message}");
            if json {
                outcome.after = Some(state()?);
                return outcome.print();
            }
            return Ok(ExitCode::SUCCESS);
        }
        outcome.changed = true;
        outcome
            .steps
            .extend(plan.steps.iter().map(ToString::to_string));
        plan::carry_out(&plan, &journal, None)?;
    }
    bail!(
        "this host still differs from `{dir}`\nhint: `buildbot-conda host verify {dir}` shows the differences",
        dir = arguments.directory.display()
    )
}

/// Both files of a profile contain the directories and accounts of instances: whoever edits one must edit the other.
fn ensure_agree(
    profile: &Profile,
    settings: &Settings,
    arguments: &Arguments,
) -> anyhow::Result<()> {
    let name = arguments.directory.display();
    for entry in &profile.manifest.instances {
        let reference = &entry.reference;
        let configured = settings
            .instance(reference)
            .map_err(InvalidConfiguration::from)?;
        let (directory, user) = (configured.directory.as_str(), configured.user.as_str());
        if (directory, user) != (entry.directory.as_str(), entry.user.as_str()) {
            bail!(
                "`{reference}` is in `{directory}` as `{user}` according to `{name}/config.toml`, but in `{}` as \
                 `{}` according to `{name}/host.toml`\nhint: change both",
                entry.directory,
                entry.user
            );
        }
    }
    Ok(())
}

/// What is to be done now, and lines about what is left to others.
fn plan(
    arguments: &Arguments,
    profile: &Profile,
    settings: &Settings,
    context: &Context,
) -> anyhow::Result<(plan::Plan, Vec<String>)> {
    let host = read_host(&Selection::of(profile), context)?;
    let differences = differences(profile, &host);
    let secrets = credentials::gather(
        &differences,
        arguments.secrets.as_deref(),
        arguments.manner.dry_run,
    )?;
    let mut options: Vec<String> = Vec::new();
    for mirror in &arguments.mirrors {
        options.extend(["--mirror".to_owned(), mirror.clone()]);
    }
    if arguments.offline {
        options.push("--offline".to_owned());
    }
    let wish = Wish {
        profile,
        settings,
        host: &host,
        differences: &differences,
        secrets,
        options,
        no_restart: arguments.no_restart,
        title: format!("host apply {}", arguments.directory.display()),
    };
    steps::plan(&wish, context)
}
