//! Steps with files, links and directories of root's.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use buildbot_conda_core::edit;
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::values::AccountName;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::{Deed, Undo};
use crate::output::harmless;
use crate::system::accounts;
use crate::system::files::{self, Found};
use crate::system::own_place;
use crate::system::values::{Mode, Ownership, Principal};

/// Where administrators put units.
const UNITS: &str = "/etc/systemd/system";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FileStep {
    /// A directory; parents are made too. Nothing where there is one.
    CreateDirectory { path: PathBuf, mode: Mode },
    /// The same, given to an account. Its parent is root's.
    GiveDirectory { path: PathBuf, user: AccountName },
    /// A directory goes if it is empty.
    RemoveDirectory { path: PathBuf },
    /// A directory that nobody writes any more goes with all that is in it; its parent is root's.
    RemoveTree { path: PathBuf },
    /// A file, whole or not at all. `secret` ones are not shown.
    Write {
        path: PathBuf,
        text: String,
        mode: Mode,
        secret: bool,
    },
    /// A file or link goes.
    Remove { path: PathBuf },
    /// A symbolic link.
    Link { path: PathBuf, target: PathBuf },
    /// A file or link takes another place, perhaps on another file system.
    Move { from: PathBuf, to: PathBuf },
    /// The configuration becomes `after`, or where it is not `before` any more, its tables of
    /// `references` become those of `after`.
    Configure {
        path: PathBuf,
        before: String,
        after: String,
        references: Vec<InstanceRef>,
        /// What changes, as people would write it.
        lines: Vec<String>,
    },
    /// Mode and owners of a file or directory.
    SetMode {
        path: PathBuf,
        #[serde(flatten)]
        ownership: OwnershipKeys,
    },
}

/// An [`Ownership`] whose parts have keys of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnershipKeys {
    mode: Mode,
    user: Principal,
    group: Principal,
}

impl From<Ownership> for OwnershipKeys {
    fn from(ownership: Ownership) -> Self {
        let Ownership { mode, user, group } = ownership;
        Self { mode, user, group }
    }
}

impl fmt::Display for FileStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |path: &Path| harmless(&path.display().to_string());
        match self {
            Self::CreateDirectory { path, .. } => write!(formatter, "create `{}`", shown(path)),
            Self::GiveDirectory { path, user } => {
                write!(formatter, "create `{}` for `{user}`", shown(path))
            }
            Self::RemoveDirectory { path } => {
                write!(formatter, "remove `{}` if it is empty", shown(path))
            }
            Self::RemoveTree { path } => {
                write!(formatter, "remove `{}` and its contents", shown(path))
            }
            Self::Write { path, mode, .. } => {
                write!(formatter, "write `{}`, mode {mode}", shown(path))
            }
            Self::Remove { path } => write!(formatter, "remove `{}`", shown(path)),
            Self::Link { path, target } => {
                write!(formatter, "link `{}` to `{}`", shown(path), shown(target))
            }
            Self::Move { from, to } => {
                write!(formatter, "move `{}` to `{}`", shown(from), shown(to))
            }
            Self::Configure { path, lines, .. } => {
                write!(formatter, "in `{}`:", shown(path))?;
                lines
                    .iter()
                    .try_for_each(|line| write!(formatter, "\n    {}", harmless(line)))
            }
            Self::SetMode { path, ownership } => {
                let OwnershipKeys { mode, user, group } = ownership;
                let path = shown(path);
                write!(
                    formatter,
                    "set owner `{user}`, group `{group}` and mode {mode} of `{path}`"
                )
            }
        }
    }
}

impl Deed for FileStep {
    fn undo(&self) -> anyhow::Result<Undo> {
        Ok(match self {
            Self::CreateDirectory { path, .. } | Self::GiveDirectory { path, .. } => {
                let made = missing_directories(path).into_iter().rev();
                Undo::Steps(
                    made.map(|path| Self::RemoveDirectory { path }.into())
                        .collect(),
                )
            }
            Self::Write { path, .. } | Self::Remove { path } | Self::Link { path, .. } => {
                Undo::by(restored(path)?)
            }
            Self::Move { from, to } => Undo::by(Self::Move {
                from: to.clone(),
                to: from.clone(),
            }),
            Self::Configure {
                path,
                before,
                after,
                references,
                ..
            } => Undo::by(Self::Configure {
                path: path.clone(),
                before: after.clone(),
                after: before.clone(),
                references: references.clone(),
                lines: vec!["restore the previous content".to_owned()],
            }),
            Self::SetMode { path, .. } => match mode_now(path)? {
                Some(step) => Undo::by(step),
                None => Undo::nothing(),
            },
            Self::RemoveDirectory { .. } => Undo::nothing(),
            Self::RemoveTree { .. } => Undo::Impossible,
        })
    }

