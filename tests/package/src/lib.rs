//! What the package tests share: the .deb under test, opened, and throwaway Debian roots to install it in.
//!
//! Nothing here knows the source tree: these tests see what a user gets. What needs a booted machine is tested in
//! `tests/machine`.

mod debian_root;
mod interruption;
mod package;
mod repository_host;
mod server;
mod state;
mod suite;
pub mod terminal;
mod version;

pub use buildbot_conda_machine::{Release, on_each_release};
pub use debian_root::{CHECKERS, DebianRoot, Outcome};
pub use interruption::{Moment, at_each, kill_at, moments};
pub use package::{Entry, Package};
pub use repository_host::{RepositoryHost, deb};
pub use server::Server;
pub use state::differences;
pub use suite::Suite;
pub use version::{OLD, old_version};
