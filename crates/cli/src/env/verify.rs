//! `env verify`: compares every file with the record of its package in `conda-meta`. The exit status is 1 if one
//! differs.

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use buildbot_conda_environments::{packages_of, verify};
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
    /// Print the differences as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let prefix = prefix_of(&arguments.target, context)?;
    let packages = packages_of(&prefix)?;
    ensure!(
        !packages.is_empty(),
        "`{}` contains no packages",
        prefix.display()
    );
    let findings = verify(&prefix)?;
    if arguments.json {
        let text = serde_json::to_string_pretty(&findings).context("write findings")?;
        output::print(text + "\n")?;
    } else if findings.is_empty() {
        eprintln!(
            "`{}`: {} packages, unchanged since they were installed",
            prefix.display(),
            packages.len()
        );
    } else {
        let rows = findings.iter().map(|finding| {
            let package = finding.package.as_deref().unwrap_or("-").to_owned();
            vec![finding.what.to_owned(), package, finding.path.to_string()]
        });
        output::print(table::aligned(&["FINDING", "PACKAGE", "PATH"], rows))?;
    }
    Ok(ExitCode::from(u8::from(!findings.is_empty())))
}
