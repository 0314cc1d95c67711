//! What is noted of a master whose pages others reach; it has no secret.

use std::fs;
use std::path::PathBuf;

use buildbot_conda_core::names::InstanceRef;
use serde::{Deserialize, Serialize};

use super::context::Context;
use super::front::Front;
use super::record::RECORDS;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exposed {
    pub(crate) front: Front,
    pub(crate) host: String,
    /// The port on which the front expects the master.
    pub(crate) web_port: u16,
    /// Reading requires a login.
    pub(crate) private: bool,
}

impl Exposed {
    pub(crate) fn read(reference: &InstanceRef, context: &Context) -> Option<Self> {
        let text = fs::read_to_string(Self::file(reference, context)).ok()?;
        serde_json::from_str(&text).ok()
    }

    pub(crate) fn file(reference: &InstanceRef, context: &Context) -> PathBuf {
        context.path(RECORDS).join(format!("{reference}.web"))
    }
}
