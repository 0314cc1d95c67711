//! Managed Conda environments on disk: the name of an environment, the location of its generations, which of them is
//! current, what each contains, and whether it is unchanged since its installation.
//!
//! An environment NAME is the directory `NAME/` below the store. It contains a directory for each generation, the link
//! `current` to one of them, `history`, `.building` while a generation is created, and `.changing` while one is tried.
//! A generation is created as `.building` and renamed when it is complete. This crate does not resolve, download or
//! install packages, which is the task of the package buildbot-conda-env, and knows nothing about services, which are
//! the task of the command line.

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
