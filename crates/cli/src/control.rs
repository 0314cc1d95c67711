//! `start`, `stop`, `restart`, `reload`, `enable` and `disable`: hidden verbs for users who know them from other tools.
//! They call `systemctl`, whose output is shown.

use std::process::{Command, ExitCode};

use anyhow::Context as _;
use buildbot_conda_core::names::InstanceRef;
use clap::Args;

use crate::system::context::{Context, InvalidConfiguration};
use crate::system::credentials;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Instances, such as `master` or `worker@gpu`
    #[arg(value_name = "REF", required = true)]
    references: Vec<InstanceRef>,
    /// With `enable` and `disable`: also start or stop the instance
    #[arg(long)]
    now: bool,
}

/// Runs `systemctl VERB`, and gives its exit status.
pub(crate) fn run(
    verb: &str,
    arguments: &Arguments,
    context: &Context,
) -> anyhow::Result<ExitCode> {
    context.ensure_here(verb)?;
    if !matches!(verb, "stop" | "disable") {
        let settings = context.settings()?;
        for reference in &arguments.references {
            let known = settings.instance(reference);
            known.map_err(InvalidConfiguration::from)?;
        }
    }
    if verb == "reload" {
        warn_of_credentials(&arguments.references, context)?;
    }
    let mut command = Command::new("systemctl");
    command.arg(verb);
    if arguments.now && matches!(verb, "enable" | "disable") {
        command.arg("--now");
    }
    let units = arguments.references.iter().map(InstanceRef::unit_name);
    let status = command
        .arg("--")
        .args(units)
        .status()
        .context("run `systemctl`")?;
    if !status.success() && matches!(verb, "start" | "restart" | "reload") {
        for reference in &arguments.references {
            eprintln!("hint: `buildbot-conda status {reference}` shows why");
        }
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

/// A reload leaves a process the credentials that it was started with.
fn warn_of_credentials(references: &[InstanceRef], context: &Context) -> anyhow::Result<()> {
    let settings = context.settings()?;
    for reference in references {
        let Ok(instance) = settings.instance(reference) else {
            continue;
        };
        for name in credentials::changed_since_start(instance, context) {
            eprintln!(
                "warning: the credential `{name}` has changed since `{reference}` was started, and \
                 a reload does not apply it\nhint: `sudo systemctl restart {}`",
                reference.unit_name()
            );
        }
    }
    Ok(())
}
