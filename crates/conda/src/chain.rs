//! From an activation to what is executed: the command itself, or one bash that sources the `activate.d` scripts and
//! becomes the command. Executing it is left to the caller.

use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

use crate::{Activation, Environment};

/// The shell of the scripts: they use arrays, `[[ ]]` and `BASH_SOURCE`. Essential in Debian.
const BASH: &str = "/bin/bash";

/// A program with its arguments and complete environment. A program without a slash is looked up along this `PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct CommandLine {
    /// What to execute.
    pub program: OsString,
    /// Its arguments, without the program's own name.
    pub arguments: Vec<OsString>,
    /// Its whole environment.
    pub environment: Environment,
}

/// Says what to execute so that the program runs in the activated environment, as the same process throughout.
///
/// `afterwards` are variables that count after activation and its scripts; their names must be valid in a shell. A
/// script that says `exit N` ends the process with N, as it ends the shell of `conda activate`.
pub fn exec_chain(
    activation: &Activation,
    afterwards: &Environment,
    program: OsString,
    arguments: impl IntoIterator<Item = OsString>,
) -> CommandLine {
    let mut environment = activation.environment.clone();
    if activation.scripts.is_empty() {
        environment.extend(afterwards.clone());
        return CommandLine {
            program,
            arguments: arguments.into_iter().collect(),
            environment,
        };
    }
    let mut words: Vec<OsString> = activation
        .scripts
        .iter()
        .map(|script| script.clone().into_os_string())
        .collect();
    let late = activation
        .late
        .iter()
        .filter_map(|name| environment.remove_entry(name))
        .collect::<Vec<_>>();
    let late_at = words.len();
    words.extend(late.iter().map(|(name, value)| assignment(name, value)));
    let arguments_at = words.len();
    words.push("activate".into());
    words.extend(activation.target.clone());
    let afterwards_at = words.len();
    words.extend(
        afterwards
            .iter()
            .map(|(name, value)| assignment(name, value)),
    );
    let command_at = words.len();
    words.push(program);
    words.extend(arguments);

    let text = text(
        activation.scripts.len(),
        late_at..arguments_at,
        arguments_at..afterwards_at,
        afterwards_at..command_at,
    );
    let mut bash: Vec<OsString> = ["--norc", "--noprofile", "-c"].map(OsString::from).into();
    bash.push(text.into());
    bash.push("bash".into());
    bash.extend(words);
    CommandLine {
        program: BASH.into(),
        arguments: bash,
        environment,
    }
}

fn assignment(name: &OsString, value: &OsString) -> OsString {
    debug_assert!(
        !name.as_bytes().contains(&b'='),
        "an environment has no such name"
    );
    let mut assignment = name.clone();
    assignment.push("=");
    assignment.push(value);
    assignment
}

/// The text for `bash -c`. It holds numbers only: every path and value is a word of the command line, so that none needs
/// quoting. The ranges say which words are what.
///
/// As in conda, all scripts are sourced by one function whose parameters are those of `conda activate`: `local` and
/// `declare` work in them and end with it, and a `shift` shows in the next script. There is no loop, because a `break`
/// in a script would end it. Nothing is checked on the way: a script that fails does not keep conda from the next.
fn text(
    scripts: usize,
    late: std::ops::Range<usize>,
    arguments: std::ops::Range<usize>,
    afterwards: std::ops::Range<usize>,
) -> String {
    let slice = |range: &std::ops::Range<usize>| {
        format!("\"${{__bbc_words[@]:{}:{}}}\"", range.start, range.len())
    };
    let mut text = "__bbc_words=(\"$@\"); set --\n__bbc_activate() {\n".to_owned();
    for script in 0..scripts {
        writeln!(text, ". \"${{__bbc_words[{script}]}}\"").expect("a string takes everything");
    }
    text.push_str("}\n");
    if !late.is_empty() {
        writeln!(text, "export -- {}", slice(&late)).expect("a string takes everything");
    }
    writeln!(text, "__bbc_activate {}", slice(&arguments)).expect("a string takes everything");
    if !afterwards.is_empty() {
        writeln!(text, "export -- {}", slice(&afterwards)).expect("a string takes everything");
    }
    writeln!(text, "exec -- \"${{__bbc_words[@]:{}}}\"", afterwards.end)
        .expect("a string takes everything");
    text
}

#[cfg(test)]
mod tests;
