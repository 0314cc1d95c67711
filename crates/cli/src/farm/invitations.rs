//! Who was invited and has not joined yet: root's file, without passwords.

use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::paths;
use serde::{Deserialize, Serialize};

use crate::plan::{self, FileStep, Step};
use crate::system::context::Context;
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
    /// Seconds since 1970.
    pub(super) until: u64,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Joined,
    Expired,
}

impl Invited {
    pub(super) fn state(&self, now: u64, context: &Context) -> State {
        if self.has_joined(context) {
            State::Joined
        } else if now >= self.until {
            State::Expired
        } else {
            State::Pending
        }
    }

    fn has_joined(&self, context: &Context) -> bool {
        #[derive(Deserialize)]
        struct Attached {
            workers: serde_json::Map<String, serde_json::Value>,
        }
        let read = || -> Option<bool> {
            let reference: InstanceRef = self.master.parse().ok()?;
            let directory = context.path(&paths::state_directory(&reference));
            let (file, metadata) = buildbot_conda_host::open(&directory.join(ATTACHED)).ok()??;
            let is_file = metadata.is_file();
            let text = buildbot_conda_host::read_at_most(&file, LARGEST).ok()??;
            let attached: Attached = serde_json::from_slice(&text).ok()?;
            Some(is_file && attached.workers.contains_key(&self.worker))
        };
        read().unwrap_or_default()
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
