//! `manual`: the manual pages of the command and its verbs, made from the grammar itself, so that they cannot miss a
//! verb, an option, a key or an example. Hidden: `cargo xtask deb` calls it, and adds the sections that only a person can write.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Command};
use clap_mangen::Man;

use crate::grammar::GROUPS;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Directory for the pages, `buildbot-conda.1` and one for each verb
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
    // Other commands have their own `create`.
    let is_whole = GROUPS[0]
        .1
        .iter()
        .all(|verb| command.find_subcommand(verb).is_some());
    if is_whole {
        text.extend(groups(command).into_bytes());
    } else if command.has_subcommands() {
        page.render_subcommands_section(&mut text)?;
    }
    page.render_options_section(&mut text)?;
    if let Some(help) = command.get_after_help() {
        text.extend(sections(&help.to_string()).into_bytes());
    }
    Ok(fs::write(path, text)?)
}

/// The verbs below the headings that help has.
fn groups(command: &Command) -> String {
    let mut text = String::from(".SH COMMANDS\n");
    for (heading, verbs) in GROUPS {
        writeln!(text, ".SS {heading}").expect("writing to a string succeeds");
        for verb in verbs {
            let found = command.find_subcommand(verb);
            let about = found.and_then(Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let (page, about) = (
                escaped(&format!("buildbot-conda-{verb}(1)")),
                escaped(&about),
            );
            writeln!(text, ".TP\n{page}\n{about}").expect("writing to a string succeeds");
        }
    }
    text
}

/// The text below the options in help: each paragraph with a heading becomes a section, line by line.
fn sections(help: &str) -> String {
    let mut text = String::new();
    for paragraph in help.split("\n\n") {
        let (first, rest) = paragraph
            .trim_end()
            .split_once('\n')
            .unwrap_or((paragraph, ""));
        let section = match first.strip_suffix(':') {
            Some(heading) if !rest.is_empty() => format!(
                ".SH {}\n.nf\n{}\n.fi\n",
                heading.to_uppercase(),
                rest.lines().map(escaped).collect::<Vec<_>>().join("\n")
            ),
            _ => format!(".PP\n{}\n", escaped(paragraph.trim_end())),
        };
        text += &section;
    }
    text
}

/// A line as roff prints it and nothing else.
fn escaped(line: &str) -> String {
    let line = line.strip_prefix("  ").unwrap_or(line);
    let text = line.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
}
