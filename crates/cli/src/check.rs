//! `check`: is the configuration good?

use std::path::PathBuf;
use std::process::ExitCode;

use buildbot_conda_core::dropin::{DropIn, Refused};
use clap::Args;

use crate::context::{self, Context, InvalidConfiguration};
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// File to check instead of the host's own, for instance before it is put in place
    file: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let path = arguments
        .file
        .clone()
        .unwrap_or_else(|| context.configuration());
    let settings = context::read_settings(&path)?;
    settings.check().map_err(InvalidConfiguration::from)?;
    let refused: Vec<Refused> = settings
        .instances()
        .filter_map(|instance| DropIn::of(instance).err())
        .flatten()
        .collect();
    if !refused.is_empty() {
        return Err(InvalidConfiguration::from(refused).into());
    }
    let count = settings.instances().count();
    let noun = if count == 1 { "instance" } else { "instances" };
    output::print(format_args!("{}: good, {count} {noun}\n", path.display()))
}
