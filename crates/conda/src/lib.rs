//! What `conda activate` does to the environment of a fresh process, without conda, Python or a shell.
//!
//! Three steps, kept apart so that each can be tested alone:
//!
//! 1. **read** a prefix: [`PrefixFacts::read`] is the only function that looks at the disk;
//! 2. **decide** an environment: [`activate`] turns facts and the inherited variables into an [`Activation`];
//! 3. **say what to execute**: [`exec_chain`] turns it into a [`CommandLine`], through one bash if, and only if, the
//!    prefix has `activate.d` scripts.
//!
//! No process is started here; the caller replaces itself with the command line. Everything is bytes
//! ([`OsString`](std::ffi::OsString)): values and paths that are not UTF-8 survive. The reference is conda 26.7
//! (`conda/activate.py`, `shell/etc/profile.d/conda.sh`) as a non-interactive bash runs it; where this library does
//! better on purpose, the item concerned says so. Names (`conda activate NAME`) and condarc are the business of the
//! `resolve` module.
//!
//! ```no_run
//! use std::os::unix::process::CommandExt;
//! use buildbot_conda_conda::{Environment, Options, PrefixFacts, Root, activate, exec_chain};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let root = Root::new("/home/bb/anaconda3")?;
//! let facts = PrefixFacts::read("/home/bb/anaconda3/envs/buildbot".as_ref())?;
//! let inherited: Environment = std::env::vars_os().collect();
//! let activation = activate(&facts, Some(&root), &inherited, &Options::default())?;
//! for warning in &activation.warnings {
//!     eprintln!("warning: {warning}");
//! }
//! // The variables of the configuration file are set after activation, so they go along separately.
//! let afterwards = Environment::new();
//! let python = facts.prefix().join("bin/python").into_os_string();
//! let command_line = exec_chain(&activation, &afterwards, python, ["runner.py".into(), "master".into()], None);
//! let error = std::process::Command::new(&command_line.program)
//!     .args(&command_line.arguments)
//!     .env_clear()
//!     .envs(&command_line.environment)
//!     .exec();
//! # Err(error.into())
//! # }
//! ```
//!
//! Every error has a `hint()`: one sentence for the `hint:` line, when there is a likely way out.

#![warn(
    clippy::print_stderr,
    reason = "the macros of the standard library panic when nobody reads"
)]

mod activation;
mod chain;
mod inherited;
mod prefix;
mod prompt;
pub mod python;
pub mod resolve;
mod state;

use std::collections::BTreeMap;
use std::ffi::OsString;

pub use activation::{Activation, Options, Refusal, Warning, activate};
pub use chain::{CommandLine, HINT, Notes, SEPARATOR, Watch, exec_chain, is_left};
pub use prefix::{PrefixFacts, ReadError, Root};

/// A process environment: names and values, as in `environ(7)`.
pub type Environment = BTreeMap<OsString, OsString>;
