//! The web server in front of a master, as packaged by Debian: its files, its own check of them, and its reload.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::names::InstanceRef;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::context::Context;
use super::systemd::{self, systemctl};

/// Caddy's main file in Debian.
const CADDYFILE: &str = "/etc/caddy/Caddyfile";

/// Which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Front {
    Nginx,
    Caddy,
}

/// The files of a front that a master concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SiteFiles {
    pub(crate) site: PathBuf,
    /// The link that enables the site.
    pub(crate) link: Option<PathBuf>,
    /// The file that contains the line which includes the sites of a directory, and that line.
    pub(crate) import: Option<(PathBuf, String)>,
}

impl Front {
    /// Its program, package and service have one name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Caddy => "caddy",
        }
    }

    pub(crate) fn unit(self) -> String {
        format!("{}.service", self.name())
    }

    /// The group as which it asks for passwords.
    pub(crate) fn group(self) -> &'static str {
        match self {
            Self::Nginx => "www-data",
            Self::Caddy => "caddy",
        }
    }

    /// The group that reads its site files; none if root reads them.
    pub(crate) fn reader(self) -> Option<&'static str> {
        match self {
            Self::Nginx => None,
            Self::Caddy => Some("caddy"),
        }
    }

    pub(crate) fn is_installed(self, context: &Context) -> bool {
        let places = ["/usr/sbin", "/usr/bin"];
        let mut paths = places
            .iter()
            .map(|place| format!("{place}/{}", self.name()));
        paths.any(|path| context.path(&path).exists())
    }

    /// The files for a master.
    pub(crate) fn files(self, reference: &InstanceRef, context: &Context) -> SiteFiles {
        match self {
            Self::Nginx => {
                let path = |directory: &str| {
                    let path = format!("/etc/nginx/{directory}/buildbot-conda-{reference}");
                    context.path(&path)
                };
                SiteFiles {
                    site: path("sites-available"),
                    link: Some(path("sites-enabled")),
                    import: None,
                }
            }
            Self::Caddy => {
                let directory = "/etc/caddy/buildbot-conda";
                SiteFiles {
                    site: context.path(&format!("{directory}/{reference}.caddy")),
                    link: None,
                    import: Some((
                        context.path(CADDYFILE),
                        format!("import {directory}/*.caddy\n"),
                    )),
                }
            }
        }
    }

    /// Whether its own check accepts its files.
    pub(crate) fn check(self) -> anyhow::Result<()> {
        let mut command = match self {
            Self::Nginx => {
                let mut command = Command::new("nginx");
                command.args(["-q", "-t"]);
                command
            }
            Self::Caddy => {
                // As the account of its service: that has to be able to read a certificate's key as well.
                let mut command = Command::new("runuser");
                command
                    .args(["-u", "caddy", "--", "caddy", "validate"])
                    .args(["--adapter", "caddyfile", "--config", CADDYFILE])
                    .env("HOME", "/var/lib/caddy");
                command
            }
        };
        let output = command.stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("check the files of {self}"))?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let is_reason = |line: &&str| line.contains("[emerg]") || line.starts_with("Error");
        let reason = text.lines().find(is_reason).or(text.lines().next_back());
        bail!(
            "{self} rejects its files: {}",
            ForeignText::new(reason.unwrap_or("no reason given"))
        )
    }

    /// Makes it read its files again. If it does not run, it reads them when it starts.
    pub(crate) fn reload(self) -> anyhow::Result<()> {
        let unit = self.unit();
        if systemd::is_booted() && systemd::is_running(&unit)? {
            systemctl(&["reload", "--", &unit])?;
        }
        Ok(())
    }
}

impl fmt::Display for Front {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The file of root with the passwords for the front of a master.
pub(crate) fn people_file(reference: &InstanceRef, context: &Context) -> PathBuf {
    context.path(PEOPLE).join(format!("{reference}.htpasswd"))
}

/// Where these are.
pub(crate) const PEOPLE: &str = "/etc/buildbot-conda/web";

/// A path as the front's files have it: without the root directory of `--root`.
pub(crate) fn absolute(path: &Path, context: &Context) -> String {
    let root = context.path("/");
    let below = path.strip_prefix(&root).unwrap_or(path);
    Path::new("/").join(below).display().to_string()
}
