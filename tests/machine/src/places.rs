//! Where the workspace is, and where the things are that tests make: what is expensive and serves every clone, and what
//! belongs to one.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// `f_type` of a directory on an overlay, statfs(2).
const OVERLAY: i64 = 0x794c_7630;

/// The directory for results that take long to create and are shared by all clones of the project, each under a name
/// that is derived from its inputs: the directory that `BUILDBOT_CONDA_CACHE` names, else `buildbot-conda` in the
/// user's cache directory (XDG Base Directory Specification), else `target/cache`.
pub fn cache_directory() -> PathBuf {
    if let Some(directory) = variable("BUILDBOT_CONDA_CACHE") {
        return directory;
    }
    let of_user =
        variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    of_user
        .filter(|directory| !is_overlay(directory))
        .map_or_else(
            || workspace().join("target/cache"),
            |directory| directory.join("buildbot-conda"),
        )
}

/// Where roots, channels, environments and running machines are kept.
pub fn machines_directory() -> PathBuf {
    cache_directory().join("machine")
}

/// Where a run of this clone writes the rows of `docs/matrix.md`.
///
/// # Errors
///
/// When it cannot be created.
pub fn matrix_directory() -> Result<PathBuf> {
    let directory = workspace().join("target/matrix");
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("create `{}`", directory.display()))?;
    Ok(directory)
}

/// An absolute path in the environment.
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}

/// Machines are overlays, and the kernel does not stack one on another.
fn is_overlay(directory: &Path) -> bool {
    let existing = directory.ancestors().find(|path| path.exists());
    existing
        .and_then(|path| rustix::fs::statfs(path).ok())
        .is_some_and(|system| system.f_type == OVERLAY)
}

/// The workspace that this crate belongs to.
pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("the crate lies two levels below the workspace")
        .to_path_buf()
}
