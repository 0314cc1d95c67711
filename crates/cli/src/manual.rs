//! `manual`: the manual pages of the command and its verbs, made from the grammar itself, so that they cannot miss a
//! verb or an option. Hidden: `cargo xtask deb` calls it, and adds the sections that only a person can write.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Command};
use clap_mangen::Man;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Directory to write them to, `buildbot-conda.1` and one for each verb
    directory: PathBuf,
    /// The date at the foot of each page
    #[arg(long, value_name = "YYYY-MM-DD", default_value = "")]
    date: String,
}

/// Writes a page for every command of `grammar` that is not hidden.
pub(crate) fn run(arguments: &Arguments, grammar: Command) -> anyhow::Result<ExitCode> {
    let mut grammar = grammar.disable_help_subcommand(true);
    grammar.build();
    write_pages(&grammar, arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn write_pages(command: &Command, arguments: &Arguments) -> anyhow::Result<()> {
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    for verb in verbs {
        write_pages(verb, arguments)?;
    }
    let page = Man::new(command.clone())
        .date(arguments.date.clone())
        .source(concat!("buildbot-conda ", env!("CARGO_PKG_VERSION")))
        .manual("User Commands");
    let path = arguments.directory.join(page.get_filename());
    write_page(&page, command, &path).with_context(|| format!("write `{}`", path.display()))
}

/// Everything but the authors and the version, which are the package's.
fn write_page(page: &Man, command: &Command, path: &Path) -> anyhow::Result<()> {
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut text)?;
    }
    page.render_options_section(&mut text)?;
    Ok(fs::write(path, text)?)
}
