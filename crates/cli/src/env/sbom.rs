//! `env sbom`: the software bill of materials of an environment.

use std::process::ExitCode;

use buildbot_conda_environments::sbom::{Component, components_of, document};
use clap::Args;

use super::scene::prefix_of;
use crate::output;
use crate::system::context::Context;

/// Print a software bill of materials
///
/// The document is JSON in the format CycloneDX 1.6. It lists every package of the environment, from the records of
/// Conda and from what pip has added, with version, checksum, licence and dependencies.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The environment: a name, NAME@GENERATION, or the path of a Conda environment
    #[arg(value_name = "ENV")]
    target: String,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let prefix = prefix_of(&arguments.target, context)?;
    let components = components_of(&prefix)?;
    // A managed environment is a directory of generations; any other one is known by its own directory.
    let last = prefix.file_name().unwrap_or_default().to_string_lossy();
    let (name, version) = if arguments.target.contains('/') {
        (last.as_ref(), None)
    } else {
        let name = arguments.target.split('@').next().unwrap_or_default();
        (name, Some(last.to_string()))
    };
    let subject = Component {
        kind: "platform",
        name: name.to_owned(),
        version,
        purl: None,
        licence: None,
        hash: None,
        needs: components
            .iter()
            .filter_map(|one| one.purl.clone())
            .collect(),
    };
    output::print(document(&subject, &components))
}
