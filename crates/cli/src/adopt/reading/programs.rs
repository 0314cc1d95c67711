//! What scripts start: Buildbot itself, and the programs in front of it that start others.

use buildbot_conda_core::names::Role;

use super::{Found, LEAST, MOST, Reader, Target, told};
use crate::adopt::shell::{Command, Script, Word};
use buildbot_conda_core::unit_text::Place;

impl Reader<'_> {
    /// A script, or a program that nothing is known of.
    pub(super) fn other(&mut self, name: &str, words: &[Word], place: &Place) {
        let path = words[0].known();
        // What the unit itself starts decides everything.
        let is_needed = self.depth == 0 && name.rsplit('.').next() == Some("sh");
        if is_needed || path.contains('/') {
            let arguments = words.iter().map(|word| word.known().to_owned()).collect();
            match self.look(path) {
                Ok((file, text)) => return self.script(&file, &text, arguments),
                Err(reason) if is_needed || self.read_so_far > MOST => {
                    return self.problem(place.clone(), &reason);
                }
                Err(_) => {}
            }
        }
        self.leave(place.clone(), &told(words));
    }

    pub(super) fn follow(&mut self, path: &str, arguments: Vec<String>, place: &Place) {
        match self.look(path) {
            Ok((file, text)) => self.script(&file, &text, arguments),
            Err(reason) => self.problem(place.clone(), &reason),
        }
    }

    /// A script's whole path and its text; the reason when there is none.
    fn look(&mut self, path: &str) -> Result<(String, String), String> {
        let Some(path) = self.absolute(path) else {
            return Err(format!("`{path}` cannot be told without running it"));
        };
        let text = (self.read)(&path);
        self.count(text.as_ref().map_or(0, String::len))?;
        match text {
            Ok(text) => Ok((path, text)),
            Err(reason) => Err(format!("read `{path}`: {reason}")),
        }
    }

    /// `exec -a NAME CMD`, `nice -n 5 CMD`, `env A=b CMD`.
    pub(super) fn wrapped(&mut self, command: &Command, name: &str, rest: &[Word], file: &str) {
        let mut words = rest;
        while let Some((first, behind)) = words.split_first() {
            let takes_value = matches!(
                (name, first.raw.as_str()),
                ("exec", "-a") | ("nice", "-n") | ("ionice", "-c" | "-n") | ("env", "-u")
            );
            if !first.raw.starts_with('-') {
                break;
            }
            words = if takes_value {
                behind.get(1..).unwrap_or_default()
            } else {
                behind
            };
        }
        let assigned = words
            .iter()
            .take_while(|word| name == "env" && word.raw.contains('='))
            .count();
        let place = Place {
            file: file.to_owned(),
            line: command.line,
        };
        for word in &words[..assigned] {
            self.assign(command, word, &place, true);
        }
        let inner = Command {
            words: words[assigned..].to_vec(),
            ..command.clone()
        };
        if !inner.words.is_empty() {
            self.command(&inner, file);
        }
    }

    pub(super) fn shell(&mut self, rest: &[Word], place: &Place) {
        let mut words = rest;
        while let Some((first, behind)) = words.split_first() {
            if !first.raw.starts_with('-') {
                let arguments = words.iter().map(|word| word.known().to_owned()).collect();
                self.follow(first.known(), arguments, place);
                return;
            }
            // `-c`, also among others as in `-lc`.
            if !first.raw.starts_with("--") && first.raw.ends_with('c') {
                let Some(text) = behind.first() else { return };
                match &text.value {
                    Some(value) => {
                        let arguments = behind[1..].iter().map(|word| word.known().to_owned());
                        self.inline(&value.clone(), arguments.collect(), place);
                    }
                    None => self.unknown(text, place),
                }
                return;
            }
            words = behind;
        }
    }

    /// Counts a text of so many bytes; the reason when there are too many by now, and nothing more is read.
    fn count(&mut self, bytes: usize) -> Result<(), String> {
        self.read_so_far += bytes.max(LEAST);
        if self.read_so_far > MOST {
            return Err(
                "the scripts are larger or call each other more often than is read here".to_owned(),
            );
        }
        Ok(())
    }

    /// The text of `-c` has its place where the option stands.
    pub(super) fn inline(&mut self, text: &str, arguments: Vec<String>, place: &Place) {
        if let Err(reason) = self.count(text.len()) {
            self.problem(place.clone(), &reason);
            return;
        }
        let outer = std::mem::replace(&mut self.scope.arguments, arguments);
        let mut script = Script::new(text);
        while let Some(mut command) = script.next(&self.scope) {
            command.line = place.line;
            self.command(&command, &place.file);
        }
        self.scope.arguments = outer;
    }

    pub(super) fn python(&mut self, command: &Command, first: &Word, rest: &[Word], place: &Place) {
        if let Some((prefix, _)) = first.known().rsplit_once("/bin/")
            && prefix != "/usr"
            && prefix != "/usr/local"
        {
            self.target(Target::Prefix(prefix.to_owned()), place);
        }
        let mut words = rest;
        while let Some((option, behind)) = words.split_first() {
            if option.raw == "-m" {
                words = behind;
                break;
            }
            if !option.raw.starts_with('-') {
                break;
            }
            words = behind;
        }
        let name = words
            .first()
            .map(|word| word.known().rsplit('/').next().unwrap_or_default());
        match name {
            Some("buildbot" | "buildbot-worker" | "twistd") => {
                let inner = Command {
                    words: words.to_vec(),
                    ..command.clone()
                };
                self.command(&inner, &place.file);
            }
            _ => self.leave(place.clone(), &told(&command.words)),
        }
    }

    pub(super) fn start(&mut self, command: &Command, words: &[Word], place: &Place) {
        if command.conditional || command.background {
            let how = if command.background {
                "runs in the background"
            } else {
                "depends on a condition"
            };
            self.problem(place.clone(), &format!("`{}` {how}", told(words)));
            return;
        }
        let program = words[0].known().to_owned();
        if let Some(prefix) = program.rsplit_once("/bin/").map(|(prefix, _)| prefix) {
            self.target(Target::Prefix(prefix.to_owned()), place);
        }
        if program.ends_with("twistd") {
            self.start_twistd(words, place);
            return;
        }
        let role = if program.ends_with("worker") {
            Role::Worker
        } else {
            Role::Master
        };
        let verb = words.get(1).map(Word::known).unwrap_or_default();
        if verb != "start" && verb != "restart" {
            self.leave(place.clone(), &told(words));
            return;
        }
        let directory = words[2..].iter().find(|word| !word.raw.starts_with('-'));
        let plain = Word::plain(".");
        self.started(role, directory.unwrap_or(&plain), place);
    }

    /// `twistd -ny DIR/buildbot.tac`; which role it is, the tac knows.
    pub(super) fn start_twistd(&mut self, words: &[Word], place: &Place) {
        let tac = words.iter().find(|word| word.raw.contains("buildbot.tac"));
        let Some(tac) = tac else {
            self.leave(place.clone(), &told(words));
            return;
        };
        let path = tac.known().rsplit('=').next().unwrap_or_default();
        let directory = path.strip_suffix("buildbot.tac").unwrap_or_default();
        let directory = if directory.is_empty() { "." } else { directory };
        self.started(Role::Master, &Word::plain(directory), place);
    }

    pub(super) fn started(&mut self, role: Role, directory: &Word, place: &Place) {
        let path = directory
            .value
            .as_deref()
            .and_then(|path| self.absolute(path));
        match path {
            Some(path) => {
                self.reading.start = Some(Found {
                    value: (role, path),
                    place: place.clone(),
                });
            }
            None => self.unknown(directory, place),
        }
    }
}
