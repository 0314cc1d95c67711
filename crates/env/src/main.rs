//! `buildbot-conda-env`: creates a generation of a managed environment from a file that lists its packages.
//!
//! `buildbot-conda env create` and `env update` call it, because it contains the large libraries: for reading lock
//! files, solving, downloading and installing. It creates `DIRECTORY/.building` and renames it; it neither changes the
//! current generation nor knows about services. Its result is one JSON object on stdout.

#![warn(
    clippy::print_stderr,
    reason = "the macros of the standard library panic when nobody reads"
)]

mod archives;
mod arguments;
mod build;
mod bytecode;
mod client;
mod compile;
mod contents;
mod failure;
mod input;
mod limits;
mod link;
mod output;
mod parallel;
mod place;
mod progress;
mod safety;
mod sandbox;
mod solve;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::arguments::Arguments;

fn main() -> ExitCode {
    // Regardless of who installs it, everyone may use it, and nobody else may change it.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let arguments = Arguments::parse();
    match failure::caught(|| run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            build::discard(&arguments);
            output::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // Installed only here: the libraries choose none themselves.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start threads")?;
    let answer = runtime.block_on(build::run(arguments))?;
    let text = serde_json::to_string(&answer).context("write the answer")?;
    output::print(text)
}
