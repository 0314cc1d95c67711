//! Genuine Conda environments with Buildbot: a channel made from wheels of the Python package index and a `CPython`, and
//! installed from there.
//!
//! The work is done by the Python programs in `tests/channel/`; this module gives them their tools and inputs, and keeps
//! what they make.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::places::workspace;
use crate::{cache, process};

/// The prefix of the environment in a machine: the default of the package's configuration.
pub const PREFIX: &str = "/home/bb/anaconda3/envs/buildbot";

/// A channel (URL or directory) to install from instead of one made here. It needs `buildbot` and `buildbot-worker`.
const CHANNEL_VARIABLE: &str = "BUILDBOT_CONDA_TEST_CHANNEL";

/// The content of a channel is pinned, so it never expires.
const FOR_EVER: Duration = Duration::MAX;
const LIMIT: Duration = Duration::from_mins(20);

/// A Buildbot release that environments exist for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The current one.
    V4_3_0,
    /// One with an older database schema.
    V3_11_9,
}

impl Version {
    /// As Buildbot writes it.
    pub fn number(self) -> &'static str {
        match self {
            Self::V4_3_0 => "4.3.0",
            Self::V3_11_9 => "3.11.9",
        }
    }

    /// The pins of everything in an environment, a file in `tests/channel/`.
    pub(crate) fn requirements(self) -> PathBuf {
        sources().join(format!("buildbot-{}.txt", self.number()))
    }
}

/// An installed environment, in a tree that is laid over a machine's root.
#[derive(Clone, Debug)]
pub struct Environment {
    tree: PathBuf,
    prefix: String,
}

impl Environment {
    /// Buildbot of `version` at `prefix`, an absolute path in the machine. Made once and kept.
    ///
    /// # Errors
    ///
    /// When no Python here can be packed and no channel is configured, or a download or installation fails.
    pub fn install(version: Version, prefix: &str) -> Result<Self> {
        let configured = std::env::var(CHANNEL_VARIABLE).ok();
        let key = cache::key(&[
            &inputs_key()?,
            &configured.clone().unwrap_or_default(),
            prefix,
        ]);
        let kind = format!("environment-{}", version.number());
        let tree = cache::entry(&kind, &key, FOR_EVER, |tree| {
            let requirements = version.requirements();
            match &configured {
                None => install(&channel()?.to_string_lossy(), &requirements, tree, prefix),
                Some(channel) => {
                    // A channel of others names its packages in its own way, and has its own builds of them.
                    let pins = format!("buildbot=={0}\nbuildbot-worker=={0}\n", version.number());
                    let requirements = tree.with_extension("requirements");
                    fs::write(&requirements, pins)
                        .context("write the requirements of an environment")?;
                    install(channel, &requirements, tree, prefix)
                }
            }
        })?;
        Ok(Self {
            tree,
            prefix: prefix.to_owned(),
        })
    }

    /// The directory to lay over a root: it contains the prefix and its parents, all owned by root.
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// The environment's own directory on this host, for copying it into a running machine.
    pub fn directory(&self) -> PathBuf {
        self.tree.join(self.prefix.trim_start_matches('/'))
    }
}

/// The channel that is made here, with the packages of every [`Version`].
#[derive(Clone, Debug)]
pub struct Channel {
    directory: PathBuf,
}

impl Channel {
    /// Made once and kept.
    ///
    /// # Errors
    ///
    /// When no Python here can be packed, or a download fails.
    pub fn made() -> Result<Self> {
        let directory = channel()?;
        Ok(Self { directory })
    }

    /// Where it is on this host.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// An `@EXPLICIT` list with md5 of everything in an environment of `version`, for where the channel is called `at`.
    ///
    /// # Errors
    ///
    /// When the channel's index is not what it should be.
    pub fn lock(&self, version: Version, at: &str) -> Result<String> {
        let pins = fs::read_to_string(version.requirements()).context("read pins")?;
        let is_wanted = |name: &str, version: &str| {
            let pinned = pins.lines().filter_map(|line| line.split_once("=="));
            let mut pinned = pinned
                .map(|(name, version)| (name.to_lowercase().replace(['_', '.'], "-"), version));
            matches!(name, "python" | "python_abi")
                || pinned.any(|pin| pin == (name.to_owned(), version))
        };
        let mut lines = Vec::new();
        for subdir in ["linux-64", "noarch"] {
            let index = fs::read(self.directory.join(subdir).join("repodata.json"))
                .context("read the index of the channel")?;
            let index: serde_json::Value =
                serde_json::from_slice(&index).context("read the index of the channel")?;
            let packages = index["packages.conda"]
                .as_object()
                .context("find packages")?;
            for (file, package) in packages {
                let text = |key: &str| package[key].as_str().unwrap_or_default();
                if is_wanted(text("name"), text("version")) {
                    lines.push(format!("file://{at}/{subdir}/{file}#{}\n", text("md5")));
                }
            }
        }
        Ok(format!(
            "# platform: linux-64\n@EXPLICIT\n{}",
            lines.concat()
        ))
    }
}

