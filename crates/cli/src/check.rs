//! `check`: is the configuration good?

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::output;
use crate::system::configuration::ensure_good;
use crate::system::context::Context;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// File to check instead of the installed configuration
    file: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let settings = match &arguments.file {
        None => context.settings()?,
        Some(file) => context.settings_of(file)?,
    };
    ensure_good(&settings, context)?;
    let count = settings.instances().count();
    let noun = if count == 1 { "instance" } else { "instances" };
    output::print(format_args!("{}: valid, {count} {noun}\n", settings.file()))
}
