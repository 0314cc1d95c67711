//! The one model: what a profile's directory says, and in the same terms what is there on a host. `directory` reads and
//! writes the one, `look` finds the other, `differences` compares them.

use std::collections::BTreeMap;

use buildbot_conda_core::names::InstanceRef;

use super::manifest::Manifest;

/// A host, or what it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Profile {
    /// All that is no file.
    pub(super) manifest: Manifest,
    /// `config.toml`, byte for byte.
    pub(super) configuration: String,
    /// Texts by their paths below `/etc/systemd/system`: drop-ins of our units, and units of our names that somebody
    /// wrote.
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
