//! `list`: every configured instance in one table.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use crate::context::Context;
use crate::output;
use crate::survey;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let settings = context.settings()?;
    let rows = survey::survey(&settings, context)?;
    if arguments.json {
        let json = serde_json::to_string_pretty(&rows).context("write JSON")?;
        return output::print(format_args!("{json}\n"));
    }
    output::print(survey::table(&rows))
}
