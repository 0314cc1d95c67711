//! `host verify DIR`: every difference, one line each. Exit status 1 when there is any.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::actual::{Selection, read_host};
use super::differences::differences;
use super::directory;
use crate::output;
use crate::system::context::Context;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Directory of the profile
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Print the differences as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    context.ensure_root()?;
    let profile = directory::read(&arguments.directory)?;
    let host = read_host(&Selection::of(&profile), context)?;
    let differences = differences(&profile, &host);
    if arguments.json {
        let text = serde_json::to_string_pretty(&differences).context("write differences")?;
        output::print(text + "\n")?;
    } else {
        let lines: Vec<String> = differences
            .iter()
            .map(|difference| format!("{difference}\n"))
            .collect();
        output::print(lines.concat())?;
        if differences.is_empty() {
            let name = arguments.directory.display();
            eprintln!("this host matches `{name}`");
        }
    }
    Ok(ExitCode::from(u8::from(!differences.is_empty())))
}
