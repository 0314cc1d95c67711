//! Makes another generation current: it is tested with every instance, the running instances are restarted from it
//! (masters one after the other, workers several at a time if requested), and then the link is replaced. Only then is
//! it current; if the change fails before, `recovery` returns all instances to the previous generation.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use buildbot_conda_core::names::Role;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_environments::{Change as Note, Environment, GenerationId, Lock};
use clap::Args;

use super::instances;
use super::recovery::{self, Guard};
use crate::inside::trial;
use crate::system::context::{Context, InvalidConfiguration};
use crate::system::lanes;

/// How running instances are restarted.
#[derive(Debug, Args)]
pub(super) struct Restarts {
    /// Do not restart running instances; they use their generation until the next restart
    #[arg(long)]
    pub(super) no_restart: bool,
    /// Restart up to N workers at the same time, each after its builds
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "no_restart",
          value_parser = clap::value_parser!(u16).range(1..))]
    drain_together: u16,
}

/// What is to be changed.
pub(super) struct Change<'a> {
    pub(super) environment: &'a Environment,
    pub(super) from: &'a GenerationId,
    pub(super) to: &'a GenerationId,
    pub(super) restarts: &'a Restarts,
}

/// Whether the configuration can be read is found out first, and nothing is touched when it cannot. On an error, what
/// served before serves.
pub(super) fn carry_out(change: &Change<'_>, lock: &Lock, context: &Context) -> anyhow::Result<()> {
    let Change {
        environment,
        from,
        to,
        restarts,
    } = *change;
    if context.is_elsewhere() {
        return Ok(environment.switch(to, lock)?);
    }
    let settings = context.settings()?;
    settings.check().map_err(InvalidConfiguration::from)?;
    let mut running: Vec<&Instance> = Vec::new();
    for instance in instances::followers(&settings, environment.name()) {
        let is_running = instances::is_running(instance)?;
        try_for(instance, is_running, change)?;
        if is_running && !restarts.no_restart {
            running.push(instance);
        }
    }
    if running.is_empty() {
        return Ok(environment.switch(to, lock)?);
    }
    let note = Note {
        from: from.clone(),
        to: to.clone(),
        boot: recovery::boot()?,
        running: running
            .iter()
            .map(|instance| instance.reference.to_string())
            .collect(),
    };
    let guard = Guard::begin(environment)?;
    let in_force = environment.begin_change(&note, lock)?;
    // A master that does not serve from it is found out before the first worker goes.
    let (masters, workers): (Vec<&Instance>, Vec<&Instance>) = running
        .into_iter()
        .partition(|instance| instance.reference.role == Role::Master);
    for (group, together) in [(masters, 1), (workers, restarts.drain_together)] {
        let failed = lanes::each(&group, together.into(), |instance| {
            eprintln!("{}: restarting", instance.reference);
            instances::restart(instance, context)
        });
        if let Err(failure) = lanes::outcome(failed) {
            // From here on, new starts enter the old generation.
            drop(in_force);
            let back = recovery::bring_back(environment, &note, lock, context);
            guard.end();
            return Err(match back {
                Ok(()) => failure.context(format!(
                    "`{}` is back at generation {from}, and its instances were restarted",
                    environment.name()
                )),
                Err(error) => {
                    anyhow!("{error:#}").context(failure.context("and the rollback failed, too"))
                }
            });
        }
    }
    environment.switch(to, lock)?;
    environment.end_change(lock)?;
    drop(in_force);
    guard.end();
    Ok(())
}

/// An instance that does not run, and would not run from the old generation either, does not prevent the change.
fn try_for(instance: &Instance, is_running: bool, change: &Change<'_>) -> anyhow::Result<()> {
    let Change {
        environment,
        from,
        to,
        ..
    } = *change;
    // A directory that is not set up yet has nothing to be tried with.
    let tac = PathBuf::from(instance.directory.as_str()).join("buildbot.tac");
    if !tac.exists() {
        return Ok(());
    }
    let reference = &instance.reference;
    let attempt = |generation| trial::attempt(instance, &environment.prefix(generation));
    match attempt(to) {
        Ok(outcome) => {
            eprintln!("{reference}: would run Buildbot {}", outcome.buildbot);
            if outcome.upgrades {
                eprintln!("{reference}: its start will back up and upgrade the database");
            }
            Ok(())
        }
        Err(failure) if !is_running && attempt(from).is_err() => {
            eprintln!(
                "warning: {failure:#}\nit is not running, and generation {from} would fail as well"
            );
            Ok(())
        }
        Err(failure) => Err(failure).with_context(|| {
            format!(
                "`{}` remains at generation {from}, nothing was restarted",
                environment.name()
            )
        }),
    }
}
