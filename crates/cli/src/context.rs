//! Where this invocation looks: the root directory in front of every path, and the configuration
//! read from there.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use buildbot_conda_core::dropin::Refused;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::{Refusal, Settings};
use thiserror::Error;

/// Larger files are no configuration; the limit keeps a wrong path from filling the memory. Bytes.
const LARGEST: u64 = 8 << 20;

/// The root directory of this invocation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Context {
    root: Option<PathBuf>,
}

impl Context {
    pub(crate) fn new(root: Option<PathBuf>) -> Self {
        Self { root }
    }

    /// Whether paths are prefixed, in which case the running system is left alone.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.root.is_some()
    }

    /// One of our absolute paths below the root directory.
    pub(crate) fn path(&self, absolute: &str) -> PathBuf {
        match &self.root {
            None => PathBuf::from(absolute),
            Some(root) => root.join(absolute.trim_start_matches('/')),
        }
    }

    /// The configuration file of this host.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.path(paths::CONFIGURATION)
    }

    /// The settings of this host, good or bad.
    pub(crate) fn settings(&self) -> Result<Settings, InvalidConfiguration> {
        read_settings(&self.configuration())
    }
}

/// Reads and parses a configuration file, which must be a regular one.
pub(crate) fn read_settings(path: &Path) -> Result<Settings, InvalidConfiguration> {
    let content = read(path).map_err(|cause| InvalidConfiguration::Unreadable {
        path: path.to_owned(),
        cause,
    })?;
    Ok(Settings::parse(&path.to_string_lossy(), &content))
}

pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Asked before opening, as opening a pipe would wait for a writer.
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut content = Vec::new();
    File::open(path)?
        .take(LARGEST + 1)
        .read_to_end(&mut content)?;
    if content.len() as u64 > LARGEST {
        return Err(io::Error::other("it is larger than 8 MiB"));
    }
    Ok(content)
}

/// The configuration is at fault: exit status 78.
#[derive(Debug, Error)]
pub(crate) enum InvalidConfiguration {
    #[error(
        "read `{}`: {cause}\nhint: `dpkg-reconfigure buildbot-conda` writes a new one",
        path.display()
    )]
    // Not called `source`: the message has it, and the chain of causes would say it again.
    Unreadable { path: PathBuf, cause: io::Error },
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{}", lines(.0))]
    NotForSystemd(Vec<Refused>),
}

impl From<Vec<Refused>> for InvalidConfiguration {
    fn from(refused: Vec<Refused>) -> Self {
        Self::NotForSystemd(refused)
    }
}

fn lines(refused: &[Refused]) -> String {
    let lines: Vec<String> = refused.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
