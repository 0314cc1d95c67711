//! Machines that many tests start from, made once per package and kept as layers.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::conda::{Channel, Environment, PREFIX, Version};
use crate::{
    Layers, MASTER_UNIT, Machine, Release, Stage, cache, create_instances, debian_root,
    environments_package, latest_package, with_packages,
};

/// The key covers all inputs of a layer, so it does not expire.
const MAX_AGE: Duration = Duration::from_hours(5 * 24);
/// For a command that creates an environment, on a busy machine.
const LIMIT: Duration = Duration::from_mins(4);

/// What `make` writes on a machine of `release` that was booted from `below`, as one more layer. It is made once for each
/// `below` and each text of `sources`, which is what decides about it.
///
/// # Errors
///
/// Those of `make`, or when the machine does not boot or end.
pub fn layer(
    kind: &str,
    release: Release,
    below: Layers,
    sources: &[&str],
    make: impl FnOnce(Machine) -> Result<Machine>,
) -> Result<Layers> {
    let key = cache::key(&[&[format!("{below:?}").as_str()], sources].concat());
    let top = cache::entry(&format!("{kind}-{release}"), &key, MAX_AGE, |path| {
        make(Machine::boot(below.clone())?)?.freeze(path)
    })?;
    Ok(below.with(top))
}

/// Short names for the contents of packages.
fn digests(packages: &[std::path::PathBuf]) -> Result<String> {
    let digests = packages.iter().map(|package| {
        let bytes = fs::read(package).with_context(|| format!("read `{}`", package.display()))?;
        Ok(cache::digest(&bytes))
    });
    Ok(digests.collect::<Result<Vec<_>>>()?.join(" "))
}

/// A Debian system with the environment and the package, and nothing set up, as after `apt install`.
///
/// # Errors
///
/// If there is no package, or if its installation fails; then with apt's output.
pub fn installed(release: Release) -> Result<Layers> {
    installed_on("installed", release, Layers::new(debian_root(release)?))
}

/// The same with additional Debian `packages`, separated by blanks, which the package does not depend on; `kind` names
/// them.
///
/// # Errors
///
/// As [`installed`], or if the archive does not have them.
pub fn installed_with(release: Release, kind: &str, packages: &str) -> Result<Layers> {
    let below = with_packages(release, kind, packages)?;
    installed_on(&format!("installed-with-{kind}"), release, below)
}

fn installed_on(kind: &str, release: Release, below: Layers) -> Result<Layers> {
    let environment = Environment::install(Version::V4_3_0, PREFIX)?;
    let below = below.with(environment.tree().to_path_buf());
    let package = [latest_package()?];
    let sources = [&digests(&package)?, include_str!("prepared.rs")];
    layer(kind, release, below, &sources, |machine| {
        machine.install_package(&package[0])?.succeeded()?;
        // The environment's tree came first and brought the home directory along, as root's.
        machine.run(&["chown", "bb:bb", "/home/bb"])?.succeeded()?;
        Ok(machine)
    })
}

/// The same with a master and a worker, both stopped, and not enabled: tests start them when they are ready to look.
///
/// # Errors
///
/// As [`installed`], or when Buildbot's own commands fail.
pub fn set_up(release: Release) -> Result<Layers> {
    let sources = [include_str!("instances.rs")];
    layer(
        "set-up",
        release,
        installed(release)?,
        &sources,
        |machine| {
            create_instances(&machine, "bb")?;
            machine
                .run(&["systemctl", "disable", "buildbot-master", "buildbot-worker"])?
                .succeeded()?;
            Ok(machine)
        },
    )
}

/// The same after their first build, with [`crate::scripted`]: everything that a start and a build create for the next
/// one exists.
///
/// # Errors
///
/// As [`set_up`], or if the build does not succeed.
pub fn attached(release: Release) -> Result<Layers> {
    let sources = [include_str!("stage.rs"), include_str!("rest.rs")];
    layer("attached", release, set_up(release)?, &sources, |machine| {
        let stage = Stage { machine };
        stage.write_master_configuration(&crate::scripted())?;
        stage.start()?;
        stage.build("true")?;
        Ok(stage.machine)
    })
}

/// The same with a master that is enabled, and so runs when the machine is up.
///
/// # Errors
///
/// As [`attached`], or when the link cannot be made.
pub fn with_running_master(release: Release) -> Result<Layers> {
    let below = attached(release)?;
    let key = cache::key(&[&format!("{below:?}"), include_str!("prepared.rs")]);
    let top = cache::entry(&format!("enabled-{release}"), &key, MAX_AGE, |path| {
        let wants = path.join("etc/systemd/system/multi-user.target.wants");
        fs::create_dir_all(&wants).context("make a directory of links")?;
        let unit = format!("/usr/lib/systemd/system/{MASTER_UNIT}");
        symlink(unit, wants.join(MASTER_UNIT)).context("enable a unit")
    })?;
    Ok(below.with(top))
}

impl Stage {
    /// Both set up with one build done, neither running.
    ///
    /// # Errors
    ///
    /// When it does not come about, or a command for it fails.
    pub fn new(release: Release) -> Result<Self> {
        let machine = Machine::boot(attached(release)?)?;
        Ok(Self { machine })
    }

    /// Both running, the worker attached.
    ///
    /// # Errors
    ///
    /// When it does not come about, or a command for it fails.
    pub fn running(release: Release) -> Result<Self> {
        let machine = Machine::boot(with_running_master(release)?)?;
        let stage = Self { machine };
        // The worker second: one that comes first tries again after some seconds.
        stage.start()?;
        Ok(stage)
    }
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
    let sources = [
        &digests(&packages)?,
        &*channel.directory().to_string_lossy(),
        include_str!("prepared.rs"),
    ];
    layer("without-conda", release, below, &sources, |machine| {
        for package in &packages {
            machine.install_package(package)?.succeeded()?;
        }
        machine.copy_in(channel.directory(), CHANNEL)?;
        Ok(machine)
    })
}

/// The lock that the environment of [`managed`] is made from.
pub const LOCK: &str = "/root/lock.txt";
/// A second one there, which has another setuptools.
pub const OTHER_LOCK: &str = "/root/other.txt";

/// The same with a managed environment `buildbot`, a master and a worker, by the three commands that make them; both are
/// enabled, and so start when the machine does.
///
/// # Errors
///
/// As [`without_conda`], or when one of the commands fails.
pub fn managed(release: Release) -> Result<Layers> {
    let channel = Channel::made()?;
    let lock = channel.lock(Version::V4_3_0, CHANNEL)?;
    let older = channel.lock(Version::V3_11_9, CHANNEL)?;
    let setuptools = |lock: &str| {
        let line = lock.lines().find(|line| line.contains("/setuptools-"));
        line.context("find setuptools").map(str::to_owned)
    };
    let other = lock.replace(&setuptools(&lock)?, &setuptools(&older)?);
    ensure!(other != lock, "the second lock is the first");
    let below = without_conda(release)?;
    layer("managed", release, below, &[&lock, &other], |machine| {
        machine.write_file(LOCK, &lock, "0644", "root")?;
        machine.write_file(OTHER_LOCK, &other, "0644", "root")?;
        for words in [
            &["env", "create", "buildbot", "--file", LOCK][..],
            &["create", "master"],
            &["create", "worker"],
        ] {
            let words = [&["buildbot-conda"], words].concat();
            machine.run_within(LIMIT, &words)?.succeeded()?;
        }
        Ok(machine)
    })
}
