//! The package `buildbot-conda-env`: its program is compiled once, with a profile of its own, for package, tests and
//! lints alike, as what it links costs more than everything else together.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{
    beside_cargo_deb, build_directory, cargo, copyright, create_directory, ensure_versions_agree,
    pack, remap_flags, reproducible, run_on_stderr, source_date_epoch, without_own_settings,
};
use crate::prerequisites;

/// The crate, and what its program is called.
const CRATE: &str = "buildbot-conda-env";
/// In the root `Cargo.toml`.
const PROFILE: &str = "env";

/// Build the package of the workspace at `workspace` and return the absolute path of the .deb in `target/debian/`.
///
/// # Errors
///
/// As the main package's.
pub(crate) fn build(workspace: &Path) -> Result<PathBuf> {
    prerequisites::for_package()?;
    ensure_versions_agree(workspace)?;
    let cargo_deb = beside_cargo_deb(workspace, || {
        run_on_stderr(&mut command(workspace, &["build"])?)
    })?;
    // Where cargo-deb looks for build products, which it strips.
    let release = build_directory(workspace).join("release");
    create_directory(&release)?;
    let program = build_directory(workspace).join(PROFILE).join(CRATE);
    fs::copy(&program, release.join(CRATE))
        .with_context(|| format!("copy `{}`", program.display()))?;
    copyright::write(
        workspace,
        &[CRATE],
        &["copyright", "copyright.env"],
        &release.join("copyright.env"),
    )?;
    pack(workspace, &cargo_deb, CRATE, &source_date_epoch(workspace)?)
}

/// Lints and tests of the crate, with what is compiled for the package.
///
/// # Errors
///
/// When one of them fails.
pub(crate) fn check(workspace: &Path) -> Result<()> {
    // clippy stands in for the compiler, for our own crates alone: `cargo clippy` would check all the others anew.
    let driver = clippy(workspace)?;
    run_on_stderr(
        command(workspace, &["build", "--all-targets"])?
            .env("RUSTC_WORKSPACE_WRAPPER", driver)
            .env(
                "CLIPPY_ARGS",
                "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__",
            ),
    )?;
    let program = build_directory(workspace).join(PROFILE).join(CRATE);
    run_on_stderr(command(workspace, &["test"])?.env("BUILDBOT_CONDA_ENV", program))
}

/// `clippy-driver` beside the compiler in use, which can stand in for it.
///
/// # Errors
///
/// When `rustc` does not say where it is.
pub(crate) fn clippy(workspace: &Path) -> Result<PathBuf> {
    let sysroot = super::output(
        Command::new("rustc")
            .current_dir(workspace)
            .args(["--print", "sysroot"]),
    )?;
    Ok(Path::new(&sysroot).join("bin/clippy-driver"))
}

fn command(workspace: &Path, verb: &[impl AsRef<OsStr>]) -> Result<Command> {
    let epoch = source_date_epoch(workspace)?;
    let mut command = without_own_settings(reproducible(Command::new(cargo()), &epoch));
    command
        .current_dir(workspace)
        .env("CARGO_ENCODED_RUSTFLAGS", remap_flags(workspace)?)
        .args(verb)
        .args([
            "--locked",
            "--profile",
            PROFILE,
            "--package",
            CRATE,
            "--target-dir",
        ])
        .arg(build_directory(workspace));
    Ok(command)
}
