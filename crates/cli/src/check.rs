//! `check`: is the configuration good?

use std::path::PathBuf;
use std::process::ExitCode;

use buildbot_conda_core::settings::Hardening;
use buildbot_conda_host::systemd::{STRICT_SYSTEMD, too_old_for_strict};
use clap::Args;

use crate::output;
use crate::system::context::{Context, InvalidConfiguration};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// File to check instead of the host's own, for instance before it is put in place
    file: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let settings = match &arguments.file {
        None => context.settings()?,
        Some(file) => context.settings_of(file)?,
    };
    settings.check().map_err(InvalidConfiguration::from)?;
    if let Some(version) = too_old_for_strict(Some(&context.path("/"))) {
        let strict = settings
            .instances()
            .filter(|instance| instance.hardening == Hardening::Strict);
        let names: Vec<String> = strict
            .map(|instance| format!("`{}`", instance.reference))
            .collect();
        if !names.is_empty() {
            anyhow::bail!(
                "`hardening = \"strict\"` of {} needs systemd {STRICT_SYSTEMD}, and this host has {version}\n\
                 hint: choose `hardening = \"standard\"`",
                names.join(", ")
            );
        }
    }
    let count = settings.instances().count();
    let noun = if count == 1 { "instance" } else { "instances" };
    output::print(format_args!("{}: good, {count} {noun}\n", settings.file()))
}
