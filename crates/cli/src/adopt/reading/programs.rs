//! What scripts start: Buildbot itself, and the programs in front of it that start others.

use std::collections::BTreeMap;

use buildbot_conda_core::unit_text::is_name;

use super::commands::TOO_MANY;
use super::start::starts_buildbot;
use super::wrappers::HIDES;
use super::{Argument, DEEPEST, Done, Found, LEAST, MOST, Reader, SYSTEM, Went, as_written, shown};

impl Reader<'_> {
    /// A command that is not the shell's own.
    pub(super) fn program(&mut self, name: &str, words: &[Argument]) -> Done {
        let (first, rest) = (&words[0], &words[1..]);
        match name {
            "exec" | "nohup" | "command" | "time" | "env" | "nice" | "ionice" | "builtin"
            | "stdbuf" | "taskset" => self.wrapped(name, words),
            "activate" if first.known().contains('/') => self.source(words, &as_written(words)),
            "conda" | "mamba" | "micromamba" => self.conda(name, words),
            "bash" | "sh" | "dash" => self.shell(rest, &as_written(words)),
            "buildbot" | "buildbot-worker" | "twistd" => self.start(words, None),
            _ if is_python(name) => self.python(words),
            "setpriv" | "chroot" | "zsh" | "ksh" | "fish" | "csh" | "tcsh" => self.hidden(words),
            "alias" | "unalias" | "coproc" | "enable" | "let" | "mapfile" | "readarray"
            | "read" | "getopts" | "printf" | "local" | "popd" | "dirs" | "deactivate"
            | "disown" | "suspend" | "prlimit" | "renice" => {
                self.refuse(&format!("`{}` is not supported", shown(&as_written(words))))
            }
            _ => match self.wrapper(name, words) {
                Some(done) => done,
                None => self.other(name, words),
            },
        }
    }

    fn hidden(&mut self, words: &[Argument]) -> Done {
        self.refuse(&format!("`{}` {HIDES}", shown(&as_written(words))))
    }

    /// A script, or a program that nothing is known of.
    fn other(&mut self, name: &str, words: &[Argument]) -> Done {
        let path = words[0].known().to_owned();
        let is_needed = self.depth == 0 && name.rsplit('.').next() == Some("sh");
        let place = if path.contains('/') {
            Some(path.clone())
        } else {
            self.on_path(name)
        };
        if let Some(place) = place.or_else(|| is_needed.then_some(path)) {
            match self.read_script(&place) {
                Ok((file, text)) if is_shell_script(&text) => {
                    let arguments = words.iter().map(|word| word.value.clone()).collect();
                    let options = shebang(&text).map_or(Vec::new(), |words| words[1..].to_vec());
                    if let Some(done) = self.options_of_shebang(&options, &as_written(words)) {
                        return done;
                    }
                    return self.script(&file, &text, arguments);
                }
                Err(reason) if is_needed || self.read_so_far > MOST => return self.refuse(&reason),
                Ok(_) | Err(_) => {}
            }
        }
        let text = as_written(words);
        // What stands among the words of another program may be run by it.
        if starts_buildbot(&values(&words[1..])) {
            return self.hidden(words);
        }
        if words
            .iter()
            .any(|word| word.raw.contains("$$") || word.raw.contains("$BASHPID"))
        {
            return self.refuse(&format!("`{}` changes the process itself", shown(&text)));
        }
        self.leave(&text)
    }

    /// Where a program that is named without its directory is, if not among the system's.
    fn on_path(&self, name: &str) -> Option<String> {
        let path = self.state.scope.variables.get("PATH")?.value.clone()?;
        let own = path
            .split(':')
            .filter(|part| part.starts_with('/') && !SYSTEM.contains(part));
        let local = ["/usr/local/bin", "/usr/local/sbin"];
        own.chain(local)
            .map(|part| format!("{}/{name}", part.trim_end_matches('/')))
            .find(|path| (self.files.exists)(path))
    }

    /// Options of a script's first line; a verdict where they change what it is.
    fn options_of_shebang(&mut self, options: &[String], text: &str) -> Option<Done> {
        let is_login = |option: &String| {
            option == "--login"
                || (option.starts_with('-')
                    && !option.starts_with("--")
                    && option.contains(['l', 'i']))
        };
        options.iter().any(is_login).then(|| self.login(text))
    }

    /// A login shell reads `/etc/profile` and files of the account first.
    fn login(&mut self, text: &str) -> Done {
        let reason = format!(
            "`{}` reads a shell profile, which is not supported",
            shown(text)
        );
        self.verdicts.not_known(&self.place, &reason)
    }

    /// A script in a process of its own: it has the exported variables, and what it changes is lost.
    fn script(&mut self, file: &str, text: &str, arguments: Vec<Option<String>>) -> Done {
        if self.depth >= DEEPEST {
            return self.refuse("too many levels of scripts that call scripts");
        }
        self.depth += 1;
        let file = file.to_owned();
        self.apart(|reader| {
            let scope = &mut reader.state.scope;
            scope.variables.retain(|_, known| known.is_exported);
            scope.functions.clear();
            scope.arguments = arguments;
            scope.exports_all = false;
            scope.file.clone_from(&file);
            reader.elsewhere(&file, false, text)
        });
        self.depth -= 1;
        Done::as_those(Went::Either)
    }

    /// The script of a shell's command line.
    fn follow(&mut self, words: &[Argument]) -> Done {
        let Some(path) = &words[0].value else {
            return self.unknown(&words[0].raw);
        };
        match self.read_script(path) {
            Ok((file, text)) => self.script(
                &file,
                &text,
                words.iter().map(|word| word.value.clone()).collect(),
            ),
            Err(reason) => self.refuse(&reason),
        }
    }

    /// A script's whole path and its text; the reason when there is none.
    pub(super) fn read_script(&mut self, path: &str) -> Result<(String, String), String> {
        let Some(path) = self.absolute(path) else {
            return Err(format!("the value of `{path}` is known only at run time"));
        };
        let text = (self.files.read)(&path);
        self.count(text.as_ref().map_or(0, String::len))?;
        match text {
            Ok(text) => Ok((path, text)),
            Err(reason) => Err(format!("read `{path}`: {reason}")),
        }
    }

    /// A file that the present shell reads itself.
    pub(super) fn read_in(&mut self, words: &[Argument], text: &str) -> Done {
        let Some(path) = &words[0].value else {
            return self.unknown(text);
        };
        let found = match self.read_script(path) {
            _ if self.depth >= DEEPEST => {
                return self.refuse("too many levels of scripts that call scripts");
            }
            Ok(found) => found,
            Err(reason) => {
                self.state.scope.has_unknown = true;
                let reason = format!("the effect of `{}` is unknown: {reason}", shown(text));
                return self.verdicts.not_known(&self.place, &reason);
            }
        };
        let (file, content) = found;
        let scope = &mut self.state.scope;
        let outer_file = std::mem::replace(&mut scope.file, file.clone());
        let outer_arguments = scope.arguments.clone();
        if words.len() > 1 {
            scope.arguments.truncate(1);
            scope
                .arguments
                .extend(words[1..].iter().map(|word| word.value.clone()));
        }
        self.depth += 1;
        let went = self.elsewhere(&file, false, &content);
        self.depth -= 1;
        self.state.scope.file = outer_file;
        self.state.scope.arguments = outer_arguments;
        Done::as_those(if went == Went::Ended {
            went
        } else {
            Went::Well
        })
    }

    /// `exec -a NAME CMD`, `nice -n 5 CMD`, `env A=b CMD`.
    #[expect(clippy::too_many_lines, reason = "options, one after the other")]
    fn wrapped(&mut self, name: &str, words: &[Argument]) -> Done {
        let text = as_written(words);
        let mut rest = &words[1..];
        let mut handed: Vec<(&'static str, String)> = Vec::new();
        let mut is_niced = false;
        while let Some((option, behind)) = rest.split_first() {
            let raw = option.raw.as_str();
            if !raw.starts_with('-') {
                break;
            }
            rest = behind;
            let separate = behind.first().map(|word| word.known().to_owned());
            let mut value = |attached: &str| -> Option<String> {
                if attached.is_empty() {
                    rest = behind.get(1..).unwrap_or_default();
                    separate.clone()
                } else {
                    Some(attached.trim_start_matches('=').to_owned())
                }
            };
            let is_known = match (name, raw) {
                (_, "--") => break,
                ("exec", "-a") => value("").is_some(),
                ("command", "-v" | "-V") => return self.leave(&text),
                ("time", "-p") | ("ionice", "-t") | ("nohup", "") => true,
                ("stdbuf", _) => {
                    if raw.len() == 2 {
                        value("");
                    }
                    true
                }
                ("nice", _) => {
                    let attached = ["--adjustment", "-n", "-"]
                        .iter()
                        .find_map(|prefix| raw.strip_prefix(prefix));
                    let number = value(attached.unwrap_or_default())
                        .and_then(|text| text.parse::<i32>().ok());
                    is_niced = true;
                    number
                        .map(|number| handed.push(("Nice", number.to_string())))
                        .is_some()
                }
                ("ionice", _) => {
                    let forms = [
                        ("-c", "IOSchedulingClass"),
                        ("-n", "IOSchedulingPriority"),
                        ("--class", "IOSchedulingClass"),
                        ("--classdata", "IOSchedulingPriority"),
                    ];
                    let form = forms
                        .iter()
                        .rev()
                        .find_map(|(prefix, key)| Some((raw.strip_prefix(prefix)?, *key)));
                    let found = form.and_then(|(attached, key)| Some((key, value(attached)?)));
                    let found = found.filter(|(_, value)| {
                        value
                            .bytes()
                            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                    });
                    found.map(|found| handed.push(found)).is_some()
                }
                ("taskset", "-c" | "--cpu-list") => value("")
                    .map(|list| handed.push(("CPUAffinity", list.replace(',', " "))))
                    .is_some(),
                ("env", "-u") => match value("") {
                    Some(name) => {
                        let done = self.change(&text, |state| {
                            state.scope.variables.remove(&name);
                            state.places.remove(&name);
                        });
                        drop(done);
                        true
                    }
                    None => false,
                },
                _ => false,
            };
            if !is_known {
                return self.refuse(&format!("`{}` is not supported: `{raw}`", shown(&text)));
            }
        }
        if name == "nice" && !is_niced {
            handed.push(("Nice", "10".to_owned()));
        }
        if name == "taskset" && handed.is_empty() {
            return self.refuse(&format!("`{}` is not supported", shown(&text)));
        }
        let count = rest
            .iter()
            .take_while(|word| name == "env" && word.raw.contains('='))
            .count();
        let (assigned, inner) = rest.split_at(count);
        let mut variables = BTreeMap::new();
        for word in assigned {
            let (variable, _) = word.raw.split_once('=').unwrap_or_default();
            let value = word.value.as_deref().and_then(|text| text.split_once('='));
            if !is_name(variable) || value.is_none() {
                return self.unknown(&word.raw);
            }
            variables.insert(
                variable.to_owned(),
                value.map(|(_, value)| value.to_owned()),
            );
        }
        if inner.is_empty() {
            return self.leave(&text);
        }
        let process = self.state.process.clone();
        for (key, value) in handed {
            let value = match (key, self.state.process.get("Nice")) {
                ("Nice", Some(before)) => nicer(&before.value, &value),
                _ => value,
            };
            self.state.process.insert(
                key,
                Found {
                    value,
                    place: self.place.clone(),
                },
            );
        }
        let done = if matches!(name, "exec" | "command" | "builtin" | "time") {
            self.command(inner, &variables)
        } else {
            // Only a shell has its own commands.
            let mut done = None;
            self.apart(|reader| {
                reader.state.scope.functions.clear();
                let inner_done = reader.command(inner, &variables);
                let went = inner_done.went();
                done = Some(inner_done);
                went
            });
            done.unwrap_or_else(|| self.leave(&text))
        };
        self.state.process = process;
        if name == "exec" && self.conditions == self.conditions_around {
            done.and_ended()
        } else {
            done
        }
    }

    pub(super) fn shell(&mut self, rest: &[Argument], text: &str) -> Done {
        let mut words = rest;
        let mut exports_all = false;
        while let Some((first, behind)) = words.split_first() {
            let raw = first.raw.as_str();
            if !raw.starts_with('-') {
                return self.follow(words);
            }
            words = behind;
            match raw {
                "--login" => return self.login(text),
                "--norc" | "--noprofile" | "--posix" | "--" => continue,
                _ => {}
            }
            let letters = raw.trim_start_matches('-');
            if letters.contains(['l', 'i']) {
                return self.login(text);
            }
            if raw.starts_with("--") || letters.chars().any(|letter| !"aeuxvhcob".contains(letter))
            {
                return self.refuse(&format!("`{}` is not supported: `{raw}`", shown(text)));
            }
            exports_all |= letters.contains('a');
            if letters.contains('o') {
                if !matches!(
                    behind.first().map(Argument::known),
                    Some("errexit" | "pipefail" | "nounset" | "xtrace")
                ) {
                    return self.refuse(&format!("`{}` is not supported", shown(text)));
                }
                words = &behind[1..];
            }
            if letters.contains('c') {
                let Some((script, arguments)) = words.split_first() else {
                    return self.leave(text);
                };
                let Some(value) = script.value.clone() else {
                    return self.unknown(&script.raw);
                };
                let arguments = arguments.iter().map(|word| word.value.clone()).collect();
                return self.inline(&value, arguments, exports_all);
            }
        }
        self.leave(text)
    }

    /// Counts a text of so many bytes; the reason when there are too many by now, and nothing more is read.
    fn count(&mut self, bytes: usize) -> Result<(), String> {
        self.read_so_far += bytes.max(LEAST);
        if self.read_so_far > MOST {
            return Err(TOO_MANY.to_owned());
        }
        Ok(())
    }

    /// The text of `-c` has its place where the option stands.
    fn inline(
        &mut self,
        text: &str,
        mut arguments: Vec<Option<String>>,
        exports_all: bool,
    ) -> Done {
        if let Err(reason) = self.count(text.len()) {
            return self.refuse(&reason);
        }
        if arguments.is_empty() {
            arguments.push(Some("sh".to_owned()));
        }
        let file = self.place.file.clone();
        self.apart(|reader| {
            let scope = &mut reader.state.scope;
            scope.variables.retain(|_, known| known.is_exported);
            scope.functions.clear();
            scope.arguments = arguments;
            scope.exports_all = exports_all;
            reader.elsewhere(&file, true, text)
        });
        Done::as_those(Went::Either)
    }

    fn python(&mut self, words: &[Argument]) -> Done {
        let mut rest = &words[1..];
        let mut options = Vec::new();
        while let Some((option, behind)) = rest.split_first() {
            if option.raw == "-m" {
                rest = behind;
                break;
            }
            if !option.raw.starts_with('-') {
                break;
            }
            if !["-u", "-B", "-q", "-v"].contains(&option.raw.as_str()) {
                return self.refuse(&format!(
                    "`{}` is not supported: `{}`",
                    shown(&as_written(words)),
                    option.raw
                ));
            }
            options.push(option.raw.clone());
            rest = behind;
        }
        let name = rest
            .first()
            .map(|word| word.known().rsplit('/').next().unwrap_or_default());
        match name {
            Some("buildbot" | "buildbot-worker" | "buildbot_worker" | "twistd") => {
                if !options.is_empty() {
                    let _: Went = self.leave(&options.join(" ")).went();
                }
                self.start(rest, Some(&words[0].clone()))
            }
            _ if starts_buildbot(&values(rest)) => self.hidden(words),
            _ => self.leave(&as_written(words)),
        }
    }
}

