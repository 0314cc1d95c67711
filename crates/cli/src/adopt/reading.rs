//! What a command line and the scripts behind it come to: which Buildbot they start, in which
//! environment, where, with which variables. Scripts are data here, nothing of them is run.

use std::collections::{BTreeMap, BTreeSet};

use buildbot_conda_core::names::Role;

use super::shell::{Command, Scope, Script, Word};
use buildbot_conda_core::unit_text::{Place, is_name};
use buildbot_conda_core::values::PATH_MAX;

mod conda;
mod programs;

/// How many scripts may call each other.
const DEEPEST: usize = 5;
/// How many commands may start each other, such as `nice` and `sh -c`.
const DEEPEST_COMMAND: usize = 40;
/// How many bytes are read in all, as scripts may call others many times.
const MOST: usize = 4 << 20;
/// What a short script counts at least: for each, a process is started.
const LEAST: usize = 1 << 12;

/// A value and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found<T = String> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// Something that could not be taken over, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remark {
    pub(super) place: Place,
    pub(super) text: String,
}

/// Which environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// As `conda activate` takes it.
    Named(String),
    /// Its own directory.
    Prefix(String),
}

/// What is known when everything was read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The Conda installation.
    pub(super) root: Option<Found>,
    /// The environment.
    pub(super) target: Option<Found<Target>>,
    /// The instance's directory, absolute, and the role it was started with.
    pub(super) start: Option<Found<(Role, String)>>,
    /// Variables that the scripts export.
    pub(super) exported: BTreeMap<String, Found>,
    /// Scripts that not everybody may read.
    pub(super) private: BTreeSet<String>,
    /// What keeps the whole from being understood.
    pub(super) problems: Vec<Remark>,
    /// What was seen and is not taken over.
    pub(super) left: Vec<Remark>,
}

/// Reads a script's text; the reason when it cannot.
pub(super) type ReadFile<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// One walk through command line and scripts.
pub(super) struct Reader<'a> {
    read: ReadFile<'a>,
    scope: Scope,
    /// Where relative paths begin; `None` once that is not known any more.
    directory: Option<String>,
    reading: Reading,
    /// Scripts that call each other.
    depth: usize,
    /// Commands that start each other.
    nesting: usize,
    /// Bytes of scripts so far.
    read_so_far: usize,
}

impl<'a> Reader<'a> {
    /// `variables` are those that systemd sets, `directory` is the working directory.
    pub(super) fn new(
        read: ReadFile<'a>,
        variables: &BTreeMap<String, String>,
        directory: &str,
    ) -> Self {
        let known = |(name, value): (&String, &String)| (name.clone(), Some(value.clone()));
        Self {
            read,
            scope: Scope {
                variables: variables.iter().map(known).collect(),
                arguments: Vec::new(),
            },
            directory: Some(directory.to_owned()),
            reading: Reading::default(),
            depth: 0,
            nesting: 0,
            read_so_far: 0,
        }
    }

    /// Reads the command of a unit.
    pub(super) fn command_line(mut self, place: &Place, words: &[String]) -> Reading {
        let command = Command {
            line: place.line,
            words: words.iter().map(|word| Word::plain(word)).collect(),
            conditional: false,
            background: false,
            unknown: None,
        };
        self.command(&command, &place.file);
        let is_silent = self.reading.problems.is_empty();
        if self.reading.start.is_none() && is_silent {
            self.problem(place.clone(), "it is not seen to start Buildbot");
        }
        self.reading
    }

    fn script(&mut self, file: &str, text: &str, arguments: Vec<String>) {
        if self.depth >= DEEPEST {
            let place = Place {
                file: file.to_owned(),
                line: 1,
            };
            self.problem(place, "scripts call each other too deeply");
            return;
        }
        let outer = std::mem::replace(&mut self.scope.arguments, arguments);
        self.depth += 1;
        let mut script = Script::new(text);
        while let Some(command) = script.next(&self.scope) {
            self.command(&command, file);
        }
        self.depth -= 1;
        self.scope.arguments = outer;
    }

    fn command(&mut self, command: &Command, file: &str) {
        if self.read_so_far > MOST {
            return;
        }
        let place = Place {
            file: file.to_owned(),
            line: command.line,
        };
        if let Some(what) = command.unknown {
            self.problem(place, &format!("{what} is not understood here"));
            return;
        }
        if self.nesting >= DEEPEST_COMMAND {
            self.problem(place, "commands start each other too deeply");
            return;
        }
        self.nesting += 1;
        self.simple(command, file, place);
        self.nesting -= 1;
    }

