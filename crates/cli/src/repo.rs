//! `repo`: a signed apt repository of packages, on a host that need not have the source code.

use std::process::ExitCode;

use buildbot_conda_repository::command;

use crate::output;

pub(crate) use buildbot_conda_repository::command::Verb;

pub(crate) fn run(verb: &Verb) -> anyhow::Result<ExitCode> {
    let outcome = command::run(verb)?;
    for line in outcome.talk {
        eprintln!("{line}");
    }
    output::print(outcome.data)
}
