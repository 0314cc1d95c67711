//! Everything that must not matter, changed at once: directory, account, umask, time zone, locale, home, `CARGO_HOME`,
//! the toolchain's place, the number of jobs, the clock.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::{pack_sources, toolchain};
use crate::deb::{self, Target};
use crate::prerequisites;

/// Debian's `nobody`, who owns nothing on this machine.
const ACCOUNT: &str = "65534";

/// Beside the workspace in everything: length, depth, and a blank.
const DIRECTORY: &str = "quite another/place for the sources";

/// As root: moves the toolchain to another place, in a separate namespace, and changes the account. Arguments:
/// toolchain, its other place, account, then the words of [`BUILD`].
const BECOME: &str = r#"
toolchain=$1; place=$2; account=$3; shift 3
mount --bind "$toolchain" "$place"
exec setpriv --reuid="$account" --regid="$account" --clear-groups -- "$@"
"#;

/// Arguments: scratch directory, directory of the sources, toolchain, and the options of `deb`. rustc alone sees the
/// real clock, since it hangs with faketime's library (its own allocator asks for the time before that is ready).
const BUILD: &str = r#"
scratch=$1; sources=$2; toolchain=$3; shift 3
umask 0077
printf '#!/bin/sh\nunset LD_PRELOAD\nexec "%s/bin/rustc" "$@"\n' "$toolchain" >"$scratch/rustc"
chmod 0700 "$scratch/rustc"
mkdir -p "$sources" "$scratch/home"
tar --extract --directory="$sources" --file="$scratch/sources.tar"
cd "$sources"
exec env -i PATH="$toolchain/bin:/usr/local/bin:/usr/bin:/bin" HOME="$scratch/home" CARGO_HOME="$scratch/registry" BUILDBOT_CONDA_CACHE="$scratch/cache" \
    CARGO_NET_OFFLINE=true CARGO_BUILD_JOBS=1 CARGO_TERM_COLOR=always RUSTC="$scratch/rustc" \
    TZ=Pacific/Kiritimati LANG=tr_TR.UTF-8 LC_ALL=C LANGUAGE=tr \
    faketime -f +400d "$scratch/xtask" deb --source "$sources" "$@"
"#;

/// A place to build in under other conditions, removed when dropped.
pub(super) struct Elsewhere {
    scratch: TempDir,
}

impl Elsewhere {
    /// Lays out what the other build needs, readable by everyone: sources, crates, tools and this program.
    ///
    /// # Errors
    ///
    /// When something cannot be copied.
    pub(super) fn new(workspace: &Path) -> Result<Self> {
        let scratch = tempfile::Builder::new()
            .prefix("reproduce-")
            .tempdir()
            .context("create a scratch directory")?;
        let at = |name: &str| scratch.path().join(name);
        pack_sources(workspace, &at("sources.tar"))?;
        let cargo_deb = deb::cargo_deb_directory();
        let name = cargo_deb.file_name().context("find cargo-deb")?;
        copy(&cargo_deb, &at("cache").join(name))?;
        for part in ["index", "cache"] {
            let registry = deb::cargo_home()?.join("registry");
            copy(&registry.join(part), &at("registry/registry").join(part))?;
        }
        copy(&prerequisites::this_program(), &at("xtask"))?;
        for directory in ["quite another", "programs", "toolchain"] {
            deb::create_directory(&at(directory))?;
        }
        Ok(Self { scratch })
    }

    /// What is different there, in words.
    pub(super) fn description(&self) -> String {
        let account = if prerequisites::is_root() {
            "as nobody with another toolchain directory, "
        } else {
            ""
        };
        format!(
            "{account}in `{}`, with umask 0077, another HOME, CARGO_HOME, time zone and locale, one job, 400 days later",
            self.scratch.path().join(DIRECTORY).display()
        )
    }

    /// Copies programs from the workspace's last build, and returns their directory for `--programs`.
    ///
    /// # Errors
    ///
    /// If one cannot be copied.
    pub(super) fn take_over<'a>(
        &self,
        workspace: &Path,
        programs: impl Iterator<Item = &'a str>,
    ) -> Result<PathBuf> {
        let directory = self.scratch.path().join("programs");
        for program in programs {
            let built = deb::release_directory(workspace, Target::Here).join(program);
            copy(&built, &directory.join(program))?;
        }
        Ok(directory)
    }

    /// Builds a package there, as `cargo xtask deb` does with `options`, and returns its path, which is valid as long
    /// as this value exists.
    ///
    /// # Errors
    ///
    /// If the build fails.
    pub(super) fn build(&self, workspace: &Path, options: &[&OsStr]) -> Result<PathBuf> {
        let at = |name: &str| self.scratch.path().join(name);
        let sources = at(DIRECTORY);
        let mut build = if prerequisites::is_root() {
            // Root's own home is closed to others, and the toolchain is usually there.
            own(self.scratch.path())?;
            let mut command = Command::new("unshare");
            command
                .args(["--mount", "sh", "-euc", BECOME, "sh"])
                .args([toolchain(workspace)?, at("toolchain"), ACCOUNT.into()])
                .args(["sh", "-euc", BUILD, "sh"])
                .args([self.scratch.path(), &sources, &at("toolchain")]);
            command
        } else {
            let mut command = Command::new("sh");
            command.args(["-euc", BUILD, "sh"]).args([
                self.scratch.path(),
                &sources,
                &toolchain(workspace)?,
            ]);
            command
        };
        let package = deb::output(build.args(options))?;
        Ok(package.into())
    }
}

/// Copies a file or directory, made readable by everyone.
fn copy(source: &Path, destination: &Path) -> Result<()> {
    if let Some(parent) = destination.parent() {
        deb::create_directory(parent)?;
    }
    deb::run_on_stderr(
        Command::new("cp")
            .args(["--recursive", "--no-target-directory", "-H", "--"])
            .args([source, destination]),
    )?;
    deb::run_on_stderr(
        Command::new("chmod")
            .args(["--recursive", "a+rX", "--"])
            .arg(destination),
    )
}

/// Makes the directories that the build writes to the other account's, and the scratch directory open.
fn own(scratch: &Path) -> Result<()> {
    deb::run_on_stderr(
        Command::new("chown")
            .args(["--recursive", ACCOUNT, "--"])
            .arg(scratch),
    )?;
    fs::set_permissions(scratch, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("set the mode of `{}`", scratch.display()))
}
