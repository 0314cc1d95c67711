//! How a verb that changes something is asked, and what `--json` prints of each of them.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value};

/// What all of them take.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Manner {
    /// Show what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print what changed as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What has changed, or would. Keys may be added, none changes its meaning.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Outcome {
    /// Whether anything has changed, or would; a repetition changes nothing.
    pub(crate) changed: bool,
    pub(crate) dry_run: bool,
    /// What it is about, as it was found; null where it did not exist.
    pub(crate) before: Value,
    /// The same as it was left; missing where only that could show it which is not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<Value>,
    /// What was done, or would be, as `--dry-run` prints it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) steps: Vec<String>,
    /// What only this verb has.
    #[serde(flatten)]
    pub(crate) more: Map<String, Value>,
}

impl Outcome {
    /// The whole of standard output.
    pub(crate) fn print(&self) -> anyhow::Result<ExitCode> {
        let json = serde_json::to_string_pretty(self).context("write JSON")?;
        super::print(json + "\n")
    }
}
