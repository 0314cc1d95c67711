//! The Debian root trees that machines are made of: as small as Debian lets them be, made by mmdebstrap and cached.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::Release;
use crate::{cache, process};

/// What a machine has beyond Debian's essential packages and apt. No development files, no Python, no libraries that
/// only an interpreter would need: whatever an environment needs it must bring along.
const PACKAGES: &[&str] = &[
    "adduser",      // The package depends on it, and machines have no network to get it from.
    "dbus",         // systemctl talks to systemd through it for everyone but root.
    "sudo",         // A worker's builds may use it.
    "systemd",      // What all this is about.
    "systemd-sysv", // /sbin/init, poweroff.
];

/// Jobs of Debian's own that would disturb a test that waits for the machine to be idle.
const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
];

/// A machine that stays the same one after a reboot and in its forks: Buildbot knows a master by its host's name.
pub(crate) const HOST_NAME: &str = "throwaway";

/// Debian gets security updates: a root is made anew after this time.
const MAX_AGE: Duration = Duration::from_hours(5 * 24);

/// The root of `release`, to be used as a layer and never written to.
///
/// # Errors
///
/// What mmdebstrap said. `BUILDBOT_CONDA_MIRROR` names another mirror than Debian's own.
pub fn debian_root(release: Release) -> Result<PathBuf> {
    let mirror = std::env::var("BUILDBOT_CONDA_MIRROR").unwrap_or_default();
    let key = cache::key(&[include_str!("root.rs"), &mirror]);
    cache::entry(&format!("root-{release}"), &key, MAX_AGE, |path| {
        make(release, &mirror, path)
    })
}

/// The version of Debian's package of systemd in the root of `release`, such as `252.39-1~deb12u1`.
///
/// # Errors
///
/// As [`debian_root`], or when the root's package database does not say.
pub fn systemd_version(release: Release) -> Result<String> {
    let path = debian_root(release)?.join("var/lib/dpkg/status");
    let text = fs::read_to_string(&path).with_context(|| format!("read `{}`", path.display()))?;
    let mut packages = text.split("\n\n");
    let fields = packages.find(|fields| fields.starts_with("Package: systemd\n"));
    let version = fields.and_then(|fields| {
        fields
            .lines()
            .find_map(|line| line.strip_prefix("Version: "))
    });
    Ok(version.context("find systemd's version")?.to_owned())
}

fn make(release: Release, mirror: &str, path: &Path) -> Result<()> {
    eprintln!("making a {release} root from Debian's archive");
    let mut command = Command::new("mmdebstrap");
    command
        .args([
            "--variant=minbase",
            "--mode=root",
            "--format=directory",
            "--quiet",
        ])
        .arg(format!("--include={}", PACKAGES.join(",")))
        .args([release.code_name()])
        .arg(path);
    if !mirror.is_empty() {
        command.arg(mirror);
    }
    process::run(&mut command, b"", Duration::from_mins(10))?.succeeded()?;

    write(path, "etc/hostname", &format!("{HOST_NAME}\n"))?;
    write(
        path,
        "etc/hosts",
        &format!("127.0.0.1 localhost {HOST_NAME}\n"),
    )?;
    // With an identity it does not look like a first boot, which would apply presets and ask questions.
    write(path, "etc/machine-id", "b0075e1fb0075e1fb0075e1fb0075e1f\n")?;
    for unit in MASKED {
        let link = path.join("etc/systemd/system").join(unit);
        symlink("/dev/null", &link).with_context(|| format!("link `{}`", link.display()))?;
    }
    Ok(())
}

fn write(root: &Path, name: &str, text: &str) -> Result<()> {
    let path = root.join(name);
    fs::write(&path, text).with_context(|| format!("write `{}`", path.display()))
}
