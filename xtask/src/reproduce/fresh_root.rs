//! A Debian system for one build, with nothing of the host but its Rust toolchain: it represents someone who has the
//! sources, the `.buildinfo` and the network, and rebuilds the package.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use buildbot_conda_machine::Release;
use tempfile::TempDir;

use super::toolchain;
use crate::{deb, prerequisites};

/// What the build needs before `cargo xtask deb` can see to the rest itself.
const PACKAGES: &str = "ca-certificates,gcc,libc6-dev";

/// Arguments: root, toolchain. Builds in separate namespaces, as on a separate machine.
const BUILD: &str = r#"
mount --bind "$2" "$1/opt/rust"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
exec env -i PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
    DEBIAN_FRONTEND=noninteractive chroot "$1" sh -euc 'cd /root/buildbot-conda; exec cargo xtask deb'
"#;

/// The root, removed when dropped.
pub(super) struct FreshRoot {
    scratch: TempDir,
    toolchain: PathBuf,
}

impl FreshRoot {
    /// Makes the root of `release`, with the newest commit of `workspace` in it.
    ///
    /// # Errors
    ///
    /// When this process is not root, or mmdebstrap or git fails.
    pub(super) fn new(workspace: &Path, release: Release) -> Result<Self> {
        ensure!(
            prerequisites::is_root(),
            "only root can create a Debian root\nhint: run `sudo env PATH=\"$PATH\" cargo xtask reproduce --fresh-root {release}`"
        );
        prerequisites::for_machines()?;
        let scratch = tempfile::Builder::new()
            .prefix("fresh-root-")
            .tempdir()
            .context("create a scratch directory")?;
        let root = scratch.path().join("root");
        let mirror = std::env::var("BUILDBOT_CONDA_MIRROR").ok();
        deb::run_on_stderr(
            Command::new("mmdebstrap")
                .args([
                    "--quiet",
                    "--variant=minbase",
                    "--mode=root",
                    "--format=directory",
                ])
                .arg(format!("--include={PACKAGES}"))
                .arg(release.code_name())
                .arg(&root)
                .args(mirror),
        )?;
        let sources = root.join("root/buildbot-conda");
        for directory in [&sources, &root.join("opt/rust")] {
            deb::create_directory(directory)?;
        }
        deb::run_on_stderr(
            Command::new("sh")
                .args([
                    "-euc",
                    "git archive --format=tar --output=\"$0/sources.tar\" HEAD",
                ])
                .arg(scratch.path())
                .current_dir(workspace),
        )?;
        deb::run_on_stderr(
            Command::new("tar")
                .arg("--extract")
                .arg("--directory")
                .arg(&sources)
                .arg("--file")
                .arg(scratch.path().join("sources.tar")),
        )?;
        // The access to the registries, as this machine has it: its resolver, and its trusted authorities, which may
        // include that of a proxy.
        for file in ["etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"] {
            let here = Path::new("/").join(file);
            if here.is_file() {
                fs::copy(&here, root.join(file))
                    .with_context(|| format!("copy `{}`", here.display()))?;
            }
        }
        Ok(Self {
            scratch,
            toolchain: toolchain(workspace)?,
        })
    }

    /// Runs the documented command there and returns the package's path, valid as long as this value exists. Reports
    /// the differences between the root's packages and those in `information`, a `.buildinfo`.
    ///
    /// # Errors
    ///
    /// If the build fails.
    pub(super) fn build(&self, information: &Path) -> Result<PathBuf> {
        let root = self.scratch.path().join("root");
        let package = deb::output(
            Command::new("unshare")
                .args([
                    "--mount",
                    "--pid",
                    "--fork",
                    "--kill-child",
                    "sh",
                    "-euc",
                    BUILD,
                    "sh",
                ])
                .args([&root, &self.toolchain]),
        )?;
        let recorded = fs::read_to_string(information)
            .with_context(|| format!("read `{}`", information.display()))?;
        let recorded = build_dependencies(&recorded);
        let listing = deb::output(
            Command::new("dpkg-query")
                .arg("--admindir")
                .arg(root.join("var/lib/dpkg"))
                .args(["--show", "--showformat=${Package} ${Version}\\n"]),
        )?;
        for line in listing.lines() {
            if let Some((name, version)) = line.split_once(' ')
                && let Some(other) = recorded.get(name)
                && version != *other
            {
                eprintln!("note: `{name}` is {version} there and {other} in the .buildinfo");
            }
        }
        Ok(root.join(package.trim_start_matches('/')))
    }
}

/// Name and version of what `Installed-Build-Depends` lists, one on a line as ` NAME (= VERSION),`.
fn build_dependencies(buildinfo: &str) -> BTreeMap<&str, &str> {
    buildinfo
        .lines()
        .skip_while(|line| !line.starts_with("Installed-Build-Depends:"))
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .filter_map(|line| line.trim().trim_end_matches(',').strip_suffix(')'))
        .filter_map(|line| line.split_once(" (= "))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_packages_is_read_back() {
        let text = "Version: 1\nInstalled-Build-Depends:\n gcc (= 4:12.2.0-3),\n zlib1g (= 1:1.2)\nEnvironment:\n X=\"y\"\n";
        let expected = BTreeMap::from([("gcc", "4:12.2.0-3"), ("zlib1g", "1:1.2")]);
        assert_eq!(build_dependencies(text), expected);
    }
}
