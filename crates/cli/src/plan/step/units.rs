//! Steps with systemd and its units.

use std::fmt;
use std::path::{Path, PathBuf};

use buildbot_conda_core::names::{Role, Unit};
use buildbot_conda_core::paths;
use serde::{Deserialize, Serialize};

use super::files::FileStep;
use super::{Deed, Step, Undo};
use crate::output::harmless;
use crate::plan::systemd;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum UnitStep {
    /// `systemctl stop`, after which nothing runs; with `keep_builds` a Buildbot of somebody else's
    /// unit is first told to keep its builds for its next start.
    Stop { unit: Unit, keep_builds: bool },
    /// The same of a unit with another name than ours, in whose place `unit` comes.
    StopOther { name: String, unit: Unit },
    /// The same where the Buildbot in `directory` is not in the unit's control group, and systemd does not stop it.
    StopOutside {
        directory: PathBuf,
        name: String,
        unit: Unit,
    },
    /// `systemctl start` of such a unit.
    StartOther { name: String, unit: Unit },
    /// `systemctl stop`, before which a worker that can finishes its builds.
    StopAfterBuilds { unit: Unit },
    /// `systemctl start`, to the moment at which the unit says that it serves.
    Start { unit: Unit },
    /// `systemctl daemon-reload`: also has the generator read the configuration.
    ReloadSystemd,
    /// `systemctl reload` of a master that runs, which checks its configuration first. What it
    /// refuses is a failure where it is `required`, and reported otherwise.
    Reload { unit: Unit, required: bool },
    /// A worker is at its master, or at least tries where nobody knows whether there is one.
    AwaitConnection { unit: Unit, required: bool },
}

impl fmt::Display for UnitStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stop {
                unit,
                keep_builds: true,
            } => write!(
                formatter,
                "stop `{unit}`; running builds are retried after the start"
            ),
            Self::StopOther { name, unit } if unit.reference().role == Role::Master => write!(
                formatter,
                "stop `{name}`; running builds are retried after the start"
            ),
            Self::StopOther { name, .. } => write!(formatter, "stop `{name}`"),
            Self::StopOutside {
                directory,
                name,
                unit,
            } => {
                let directory = harmless(&directory.display().to_string());
                let role = unit.reference().role;
                write!(
                    formatter,
                    "stop the {role} in `{directory}`, which runs outside of `{name}`, and `{name}`"
                )?;
                match role {
                    Role::Master => {
                        write!(formatter, "; running builds are retried after the start")
                    }
                    Role::Worker => Ok(()),
                }
            }
            Self::StartOther { name, .. } => write!(formatter, "start `{name}`"),
            Self::Stop { unit, .. } => write!(formatter, "stop `{unit}`"),
            Self::StopAfterBuilds { unit } => {
                write!(
                    formatter,
                    "stop `{unit}`, after running builds if it can drain"
                )
            }
            Self::Start { unit } => write!(formatter, "start `{unit}`, and wait until it is ready"),
            Self::ReloadSystemd => write!(formatter, "reload systemd units"),
            Self::Reload { unit, .. } => write!(
                formatter,
                "check the configuration of `{unit}`, and reload it"
            ),
            Self::AwaitConnection { unit, .. } => {
                write!(formatter, "wait until `{unit}` is connected to its master")
            }
        }
    }
}

impl Deed for UnitStep {
    fn undo(&self) -> anyhow::Result<Undo> {
        Ok(match self {
            Self::Stop { unit, .. } | Self::StopAfterBuilds { unit }
                if systemd::is_running(&unit.to_string())? =>
            {
                let start = Self::Start { unit: unit.clone() };
                Undo::Steps(vec![Self::ReloadSystemd.into(), start.into()])
            }
            Self::StopOther { name, unit } | Self::StopOutside { name, unit, .. }
                if systemd::is_running(name)? =>
            {
                let (name, unit) = (name.clone(), unit.clone());
                let start = Self::StartOther { name, unit };
                Undo::Steps(vec![Self::ReloadSystemd.into(), start.into()])
            }
            Self::Start { unit } if !systemd::is_running(&unit.to_string())? => {
                Undo::Steps(stop_and_clear(unit))
            }
            Self::ReloadSystemd => Undo::by(Self::ReloadSystemd),
            Self::Stop { .. }
            | Self::StopOther { .. }
            | Self::StopOutside { .. }
            | Self::StartOther { .. }
            | Self::StopAfterBuilds { .. }
            | Self::Start { .. }
            | Self::Reload { .. }
            | Self::AwaitConnection { .. } => Undo::nothing(),
        })
    }

    fn perform(&self) -> anyhow::Result<()> {
        match self {
            Self::Stop { unit, keep_builds } => systemd::stop(&unit.to_string(), *keep_builds),
            Self::StopOther { name, unit } => {
                systemd::stop(name, unit.reference().role == Role::Master)
            }
            Self::StopOutside {
                directory, name, ..
            } => {
                systemd::stop_outside(directory)?;
                systemd::stop(name, false)
            }
            Self::StartOther { name, .. } => systemd::start(name),
            Self::StopAfterBuilds { unit } => systemd::stop_after_builds(unit),
            Self::Start { unit } => systemd::start(&unit.to_string()),
            // Without systemd there is nothing that has to be read again; the next boot reads it.
            Self::ReloadSystemd if !systemd::is_booted() => Ok(()),
            Self::ReloadSystemd => systemd::reload(),
            Self::Reload { unit, required } => systemd::reload_unit(&unit.to_string(), *required),
            Self::AwaitConnection { unit, required } => {
                systemd::await_connection(unit.reference(), *required)
            }
        }
    }

    fn relies_on_others(&self) -> bool {
        *self != Self::ReloadSystemd
    }
}

/// Stops a unit that is started for the first time, and removes what systemd makes for that.
fn stop_and_clear(unit: &Unit) -> Vec<Step> {
    let reference = unit.reference();
    let made = [
        PathBuf::from(paths::state_directory(reference)),
        PathBuf::from(paths::backup_directory(reference)),
        Path::new(paths::RUN).join(reference.to_string()),
    ];
    let stop = UnitStep::Stop {
        unit: unit.clone(),
        keep_builds: false,
    };
    let new = made.into_iter().filter(|path| !path.exists());
    let remove = new.map(|path| FileStep::RemoveTree { path }.into());
    std::iter::once(stop.into()).chain(remove).collect()
}
