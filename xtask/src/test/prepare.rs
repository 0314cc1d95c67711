//! Prepares what all machines need, regardless of the packages, while these are compiled. If this fails, the first test
//! that needs it tries again and reports the error.

use std::thread;

use anyhow::Result;
use buildbot_conda_machine::{Channel, Environment, PREFIX, Release, Version, debian_root};

use super::check;
use crate::prerequisites;

/// What to make.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Install an environment from the channel, which most tests use
    #[arg(long)]
    environment: bool,
    /// Make roots of these releases
    releases: Vec<Release>,
}

/// As root: makes the Conda channel, the roots of releases, and the environment if it is wanted.
///
/// # Errors
///
/// When something cannot be made.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    thread::scope(|scope| {
        let environment = scope.spawn(|| {
            Channel::made()?;
            if arguments.environment {
                Environment::install(Version::V4_3_0, PREFIX)?;
            }
            Ok(())
        });
        for &release in &arguments.releases {
            debian_root(release)?;
        }
        environment
            .join()
            .expect("making an environment does not panic")
    })
}

/// Calls this program to do so, as root.
///
/// # Errors
///
/// As [`run`], or when root is not to be had.
pub(crate) fn call(releases: &[Release], environment: bool) -> Result<()> {
    let mut command = prerequisites::as_root(&prerequisites::this_program());
    command
        .arg("prepare")
        .args(environment.then_some("--environment"))
        .args(releases.iter().map(|release| release.code_name()));
    check(&mut command)
}
