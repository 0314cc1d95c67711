//! `launcher [--root DIR] ROLE [NAME]`: enters the instance's environment and becomes its Buildbot.
//!
//! What a unit's `ExecStart=` runs. It reads the configuration, computes the activated environment
//! and execs the runner, so that one process is systemd's main process from first to last. Anything
//! doubtful is refused with status 78 and one clear message, on the status line and in the journal.

#![warn(
    clippy::print_stderr,
    reason = "the macros of the standard library panic when nobody reads"
)]

mod arguments;
mod handover;
mod notify;
mod program;
mod refusal;
mod scripts;

use std::env;
use std::ffi::OsString;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use crate::arguments::Arguments;
use crate::refusal::Refusal;

fn main() -> ExitCode {
    let words: Vec<OsString> = env::args_os().skip(1).collect();
    if let Some((first, rest)) = words.split_first()
        && first == scripts::ENDED
    {
        return scripts::ended(rest);
    }
    let arguments = match Arguments::parse(words.into_iter()) {
        Ok(arguments) => arguments,
        Err(usage) => {
            notify::say(&format!("error: {usage}"));
            return ExitCode::from(2);
        }
    };
    let refusal = become_buildbot(&arguments);
    notify::report(&refusal.to_string());
    ExitCode::from(78)
}

/// Returns only when Buildbot was not started.
fn become_buildbot(arguments: &Arguments) -> Refusal {
    let program = match program::decide(arguments, &env::vars_os().collect()) {
        Ok(program) => program,
        Err(refusal) => return refusal,
    };
    for warning in &program.warnings {
        notify::warn(warning);
    }
    let command = &program.command_line;
    let mut process = Command::new(&command.program);
    process
        .args(&command.arguments)
        .env_clear()
        .envs(&command.environment);
    let environment = match handover::environment() {
        Ok(environment) => environment,
        Err(source) => return Refusal::Handover { source },
    };
    if let Some(scripts) = &program.scripts {
        scripts.begin();
        if let Some(output) = &scripts.output {
            match (output.try_clone(), output.try_clone()) {
                (Ok(stdout), Ok(stderr)) => process.stdout(stdout).stderr(stderr),
                (Err(source), _) | (_, Err(source)) => return Refusal::Handover { source },
            };
        }
    }
    let source = process
        .env(handover::VARIABLE, environment.as_raw_fd().to_string())
        .exec();
    Refusal::Exec {
        program: command.program.clone().into(),
        source,
    }
}
