//! What a command line and the scripts behind it come to: which Buildbot they start, in which
//! environment, where, with which variables. Scripts are data here, nothing of them is run.
//!
//! What is read is a state that commands change one after the other, and that stands still when Buildbot is started. A
//! change whose condition is not known is refused; one in a process of its own is lost with that.
//! `commands` has the shell's own commands, `programs` those that start others, `start` Buildbot's own, `conda` what is said of Conda.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use buildbot_conda_core::names::Role;
use buildbot_conda_core::unit_text::Place;
use buildbot_conda_core::values::PATH_MAX;

use super::shell::words::Known;
use super::shell::{Node, Parser, Scope, Simple, Value, Word, first};
use super::verdict::{Done, Verdicts, Went, shown};

mod commands;
mod conda;
mod programs;
mod start;
mod wrappers;

pub(super) use programs::nicer;

/// How many scripts may call each other.
const DEEPEST: usize = 5;
/// How many commands may start each other, such as `nice` and `sh -c`.
const DEEPEST_COMMAND: usize = 40;
/// How many bytes are read in all, as scripts may call others many times.
const MOST: usize = 4 << 20;
/// What a short script counts at least: for each, a process is started.
const LEAST: usize = 1 << 12;

/// Why nothing is known of a start.
pub(super) const NOT_SEEN: &str = "no command was found that starts Buildbot";
/// Characters of a command that are kept to be shown.
const MOST_SHOWN: usize = 200;

/// Directories of the system's own programs.
pub(super) const SYSTEM: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// What stands in `PATH` for the environment that is activated.
pub(super) const ACTIVATED: &str = "\u{1}";
/// What stands in `PATH` for what systemd has there.
pub(super) const SYSTEMS: &str = "\u{2}";

/// A value and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found<T = String> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// Which environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// As `conda activate` takes it.
    Named(String),
    /// Its own directory.
    Prefix(String),
}

/// What a process hands on to what it starts, beside variables: directives of systemd.exec(5) that say the same.
pub(super) type Process = BTreeMap<&'static str, Found>;

/// The start of a Buildbot, and everything that was in force then.
#[derive(Debug, Clone)]
pub(super) struct Start {
    pub(super) role: Role,
    /// Absolute.
    pub(super) directory: String,
    pub(super) place: Place,
    /// The Conda installation.
    pub(super) root: Option<Found>,
    /// The environment.
    pub(super) target: Option<Found<Target>>,
    /// Variables that have a place in unit or scripts.
    pub(super) exported: BTreeMap<String, Found>,
    /// `PATH`, with [`ACTIVATED`] and [`SYSTEMS`] in it.
    pub(super) path: String,
    pub(super) path_place: Option<Place>,
    pub(super) process: Process,
}

/// What is known when everything was read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) start: Option<Start>,
    /// Scripts that not everybody may read.
    pub(super) private: BTreeSet<String>,
    pub(super) verdicts: Verdicts,
}

/// Variables of a service, those of its unit with their places; none for a value that is not known.
pub(super) type Variables = BTreeMap<String, (Option<String>, Option<Place>)>;

/// What the host is asked.
#[derive(Clone, Copy)]
pub(super) struct Files<'a> {
    /// A script's text; the reason when it cannot be read.
    pub(super) read: &'a dyn Fn(&str) -> Result<String, String>,
    /// Whether an absolute path is there.
    pub(super) exists: &'a dyn Fn(&str) -> bool,
}

/// What commands change, and what a process of its own loses.
#[derive(Debug, Clone, Default)]
struct State {
    scope: Scope,
    /// Where variables were set.
    places: BTreeMap<String, Place>,
    root: Option<Found>,
    target: Option<Found<Target>>,
    process: Process,
}

