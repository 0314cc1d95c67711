//! Steps below a service user's directories, done by a process of that user (`crate::inside`).

use std::fmt;
use std::path::PathBuf;

use buildbot_conda_core::names::Unit;
use serde::{Deserialize, Serialize};

use super::units::UnitStep;
use super::{Deed, Undo};
use crate::inside::fill::{self, Contents};
use crate::inside::put::{self, Put};
use crate::inside::worker_list::{self, Edit};
use crate::output::harmless;
use crate::system::values::Identity;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum UserStep {
    /// The user fills an empty directory, or makes it.
    Fill {
        #[serde(flatten)]
        identity: Identity,
        directory: PathBuf,
        contents: Contents,
    },
    /// The user removes what is in a directory, and the directory itself if it is his to remove. One
    /// that is kept stays, empty.
    Clear {
        #[serde(flatten)]
        identity: Identity,
        directory: PathBuf,
        keep: bool,
    },
    /// The user changes the list of workers in a master's configuration.
    NameWorker {
        #[serde(flatten)]
        identity: Identity,
        /// The master's unit: where this is rolled back, it is reloaded again.
        unit: Unit,
        edit: Edit,
    },
    /// A file in a user's directory.
    Put(Put),
    /// Files that a master reads at its next reload. Where this is rolled back, it is reloaded again.
    Tell { unit: Unit, files: Vec<Put> },
}

impl fmt::Display for UserStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |path: &PathBuf| harmless(&path.display().to_string());
        match self {
            Self::Fill {
                identity,
                directory,
                contents,
            } => write!(
                formatter,
                "as `{}`, set up a {} in `{}`: {}",
                identity.user,
                contents.role(),
                shown(directory),
                contents.summary()
            ),
            Self::Clear {
                identity,
                directory,
                keep,
            } => {
                let what = if *keep { "everything in " } else { "" };
                let user = &identity.user;
                write!(
                    formatter,
                    "as `{user}`, remove {what}`{}`",
                    shown(directory)
                )
            }
            Self::NameWorker { identity, edit, .. } => {
                write!(formatter, "as `{}`, {edit}", identity.user)
            }
            Self::Put(put) => put.fmt(formatter),
            Self::Tell { files, .. } => {
                let lines: Vec<String> = files.iter().map(ToString::to_string).collect();
                formatter.write_str(&lines.join("\n"))
            }
        }
    }
}

impl Deed for UserStep {
    fn undo(&self) -> anyhow::Result<Undo> {
        Ok(match self {
            Self::Fill {
                identity,
                directory,
                ..
            } => Undo::by(Self::Clear {
                identity: identity.clone(),
                directory: directory.clone(),
                keep: directory.is_dir(),
            }),
            Self::Clear { .. } => Undo::Impossible,
            // The running master knows the one list or the other, whether it was reloaded yet or not.
            Self::NameWorker {
                identity,
                unit,
                edit,
            } => {
                let edit = Self::NameWorker {
                    identity: identity.clone(),
                    unit: unit.clone(),
                    edit: edit.inverse(),
                };
                let reload = UnitStep::Reload {
                    unit: unit.clone(),
                    required: false,
                };
                Undo::Steps(vec![edit.into(), reload.into()])
            }
            Self::Put(put) => Undo::by(Self::Put(put.inverse())),
            Self::Tell { unit, files } => {
                let unit = unit.clone();
                let files = files.iter().rev().map(Put::inverse).collect();
                let reload = UnitStep::Reload {
                    unit: unit.clone(),
                    required: false,
                };
                Undo::Steps(vec![Self::Tell { unit, files }.into(), reload.into()])
            }
        })
    }

    fn perform(&self) -> anyhow::Result<()> {
        match self {
            Self::Fill {
                identity,
                directory,
                contents,
            } => fill::fill(identity, directory, contents),
            Self::Clear {
                identity,
                directory,
                keep,
            } => fill::clear(identity, directory, *keep),
            Self::NameWorker { identity, edit, .. } => worker_list::change(identity, edit),
            Self::Put(put) => put::put(put),
            Self::Tell { files, .. } => files.iter().try_for_each(put::put),
        }
    }

    fn relies_on_others(&self) -> bool {
        true
    }
}
