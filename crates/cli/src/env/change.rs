//! Another generation shall serve: it is tried for every instance, the link is switched, the instances begin anew one
//! after the other, and when one does not serve, all is as it was.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use buildbot_conda_core::settings::Instance;
use buildbot_conda_environments::{Environment, GenerationId, Lock};

use super::{instances, trial};
use crate::context::{Context, InvalidConfiguration};

/// What is to be changed.
pub(super) struct Change<'a> {
    pub(super) environment: &'a Environment,
    pub(super) from: &'a GenerationId,
    pub(super) to: &'a GenerationId,
    /// Instances go on with the old generation until somebody restarts them.
    pub(super) leave_running: bool,
}

/// Whether the configuration can be read is found out first, and nothing is touched when it cannot. On an error, what
/// served before serves.
pub(super) fn carry_out(change: &Change<'_>, lock: &Lock, context: &Context) -> anyhow::Result<()> {
    let Change {
        environment,
        from,
        to,
        ..
    } = *change;
    if context.is_elsewhere() {
        return Ok(environment.switch(to, lock)?);
    }
    let settings = context.settings()?;
    settings.check().map_err(InvalidConfiguration::from)?;
    let followers = instances::followers(&settings, environment.name());
    let mut upgrading = Vec::new();
    for instance in &followers {
        // A directory that is not set up yet has nothing to be tried with.
        if !PathBuf::from(instance.directory.as_str())
            .join("buildbot.tac")
            .exists()
        {
            continue;
        }
        let outcome = trial::attempt(instance, &environment.prefix(to))?;
        let reference = &instance.reference;
        eprintln!(
            "{reference}: would run Buildbot {} from it",
            outcome.buildbot
        );
        if outcome.upgrades {
            eprintln!("{reference}: its start backs up the database and upgrades it");
            upgrading.push(reference);
        }
    }
    environment.begin_change(from, lock)?;
    environment.switch(to, lock)?;
    if !change.leave_running {
        let mut touched: Vec<&Instance> = Vec::new();
        for instance in followers {
            if !instances::is_running(instance)? {
                continue;
            }
            eprintln!("{}: restarting", instance.reference);
            touched.push(instance);
            if let Err(failure) = instances::restart(instance, context) {
                let back = go_back(change, lock, &touched, &upgrading);
                environment.end_change(lock)?;
                return Err(match back {
                    Ok(()) => failure.context(format!(
                        "`{}` is back at generation {from}, and its instances with it",
                        environment.name()
                    )),
                    Err(error) => {
                        anyhow!("{error:#}").context(failure.context("and going back failed too"))
                    }
                });
            }
        }
    }
    Ok(environment.end_change(lock)?)
}

/// The old generation serves again, and every instance that was touched with it.
fn go_back(
    change: &Change<'_>,
    lock: &Lock,
    touched: &[&Instance],
    upgrading: &[&buildbot_conda_core::names::InstanceRef],
) -> anyhow::Result<()> {
    change.environment.switch(change.from, lock)?;
    let mut outcome = Ok(());
    for instance in touched.iter().rev() {
        let reference = &instance.reference;
        eprintln!("{reference}: going back");
        let went = instances::stop(instance).and_then(|()| {
            // The old Buildbot does not know the new schema.
            let is_upgraded = upgrading.contains(&reference)
                && trial::attempt(instance, &change.environment.prefix(change.from)).is_err();
            if is_upgraded {
                instances::restore_database(reference)?;
            }
            instances::start(instance)
        });
        outcome = outcome.and(went.with_context(|| format!("bring `{reference}` back")));
    }
    outcome
}
