//! Debian's own programs that examine an installed package, as a layer over a release's root, because machines have no
//! network to download them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::root::debian_root;
use crate::{Layers, Release, cache, process};

/// What tests need: the runner of DEP-8 tests with what it and ours need, and what restarts services after
/// upgrades of libraries.
const PACKAGES: &str = "autopkgtest dpkg-dev needrestart python3-venv";

/// Debian gets updates: as old as the root below may be.
const MAX_AGE: Duration = Duration::from_hours(5 * 24);
const LIMIT: Duration = Duration::from_mins(10);

/// Installs into an overlay, whose upper directory is the layer. Arguments: root, layer, scratch directory, packages.
const INSTALL: &str = r#"
root=$1; layer=$2; scratch=$3; packages=$4
mkdir -p "$layer" "$scratch/work" "$scratch/root"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$layer,workdir=$scratch/work" "$scratch/root"
cd "$scratch/root"
mount -t proc proc proc
mount --bind /etc/resolv.conf etc/resolv.conf 2>/dev/null || cp /etc/resolv.conf etc/resolv.conf
for words in update "install --yes --no-install-recommends $packages" clean; do
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
        NEEDRESTART_SUSPEND=1 chroot . apt-get --quiet $words </dev/null
done
"#;

/// A Debian of `release` with these programs, to boot machines from.
///
/// # Errors
///
/// What apt-get said.
pub fn with_programs(release: Release) -> Result<Layers> {
    with_packages(release, "programs", PACKAGES)
}

/// A Debian of `release` with `packages`, names with blanks between them; `kind` is what the cache calls it.
///
/// # Errors
///
/// What apt-get said.
pub fn with_packages(release: Release, kind: &str, packages: &str) -> Result<Layers> {
    let root = debian_root(release)?;
    let key = cache::key(&[
        &root.to_string_lossy(),
        packages,
        include_str!("programs.rs"),
    ]);
    let layer = cache::entry(&format!("{kind}-{release}"), &key, MAX_AGE, |path| {
        install(&root, path, packages)
    })?;
    Ok(Layers::new(root).with(layer))
}

fn install(root: &Path, layer: &Path, packages: &str) -> Result<()> {
    let scratch = PathBuf::from(format!("{}.scratch", layer.display()));
    cache::remove(&scratch)?;
    eprintln!("installing `{packages}` from Debian's archive");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-euc", INSTALL, "sh"])
        .args([root, layer, &scratch])
        .arg(packages);
    process::run(&mut command, b"", LIMIT)?.succeeded()?;
    cache::remove(&scratch)
}
