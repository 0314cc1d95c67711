//! `cargo xtask bench`: figures, as ratios of medians taken side by side in one run. Nothing is
//! asserted: the machine of the day decides the milliseconds.

mod launch;
mod measure;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Subcommand};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Subcommand)]
enum Subject {
    /// What entering an environment costs, and what the generator does at boot
    Launch(LaunchArguments),
}

#[derive(Args)]
struct LaunchArguments {
    /// Runs of each command
    #[arg(long, default_value_t = 100, value_name = "N")]
    runs: usize,
    /// A conda installation with an environment to compare `source activate` with
    #[arg(long, value_name = "ROOT")]
    conda: Option<PathBuf>,
    /// Print JSON instead of the table
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(workspace: &Path, arguments: &Arguments) -> Result<()> {
    match &arguments.subject {
        Subject::Launch(arguments) => launch::run(workspace, arguments),
    }
}