    fn perform(&self) -> anyhow::Result<()> {
        match self {
            Self::CreateDirectory { path, mode } => create_directory(path, *mode),
            Self::GiveDirectory { path, user } => give_directory(path, user),
            Self::RemoveDirectory { path } => remove_directory(path),
            Self::RemoveTree { path } => match fs::remove_dir_all(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                outcome => outcome.with_context(|| format!("remove `{}`", path.display())),
            },
            Self::Write {
                path, text, mode, ..
            } => files::write(path, text, mode.bits()),
            Self::Remove { path } => files::remove(path),
            Self::Link { path, target } => files::link(path, target),
            Self::Move { from, to } => move_if_there(from, to),
            Self::Configure {
                path,
                before,
                after,
                references,
                ..
            } => configure(path, before, after, references),
            Self::SetMode { path, ownership } => set_mode(path, ownership),
        }
    }

    fn relies_on_others(&self) -> bool {
        false
    }
}

impl FileStep {
    /// Whether it changes what systemd or our generator reads.
    pub(in crate::plan) fn is_read_by_systemd(&self) -> bool {
        match self {
            Self::Configure { .. } => true,
            Self::Write { path, .. }
            | Self::Remove { path }
            | Self::Link { path, .. }
            | Self::Move { to: path, .. } => path.starts_with(UNITS),
            Self::CreateDirectory { .. }
            | Self::GiveDirectory { .. }
            | Self::RemoveDirectory { .. }
            | Self::RemoveTree { .. }
            | Self::SetMode { .. } => false,
        }
    }
}

/// Directories that are missing above and including `path`, topmost first.
pub(crate) fn missing_directories(path: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> = path
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.is_dir())
        .map(Path::to_path_buf)
        .collect();
    missing.reverse();
    missing
}

/// How what is at `path` now gets there again.
fn restored(path: &Path) -> anyhow::Result<FileStep> {
    let path = path.to_owned();
    Ok(match files::inspect(&path)? {
        Found::Nothing => FileStep::Remove { path },
        Found::File { text, mode } => FileStep::Write {
            path,
            text,
            mode: Mode::new(mode),
            secret: true,
        },
        Found::Link(target) => FileStep::Link { path, target },
        Found::Directory => bail!("`{}` is a directory", path.display()),
    })
}

/// A move that is rolled back may never have been made.
fn move_if_there(from: &Path, to: &Path) -> anyhow::Result<()> {
    let is_there = |path: &Path| path.symlink_metadata().is_ok();
    if !is_there(from) && is_there(to) {
        return Ok(());
    }
    files::move_to(from, to)
}

fn create_directory(path: &Path, mode: Mode) -> anyhow::Result<()> {
    for directory in missing_directories(path) {
        let bits = if directory == path {
            mode.bits()
        } else {
            0o755
        };
        fs::DirBuilder::new()
            .mode(bits)
            .create(&directory)
            .with_context(|| format!("create `{}`", directory.display()))?;
    }
    Ok(())
}

fn give_directory(path: &Path, user: &AccountName) -> anyhow::Result<()> {
    let user = accounts::find_user(user.as_str())?;
    create_directory(path, Mode::new(0o755))?;
    // It may have been given before a power cut.
    let found = own_place::trust(Some(&user))?.find(path)?;
    found.give_to(user.uid, user.gid).with_context(|| {
        format!(
            "change the owner of `{}` to `{}`",
            path.display(),
            user.name
        )
    })
}

pub(super) fn remove_directory(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("remove `{}`", path.display())),
    }
}

fn configure(
    path: &Path,
    before: &str,
    after: &str,
    references: &[InstanceRef],
) -> anyhow::Result<()> {
    let name = path.display().to_string();
    // A link is the administrator's arrangement; what it leads to is what changes.
    let path = path
        .canonicalize()
        .with_context(|| format!("resolve `{name}`"))?;
    let Found::File { text, mode } = files::inspect(&path)? else {
        bail!("`{name}` is not a file");
    };
    if text == after {
        return Ok(());
    }
    if text == before {
        return files::write(&path, after, mode);
    }
    let mut changed = text;
    for reference in references {
        changed = edit::take_table(&name, &changed, after, reference)?;
    }
    files::write(&path, &changed, mode)
}

/// How mode and owner of what is there are set to what they are.
fn mode_now(path: &Path) -> anyhow::Result<Option<FileStep>> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("examine `{}`", path.display())),
        Ok(found) => Ok(Some(FileStep::SetMode {
            path: path.to_owned(),
            ownership: OwnershipKeys {
                mode: Mode::new(found.mode()),
                user: Principal::Number(found.uid()),
                group: Principal::Number(found.gid()),
            },
        })),
    }
}

/// By a descriptor, so that it is one file for both and no link is followed.
fn set_mode(path: &Path, ownership: &OwnershipKeys) -> anyhow::Result<()> {
    let uid = accounts::number_of("passwd", &ownership.user.to_string())?;
    let gid = accounts::number_of("group", &ownership.group.to_string())?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let set = || -> std::io::Result<()> {
        let file = fs::File::from(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?);
        fchown(&file, Some(uid), Some(gid))?;
        file.set_permissions(fs::Permissions::from_mode(ownership.mode.bits()))?;
        file.sync_all()
    };
    set().with_context(|| format!("set mode and owner of `{}`", path.display()))
}
