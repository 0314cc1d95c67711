//! `cargo xtask`: the single command for everything that is done with this repository. This file contains only the
//! grammar.

mod arrows;
mod bench;
mod check;
mod deb;
mod demo;
mod faults;
mod fuzz;
mod interrupted;
mod matrix;
mod pictures;
mod prerequisites;
mod repo;
mod reproduce;
mod stages;
mod test;
mod tidy;
mod tree;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Build, show and test buildbot-conda.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build the package, install it on a throwaway Debian and carry one Buildbot build through
    Demo(demo::Arguments),
    /// Run every test
    Test(test::Arguments),
    /// As root: make what the machines of the tests are made of
    #[command(hide = true)]
    Prepare(test::prepare::Arguments),
    /// Try what must hold for every input, with many more inputs than the tests do
    Fuzz(fuzz::Arguments),
    /// Build the package and print its path
    Deb(deb::Arguments),
    /// Build the package twice under different conditions, compare, and write its `.buildinfo`
    Reproduce(reproduce::Arguments),
    /// Print the tables of faults and attacks of the last test run, or record them and the interruptions in `docs`
    Faults(faults::Arguments),
    /// Make the pictures of the README on a throwaway Debian, the web pages in a real browser
    Pictures(pictures::Arguments),
    /// Make, extend and verify a signed apt repository, as `buildbot-conda repo` does
    #[command(subcommand)]
    Repo(buildbot_conda_repository::command::Verb),
    /// Check formatting, lints and the rules of the repository
    Check,
    /// Measure, as ratios side by side in one run
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    match run(Arguments::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace's directory");
    match verb {
        Verb::Demo(arguments) => demo::run(workspace, arguments),
        Verb::Test(arguments) => test::run(workspace, &arguments),
        Verb::Prepare(arguments) => test::prepare::run(&arguments),
        Verb::Fuzz(arguments) => fuzz::run(workspace, &arguments),
        Verb::Deb(arguments) => deb::run(workspace, &arguments),
        Verb::Reproduce(arguments) => reproduce::run(workspace, &arguments),
        Verb::Faults(arguments) => faults::run(workspace, &arguments),
        Verb::Pictures(arguments) => pictures::run(workspace, arguments),
        Verb::Repo(verb) => repo::run(&verb),
        Verb::Check => check::run(workspace),
        Verb::Bench(arguments) => bench::run(workspace, &arguments),
    }
}