/// One walk through command line and scripts.
pub(super) struct Reader<'a> {
    files: Files<'a>,
    state: State,
    start: Option<Start>,
    verdicts: Verdicts,
    /// The file that is read, and the line of the command; `-c` has that of its option.
    place: Place,
    is_inline: bool,
    /// Conditions that are not known around the present command.
    conditions: usize,
    /// Those of them that are around the present process, which alone loses what it changes.
    conditions_around: usize,
    /// The script goes on without waiting.
    in_background: bool,
    /// Scripts that call each other.
    depth: usize,
    /// Commands that start each other.
    nesting: usize,
    /// Bytes of scripts so far.
    read_so_far: usize,
}

/// An argument of a command: as it is written, and what it comes to where that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Argument {
    raw: String,
    value: Option<String>,
}

impl Argument {
    /// The value, or nothing that is a name of anything.
    fn known(&self) -> &str {
        self.value.as_deref().unwrap_or("")
    }

    fn plain(text: &str) -> Self {
        Self {
            raw: text.to_owned(),
            value: Some(text.to_owned()),
        }
    }
}

impl<'a> Reader<'a> {
    /// `variables` are those that systemd sets, those of the unit with their places; `directory` is the working directory.
    /// With `has_unknown`, there are others.
    pub(super) fn new(
        files: Files<'a>,
        variables: &Variables,
        has_unknown: bool,
        directory: &str,
    ) -> Self {
        let mut state = State::default();
        state.scope.directory = Some(directory.to_owned());
        state.scope.has_unknown = has_unknown;
        let path = ("PATH".to_owned(), (Some(SYSTEMS.to_owned()), None));
        let path = (!variables.contains_key("PATH")).then_some(path);
        for (name, (value, place)) in variables.clone().into_iter().chain(path) {
            state
                .places
                .extend(place.map(|place| (name.clone(), place)));
            let known = Known {
                value,
                is_exported: true,
            };
            state.scope.variables.insert(name, known);
        }
        Self {
            files,
            state,
            start: None,
            verdicts: Verdicts::default(),
            place: Place {
                file: String::new(),
                line: 1,
            },
            is_inline: false,
            conditions: 0,
            conditions_around: 0,
            in_background: false,
            depth: 0,
            nesting: 0,
            read_so_far: 0,
        }
    }

    /// Reads the command of a unit.
    pub(super) fn command_line(mut self, place: &Place, words: &[String]) -> Reading {
        self.place = place.clone();
        self.is_inline = true;
        let words: Vec<Argument> = words.iter().map(|word| Argument::plain(word)).collect();
        let done = self.command(&words, &BTreeMap::new());
        let is_refused = |judged: &super::verdict::Judged| {
            matches!(judged.verdict, super::verdict::Verdict::Refused { .. })
        };
        if self.start.is_none() && !self.verdicts.0.iter().any(is_refused) {
            let _: Went = self.verdicts.refused(place, NOT_SEEN).went();
        }
        drop(done);
        Reading {
            start: self.start,
            private: BTreeSet::new(),
            verdicts: self.verdicts,
        }
    }

    /// Reads a text in the present state, up to its end or to where it ends itself.
    fn text(&mut self, text: &str) -> Went {
        let text = conda::initialized(text);
        let mut parser = Parser::new(&text);
        let mut went = Went::Well;
        loop {
            match parser.next() {
                Ok(Some(node)) => went = self.node(&node),
                Ok(None) => return went,
                Err(unreadable) => {
                    self.at(unreadable.line);
                    let what = format!("{} is not supported", unreadable.what);
                    return self.verdicts.refused(&self.place, &what).went();
                }
            }
            if matches!(went, Went::Returned | Went::Ended) {
                // What follows may be no script at all.
                if let Ok(Some(node)) = parser.next() {
                    self.unreached(&[node]);
                }
                return went;
            }
        }
    }

    fn at(&mut self, line: usize) {
        if !self.is_inline {
            self.place.line = line;
        }
    }

    /// A text with a place of its own, `line` being that of all its commands where there is one.
    fn elsewhere(&mut self, file: &str, is_inline: bool, text: &str) -> Went {
        let place = Place {
            file: file.to_owned(),
            line: if is_inline { self.place.line } else { 1 },
        };
        let place = std::mem::replace(&mut self.place, place);
        let was_inline = std::mem::replace(&mut self.is_inline, is_inline);
        let went = self.text(text);
        self.place = place;
        self.is_inline = was_inline;
        went
    }

