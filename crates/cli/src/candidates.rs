//! `candidates WORD...`: prints the candidates for the next word of a command line, for completions of shells:
//! instances, keys, managed environments, backups. The scripts themselves contain options and verbs. The verb is
//! hidden, and prints nothing if an error occurs.

use std::fs;
use std::process::ExitCode;

use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::{KEYS, Settings};
use clap::{Args, Command};

use crate::database::backups;
use crate::output;
use crate::system::context::Context;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The words between the command name and the word that is being typed
    #[arg(last = true)]
    words: Vec<String>,
}

pub(crate) fn run(
    arguments: &Arguments,
    grammar: &Command,
    context: &Context,
) -> anyhow::Result<ExitCode> {
    let expected = expected(&arguments.words, grammar);
    let mut words = Vec::new();
    for kind in &expected.kinds {
        words.extend(match kind {
            Kind::Instance => instances(context),
            Kind::Key => KEYS.iter().map(|key| key.name.to_owned()).collect(),
            Kind::Environment => environments(context),
            Kind::Backup => expected
                .reference
                .as_ref()
                .map(|reference| backups_of(reference, context))
                .unwrap_or_default(),
        });
    }
    let lines: Vec<String> = words.iter().map(|word| format!("{word}\n")).collect();
    output::print(lines.concat())
}

/// What a word can be that only the host knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Instance,
    Key,
    Environment,
    Backup,
}

/// What may come next, and the instance that was named before.
#[derive(Debug, Default)]
struct Expected {
    kinds: Vec<Kind>,
    reference: Option<InstanceRef>,
}

fn expected(words: &[String], grammar: &Command) -> Expected {
    let mut command = grammar;
    let mut expected = Expected::default();
    let mut positional = 0;
    let mut is_env = false;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if let Some(option) = word.strip_prefix("--") {
            let found = command
                .get_arguments()
                .find(|argument| argument.get_long() == Some(option));
            if found.is_some_and(|argument| argument.get_action().takes_values())
                && words.next().is_none()
            {
                let is_environment = matches!(option, "env" | "conda-env");
                expected.kinds = is_environment
                    .then_some(Kind::Environment)
                    .into_iter()
                    .collect();
                return expected;
            }
        } else if let Some(verb) = command.find_subcommand(word) {
            is_env |= word == "env";
            command = verb;
        } else if !word.starts_with('-') {
            positional += 1;
            if expected.reference.is_none() {
                expected.reference = InstanceRef::typed(word).ok();
            }
        }
    }
    let argument = command
        .get_positionals()
        .nth(positional)
        .or_else(|| command.get_positionals().last());
    let names = argument.and_then(clap::Arg::get_value_names);
    let name = names
        .and_then(|names| names.first())
        .map(clap::builder::Str::as_str);
    expected.kinds = match (name, positional) {
        (Some("REF"), _) => vec![Kind::Instance],
        (Some("[REF] KEY"), 0) => vec![Kind::Instance, Kind::Key],
        (Some("[REF] KEY"), 1) if expected.reference.is_some() => vec![Kind::Key],
        (Some("BACKUP"), _) => vec![Kind::Backup],
        (Some("NAME"), 0) if is_env => vec![Kind::Environment],
        _ => Vec::new(),
    };
    expected
}

fn instances(context: &Context) -> Vec<String> {
    let settings = context.settings().ok();
    let references = settings.iter().flat_map(Settings::references);
    references.map(ToString::to_string).collect()
}

fn environments(context: &Context) -> Vec<String> {
    let entries = fs::read_dir(context.path(paths::ENVIRONMENTS));
    let mut names: Vec<String> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

fn backups_of(reference: &InstanceRef, context: &Context) -> Vec<String> {
    let state = context.path(&paths::state_directory(reference));
    let place = backups::Place::new(reference, &state, context);
    let names = backups::names(&place).unwrap_or_default();
    names.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn each_place_of_the_command_line_has_its_kind() {
        let grammar = crate::grammar::complete(crate::Arguments::command());
        for (line, kinds) in [
            ("status", &[Kind::Instance][..]),
            ("logs -f", &[Kind::Instance]),
            ("restart master", &[Kind::Instance]),
            ("set", &[Kind::Instance, Kind::Key]),
            ("set worker@gpu", &[Kind::Key]),
            ("set drain", &[]),
            ("unset worker", &[Kind::Key]),
            ("run --env", &[Kind::Environment]),
            ("run", &[Kind::Instance]),
            ("env update", &[Kind::Environment]),
            ("env rollback", &[Kind::Environment]),
            ("restore", &[Kind::Instance]),
            ("restore master", &[Kind::Backup]),
            ("create master", &[]),
            ("--root /x status", &[Kind::Instance]),
            ("", &[]),
        ] {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(expected(&words, &grammar).kinds, kinds, "{line}");
        }
    }
}
