//! `adopt --undo`: the steps that the last adoption wrote down, with what runs now stopped before
//! and started after.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, bail};
use buildbot_conda_core::names::Unit;

use super::steps::{BACKUPS, RECORD, backups};
use crate::plan::{self, FileStep, Plan, Step, UnitStep};
use crate::system::context::Context;

pub(super) fn plan(context: &Context) -> anyhow::Result<Plan> {
    let Some((_, directory)) = backups(context)
        .into_iter()
        .rev()
        .find(|(_, directory)| directory.join(RECORD).is_file())
    else {
        return Ok(Plan {
            title: "adopt --undo".to_owned(),
            notes: vec![format!(
                "nothing was adopted on this host: `{BACKUPS}` contains no record of it"
            )],
            steps: Vec::new(),
        });
    };
    let record = directory.join(RECORD);
    let name = record.display();
    let text = fs::read_to_string(&record).with_context(|| format!("read `{name}`"))?;
    let recorded: Vec<Step> =
        serde_json::from_str(&text).with_context(|| format!("read `{name}`"))?;
    refuse_obstacles(&recorded)?;

    let is_live = !context.is_elsewhere();
    let mut running = BTreeSet::new();
    if is_live {
        for unit in units(&recorded) {
            if plan::is_running(&unit.to_string())? {
                running.insert(unit);
            }
        }
    }
    let renamed: Vec<(Unit, String)> = recorded
        .iter()
        .filter_map(|step| match step {
            Step::Unit(UnitStep::StartOther { name, unit }) => Some((unit.clone(), name.clone())),
            _ => None,
        })
        .collect();
    let mut steps = Vec::new();
    for unit in &running {
        steps.push(
            UnitStep::Stop {
                unit: unit.clone(),
                keep_builds: false,
            }
            .into(),
        );
    }
    let is_service = |step: &Step| matches!(step, Step::Unit(_));
    // The backup goes last: it is the one thing that nothing brings back.
    let is_of_backup = |step: &Step| match step {
        Step::File(FileStep::RemoveDirectory { path }) => {
            path.starts_with(&directory) || directory.starts_with(path)
        }
        _ => false,
    };
    let (of_backup, others): (Vec<Step>, Vec<Step>) = recorded
        .into_iter()
        .filter(|step| !is_service(step))
        .partition(is_of_backup);
    steps.extend(others);
    if is_live {
        steps.push(UnitStep::ReloadSystemd.into());
    }
    // What ran under another name runs again under that.
    for unit in running {
        let other = renamed.iter().find(|(other, _)| *other == unit);
        steps.push(match other {
            Some((_, name)) => UnitStep::StartOther {
                name: name.clone(),
                unit,
            }
            .into(),
            None => UnitStep::Start { unit }.into(),
        });
    }
    steps.push(
        FileStep::RemoveTree {
            path: directory.clone(),
        }
        .into(),
    );
    steps.extend(of_backup.into_iter().filter(
        |step| matches!(step, Step::File(FileStep::RemoveDirectory { path }) if !path.starts_with(&directory)),
    ));
    Ok(Plan {
        title: "adopt --undo".to_owned(),
        notes: Vec::new(),
        steps,
    })
}

/// The units whose files come back.
fn units(recorded: &[Step]) -> BTreeSet<Unit> {
    let mut units = BTreeSet::new();
    for step in recorded {
        match step {
            Step::Unit(
                UnitStep::Stop { unit, .. }
                | UnitStep::Start { unit }
                | UnitStep::StartOther { unit, .. },
            ) => {
                units.insert(unit.clone());
            }
            Step::File(FileStep::Move { to, .. }) => {
                let name = to.file_name().and_then(|name| name.to_str());
                units.extend(name.and_then(|name| name.parse::<Unit>().ok()));
            }
            _ => {}
        }
    }
    units
}

/// What somebody has put in a place since is not overwritten.
fn refuse_obstacles(recorded: &[Step]) -> anyhow::Result<()> {
    let links: Vec<_> = recorded
        .iter()
        .filter_map(|step| match step {
            Step::File(FileStep::Remove { path }) => Some(path),
            _ => None,
        })
        .collect();
    for step in recorded {
        if let Step::File(FileStep::Move { from, to }) = step
            && from.symlink_metadata().is_ok()
            && to.symlink_metadata().is_ok()
            && !links.contains(&to)
        {
            bail!(
                "`{}` exists again, and would be overwritten\nhint: move it away first",
                to.display()
            );
        }
    }
    Ok(())
}
