//! What `create master` notes for later: where a worker on the same host finds it, and as whom. The
//! master's own files are its user's, and not read.

use std::fs;

use anyhow::Context as _;
use buildbot_conda_core::names::InstanceRef;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::plan::Step;

/// Root's, world-readable: there is no secret in it.
const RECORDS: &str = "/var/lib/buildbot-conda/created";

/// A created master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) web_port: u16,
    pub(crate) worker_port: u16,
    /// The worker that its starter configuration names.
    pub(crate) worker: String,
}

/// Where the record of a master is.
pub(crate) fn record_file(reference: &InstanceRef, context: &Context) -> std::path::PathBuf {
    context.path(&format!("{RECORDS}/{reference}.json"))
}

impl Record {
    /// That of a master, if it was created by us.
    pub(crate) fn read(reference: &InstanceRef, context: &Context) -> Option<Self> {
        let text = fs::read_to_string(record_file(reference, context)).ok()?;
        serde_json::from_str(&text).ok()
    }

    pub(super) fn steps(
        &self,
        reference: &InstanceRef,
        context: &Context,
    ) -> anyhow::Result<Vec<Step>> {
        let directory = context.path(RECORDS);
        let mut steps = Vec::new();
        if !directory.is_dir() {
            steps.push(Step::CreateDirectory {
                path: directory,
                mode: 0o755,
            });
        }
        steps.push(Step::Write {
            path: record_file(reference, context),
            text: serde_json::to_string(self).context("write a record")? + "\n",
            mode: 0o644,
            secret: false,
        });
        Ok(steps)
    }
}
