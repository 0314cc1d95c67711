//! Reading a prefix: the one place that looks at the disk. What the facts amount to is decided in `activation`.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::python;
use crate::state::{self, Problem, Variables};

/// Everything that activation needs to know about a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixFacts {
    pub(crate) prefix: PathBuf,
    pub(crate) has_conda_meta: bool,
    /// From the packages (`etc/conda/env_vars.d`), all files merged: of a repeated name the last file counts.
    pub(crate) package_variables: Variables,
    /// From `conda env config vars set` (`conda-meta/state`).
    pub(crate) state_variables: Variables,
    /// `etc/conda/activate.d/*.sh` in the order of execution.
    pub(crate) scripts: Vec<PathBuf>,
}

/// The conda installation that an environment is activated with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    pub(crate) installation: PathBuf,
    pub(crate) base: PathBuf,
}

/// Why a prefix, or a conda root, is not fit to be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The path cannot be an element of `PATH`, or is not absolute.
    #[error("reject `{}`: a prefix {reason}", shown(path))]
    Unusable {
        /// As given.
        path: PathBuf,
        /// What a prefix must, or must not, be; completes "a prefix ...".
        reason: &'static str,
    },
    /// The path does not exist, or is not a directory.
    #[error("environment `{}` not found", shown(path))]
    Missing {
        /// The prefix.
        path: PathBuf,
    },
    /// A file or directory exists but cannot be read.
    #[error("read `{}`: {source}", shown(path))]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A file of variables is not text.
    #[error("read `{}`: it is not UTF-8", shown(path))]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// A file of variables is not JSON.
    #[error("read `{}`: {source}{}", shown(path), if *byte_order_mark { ", after a byte order mark" } else { "" })]
    Json {
        /// The file.
        path: PathBuf,
        /// The error of the parser, with line and column.
        source: serde_json::Error,
        /// Whether the file starts with a byte order mark, which editors do not show.
        byte_order_mark: bool,
    },
    /// A file of variables holds JSON, but no object, or its `env_vars` is none.
    #[error("read `{}`: {what} is not an object", shown(path))]
    NotAnObject {
        /// The file.
        path: PathBuf,
        /// The part concerned.
        what: &'static str,
    },
    /// A name that no environment can hold.
    #[error("read `{}`: `{}` is not a valid name of a variable", shown(path), name.escape_debug())]
    Name {
        /// The file.
        path: PathBuf,
        /// Empty, or with `=` or NUL in it.
        name: String,
    },
    /// A value that no environment can hold.
    #[error(
        "read `{}`: the value of `{name}` contains a NUL character",
        shown(path)
    )]
    Value {
        /// The file.
        path: PathBuf,
        /// The variable.
        name: String,
    },
}

impl ReadError {
    /// What to do about it, for the `hint:` line.
    pub fn hint(&self) -> String {
        match self {
            Self::Unusable { .. } => {
                "specify the absolute path of an environment, without `:` and control characters".to_owned()
            }
            Self::Missing { path } => format!("create it with `conda create -p {}`, or correct the path", shown(path)),
            Self::Unreadable { .. } => "make it readable by the account that runs this command".to_owned(),
            Self::NotUtf8 { .. } | Self::Json { .. } | Self::NotAnObject { .. } => {
                "conda itself cannot activate this environment; correct the file, or remove it and set the variables \
                 again with `conda env config vars set`"
                    .to_owned()
            }
            Self::Name { .. } | Self::Value { .. } => "correct the variable in this file".to_owned(),
        }
    }
}