    /// Does something in a process of its own: what it changes is lost.
    fn apart(&mut self, work: impl FnOnce(&mut Self) -> Went) -> Went {
        let state = self.state.clone();
        let around = std::mem::replace(&mut self.conditions_around, self.conditions);
        let went = work(self);
        self.state = state;
        self.conditions_around = around;
        match went {
            Went::Returned | Went::Ended => Went::Either,
            went => went,
        }
    }

    fn nodes(&mut self, nodes: &[Node]) -> Went {
        let mut went = Went::Well;
        for (index, node) in nodes.iter().enumerate() {
            went = self.node(node);
            if matches!(went, Went::Returned | Went::Ended) {
                self.unreached(&nodes[index + 1..]);
                return went;
            }
        }
        went
    }

    /// Names what never runs.
    fn unreached(&mut self, nodes: &[Node]) {
        if let Some(simple) = first(nodes) {
            self.at(simple.line);
            let text = format!("{}, which is never reached", shown(&simple.raw()));
            let _: Went = self.verdicts.left(&self.place, &text).went();
        }
    }

    /// What runs perhaps: it must not change what the start depends on.
    fn perhaps(&mut self, nodes: &[Node]) -> Went {
        self.conditions += 1;
        self.nodes(nodes);
        self.conditions -= 1;
        Went::Either
    }

    fn node(&mut self, node: &Node) -> Went {
        if self.read_so_far > MOST {
            return Went::Ended;
        }
        match node {
            Node::Simple(simple) => {
                self.at(simple.line);
                self.simple(simple).went()
            }
            Node::Test(test) => {
                self.at(test.line);
                let words = self.arguments(&test.words);
                self.test(&words).went()
            }
            Node::And(left, right) | Node::Or(left, right) => {
                let right = std::slice::from_ref(&**right);
                let goes_on = match node {
                    Node::And(..) => Went::Well,
                    _ => Went::Wrong,
                };
                match self.node(left) {
                    went if went == goes_on => self.nodes(right),
                    Went::Either => self.perhaps(right),
                    went => {
                        self.unreached(right);
                        went
                    }
                }
            }
            Node::Not(node) => match self.node(node) {
                Went::Well => Went::Wrong,
                Went::Wrong => Went::Well,
                went => went,
            },
            Node::Pipeline(nodes) => {
                for node in nodes {
                    self.apart(|reader| reader.node(node));
                }
                Went::Either
            }
            Node::Background(node) => {
                let was = std::mem::replace(&mut self.in_background, true);
                self.apart(|reader| reader.node(node));
                self.in_background = was;
                Went::Well
            }
            Node::Subshell(nodes) => self.apart(|reader| reader.nodes(nodes)),
            Node::Group(nodes) => self.nodes(nodes),
            Node::If(branches, otherwise) => self.branches(branches, otherwise),
            Node::Loop(name, body) => {
                if let Some(name) = name {
                    let known = Known {
                        value: None,
                        is_exported: false,
                    };
                    self.state.scope.variables.insert(name.clone(), known);
                }
                self.perhaps(body)
            }
            Node::Case(word, arms) => self.case(word, arms),
            Node::Function(name, body) => {
                let body = Rc::clone(body);
                self.change(&format!("{name}()"), |state| {
                    state.scope.functions.insert(name.clone(), body);
                })
                .went()
            }
        }
    }

    fn branches(&mut self, branches: &[(Vec<Node>, Vec<Node>)], otherwise: &[Node]) -> Went {
        for (index, (condition, body)) in branches.iter().enumerate() {
            match self.nodes(condition) {
                Went::Well => {
                    let went = self.nodes(body);
                    for (_, body) in &branches[index + 1..] {
                        self.unreached(body);
                    }
                    self.unreached(otherwise);
                    return went;
                }
                Went::Wrong => self.unreached(body),
                Went::Either => {
                    self.perhaps(body);
                    for (condition, body) in &branches[index + 1..] {
                        self.perhaps(condition);
                        self.perhaps(body);
                    }
                    return self.perhaps(otherwise);
                }
                went => return went,
            }
        }
        self.nodes(otherwise)
    }

