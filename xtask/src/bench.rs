//! `cargo xtask bench`: measurements, as ratios of medians from alternating runs. Nothing is asserted, because the
//! milliseconds depend on the machine.

mod cli;
mod env;
mod farm;
mod install;
mod launch;
mod measure;
mod start;

use std::path::{Path, PathBuf};

use anyhow::Result;
use buildbot_conda_machine::Release;
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
    /// From `systemctl start` to serving, and resident memory, against a plain unit on a booted machine
    Start(StartArguments),
    /// `apt install` of the package against one of a single file, on a booted machine
    Install(InstallArguments),
    /// `check`, `run` and `status --json` of the command line, the last on a booted machine
    Cli(CliArguments),
    /// Making an environment from a local channel, against py-rattler, and the size of the package that does it
    Env(EnvArguments),
    /// Many workers of one host, as slots of one service and as services: memory, attaching, `doctor`, a loop of `create`
    Farm(FarmArguments),
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

#[derive(Args)]
struct StartArguments {
    /// Starts of each unit
    #[arg(long, default_value_t = 10, value_name = "N")]
    runs: usize,
    /// The Debian release to boot
    #[arg(long, default_value = "bookworm")]
    release: Release,
    /// Print JSON instead of the table
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct InstallArguments {
    /// Installations of each package
    #[arg(long, default_value_t = 10, value_name = "N")]
    runs: usize,
    /// The Debian release to boot
    #[arg(long, default_value = "bookworm")]
    release: Release,
    /// Print JSON instead of the table
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct CliArguments {
    /// Runs of each command
    #[arg(long, default_value_t = 50, value_name = "N")]
    runs: usize,
    /// The Debian release to boot
    #[arg(long, default_value = "bookworm")]
    release: Release,
    /// Leave out `status`, which needs a booted machine
    #[arg(long)]
    without_machine: bool,
    /// Print JSON instead of the table
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct EnvArguments {
    /// Environments made in each way
    #[arg(long, default_value_t = 5, value_name = "N")]
    runs: usize,
    /// Print JSON instead of the table
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct FarmArguments {
    /// Workers in each form
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = workers)]
    workers: usize,
    /// Restarts of the master, and runs of `doctor` and `list`, with each form
    #[arg(long, default_value_t = 3, value_name = "N")]
    runs: usize,
    /// The Debian release to boot
    #[arg(long, default_value = "bookworm")]
    release: Release,
    /// Print JSON instead of the table
    #[arg(long)]
    json: bool,
}

/// As many as one service can have slots.
fn workers(text: &str) -> Result<usize, String> {
    let number = text.parse().ok();
    number
        .filter(|number| (2..=200).contains(number))
        .ok_or_else(|| "use a number from 2 to 200".to_owned())
}

pub(crate) fn run(workspace: &Path, arguments: &Arguments) -> Result<()> {
    match &arguments.subject {
        Subject::Launch(arguments) => launch::run(workspace, arguments),
        Subject::Start(arguments) => start::run(workspace, arguments),
        Subject::Install(arguments) => install::run(workspace, arguments),
        Subject::Cli(arguments) => cli::run(workspace, arguments),
        Subject::Env(arguments) => env::run(workspace, arguments),
        Subject::Farm(arguments) => farm::run(workspace, arguments),
    }
}
