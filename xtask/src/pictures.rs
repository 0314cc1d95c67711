//! `cargo xtask pictures`: creates the pictures of the README on a temporary machine by following the README. A real
//! terminal and a real browser have shown their content.

mod browser;
mod drawing;
mod terminal;
mod tour;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use buildbot_conda_machine::{Environment, Layers, Machine, Release, Version, with_packages};

use crate::stages::Stages;
use crate::{deb, prerequisites};

/// Where they are, below the workspace.
const DIRECTORY: &str = "docs/pictures";

/// What to make them of.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A package that has been built already
    #[arg(long)]
    package: Option<PathBuf>,
}

pub(crate) fn run(workspace: &Path, arguments: Arguments) -> Result<()> {
    ensure!(
        prerequisites::is_root(),
        "only root can boot a machine\nhint: `sudo env PATH=\"$PATH\" cargo xtask pictures --package $(cargo xtask deb)`"
    );
    let stages = Stages::new(4 + usize::from(arguments.package.is_none()));
    let package = match arguments.package {
        Some(package) => package,
        None => stages.run("building the package", || deb::build(workspace))?,
    };
    prerequisites::for_machines()?;
    let environment = stages.run("creating a Conda environment with Buildbot", || {
        Environment::install(Version::V4_3_0, tour::PREFIX)
    })?;
    let layers = stages.run("creating a Debian root, and one with a browser", || {
        Ok((host()?, browser::root()?))
    })?;
    let (host, browser) = layers;
    let pictures = Pictures {
        browser,
        directory: workspace.join(DIRECTORY),
    };
    let machine = stages.run("booting a temporary machine", || {
        Machine::boot(host.with(environment.tree().to_path_buf()))
    })?;
    fs::create_dir_all(&pictures.directory)
        .with_context(|| format!("create `{}`", pictures.directory.display()))?;
    stages.run("running the commands of the README", || {
        tour::walk(&machine, &package, &pictures)
    })
}

/// The account that takes them, and the directory for them.
struct Pictures {
    browser: Layers,
    directory: PathBuf,
}

/// A Debian with what most have and machines of tests do not need: questions are asked before packages are unpacked, and
/// HTTP is spoken.
fn host() -> Result<Layers> {
    with_packages(Release::Trixie, "terminal", "apt-utils curl openssl")
}
