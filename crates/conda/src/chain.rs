//! From an activation to what is executed: the command itself, or one bash that sources the `activate.d` scripts and
//! becomes the command. Executing it is left to the caller.

use std::ffi::OsString;
use std::fmt::Write;
use std::ops::Range;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

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
    /// Its complete environment.
    pub environment: Environment,
}

/// Who hears of it when a script does not come back to the shell that sources it, because it calls `exit`, sets `-e` or
/// `-u`, or is stopped by a signal while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// Executed in place of the shell, with three words more: the script, the status, and the command that the shell ran.
    pub command: Vec<OsString>,
    /// Where to note what happens, for those ends that a shell cannot report.
    pub notes: Option<Notes>,
}

/// Files that outlive a shell which is killed or becomes another program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notes {
    /// Holds `NUMBER SCRIPT` while a script runs, and nothing once all have come back.
    pub mark: PathBuf,
    /// Which start this is.
    pub number: u32,
    /// What the shell has as standard output and standard error, to be copied once all scripts have come back. A
    /// [`SEPARATOR`] is between what two scripts have printed.
    pub output: PathBuf,
    /// Descriptors of the standard output and standard error that the command gets.
    pub descriptors: [RawFd; 2],
}

/// Information separator two of ASCII, for the ends of records.
pub const SEPARATOR: char = '\u{1e}';

/// What to do about a script that does not come back.
pub const HINT: &str = "an activation script must not end its shell: use `return` instead of `exit`, \
                        no `exec`, and reset `set -e` and `set -u`";

/// Whether the shell was left by the script's own doing, and not by a signal, by the last word that a
/// [`Watch::command`] gets: the command that sources the script, or one in the script.
pub fn is_left(command: &str) -> bool {
    command.starts_with(SOURCING)
}

/// The beginning of the line that sources a script.
const SOURCING: &str = ". \"${__bbc_words[";