    /// The arm of a word that is known, where the patterns before it are plain words.
    fn case(&mut self, word: &Word, arms: &[(Vec<Word>, Vec<Node>)]) -> Went {
        let scope = &self.state.scope;
        // No shell of a service is interactive.
        let asks_for_terminal = word.raw.trim_matches('"') == "$-";
        let subject = if asks_for_terminal {
            Some(String::new())
        } else {
            scope.text(word)
        };
        let mut chosen = None;
        'arms: for (patterns, body) in arms {
            for pattern in patterns {
                let is_it = match (&subject, scope.text(pattern)) {
                    _ if pattern.raw == "*" => Some(true),
                    _ if asks_for_terminal => (pattern.raw == "*i*").then_some(false),
                    (Some(subject), Some(pattern)) => Some(*subject == pattern),
                    _ => None,
                };
                match is_it {
                    Some(false) => {}
                    Some(true) if subject.is_some() => {
                        chosen = Some(Some(body));
                        break 'arms;
                    }
                    _ => {
                        chosen = Some(None);
                        break 'arms;
                    }
                }
            }
        }
        match chosen {
            None => Went::Well,
            Some(Some(chosen)) => {
                for (_, body) in arms.iter().filter(|(_, body)| body != chosen) {
                    self.unreached(body);
                }
                self.nodes(chosen)
            }
            Some(None) => {
                for (_, body) in arms {
                    self.perhaps(body);
                }
                Went::Either
            }
        }
    }

    /// The words of a command as the shell hands them over.
    fn arguments(&self, words: &[Word]) -> Vec<Argument> {
        let mut arguments = Vec::new();
        for word in words {
            match self.state.scope.fields(word) {
                Some(fields) => arguments.extend(fields.into_iter().map(|field| {
                    let raw = if word.raw.starts_with('$') || word.raw.starts_with("\"$") {
                        field.clone()
                    } else {
                        word.raw.clone()
                    };
                    Argument {
                        raw,
                        value: Some(field),
                    }
                })),
                None => arguments.push(Argument {
                    raw: word.raw.clone(),
                    value: None,
                }),
            }
        }
        arguments
    }

    /// A path seen from the current directory, without `.` and doubled slashes.
    fn absolute(&self, path: &str) -> Option<String> {
        let whole = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", self.state.scope.directory.as_deref()?)
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

    /// Changes what the start depends on; `text` is what does it. A condition that is not known refuses it.
    fn change(&mut self, text: &str, change: impl FnOnce(&mut State)) -> Done {
        if self.conditions > self.conditions_around {
            let reason = format!("`{}` depends on a condition", shown(text));
            return self.verdicts.not_known(&self.place, &reason);
        }
        change(&mut self.state);
        self.verdicts.taken(&self.place, text)
    }

    fn leave(&mut self, text: &str) -> Done {
        self.verdicts.left(&self.place, text)
    }

    fn refuse(&mut self, reason: &str) -> Done {
        self.verdicts.refused(&self.place, reason)
    }

    /// What takes a shell, or a look at the process, to know.
    fn unknown(&mut self, raw: &str) -> Done {
        let reason = format!("the value of `{}` is known only at run time", shown(raw));
        self.verdicts.not_known(&self.place, &reason)
    }
}

/// The words of a command, as they are written, and no more of them than anybody is shown.
fn as_written(words: &[Argument]) -> String {
    let mut text = String::new();
    for word in words {
        if !text.is_empty() {
            text.push(' ');
        }
        text.extend(word.raw.chars().take(MOST_SHOWN));
        if text.len() > MOST_SHOWN {
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests;
