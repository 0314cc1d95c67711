//! `list`: every configured instance in one table.

use std::process::ExitCode;

use clap::Args;

use crate::listing::{self, Options};
use crate::system::context::Context;
use crate::{survey, table};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: Options,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let rows = || survey::survey(&context.settings()?, context);
    listing::show(&arguments.options, false, rows, table::of)
}
