//! The package `buildbot-conda-env`: its program is compiled once, with a separate profile, for package, tests and
//! lints, because its libraries cost more than everything else together.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{
    Compiled, Target, beside_cargo_deb, build_directory, cargo_for, copyright, create_directory,
    libraries, pack, prepare, release_directory, run_on_stderr, sbom, source_date_epoch,
};

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
    build_for(Target::Here, workspace)
}

/// As [`build`], for machines of another kind.
pub(crate) fn build_for(target: Target, workspace: &Path) -> Result<PathBuf> {
    prepare(workspace, target)?;
    let cargo_deb = beside_cargo_deb(|| {
        let compiled = Compiled::hold(workspace, target, PROFILE)?;
        run_on_stderr(&mut command(workspace, target, &compiled, &["build"])?)
    })?;
    // Where cargo-deb looks for build products, which it strips.
    let release = release_directory(workspace, target);
    create_directory(&release)?;
    let program = program(workspace, target);
    fs::copy(&program, release.join(CRATE))
        .with_context(|| format!("copy `{}`", program.display()))?;
    let linked = libraries::linked(workspace, target, &[CRATE])?;
    let heads = ["copyright", "copyright.env"];
    let copyright = release.join("copyright.env");
    copyright::write(workspace, &linked.libraries, &heads, &copyright)?;
    sbom::write(CRATE, &linked, &release.join("sbom.env.cdx.json"))?;
    let epoch = source_date_epoch(workspace)?;
    pack(workspace, target, &cargo_deb, CRATE, &epoch)
}

/// Where the compiled program is.
fn program(workspace: &Path, target: Target) -> PathBuf {
    let directory = target.directory(&build_directory(workspace));
    directory.join(PROFILE).join(CRATE)
}

/// Lints and tests of the crate, with what is compiled for the package.
///
/// # Errors
///
/// When one of them fails.
pub(crate) fn check(workspace: &Path) -> Result<()> {
    // clippy replaces the compiler, only for our own crates: `cargo clippy` would check all others again.
    let driver = clippy(workspace)?;
    let (target, compiled) = (
        Target::Here,
        Compiled::hold(workspace, Target::Here, PROFILE)?,
    );
    run_on_stderr(
        command(workspace, target, &compiled, &["build", "--all-targets"])?
            .env("RUSTC_WORKSPACE_WRAPPER", driver)
            .env(
                "CLIPPY_ARGS",
                "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__",
            ),
    )?;
    let program = program(workspace, target);
    run_on_stderr(
        command(workspace, target, &compiled, &["test"])?.env("BUILDBOT_CONDA_ENV", program),
    )
}

/// `clippy-driver` next to the current compiler, which it can replace.
///
/// # Errors
///
/// If `rustc` does not report its location.
pub(crate) fn clippy(workspace: &Path) -> Result<PathBuf> {
    let sysroot = super::output(
        Command::new("rustc")
            .current_dir(workspace)
            .args(["--print", "sysroot"]),
    )?;
    Ok(Path::new(&sysroot).join("bin/clippy-driver"))
}

fn command(
    workspace: &Path,
    target: Target,
    compiled: &Compiled,
    verb: &[&str],
) -> Result<Command> {
    let words = [verb, &["--profile", PROFILE, "--package", CRATE]].concat();
    cargo_for(
        workspace,
        target,
        compiled,
        &source_date_epoch(workspace)?,
        &words,
    )
}
