//! The parts of the grammar that clap's derive cannot express, in one place for help, manual pages and completions.
//!
//! * the name of a unit is accepted wherever `REF` is expected
//! * the verbs are listed in groups

use std::fmt::Write as _;

use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::settings::KEYS;
use clap::Command;

/// The verbs that help shows, below their headings.
pub(crate) const GROUPS: [(&str, &[&str]); 7] = [
    ("Set up", &["create", "adopt", "remove"]),
    (
        "Monitor",
        &["list", "status", "logs", "build", "metrics", "doctor"],
    ),
    (
        "Workers on other hosts",
        &["invite", "join", "revoke", "rotate", "convert"],
    ),
    ("Operate", &["drain", "run", "web", "recover"]),
    ("Configure", &["set", "unset", "check", "show"]),
    (
        "Database of a master",
        &["backup", "restore", "upgrade", "migrate"],
    ),
    (
        "Environments, hosts and packages",
        &["env", "host", "headless", "repo", "completions"],
    ),
];

/// Examples for `buildbot-conda --help` and its manual page.
const EXAMPLES: &str = "\
Examples:
  sudo buildbot-conda create master       create a master on port 8010
  sudo buildbot-conda create worker       create a worker for it
  buildbot-conda list                     show all instances
  buildbot-conda logs -f master           follow the log of the master
  sudo buildbot-conda doctor              find problems and their fixes
  sudo buildbot-conda set worker drain 30min
  sudo systemctl restart buildbot-master  restart a service";

const EXAMPLES_OF_SET: &str = "\
Examples:
  sudo buildbot-conda set conda-root /opt/conda
  sudo buildbot-conda set worker@gpu drain 30min
  sudo buildbot-conda set master environment.TZ Europe/Vienna
  sudo buildbot-conda set worker credentials.password password-of-worker
  buildbot-conda set worker@gpu user ci --dry-run";

/// The grammar that clap has derived, completed.
pub(crate) fn complete(command: Command) -> Command {
    let help = template(&command);
    let keys = keys();
    with_references(command)
        .help_template(help)
        .after_help(EXAMPLES)
        .mut_subcommand("set", |set| {
            set.after_help(format!("{keys}\n{EXAMPLES_OF_SET}"))
        })
        .mut_subcommand("unset", |unset| unset.after_help(keys))
}

/// Makes every `REF` accept what administrators type.
fn with_references(command: Command) -> Command {
    let typed = |text: &str| InstanceRef::typed(text);
    command
        .mut_args(|argument| {
            let names = argument.get_value_names().unwrap_or_default();
            if names.iter().any(|name| name == "REF") {
                argument.value_parser(typed)
            } else {
                argument
            }
        })
        .mut_subcommands(with_references)
}

/// clap has one heading for all verbs; this is its own template with the groups in the place of that.
fn template(command: &Command) -> String {
    let mut text = String::from("{before-help}{about-with-newline}\n{usage-heading} {usage}\n");
    for (heading, verbs) in GROUPS {
        write!(text, "\n{heading}:\n").expect("writing to a string succeeds");
        for verb in verbs {
            let found = command.find_subcommand(verb);
            let found = found.unwrap_or_else(|| panic!("`{verb}` is a verb"));
            let about = found.get_about().map(ToString::to_string);
            let about = about.unwrap_or_default();
            writeln!(text, "  {verb:<12} {about}").expect("writing to a string succeeds");
        }
    }
    text + "\nOptions:\n{options}{after-help}"
}

/// The keys of the configuration, for those who set them.
fn keys() -> String {
    let mut text = String::from("Keys:\n");
    for key in &KEYS {
        writeln!(text, "  {:<17} {}", key.written(), key.meaning)
            .expect("writing to a string succeeds");
    }
    text + "\nSee buildbot-conda.toml(5) for the values and defaults.\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn every_visible_verb_is_in_one_group() {
        let command = crate::Arguments::command();
        let mut visible: Vec<&str> = command
            .get_subcommands()
            .filter(|verb| !verb.is_hide_set())
            .map(Command::get_name)
            .collect();
        let mut grouped: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, verbs)| *verbs)
            .copied()
            .collect();
        visible.sort_unstable();
        grouped.sort_unstable();
        assert_eq!(grouped, visible);
    }

    #[test]
    fn every_reference_may_be_the_name_of_a_unit() {
        fn check(command: &Command, count: &mut usize) {
            for argument in command.get_arguments() {
                let type_id = argument.get_value_parser().type_id();
                let names = argument.get_value_names().unwrap_or_default();
                if type_id == clap::builder::ValueParser::new(InstanceRef::typed).type_id() {
                    assert_eq!(names, ["REF"], "{}", command.get_name());
                    *count += 1;
                }
            }
            for verb in command.get_subcommands() {
                check(verb, count);
            }
        }
        let command = complete(crate::Arguments::command());
        let mut count = 0;
        check(&command, &mut count);
        assert!(count > 10, "{count}");
        let words = ["buildbot-conda", "status", "buildbot-worker@gpu.service"];
        assert!(command.try_get_matches_from(words).is_ok());
    }
}
