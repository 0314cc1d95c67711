//! Where the packages under test are. Building them is `cargo xtask deb`'s business.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::places::workspace;

/// The package that `BUILDBOT_CONDA_DEB` names, or else the youngest in `target/debian/`.
///
/// # Errors
///
/// When there is none, with a hint how to get one.
pub fn latest_package() -> Result<PathBuf> {
    youngest("BUILDBOT_CONDA_DEB", "buildbot-conda_", "cargo xtask deb")
}

/// The package of what makes environments: the one that `BUILDBOT_CONDA_ENV_DEB` names, or else the youngest.
///
/// # Errors
///
/// When there is none, with a hint how to get one.
pub fn environments_package() -> Result<PathBuf> {
    youngest(
        "BUILDBOT_CONDA_ENV_DEB",
        "buildbot-conda-env_",
        "cargo xtask deb --env",
    )
}

fn youngest(variable: &str, start: &str, command: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(PathBuf::from(path));
    }
    let directory = workspace().join("target/debian");
    let packages = fs::read_dir(&directory).into_iter().flatten().flatten();
    let youngest = packages
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            // Only the package itself, for this machine: debugging symbols are in a separate package.
            let ending = match std::env::consts::ARCH {
                "x86_64" => "_amd64.deb",
                "aarch64" => "_arm64.deb",
                _ => ".deb",
            };
            name.starts_with(start) && name.ends_with(ending)
        })
        .max_by_key(|entry| {
            entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .ok()
        });
    youngest.map(|entry| entry.path()).with_context(|| {
        format!(
            "find a package in `{}`\nhint: build one with `{command}`",
            directory.display()
        )
    })
}
