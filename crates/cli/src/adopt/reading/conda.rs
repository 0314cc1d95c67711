//! What scripts say of Conda: activations, `conda run`, and where the installation is.

use std::borrow::Cow;

use super::{ACTIVATED, Argument, Done, Found, Reader, Target, Value, Went, as_written, shown};

/// Variables that say where environments are looked for, or what activation does.
const OF_CONDA: [&str; 8] = [
    "CONDARC",
    "CONDA_DEFAULT_ACTIVATION_ENV",
    "CONDA_ENVS_DIRS",
    "CONDA_ENVS_PATH",
    "CONDA_ROOT",
    "CONDA_ROOT_PREFIX",
    "MAMBARC",
    "MAMBA_ENVS_DIRS",
];
/// Settings that do the same in a condarc file.
const OF_CONDARC: [&str; 5] = [
    "envs_dirs",
    "envs_path",
    "root_prefix",
    "env_prompt_modifier",
    "default_activation_env",
];

/// Lines between the marks of `conda init`, with `@` for the installation.
const INITIALIZE: [&str; 13] = [
    "__conda_setup=\"$('@/bin/conda' 'shell.bash' 'hook' 2> /dev/null)\"",
    "if [ $? -eq 0 ]; then",
    "eval \"$__conda_setup\"",
    "else",
    "if [ -f \"@/etc/profile.d/conda.sh\" ]; then",
    ". \"@/etc/profile.d/conda.sh\"",
    "export PATH=\"@/bin:$PATH\"",
    "fi",
    "unset __conda_setup",
    "if [ -f \"@/etc/profile.d/mamba.sh\" ]; then",
    ". \"@/etc/profile.d/mamba.sh\"",
    "# !! Contents within this block are managed by 'conda init' !!",
    "",
];

/// A script whose `conda init` is one command, with as many lines: whatever branch of it runs, Conda is there.
pub(super) fn initialized(text: &str) -> Cow<'_, str> {
    let parts = || {
        let (before, rest) = text.split_once("# >>> conda initialize >>>")?;
        let (block, behind) = rest.split_once("# <<< conda initialize <<<")?;
        let (first, _) = block.split_once("/bin/conda'")?;
        let (_, root) = first.rsplit_once('\'')?;
        let mut lines = block.lines().map(|line| line.trim().replace(root, "@"));
        let is_whole =
            root.starts_with('/') && lines.all(|line| INITIALIZE.contains(&line.as_str()));
        let rest = "\n".repeat(block.matches('\n').count());
        is_whole.then(|| format!("{before}. '{root}/etc/profile.d/conda.sh'{rest}{behind}"))
    };
    parts().map_or(Cow::Borrowed(text), Cow::Owned)
}

