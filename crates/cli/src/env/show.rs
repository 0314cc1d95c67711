//! `env show`: the packages of an environment.

use std::process::ExitCode;

use anyhow::Context as _;
use buildbot_conda_environments::{Package, packages_of};
use clap::Args;

use super::scene::prefix_of;
use super::table;
use crate::output;
use crate::system::context::Context;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The environment: a name, NAME@GENERATION, or the path of a Conda environment
    #[arg(value_name = "ENV")]
    target: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let packages = packages_of(&prefix_of(&arguments.target, context)?)?;
    print(&packages, arguments.json)
}

/// Packages in the order that they have.
pub(super) fn print(packages: &[Package], json: bool) -> anyhow::Result<ExitCode> {
    if json {
        let text = serde_json::to_string_pretty(packages).context("write packages")?;
        return output::print(text + "\n");
    }
    let rows = packages.iter().map(|package| {
        let Package {
            name,
            version,
            build,
            subdir,
            ..
        } = package;
        [name, version, build, subdir]
            .map(ToString::to_string)
            .to_vec()
    });
    output::print(table::aligned(
        &["PACKAGE", "VERSION", "BUILD", "PLATFORM"],
        rows,
    ))
}
