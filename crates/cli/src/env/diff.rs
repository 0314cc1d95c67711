//! `env diff`: shows the differences between two generations or environments.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_environments::{Difference, GenerationId, difference, packages_of};
use clap::Args;

use super::scene::{existing, prefix_of};
use super::table;
use crate::output::{self, Outcome};
use crate::system::context::Context;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The old environment: a name, NAME@GENERATION, or the path of a Conda environment
    #[arg(value_name = "ENV")]
    before: String,
    /// The new environment; by default, the current generation of ENV is compared with its previous one
    #[arg(value_name = "OTHER")]
    after: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let (before, after) = if let Some(after) = &arguments.after {
        (
            prefix_of(&arguments.before, context)?,
            prefix_of(after, context)?,
        )
    } else {
        let name = &arguments.before;
        let (environment, current) = existing(&name.parse()?, context)?;
        let Some(previous) = environment.previous()? else {
            bail!("`{name}` has no previous generation");
        };
        (environment.prefix(&previous), environment.prefix(&current))
    };
    let differences = difference(&packages_of(&before)?, &packages_of(&after)?);
    if arguments.json {
        let text = serde_json::to_string_pretty(&differences).context("write differences")?;
        return output::print(text + "\n");
    }
    print(&differences)
}

/// A table, or nothing where nothing differs.
pub(super) fn print(differences: &[Difference]) -> anyhow::Result<ExitCode> {
    if differences.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    output::print(text(differences))
}

/// A change of what serves as JSON, with the `differences` of the packages.
pub(super) fn report(
    from: &GenerationId,
    to: &GenerationId,
    differences: &[Difference],
    dry_run: bool,
) -> anyhow::Result<ExitCode> {
    let mut outcome = Outcome {
        changed: from != to,
        dry_run,
        before: from.as_str().into(),
        after: Some(to.as_str().into()),
        ..Outcome::default()
    };
    let differences = serde_json::to_value(differences).context("write differences")?;
    outcome.more.insert("differences".to_owned(), differences);
    outcome.print()
}

/// The table of differences, in the same form for all commands.
pub(super) fn text(differences: &[Difference]) -> String {
    let or_dash = |side: &Option<ForeignText>| side.as_deref().unwrap_or("-").to_owned();
    let rows = differences.iter().map(|one| {
        vec![
            one.name.to_string(),
            or_dash(&one.before),
            or_dash(&one.after),
        ]
    });
    table::aligned(&["PACKAGE", "BEFORE", "AFTER"], rows)
}
