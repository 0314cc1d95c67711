//! Finds the absolute prefix for the argument of `conda activate`, as conda 26.7 does, and the settings of condarc that
//! affect an activated environment, which also apply if the prefix is configured.
//!
//! `expand` handles `~` and `$NAME`, `condarc` reads the files, and this module combines both.

mod condarc;
mod expand;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::prefix::shown;
use crate::{Environment, Options, ReadError, Root, python};

pub use condarc::CondarcError;
use condarc::{Settings, Wanted};

/// What resolution needs to know about the process and the host.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The inherited variables: `HOME`, `CONDARC`, `CONDA_ENVS_DIRS` and whatever a path mentions.
    pub environment: Environment,
    /// The current directory, absolute.
    pub directory: PathBuf,
    /// The home directory where `HOME` is not set: the passwd entry's.
    pub home: Option<OsString>,
    /// The content of `/etc/passwd`, for `~NAME`. Accounts from elsewhere are not known here.
    pub passwd: Vec<u8>,
    /// Prepended to the condarc files of the system, `/etc/conda` and `/var/lib/conda`; `/` outside of tests.
    pub system: PathBuf,
    /// The parts of home directories that are visible to a service for which they are otherwise empty; none if
    /// everything is visible.
    pub shown: Option<Vec<PathBuf>>,
}

impl Surroundings {
    /// Those of this process, with other variables. `system` is `/` outside of tests.
    pub fn of_process(environment: Environment, system: &Path) -> Self {
        Self {
            environment,
            // Without one, paths that are relative lead nowhere.
            directory: env::current_dir().unwrap_or_else(|_| "/".into()),
            home: env::home_dir().map(PathBuf::into_os_string),
            // Only for `~NAME`; without the file, no such name is known.
            passwd: fs::read("/etc/passwd").unwrap_or_default(),
            system: system.to_owned(),
            shown: None,
        }
    }
}

/// How the environment of a configuration is entered, which names it by its prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Configured {
    /// The installation; none without conda, as for environments of other tools. Nothing may then claim that conda
    /// exists (`CONDA_EXE`, `condabin` in `PATH`).
    pub root: Option<Root>,
    /// condarc's part of the decision.
    pub options: Options,
}

/// Returns how to enter an environment with a known prefix; `target` is the argument of the activation scripts.
///
/// # Errors
///
/// [`ResolveError`], also for a condarc file that affects activation and cannot be used.
pub fn configured(
    target: OsString,
    conda_root: &Path,
    surroundings: &Surroundings,
) -> Result<Configured, ResolveError> {
    let settings = Settings::read(conda_root, surroundings, Wanted::Activation)?;
    let root = conda_root.join("bin/conda").exists();
    let root = root.then(|| root_of(conda_root, &settings, surroundings));
    let mut options = Options {
        target: Some(target),
        ..Options::default()
    };
    settings.apply(&mut options);
    Ok(Configured {
        root: root.transpose()?,
        options,
    })
}

/// The installation, with the base that condarc gives it.
fn root_of(
    installation: &Path,
    settings: &Settings,
    surroundings: &Surroundings,
) -> Result<Root, ReadError> {
    let root = Root::new(installation)?;
    match &settings.root_prefix {
        Some(base) if !base.is_empty() => {
            root.with_base(absolute(&expand::home(base, surroundings), surroundings))
        }
        _ => Ok(root),
    }
}

/// Where to activate, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Resolved {
    /// The prefix, absolute and normalised.
    pub prefix: PathBuf,
    /// The installation, with condarc's `root_prefix` as its base.
    pub root: Root,
    /// condarc's part of the decision; a prefix found by its name need not have `conda-meta`.
    pub options: Options,
}

