//! The context of this invocation: the root directory that is prepended to every path, and the configuration that is
//! read from there.

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::{Refusal, Settings};
use buildbot_conda_host::Unusable;
use buildbot_conda_host::unit_files::UnitFiles;
use thiserror::Error;

/// The hint for callers without permission.
pub(crate) const AS_ROOT: &str = "try again with `sudo`";

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

    /// For changes: only root can make them, and below a root directory anyone who can write there.
    pub(crate) fn ensure_root(&self) -> anyhow::Result<()> {
        if !self.is_elsewhere() && !rustix::process::geteuid().is_root() {
            bail!("only root can do this\nhint: {AS_ROOT}");
        }
        Ok(())
    }

    /// For operations on a running system, with the name of the verb.
    pub(crate) fn ensure_here(&self, verb: &str) -> anyhow::Result<()> {
        if self.is_elsewhere() {
            bail!("`{verb}` changes a running system and cannot be used with `--root`");
        }
        Ok(())
    }

    /// As [`Context::ensure_here`], for a verb that can show its plan anywhere.
    pub(crate) fn ensure_here_unless_shown(&self, verb: &str) -> anyhow::Result<()> {
        self.ensure_here(verb)
            .map_err(|refusal| anyhow!("{refusal}\nhint: `--dry-run` shows the steps"))
    }

    /// One of our absolute paths below the root directory.
    pub(crate) fn path(&self, absolute: &str) -> PathBuf {
        buildbot_conda_host::below(self.root.as_deref(), absolute)
    }

    /// The configuration file of this host.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.path(paths::CONFIGURATION)
    }

    /// The settings of this host, good or bad.
    pub(crate) fn settings(&self) -> Result<Settings, InvalidConfiguration> {
        Ok(buildbot_conda_host::settings(self.root.as_deref())?)
    }

    /// The text of the configuration of this host.
    pub(crate) fn text(&self) -> anyhow::Result<String> {
        let content =
            buildbot_conda_host::text(self.root.as_deref()).map_err(InvalidConfiguration::from)?;
        String::from_utf8(content)
            .map_err(|_| anyhow!("read `{}`: it is not UTF-8", self.configuration().display()))
    }

    /// The unit files of our names that are on this host.
    pub(crate) fn unit_files(&self) -> UnitFiles {
        UnitFiles::list(self.root.as_deref(), None)
    }

    /// What the settings of this host would be with another text of the configuration.
    pub(crate) fn settings_from(&self, text: &str) -> Settings {
        buildbot_conda_host::settings_from(self.root.as_deref(), text)
    }

    /// The settings of a file that may become the configuration of this host.
    pub(crate) fn settings_of(&self, file: &Path) -> Result<Settings, InvalidConfiguration> {
        Ok(buildbot_conda_host::settings_of(
            file,
            self.root.as_deref(),
        )?)
    }
}

/// The refusal of an instance that has no table in the configuration.
pub(crate) fn no_instance(wanted: &InstanceRef, settings: &Settings) -> anyhow::Error {
    let hint = wanted.nearest(settings.references()).map_or_else(
        || "`buildbot-conda list` shows all instances".to_owned(),
        |near| format!("did you mean `{near}`?"),
    );
    anyhow!(
        "instance `{wanted}` not found in `{}`\nhint: {hint}",
        settings.file()
    )
}

/// The configuration is at fault: exit status 78.
#[derive(Debug, Error)]
pub(crate) enum InvalidConfiguration {
    #[error(transparent)]
    Unusable(#[from] Unusable),
    #[error(transparent)]
    Refused(#[from] Refusal),
}
