//! `env lock`: an `@EXPLICIT` list with checksums, which makes the same environment again.

use std::process::ExitCode;

use buildbot_conda_environments::{lock_text, packages_of};
use clap::Args;

use super::scene::prefix_of;
use crate::output;
use crate::system::context::Context;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The environment: a name, NAME@GENERATION, or the path of a Conda environment
    #[arg(value_name = "ENV")]
    target: String,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let prefix = prefix_of(&arguments.target, context)?;
    output::print(lock_text(&packages_of(&prefix)?)?)
}
