//! The databases that the Buildbot of a generation has upgraded: an older one cannot read them, so they are rolled back
//! together or not at all.

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use buildbot_conda_core::names::Role;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_environments::{EnvironmentName, GenerationId, Lock};

use super::change::Change;
use super::instances;
use crate::system::as_user;
use crate::system::context::{Context, InvalidConfiguration};
use crate::system::systemd;

/// Masters of an environment, each with the name of the backup from before the upgrade.
#[derive(Default)]
pub(super) struct Databases {
    /// All instances of the environment that run.
    running: Vec<Instance>,
    masters: Vec<(Instance, String)>,
}

impl Databases {
    /// Those whose last upgrade was by the generation that is to be left.
    pub(super) fn upgraded_by(change: &Change<'_>, context: &Context) -> anyhow::Result<Self> {
        let mut found = Self {
            running: Vec::new(),
            masters: Vec::new(),
        };
        if context.is_elsewhere() {
            return Ok(found);
        }
        let settings = context.settings()?;
        settings.check().map_err(InvalidConfiguration::from)?;
        let prefix = change.environment.prefix(change.from);
        for instance in instances::followers(&settings, change.environment.name()) {
            if instances::is_running(instance)? {
                found.running.push(instance.clone());
            }
            let is_set_up = Path::new(instance.directory.as_str()).join("buildbot.tac");
            if instance.reference.role != Role::Master || !is_set_up.exists() {
                continue;
            }
            let reference = instance.reference.to_string();
            let words = [
                "restore".into(),
                "--of-upgrade".into(),
                prefix.clone().into(),
            ];
            let words: Vec<_> = words
                .into_iter()
                .chain(["--".into(), reference.into()])
                .collect();
            let name = as_user::obtain(instance, &words)?;
            if !name.trim().is_empty() {
                found
                    .masters
                    .push((instance.clone(), name.trim().to_owned()));
            }
        }
        Ok(found)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.masters.is_empty()
    }

    /// The way out, where a rollback of the environment alone was refused.
    pub(super) fn with_hint(&self, error: anyhow::Error, name: &EnvironmentName) -> anyhow::Error {
        if self.is_empty() {
            return error;
        }
        anyhow!(
            "{error:#}\nhint: `buildbot-conda env rollback {name} --with-database` also restores the database from \
             before the upgrade; builds since then are lost"
        )
    }

    /// Stops the masters, switches, restores, and starts what ran. Where a database cannot be restored, what served before
    /// serves again.
    pub(super) fn roll_back(&self, change: &Change<'_>, lock: &Lock) -> anyhow::Result<()> {
        for (instance, _) in &self.masters {
            systemd::stop(&instance.reference.unit_name())?;
        }
        change.environment.switch(change.to, lock)?;
        if let Err(error) = self.restore() {
            change.environment.switch(change.from, lock)?;
            self.restart();
            let from: &GenerationId = change.from;
            return Err(error.context(format!(
                "`{}` is back at generation {from}",
                change.environment.name()
            )));
        }
        self.restart();
        Ok(())
    }

    fn restore(&self) -> anyhow::Result<()> {
        for (instance, backup) in &self.masters {
            let reference = instance.reference.to_string();
            let words = ["restore", "--", &reference, backup].map(Into::into);
            as_user::obtain(instance, &words)
                .with_context(|| format!("restore the database of `{reference}`"))?;
        }
        Ok(())
    }

    /// Starts again what ran; what does not start is reported, and keeps nothing else from it.
    fn restart(&self) {
        for instance in &self.running {
            let unit = instance.reference.unit_name();
            if let Err(error) = systemd::systemctl(&["restart", "--", &unit]) {
                eprintln!("warning: {error:#}");
            }
        }
    }
}

/// What is lost.
impl fmt::Display for Databases {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (instance, backup) in &self.masters {
            writeln!(
                formatter,
                "{}: its database is restored from `{backup}`; builds since then are lost, except in a backup that is made now",
                instance.reference
            )?;
        }
        Ok(())
    }
}
