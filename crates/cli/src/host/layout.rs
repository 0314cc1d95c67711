//! Names and places of the parts of a profile, in its directory and on a host.

use std::path::{Path, PathBuf};

use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::paths;

pub(super) const CONFIGURATION: &str = "config.toml";
pub(super) const PRESEED: &str = "preseed.cfg";
pub(super) const UNITS: &str = "systemd";
pub(super) const ENVIRONMENTS: &str = "environments";
pub(super) const INSTANCES: &str = "instances";

/// Where our files are that no configuration names.
pub(super) const OWN_DIRECTORIES: [&str; 5] = [
    "/etc/buildbot-conda",
    paths::CREDENTIALS,
    "/var/lib/buildbot-conda",
    paths::STATE,
    paths::ENVIRONMENTS,
];

/// Where the lock of an environment is.
pub(super) fn lock_file(name: &str) -> String {
    format!("{ENVIRONMENTS}/{name}.txt")
}

/// Where the profile has a file of an instance.
pub(super) fn file_of(reference: &InstanceRef, path: &str) -> PathBuf {
    Path::new(INSTANCES).join(reference.to_string()).join(path)
}
