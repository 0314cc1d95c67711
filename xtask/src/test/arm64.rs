//! The package on arm64: a separate stage, because an emulator takes minutes for what this machine does in seconds.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::programs;
use crate::deb::{self, Target};
use crate::stages::Stages;
use crate::{matrix, prerequisites};

/// Where the test is in its program.
pub(super) const MODULE: &str = "arm64::";

/// Builds both packages, and runs the smoke test of the matrix on a machine with these packages.
///
/// # Errors
///
/// If one of these fails.
pub(super) fn run(workspace: &Path) -> Result<()> {
    let stages = Stages::new(5);
    stages.run("requirements from Debian", prerequisites::for_arm64)?;
    let package = stages.run("package for arm64 is built", || {
        deb::build_for(Target::Arm64, workspace)
    })?;
    let environments = stages.run("package of environments for arm64 is built", || {
        deb::build_environments_for(Target::Arm64, workspace)
    })?;
    let tests = stages.run("test is compiled", || {
        programs::compile_one(workspace, "buildbot-conda-machine", "matrix")
    })?;
    let mut tests = tests.iter();
    let test = tests
        .find(|test| test.name.starts_with(MODULE))
        .context("find the test of arm64")?;
    stages.run(&test.title(), || {
        let finished = test.run(|program| {
            let mut command = prerequisites::as_root(program);
            command
                .env("BUILDBOT_CONDA_DEB", package)
                .env("BUILDBOT_CONDA_ENV_DEB", environments);
            command
        });
        ensure!(finished.passed, "{}", finished.output.trim_end());
        Ok(())
    })?;
    matrix::update(workspace)?;
    stages.print()
}