    fn simple(&mut self, command: &Command, file: &str, place: Place) {
        let words = self.assignments(command, &place);
        let Some((first, rest)) = words.split_first() else {
            return;
        };
        let name = first
            .known()
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        match name.as_str() {
            // They change nothing that matters here.
            "set" | "echo" | ":" | "true" | "[" | "[[" | "test" | "printf" | "sleep" | "hash"
            | "shopt" | "wait" | "exit" | "return" | "logger" | "]" | "date" => {}
            "exec" | "nohup" | "command" | "time" | "env" | "nice" | "ionice" | "builtin"
            | "stdbuf" => self.wrapped(command, &name, rest, file),
            "cd" | "pushd" => self.change_directory(command, rest, &place),
            "export" | "declare" | "typeset" => self.export(command, rest, &place),
            "unset" => {
                for word in rest {
                    self.scope.variables.remove(word.known());
                    self.reading.exported.remove(word.known());
                }
            }
            "source" | "." => self.source(command, rest, &place),
            "activate" if first.known().contains('/') => self.source(command, &words, &place),
            "eval" => self.eval(rest, &place),
            "conda" | "mamba" | "micromamba" => self.conda(command, first, rest, &place),
            "alias" | "unalias" | "coproc" | "enable" | "let" | "mapfile" | "readarray" => {
                self.problem(place, &format!("`{name}` is not understood here"));
            }
            "sudo" | "su" | "runuser" | "setpriv" | "chroot" | "start-stop-daemon" => self.problem(
                place,
                &format!(
                    "`{}` changes the account or hides what is started",
                    told(&words)
                ),
            ),
            "buildbot" | "buildbot-worker" | "twistd" => self.start(command, &words, &place),
            "bash" | "sh" | "dash" | "zsh" => self.shell(rest, &place),
            _ if is_python(&name) => self.python(command, first, rest, &place),
            _ => self.other(&name, &words, &place),
        }
    }

    /// Takes `NAME=value` off the front of a command; without a command they are for what follows.
    fn assignments(&mut self, command: &Command, place: &Place) -> Vec<Word> {
        let is_assignment = |word: &Word| {
            word.raw
                .split_once('=')
                .is_some_and(|(name, _)| is_name(name))
        };
        let count = command
            .words
            .iter()
            .take_while(|word| is_assignment(word))
            .count();
        let (assigned, rest) = command.words.split_at(count);
        for word in assigned {
            self.assign(command, word, place, false);
        }
        rest.to_vec()
    }

    fn assign(&mut self, command: &Command, word: &Word, place: &Place, exported: bool) {
        let Some((name, raw)) = word.raw.split_once('=') else {
            return;
        };
        let value = word.value.as_deref().and_then(|text| text.split_once('='));
        let value = value.map(|(_, value)| value.to_owned());
        if name == "PATH" {
            self.path(raw, value.as_deref(), place);
            return;
        }
        let value = value.filter(|_| !command.conditional);
        let was_exported = self.reading.exported.remove(name).is_some();
        if exported || was_exported {
            match &value {
                Some(value) => {
                    let found = Found {
                        value: value.clone(),
                        place: place.clone(),
                    };
                    self.reading.exported.insert(name.to_owned(), found);
                }
                None => self.leave(place.clone(), &format!("export {}", word.raw)),
            }
        }
        self.scope.variables.insert(name.to_owned(), value);
    }

    /// A `bin` of Conda in front of `PATH` says where it is.
    fn path(&mut self, raw: &str, value: Option<&str>, place: &Place) {
        let text = value.unwrap_or(raw).trim_matches(['"', '\'']);
        let home = self.scope.variables.get("HOME").cloned().flatten();
        for part in text.split(':') {
            let Some(directory) = part.strip_suffix("/bin").or(part.strip_suffix("/condabin"))
            else {
                continue;
            };
            let directory = match &home {
                Some(home) => directory
                    .replacen("${HOME}", home, 1)
                    .replacen("$HOME", home, 1),
                None => directory.to_owned(),
            };
            if directory.contains('$') || !directory.starts_with('/') {
                continue;
            }
            if ["/usr", "/usr/local"].contains(&directory.as_str()) {
                continue;
            }
            self.prefix_or_root(&directory, place);
            return;
        }
    }