/// A Python that has py-rattler, to compare with.
///
/// # Errors
///
/// When it cannot be downloaded.
pub fn python_with_rattler() -> Result<PathBuf> {
    Ok(tools()?.join("bin/python"))
}

fn sources() -> PathBuf {
    workspace().join("tests/channel")
}

/// Changes when a program, a pin or the Python to be packed does.
fn inputs_key() -> Result<String> {
    let programs = cache::sources(&sources(), &["py", "txt"])?;
    Ok(cache::key(&[&programs, &identity(Path::new("python3"))?]))
}

fn install(channel: &str, requirements: &Path, tree: &Path, prefix: &str) -> Result<()> {
    eprintln!("installing an environment at {prefix}");
    let python = tools()?.join("bin/python");
    run(Command::new(python)
        .arg(sources().join("install.py"))
        .args([channel])
        .arg(requirements)
        .arg(tree)
        .arg(prefix))?;
    Ok(())
}

/// The channel, with every package of both versions.
fn channel() -> Result<PathBuf> {
    cache::entry("channel", &inputs_key()?, FOR_EVER, |channel| {
        let wheels = channel.with_extension("wheels");
        cache::remove(&wheels)?;
        eprintln!("fetching wheels from PyPI");
        let tools = tools()?;
        for version in [Version::V4_3_0, Version::V3_11_9] {
            pip(
                "download",
                &[
                    "--no-deps".to_owned(),
                    "--only-binary=:all:".to_owned(),
                    format!("--dest={}", wheels.display()),
                    format!("--requirement={}", version.requirements().display()),
                ],
            )?;
        }
        eprintln!("building a Conda channel");
        let path = std::env::var("PATH").unwrap_or_default();
        let built = run(Command::new(tools.join("bin/python"))
            .arg(sources().join("build.py"))
            .arg(channel)
            .arg(&wheels)
            .env("PATH", format!("{}:{path}", tools.join("bin").display())));
        cache::remove(&wheels)?;
        built.map(drop).with_context(|| {
            format!(
                "make a Conda channel\nhint: it needs a `python3` on PATH that was built with `--enable-shared` and is \
                 not Debian's own (as pyenv builds it); or name a channel with Buildbot in `{CHANNEL_VARIABLE}`"
            )
        })
    })
}

/// Runs pip, that of the tools.
pub(crate) fn pip(verb: &str, words: &[String]) -> Result<()> {
    let mut command = Command::new(tools()?.join("bin/python"));
    run(command.args(["-m", "pip", verb, "--quiet"]).args(words)).map(drop)
}

/// A virtual environment with the packages of `tools.txt`.
fn tools() -> Result<PathBuf> {
    let requirements = sources().join("tools.txt");
    let options = ["--no-deps", "--only-binary=:all:"];
    virtual_environment(Path::new("python3"), "tools", &requirements, &options)
}

/// A directory `name` that is a virtual environment of `python` with what the file `requirements` pins, installed with
/// `options` of pip. Made once and kept.
///
/// # Errors
///
/// What Python or pip said.
pub fn virtual_environment(
    python: &Path,
    name: &str,
    requirements: &Path,
    options: &[&str],
) -> Result<PathBuf> {
    let pins = fs::read_to_string(requirements)
        .with_context(|| format!("read `{}`", requirements.display()))?;
    let identity = identity(python)?;
    let key = cache::key(&[&[name, &pins, &identity], options].concat());
    let place = |entry: &Path| entry.with_extension("venv").join(name);
    let marker = cache::entry("venv", &key, FOR_EVER, |marker| {
        // A virtual environment knows its own place, so it is made under its final name.
        let venv = place(marker);
        cache::remove(&venv)?;
        run(Command::new(python).args(["-m", "venv"]).arg(&venv))?;
        run(Command::new(venv.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet"])
            .args(options)
            .arg("--requirement")
            .arg(requirements))?;
        fs::create_dir(marker).context("create a marker")
    })?;
    Ok(place(&marker))
}

/// What distinguishes one Python from another.
fn identity(python: &Path) -> Result<String> {
    run(Command::new(python).args(["-c", "import sys; print(sys.version, sys.base_prefix)"]))
}

/// Runs a program to its successful end and gives its standard output.
fn run(command: &mut Command) -> Result<String> {
    let output = process::run(command, b"", LIMIT)?;
    if output.status != 0 {
        bail!("{output}");
    }
    Ok(output.stdout)
}
