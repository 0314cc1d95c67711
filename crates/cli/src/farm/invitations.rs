//! Who was invited and has not joined yet: root's file, without passwords.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::starter::{Tag, WorkerName};
use serde::{Deserialize, Serialize};

use crate::plan::{self, FileStep, Step};
use crate::system::context::Context;
use crate::system::foreign_file;
use crate::system::record::RECORDS;
use crate::system::values::Mode;

/// Beside the records of instances, whose names none of them has.
const FILE: &str = "invitations";
/// The runner's list of workers that have been attached, in a master's state directory.
const ATTACHED: &str = "attached.json";
/// Bytes of it, at most.
const LARGEST: u64 = 1 << 20;

/// An invitation that was printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Invited {
    pub(super) master: String,
    pub(super) worker: String,
    /// Those that it was invited with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) tags: Vec<Tag>,
    /// When it was printed, in seconds since 1970.
    pub(super) since: u64,
    /// When it ends, likewise.
    pub(super) until: u64,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Joined,
    Expired,
    /// It has ended, and whether it was used is not known.
    Unknown,
}

/// What the runner keeps, in seconds since 1970.
#[derive(Deserialize)]
struct Attached {
    /// From when on nothing is missing.
    since: u64,
    workers: BTreeMap<String, u64>,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Joined => "joined",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
        }
    }
}

impl Invited {
    pub(super) fn state(&self, now: u64, context: &Context) -> State {
        match self.has_joined(context) {
            Ok(true) => State::Joined,
            _ if now < self.until => State::Pending,
            Ok(false) => State::Expired,
            Err(_) => State::Unknown,
        }
    }

    /// Whether the worker has been at its master since the invitation.
    ///
    /// # Errors
    ///
    /// When that is not known.
    pub(super) fn has_joined(&self, context: &Context) -> anyhow::Result<bool> {
        let reference: InstanceRef = self.master.parse()?;
        let directory = context.path(&paths::state_directory(&reference));
        let path = directory.join(ATTACHED);
        let read = || -> anyhow::Result<Attached> {
            let text = foreign_file::read(&path, LARGEST)?;
            // Its words are the service user's; they are not repeated.
            let attached = serde_json::from_slice(&text).ok();
            attached.context("invalid content")
        };
        let attached = read().with_context(|| format!("read `{}`", path.display()))?;
        if attached.workers.contains_key(&self.worker) {
            return Ok(true);
        }
        ensure!(
            attached.since <= self.since,
            "`{}` was created after the invitation",
            path.display()
        );
        Ok(false)
    }
}

/// Now, in seconds since 1970.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

fn file(context: &Context) -> PathBuf {
    context.path(RECORDS).join(FILE)
}

/// That of one worker of a master, if there is one.
pub(super) fn of(
    master: &Instance,
    name: &WorkerName,
    context: &Context,
) -> anyhow::Result<Option<Invited>> {
    let reference = master.reference.to_string();
    let mut invited = read(context)?.into_iter();
    Ok(invited.find(|one| one.worker == name.as_str() && one.master == reference))
}

/// All that are noted.
pub(super) fn read(context: &Context) -> anyhow::Result<Vec<Invited>> {
    let path = file(context);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("read `{}`", path.display()))?,
    };
    serde_json::from_str(&text).with_context(|| format!("read `{}`", path.display()))
}

/// The steps after which these are noted.
pub(super) fn note(invited: &[Invited], context: &Context) -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::new();
    plan::directory(&context.path(RECORDS), 0o755, &mut steps);
    let write = FileStep::Write {
        path: file(context),
        text: serde_json::to_string_pretty(invited).context("write invitations")? + "\n",
        mode: Mode::new(0o644),
        secret: false,
    };
    steps.push(write.into());
    Ok(steps)
}
