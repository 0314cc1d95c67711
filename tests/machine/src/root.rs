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

/// Debian gets security updates: a root is created again after this time.
const MAX_AGE: Duration = Duration::from_hours(5 * 24);

/// The root of `release`, to be used as a layer and never written to.
///
/// # Errors
///
/// What mmdebstrap said. `BUILDBOT_CONDA_MIRROR` names another mirror than Debian's own.
pub fn debian_root(release: Release) -> Result<PathBuf> {
    let recipe = Recipe {
        suite: release.code_name(),
        ..Recipe::default()
    };
    special_root(release.code_name(), &recipe)
}

/// What a root is made of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Recipe {
    pub(crate) suite: &'static str,
    /// Another suite of Debian's archive.
    pub(crate) also: Option<&'static str>,
    /// Packages that come from that one, and their priority in `apt_preferences(5)`.
    pub(crate) pinned: Option<(&'static str, u32)>,
    /// A directory of mmdebstrap's hooks.
    pub(crate) hooks: Option<&'static str>,
    /// Another architecture than this machine's, as Debian calls it. Its environment is made of Debian's Python.
    pub(crate) architecture: Option<&'static str>,
}

/// The root of that `name`, made by a recipe.
pub(crate) fn special_root(name: &str, recipe: &Recipe) -> Result<PathBuf> {
    let mirror = std::env::var("BUILDBOT_CONDA_MIRROR").unwrap_or_default();
    let key = cache::key(&[include_str!("root.rs"), &mirror, &format!("{recipe:?}")]);
    cache::entry(&format!("root-{name}"), &key, MAX_AGE, |path| {
        make(name, recipe, &mirror, path)
    })
}

/// The version of Debian's package of systemd in the root of `release`, such as `252.39-1~deb12u1`.
///
/// # Errors
///
/// As [`debian_root`], or if the root's package database does not contain it.
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

/// Debian's archive as apt of this machine knows it, apt-get(8): what is made of other suites than that machine's needs
/// its address.
///
/// # Errors
///
/// When apt knows none.
pub fn archive() -> Result<String> {
    let words = [
        "indextargets",
        "--no-release-info",
        "--format",
        "$(REPO_URI)",
    ];
    let mut command = Command::new("apt-get");
    command.args(words).arg("Created-By: Packages");
    let output = process::run(&mut command, b"", Duration::from_mins(1))?.succeeded()?;
    let mut addresses = output.stdout.lines();
    let found = addresses.find(|address| address.trim_end_matches('/').ends_with("/debian"));
    let found = found.context(
        "find Debian's archive in the sources of apt\nhint: name one with `BUILDBOT_CONDA_MIRROR`",
    )?;
    Ok(found.to_owned())
}

fn make(name: &str, recipe: &Recipe, mirror: &str, path: &Path) -> Result<()> {
    eprintln!("making a root for {name} from Debian's archive");
    let mut command = Command::new("mmdebstrap");
    command
        .args([
            "--variant=minbase",
            "--mode=root",
            "--format=directory",
            "--quiet",
        ])
        .arg(format!("--include={}", PACKAGES.join(",")))
        .args(recipe.architecture.into_iter().flat_map(|name| {
            [
                format!("--architectures={name}"),
                "--include=python3".to_owned(),
            ]
        }))
        // A suite that moves on is refused by a mirror that is some days behind.
        .arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
    if let Some(hooks) = recipe.hooks {
        command.arg(format!("--hook-dir={hooks}"));
    }
    if let (Some((packages, priority)), Some(suite)) = (recipe.pinned, recipe.also) {
        command.arg(format!(
            "--setup-hook=mkdir -p \"$1/etc/apt/preferences.d\"; printf 'Package: %s\\nPin: release n=%s\\nPin-Priority: %s\\n' \
             '{packages}' {suite} {priority} >\"$1/etc/apt/preferences.d/matrix\""
        ));
    }
    command.arg(recipe.suite).arg(path);
    let archive = || {
        if mirror.is_empty() {
            archive()
        } else {
            Ok(mirror.to_owned())
        }
    };
    if let Some(also) = recipe.also {
        let archive = archive()?;
        for suite in [recipe.suite, also] {
            command.arg(format!("deb {archive} {suite} main"));
        }
    } else if !mirror.is_empty() || recipe.suite == "sid" {
        command.arg(archive()?);
    }
    // An emulator takes longer.
    process::run(&mut command, b"", Duration::from_mins(30))?.succeeded()?;

    write(path, "etc/hostname", &format!("{HOST_NAME}\n"))?;
    write(
        path,
        "etc/hosts",
        &format!("127.0.0.1 localhost {HOST_NAME}\n"),
    )?;
    // With an identity, it does not look like a first boot, which would apply presets and ask questions.
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
