//! Why something about a managed environment cannot be done.

use std::io;
use std::path::{Path, PathBuf};

use buildbot_conda_core::foreign_text::ForeignText;
use thiserror::Error;

/// Why something about a managed environment cannot be done.
#[derive(Debug, Error)]
pub enum Error {
    /// A name that cannot be the name of a directory, or would need quoting somewhere.
    #[error(
        "`{0}` is not a valid name for an environment\n\
         hint: use 1 to 64 letters, digits, `_`, `-` and `.`, starting with a letter or digit"
    )]
    Name(String),
    /// A name that no generation has.
    #[error("`{0}` is not a generation\nhint: `buildbot-conda env list` shows all")]
    Generation(String),
    /// The system refused.
    // The field is not called `source`: the message contains it, and a chain of causes would repeat it.
    #[error("{doing} `{}`: {cause}", ForeignText::of_path(path))]
    Io {
        /// What was attempted, such as `read`.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the system.
        cause: io::Error,
    },
    /// Another command is at work on the same environment.
    #[error(
        "another command is changing the environment `{0}`\nhint: try again when it has finished"
    )]
    Busy(String),
    /// A record of Conda's that is not one.
    #[error("read `{}`: {reason}", ForeignText::of_path(path))]
    Record {
        /// The file in `conda-meta`.
        path: PathBuf,
        /// What is wrong with it.
        reason: ForeignText,
    },
}

/// Why a package cannot be named in a lock.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LockError {
    /// The archive could not be distinguished from another one.
    #[error("`{0}` was installed without a checksum and cannot be locked\nhint: install it again")]
    NoChecksum(ForeignText),
    /// Conda writes no such record.
    #[error("`{package}` cannot be locked: its record in `conda-meta` has the {what} `{value}`")]
    Unfit {
        /// Its name.
        package: ForeignText,
        /// `address` or `checksum`.
        what: &'static str,
        /// The actual content.
        value: ForeignText,
    },
}

impl Error {
    /// For `map_err`: what was attempted with which path.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::Io { doing, path, cause }
    }
}