/// The sum of two niceties, as far as it goes.
pub(in crate::adopt) fn nicer(one: &str, other: &str) -> String {
    let number = |text: &str| text.parse::<i32>().unwrap_or_default();
    number(one)
        .saturating_add(number(other))
        .clamp(-20, 19)
        .to_string()
}

/// What words come to, where that is known.
fn values(words: &[Argument]) -> String {
    let values: Vec<&str> = words
        .iter()
        .map(|word| word.value.as_deref().unwrap_or(&word.raw))
        .collect();
    values.join(" ")
}

fn is_python(name: &str) -> bool {
    name.strip_prefix("python").is_some_and(|rest| {
        rest.bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
    })
}

/// The words of a script's first line.
fn shebang(text: &str) -> Option<Vec<String>> {
    let line = text.strip_prefix("#!")?.lines().next()?;
    let words = line.split_whitespace().map(str::to_owned);
    let mut words: Vec<String> = words.collect();
    if words.first().is_some_and(|first| first.ends_with("/env")) {
        words.remove(0);
        words.retain(|word| word != "-S");
    }
    Some(words)
}

/// Whether a text is a script of a shell that is read here; without a first line a shell takes it for one.
fn is_shell_script(text: &str) -> bool {
    let Some(words) = shebang(text) else {
        return !text.contains('\0');
    };
    let name = words.first().and_then(|first| first.rsplit('/').next());
    matches!(name, Some("sh" | "bash" | "dash"))
}
