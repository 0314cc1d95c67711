//! The shell's own commands: what they change, and which of them change nothing that holds on.

use std::collections::BTreeMap;
use std::rc::Rc;

use buildbot_conda_core::unit_text::{Place, is_name};

use super::{
    Argument, DEEPEST_COMMAND, Done, Found, Known, MOST, Reader, Simple, Value, Went, Word,
    as_written,
};
use crate::adopt::shell::words::Part;

/// Assignments in front of a command, which are its alone.
type Assigned = BTreeMap<String, Option<String>>;

/// Variables that say how a shell reads.
const OF_THE_SHELL: [&str; 6] = [
    "BASH_ENV",
    "CDPATH",
    "ENV",
    "IFS",
    "POSIXLY_CORRECT",
    "SHELLOPTS",
];

impl Reader<'_> {
    pub(super) fn simple(&mut self, simple: &Simple) -> Done {
        // Its words are expanded before anything is assigned.
        let words = self.arguments(&simple.words);
        if words.is_empty() {
            let mut done = None;
            for (name, word) in &simple.assignments {
                done = Some(self.assign(name, word, false));
            }
            return done.unwrap_or_else(|| self.leave(&simple.raw()));
        }
        let assigned: Assigned = simple
            .assignments
            .iter()
            .map(|(name, word)| (name.clone(), self.state.scope.text(word)))
            .collect();
        if words[0].value.as_deref() == Some(":") {
            return self.colon(simple);
        }
        let had_start = self.start.is_some();
        let done = self.command(&words, &assigned);
        let is_exec = words[0].known() == "exec";
        if !simple.redirections.is_empty() && (is_exec || had_start != self.start.is_some()) {
            let _: Went = self.leave(&simple.redirections.join(" ")).went();
        }
        done
    }

    /// A command with all of its words, and the variables that are its alone.
    pub(super) fn command(&mut self, words: &[Argument], assigned: &Assigned) -> Done {
        if self.read_so_far > MOST {
            return self.refuse(TOO_MANY);
        }
        if self.nesting >= DEEPEST_COMMAND {
            return self.refuse("too many levels of commands that start commands");
        }
        self.nesting += 1;
        let done = if assigned.is_empty() {
            self.dispatch(words)
        } else {
            let before = self.state.clone();
            for (name, value) in assigned {
                let known = Known {
                    value: value.clone(),
                    is_exported: true,
                };
                self.state.scope.variables.insert(name.clone(), known);
                self.state.places.insert(name.clone(), self.place.clone());
            }
            let done = self.dispatch(words);
            // They are gone with the command; what else it changed is not.
            for name in assigned.keys() {
                let variables = &mut self.state.scope.variables;
                match before.scope.variables.get(name) {
                    Some(known) => drop(variables.insert(name.clone(), known.clone())),
                    None => drop(variables.remove(name)),
                }
                match before.places.get(name) {
                    Some(place) => drop(self.state.places.insert(name.clone(), place.clone())),
                    None => drop(self.state.places.remove(name)),
                }
            }
            done
        };
        self.nesting -= 1;
        done
    }

    fn dispatch(&mut self, words: &[Argument]) -> Done {
        let Some((first, rest)) = words.split_first() else {
            return self.leave("");
        };
        let Some(program) = first.value.clone() else {
            return self.unknown(&as_written(words));
        };
        if let Some(body) = self.state.scope.functions.get(&program).cloned() {
            return self.call(&body, words);
        }
        let name = program.rsplit('/').next().unwrap_or_default().to_owned();
        let text = as_written(words);
        match name.as_str() {
            "true" => self.verdicts.taken(&self.place, &text),
            "[" | "test" => self.test(words),
            "set" => self.set(rest, &text),
            "shopt" => self.shopt(rest, &text),
            "cd" | "pushd" => self.change_directory(rest, &text),
            "export" => self.export(rest, &text),
            "declare" | "typeset" | "readonly" => self.declare(&name, rest, &text),
            "unset" => self.unset(rest, &text),
            "shift" => self.shift(rest, &text),
            "umask" => self.umask(rest, &text),
            "ulimit" => self.ulimit(rest, &text),
            "exit" | "return" => self.end(&name, &text),
            "source" | "." => self.source(rest, &text),
            "eval" => self.eval(rest, &text),
            "trap" | "wait" | "kill" | "echo" | "sleep" | "logger" | "date" | "type" | "hash"
            | "which" => self.leave(&text),
            "printf" if rest.first().map(|word| word.raw.as_str()) != Some("-v") => {
                self.leave(&text)
            }
            _ => self.program(&name, words),
        }
    }

    /// A function of the script itself.
    fn call(&mut self, body: &Rc<Vec<super::Node>>, words: &[Argument]) -> Done {
        let mut arguments: Vec<Option<String>> =
            words.iter().map(|word| word.value.clone()).collect();
        arguments[0] = self.state.scope.arguments.first().cloned().flatten();
        let outer = std::mem::replace(&mut self.state.scope.arguments, arguments);
        let body = Rc::clone(body);
        let went = self.nodes(&body);
        self.state.scope.arguments = outer;
        Done::as_those(if went == Went::Returned {
            Went::Either
        } else {
            went
        })
    }

    /// `: "${NAME:=value}"` assigns.
    fn colon(&mut self, simple: &Simple) -> Done {
        let mut done = None;
        for part in simple.words.iter().flat_map(|word| &word.parts) {
            let Part::Variable(variable) = part else {
                continue;
            };
            let assigns = variable.operator.ends_with('=');
            let is_set = match self.state.scope.value(&variable.name) {
                Value::Known(text) => !text.is_empty() || !variable.operator.starts_with(':'),
                Value::Unset => false,
                Value::Unknown if assigns => return self.unknown(&simple.raw()),
                Value::Unknown => true,
            };
            if assigns && !is_set {
                done = Some(self.assign(&variable.name, &variable.operand, false));
            }
        }
        done.unwrap_or_else(|| self.verdicts.taken(&self.place, &simple.raw()))
    }

    pub(super) fn assign(&mut self, name: &str, word: &Word, exports: bool) -> Done {
        let text = format!("{name}={}", word.raw);
        let value = self.state.scope.text(word);
        self.assign_value(name, value, exports, &text)
    }

    pub(super) fn assign_value(
        &mut self,
        name: &str,
        value: Option<String>,
        exports: bool,
        text: &str,
    ) -> Done {
        if OF_THE_SHELL.contains(&name) {
            return self.refuse(&format!(
                "`{}` changes how scripts are interpreted",
                super::shown(text)
            ));
        }
        let known = self.state.scope.variables.get(name);
        let exports =
            exports || self.state.scope.exports_all || known.is_some_and(|known| known.is_exported);
        let is_known = value.is_some();
        let place = self.place.clone();
        let done = self.change(text, |state| {
            let known = Known {
                value,
                is_exported: exports,
            };
            state.scope.variables.insert(name.to_owned(), known);
            state.places.insert(name.to_owned(), place);
        });
        // What is not exported matters only where it is used.
        if exports && !is_known {
            return self.unknown(text);
        }
        done
    }

    fn export(&mut self, rest: &[Argument], text: &str) -> Done {
        let takes_back = rest.first().is_some_and(|word| word.raw == "-n");
        if rest.first().is_some_and(|word| word.raw.starts_with('-')) && !takes_back {
            return self.refuse(&format!("`{}` is not supported", super::shown(text)));
        }
        let mut done = None;
        for word in rest.iter().filter(|word| word.raw != "-n") {
            let (raw_name, value) = match (&word.value, word.raw.split_once('=')) {
                (Some(whole), _) => match whole.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Some(Some(value.to_owned()))),
                    None => (whole.clone(), None),
                },
                (None, Some((name, _))) => (name.to_owned(), Some(None)),
                (None, None) => return self.unknown(text),
            };
            if !is_name(&raw_name) {
                return self.unknown(text);
            }
            done = Some(match value {
                // In a plain shell it falls apart at blanks.
                Some(value) => self.assign_value(
                    &raw_name,
                    value,
                    !takes_back,
                    &format!("export {}", word.raw),
                ),
                None => self.mark(&raw_name, !takes_back, text),
            });
        }
        done.unwrap_or_else(|| self.leave(text))
    }

    /// Has a variable exported that is set already, or not any more.
    fn mark(&mut self, name: &str, exports: bool, text: &str) -> Done {
        let value = self.state.scope.value(name);
        if exports && value == Value::Unknown {
            return self.unknown(text);
        }
        let place = self.place.clone();
        self.change(text, |state| {
            if let Some(known) = state.scope.variables.get_mut(name) {
                known.is_exported = exports;
                state.places.insert(name.to_owned(), place);
            }
        })
    }

    fn declare(&mut self, name: &str, rest: &[Argument], text: &str) -> Done {
        let options: Vec<&str> = rest
            .iter()
            .map(|word| word.raw.as_str())
            .take_while(|raw| raw.starts_with('-'))
            .collect();
        let words = &rest[options.len()..];
        match options[..] {
            ["-x" | "-rx" | "-xr"] => self.export(words, text),
            [] | ["-r"] if name == "readonly" || !options.is_empty() || self.nesting == 1 => {
                let mut done = None;
                for word in words {
                    let whole = word.value.as_deref().unwrap_or(&word.raw);
                    let Some((name, value)) = whole.split_once('=') else {
                        continue;
                    };
                    let value = word.value.is_some().then(|| value.to_owned());
                    done = Some(self.assign_value(name, value, false, text));
                }
                done.unwrap_or_else(|| self.leave(text))
            }
            _ => self.refuse(&format!("`{}` is not supported", super::shown(text))),
        }
    }

    fn unset(&mut self, rest: &[Argument], text: &str) -> Done {
        let names: Option<Vec<String>> = rest.iter().map(|word| word.value.clone()).collect();
        let Some(names) = names else {
            return self.unknown(text);
        };
        if names.iter().any(|name| name == "PATH" || name == "HOME") {
            return self.refuse(&format!("`{}` is not supported", super::shown(text)));
        }
        // What neither unit nor script has set, the activation before it may have.
        let is_of_activation = |name: &String| {
            let scope = &self.state.scope;
            let is_known = scope.variables.contains_key(name) || scope.functions.contains_key(name);
            !is_known && !name.starts_with('-')
        };
        if self.state.target.is_some() && names.iter().any(is_of_activation) {
            let _: Went = self.leave(text).went();
        }
        self.change(text, |state| {
            for name in names.iter().filter(|name| *name != "-v") {
                state.scope.variables.remove(name);
                state.scope.functions.remove(name);
                state.places.remove(name);
            }
        })
    }

    fn set(&mut self, rest: &[Argument], text: &str) -> Done {
        let mut exports_all = None;
        let mut words = rest.iter();
        while let Some(word) = words.next() {
            if word.raw == "--" {
                let mut arguments = vec![self.state.scope.arguments.first().cloned().flatten()];
                arguments.extend(words.map(|word| word.value.clone()));
                return self.change(text, |state| state.scope.arguments = arguments);
            }
            let is_on = word.raw.starts_with('-');
            let letters = word.raw.trim_start_matches(['-', '+']);
            let is_option = letters.len() < word.raw.len();
            // None of these changes what a command means.
            if !is_option
                || letters
                    .chars()
                    .any(|letter| !"aeuxvhBETbCo".contains(letter))
            {
                return self.refuse(&format!("`{}` is not supported", super::shown(text)));
            }
            if letters.contains('a') {
                exports_all = Some(is_on);
            }
            if letters.contains('o') {
                match words.next().map(Argument::known) {
                    Some(
                        "errexit" | "nounset" | "pipefail" | "xtrace" | "errtrace" | "noclobber",
                    ) => {}
                    Some("allexport") => exports_all = Some(is_on),
                    _ => {
                        return self.refuse(&format!("`{}` is not supported", super::shown(text)));
                    }
                }
            }
        }
        self.change(text, |state| {
            if let Some(exports_all) = exports_all {
                state.scope.exports_all = exports_all;
            }
        })
    }

    fn shopt(&mut self, rest: &[Argument], text: &str) -> Done {
        let known = [
            "-s",
            "-u",
            "-q",
            "inherit_errexit",
            "checkwinsize",
            "expand_aliases",
            "nullglob",
            "failglob",
            "huponexit",
        ];
        if rest.iter().all(|word| known.contains(&word.known())) {
            return self.verdicts.taken(&self.place, text);
        }
        self.refuse(&format!("`{}` is not supported", super::shown(text)))
    }

    fn shift(&mut self, rest: &[Argument], text: &str) -> Done {
        let count = rest
            .first()
            .map_or(Ok(1), |word| word.known().parse::<usize>());
        let Ok(count) = count else {
            return self.unknown(text);
        };
        self.change(text, |state| {
            let arguments = &mut state.scope.arguments;
            let end = arguments.len().min(1 + count);
            if end > 1 {
                arguments.drain(1..end);
            }
        })
    }

    fn change_directory(&mut self, rest: &[Argument], text: &str) -> Done {
        let rest: Vec<&Argument> = rest
            .iter()
            .filter(|word| !["--", "-P", "-L"].contains(&word.raw.as_str()))
            .collect();
        let target = match rest[..] {
            [] => match self.state.scope.value("HOME") {
                Value::Known(home) => Some(home),
                _ => None,
            },
            [word] if !word.known().starts_with('-') => word.value.clone(),
            _ => None,
        };
        let directory = target.and_then(|path| self.absolute(&path));
        if directory.is_none() {
            return self.unknown(text);
        }
        self.change(text, |state| state.scope.directory = directory)
    }

    fn umask(&mut self, rest: &[Argument], text: &str) -> Done {
        match rest {
            [] => self.leave(text),
            [mask] => self.set_umask(mask.known(), text),
            _ => self.unknown(text),
        }
    }

    pub(super) fn set_umask(&mut self, mask: &str, text: &str) -> Done {
        match u32::from_str_radix(mask, 8) {
            Ok(mask) if mask <= 0o777 => self.hand_on("UMask", format!("{mask:04o}"), text),
            _ => self.unknown(text),
        }
    }

    /// Something that a process hands on to what it starts, as systemd has it.
    pub(super) fn hand_on(&mut self, key: &'static str, value: String, text: &str) -> Done {
        let place: Place = self.place.clone();
        self.change(text, |state| {
            state.process.insert(key, Found { value, place });
        })
    }

    fn ulimit(&mut self, rest: &[Argument], text: &str) -> Done {
        let [option, value] = rest else {
            return if rest.iter().all(|word| word.raw.starts_with('-')) {
                self.leave(text)
            } else {
                self.refuse(&format!("`{}` is not supported", super::shown(text)))
            };
        };
        let (key, factor) = match option.raw.as_str() {
            "-n" => ("LimitNOFILE", 1),
            "-u" => ("LimitNPROC", 1),
            "-t" => ("LimitCPU", 1),
            // Their unit differs from shell to shell.
            "-c" if ["0", "unlimited"].contains(&value.known()) => ("LimitCORE", 1),
            "-f" if ["0", "unlimited"].contains(&value.known()) => ("LimitFSIZE", 1),
            "-s" => ("LimitSTACK", 1024),
            "-v" => ("LimitAS", 1024),
            "-d" => ("LimitDATA", 1024),
            "-l" => ("LimitMEMLOCK", 1024),
            "-m" => ("LimitRSS", 1024),
            _ => return self.refuse(&format!("`{}` is not supported", super::shown(text))),
        };
        let limit = match value.known() {
            "unlimited" => "infinity".to_owned(),
            number => match number
                .parse::<u64>()
                .ok()
                .and_then(|number| number.checked_mul(factor))
            {
                Some(number) => number.to_string(),
                None => return self.unknown(text),
            },
        };
        self.hand_on(key, limit, text)
    }

    fn end(&mut self, name: &str, text: &str) -> Done {
        let done = self.leave(text);
        // One that depends on something did not happen, or nothing would run.
        if self.conditions > self.conditions_around {
            return done;
        }
        match name {
            "exit" => done.and_ended(),
            _ => Done::as_those(Went::Returned),
        }
    }

    /// `[ -f PATH ]` and the like, where it is known what they come to.
    pub(super) fn test(&mut self, words: &[Argument]) -> Done {
        let done = self.verdicts.taken(&self.place, &as_written(words));
        drop(done);
        let inner: Vec<&Argument> = words
            .iter()
            .skip(usize::from(words.first().is_some_and(|word| {
                word.raw == "[" || word.raw == "test" || word.raw == "[["
            })))
            .filter(|word| word.raw != "]" && word.raw != "]]")
            .collect();
        let is_true = match inner[..] {
            // No shell of a service is interactive.
            [left, sign, right] if left.raw.trim_matches('"') == "$-" && right.raw == "*i*" => {
                Some(sign.raw == "!=")
            }
            [
                sign,
                Argument {
                    value: Some(value), ..
                },
            ] => match sign.raw.as_str() {
                "-z" => Some(value.is_empty()),
                "-n" => Some(!value.is_empty()),
                "-e" | "-f" | "-r" | "-d" | "-x" | "-s" => {
                    self.test_path(&sign.raw.clone(), &value.clone())
                }
                _ => None,
            },
            [
                Argument {
                    value: Some(left), ..
                },
                sign,
                Argument {
                    value: Some(right), ..
                },
            ] => match sign.raw.as_str() {
                "=" | "==" => Some(left == right),
                "!=" => Some(left != right),
                _ => None,
            },
            _ => None,
        };
        Done::as_those(match is_true {
            Some(true) => Went::Well,
            Some(false) => Went::Wrong,
            None => Went::Either,
        })
    }

    fn test_path(&mut self, sign: &str, path: &str) -> Option<bool> {
        let path = self.absolute(path)?;
        if !(self.files.exists)(&path) {
            return Some(false);
        }
        match sign {
            "-e" => Some(true),
            "-f" | "-r" => self.read_script(&path).ok().map(|_| true),
            _ => None,
        }
    }
}

pub(super) const TOO_MANY: &str = "the scripts are too large or call each other too often";
