//! `buildbot-conda-env`: makes a generation of a managed environment from a file that says what is in it.
//!
//! `buildbot-conda env create` and `env update` call it, as it has what is large: reading lock files, solving,
//! downloading, installing. It makes `DIRECTORY/.building` and renames it; which generation serves is not its business,
//! nor are services. What it has done is one JSON object on stdout.

mod archives;
mod build;
mod bytecode;
mod client;
mod compile;
mod contents;
mod input;
mod link;
mod parallel;
mod progress;
mod safety;
mod solve;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

/// Make a generation of a managed Conda environment, for `buildbot-conda env`
#[derive(Debug, Parser)]
#[command(name = "buildbot-conda-env", version)]
pub(crate) struct Arguments {
    /// What is in it: an `@EXPLICIT` list, `environment.yml`, `pixi.lock` or `conda-lock.yml`
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Directory of the environment, which has a directory for each generation
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// What the directory will be called when the environment is used, where that is another name
    #[arg(long, value_name = "DIR")]
    used_as: Option<PathBuf>,
    /// Make no generation but this prefix, for `host apply`: one that Conda had made and shall go on with
    #[arg(long, value_name = "PREFIX", conflicts_with = "used_as")]
    at: Option<PathBuf>,
    /// Where archives and unpacked packages are kept
    #[arg(long, value_name = "DIR")]
    cache: PathBuf,
    /// Channels to solve an `environment.yml` with, instead of its own
    #[arg(long = "channel", value_name = "CHANNEL")]
    channels: Vec<String>,
    /// Another address for a channel, first choice for what is below it
    #[arg(long = "mirror", value_name = "URL=MIRROR")]
    mirrors: Vec<String>,
    /// Which environment of a `pixi.lock`
    #[arg(long, value_name = "NAME", default_value = "default")]
    environment: String,
    /// Use what is cached or local, and no network
    #[arg(long)]
    offline: bool,
    /// Say which packages it would have, and make nothing
    #[arg(long)]
    dry_run: bool,
}

fn main() -> ExitCode {
    // Whoever installs it, everyone may use it, and nobody else may change it.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // Installed once, and by nobody else before: the crates choose none themselves.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start threads")?;
    let answer = runtime.block_on(build::run(arguments))?;
    let text = serde_json::to_string(&answer).context("write the answer")?;
    writeln!(std::io::stdout(), "{text}").context("write the answer")
}