/// Why a target leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// No directory of environments has one of this name.
    #[error("environment `{name}` not found")]
    UnknownName {
        /// As typed.
        name: String,
        /// Where it was looked for, in order.
        directories: Vec<PathBuf>,
    },
    /// The path has no `conda-meta`.
    #[error(
        "environment `{}` not found: it contains no directory `conda-meta`",
        shown(path)
    )]
    NotAnEnvironment {
        /// Absolute, everything expanded.
        path: PathBuf,
    },
    /// A condarc file, or a `CONDA_` variable, cannot be used.
    #[error(transparent)]
    Condarc(#[from] CondarcError),
    /// The root, or the prefix, cannot be used.
    #[error(transparent)]
    Unusable(#[from] ReadError),
}

impl ResolveError {
    /// What to do about it, for the `hint:` line.
    pub fn hint(&self) -> String {
        match self {
            Self::UnknownName { name, directories } => {
                let places: Vec<String> = directories
                    .iter()
                    .map(|directory| format!("`{}`", shown(&directory.join(name))))
                    .collect();
                format!("directories searched: {}", places.join(", "))
            }
            Self::NotAnEnvironment { path } => {
                format!("create it with `conda create -p {}`", shown(path))
            }
            Self::Condarc(error) => error.hint(),
            Self::Unusable(error) => error.hint(),
        }
    }
}

/// Finds the prefix that `conda activate TARGET` would activate; an empty target is no argument.
///
/// The inherited variables must be those of the process; `CONDA_PREFIX`, which names an active environment, is ignored:
/// activation starts at level 0.
///
/// # Errors
///
/// [`ResolveError`]. conda ignores a condarc file that is not YAML; here it is an error.
pub fn resolve(
    target: &OsStr,
    conda_root: &Path,
    surroundings: &Surroundings,
) -> Result<Resolved, ResolveError> {
    let installation = PathBuf::from(absolute(conda_root.as_os_str(), surroundings));
    let settings = Settings::read(&installation, surroundings, Wanted::Everything)?;
    let root = root_of(&installation, &settings, surroundings)?;
    let typed = Some(target).filter(|target| !target.is_empty());
    let default = settings
        .default_activation_env
        .clone()
        .filter(|name| !name.is_empty());
    let effective = typed
        .map(OsStr::to_owned)
        .or(default)
        .unwrap_or_else(|| "base".into());

    let is_path = effective
        .as_bytes()
        .iter()
        .any(|byte| matches!(byte, b'/' | b'\\'));
    let prefix = if is_path {
        let path = PathBuf::from(fully_expanded(&effective, surroundings));
        if !path.join("conda-meta").is_dir() {
            return Err(ResolveError::NotAnEnvironment { path });
        }
        path
    } else if effective == "base" || effective == "root" {
        root.base().to_owned()
    } else {
        named(
            &effective,
            environments_directories(&settings, &root, surroundings),
        )?
    };
    let mut options = Options {
        require_conda_meta: is_path,
        target: typed.map(OsStr::to_owned),
        ..Options::default()
    };
    settings.apply(&mut options);
    Ok(Resolved {
        prefix,
        root,
        options,
    })
}

fn named(name: &OsStr, directories: Vec<PathBuf>) -> Result<PathBuf, ResolveError> {
    let found = directories
        .iter()
        .map(|directory| python::join(directory.as_os_str(), name));
    match found.into_iter().find(|prefix| Path::new(prefix).is_dir()) {
        Some(prefix) => Ok(python::normalise(&prefix).into()),
        None => Err(ResolveError::UnknownName {
            name: name.to_string_lossy().into_owned(),
            directories,
        }),
    }
}

/// Where environments are looked for by name: the settings' directories, then the root's and the person's own. The root
/// comes first only for those who may write it, as conda finds out: by opening its history.
fn environments_directories(
    settings: &Settings,
    root: &Root,
    surroundings: &Surroundings,
) -> Vec<PathBuf> {
    let history = root.base().join("conda-meta/history");
    let is_writable = history.is_file() && OpenOptions::new().append(true).open(&history).is_ok();
    let mut fixed = [
        root.base().join("envs").into_os_string(),
        "~/.conda/envs".into(),
    ];
    if !is_writable {
        fixed.reverse();
    }
    let mut directories: Vec<PathBuf> = Vec::new();
    for directory in settings.envs_dirs.iter().chain(&fixed) {
        let directory = PathBuf::from(fully_expanded(directory, surroundings));
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    directories
}

/// `abspath(expanduser(expandvars(x)))`.
fn fully_expanded(path: &OsStr, surroundings: &Surroundings) -> OsString {
    absolute(
        &expand::home(
            &expand::variables(path, &surroundings.environment),
            surroundings,
        ),
        surroundings,
    )
}

fn absolute(path: &OsStr, surroundings: &Surroundings) -> OsString {
    python::normalise(&python::join(surroundings.directory.as_os_str(), path))
}

#[cfg(test)]
mod tests;
