//! The model for both the directory of a profile and the actual state of a host. `directory` reads and writes the
//! former, `look` finds the latter, and `differences` compares them.

use std::collections::BTreeMap;

use buildbot_conda_core::names::InstanceRef;

use super::manifest::Manifest;

/// The state of a host, actual or desired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Profile {
    /// Everything that is not a file.
    pub(super) manifest: Manifest,
    /// `config.toml`, byte for byte.
    pub(super) configuration: String,
    /// Texts by their paths below `/etc/systemd/system`: drop-ins for our units, and units with our names that were
    /// written by hand.
    pub(super) unit_files: BTreeMap<String, String>,
    /// Locks, by their paths in the profile.
    pub(super) locks: BTreeMap<String, String>,
    /// Texts of instances' files, by reference and path in the instance's directory.
    pub(super) instance_files: BTreeMap<(InstanceRef, String), String>,
}

impl Profile {
    /// Nothing.
    pub(super) fn new() -> Self {
        Self {
            manifest: Manifest::new(),
            configuration: String::new(),
            unit_files: BTreeMap::new(),
            locks: BTreeMap::new(),
            instance_files: BTreeMap::new(),
        }
    }
}
