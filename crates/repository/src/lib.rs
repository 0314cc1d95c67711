//! A signed apt repository in a directory that any web server can publish: made, extended, verified.
//!
//! Text and decisions (`control`, `package`, `release`, `change`, `settings`, `plan`) are apart from what touches the disk
//! (`deb`, `present`, `publish`) and from gpg, which has the keys. Building packages is not done here.

#![warn(
    clippy::print_stderr,
    reason = "the macros of the standard library panic when nobody reads"
)]

mod change;
mod clients;
pub mod command;
mod control;
mod creation;
mod deb;
mod digest;
mod error;
mod gpg;
mod layout;
mod names;
mod package;
mod plan;
mod present;
#[cfg(test)]
mod properties;
mod publish;
mod release;
mod repository;
mod settings;

pub use control::ControlError;
pub use creation::Creation;
pub use digest::Digest;
pub use error::Error;
pub use names::{Architecture, NameError, PackageName, Version};
pub use package::{Identity, Package, PackageError};
pub use release::{Packages, Release, ReleaseError};
pub use repository::{Contents, Repository, Wish};
pub use settings::{Expected, Fingerprint, Settings, SettingsError, Url, Word};