    fn change_directory(&mut self, command: &Command, rest: &[Word], place: &Place) {
        let target = match rest.first() {
            None => self.scope.variables.get("HOME").cloned().flatten(),
            Some(word) if word.raw == "--" => rest.get(1).and_then(|word| word.value.clone()),
            Some(word) => word.value.clone(),
        };
        let target = target.filter(|_| !command.conditional);
        self.directory = target.and_then(|path| self.absolute(&path));
        if self.directory.is_none() {
            self.leave(place.clone(), &told(&command.words));
        }
    }

    fn export(&mut self, command: &Command, rest: &[Word], place: &Place) {
        for word in rest.iter().filter(|word| !word.raw.starts_with('-')) {
            if word.raw.contains('=') {
                self.assign(command, word, place, true);
            } else if let Some(Some(value)) = self.scope.variables.get(&word.raw) {
                let found = Found {
                    value: value.clone(),
                    place: place.clone(),
                };
                if word.raw != "PATH" {
                    self.reading.exported.insert(word.raw.clone(), found);
                }
            }
        }
    }

    fn source(&mut self, command: &Command, rest: &[Word], place: &Place) {
        let Some(file) = rest.first() else { return };
        let Some(path) = file.value.as_deref() else {
            self.leave(place.clone(), &told(&command.words));
            return;
        };
        if path == "activate" {
            self.activate(command, rest.get(1), place);
        } else if let Some(prefix) = path.strip_suffix("/bin/activate") {
            self.prefix_or_root(prefix, place);
            // A script in an environment's own `bin` activates that one.
            if rest.len() > 1 || !prefix.contains("/envs/") {
                self.activate(command, rest.get(1), place);
            }
        } else if let Some(root) = path
            .strip_suffix("/etc/profile.d/conda.sh")
            .or(path.strip_suffix("/etc/profile.d/mamba.sh"))
        {
            self.root(root, place);
        } else if !path.ends_with("conda.sh") {
            self.leave(place.clone(), &told(&command.words));
        }
    }

    /// `eval "$(ROOT/bin/conda shell.bash hook)"` tells where Conda is.
    fn eval(&mut self, rest: &[Word], place: &Place) {
        let text: Vec<&str> = rest.iter().map(|word| word.raw.as_str()).collect();
        let text = text.join(" ");
        if let Some(root) = root_of_hook(&text) {
            self.root(root, place);
        } else if !text.contains("conda") {
            self.leave(place.clone(), &format!("eval {text}"));
        }
    }

    /// A path seen from the current directory, without `.` and doubled slashes.
    fn absolute(&self, path: &str) -> Option<String> {
        let whole = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", self.directory.as_deref()?)
        };
        if whole.len() > PATH_MAX {
            return None;
        }
        let mut parts: Vec<&str> = Vec::new();
        for part in whole.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                other => parts.push(other),
            }
        }
        Some(format!("/{}", parts.join("/")))
    }

    fn problem(&mut self, place: Place, text: &str) {
        self.reading.problems.push(Remark {
            place,
            text: crate::output::harmless(text),
        });
    }

    fn leave(&mut self, place: Place, text: &str) {
        self.reading.left.push(Remark {
            place,
            text: shown(text),
        });
    }
}

fn is_python(name: &str) -> bool {
    name.strip_prefix("python").is_some_and(|rest| {
        rest.bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
    })
}

/// `ROOT` of `ROOT/bin/conda ... hook`.
fn root_of_hook(text: &str) -> Option<&str> {
    let text = text.split_once("shell").map(|(before, _)| before)?;
    let end = text.rfind("/bin/conda")?;
    let begin = text[..end]
        .rfind(['(', ' ', '"', '\'', '`'])
        .map_or(0, |at| at + 1);
    let root = &text[begin..end];
    (root.starts_with('/') && !root.contains('$')).then_some(root)
}

/// The words of a command, as they are written.
fn told(words: &[Word]) -> String {
    let words: Vec<&str> = words.iter().map(|word| word.raw.as_str()).collect();
    shown(&words.join(" "))
}

/// On one line, and not too much of it: a script is somebody else's text.
fn shown(text: &str) -> String {
    let line = crate::output::harmless(text);
    if line.chars().count() <= 80 {
        return line;
    }
    line.chars().take(77).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests;