impl Reader<'_> {
    /// An environment as `conda activate` takes it, in `root` where that is known.
    fn activate(&mut self, root: Option<String>, word: Option<&Argument>, text: &str) -> Done {
        let target = match word.map(|word| word.value.as_deref()) {
            None => Target::Named("base".to_owned()),
            Some(None) => return self.unknown(word.map_or("", |word| &word.raw)),
            Some(Some(path)) if path.contains('/') => match self.absolute(path) {
                Some(path) => Target::Prefix(path),
                None => return self.unknown(path),
            },
            Some(Some(name)) => Target::Named(name.to_owned()),
        };
        if let Target::Named(name) = &target
            && !["base", "root"].contains(&name.as_str())
            && let Some(reason) = self.why_not_known(root.as_deref())
        {
            let reason = format!("the location of `{name}` depends on {reason}");
            return self.verdicts.not_known(&self.place, &reason);
        }
        let place = self.place.clone();
        self.change(text, |state| {
            if let Some(value) = root {
                let place = place.clone();
                state.root = Some(Found { value, place });
            }
            state.target = Some(Found {
                value: target,
                place,
            });
            if let Some(path) = state.scope.variables.get_mut("PATH") {
                path.value = path.value.take().map(|path| {
                    let rest: Vec<&str> =
                        path.split(':').filter(|part| *part != ACTIVATED).collect();
                    format!("{ACTIVATED}:{}", rest.join(":"))
                });
            }
        })
    }

    /// What has environments looked for somewhere else than in the installation, if anything has.
    fn why_not_known(&mut self, root: Option<&str>) -> Option<String> {
        let scope = &self.state.scope;
        let variable = OF_CONDA
            .iter()
            .find(|name| scope.value(name) != Value::Unset && !scope.has_unknown);
        if let Some(name) = variable {
            return Some(format!("`{name}`"));
        }
        let home = match scope.value("HOME") {
            Value::Known(home) => home,
            _ => String::new(),
        };
        let mut files = vec![
            "/etc/conda/.condarc".to_owned(),
            "/etc/conda/condarc".to_owned(),
        ];
        for name in [
            ".condarc",
            ".conda/.condarc",
            ".conda/condarc",
            ".config/conda/.condarc",
            ".config/conda/condarc",
            ".mambarc",
        ] {
            files.push(format!("{home}/{name}"));
        }
        files.extend(
            root.iter()
                .flat_map(|root| [format!("{root}/.condarc"), format!("{root}/condarc")]),
        );
        files
            .into_iter()
            .find(|file| {
                let text = if (self.files.exists)(file) {
                    (self.files.read)(file)
                } else {
                    Ok(String::new())
                };
                text.map_or(true, |text| OF_CONDARC.iter().any(|key| text.contains(key)))
            })
            .map(|file| format!("`{file}`"))
    }

    /// The installation that has a program: that of its path, the one that was seen before, or the first on `PATH`.
    fn installation(&self, program: &str) -> Option<String> {
        if let Some((directory, _)) = program.rsplit_once('/') {
            let root = directory
                .strip_suffix("/bin")
                .or(directory.strip_suffix("/condabin"))?;
            return self.absolute(root);
        }
        if let Some(root) = &self.state.root {
            return Some(root.value.clone());
        }
        let path = self.state.scope.variables.get("PATH")?.value.clone()?;
        let mut roots = path.split(':').filter_map(|part| {
            let root = part
                .strip_suffix("/bin")
                .or(part.strip_suffix("/condabin"))?;
            (root.starts_with('/') && (self.files.exists)(&format!("{root}/conda-meta")))
                .then_some(root)
        });
        roots.next().map(str::to_owned)
    }

    pub(super) fn source(&mut self, rest: &[Argument], text: &str) -> Done {
        let Some(file) = rest.first() else {
            return self.refuse(&format!("`{}` is not supported", shown(text)));
        };
        let Some(path) = file.value.clone() else {
            return self.unknown(text);
        };
        if path == "activate" || path.ends_with("/bin/activate") {
            if rest.len() > 2 || rest.get(1).is_some_and(|word| word.raw.starts_with('-')) {
                return self.refuse(&format!("`{}` is not supported", shown(text)));
            }
            let root = self.installation(&path);
            // A script in an environment's own `bin` activates that one.
            if let Some(prefix) = root
                .clone()
                .filter(|root| rest.len() == 1 && root.contains("/envs/"))
            {
                return self.activate(None, Some(&Argument::plain(&prefix)), text);
            }
            return self.activate(root, rest.get(1), text);
        }
        for end in ["/etc/profile.d/conda.sh", "/etc/profile.d/mamba.sh"] {
            if let Some(root) = path.strip_suffix(end) {
                // Debian's own directory has a link to some installation's.
                if root.is_empty() {
                    return self.verdicts.taken(&self.place, text);
                }
                let root = self.absolute(root);
                return self.hook(root, text);
            }
        }
        self.read_in(rest, text)
    }

    /// Where Conda is: nothing depends on whether that is read twice.
    fn hook(&mut self, root: Option<String>, text: &str) -> Done {
        let place = self.place.clone();
        if let Some(value) = root.filter(|root| root.starts_with('/')) {
            let other = self
                .state
                .root
                .as_ref()
                .is_some_and(|known| known.value != value);
            if !other || self.conditions == 0 {
                self.state.root = Some(Found { value, place });
                return self.verdicts.taken(&self.place, text);
            }
        }
        self.unknown(text)
    }

    /// `eval "$(ROOT/bin/conda shell.bash hook)"` tells where Conda is; other texts are read where they are known.
    pub(super) fn eval(&mut self, rest: &[Argument], text: &str) -> Done {
        let raw: Vec<&str> = rest.iter().map(|word| word.raw.as_str()).collect();
        let raw = raw.join(" ").replace(['"', '\''], "");
        let inner = raw.strip_prefix("$(").and_then(|raw| raw.strip_suffix(')'));
        let words: Vec<&str> = inner
            .unwrap_or_default()
            .split_whitespace()
            .take_while(|word| !word.starts_with("2>"))
            .collect();
        if let [program, "shell.bash" | "shell.posix" | "shell", ..] = words[..]
            && words.contains(&"hook")
        {
            let name = program.rsplit('/').next().unwrap_or_default();
            let program = self.filled(program);
            return match (name, program) {
                ("micromamba", Some(_)) => {
                    let root = self.micromamba_root();
                    match root {
                        Some(root) => self.hook(Some(root), text),
                        None => self.verdicts.taken(&self.place, text),
                    }
                }
                ("conda" | "mamba", Some(program)) => {
                    let root = self.installation(&program);
                    match root {
                        None => self.verdicts.taken(&self.place, text),
                        root => self.hook(root, text),
                    }
                }
                _ => self.unknown(text),
            };
        }
        let values: Option<Vec<&str>> = rest.iter().map(|word| word.value.as_deref()).collect();
        match values {
            // A text of the script's own is read like the script.
            Some(values) if self.depth < super::DEEPEST => {
                let (inner, file) = (values.join(" "), self.place.file.clone());
                self.depth += 1;
                let went = self.elsewhere(&file, true, &inner);
                self.depth -= 1;
                Done::as_those(went)
            }
            _ => self.unknown(&format!("eval {}", as_written(rest))),
        }
    }

    /// A program's path with `$NAME` in front, as it stands in a text.
    fn filled(&self, program: &str) -> Option<String> {
        let mut parser = crate::adopt::shell::Parser::new(program);
        let Ok(Some(crate::adopt::shell::Node::Simple(simple))) = parser.next() else {
            return None;
        };
        self.state.scope.text(simple.words.first()?)
    }

    fn micromamba_root(&self) -> Option<String> {
        match self.state.scope.value("MAMBA_ROOT_PREFIX") {
            Value::Known(root) => self.absolute(&root),
            _ => None,
        }
    }

    #[expect(clippy::too_many_lines, reason = "options, one after the other")]
    pub(super) fn conda(&mut self, name: &str, words: &[Argument]) -> Done {
        let text = as_written(words);
        let follows_mamba =
            name == "mamba" && self.state.scope.value("MAMBA_ROOT_PREFIX") != Value::Unset;
        let root = if name == "micromamba" || follows_mamba {
            self.micromamba_root()
        } else {
            self.installation(words[0].known())
        };
        let Some((verb, rest)) = words[1..].split_first() else {
            return self.leave(&text);
        };
        match verb.known() {
            "activate" | "run" => {}
            "deactivate" => {
                return self.change(&text, |state| {
                    state.target = None;
                    if let Some(path) = state.scope.variables.get_mut("PATH") {
                        path.value = path
                            .value
                            .take()
                            .map(|path| path.replacen(&format!("{ACTIVATED}:"), "", 1));
                    }
                });
            }
            _ => return self.leave(&text),
        }
        if name == "micromamba"
            && root.is_none()
            && !rest.iter().any(|word| word.known().contains('/'))
        {
            let reason = format!(
                "`{}` depends on `MAMBA_ROOT_PREFIX`, which is not set",
                shown(&text)
            );
            return self.verdicts.not_known(&self.place, &reason);
        }
        let mut root = root;
        let mut target = None;
        let mut directory = None;
        let mut rest = rest;
        let is_run = verb.known() == "run";
        while let Some((word, behind)) = rest.split_first() {
            let (option, attached) = match word.raw.split_once('=') {
                Some((option, _)) if option.starts_with("--") => (
                    option,
                    word.value
                        .as_deref()
                        .and_then(|text| text.split_once('='))
                        .map(|(_, value)| value),
                ),
                _ => (word.raw.as_str(), None),
            };
            if !option.starts_with('-') {
                if is_run {
                    break;
                }
                if target.is_some() {
                    return self.refuse(&format!("`{}` is not supported", shown(&text)));
                }
                target = Some(word.clone());
                rest = behind;
                continue;
            }
            rest = behind;
            if [
                "--no-capture-output",
                "--live-stream",
                "-s",
                "-v",
                "--no-stack",
            ]
            .contains(&option)
            {
                continue;
            }
            let value = if let Some(value) = attached {
                Argument::plain(value)
            } else {
                let Some((value, behind)) = rest.split_first() else {
                    return self.refuse(&format!("`{}` is not supported", shown(&text)));
                };
                rest = behind;
                value.clone()
            };
            match option {
                "-n" | "--name" => target = Some(value),
                "-p" | "--prefix" => {
                    let path = value.value.as_deref().and_then(|path| self.absolute(path));
                    let Some(path) = path else {
                        return self.unknown(&value.raw);
                    };
                    target = Some(Argument::plain(&path));
                }
                "--cwd" if is_run => directory = Some(value),
                "-r" | "--root-prefix" if name == "micromamba" => {
                    root = value.value.and_then(|path| self.absolute(&path));
                }
                _ => {
                    return self
                        .refuse(&format!("`{}` is not supported: `{option}`", shown(&text)));
                }
            }
        }
        if !is_run {
            return self.activate(root, target.as_ref(), &text);
        }
        let inner = rest.to_vec();
        let mut done = None;
        self.apart(|reader| {
            // Without one it stays in the environment that is active.
            if target.is_some() || reader.state.target.is_none() {
                let _: Went = reader.activate(root, target.as_ref(), &text).went();
            }
            if let Some(directory) = directory {
                let path = directory
                    .value
                    .as_deref()
                    .and_then(|path| reader.absolute(path));
                if path.is_none() {
                    let _: Went = reader.unknown(&directory.raw).went();
                }
                reader.state.scope.directory = path;
            }
            reader.state.scope.functions.clear();
            let inner_done = reader.command(&inner, &std::collections::BTreeMap::new());
            done = Some(inner_done);
            Went::Either
        });
        done.unwrap_or_else(|| self.leave(&text))
    }
}
