//! condarc: which files count, and the few of their keys that matter here. conda's rules, from
//! `conda/common/configuration.py` and the search path in `conda/base/constants.py`; priority marks in comments
//! (`#!final`, `#!top`, `#!bottom`) are not followed, and are an error rather than overlooked.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use saphyr::{LoadableYamlNode, Scalar, Yaml};

use super::{Surroundings, expand};
use crate::prefix::shown;
use crate::{Options, python};

/// The keys that matter, merged over all sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// Directories of environments, most important first, variables replaced.
    pub(super) envs_dirs: Vec<OsString>,
    pub(super) root_prefix: Option<OsString>,
    pub(super) default_activation_env: Option<OsString>,
    env_prompt: Option<String>,
    changeps1: Option<bool>,
    upper_case: Option<bool>,
}

/// Why a source of settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CondarcError {
    /// The file exists but cannot be read.
    #[error("read `{}`: {source}", shown(path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The file is not YAML, or its top level is not a mapping.
    #[error("read `{}`: {reason}", shown(path))]
    NotYaml {
        /// The file.
        path: PathBuf,
        /// With line and column if the parser knows them.
        reason: String,
    },
    /// A key has a value of the wrong type, or occurs under two names.
    #[error("read `{place}`: `{key}`: {reason}")]
    Value {
        /// The file, or the variable.
        place: String,
        /// The key.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl CondarcError {
    /// What to do about it, for the `hint:` line.
    pub fn hint(&self) -> String {
        match self {
            Self::Unreadable { .. } => {
                "make it readable by the account that runs this command".to_owned()
            }
            Self::NotYaml { .. } => {
                "correct it; `conda config --validate` checks all of them".to_owned()
            }
            Self::Value { place, .. } => format!("correct it in `{place}`"),
        }
    }
}

/// The keys with their other names.
const ENVS_DIRS: [&str; 2] = ["envs_dirs", "envs_path"];
const ROOT_PREFIX: [&str; 2] = ["root_prefix", "root_dir"];
const DEFAULT_ACTIVATION_ENV: [&str; 1] = ["default_activation_env"];
const ENV_PROMPT: [&str; 1] = ["env_prompt"];
const CHANGEPS1: [&str; 1] = ["changeps1"];
const UPPER_CASE: [&str; 1] = ["envvars_force_uppercase"];

/// Keys that affect how any environment is activated.
const OF_ACTIVATION: [&[&str]; 4] = [&ROOT_PREFIX, &ENV_PROMPT, &CHANGEPS1, &UPPER_CASE];
/// Keys that affect which environment a name means.
const OF_NAMES: [&[&str]; 2] = [&ENVS_DIRS, &DEFAULT_ACTIVATION_ENV];

/// What of the settings is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The settings for the activation of an environment that is named by its prefix. If a file does not contain such
    /// settings, nothing else in it is examined, whatever errors it has.
    Activation,
    Everything,
}

impl Wanted {
    /// The keys, each with its other names.
    fn keys(self) -> impl Iterator<Item = &'static [&'static str]> {
        let names = (self == Self::Everything).then_some(OF_NAMES);
        OF_ACTIVATION.into_iter().chain(names.into_iter().flatten())
    }

    /// Whether a file of this text can have any of the keys. A backslash may write a letter of one.
    fn may_be_in(self, text: &str) -> bool {
        self == Self::Everything
            || text.contains('\\')
            || self.keys().flatten().any(|key| text.contains(key))
    }
}

impl Settings {
    /// Reads all sources, the least important first: files in the order of the search path, then variables.
    pub(super) fn read(
        installation: &Path,
        surroundings: &Surroundings,
        wanted: Wanted,
    ) -> Result<Self, CondarcError> {
        let mut settings = Self::default();
        for file in files(installation, surroundings) {
            settings.add_file(&file, wanted)?;
        }
        settings.add_variables(surroundings, wanted)?;
        for directory in &mut settings.envs_dirs {
            *directory = expand::variables(directory, &surroundings.environment);
        }
        Ok(settings)
    }