/// Returns the command line that runs the program in the activated environment, in the same process throughout.
///
/// `afterwards` contains variables that are set after activation and its scripts; their names must be valid in a shell.
/// A script that does not return is reported to `watch`, or without one on standard error. The process then exits with
/// the status of the script, as the shell of `conda activate` does, or with 78 if that status is 0.
pub fn exec_chain(
    activation: &Activation,
    afterwards: &Environment,
    program: OsString,
    arguments: impl IntoIterator<Item = OsString>,
    watch: Option<&Watch>,
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
    let watch_at = words.len();
    words.extend(watch.iter().flat_map(|watch| watch.command.clone()));
    let notes_at = words.len();
    let notes = watch.and_then(|watch| watch.notes.as_ref());
    if let Some(notes) = notes {
        words.extend([notes.mark.clone().into(), notes.output.clone().into()]);
    }
    let command_at = words.len();
    words.push(program);
    words.extend(arguments);

    let places = Places {
        scripts: activation.scripts.len(),
        late: late_at..arguments_at,
        arguments: arguments_at..afterwards_at,
        afterwards: afterwards_at..watch_at,
        watch: watch.map(|_| watch_at..notes_at),
        notes: notes.map(|notes| (notes, notes_at)),
        command: command_at,
    };
    let text = places.text();
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

/// Which words of the command line are what.
struct Places<'a> {
    scripts: usize,
    late: Range<usize>,
    arguments: Range<usize>,
    afterwards: Range<usize>,
    watch: Option<Range<usize>>,
    notes: Option<(&'a Notes, usize)>,
    command: usize,
}

impl Places<'_> {
    /// The text for `bash -c`. It contains only numbers: every path and value is a word of the command line, so that
    /// nothing needs quoting.
    ///
    /// As in conda, all scripts are sourced by one function whose parameters are those of `conda activate`: `local` and
    /// `declare` work in them until it returns, and a `shift` affects the next script. There is no loop, because a
    /// `break` in a script would leave it. The results of scripts are not checked: conda also runs the next script
    /// after a failed one. Intermediate values are stored in arrays, which `set -a` does not export.
    fn text(&self) -> String {
        let mut text = "__bbc_words=(\"$@\"); set --\n".to_owned();
        self.define_end(&mut text);
        text.push_str("__bbc_activate() {\n");
        for script in 0..self.scripts {
            write!(text, "__bbc_at=(\"${{__bbc_words[{script}]}}\"); ").expect(WRITTEN);
            if let Some((notes, at)) = &self.notes {
                write!(
                    text,
                    "builtin printf %s \"{} ${{__bbc_at[0]}}\" >|\"${{__bbc_words[{at}]}}\" || :; \
                     [[ ! -s ${{__bbc_words[{output}]}} ]] || \
                     builtin printf '\\036' >>\"${{__bbc_words[{output}]}}\" || :; ",
                    notes.number,
                    output = at + 1
                )
                .expect(WRITTEN);
            }
            writeln!(text, "{SOURCING}{script}]}}\"").expect(WRITTEN);
        }
        text.push_str("}\n");
        if !self.late.is_empty() {
            writeln!(text, "export -- {}", slice(&self.late)).expect(WRITTEN);
        }
        writeln!(text, "__bbc_activate {}", slice(&self.arguments)).expect(WRITTEN);
        text.push_str("builtin trap - EXIT\n");
        if let Some((notes, at)) = &self.notes {
            let (mark, output) = (at, at + 1);
            let [stdout, stderr] = notes.descriptors;
            writeln!(
                text,
                "exec >&{stdout} 2>&{stderr} {stdout}>&- {stderr}>&-\n\
                 [[ ! -s ${{__bbc_words[{output}]}} ]] || \
                 {{ __bbc_at=(\"$(<\"${{__bbc_words[{output}]}}\")\"); \
                 builtin printf '%s\\n' \"${{__bbc_at[0]//$'\\036'}}\" >&2; }}\n\
                 : >|\"${{__bbc_words[{mark}]}}\" || :"
            )
            .expect(WRITTEN);
        }
        if !self.afterwards.is_empty() {
            writeln!(text, "export -- {}", slice(&self.afterwards)).expect(WRITTEN);
        }
        writeln!(text, "exec -- \"${{__bbc_words[@]:{}}}\"", self.command).expect(WRITTEN);
        text
    }

    /// What the shell does when it exits before the end of this text.
    fn define_end(&self, text: &mut String) {
        text.push_str("__bbc_ended() {\n");
        if let Some(watch) = &self.watch {
            if let Some((notes, _)) = &self.notes {
                let [stdout, stderr] = notes.descriptors;
                writeln!(text, "exec >&{stdout} 2>&{stderr}").expect(WRITTEN);
            }
            let command = slice(watch);
            writeln!(text, "exec -- {command} \"${{__bbc_at[0]}}\" \"$@\"").expect(WRITTEN);
        } else {
            writeln!(
                text,
                "case $2 in\n\
                 '{SOURCING}'*) builtin printf 'error: the activation script `%s` ended its shell with status %s\\n\
                 hint: {HINT}\\n' \"${{__bbc_at[0]}}\" \"$1\" >&2; builtin exit \"$(($1 ? $1 : 78))\" ;;\n\
                 *) builtin printf 'error: the activation script `%s` was stopped in `%s`\\n' \
                 \"${{__bbc_at[0]}}\" \"$2\" >&2 ;;\n\
                 esac"
            )
            .expect(WRITTEN);
        }
        text.push_str("}\nbuiltin trap '__bbc_ended \"$?\" \"$BASH_COMMAND\"' EXIT\n");
        // A script may remove that trap, and then `exit`. One of its own is run with the status that it would see. In
        // POSIX mode bash has no function of this name.
        writeln!(
            text,
            "[[ -o posix ]] || exit() {{\n\
             (builtin exit \"$@\") && builtin set -- 0 || builtin set -- \"$?\"\n\
             [[ ${{BASHPID-}} == \"$$\" ]] || builtin exit \"$1\"\n\
             builtin set -- \"$1\" \"$(builtin trap -p EXIT)\"\n\
             builtin trap - EXIT\n\
             [[ $2 == *__bbc_ended* ]] || (builtin eval \"$2\"; builtin exit \"$1\") || :\n\
             __bbc_ended \"$1\" '{SOURCING}'\n\
             }}"
        )
        .expect(WRITTEN);
    }
}

const WRITTEN: &str = "a string takes everything";

fn slice(range: &Range<usize>) -> String {
    format!("\"${{__bbc_words[@]:{}:{}}}\"", range.start, range.len())
}

#[cfg(test)]
mod tests;
