//! Plans of the verbs that change a host: steps as values, shown by `--dry-run` as they are carried
//! out otherwise.
//!
//! A step knows how to be done, how to be told, and by which steps it is taken back. Those are
//! written to the `journal` before the step begins, so that whatever ends a verb in the middle, the
//! next one finds what is to be taken back. `files` writes files whole, `account` works as the
//! service user, `put` and `worker_list` do so with one file, `making` makes environments, `systemd` talks to systemd.

mod journal;
mod making;
pub(crate) mod naming;
mod parts;
mod perform;
mod recovery;
mod systemd;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::inside::fill::Contents;
use crate::inside::put::Put;
use crate::inside::worker_list::Edit;

pub(crate) use journal::Journal;
pub(crate) use making::{How, Making};
pub(crate) use parts::{directory, enable, give, note};
pub(crate) use perform::carry_out;
pub(crate) use recovery::begin;
pub(crate) use systemd::{
    await_connection_if_any as await_connection, is_running, start, stop_unit as stop,
};

/// One thing that is done to the host. Paths are those of this host, a root directory included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Step {
    /// `systemctl stop`, after which nothing runs; with `keep_builds` a Buildbot of somebody else's
    /// unit is first told to keep its builds for its next start.
    Stop { unit: String, keep_builds: bool },
    /// `systemctl start`, to the moment at which the unit says that it serves.
    Start { unit: String },
    /// `systemctl daemon-reload`: also has the generator read the configuration.
    ReloadSystemd,
    /// `systemctl reload` of a master that runs, which checks its configuration first. What it
    /// refuses is a failure where it is `required`, and told otherwise.
    Reload { unit: String, required: bool },
    /// A worker is at its master, or at least tries where nobody knows whether there is one.
    AwaitConnection { unit: String, required: bool },
    /// An account of the system.
    CreateAccount { name: String, home: PathBuf },
    /// The account goes, its home if it is empty.
    RemoveAccount { name: String, home: PathBuf },
    /// A directory of root's; parents are made too. `mode` is octal. Nothing where there is one.
    CreateDirectory { path: PathBuf, mode: u32 },
    /// The same, given to an account. Its parent is root's.
    GiveDirectory { path: PathBuf, user: String },
    /// A directory goes if it is empty.
    RemoveDirectory { path: PathBuf },
    /// A file of root's, whole or not at all. `secret` ones are not shown.
    Write {
        path: PathBuf,
        text: String,
        mode: u32,
        secret: bool,
    },
    /// A file or link of root's goes.
    Remove { path: PathBuf },
    /// A symbolic link of root's.
    Link { path: PathBuf, target: PathBuf },
    /// A file or link of root's takes another place, perhaps on another file system.
    Move { from: PathBuf, to: PathBuf },
    /// The configuration becomes `after`, or where it is not `before` any more, its tables of
    /// `references` become those of `after`.
    Configure {
        path: PathBuf,
        before: String,
        after: String,
        /// As they are written.
        references: Vec<String>,
        /// What changes, as people would write it.
        lines: Vec<String>,
    },
    /// The service user fills an empty directory, or makes it.
    Fill {
        user: String,
        /// Instead of his primary one.
        group: Option<String>,
        directory: PathBuf,
        contents: Contents,
    },
    /// The service user removes what is in a directory, and the directory itself if it is his to
    /// remove. `kept` directories stay, empty.
    Clear {
        user: String,
        group: Option<String>,
        directory: PathBuf,
        keep: bool,
    },
    /// The service user changes the list of workers in a master's configuration.
    NameWorker {
        user: String,
        group: Option<String>,
        /// The master's unit: where this is taken back, it is reloaded again.
        unit: String,
        edit: Edit,
    },
    /// A directory that nobody writes any more goes with all that is in it; its parent is root's.
    RemoveTree { path: PathBuf },
    /// A program of the system that changes it, such as `usermod`, and the steps that take that back.
    Run {
        words: Vec<String>,
        told: String,
        back: Vec<Step>,
    },
    /// Mode and owners of a file or directory of root's; `mode` is octal.
    SetMode {
        path: PathBuf,
        mode: u32,
        user: String,
        group: String,
    },
    /// A file in a service user's directory.
    Put(Put),
    /// `systemctl stop`, before which a worker that can finishes its builds.
    StopAfterBuilds { unit: String },
    /// An environment is made; one that is there then harms nobody.
    Make(Making),
}