    /// Passes on what concerns activation.
    pub(super) fn apply(&self, options: &mut Options) {
        if let Some(prompt) = &self.env_prompt {
            options.prompt = Some(prompt.clone());
        }
        if self.changeps1 == Some(false) {
            options.prompt = None;
        }
        options.upper_case = self.upper_case.unwrap_or(true);
    }

    fn add_file(&mut self, file: &Path, wanted: Wanted) -> Result<(), CondarcError> {
        let text = match fs::read_to_string(file) {
            // It may contain a token of another program, which is not a reason to refuse a service.
            Err(error)
                if error.kind() == io::ErrorKind::PermissionDenied
                    && wanted == Wanted::Activation =>
            {
                return Ok(());
            }
            text => text.map_err(|source| CondarcError::Unreadable {
                path: file.to_owned(),
                source,
            })?,
        };
        if !wanted.may_be_in(&text) {
            return Ok(());
        }
        let not_yaml = |reason: String| CondarcError::NotYaml {
            path: file.to_owned(),
            reason,
        };
        // A byte order mark is YAML's own business, unlike JSON's.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let documents = Yaml::load_from_str(text).map_err(|error| not_yaml(error.to_string()))?;
        let Some(document) = documents.first().filter(|document| !document.is_null()) else {
            return Ok(());
        };
        if !document.is_mapping() {
            return Err(not_yaml("its top level is not a mapping".to_owned()));
        }
        let source = Source {
            place: shown(file),
            document,
        };
        if wanted == Wanted::Everything {
            if let Some(value) = source.get(ENVS_DIRS)?
                && !value.is_null()
            {
                self.add_envs_dirs(source.list(ENVS_DIRS[0], value)?);
            }
            if let Some(value) = source.get(DEFAULT_ACTIVATION_ENV)? {
                let name = source.text(DEFAULT_ACTIVATION_ENV[0], value)?;
                self.default_activation_env = Some(name.into());
            }
        }
        if let Some(value) = source.get(ROOT_PREFIX)? {
            self.root_prefix = Some(source.text(ROOT_PREFIX[0], value)?.into());
        }
        if let Some(value) = source.get(ENV_PROMPT)? {
            self.env_prompt = Some(source.text(ENV_PROMPT[0], value)?);
        }
        for (names, target) in [
            (CHANGEPS1, &mut self.changeps1),
            (UPPER_CASE, &mut self.upper_case),
        ] {
            if let Some(value) = source.get(names)? {
                *target = Some(boolean(
                    &source.place,
                    names[0],
                    &source.text(names[0], value)?,
                )?);
            }
        }
        match marked_key(text, wanted) {
            Some(key) => Err(not_yaml(format!(
                "the mark at `{key}`, `#!`, is not supported here"
            ))),
            None => Ok(()),
        }
    }

    fn add_variables(
        &mut self,
        surroundings: &Surroundings,
        wanted: Wanted,
    ) -> Result<(), CondarcError> {
        let variable =
            |names: &[&'static str]| -> Result<Option<(String, OsString)>, CondarcError> {
                let mut found = names.iter().filter_map(|name| {
                    let variable = format!("CONDA_{}", name.to_uppercase());
                    let value = surroundings.environment.get(OsStr::new(&variable))?;
                    Some((variable, value.clone()))
                });
                match (found.next(), found.next()) {
                    (Some((place, _)), Some((other, _))) => Err(CondarcError::Value {
                        place,
                        key: names[0],
                        reason: format!("`{other}` is set as well"),
                    }),
                    (found, _) => Ok(found),
                }
            };
        let trimmed =
            |value: &OsString| OsStr::from_bytes(value.as_bytes().trim_ascii()).to_owned();
        if wanted == Wanted::Everything {
            self.default_activation_env = variable(&DEFAULT_ACTIVATION_ENV)?
                .map(|(_, value)| trimmed(&value))
                .or(self.default_activation_env.take());
        }
        if wanted == Wanted::Everything
            && let Some((_, value)) = variable(&ENVS_DIRS)?
        {
            let elements = value
                .as_bytes()
                .split(|&byte| byte == b':')
                .map(<[u8]>::trim_ascii);
            let elements = elements.filter(|element| !element.is_empty());
            self.add_envs_dirs(
                elements
                    .map(|element| OsStr::from_bytes(element).to_owned())
                    .collect(),
            );
        }
        if let Some((_, value)) = variable(&ROOT_PREFIX)? {
            self.root_prefix = Some(trimmed(&value));
        }
        if let Some((place, value)) = variable(&ENV_PROMPT)? {
            let text = trimmed(&value)
                .into_string()
                .map_err(|_| CondarcError::Value {
                    place,
                    key: ENV_PROMPT[0],
                    reason: "it is not UTF-8".to_owned(),
                })?;
            self.env_prompt = Some(text);
        }
        for (names, target) in [
            (CHANGEPS1, &mut self.changeps1),
            (UPPER_CASE, &mut self.upper_case),
        ] {
            if let Some((place, value)) = variable(&names)? {
                *target = Some(boolean(&place, names[0], &value.to_string_lossy())?);
            }
        }
        Ok(())
    }