/// The path for a message of one line: control characters as escapes, other bytes as they are where they are text.
pub(crate) fn shown(path: &Path) -> String {
    let mut text = String::new();
    for character in path.to_string_lossy().chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

/// Normalises an absolute path, and checks that it can be an element of `PATH` and part of a line of text.
fn usable(path: &Path) -> Result<PathBuf, ReadError> {
    let bytes = path.as_os_str().as_bytes();
    let reason = if !bytes.starts_with(b"/") {
        "must be absolute"
    } else if bytes.contains(&b':') {
        "must not contain `:`, which separates the elements of PATH"
    } else if bytes.contains(&b'\n') {
        "must not contain a newline"
    } else if bytes.contains(&0) {
        "must not contain a NUL character"
    } else {
        return Ok(python::normalise(path.as_os_str()).into());
    };
    Err(ReadError::Unusable {
        path: path.to_owned(),
        reason,
    })
}

impl Root {
    /// The installation at an absolute path; its base environment is the same directory.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unusable`]. The disk is not checked: a root that is missing still names where conda would be.
    pub fn new(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        let installation = usable(path.as_ref())?;
        Ok(Self {
            base: installation.clone(),
            installation,
        })
    }

    /// The same installation with its base environment elsewhere (condarc's `root_prefix`).
    ///
    /// # Errors
    ///
    /// [`ReadError::Unusable`].
    pub fn with_base(self, base: impl AsRef<Path>) -> Result<Self, ReadError> {
        Ok(Self {
            base: usable(base.as_ref())?,
            ..self
        })
    }

    /// The directory that holds `bin/conda`.
    pub fn installation(&self) -> &Path {
        &self.installation
    }

    /// The prefix of the environment called `base`.
    pub fn base(&self) -> &Path {
        &self.base
    }
}

impl PrefixFacts {
    /// Reads from an absolute prefix what its activation depends on. Symbolic links are not resolved.
    ///
    /// A prefix without `conda-meta` is read too; whether it is accepted depends on
    /// [`Options::require_conda_meta`](crate::Options::require_conda_meta).
    ///
    /// # Errors
    ///
    /// [`ReadError`], which names the faulty file. conda ignores some files that it cannot read; this function does
    /// not.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let prefix = usable(path)?;
        match fs::metadata(&prefix) {
            Ok(metadata) if metadata.is_dir() => {}
            // The content is unknown.
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                return Err(ReadError::Unreadable {
                    path: prefix,
                    source,
                });
            }
            _ => return Err(ReadError::Missing { path: prefix }),
        }
        let mut package_variables = Variables::new();
        for file in entries(&prefix.join("etc/conda/env_vars.d"), Kind::Variables)? {
            for (name, value) in variables(&file, state::package_variables)? {
                merge(&mut package_variables, name, value);
            }
        }
        let state_file = prefix.join("conda-meta/state");
        let state_variables = match fs::metadata(&state_file) {
            Err(error) if is_absence(&error) => Variables::new(),
            _ => variables(&state_file, state::state_variables)?,
        };
        Ok(Self {
            has_conda_meta: prefix.join("conda-meta").is_dir(),
            package_variables,
            state_variables,
            scripts: entries(&prefix.join("etc/conda/activate.d"), Kind::Scripts)?,
            prefix,
        })
    }

    /// The prefix, absolute and normalised.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// Whether conda, or a tool like it, has made the prefix.
    pub fn has_conda_meta(&self) -> bool {
        self.has_conda_meta
    }

    /// The `activate.d` scripts in the order of execution.
    pub fn scripts(&self) -> &[PathBuf] {
        &self.scripts
    }
}

/// Sets a variable as `dict.update` does: a known name keeps its place.
pub(crate) fn merge(variables: &mut Variables, name: String, value: Option<String>) {
    match variables.iter_mut().find(|(known, _)| *known == name) {
        Some(pair) => pair.1 = value,
        None => variables.push((name, value)),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Every entry counts, and a plain file in the directory's place is an error.
    Variables,
    /// Only `*.sh` counts (hidden ones, and `.sh` itself, too), and a plain file in the directory's place is nothing.
    Scripts,
}

/// The entries of a directory that may be missing, in Python's order of strings.
fn entries(directory: &Path, kind: Kind) -> Result<Vec<PathBuf>, ReadError> {
    let unreadable = |source| ReadError::Unreadable {
        path: directory.to_owned(),
        source,
    };
    let listing = match fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) if is_absence(&error) && kind == Kind::Scripts => return Ok(Vec::new()),
        Err(error) if is_absence(&error) && fs::metadata(directory).is_err() => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(unreadable(error)),
    };
    let mut names = Vec::new();
    for entry in listing {
        let name = entry.map_err(unreadable)?.file_name();
        if kind == Kind::Variables || name.as_bytes().ends_with(b".sh") {
            names.push(name);
        }
    }
    names.sort_by_cached_key(|name| python::order_key(name));
    Ok(names
        .iter()
        .map(|name| directory.join::<&OsStr>(name))
        .collect())
}

fn variables(
    file: &Path,
    parse: fn(&str) -> Result<Variables, Problem>,
) -> Result<Variables, ReadError> {
    let path = file.to_owned();
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(source) => return Err(ReadError::Unreadable { path, source }),
    };
    let Ok(text) = String::from_utf8(bytes) else {
        return Err(ReadError::NotUtf8 { path });
    };
    let variables = match parse(&text) {
        Ok(variables) => variables,
        Err(Problem::Json(source)) => {
            return Err(ReadError::Json {
                path,
                source,
                byte_order_mark: text.starts_with('\u{feff}'),
            });
        }
        Err(Problem::NotAnObject) => {
            return Err(ReadError::NotAnObject {
                path,
                what: "its JSON",
            });
        }
        Err(Problem::EnvVarsNotAnObject) => {
            return Err(ReadError::NotAnObject {
                path,
                what: "`env_vars`",
            });
        }
    };
    for (name, value) in &variables {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(ReadError::Name {
                path,
                name: name.clone(),
            });
        }
        if value.as_ref().is_some_and(|value| value.contains('\0')) {
            return Err(ReadError::Value {
                path,
                name: name.clone(),
            });
        }
    }
    Ok(variables)
}

/// Whether the path does not exist in the sense of `os.path.exists`: a part of it is missing or is not a directory.
fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests;
