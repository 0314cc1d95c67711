//! Where an environment is created, and how it is used then.

use std::path::PathBuf;

/// Where a generation is made, and what it is called by what is in it.
pub(crate) struct Place {
    pub(crate) building: PathBuf,
    pub(crate) used_as: PathBuf,
    /// The cache of bytecode.
    pub(crate) bytecode: PathBuf,
    pub(crate) kind: Kind,
}

/// What becomes of an environment when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing in it ever changes: its files are those of the cache, and bytecode holds for ever.
    Generation,
    /// Others change it later: it has its own files, and bytecode is valid as long as its source.
    Open,
}
