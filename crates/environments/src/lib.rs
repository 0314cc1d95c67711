//! Managed Conda environments as they lie on disk: what an environment is called, where its generations are, which of
//! them serves, what is in one, and whether it is still what was installed.
//!
//! An environment NAME is the directory `NAME/` below the store. In it is a directory for each generation, the link
//! `current` to the one that serves, `history`, while one is being made `.building`, and while one is tried `.changing`. A generation is complete
//! when it has its name: it is made as `.building` and renamed. Nothing here resolves, downloads or installs packages:
//! that is the program of the package buildbot-conda-env. Nothing here knows of services: that is the command line.

#![warn(
    clippy::print_stderr,
    reason = "the macros of the standard library panic when nobody reads"
)]

mod change;
mod error;
mod name;
mod package;
#[cfg(test)]
mod properties;
pub mod sbom;
mod store;
mod verify;

pub use change::{Change, InForce};
pub use error::{Error, LockError};
pub use name::{EnvironmentName, GenerationId};
pub use package::{
    Difference, PLATFORM, Package, difference, generation_id, lock_text, packages_of,
};
pub use store::{BUILDING, CURRENT, Environment, LOCK_FILE, Lock, Store};
pub use verify::{Finding, verify};
