//! Where the workspace is, and what machines are made of.

use std::path::{Path, PathBuf};

/// Where roots, channels, snapshots and running machines are kept: `target/machine` of the workspace, or what
/// `BUILDBOT_CONDA_MACHINES` names (an overlay mount must be possible there, which it is not on another overlay).
pub fn machines_directory() -> PathBuf {
    match std::env::var_os("BUILDBOT_CONDA_MACHINES") {
        Some(directory) => PathBuf::from(directory),
        None => workspace().join("target/machine"),
    }
}

/// The workspace that this crate belongs to.
pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("the crate lies two levels below the workspace")
        .to_path_buf()
}
