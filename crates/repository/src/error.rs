//! The errors between a .deb and a published repository, as messages for the user.

use std::io;
use std::path::{Path, PathBuf};

use buildbot_conda_core::foreign_text::ForeignText;
use thiserror::Error;

use crate::package::{Identity, PackageError};
use crate::release::ReleaseError;
use crate::settings::{Fingerprint, SettingsError};

/// Why nothing was published, or why a repository is not believed.
// Causes are not called `source`: the messages have them, and a chain of causes would repeat them.
#[derive(Debug, Error)]
pub enum Error {
    /// The error of the system for an operation on a path.
    #[error("{action} `{}`: {cause}", path.display())]
    Io {
        /// What was to be done: `read`, `write` and the like.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The error of the system.
        cause: io::Error,
    },
    /// There is no repository.
    #[error("repository `{}` not found\nhint: create one with `repo create`", .0.display())]
    NoRepository(PathBuf),
    /// A repository already exists.
    #[error("`{}` already exists\nhint: extend the repository with `repo add`, or edit its settings", .0.display())]
    Exists(PathBuf),
    /// The settings of the repository.
    #[error("{}:{cause}", path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// The problem.
        cause: SettingsError,
    },
    /// Another process is changing or verifying it.
    #[error("`{}` is in use by another process\nhint: try again when it has finished", .0.display())]
    Busy(PathBuf),
    /// A given file is not a package that can be added.
    #[error("reject `{}`: {reason}", path.display())]
    NoPackage {
        /// The file as it was given.
        path: PathBuf,
        /// What dpkg-deb or we have against it.
        reason: ForeignText,
    },
    /// The control file of a package given.
    #[error("reject `{}`: {cause}", path.display())]
    BadPackage {
        /// The file as it was given.
        path: PathBuf,
        /// What is wrong.
        cause: PackageError,
    },
    /// Clients know this version with another content.
    #[error(
        "reject `{}`: `{identity}` is in the repository with different content\n\
         hint: use a new version for the new build; clients would confuse the two",
        path.display()
    )]
    OtherContent {
        /// The file as it was given.
        path: PathBuf,
        /// The package.
        identity: Box<Identity>,
    },
    /// Two packages would have the same file name.
    #[error(
        "reject `{}`: its file in the pool would overwrite that of `{other}`\n\
         hint: versions must differ in more than the epoch",
        path.display()
    )]
    SameFile {
        /// The file as it was given.
        path: PathBuf,
        /// The package in its place.
        other: Box<Identity>,
    },
    /// Something in the repository is not what was signed.
    #[error("`{}` was changed after it was signed: {reason}\nhint: restore it, or create a new repository", path.display())]
    Tampered {
        /// The file.
        path: PathBuf,
        /// What is different.
        reason: String,
    },
    /// An index or `Release` that this program did not write.
    #[error("read `{}`: {cause}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is different.
        cause: ReleaseError,
    },
    /// The place of the suite holds something else than our link.
    #[error("`{}` is not a link of this program\nhint: create a new repository in a separate directory", .0.display())]
    NotOurs(PathBuf),
    /// The present state was signed by other keys than those in the settings.
    #[error(
        "`{}` is not signed by a key in the settings\n\
         hint: change keys in two steps, first with the old and the new key",
        .0.display()
    )]
    OtherKeys(PathBuf),
    /// Time went backwards.
    #[error(
        "the date {date} is before that of the current state, {present}, so apt would ignore it\n\
         hint: set the clock, or `SOURCE_DATE_EPOCH`"
    )]
    Backwards {
        /// The new date.
        date: String,
        /// The date of what is published.
        present: String,
    },
    /// Nothing to sign.
    #[error("`{}` contains no packages yet\nhint: add one with `repo add`", .0.display())]
    Empty(PathBuf),
    /// Clients refuse it.
    #[error("clients reject it since {0}\nhint: renew it with `repo refresh`")]
    Expired(String),
    /// `SOURCE_DATE_EPOCH` or the clock.
    #[error("`SOURCE_DATE_EPOCH` is `{0}`, not a number of seconds since 1970")]
    NoDate(String),
    /// A program that has to be there.
    #[error("start `{program}`: {cause}\nhint: `apt install {package}`")]
    NoProgram {
        /// The program.
        program: &'static str,
        /// The Debian package that contains it.
        package: &'static str,
        /// The error of the system.
        cause: io::Error,
    },
    /// gpg failed.
    #[error("{action} with gpg: {said}")]
    Gpg {
        /// What was to be done.
        action: &'static str,
        /// The last lines of its stderr.
        said: ForeignText,
    },
    /// A key that cannot be used.
    #[error(
        "the key {key} {reason}\nhint: `gpg --quick-generate-key 'NAME' ed25519 sign 5y` creates a suitable key"
    )]
    Key {
        /// The key.
        key: Fingerprint,
        /// Why not.
        reason: &'static str,
    },
}

/// Adds the path to an I/O error.
pub(crate) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |cause| Error::Io {
        action,
        path: path.to_owned(),
        cause,
    }
}