    /// A more important source's directories go in front; of a repeated one the first counts.
    fn add_envs_dirs(&mut self, directories: Vec<OsString>) {
        let former = std::mem::take(&mut self.envs_dirs);
        for directory in directories.into_iter().chain(former) {
            if !self.envs_dirs.contains(&directory) {
                self.envs_dirs.push(directory);
            }
        }
    }
}

/// The first of the wanted keys with a priority mark on its line, or on a line below it. The parser drops comments, so
/// this goes by lines, which is how conda documents the marks.
fn marked_key(text: &str, wanted: Wanted) -> Option<&str> {
    let mut key = "";
    text.lines().find_map(|line| {
        if !line.starts_with([' ', '\t', '-', '#']) {
            key = line.split_once(':').map_or("", |(key, _)| key.trim());
        }
        let is_marked = ["#!final", "#!top", "#!bottom"]
            .into_iter()
            .any(|mark| line.contains(mark));
        (is_marked && wanted.keys().any(|names| names.contains(&key))).then_some(key)
    })
}

/// One file, parsed.
struct Source<'a, 'input> {
    place: String,
    document: &'a Yaml<'input>,
}

impl<'a, 'input> Source<'a, 'input> {
    fn get<const N: usize>(
        &self,
        names: [&'static str; N],
    ) -> Result<Option<&'a Yaml<'input>>, CondarcError> {
        self.find(&names)
    }

    /// The value of a key under any of its names, of which only one may occur.
    fn find(&self, names: &[&'static str]) -> Result<Option<&'a Yaml<'input>>, CondarcError> {
        let mut found = names
            .iter()
            .filter_map(|name| Some((name, self.document.as_mapping_get(name)?)));
        match (found.next(), found.next()) {
            (Some((first, _)), Some((second, _))) => Err(CondarcError::Value {
                place: self.place.clone(),
                key: names[0],
                reason: format!("both `{first}` and `{second}` exist"),
            }),
            (found, _) => Ok(found.map(|(_, value)| value)),
        }
    }

    fn list(&self, key: &'static str, value: &Yaml<'input>) -> Result<Vec<OsString>, CondarcError> {
        let Some(elements) = value.as_sequence() else {
            return Err(CondarcError::Value {
                place: self.place.clone(),
                key,
                reason: "it is not a list".to_owned(),
            });
        };
        elements
            .iter()
            .map(|element| self.text(key, element).map(OsString::from))
            .collect()
    }

    /// A scalar as Python prints it.
    fn text(&self, key: &'static str, value: &Yaml<'input>) -> Result<String, CondarcError> {
        match value {
            Yaml::Value(Scalar::String(text)) => Ok(text.to_string()),
            Yaml::Value(Scalar::Boolean(true)) => Ok("True".to_owned()),
            Yaml::Value(Scalar::Boolean(false)) => Ok("False".to_owned()),
            Yaml::Value(Scalar::Integer(number)) => Ok(number.to_string()),
            Yaml::Value(Scalar::FloatingPoint(number)) => {
                Ok(python::number(&format!("{:e}", number.into_inner())))
            }
            Yaml::Value(Scalar::Null) => Ok("None".to_owned()),
            _ => Err(CondarcError::Value {
                place: self.place.clone(),
                key,
                reason: "it is not a single value".to_owned(),
            }),
        }
    }
}

/// conda's idea of true and false (`conda/auxlib/type_coercion.py`).
fn boolean(place: &str, key: &'static str, text: &str) -> Result<bool, CondarcError> {
    let word = text.trim().to_lowercase();
    match word.as_str() {
        "true" | "yes" | "on" | "y" => Ok(true),
        "false" | "no" | "off" | "n" | "non" | "none" | "" => Ok(false),
        _ => word
            .parse::<f64>()
            .map(|number| number != 0.0)
            .map_err(|_| CondarcError::Value {
                place: place.to_owned(),
                key,
                reason: format!("`{text}` is neither true nor false"),
            }),
    }
}

/// The files that count, each once, the least important first.
fn files(installation: &Path, surroundings: &Surroundings) -> Vec<PathBuf> {
    let variable = |name: &str| {
        surroundings
            .environment
            .get(OsStr::new(name))
            .map(PathBuf::from)
    };
    let home = PathBuf::from(expand::home("~".as_ref(), surroundings));
    let system = |directory: &str| surroundings.system.join(directory);
    let root = variable("CONDA_ROOT").unwrap_or_else(|| installation.to_owned());
    let mut files = Vec::new();
    let whole = [
        Some(system("etc/conda")),
        Some(system("var/lib/conda")),
        Some(root),
        variable("XDG_CONFIG_HOME").map(|directory| directory.join("conda")),
        Some(home.join(".config/conda")),
        Some(home.join(".conda")),
    ];
    for directory in whole.into_iter().flatten() {
        add(&mut files, directory.join(".condarc"));
        add(&mut files, directory.join("condarc"));
        add(&mut files, directory.join("condarc.d"));
    }
    add(&mut files, home.join(".condarc"));
    // What conda calls `$CONDA_PREFIX` here is the root, as no environment is active: they come again, and count once.
    for name in [".condarc", "condarc", "condarc.d"] {
        add(&mut files, installation.join(name));
    }
    if let Some(condarc) = surroundings.environment.get(OsStr::new("CONDARC")) {
        add(
            &mut files,
            surroundings
                .directory
                .join(expand::home(condarc, surroundings)),
        );
    }
    if let Some(shown) = &surroundings.shown {
        files.retain(|file| is_seen(file, shown));
    }
    files
}

/// Adds a file, or what a directory holds of the kind. Other names do not count, even when they are given.
fn add(files: &mut Vec<PathBuf>, path: PathBuf) {
    let is_yaml = |path: &Path| {
        path.extension()
            .is_some_and(|extension| extension == "yml" || extension == "yaml")
    };
    let mut found = Vec::new();
    if path.is_file() {
        if is_yaml(&path)
            || path
                .file_name()
                .is_some_and(|name| name == ".condarc" || name == "condarc")
        {
            found.push(path);
        }
    } else if let Ok(listing) = fs::read_dir(&path) {
        found.extend(
            listing
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| is_yaml(path) && path.is_file()),
        );
        found.sort_by_cached_key(|path| python::order_key(path.as_os_str()));
    }
    for path in found {
        if !files.contains(&path) {
            files.push(path);
        }
    }
}

/// Trees that a service with `ProtectHome=tmpfs` finds empty, systemd.exec(5).
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

/// Whether a service sees a file for which the homes are empty but for these directories.
fn is_seen(path: &Path, shown: &[PathBuf]) -> bool {
    !HOMES.iter().any(|tree| path.starts_with(tree))
        || shown.iter().any(|directory| path.starts_with(directory))
}

#[cfg(test)]
mod tests;
