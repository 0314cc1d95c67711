//! What the package tests share: the .deb under test, opened, and throwaway Debian roots to install it in.
//!
//! Nothing here knows the source tree: these tests see what a user gets. What needs a booted machine is tested in
//! `tests/machine`.

mod debian_root;
mod package;

pub use debian_root::{DebianRoot, Outcome, Release};
pub use package::{Entry, Package};
