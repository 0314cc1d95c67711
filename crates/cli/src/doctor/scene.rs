//! What doctor examines, gathered once: the instances, the state of their units in systemd, the accounts, and the
//! caller.

use std::collections::BTreeMap;

use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::settings::{Instance, Settings};
use buildbot_conda_core::values::AccountName;
use buildbot_conda_host::unit_files::UnitFiles;

use super::finding::{Check, Finding};
use crate::inside::access::Obstacle;
use crate::survey;
use crate::system::accounts::{self, User};
use crate::system::context::Context;
use crate::system::systemd::{self, Unit};

/// Asked of systemd, org.freedesktop.systemd1(5).
const PROPERTIES: &str = "Id,LoadState,ActiveState,SubState,Result,MainPID,ExecMainStatus,StatusText,\
                          ConditionResult,StateChangeTimestampMonotonic,UnitFileState,FragmentPath,\
                          DropInPaths,NeedDaemonReload,Environment,ExecMainStartTimestamp";

/// Everything that the checks share.
pub(super) struct Scene<'a> {
    pub(super) context: &'a Context,
    pub(super) settings: Option<&'a Settings>,
    /// Those asked for, without those that the configuration is wrong about.
    pub(super) instances: Vec<&'a Instance>,
    pub(super) checks: Vec<Check>,
    /// The unit files on disk, whatever systemd has read.
    pub(super) unit_files: UnitFiles,
    /// By the name of the unit; empty if systemd is not running.
    units: BTreeMap<String, Unit>,
    accounts: BTreeMap<String, User>,
    uid: u32,
}

/// Who looks at an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Viewer {
    Root,
    /// The service user himself.
    Owner,
    /// Another account, which sees what everyone can see.
    Other,
    /// Any caller, below a root directory.
    Elsewhere,
}

impl<'a> Scene<'a> {
    pub(super) fn new(
        settings: Option<&'a Settings>,
        reference: Option<&InstanceRef>,
        checks: &[Check],
        context: &'a Context,
    ) -> anyhow::Result<Self> {
        let instances: Vec<&Instance> = settings
            .into_iter()
            .flat_map(Settings::instances)
            .filter(|instance| reference.is_none_or(|wanted| *wanted == instance.reference))
            .collect();
        let names: Vec<String> = instances
            .iter()
            .map(|instance| instance.reference.unit_name())
            .collect();
        let mut scene = Self {
            context,
            settings,
            instances,
            checks: checks.to_vec(),
            unit_files: context.unit_files(),
            units: BTreeMap::new(),
            accounts: BTreeMap::new(),
            uid: rustix::process::geteuid().as_raw(),
        };
        if scene.has_systemd() && !names.is_empty() {
            scene.units = systemd::ask(&names, PROPERTIES)?;
        }
        let users = settings.into_iter().flat_map(Settings::instances);
        for user in users.map(|instance| instance.user.as_str()) {
            if !scene.accounts.contains_key(user)
                && let Some(account) = accounts::find(user, context)?
            {
                scene.accounts.insert(user.to_owned(), account);
            }
        }
        Ok(scene)
    }

    /// Whether a check is asked for.
    pub(super) fn wants(&self, check: Check) -> bool {
        self.checks.contains(&check)
    }

    /// Whether there is a running system with systemd to ask, `sd_booted(3)`.
    pub(super) fn has_systemd(&self) -> bool {
        systemd::runs(self.context)
    }

    /// Whether an owner of files counts as root: below a root directory, this is the caller.
    pub(super) fn is_roots(&self, owner: u32) -> bool {
        owner == 0 || self.context.is_elsewhere() && owner == self.uid
    }

    /// A command for the machine that is looked at: below a root directory, in there.
    pub(super) fn there<S: Into<String>>(&self, words: impl IntoIterator<Item = S>) -> Vec<String> {
        let words = words.into_iter().map(Into::into);
        if !self.context.is_elsewhere() {
            return words.collect();
        }
        let root = self.context.path("/").to_string_lossy().into_owned();
        ["chroot".to_owned(), root]
            .into_iter()
            .chain(words)
            .collect()
    }

    /// A command of this program for the machine that is looked at.
    pub(super) fn ours<'w>(&self, words: impl IntoIterator<Item = &'w str>) -> Vec<String> {
        let mut all = vec!["buildbot-conda".to_owned()];
        if self.context.is_elsewhere() {
            let root = self.context.path("/").to_string_lossy().into_owned();
            all.extend(["--root".to_owned(), root]);
        }
        all.extend(words.into_iter().map(str::to_owned));
        all
    }

    pub(super) fn viewer(&self, instance: &Instance) -> Viewer {
        if self.context.is_elsewhere() {
            Viewer::Elsewhere
        } else if self.uid == 0 {
            Viewer::Root
        } else if self
            .account(&instance.user)
            .is_some_and(|account| account.uid == self.uid)
        {
            Viewer::Owner
        } else {
            Viewer::Other
        }
    }

    /// The state of an instance's unit in systemd; none if systemd is not asked.
    pub(super) fn unit(&self, instance: &Instance) -> Option<&Unit> {
        self.units.get(&instance.reference.unit_name())
    }

    pub(super) fn account(&self, name: &AccountName) -> Option<&User> {
        self.accounts.get(name.as_str())
    }

    /// As [`survey::has_served`].
    pub(super) fn has_served(&self, instance: &Instance) -> bool {
        survey::has_served(&instance.reference, self.context)
    }

    /// The finding for a place of an instance that could not be examined: a problem if its own account could not,
    /// otherwise only the reason why nothing is known.
    pub(super) fn closed(
        &self,
        check: Check,
        instance: &Instance,
        obstacle: &Obstacle,
    ) -> Result<Finding, String> {
        match self.viewer(instance) {
            Viewer::Root | Viewer::Owner => {
                let seen = obstacle.sentence(instance.user.as_str());
                Ok(Finding::problem(check, Some(&instance.reference), seen))
            }
            Viewer::Other | Viewer::Elsewhere => Err(format!(
                "`{}` is closed to this account (mode {:04o})",
                obstacle.at, obstacle.mode
            )),
        }
    }

    /// As [`survey::is_set_up`].
    pub(super) fn is_set_up(&self, instance: &Instance) -> Option<bool> {
        survey::is_set_up(instance, self.context)
    }
}
