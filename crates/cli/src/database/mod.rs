//! A master's database: looked at, backed up, upgraded and restored, so that nothing is ever lost.
//!
//! Everything in here runs as the service user, in the master's activated environment; `system::as_user`
//! gets there from root. The verbs `backup`, `restore` and `upgrade` and the unit's `service prepare`
//! are short programs over these parts:
//!
//! * `facts`: which database, and how its schema stands to the Buildbot installed, in Buildbot's words
//! * `lock`: the instance's lock, taken or inherited from the runner
//! * `backups`: the backups of a master, and where they are
//! * `mark`: the note that the database is in pieces, written before it may be and removed after
//! * `upgraded`: the note of the last upgrade, by which one is taken back that did not come to serve
//! * `copy`, `dump`: how a backup is made and put back, for files and for servers
//! * `transfer`: how it is copied to a database of another kind
//! * `plan`: the steps, decided before anything is done; `perform` does them

pub(crate) mod backups;
mod copy;
pub(crate) mod drill;
pub(crate) mod dump;
pub(crate) mod facts;
pub(crate) mod lock;
pub(crate) mod mark;
pub(crate) mod perform;
pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod transfer;
pub(crate) mod upgraded;

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Instance;
use thiserror::Error;

use crate::system::activation;
use crate::system::context::Context;

/// Statuses of `sysexits.h` with the meaning that the units give them.
pub(crate) const SCHEMA: u8 = 65;
pub(crate) const AWAY: u8 = 69;
pub(crate) const CONFIGURATION: u8 = 78;

/// What ends a verb or a start: an exit status, the reason, and what to do about it.
#[derive(Debug, Clone, Error)]
#[error("{reason}{}", .hint.as_ref().map_or_else(String::new, |hint| format!("\nhint: {hint}")))]
pub(crate) struct Failure {
    pub(crate) status: u8,
    pub(crate) reason: String,
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(status: u8, reason: impl Into<String>) -> Self {
        Self {
            status,
            reason: reason.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// What the system says about a path.
    pub(crate) fn io(verb: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::new(SCHEMA, format!("{verb} `{}`: {error}", path.display()))
    }
}

/// One master on this host, as its service user sees it.
#[derive(Debug, Clone)]
pub(crate) struct Master<'a> {
    pub(crate) instance: &'a Instance,
    /// Mode 0700, the service user's: the last version.
    pub(crate) state: PathBuf,
    pub(crate) backups: backups::Place,
}

impl<'a> Master<'a> {
    /// A worker has no database.
    pub(crate) fn new(instance: &'a Instance, context: &Context) -> Result<Self, Failure> {
        let reference = &instance.reference;
        if reference.role != Role::Master {
            let text = format!("`{reference}` is a worker and has no database");
            return Err(Failure::new(1, text));
        }
        let state = state_directory(reference, context);
        Ok(Self {
            instance,
            backups: backups::Place::new(reference, &state, context),
            state,
        })
    }

    pub(crate) fn reference(&self) -> &InstanceRef {
        &self.instance.reference
    }

    pub(crate) fn directory(&self) -> &Path {
        Path::new(self.instance.directory.as_str())
    }

    /// The version of Buildbot that last served from this database, as the runner noted it.
    pub(crate) fn last_version(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.state.join("last-version")).ok()?;
        let text = text.trim();
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b".+-_".contains(&byte);
        (!text.is_empty() && text.len() < 64 && text.bytes().all(good)).then(|| text.to_owned())
    }

    /// The environment's Python with a program of ours, activated; it starts in the directory.
    pub(crate) fn python(&self, script: &str, arguments: &[OsString]) -> Result<Command, Failure> {
        let python = activation::python_of(self.instance);
        let words = [OsString::from("-c"), script.into()];
        let arguments = words.into_iter().chain(arguments.iter().cloned()).collect();
        let chain =
            activation::of_instance(self.instance, python.into(), arguments, BTreeMap::new())
                .map_err(|error| Failure::new(CONFIGURATION, format!("{error:#}")))?;
        let mut command = Command::new(&chain.program);
        command
            .args(&chain.arguments)
            .env_clear()
            .envs(&chain.environment)
            .current_dir(self.directory());
        Ok(command)
    }
}

/// systemd says where it made the directory; by hand it is the same place.
fn state_directory(reference: &InstanceRef, context: &Context) -> PathBuf {
    let usual = paths::state_directory(reference);
    match env::var("STATE_DIRECTORY") {
        Ok(given) if !given.is_empty() => paths::own_directory(&given, &usual).into(),
        _ => context.path(&usual),
    }
}
