//! The command line of the program.

use std::path::PathBuf;

use clap::Parser;

use crate::limits::Limits;

/// Make a generation of a managed Conda environment, for `buildbot-conda env`
#[derive(Debug, Parser)]
#[command(name = "buildbot-conda-env", version)]
pub(crate) struct Arguments {
    /// What is in it: an `@EXPLICIT` list, `environment.yml`, `pixi.lock` or `conda-lock.yml`
    #[arg(long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Directory of the environment, which has a directory for each generation
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// What the directory will be called when the environment is used, where that is another name
    #[arg(long, value_name = "DIR")]
    pub(crate) used_as: Option<PathBuf>,
    /// Make no generation but this prefix, for `host apply`: one that Conda had made and shall go on with
    #[arg(long, value_name = "PREFIX", conflicts_with = "used_as")]
    pub(crate) at: Option<PathBuf>,
    /// Where archives and unpacked packages are kept
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: PathBuf,
    /// Channels to solve an `environment.yml` with, instead of its own
    #[arg(long = "channel", value_name = "CHANNEL")]
    pub(crate) channels: Vec<String>,
    /// Another address for a channel, first choice for what is below it
    #[arg(long = "mirror", value_name = "URL=MIRROR")]
    pub(crate) mirrors: Vec<String>,
    /// Which environment of a `pixi.lock`
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) environment: String,
    #[command(flatten)]
    pub(crate) limits: Limits,
    /// Use what is cached or local, and no network
    #[arg(long)]
    pub(crate) offline: bool,
    /// Say which packages it would have, and make nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}
