//! Machines that many tests start from, made once per package and kept as layers.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::conda::{Channel, Environment, PREFIX, Version};
use crate::{
    Layers, Machine, Release, cache, create_instances, debian_root, environments_package,
    latest_package,
};

/// The key holds everything that a snapshot is made from, so it does not age by itself.
const MAX_AGE: Duration = Duration::from_hours(5 * 24);

/// A Debian with the environment and the package, and nothing set up: what `apt install` leaves.
///
/// # Errors
///
/// When there is no package, or installing it fails; then with apt's output.
pub fn installed(release: Release) -> Result<Layers> {
    let environment = Environment::install(Version::V4_3_0, PREFIX)?;
    let below = Layers::new(debian_root(release)?).with(environment.tree().to_path_buf());
    let package = latest_package()?;
    let bytes = fs::read(&package).with_context(|| format!("read `{}`", package.display()))?;
    let key = cache::key(&[
        &format!("{below:?} {}", cache::digest(&bytes)),
        include_str!("prepared.rs"),
    ]);
    let layer = cache::entry(&format!("installed-{release}"), &key, MAX_AGE, |path| {
        let machine = Machine::boot(below.clone())?;
        machine.install_package(&package)?.succeeded()?;
        // The environment's tree came first and brought the home directory along, as root's.
        machine.run(&["chown", "bb:bb", "/home/bb"])?.succeeded()?;
        machine.freeze(path)
    })?;
    Ok(below.with(layer))
}

/// The same with a master and a worker, both stopped, and not enabled: tests start them when they are ready to look.
///
/// # Errors
///
/// As [`installed`], or when Buildbot's own commands fail.
pub fn set_up(release: Release) -> Result<Layers> {
    let below = installed(release)?;
    let key = cache::key(&[
        &format!("{below:?}"),
        include_str!("instances.rs"),
        include_str!("prepared.rs"),
    ]);
    let layer = cache::entry(&format!("set-up-{release}"), &key, MAX_AGE, |path| {
        let machine = Machine::boot(below.clone())?;
        create_instances(&machine, "bb")?;
        machine
            .run(&["systemctl", "disable", "buildbot-master", "buildbot-worker"])?
            .succeeded()?;
        machine.freeze(path)
    })?;
    Ok(below.with(layer))
}

/// Where [`without_conda`] has the channel.
pub const CHANNEL: &str = "/srv/channel";

/// A Debian with both packages and the channel, and no Conda at all.
///
/// # Errors
///
/// When a package is missing, or installing one fails; then with apt's output.
pub fn without_conda(release: Release) -> Result<Layers> {
    let below = Layers::new(debian_root(release)?);
    let packages = [latest_package()?, environments_package()?];
    let channel = Channel::made()?;
    let mut key = format!("{below:?} {}", channel.directory().display());
    for package in &packages {
        let bytes = fs::read(package).with_context(|| format!("read `{}`", package.display()))?;
        key += &cache::digest(&bytes);
    }
    let key = cache::key(&[&key, include_str!("prepared.rs")]);
    let layer = cache::entry(&format!("without-conda-{release}"), &key, MAX_AGE, |path| {
        let machine = Machine::boot(below.clone())?;
        for package in &packages {
            machine.install_package(package)?.succeeded()?;
        }
        machine.copy_in(channel.directory(), CHANNEL)?;
        machine.freeze(path)
    })?;
    Ok(below.with(layer))
}