/// Steps in their order. What is worth knowing beforehand stands above them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// What it is about, such as `create worker@gpu`; the journal and messages name it so.
    pub(crate) title: String,
    /// Facts that the steps follow from, one line each.
    pub(crate) notes: Vec<String>,
    /// What is done.
    pub(crate) steps: Vec<Step>,
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in &self.notes {
            writeln!(formatter, "# {}", crate::output::harmless(note))?;
        }
        for step in &self.steps {
            writeln!(formatter, "{step}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tell = |path: &PathBuf| crate::output::harmless(&path.display().to_string());
        match self {
            Self::Stop {
                unit,
                keep_builds: true,
            } => write!(
                formatter,
                "stop `{unit}`; builds that run are retried after the start"
            ),
            Self::Stop { unit, .. } => write!(formatter, "stop `{unit}`"),
            Self::Start { unit } => write!(formatter, "start `{unit}`, and wait until it serves"),
            Self::ReloadSystemd => write!(formatter, "have systemd read its units again"),
            Self::Reload { unit, .. } => {
                write!(
                    formatter,
                    "reload `{unit}`, which checks its configuration first"
                )
            }
            Self::AwaitConnection { unit, .. } => {
                write!(formatter, "see `{unit}` connect to its master")
            }
            Self::CreateAccount { name, home } => {
                write!(
                    formatter,
                    "create the account `{name}`, home `{}`",
                    tell(home)
                )
            }
            Self::RemoveAccount { name, .. } => write!(formatter, "remove the account `{name}`"),
            Self::CreateDirectory { path, .. } => write!(formatter, "create `{}`", tell(path)),
            Self::GiveDirectory { path, user } => {
                write!(formatter, "create `{}` for `{user}`", tell(path))
            }
            Self::RemoveDirectory { path } => {
                write!(formatter, "remove `{}` if it is empty", tell(path))
            }
            Self::Write { path, mode, .. } => {
                write!(formatter, "write `{}`, mode {mode:04o}", tell(path))
            }
            Self::Remove { path } => write!(formatter, "remove `{}`", tell(path)),
            Self::Link { path, target } => {
                write!(formatter, "link `{}` to `{}`", tell(path), tell(target))
            }
            Self::Move { from, to } => write!(formatter, "move `{}` to `{}`", tell(from), tell(to)),
            Self::Configure { path, lines, .. } => {
                write!(formatter, "in `{}`:", tell(path))?;
                lines.iter().try_for_each(|line| {
                    write!(formatter, "\n    {}", crate::output::harmless(line))
                })
            }
            Self::Fill {
                user,
                directory,
                contents,
                ..
            } => {
                let (role, directory) = (contents.role(), tell(directory));
                write!(
                    formatter,
                    "as `{user}`, set a {role} up in `{directory}`: {}",
                    contents.told()
                )
            }
            Self::Clear {
                user,
                directory,
                keep,
                ..
            } => {
                let what = if *keep { "everything in " } else { "" };
                write!(
                    formatter,
                    "as `{}`, remove {what}`{}`",
                    user,
                    tell(directory)
                )
            }
            Self::NameWorker { user, edit, .. } => write!(formatter, "as `{user}`, {edit}"),
            Self::RemoveTree { path } => {
                write!(formatter, "remove `{}` and all that is in it", tell(path))
            }
            Self::Run { told, .. } => formatter.write_str(&crate::output::harmless(told)),
            Self::SetMode {
                path,
                mode,
                user,
                group,
            } => write!(
                formatter,
                "give `{}` to `{user}`, group `{group}`, mode {mode:04o}",
                tell(path)
            ),
            Self::Put(put) => put.fmt(formatter),
            Self::StopAfterBuilds { unit } => {
                write!(formatter, "stop `{unit}`, after its builds where it can")
            }
            Self::Make(making) => making.fmt(formatter),
        }
    }
}

/// Directories of root's that are missing above and including `path`, topmost first.
pub(crate) fn missing_directories(path: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> = path
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.is_dir())
        .map(Path::to_path_buf)
        .collect();
    missing.reverse();
    missing
}
