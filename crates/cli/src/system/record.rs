//! What `create` notes for later: where a worker on the same host finds a master, and as whom it
//! comes. The instances' own files are their users', and not read.

use std::fs;

use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::starter::Tag;
use buildbot_conda_core::values::AccountName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::context::Context;

/// Owned by root and readable by everyone: it contains no secret.
pub(crate) const RECORDS: &str = "/var/lib/buildbot-conda/created";

/// A created master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) web_port: u16,
    /// TCP port of its workers; none if they connect to the socket in its run-time directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) worker_port: Option<u16>,
    /// The worker that its starter configuration names.
    pub(crate) worker: String,
    /// The credential with that worker's password. One whose workers share a password has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) worker_credential: Option<String>,
    /// Where its database is, if not in its directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) database: Option<Server>,
}

/// The database of a created master on a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Server {
    /// One that `create` made on this host's `PostgreSQL`.
    Made { database: String, role: AccountName },
    /// One that was there, for people.
    Given(String),
}

/// A created worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkerRecord {
    /// `HOST:PORT` or socket of its master.
    pub(crate) master: String,
    /// The worker's name at the master.
    pub(crate) worker: String,
    /// The master's reference, if it is an instance of this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) instance: Option<String>,
    /// With what words it was created.
    #[serde(default, skip_serializing_if = "Asked::is_default")]
    pub(crate) asked: Asked,
}

/// What was asked for when a worker was created, as far as only files of others have it besides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    pub(crate) tls: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slots: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tags: Vec<Tag>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) admin: Option<String>,
}

impl Asked {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether whoever asks for `other` has it; what is not asked for is left alone.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        other.is_default() || self == other
    }
}

/// Where the record of an instance is.
pub(crate) fn record_file(reference: &InstanceRef, context: &Context) -> std::path::PathBuf {
    context.path(&format!("{RECORDS}/{reference}.json"))
}

/// Where `invite` notes how workers of other hosts reach a master.
pub(crate) fn network_file(reference: &InstanceRef, context: &Context) -> std::path::PathBuf {
    context.path(&format!("{RECORDS}/{reference}.network"))
}

/// The record of an instance, in a separate file.
pub(crate) trait Noted: Serialize + DeserializeOwned {
    /// That of an instance, if it was created by us.
    fn read(reference: &InstanceRef, context: &Context) -> Option<Self> {
        let text = fs::read_to_string(record_file(reference, context)).ok()?;
        serde_json::from_str(&text).ok()
    }
}

impl Noted for Record {}
impl Noted for WorkerRecord {}
