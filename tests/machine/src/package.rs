//! Where the .deb under test is. Building it is `cargo xtask deb`'s business.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::tree::workspace;

/// The package that `BUILDBOT_CONDA_DEB` names, or else the youngest in `target/debian/`.
///
/// # Errors
///
/// When there is none, with a hint how to get one.
pub fn latest_package() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("BUILDBOT_CONDA_DEB") {
        return Ok(PathBuf::from(path));
    }
    let directory = workspace().join("target/debian");
    let packages = fs::read_dir(&directory).into_iter().flatten().flatten();
    let youngest = packages
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            // Nothing but the package itself: debugging symbols are a package of their own.
            name.starts_with("buildbot-conda_")
                && entry
                    .path()
                    .extension()
                    .is_some_and(|extension| extension == "deb")
        })
        .max_by_key(|entry| {
            entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .ok()
        });
    youngest.map(|entry| entry.path()).with_context(|| {
        format!(
            "find a package in `{}`\nhint: build one with `cargo xtask deb`",
            directory.display()
        )
    })
}
