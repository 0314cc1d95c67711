//! The start of a Buildbot: by its own programs or by `twistd`, from which environment, in which directory.

use buildbot_conda_core::names::Role;

use super::{
    ACTIVATED, Argument, Done, Found, Reader, SYSTEM, SYSTEMS, Start, Target, Went, as_written,
    shown,
};

impl Reader<'_> {
    /// Buildbot's own programs. `python` is what runs them, where that is named.
    pub(super) fn start(&mut self, words: &[Argument], python: Option<&Argument>) -> Done {
        let program = words[0].known().to_owned();
        if program.ends_with("twistd") {
            return self.start_twistd(words, python);
        }
        let role = if program.ends_with("worker") {
            Role::Worker
        } else {
            Role::Master
        };
        let mut rest = words[1..].iter();
        let verb = rest.find(|word| !["-v", "--verbose"].contains(&word.raw.as_str()));
        match verb.map(Argument::known) {
            Some("start" | "restart") => {}
            _ => return self.leave(&as_written(words)),
        }
        let mut directory = None;
        let mut is_daemon = true;
        while let Some(word) = rest.next() {
            match word.raw.as_str() {
                "--nodaemon" | "-n" => is_daemon = false,
                "-q" | "--quiet" => {}
                // Ours waits as long as the configuration says.
                "--start_timeout" => {
                    let value = rest.next().map_or("", |word| &word.raw);
                    let _: Went = self.leave(&format!("--start_timeout {value}")).went();
                }
                raw if raw.starts_with("--start_timeout=") => {
                    let _: Went = self.leave(raw).went();
                }
                raw if raw.starts_with('-') || directory.is_some() => {
                    let reason = format!(
                        "`{}` is not supported: `{}`",
                        shown(&as_written(words)),
                        shown(raw)
                    );
                    return self.refuse(&reason);
                }
                _ => directory = Some(word.clone()),
            }
        }
        let process = self.state.process.clone();
        if is_daemon {
            self.daemon_mask();
        }
        let directory = directory.unwrap_or_else(|| Argument::plain("."));
        let done = self.started(role, &directory, words, python);
        self.state.process = process;
        done
    }

    /// Twisted takes everything from others when it makes a daemon of itself, and no option says otherwise.
    fn daemon_mask(&mut self) {
        let found = Found {
            value: "0077".to_owned(),
            place: self.place.clone(),
        };
        self.state.process.insert("UMask", found);
    }

    /// `twistd -ny DIR/buildbot.tac`; which role it is, the tac knows.
    fn start_twistd(&mut self, words: &[Argument], python: Option<&Argument>) -> Done {
        let text = as_written(words);
        let mut tac = None;
        let mut rundir = None;
        let mut left = Vec::new();
        let mut rest = words[1..].iter().peekable();
        let mut umask = None;
        while let Some(word) = rest.next() {
            let raw = word.raw.as_str();
            let (option, mut value) = match (raw.strip_prefix("--"), word.value.as_deref()) {
                (Some(_), Some(known)) if known.contains('=') => {
                    let (option, value) = known.split_once('=').unwrap_or_default();
                    (option.to_owned(), Some(Argument::plain(value)))
                }
                // Letters together: the last may have a value.
                (None, _) if raw.starts_with('-') && raw.len() > 2 && raw[1..].is_ascii() => {
                    let letters = &raw[1..];
                    let flags = letters.len() - letters.trim_start_matches(['n', 'o']).len();
                    let (_, last) = letters.split_at(flags.min(letters.len() - 1));
                    let attached = last.get(1..).filter(|value| !value.is_empty());
                    (format!("-{}", &last[..1]), attached.map(Argument::plain))
                }
                _ => (raw.to_owned(), None),
            };
            let takes_value = matches!(
                option.as_str(),
                "-y" | "--python"
                    | "-d"
                    | "--rundir"
                    | "--umask"
                    | "-l"
                    | "--logfile"
                    | "--pidfile"
                    | "--prefix"
            );
            if takes_value && value.is_none() {
                value = rest.next().cloned();
            }
            match (option.as_str(), value) {
                ("-n" | "--nodaemon" | "-o" | "--no_save" | "--originalname", None) => {}
                ("-y" | "--python", Some(value)) => tac = Some(value),
                ("-d" | "--rundir", Some(value)) => rundir = Some(value),
                ("--umask", Some(value)) => umask = Some(value),
                ("-l" | "--logfile" | "--pidfile" | "--prefix", Some(value)) => {
                    left.push(format!("{option} {}", value.raw));
                }
                _ => {
                    return self.refuse(&format!(
                        "`{}` is not supported: `{}`",
                        shown(&text),
                        shown(raw)
                    ));
                }
            }
        }
        let Some(tac) = tac else {
            return self.refuse(&format!("`{}` contains no `--python`", shown(&text)));
        };
        let Some(path) = tac.value.clone() else {
            return self.unknown(&tac.raw);
        };
        if !left.is_empty() {
            let _: Went = self.leave(&left.join(" ")).went();
        }
        let process = self.state.process.clone();
        if umask.is_none() && !words[1..].iter().any(|word| stays_in_front(&word.raw)) {
            self.daemon_mask();
        }
        if let Some(mask) = umask {
            let _: Went = self
                .set_umask(mask.known(), &format!("--umask {}", mask.raw))
                .went();
        }
        let outer = self.state.scope.directory.clone();
        if let Some(directory) = rundir {
            let Some(path) = directory
                .value
                .as_deref()
                .and_then(|path| self.absolute(path))
            else {
                return self.unknown(&directory.raw);
            };
            self.state.scope.directory = Some(path);
        }
        let Some(directory) = path
            .strip_suffix("buildbot.tac")
            .filter(|rest| rest.is_empty() || rest.ends_with('/'))
        else {
            return self.refuse(&format!(
                "`{}` runs another file than `buildbot.tac`",
                shown(&text)
            ));
        };
        let directory = if directory.is_empty() { "." } else { directory };
        let done = self.started(Role::Master, &Argument::plain(directory), words, python);
        self.state.process = process;
        self.state.scope.directory = outer;
        done
    }

    /// Buildbot runs: what is in force now is what it was started with.
    fn started(
        &mut self,
        role: Role,
        directory: &Argument,
        words: &[Argument],
        python: Option<&Argument>,
    ) -> Done {
        let text = as_written(words);
        if self.in_background {
            return self.refuse(&format!("`{}` runs in the background", shown(&text)));
        }
        if self.conditions > 0 {
            let reason = format!("`{}` depends on a condition", shown(&text));
            return self.verdicts.not_known(&self.place, &reason);
        }
        if self.start.is_some() {
            return self.refuse(&format!("`{}` starts a second Buildbot", shown(&text)));
        }
        let path = directory
            .value
            .as_deref()
            .and_then(|path| self.absolute(path));
        let Some(path) = path else {
            return self.unknown(&directory.raw);
        };
        let program = python.unwrap_or(&words[0]).known().to_owned();
        let target = match self.environment_of(&program) {
            Ok(target) => target,
            Err(reason) => return self.refuse(&format!("`{}` {reason}", shown(&text))),
        };
        if let Some(active) = self.other_environment(target.as_ref()) {
            let reason = format!(
                "`{}` is not in the environment `{active}`, which is active",
                shown(&text)
            );
            return self.verdicts.not_known(&self.place, &reason);
        }
        let variables = &self.state.scope.variables;
        let search = variables.get("PATH").and_then(|known| known.value.clone());
        let Some(search) = search else {
            return self
                .verdicts
                .not_known(&self.place, "the value of `PATH` is known only at run time");
        };
        let exported = variables
            .iter()
            .filter(|(name, known)| known.is_exported && *name != "PATH");
        let exported = exported.filter_map(|(name, known)| {
            let found = Found {
                value: known.value.clone()?,
                place: self.state.places.get(name)?.clone(),
            };
            Some((name.clone(), found))
        });
        self.start = Some(Start {
            role,
            directory: path,
            place: self.place.clone(),
            root: self.state.root.clone(),
            target,
            exported: exported.collect(),
            path: search,
            path_place: self.state.places.get("PATH").cloned(),
            process: self.state.process.clone(),
        });
        self.verdicts.taken(&self.place, &text)
    }

    /// The environment that is active, where a program is from the directory of another one.
    fn other_environment(&self, target: Option<&Found<Target>>) -> Option<String> {
        let active = &self.state.target.as_ref()?.value;
        let Target::Prefix(prefix) = &target?.value else {
            return None;
        };
        let root = self.state.root.as_ref().map(|root| root.value.as_str());
        let (name, is_same) = match active {
            Target::Prefix(path) => (path, path.trim_end_matches('/') == prefix),
            Target::Named(name) if ["base", "root"].contains(&name.as_str()) => {
                (name, root.is_none_or(|root| root == prefix))
            }
            Target::Named(name) => {
                let end = format!("/envs/{name}");
                let is_same = root.is_none_or(|root| format!("{root}{end}") == *prefix);
                (name, is_same && prefix.ends_with(&end))
            }
        };
        (!is_same).then(|| name.clone())
    }

    /// The environment that a program is from: that of its path, or the first on `PATH` that has it.
    fn environment_of(&self, program: &str) -> Result<Option<Found<Target>>, String> {
        let found = |prefix: &str| {
            Some(Found {
                value: Target::Prefix(prefix.to_owned()),
                place: self.place.clone(),
            })
        };
        if program.contains('/') {
            let path = self.absolute(program).unwrap_or_default();
            let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
            if SYSTEM.contains(&directory) {
                return Err(format!(
                    "is the system's `{path}`, which is not in a Conda environment"
                ));
            }
            return match directory.strip_suffix("/bin") {
                Some(prefix) => Ok(found(prefix)),
                None => Err(format!(
                    "is started from `{directory}`, which is not the `bin` directory of an environment"
                )),
            };
        }
        let path = self.state.scope.variables.get("PATH");
        let path = path
            .and_then(|known| known.value.as_deref())
            .unwrap_or_default();
        for part in path.split(':') {
            let part = part.trim_end_matches('/');
            if part == ACTIVATED {
                return Ok(self.state.target.clone());
            }
            let places = if part == SYSTEMS {
                &SYSTEM[..]
            } else {
                &[part][..]
            };
            let Some(place) = places
                .iter()
                .find(|place| (self.files.exists)(&format!("{place}/{program}")))
            else {
                continue;
            };
            let prefix = place
                .strip_suffix("/bin")
                .filter(|_| !SYSTEM.contains(place));
            return match prefix
                .filter(|prefix| (self.files.exists)(&format!("{prefix}/conda-meta")))
            {
                Some(prefix) => Ok(found(prefix)),
                None => Err(format!(
                    "is `{place}/{program}`, which is not in a Conda environment"
                )),
            };
        }
        Ok(None)
    }
}

/// Whether an option of `twistd` keeps it from making a daemon of itself: `-n`, alone or among others.
fn stays_in_front(raw: &str) -> bool {
    let letters = raw.strip_prefix('-').unwrap_or_default();
    let flags = letters.len() - letters.trim_start_matches(['n', 'o']).len();
    raw == "--nodaemon" || letters[..flags].contains('n')
}

/// Whether a text has words that start a Buildbot.
pub(super) fn starts_buildbot(text: &str) -> bool {
    let words: Vec<&str> = text
        .split(|next: char| next.is_whitespace() || "'\";&|()".contains(next))
        .collect();
    let name = |word: &str| word.rsplit('/').next().unwrap_or_default().to_owned();
    words
        .iter()
        .enumerate()
        .any(|(index, word)| match name(word).as_str() {
            "buildbot" | "buildbot-worker" | "buildbot_worker" => {
                let mut more = words[index + 1..].iter();
                more.any(|word| ["start", "restart", "--nodaemon"].contains(word))
            }
            "twistd" => words.len() > index + 1,
            "buildbot.tac" => words
                .iter()
                .any(|word| word.starts_with("-y") || word.starts_with("--python")),
            _ => false,
        })
}
